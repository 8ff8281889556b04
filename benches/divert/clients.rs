//! Clients of one way: a steady stream of requests, and what became of each.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::lab::shipped::Place;

/// A request that has no answer by then has gone wrong.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);
/// Requests in which a share is counted, and how near to another one it is the same.
pub(crate) const SHARE: usize = 50;
pub(crate) const WITHIN: f64 = 0.05;
/// A write to balancers, and nothing to do for the node, which knows no such operation.
const REQUEST: &[u8] =
    b"POST /uri?t=nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// One request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    pub(crate) sent: Instant,
    /// The node that answered, by its number.
    pub(crate) node: Option<usize>,
    /// It came to nobody, or only at another try.
    pub(crate) wrong: bool,
}

impl Record {
    /// It met the first node, which is the one that things happen to, or went wrong.
    pub(crate) fn is_bad(&self) -> bool {
        self.wrong || self.node == Some(0)
    }
}

/// A stream of requests, until dropped.
pub(crate) struct Clients {
    records: Arc<Mutex<Vec<Record>>>,
    stop: Arc<AtomicBool>,
}

impl Clients {
    /// Starts asking at `web`, once in `every`, first after `offset`; nodes are known by name or address.
    pub(crate) fn start(
        runtime: &Runtime,
        web: &str,
        places: &[Place],
        offset: Duration,
        every: Duration,
    ) -> Self {
        let records: Arc<Mutex<Vec<Record>>> = Arc::default();
        let stop: Arc<AtomicBool> = Arc::default();
        let names: Arc<Vec<[String; 2]>> = Arc::new(
            places
                .iter()
                .map(|place| [place.name.clone(), format!("{}:{}", place.ip, place.node)])
                .collect(),
        );
        let (kept, ended, web) = (Arc::clone(&records), Arc::clone(&stop), web.to_owned());
        drop(runtime.spawn(async move {
            sleep(offset).await;
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while !ended.load(Ordering::Relaxed) {
                ticks.tick().await;
                let (kept, names, web) = (Arc::clone(&kept), Arc::clone(&names), web.clone());
                drop(tokio::runtime::Handle::current().spawn(async move {
                    let sent = Instant::now();
                    let answer = timeout(PATIENCE, ask(&web)).await.ok().and_then(Result::ok);
                    let record = read(sent, answer.as_deref(), &names);
                    kept.lock().unwrap().push(record);
                }));
            }
        }));
        Self { records, stop }
    }

    /// What was sent since then, in that order, as far as it has ended.
    pub(crate) fn since(&self, from: Instant) -> Vec<Record> {
        self.that(|record| record.sent >= from)
    }

    /// What was sent within so long.
    pub(crate) fn lately(&self, time: Duration) -> Vec<Record> {
        self.that(|record| record.sent.elapsed() <= time)
    }

    fn that(&self, counts: impl Fn(&Record) -> bool) -> Vec<Record> {
        let records = self.records.lock().unwrap();
        let mut found: Vec<Record> = records.iter().copied().filter(counts).collect();
        found.sort_unstable_by_key(|record| record.sent);
        found
    }

    /// Forgets all.
    pub(crate) fn forget(&self) {
        self.records.lock().unwrap().clear();
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

async fn ask(web: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(web).await?;
    stream.write_all(REQUEST).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn read(sent: Instant, answer: Option<&str>, names: &[[String; 2]]) -> Record {
    let answer = answer.unwrap_or_default();
    let header = |name: &str| {
        answer.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    let node = header("x-gateway")
        .and_then(|gateway| names.iter().position(|names| names.iter().any(|n| n == gateway)));
    // HAProxy counts the tries before this one, and Envoy this one, too.
    let first = header("x-retries").is_none_or(|n| n == "0")
        && header("x-attempts").is_none_or(|n| n == "1");
    let own = answer.starts_with("HTTP/1.1 502") || answer.starts_with("HTTP/1.1 503");
    Record { sent, node, wrong: node.is_none() || own || !first }
}

/// The share of the first node.
pub(crate) fn share(records: &[Record]) -> f64 {
    let ones = records.iter().filter(|record| record.node == Some(0)).count();
    ones as f64 / records.len().max(1) as f64
}

/// How long after `since` it was this one first.
pub(crate) fn followed(records: &[Record], since: Instant, new: f64) -> Option<Duration> {
    let window = records.windows(SHARE).find(|window| (share(window) - new).abs() <= WITHIN)?;
    Some(window[0].sent - since)
}
