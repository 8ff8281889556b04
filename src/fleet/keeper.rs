//! The one task that hears of every sidecar, holds the rules against it, and writes the file.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

use super::config::Fleet;
use super::file::Version;
use super::follow::News;
use super::page::View;
use super::rules::{Known, Ruling, rule};
use crate::clock::Clock;
use crate::log::Seldom;
use crate::systemd::Systemd;

/// How long a file that is there already stands, at most, while sidecars are heard for the first time:
/// a restart of this process alone must not take every node out.
const START: Duration = Duration::from_secs(1);
/// After a failure to write, until the next try.
const AGAIN: Duration = Duration::from_secs(1);
/// A silence that is noticed later than this was this process's own.
const LATE: Duration = Duration::from_secs(1);

/// Hears, rules, and writes.
#[derive(Debug)]
pub(super) struct Keeper {
    fleet: Arc<Fleet>,
    nodes: Vec<Followed>,
    rulings: Vec<Ruling>,
    /// The file as it was last written.
    written: Option<Version>,
    writes: u64,
    /// Why it could not be, and when the next try is due.
    trouble: Option<(String, Instant)>,
    shown: Arc<ArcSwap<View>>,
    clock: Clock,
    systemd: Systemd,
    seldom: Seldom,
}

/// One node, and the way to its sidecar.
#[derive(Clone, Debug, Default)]
pub(super) struct Followed {
    pub(super) known: Known,
    /// Until when its last word counts; `None` before the first, and once it does not any more.
    until: Option<Instant>,
    pub(super) link: Link,
}

/// The way to a sidecar.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Link {
    /// Not tried to its end yet.
    #[default]
    New,
    /// It speaks.
    Open,
    /// There is none, and why.
    Lost(String),
}

impl Keeper {
    /// A keeper that has heard nothing yet, and what it shows.
    pub(super) fn new(
        fleet: Arc<Fleet>,
        clock: Clock,
        systemd: Systemd,
    ) -> (Self, Arc<ArcSwap<View>>) {
        let nodes = vec![Followed::default(); fleet.nodes.len()];
        let known: Vec<Known> = nodes.iter().map(|node| node.known.clone()).collect();
        let rulings = rule(&known, &fleet.service, fleet.min_available);
        let view = View::of(&fleet, &nodes, &rulings, (None, 0), None);
        let shown = Arc::new(ArcSwap::from_pointee(view));
        let keeper = Self {
            fleet,
            nodes,
            rulings,
            written: None,
            writes: 0,
            trouble: None,
            shown: Arc::clone(&shown),
            clock,
            systemd,
            seldom: Seldom::default(),
        };
        (keeper, shown)
    }

    /// Keeps the file, for ever. `first` hears how the first writing went.
    pub(super) async fn run(
        mut self,
        mut inbox: mpsc::Receiver<(usize, News)>,
        first: oneshot::Sender<Result<()>>,
    ) {
        if self.fleet.output.exists() {
            self.hear_all_once(&mut inbox).await;
        }
        self.settle().await;
        let done = match &self.trouble {
            None => Ok(()),
            Some((why, _)) => Err(anyhow::anyhow!("{why}")).with_context(|| {
                let path = self.fleet.output.display();
                format!(
                    "cannot write {path}; its folder must be there, and this user's to write to"
                )
            }),
        };
        if first.send(done).is_err() {
            return;
        }
        loop {
            let silence = self.nodes.iter().filter_map(|node| node.until).min();
            let again = self.trouble.as_ref().map(|(_, at)| *at);
            let changed = tokio::select! {
                // What was said comes before the clock.
                biased;
                Some((at, news)) = inbox.recv() => self.hear(at, news),
                Some(()) = due(again) => true,
                Some(()) = due(silence) => self.miss(),
                else => return,
            };
            if changed {
                self.settle().await;
            }
        }
    }

    /// Hears each sidecar, or that it cannot be heard, once; but not for long.
    async fn hear_all_once(&mut self, inbox: &mut mpsc::Receiver<(usize, News)>) {
        let end = Instant::now() + START;
        while self.nodes.iter().any(|node| node.link == Link::New) {
            tokio::select! {
                Some((at, news)) = inbox.recv() => { self.hear(at, news); }
                () = sleep_until(end) => return,
            }
        }
    }

