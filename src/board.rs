//! What listeners read: the answers of every service, prepared when a verdict changed.
//!
//! There is one writer, the judge. A listener holds only this board; it never asks the node, and it
//! checks itself whether the judge's word is still fresh, so that a stuck judge cannot leave an old
//! "up" standing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::sleep_until;

use crate::clock::Clock;
use crate::config::Config;
use crate::counts::{Counts, ServiceCounts};
use crate::health::{Facts, Moment, Server, Since, Verdict};
use crate::serve::Words;
use crate::serve::accept::Peer;
use crate::serve::askers::Askers;

/// The answers of every service.
#[derive(Debug)]
pub struct Board {
    /// The clock by which moments are meant.
    pub clock: Clock,
    /// The last look at the node.
    pub node: watch::Receiver<Arc<NodeView>>,
    /// When the sidecar started.
    pub started: Moment,
    /// The last generation of operators' orders that is in what is said.
    pub applied: watch::Receiver<u64>,
    /// Who asks.
    pub askers: Askers,
    /// What has happened.
    pub counts: Arc<Counts>,
    table: Arc<ArcSwap<Table>>,
    fresh: Arc<Freshness>,
    ready: Arc<AtomicBool>,
}

/// What one configuration puts on the board; another one replaces it whole.
#[derive(Debug)]
pub struct Table {
    /// The services, in the order of their names.
    pub services: Vec<Arc<ServiceBoard>>,
    /// What follows from the configuration alone.
    pub fixed: Fixed,
    default: usize,
}

/// One service's answers.
#[derive(Debug)]
pub struct ServiceBoard {
    /// The service's name.
    pub name: Arc<str>,
    /// What has happened to it.
    pub counts: Arc<ServiceCounts>,
    clock: Clock,
    current: watch::Receiver<Arc<Answers>>,
    stale: Arc<Answers>,
    fresh: Arc<Freshness>,
    looks: watch::Receiver<Arc<NodeView>>,
}

/// A verdict, and how each protocol says it.
#[derive(Debug)]
pub struct Answers {
    /// The service.
    pub service: Arc<str>,
    /// The verdict.
    pub verdict: Verdict,
    /// Its words.
    pub words: Words,
}

/// The last look at the node, for showing.
#[derive(Debug, Default)]
pub struct NodeView {
    /// When it finished; `None` before the first has.
    pub finished: Option<Moment>,
    /// How long the node took.
    pub took: Duration,
    /// Why it saw nothing: a code, and a sentence.
    pub failure: Option<(&'static str, String)>,
    /// What the last good look saw.
    pub facts: Option<Facts>,
    /// When that was; `None` before the first good one.
    pub seen: Option<Moment>,
    /// Since when each of its servers is usable or not, in their order.
    pub since: Vec<Since>,
}

impl NodeView {
    /// The servers of the last good look, each with since when it is usable or not.
    pub fn servers(&self) -> impl Iterator<Item = (&Server, Since)> {
        let servers = self.facts.iter().flat_map(|facts| &facts.servers);
        servers.zip(self.since.iter().copied())
    }
}

/// What follows from the configuration alone.
#[derive(Clone, Debug)]
pub struct Fixed {
    /// The node's URL.
    pub url: String,
    /// The node's directory.
    pub dir: Option<String>,
    /// The name that the node gives itself.
    pub nickname: String,
    /// Tells one configuration from another.
    pub config_hash: String,
    /// Where orders and verdicts are kept; `None` for in memory only.
    pub state_dir: Option<String>,
    /// How long a look counts.
    pub freshness: Duration,
}

/// Until when the last look counts.
#[derive(Debug)]
struct Freshness(AtomicU64);

impl Freshness {
    const NO_LIMIT: u64 = u64::MAX;

    fn is_over(&self, now: Moment) -> bool {
        let until = self.0.load(Ordering::Acquire);
        until != Self::NO_LIMIT && now.since_epoch().as_nanos() > u128::from(until)
    }

    fn until(&self) -> Option<Moment> {
        let until = self.0.load(Ordering::Acquire);
        (until != Self::NO_LIMIT).then(|| Moment::after_epoch(Duration::from_nanos(until)))
    }
}

/// The judge's end of a board.
#[derive(Debug)]
pub struct Publisher {
    /// One channel per service, in the board's order.
    pub services: Vec<watch::Sender<Arc<Answers>>>,
    /// The channel of looks.
    pub node: watch::Sender<Arc<NodeView>>,
    /// What has happened.
    pub counts: Arc<Counts>,
    clock: Clock,
    applied: watch::Sender<u64>,
    table: Arc<ArcSwap<Table>>,
    fresh: Arc<Freshness>,
    ready: Arc<AtomicBool>,
}

/// A service's place on a new board: the channel that it has already, or its first answers.
#[derive(Debug)]
pub enum Place {
    /// Those who wait for a change go on waiting.
    Kept(watch::Sender<Arc<Answers>>),
    /// It is new.
    New(Box<Answers>),
}

impl Publisher {
    /// Replaces what is on the board by what this configuration wants. For each of its services there is
    /// a place, and what to say when the judge's word is stale.
    pub fn replace(&mut self, config: &Config, places: Vec<(Place, Answers)>) {
        let mut senders = Vec::new();
        let mut services = Vec::new();
        let old = self.table.load();
        for (service, (place, stale)) in config.services.iter().zip(places) {
            let sender = match place {
                Place::Kept(sender) => sender,
                Place::New(first) => watch::Sender::new(Arc::from(first)),
            };
            let counted = old.services.iter().find(|old| old.name == service.name);
            services.push(Arc::new(ServiceBoard {
                name: Arc::clone(&service.name),
                counts: counted.map(|old| Arc::clone(&old.counts)).unwrap_or_default(),
                clock: self.clock,
                current: sender.subscribe(),
                stale: Arc::new(stale),
                fresh: Arc::clone(&self.fresh),
                looks: self.node.subscribe(),
            }));
            senders.push(sender);
        }
        let default = services.iter().position(|s| s.name == config.default_service);
        let table = Table { services, fixed: Fixed::of(config), default: default.unwrap_or(0) };
        self.table.store(Arc::new(table));
        self.services = senders;
    }

