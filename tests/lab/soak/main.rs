//! The soak: a real grid with three gateways behind four balancers is broken at random for an hour, and a checker that knows
//! what was broken verifies that no balancer sends to a bad node, or keeps a good one out, for longer than the bound.
//! `tests/soak` builds and runs it; arguments are how many minutes, and a seed.
//!
//! The same seed breaks the same things in the same order, but not to the millisecond.

#![allow(clippy::print_stdout, reason = "a soak is what it prints")]
#![allow(
    clippy::disallowed_types,
    clippy::expect_used,
    reason = "real time is what it measures, and a soak that cannot go on panics"
)]
#![allow(unreachable_pub, missing_docs, reason = "one program of several files")]
#![allow(clippy::format_push_string, reason = "not for speed")]

#[path = "../mod.rs"]
mod lab;

mod bounds;
mod chance;
mod faults;
mod memory;
mod shared;
mod stage;
mod watch;
mod world;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bounds::Kind;
use chance::Chance;
use faults::Breaker;
use lab::cut;
use lab::wait::pause;
use shared::Shared;
use stage::Stage;
use watch::Asked;
use world::{GATEWAYS, SERVICES};

/// After the last fault, until every balancer must have every gateway in.
const LAST: Duration = Duration::from_mins(2);

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let minutes: u64 = arguments.next().map_or(60, |word| word.parse().expect("minutes"));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed = arguments.next().map_or(now.as_secs(), |word| word.parse().expect("a seed"));
    println!("soak: {minutes} minutes, seed {seed}; {}\n{}", cut::means(), Kind::lines());
    let stage = Stage::start();
    let places: Vec<_> = stage.sidecars.iter().map(|sidecar| sidecar.place.clone()).collect();
    let asked = |front: &stage::Front| Asked {
        kind: front.kind,
        web: front.web.clone(),
        mind: front.mind.clone(),
    };
    let fronts: Vec<Asked> = stage.fronts.iter().map(asked).collect();
    let statuses = stage.sidecars.iter().map(|sidecar| sidecar.status.clone()).collect();
    let shared = Arc::new(Shared::new(seed, statuses));
    let mut breaker = Breaker::new(stage, Arc::clone(&shared), Chance(seed));
    let threads = watch::start(&shared, &fronts, &places);
    let memory = thread::spawn({
        let shared = Arc::clone(&shared);
        move || memory::watch(&shared)
    });
    shared.event("all is well");
    breaker.run(Duration::from_secs(minutes * 60));
    shared.event("all is mended");
    wait_well(&shared);
    shared.event("all is in");
    shared.stop.store(true, Ordering::SeqCst);
    for thread in threads {
        thread.join().expect("the checker does not panic");
    }
    let samples = memory.join().expect("it does not panic");
    println!("\nfaults:");
    for (name, count) in &breaker.counts {
        println!("  {name:<16} {count}");
    }
    let (text, flat) = memory::report(&samples);
    println!("{}{text}", shared.report());
    println!("{}", if flat { "no violation" } else { "VIOLATION" });
    if flat { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Waits until the bound of everything is over: from then on the checker has seen all of them in.
fn wait_well(shared: &Shared) {
    let began = Instant::now();
    loop {
        let world = shared.world().clone();
        let mut all = (0..GATEWAYS)
            .flat_map(|at| (0..SERVICES.len()).map(move |service| (at, service)))
            .flat_map(|(at, service)| Kind::ALL.map(|kind| (at, service, kind)));
        let now = Instant::now();
        if all
            .all(|(at, service, kind)| world.well(at, service, kind).is_some_and(|d| d.holds(now)))
        {
            pause(Duration::from_secs(2));
            return;
        }
        if began.elapsed() > LAST {
            shared.violation(
                "the gateways have not found all of their storage servers again",
                None,
                "",
            );
            return;
        }
        pause(Duration::from_millis(200));
    }
}