    /// Notes what there is to hear; says whether anything is other than before.
    fn hear(&mut self, at: usize, news: News) -> bool {
        let Some(node) = self.nodes.get_mut(at) else { return false };
        match news {
            News::Lost(why) => {
                let link = Link::Lost(why);
                std::mem::replace(&mut node.link, link.clone()) != link
            }
            News::Heard { mut words, all, counts } => {
                // Of a sidecar's many services no more is kept than is needed.
                let service = &*self.fleet.service;
                words.retain(|name, _| name == service || name == "read" || name == "write");
                node.until = Some(Instant::now() + counts);
                let mut known = Known { silent: false, ..node.known.clone() };
                if all {
                    known.words = words;
                } else {
                    known.words.extend(words);
                }
                let link = std::mem::replace(&mut node.link, Link::Open);
                let changed = known != node.known || link != Link::Open;
                node.known = known;
                changed
            }
        }
    }

    /// Notes who has been silent for too long; says whether anybody has.
    fn miss(&mut self) -> bool {
        let now = Instant::now();
        let mut missed = false;
        for node in &mut self.nodes {
            let Some(until) = node.until.filter(|until| *until <= now) else { continue };
            if now.duration_since(until) > LATE {
                // This process was held up itself, and what was said meanwhile is still to be read.
                node.until = Some(now + LATE);
            } else {
                node.until = None;
                node.known.silent = true;
                missed = true;
            }
        }
        missed
    }

    /// Brings the file and the page up to date.
    async fn settle(&mut self) {
        let known: Vec<Known> = self.nodes.iter().map(|node| node.known.clone()).collect();
        let rulings = rule(&known, &self.fleet.service, self.fleet.min_available);
        self.tell(&rulings);
        let version = Version::of(&self.fleet, &rulings);
        self.rulings = rulings;
        if self.written.as_ref() != Some(&version) {
            self.write(version).await;
        }
        let written = self.written.as_ref().map(|version| version.info.clone());
        let trouble = self.trouble.as_ref().map(|(why, _)| why.clone());
        let view =
            View::of(&self.fleet, &self.nodes, &self.rulings, (written, self.writes), trouble);
        self.shown.store(Arc::new(view));
    }

    async fn write(&mut self, version: Version) {
        let (fleet, new) = (Arc::clone(&self.fleet), version.clone());
        let writing = tokio::task::spawn_blocking(move || new.write(&fleet.output)).await;
        match writing.map_err(std::io::Error::other).and_then(|done| done) {
            Ok(()) => {
                if self.trouble.take().is_some() {
                    info!(output = %self.fleet.output.display(), "The file can be written again.");
                }
                self.written = Some(version);
                self.writes += 1;
            }
            Err(e) => {
                if let Some(more) = self.seldom.pass(self.clock.now()) {
                    let output = self.fleet.output.display();
                    error!(%output, more, "Cannot write the file, so Envoy goes on by the last one: {e}.");
                }
                self.trouble = Some((e.to_string(), Instant::now() + AGAIN));
            }
        }
    }

    /// Logs what becomes of nodes.
    fn tell(&self, rulings: &[Ruling]) {
        for ((node, now), before) in self.fleet.nodes.iter().zip(rulings).zip(&self.rulings) {
            let (node, health) = (&*node.name, now.health);
            match (before.kept, now.kept) {
                (false, true) => {
                    warn!(node, "Kept in although it is not good: too few nodes are.");
                }
                (true, false) => info!(node, ?health, "Not kept in any more."),
                _ if before.health != health => info!(node, ?health, "It is another way now."),
                _ => {}
            }
        }
        let within = rulings.iter().filter(|ruling| ruling.health.is_in()).count();
        let kept = rulings.iter().filter(|ruling| ruling.kept).count();
        let all = rulings.len();
        self.systemd.status(&format!("{within} of {all} nodes in, {kept} of them kept"));
    }
}

/// The moment, where there is one.
async fn due(at: Option<Instant>) -> Option<()> {
    sleep_until(at?).await;
    Some(())
}