    /// What has happened to the service of this place on the board.
    #[must_use]
    pub fn counts_of(&self, place: usize) -> Option<Arc<ServiceCounts>> {
        self.table.load().services.get(place).map(|service| Arc::clone(&service.counts))
    }

    /// Says until when the last look counts. It comes after the verdicts that follow from that
    /// look: else an old one would count again for a moment.
    pub fn fresh_until(&self, until: Moment) {
        let nanos =
            u64::try_from(until.since_epoch().as_nanos()).unwrap_or(Freshness::NO_LIMIT - 1);
        self.fresh.0.store(nanos, Ordering::Release);
    }

    /// Says which generation of operators' orders is in what is said.
    pub fn applied(&self, generation: u64) {
        self.applied
            .send_if_modified(|applied| std::mem::replace(applied, generation) != generation);
    }

    /// Says that every listener is bound and the first look has finished.
    pub fn ready(&self) {
        self.ready.store(true, Ordering::Release);
    }
}

impl Fixed {
    fn of(config: &Config) -> Self {
        let dir = config.node.dir.as_ref();
        Self {
            url: config.node.target.to_string(),
            dir: dir.map(|dir| dir.path.display().to_string()),
            nickname: dir.map(|dir| dir.nickname.clone()).unwrap_or_default(),
            config_hash: config.hash(),
            state_dir: config.state_dir.as_ref().map(|dir| dir.display().to_string()),
            freshness: config.node.freshness(),
        }
    }
}

impl Board {
    /// A board with nothing on it yet, and the judge's end of it.
    #[must_use]
    pub fn new(config: &Config, clock: Clock) -> (Self, Publisher) {
        let fresh = Arc::new(Freshness(AtomicU64::new(Freshness::NO_LIMIT)));
        let ready = Arc::new(AtomicBool::new(false));
        let node = watch::Sender::new(Arc::new(NodeView::default()));
        let empty = Table { services: Vec::new(), fixed: Fixed::of(config), default: 0 };
        let table = Arc::new(ArcSwap::from_pointee(empty));
        let applied = watch::Sender::new(0);
        let counts = Arc::new(Counts::default());
        let board = Self {
            clock,
            node: node.subscribe(),
            started: clock.now(),
            applied: applied.subscribe(),
            askers: Askers::default(),
            counts: Arc::clone(&counts),
            table: Arc::clone(&table),
            fresh: Arc::clone(&fresh),
            ready: Arc::clone(&ready),
        };
        let services = Vec::new();
        (board, Publisher { services, node, counts, clock, applied, table, fresh, ready })
    }

    /// What is on the board now.
    #[must_use]
    pub fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    /// The service of this name; the default one for an empty name.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<Arc<ServiceBoard>> {
        let table = self.table.load();
        if name.is_empty() {
            return table.services.get(table.default).cloned();
        }
        table.services.iter().find(|service| &*service.name == name).cloned()
    }

    /// Notes that this listener has told `peer` these answers.
    pub fn told(&self, listener: &'static str, peer: Peer, answers: &Answers) {
        let Answers { service, verdict, .. } = answers;
        self.askers.told(listener, peer, service, (verdict.seq, verdict.state), self.clock.now());
        let table = self.table.load();
        if let Some(service) = table.services.iter().find(|known| known.name == *service) {
            service.counts.told(listener, verdict);
        }
    }

    /// Until when the last look counts; `None` before the first has finished.
    #[must_use]
    pub fn fresh_until(&self) -> Option<Moment> {
        self.fresh.until()
    }

    /// Whether every listener is bound and the first look has finished.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }
}

impl ServiceBoard {
    /// The answers that hold now.
    #[must_use]
    pub fn answers(&self) -> Arc<Answers> {
        let current = self.current.borrow();
        // What the judge itself says of being stale says more.
        if self.fresh.is_over(self.clock.now()) && !current.verdict.is_stale() {
            Arc::clone(&self.stale)
        } else {
            Arc::clone(&current)
        }
    }

    /// Something that tells two answers apart: the verdict's sequence, which is zero for the word of a
    /// stuck judge.
    #[must_use]
    pub fn tag(&self) -> u64 {
        self.answers().verdict.seq
    }

    /// When these answers' state began: a stuck judge cannot say when its word ran out.
    #[must_use]
    pub fn since(&self, answers: &Answers) -> Moment {
        let ran_out = if answers.verdict.seq == 0 { self.fresh.until() } else { None };
        ran_out.unwrap_or(answers.verdict.since)
    }

    /// Ends when the answer is another one than that of `tag`, be it by time alone.
    pub async fn changed(&self, tag: u64) {
        let (mut changes, mut looks) = (self.current.clone(), self.looks.clone());
        changes.mark_unchanged();
        looks.mark_unchanged();
        while self.tag() == tag {
            let going_stale = async {
                match self.fresh.until().filter(|until| *until >= self.clock.now()) {
                    Some(until) => {
                        sleep_until(self.clock.instant(until) + Duration::from_millis(1)).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                moved = changes.changed() => if moved.is_err() { return },
                // A look may make the last verdict fresh again without changing it.
                looked = looks.changed() => if looked.is_err() { return },
                () = going_stale => {}
            }
        }
    }
}
