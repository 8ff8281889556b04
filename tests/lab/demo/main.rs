//! The demo: a real grid behind HAProxy and Envoy, broken in one way after the other under a steady stream of
//! requests; once with hcf beside each gateway, once with the health check that people have today in its place.
//! `deploy/demo` builds and runs it; `hcf` or `today` as argument runs one of the two alone.

#![allow(clippy::print_stdout, reason = "a demo is what it prints")]
#![allow(
    clippy::disallowed_types,
    clippy::expect_used,
    reason = "real time is what it measures, and a demo that cannot go on panics"
)]
#![allow(unreachable_pub, reason = "one program of several files")]
#![allow(clippy::doc_markdown, reason = "HAProxy is a name, not code")]

#[path = "../mod.rs"]
mod lab;

mod arm;
mod fault;
mod stage;
mod table;
mod tally;
mod timeline;
mod traffic;
mod watch;

use std::sync::Arc;

use arm::Arm;
use lab::{cut, tahoe::Grid};
use timeline::Timeline;

fn main() {
    println!("demo: {}", cut::means());
    let timeline = Arc::new(Timeline::new());
    timeline.title(
        "A grid: introducer, 5 storage servers, gateways gw1 and gw2 (needed 2, happy 4, total 5)",
    );
    // The third gateway carries no client's request: it reads back what the others accepted.
    let mut grid = Grid::builder().gateways(stage::FARM + 1).start();
    grid.wait_ready();
    timeline.event("grid", "ready");
    let chosen = std::env::args().nth(1);
    let mut run = |arm: Arm| {
        if chosen.as_ref().is_some_and(|name| name != arm.name()) {
            return Vec::new();
        }
        arm::run(arm, &mut grid, &timeline)
    };
    let (with_hcf, today) = (run(Arm::Hcf), run(Arm::Today));
    timeline.title("Side by side");
    print!("{}", table::render(&with_hcf, &today));
    if let Some(load) = busy() {
        println!(
            "Note: this machine was busy (load {load:.1}); some of the failures may be its own."
        );
    }
}

/// The load of the last minutes, when it is more than the demo itself makes.
fn busy() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    let load: f64 = text.split_whitespace().nth(1)?.parse().ok()?;
    let cores =
        std::thread::available_parallelism().ok().and_then(|count| u16::try_from(count.get()).ok());
    (load > 2.0 * f64::from(cores?)).then_some(load)
}
