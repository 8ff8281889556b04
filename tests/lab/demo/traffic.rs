//! A steady stream of real requests through one balancer, and what became of each.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::lab::http;
use crate::lab::wait::{pause, wait_for};

/// As long as a person's client may wait; a request that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);
/// One gateway must be able to carry all of it on a busy machine with two cores: a farm that is short of power shows
/// its own failures, not the fault's.
const READ_EVERY: Duration = Duration::from_millis(200);
const WRITE_EVERY: Duration = Duration::from_millis(400);
const UPDATE_EVERY: Duration = Duration::from_secs(1);

/// So many clients update a directory each, one update after the other's answer.
pub const DIRECTORIES: usize = 2;

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Fetches an immutable file.
    Read,
    /// Uploads a new immutable file.
    Write,
    /// Adds a name to a directory, which overwrites a mutable file.
    Update,
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The gateway did it, or says so.
    Accepted,
    /// The balancer said 503 without asking a gateway: nothing was done, the client may come again.
    Refused,
    /// An error, or no answer in time; in a word or two.
    Failed(String),
}

/// One request.
#[derive(Debug, Clone)]
pub struct Record {
    /// Counts the stream's requests in the order they were sent.
    pub number: u64,
    /// When it was sent.
    pub sent: Instant,
    /// When it ended.
    pub done: Instant,
    /// What it was.
    pub kind: Kind,
    /// How it ended.
    pub outcome: Outcome,
    /// The gateway (by index) that answered, as the balancer's header tells.
    pub gateway: Option<usize>,
    /// For an update: the directory and the name added.
    pub added: Option<(String, String)>,
}

/// What a stream asks for.
#[derive(Debug)]
pub struct Target {
    /// The balancer's front.
    pub front: String,
    /// What the balancer calls each gateway in its `x-gateway` header.
    pub gateways: Vec<String>,
    /// Capability of the file to read.
    pub file: String,
}

/// A running stream.
#[derive(Debug)]
pub struct Traffic {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    target: Target,
    directories: [Mutex<String>; DIRECTORIES],
    records: Mutex<Vec<Record>>,
    stop: AtomicBool,
    /// How many have been sent; the next one's number.
    sent: AtomicU64,
    /// How many names have been made up for directories.
    names: AtomicU64,
}

impl Traffic {
    /// Starts sending. `directories` are capabilities of the directories to add to.
    pub fn start(target: Target, directories: [String; DIRECTORIES]) -> Self {
        let shared = Arc::new(Shared {
            target,
            directories: directories.map(Mutex::new),
            records: Mutex::new(Vec::new()),
            stop: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            names: AtomicU64::new(0),
        });
        let mut threads = vec![
            run(&shared, |shared| open(&shared, READ_EVERY, Shared::read)),
            run(&shared, |shared| open(&shared, WRITE_EVERY, Shared::write)),
        ];
        for directory in 0..DIRECTORIES {
            threads.push(run(&shared, move |shared| {
                pace(&shared, UPDATE_EVERY, || shared.update(directory));
            }));
        }
        Self { shared, threads }
    }

    /// The number of the next request: marks a moment in the stream.
    pub fn mark(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// All requests between two marks, when the last of them has ended.
    pub fn between(&self, from: u64, to: u64) -> Vec<Record> {
        // One in flight now has at most its patience left.
        wait_for("the last answers", PATIENCE * 3, || {
            let records = lock(&self.shared.records);
            let ended = records.iter().filter(|record| (from..to).contains(&record.number));
            let ended: Vec<Record> = ended.cloned().collect();
            (ended.len() as u64 == to - from).then_some(ended)
        })
    }

    /// Goes on with other directories, so that what one fault leaves behind in them does not count for the next.
    pub fn turn_to(&self, directories: [String; DIRECTORIES]) {
        for (old, new) in self.shared.directories.iter().zip(directories) {
            *lock(old) = new;
        }
    }

    /// Stops sending and waits for the last answers.
    pub fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("a client does not panic");
        }
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

fn late(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}

fn run(shared: &Arc<Shared>, work: impl FnOnce(Arc<Shared>) + Send + 'static) -> JoinHandle<()> {
    let shared = Arc::clone(shared);
    std::thread::spawn(move || work(shared))
}

/// Calls `work` every so often until the stream stops; late calls follow at once, none is left out.
fn pace(shared: &Shared, every: Duration, mut work: impl FnMut()) {
    let mut next = Instant::now();
    while !shared.stop.load(Ordering::Relaxed) {
        pause(next.saturating_duration_since(Instant::now()));
        work();
        next = (next + every).max(Instant::now().checked_sub(every).unwrap_or(next));
    }
}

/// Sends each request on time whatever became of the ones before: a client that waits for a hung gateway does not
/// keep the others from coming.
fn open(shared: &Arc<Shared>, every: Duration, work: fn(&Shared)) {
    let mut under_way: Vec<JoinHandle<()>> = Vec::new();
    pace(shared, every, || {
        under_way.retain(|request| !request.is_finished());
        under_way.push(run(shared, move |shared| work(&shared)));
    });
    for request in under_way {
        request.join().expect("a client does not panic");
    }
}

impl Shared {
    fn read(&self) {
        self.request(Kind::Read, "GET", &format!("/uri/{}", self.target.file), None, None);
    }

    fn write(&self) {
        // Longer than the 55 bytes up to which Tahoe-LAFS stores nothing, and never the same twice.
        let body = format!("{:?} at {:>80}", Instant::now(), self.target.front);
        self.request(Kind::Write, "PUT", "/uri", Some(&body), None);
    }

    fn update(&self, directory: usize) {
        let directory = lock(&self.directories[directory]).clone();
        let name = format!("n{}", self.names.fetch_add(1, Ordering::Relaxed));
        let path = format!("/uri/{directory}/{name}?t=uri");
        self.request(Kind::Update, "PUT", &path, Some(&self.target.file), Some((directory, name)));
    }

    fn request(
        &self,
        kind: Kind,
        method: &str,
        path: &str,
        body: Option<&str>,
        added: Option<(String, String)>,
    ) {
        let number = self.sent.fetch_add(1, Ordering::Relaxed);
        let sent = Instant::now();
        let body = body.map(str::as_bytes);
        let answer = http::request(&self.target.front, method, path, &[], body, PATIENCE);
        let gateway = answer.as_ref().ok().and_then(|answer| {
            let name = answer.header("x-gateway")?;
            self.target.gateways.iter().position(|gateway| gateway == name)
        });
        let outcome = match &answer {
            Ok(answer) if matches!(answer.status, 200 | 201) => Outcome::Accepted,
            Ok(answer) if answer.status == 503 && gateway.is_none() => Outcome::Refused,
            Ok(answer) => Outcome::Failed(answer.status.to_string()),
            Err(error) if late(error) => Outcome::Failed("no answer".to_owned()),
            Err(_) => Outcome::Failed("cut".to_owned()),
        };
        let done = Instant::now();
        lock(&self.records).push(Record { number, sent, done, kind, outcome, gateway, added });
    }
}
