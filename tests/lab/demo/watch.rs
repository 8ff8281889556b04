//! Watches what hcf and the balancers say, and prints each change of mind when it comes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::lab::wait::pause;
use crate::lab::{envoy, net};
use crate::stage::Stage;
use crate::timeline::Timeline;

/// Between two looks: the error of every time printed.
const STEP: Duration = Duration::from_millis(50);

/// What one of those watched says of one gateway for one kind of request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// Whether the gateway is to get requests.
    pub up: bool,
    /// In its own words.
    pub why: String,
}

/// By who says it (`hcf`, `HAProxy`, `Envoy`) and of what (`gw1 for writes`).
type Words = BTreeMap<(&'static str, String), Word>;

/// Threads that watch one stage until [`Watch::stop`].
#[derive(Debug)]
pub struct Watch {
    words: Arc<Mutex<Words>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Watch {
    /// Starts watching. Each one watched has a thread, so that a slow one delays no other's times.
    pub fn start(stage: &Arc<Stage>, timeline: &Arc<Timeline>) -> Self {
        let mut watch = Self { words: Arc::default(), stop: Arc::default(), threads: Vec::new() };
        for look in [ask_hcf, ask_haproxy, ask_envoy] {
            let (stage, timeline) = (Arc::clone(stage), Arc::clone(timeline));
            let (words, stop) = (Arc::clone(&watch.words), Arc::clone(&watch.stop));
            watch.threads.push(std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    for said in look(&stage) {
                        note(&words, &timeline, said);
                    }
                    pause(STEP);
                }
            }));
        }
        watch
    }

    /// Whether everybody says that every gateway is up.
    pub fn all_up(&self) -> bool {
        lock(&self.words).values().all(|word| word.up)
    }

    /// Ends watching.
    pub fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("a watcher does not panic");
        }
    }
}

fn lock(words: &Mutex<Words>) -> std::sync::MutexGuard<'_, Words> {
    words.lock().unwrap_or_else(PoisonError::into_inner)
}

fn note(words: &Mutex<Words>, timeline: &Timeline, (who, of, word): (&'static str, String, Word)) {
    let mut words = lock(words);
    if words.get(&(who, of.clone())).is_some_and(|old| old.up != word.up) {
        let state = if word.up { "in " } else { "OUT" };
        timeline.event(who, format!("{of}: {state} {}", word.why).trim_end());
    }
    words.insert((who, of), word);
}

type Said = Vec<(&'static str, String, Word)>;

fn ask_hcf(stage: &Stage) -> Said {
    let mut said = Said::new();
    for (gateway, agent) in &stage.agents {
        for service in ["read", "write"] {
            let question = format!("{service}\n");
            let line = net::ask(agent, question.as_bytes(), Duration::from_secs(1));
            let line = line.unwrap_or_else(|error| format!("down #no answer: {error}"));
            let mut halves = line.trim_end().splitn(2, '#');
            let words = halves.next().unwrap_or_default();
            let why = halves.next().unwrap_or_default();
            let up = words.split_whitespace().next() == Some("up") && !words.contains("drain");
            said.push(("hcf", format!("{gateway} {service}"), Word { up, why: why.to_owned() }));
        }
    }
    said
}

fn ask_haproxy(stage: &Stage) -> Said {
    let mut said = Said::new();
    for stat in stage.haproxy.stats() {
        let (backend, gateway) = (stat.field("pxname"), stat.field("svname"));
        if stage.names.iter().any(|name| name == gateway) {
            let words = match stat.last_agent() {
                "" => stat.check_status(),
                words => words,
            };
            let why =
                if stat.is_up() { String::new() } else { format!("({}; {words})", stat.status()) };
            said.push(("HAProxy", format!("{gateway} {backend}"), Word { up: stat.is_up(), why }));
        }
    }
    said
}

fn ask_envoy(stage: &Stage) -> Said {
    let mut said = Said::new();
    let clusters = stage.envoy.clusters();
    for cluster in &stage.clusters {
        for (gateway, address) in stage.names.iter().zip(&stage.addresses) {
            let flags = envoy::health(&clusters, cluster, address).unwrap_or_default();
            let why =
                if flags.is_empty() { String::new() } else { format!("({})", flags.join(" ")) };
            said.push((
                "Envoy",
                format!("{gateway} {cluster}"),
                Word { up: flags.is_empty(), why },
            ));
        }
    }
    said
}
