//! The task that lets canaries fly: one at a time, each at its own time, and none while one hangs.
//!
//! Giving up does not end an operation in the node, so one that is found hung is waited for all the same:
//! until the node answers or drops it. What hangs would otherwise pile up there.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::canary::{Hash, fly};
use super::cap::Cap;
use super::files::aside;
use super::identity::Way;
use crate::clock::Clock;
use crate::health::{Canary, Mishap, Moment, Tried};

/// How long a hung one holds the others up; a day then leaves 24 in the node at most.
const PATIENCE: Duration = Duration::from_hours(1);

/// Which canaries there are, and where they fly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The way to the node.
    pub way: Way,
    /// Each once.
    pub canaries: Vec<Canary>,
}

/// What each canary last came to, and when; never one that has not ended.
#[derive(Clone, Debug, Default)]
pub struct Results(Arc<BTreeMap<Canary, Ended>>);

/// When one ended, and how.
type Ended = (Moment, Result<(), Mishap>);

impl Results {
    /// The results as facts.
    pub(super) fn facts(&self, now: Moment) -> Vec<(Canary, Tried)> {
        let tried = |(at, outcome): &Ended| Tried { age: now.since(*at), outcome: outcome.clone() };
        self.0.iter().map(|(canary, result)| (canary.clone(), tried(result))).collect()
    }

    /// Whether all of these have a result.
    pub(super) fn cover(&self, canaries: &[Canary]) -> bool {
        canaries.iter().all(|canary| self.0.contains_key(canary))
    }
}

/// Lets canaries fly.
#[derive(Debug)]
pub struct Canaries {
    clock: Clock,
    plan: watch::Receiver<Plan>,
    results: watch::Sender<Results>,
    /// What each file was when it was first read.
    known: Vec<(Canary, Cap, Hash)>,
}

impl Canaries {
    /// What lets these fly, and where their results will be.
    #[must_use]
    pub fn new(clock: Clock, plan: watch::Receiver<Plan>) -> (Self, watch::Receiver<Results>) {
        let (results, seen) = watch::channel(Results::default());
        (Self { clock, plan, results, known: Vec::new() }, seen)
    }

    /// Lets canaries fly until it is stopped. Each flies at once, and then at times that the node's id
    /// decides, so that a farm does not beat in step.
    pub async fn run(mut self, stop: CancellationToken) {
        let stopped = stop.clone();
        tokio::select! {
            () = self.go_on() => {}
            () = stopped.cancelled() => return,
        }
        // Nobody plans any more.
        stop.cancelled().await;
    }

    async fn go_on(&mut self) {
        loop {
            let plan = self.plan.borrow_and_update().clone();
            self.forget_others(&plan);
            let seed = seed(&plan.way).await;
            let mut due: Vec<(Moment, Canary)> = Vec::new();
            let now = self.clock.now();
            for canary in &plan.canaries {
                let last = self.results.borrow().0.get(canary).map(|(at, _)| *at);
                due.push((last.map_or(now, |at| next(seed, canary, at)), canary.clone()));
            }
            loop {
                due.sort();
                let Some((at, canary)) = due.first_mut() else {
                    if self.plan.changed().await.is_err() {
                        return;
                    }
                    break;
                };
                tokio::select! {
                    changed = self.plan.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                    () = sleep_until(self.clock.instant(*at)) => {}
                }
                let canary = &*canary;
                try_one(self.clock, &plan.way, canary, &self.results, &mut self.known).await;
                *at = next(seed, canary, self.clock.now());
            }
        }
    }

    /// Lets each fly once.
    pub async fn round(&mut self) {
        let plan = self.plan.borrow_and_update().clone();
        for canary in &plan.canaries {
            let one = try_one(self.clock, &plan.way, canary, &self.results, &mut self.known);
            // One that hangs holds up the others, and whoever waits for them no longer than this.
            if timeout(canary.timeout.saturating_mul(2), one).await.is_err() {
                return;
            }
        }
    }

    fn forget_others(&mut self, plan: &Plan) {
        self.known.retain(|(canary, ..)| plan.canaries.contains(canary));
        self.results.send_modify(|results| {
            Arc::make_mut(&mut results.0).retain(|canary, _| plan.canaries.contains(canary));
        });
    }
}

/// Tries one, publishes what came of it within its time, and returns when the node is done with it.
async fn try_one(
    clock: Clock,
    way: &Way,
    canary: &Canary,
    results: &watch::Sender<Results>,
    known: &mut Vec<(Canary, Cap, Hash)>,
) {
    let publish = |outcome| {
        results.send_modify(|results| {
            Arc::make_mut(&mut results.0).insert(canary.clone(), (clock.now(), outcome));
        });
    };
    let first =
        known.iter().find(|(of, ..)| of == canary).map(|(_, cap, hash)| (cap.clone(), *hash));
    // Another capability in the file is another file.
    let expected = |cap: &Cap| first.filter(|(known, _)| known == cap).map(|(_, hash)| hash);
    let mut flight = pin!(fly(way, canary, expected));
    match timeout(canary.timeout, &mut flight).await {
        Ok(Ok(read)) => {
            if let Some((cap, hash)) = read {
                known.retain(|(of, ..)| of != canary);
                known.push((canary.clone(), cap, hash));
            }
            publish(Ok(()));
        }
        Ok(Err(mishap)) => publish(Err(mishap)),
        Err(_) => {
            publish(Err(Mishap::Hung(canary.timeout)));
            // What it comes to now is too late to be good.
            let _ = timeout(PATIENCE, flight).await;
        }
    }
}

/// What tells this node from others: its own id where that can be read, else where it is.
async fn seed(way: &Way) -> u64 {
    let file = way.id_file();
    let id = match file {
        Some(file) => aside(move || std::fs::read_to_string(file).ok()).await.flatten(),
        None => None,
    };
    let mut hasher = DefaultHasher::new();
    id.unwrap_or_else(|| way.to_string()).hash(&mut hasher);
    hasher.finish()
}

/// When a canary flies after `now`: once in each `every`, at a time within it that the seed decides.
fn next(seed: u64, canary: &Canary, now: Moment) -> Moment {
    let every = canary.every.as_nanos().max(1);
    let mut hasher = DefaultHasher::new();
    (seed, canary).hash(&mut hasher);
    let phase = u128::from(hasher.finish()) % every;
    let now = now.since_epoch().as_nanos();
    let beats = now.saturating_sub(phase) / every + 1;
    let at = phase + beats * every;
    let nanos = u64::try_from(at).unwrap_or(u64::MAX);
    Moment::after_epoch(Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Proof;

    #[test]
    fn canaries_keep_their_distance_and_nodes_do_not_beat_in_step() {
        let canary = Canary {
            kind: Proof::Write,
            cap_file: "/caps".into(),
            every: Duration::from_mins(1),
            timeout: Duration::from_secs(20),
        };
        let start = Moment::after_epoch(Duration::from_hours(100));
        let mut phases: Vec<u64> = (0..100)
            .map(|seed| {
                let first = next(seed, &canary, start);
                assert!(first > start && first.since(start) <= canary.every);
                assert_eq!(next(seed, &canary, first).since(first), canary.every);
                first.since(start).as_secs() / 10
            })
            .collect();
        phases.sort_unstable();
        phases.dedup();
        assert_eq!(phases, [0, 1, 2, 3, 4, 5], "every sixth of the time has some");
    }
}
