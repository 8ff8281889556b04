//! What all threads of the soak know, and the end that a violation is.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::bounds::Kind;
use crate::lab::http;
use crate::world::{Demand, World};

/// The last events that a story tells.
const TOLD: usize = 60;

/// How often requests ended so.
type Ends = BTreeMap<String, usize>;

#[derive(Debug)]
pub struct Shared {
    pub began: Instant,
    pub stop: AtomicBool,
    seed: u64,
    world: Mutex<World>,
    events: Mutex<Vec<String>>,
    /// Status listeners, to tell what hcf said.
    statuses: Vec<String>,
    /// The processes whose memory is looked at.
    pids: Mutex<BTreeMap<String, u32>>,
    /// By balancer and reason: the longest that it took, and the bound.
    worst: Mutex<BTreeMap<(usize, String), (Duration, Duration)>>,
    /// By balancer and kind of request: how each ended.
    requests: Mutex<BTreeMap<(usize, &'static str), Ends>>,
    pub stalls: Mutex<(usize, Duration)>,
}

impl Shared {
    pub fn new(seed: u64, statuses: Vec<String>) -> Self {
        Self {
            began: Instant::now(),
            stop: AtomicBool::new(false),
            seed,
            world: Mutex::new(World::new()),
            events: Mutex::default(),
            statuses,
            pids: Mutex::default(),
            worst: Mutex::default(),
            requests: Mutex::default(),
            stalls: Mutex::default(),
        }
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.world)
    }

    pub fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::SeqCst)
    }

    /// Prints what has happened.
    pub fn event(&self, what: &str) {
        let line = format!("+{:>7.1}s {what}", self.began.elapsed().as_secs_f64());
        println!("{line}");
        lock(&self.events).push(line);
    }

    pub fn tell_pids(&self, pids: BTreeMap<String, u32>) {
        *lock(&self.pids) = pids;
    }

    pub fn pids(&self) -> BTreeMap<String, u32> {
        lock(&self.pids).clone()
    }

    /// How long a balancer has needed so far.
    pub fn took(&self, kind: Kind, demand: &Demand, now: Instant) {
        let time = now.saturating_duration_since(demand.since);
        let mut worst = lock(&self.worst);
        let entry = worst.entry((kind as usize, format!("{:?}", demand.why))).or_default();
        if time >= entry.0 {
            *entry = (time, demand.bound);
        }
    }

    pub fn ended(&self, kind: Kind, what: &'static str, how: &str) {
        let mut requests = lock(&self.requests);
        *requests.entry((kind as usize, what)).or_default().entry(how.to_owned()).or_default() += 1;
    }

    /// Ends the soak with the whole story.
    pub fn violation(&self, what: &str, gateway: Option<usize>, views: &str) {
        if self.stop.swap(true, Ordering::SeqCst) {
            return;
        }
        println!(
            "\nVIOLATION at +{:.1} s (seed {}): {what}\nin effect:\n{}",
            self.began.elapsed().as_secs_f64(),
            self.seed,
            self.world().story()
        );
        println!("the balancer's view:\n{views}");
        for (at, status) in self.statuses.iter().enumerate() {
            if gateway.is_none_or(|gateway| gateway == at) {
                let patience = Duration::from_secs(2);
                let answer = http::request(status, "GET", "/v1/status", &[], None, patience);
                let said = answer.map_or_else(|error| error.to_string(), |answer| answer.text());
                println!("hcf of gw{} says: {said}", at + 1);
            }
        }
        let events = lock(&self.events);
        println!("the last events:");
        for line in &events[events.len().saturating_sub(TOLD)..] {
            println!("{line}");
        }
        println!("{}", self.report());
        // The kernel ends what this process has started.
        std::process::exit(1);
    }

    /// Figures for the end.
    pub fn report(&self) -> String {
        let mut text = String::new();
        let (stalls, longest) = *lock(&self.stalls);
        let _ = writeln!(
            text,
            "this machine stood still {stalls} times, at most for {:.2} s",
            longest.as_secs_f64()
        );
        let _ = writeln!(
            text,
            "\nworst times, from what was to be noticed to the balancer's mind, and the bound:"
        );
        for ((kind, why), (time, bound)) in &*lock(&self.worst) {
            let _ = writeln!(
                text,
                "  {:<18} {why:<8} {:>6.2} s of {:>6.2} s",
                Kind::ALL[*kind].name(),
                time.as_secs_f64(),
                bound.as_secs_f64()
            );
        }
        let _ = writeln!(text, "\nrequests:");
        for ((kind, what), ends) in &*lock(&self.requests) {
            let all: usize = ends.values().sum();
            let ends: Vec<String> = ends.iter().map(|(how, n)| format!("{how} {n}")).collect();
            let name = Kind::ALL[*kind].name();
            let _ = writeln!(text, "  {name:<18} {what:<12} {all:>7}: {}", ends.join(", "));
        }
        text
    }
}

pub fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}
