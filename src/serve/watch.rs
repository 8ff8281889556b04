//! `GET /v1/watch`: verdicts as they change, as server-sent events (HTML, "Server-sent events").
//!
//! Whoever connects is told everything once (`verdicts`), then each change (`verdict`), and in between
//! how long that counts (`fresh`), so often that silence means that the sidecar, or the way to it, is
//! gone. Times are lengths and not clock times, so that clocks need not agree. The node is never asked.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use tokio::io::AsyncReadExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::accept::{Seat, Wire};
use super::http::written;
use super::openapi::time;
use crate::board::{Board, ServiceBoard, Table};
use crate::health::{Reason, State, Weight};

/// The most who watch one sidecar at a time.
const WATCHERS: usize = 64;
/// The most time between two events.
const BEAT: Duration = Duration::from_secs(5);
/// The least, however little time is left.
const LEAST_BEAT: Duration = Duration::from_millis(50);
/// How long a watcher may take to read what it was told.
const READ_TIME: Duration = Duration::from_secs(5);

/// What a watcher is told before its first event. There is no length: the answer ends with the connection.
const HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n\
                      Connection: close\r\n\r\n";

/// The room for watchers.
#[derive(Clone, Debug)]
pub struct Watchers(Arc<Semaphore>);

impl Default for Watchers {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(WATCHERS)))
    }
}

impl Watchers {
    /// A place for one more; `None` where all are taken.
    #[must_use]
    pub fn admit(&self, board: Arc<Board>) -> Option<Watcher> {
        let place = Arc::clone(&self.0).try_acquire_owned().ok()?;
        Some(Watcher { board, _place: place })
    }

    /// Whether there is a place.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.0.available_permits() > 0
    }
}

/// One who watches a board.
#[derive(Debug)]
pub struct Watcher {
    board: Arc<Board>,
    _place: OwnedSemaphorePermit,
}

impl Watcher {
    /// Tells it everything, until it goes, reads too slowly, or has to leave.
    pub(super) async fn serve(self, stream: &mut impl Wire, seat: &Seat) {
        // It waits for an answer that may come at any time, so it makes room like anybody who does.
        seat.idle();
        let mut table = self.board.table();
        let mut told = tags(&table);
        let mut out = [HEAD, &self.everything(&table)].concat();
        loop {
            if !written(stream, &out, READ_TIME).await {
                return;
            }
            let beat = Instant::now() + self.beat(&table);
            out = tokio::select! {
                biased;
                () = seat.leave() => return,
                () = gone(stream) => return,
                () = any_changed(&table, &told) => Vec::new(),
                () = tokio::time::sleep_until(beat) => event("fresh", self.fresh(&table)),
            };
            let now = self.board.table();
            if !Arc::ptr_eq(&now, &table) {
                table = now;
                told = tags(&table);
                out = self.everything(&table);
                continue;
            }
            for (service, told) in table.services.iter().zip(&mut told) {
                if service.tag() != *told {
                    let (tag, line) = Line::of(service, &self.board);
                    *told = tag;
                    let name = &service.name;
                    let fresh = self.fresh(&table);
                    out.extend(event("verdict", Change { service: name, fresh, line }));
                }
            }
            if out.is_empty() {
                // Nothing that could still change, and no new table: the judge has ended.
                return;
            }
        }
    }

    fn everything(&self, table: &Table) -> Vec<u8> {
        let lines = table.services.iter().map(|s| (&*s.name, Line::of(s, &self.board).1));
        let node = Node { nickname: &table.fixed.nickname, url: &table.fixed.url };
        let fresh = self.fresh(table);
        event("verdicts", Everything { node, fresh, services: lines.collect() })
    }

    /// How long what was told counts, and how long the next event takes at most.
    fn fresh(&self, table: &Table) -> Fresh {
        let freshness = table.fixed.freshness;
        let left = self.left().unwrap_or(freshness);
        Fresh { fresh_ms: millis(left), heartbeat_ms: millis((freshness / 3).min(BEAT)) }
    }

    /// The time that the last look still counts; `None` before the first one, and when it does not
    /// any more: then what is said of that counts.
    fn left(&self) -> Option<Duration> {
        let until = self.board.fresh_until()?;
        Some(until.since(self.board.clock.now())).filter(|left| !left.is_zero())
    }

    /// The time to the next event, which comes before what was told is over: a look may have made it
    /// count for longer meanwhile.
    fn beat(&self, table: &Table) -> Duration {
        let beat = (table.fixed.freshness / 3).min(BEAT);
        self.left().map_or(beat, |left| beat.min(left / 2)).max(LEAST_BEAT)
    }
}

fn event(name: &str, data: impl Serialize) -> Vec<u8> {
    // JSON has its line ends escaped, so the data is one line.
    let data = serde_json::to_string(&data).unwrap_or_default();
    format!("event: {name}\ndata: {data}\n\n").into_bytes()
}

/// Ends when the watcher has closed its side; what it may send meanwhile is no question.
async fn gone(stream: &mut impl Wire) {
    let mut sink = [0; 512];
    while matches!(stream.read(&mut sink).await, Ok(1..)) {}
}

fn tags(table: &Table) -> Vec<u64> {
    table.services.iter().map(|service| service.tag()).collect()
}

/// Ends when a service says something else than when it had its tag of `told`.
async fn any_changed(table: &Table, told: &[u64]) {
    type Change<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
    let mut changes: Vec<Change<'_>> = Vec::new();
    for (service, told) in table.services.iter().zip(told) {
        changes.push(Box::pin(service.changed(*told)));
    }
    std::future::poll_fn(|cx| {
        let changed = changes.iter_mut().any(|change| change.as_mut().poll(cx).is_ready());
        if changed { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Everything<'a> {
    node: Node<'a>,
    #[serde(flatten)]
    fresh: Fresh,
    services: std::collections::BTreeMap<&'a str, Line>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Node<'a> {
    nickname: &'a str,
    url: &'a str,
}

/// Milliseconds.
#[derive(Serialize, JsonSchema)]
pub(super) struct Fresh {
    fresh_ms: u64,
    heartbeat_ms: u64,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Change<'a> {
    service: &'a str,
    #[serde(flatten)]
    fresh: Fresh,
    #[serde(flatten)]
    line: Line,
}

/// What is said of one service.
#[derive(Serialize, JsonSchema)]
pub(super) struct Line {
    state: State,
    degraded: bool,
    forced: bool,
    weight: Weight,
    #[schemars(schema_with = "time")]
    since: String,
    seq: u64,
    reasons: Vec<Reason>,
}

impl Line {
    fn of(service: &ServiceBoard, board: &Board) -> (u64, Self) {
        let answers = service.answers();
        let verdict = &answers.verdict;
        let line = Self {
            state: verdict.state,
            degraded: verdict.degraded,
            forced: verdict.forced,
            weight: verdict.weight,
            since: board.clock.rfc3339(service.since(&answers)),
            seq: verdict.seq,
            reasons: verdict.reasons.clone(),
        };
        (verdict.seq, line)
    }
}
