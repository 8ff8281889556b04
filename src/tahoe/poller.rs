//! Looking at the node, again and again.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::cfg::KEEPALIVE;
use super::client::{Connection, Failed};
use super::files::aside;
use super::identity::Identity;
use super::page::Reader;
use super::{Extras, NodeDir, Way};
use crate::clock::Clock;
use crate::health::{Facts, FailureKind, Observation, ProbeFailure};

/// Takes one look at a time.
#[derive(Debug)]
pub struct Prober {
    way: Way,
    timeout: Duration,
    clock: Clock,
    reader: Reader,
    extras: Extras,
    /// What the node has written of its process, when it was last looked at.
    process: Option<String>,
    /// A connection to what is known to be the node, as long as that process runs.
    kept: Option<Connection>,
}

const STATUS_PAGE: &str = "/?t=json";

impl Prober {
    /// A prober for the node there; `dir` is its directory.
    #[must_use]
    pub fn new(way: Way, dir: Option<&NodeDir>, timeout: Duration, clock: Clock) -> Self {
        let keepalive = dir.map_or(KEEPALIVE, |dir| dir.keepalive);
        Self {
            way,
            timeout,
            clock,
            reader: Reader::new(keepalive),
            extras: Extras::default(),
            process: None,
            kept: None,
        }
    }

    /// Looks at this, too.
    #[must_use]
    pub fn with(self, extras: Extras) -> Self {
        Self { extras, ..self }
    }

    /// Looks once. It ends, well or badly, within the timeout; the first look within twice that.
    pub async fn look(&mut self) -> Observation {
        // Once: what was up goes on being up only if the first look knows as much as the last one did.
        let _ = timeout(self.timeout, self.extras.first_results()).await;
        let started = self.clock.now();
        let seen = match timeout(self.timeout, self.seek()).await {
            Ok(seen) => seen,
            Err(_) => Err(ProbeFailure::new(
                FailureKind::Timeout,
                format!("no answer within {}", humantime::format_duration(self.timeout)),
            )),
        };
        let finished = self.clock.now();
        match seen {
            Ok((took, facts)) => Observation { finished, took, outcome: Ok(facts) },
            Err(failure) => {
                self.kept = None;
                Observation { finished, took: finished.since(started), outcome: Err(failure) }
            }
        }
    }

    async fn seek(&mut self) -> Result<(Duration, Facts), ProbeFailure> {
        let process = match self.way.identity() {
            Some(identity) => {
                let (identity, last) = (Arc::clone(identity), self.process.clone());
                let read = aside(move || {
                    let process = identity.process(last);
                    let frozen = process.as_deref().is_some_and(Identity::is_frozen);
                    (process, frozen)
                });
                let (process, frozen) = read.await.unwrap_or_default();
                if frozen {
                    let text = "the node's process is stopped, so it answers nothing";
                    return Err(ProbeFailure::new(FailureKind::Frozen, text));
                }
                process
            }
            None => None,
        };
        let same_process = process == self.process;
        self.process = process;
        if let Some(mut kept) = self.kept.take()
            && kept.is_open()
            && same_process
        {
            match self.read_status(&mut kept).await {
                // The node may have closed the connection just as the request was on its way.
                Err(Failed { unheard: true, .. }) => {}
                Err(Failed { failure, .. }) => return Err(failure),
                Ok(seen) => {
                    self.kept = Some(kept);
                    return Ok(seen);
                }
            }
        }
        let mut connection = self.way.open().await?;
        let seen = self.read_status(&mut connection).await.map_err(|failed| failed.failure)?;
        self.kept = Some(connection);
        Ok(seen)
    }

    async fn read_status(
        &mut self,
        connection: &mut Connection,
    ) -> Result<(Duration, Facts), Failed> {
        let asked = self.clock.now();
        let page = connection.get(STATUS_PAGE).await?;
        let now = self.clock.now();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let facts = self.reader.read(&page, now, wall);
        let mut facts = facts.map_err(|failure| Failed { failure, unheard: false })?;
        self.extras.add_to(&mut facts, now).await;
        Ok((now.since(asked), facts))
    }
}

/// When to look.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// The time from one look's start to the next one's, when looks are quick.
    pub every: Duration,
    /// At the start, as many good looks as this run back to back.
    pub rise: u32,
}

/// Looks at the node for as long as somebody listens.
#[derive(Debug)]
pub struct Poller {
    /// What looks.
    pub prober: Prober,
    /// When it looks.
    pub timing: Timing,
    /// Where what was seen goes; a full channel delays the next look.
    pub observations: mpsc::Sender<Observation>,
}

impl Poller {
    /// Looks until it is stopped, or nobody listens any more.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut good = 0;
        loop {
            let started = Instant::now();
            let look = tokio::select! {
                look = self.prober.look() => look,
                () = stop.cancelled() => return,
            };
            good = if look.outcome.is_ok() { good + 1 } else { self.timing.rise };
            if self.observations.send(look).await.is_err() {
                return;
            }
            if good >= self.timing.rise {
                // From now on looks keep their distance.
                good = self.timing.rise;
                tokio::select! {
                    () = sleep_until(started + self.timing.every) => {}
                    () = stop.cancelled() => return,
                }
            }
        }
    }
}
