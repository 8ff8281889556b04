//! Looking at the node, again and again, and at once where something has happened to it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::cfg::KEEPALIVE;
use super::client::{Connection, Failed};
use super::files::aside;
use super::page::Reader;
use super::tripwire::{Seen, Tripwire};
use super::{Extras, NodeDir, Way};
use crate::clock::Clock;
use crate::health::{Facts, FailureKind, Moment, Observation, ProbeFailure};

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
    tripwire: Tripwire,
    measures: Measures,
    /// What the node's statistics page said last, and when it was asked.
    busy: (Option<u32>, Option<Moment>),
}

/// What is measured beside the status page, where a weight is made of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measures {
    /// How busy the machine is.
    pub host: bool,
    /// How busy the node is.
    pub node: bool,
}

/// The node's own figure is one of a minute, so it is not asked for at every look.
const STATISTICS_EVERY: Duration = Duration::from_secs(15);
const STATISTICS_TIME: Duration = Duration::from_millis(500);
const STATISTICS_PAGE: &str = "/statistics?t=json";

const STATUS_PAGE: &str = "/?t=json";

/// Long enough for the kernel to close what a killed process had open.
const CLOSING: Duration = Duration::from_millis(50);

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
            tripwire: Tripwire::default(),
            measures: Measures::default(),
            busy: (None, None),
        }
    }

    /// The same, that also measures.
    #[must_use]
    pub fn measuring(self, measures: Measures) -> Self {
        Self { measures, ..self }
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

    /// Ends when something has happened to the node since the last look, so that it is to be looked at now. Its ending
    /// the kept connection counts where that is `heeded`.
    pub async fn tripped(&mut self, heeded: bool) -> Trip {
        let Self { kept, tripwire, .. } = self;
        let ended = async {
            match kept.as_mut().filter(|kept| heeded && kept.is_open()) {
                Some(kept) => kept.ended().await,
                // Closed by the answer, as some servers do.
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = ended => Trip::Connection,
            () = tripwire.tripped() => Trip::Process,
        }
    }

    async fn seek(&mut self) -> Result<(Duration, Facts), ProbeFailure> {
        let process = match self.way.identity() {
            Some(identity) => {
                let (identity, last) = (Arc::clone(identity), self.process.clone());
                let read = aside(move || {
                    let process = identity.process(last.clone());
                    let seen = process.as_deref().map(|running| Seen::of(running, last.as_deref()));
                    (process, seen.unwrap_or_default())
                });
                let (process, seen) = read.await.unwrap_or_default();
                let frozen = seen.frozen;
                self.tripwire.set(process.as_deref(), seen);
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
        let kept = self.kept.take().filter(|_| same_process);
        let ended = kept.is_some();
        if let Some(mut kept) = kept
            && kept.is_open()
        {
            match self.read_status(&mut kept).await {
                // The node may have closed the connection just as the request was on its way.
                Err(Failed { unheard: true, .. }) => {}
                Err(Failed { failure, .. }) => return Err(failure),
                Ok(seen) => return Ok(self.measured(kept, seen).await),
            }
        }
        let seen = match self.seek_anew().await {
            // The kernel ends a killed process's connections before it closes its port, so one that is made between the
            // two is taken, and then reset.
            Err(Failed { unheard: true, failure })
                if ended && failure.kind == FailureKind::Reset =>
            {
                sleep(CLOSING).await;
                self.seek_anew().await
            }
            seen => seen,
        };
        seen.map_err(|failed| failed.failure)
    }

    async fn seek_anew(&mut self) -> Result<(Duration, Facts), Failed> {
        let opened = self.way.open().await;
        let mut connection = opened.map_err(|failure| Failed { failure, unheard: true })?;
        let seen = self.read_status(&mut connection).await?;
        Ok(self.measured(connection, seen).await)
    }

    /// Adds what is measured, and keeps the connection. That something cannot be measured is no failure of the node.
    async fn measured(
        &mut self,
        mut connection: Connection,
        (took, mut facts): (Duration, Facts),
    ) -> (Duration, Facts) {
        if self.measures.host {
            facts.host = aside(crate::host::read).await.flatten();
        }
        let now = self.clock.now();
        let due = self.busy.1.is_none_or(|asked| now.since(asked) >= STATISTICS_EVERY);
        if self.measures.node && due {
            let page = timeout(STATISTICS_TIME, connection.get(STATISTICS_PAGE)).await;
            let page = page.ok().and_then(Result::ok);
            self.busy = (page.as_deref().and_then(busy), Some(now));
            if page.is_none() {
                // Whatever may still come on it is no answer to the next question.
                return (took, facts);
            }
        }
        facts.node_busy = self.busy.0;
        self.kept = Some(connection);
        (took, facts)
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

/// The share of a core that the node has used over the last minute, in thousandths.
fn busy(page: &[u8]) -> Option<u32> {
    let page: serde_json::Value = serde_json::from_slice(page).ok()?;
    crate::host::thousandths(page.get("stats")?.get("cpu_monitor.1min_avg")?.as_f64()?)
}

/// What has happened between two looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trip {
    /// The node has ended the kept connection.
    Connection,
    /// Its process has ended, or was stopped or continued.
    Process,
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
        // A node that ends its connections in its own time is looked at once more for each look, not all the time.
        let mut heeded = true;
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
                    () = sleep_until(started + self.timing.every) => heeded = true,
                    trip = self.prober.tripped(heeded) => heeded &= trip != Trip::Connection,
                    () = stop.cancelled() => return,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_own_figure_is_read_from_its_statistics() {
        let page = br#"{
            "counters": {"downloader.bytes_downloaded": 64, "downloader.files_downloaded": 1},
            "stats": {
                "chk_upload_helper.active_uploads": 0,
                "cpu_monitor.1min_avg": 0.0123456789,
                "cpu_monitor.5min_avg": 0.5,
                "cpu_monitor.total": 3.25,
                "node.uptime": 61.5
            }
        }"#;
        assert_eq!(busy(page), Some(12));
        assert_eq!(busy(br#"{"stats": {"cpu_monitor.1min_avg": 1}}"#), Some(1000));
    }

    #[test]
    fn statistics_without_a_figure_that_makes_sense_are_none() {
        for page in [
            // A node has it only once it has run for a minute.
            r#"{"counters": {}, "stats": {"cpu_monitor.total": 0.75, "node.uptime": 2.5}}"#,
            r#"{"counters": {"cpu_monitor.1min_avg": 0.5}, "stats": {}}"#,
            r#"{"counters": {}}"#,
            r#"{"stats": [0.5]}"#,
            r#"{"stats": {"cpu_monitor.1min_avg": null}}"#,
            r#"{"stats": {"cpu_monitor.1min_avg": "0.5"}}"#,
            // A clock that was set back, and one that was set to almost the same.
            r#"{"stats": {"cpu_monitor.1min_avg": -0.5}}"#,
            r#"{"stats": {"cpu_monitor.1min_avg": 1e99}}"#,
            r#"{"stats": {"cpu_monitor.1min_avg": NaN}}"#,
            r#"{"stats": {"cpu_monitor.1min_avg": 0.5}"#,
            "<html><body>statistics</body></html>",
            "[]",
            "",
        ] {
            assert_eq!(busy(page.as_bytes()), None, "{page}");
        }
        assert_eq!(busy(b"\xff\xfe{}"), None);
    }
}
