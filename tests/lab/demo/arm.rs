//! One run through all faults.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::fault::Fault;
use crate::lab::http;
use crate::lab::tahoe::Grid;
use crate::lab::wait::{pause, wait_for};
use crate::stage::{FARM, Stage};
use crate::tally::{Tally, Window};
use crate::timeline::Timeline;
use crate::traffic::{DIRECTORIES, Target, Traffic};
use crate::watch::Watch;

/// A gateway that was away for seconds is found again within seconds; the introducer's reconnection backs off longer.
const RECOVERY: Duration = Duration::from_mins(1);

/// What judges the gateways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arm {
    /// hcf.
    Hcf,
    /// The balancers' own checks, straight to the gateway.
    Today,
}

impl Arm {
    /// HAProxy's backends that hold the gateways.
    pub fn backends(self) -> &'static [&'static str] {
        match self {
            Self::Hcf => &["be_read", "be_write"],
            Self::Today => &["nodes"],
        }
    }

    /// Envoy's clusters that hold the gateways.
    pub fn clusters(self) -> &'static [&'static str] {
        match self {
            Self::Hcf => &["nodes_read", "nodes_write"],
            Self::Today => &["nodes"],
        }
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hcf => "hcf",
            Self::Today => "today",
        }
    }

    /// Its name in headings.
    pub fn title(self) -> &'static str {
        match self {
            Self::Hcf => "with hcf",
            Self::Today => "today",
        }
    }
}

/// What one fault did to the clients of each balancer.
#[derive(Debug)]
pub struct Row {
    /// The fault.
    pub fault: Fault,
    /// Through `HAProxy`.
    pub haproxy: Tally,
    /// Through Envoy.
    pub envoy: Tally,
}

/// Breaks everything once.
pub fn run(arm: Arm, grid: &mut Grid, timeline: &Arc<Timeline>) -> Vec<Row> {
    timeline.title(match arm {
        Arm::Hcf => "=== WITH HCF: an hcf beside each gateway; HAProxy asks its agent port, Envoy its health port",
        Arm::Today => "=== TODAY: HAProxy (httpchk) and Envoy (HTTP check) ask each gateway itself: GET /?t=json, 200 is good",
    });
    let stage = Arc::new(Stage::start(arm, grid));
    timeline.event("stage", "HAProxy and Envoy are up, every gateway is in");
    let file = grid.gateways[FARM].upload(&[b'.'; 2000]);
    let stream = |front: &str, gateways: &[String]| {
        let (front, file) = (front.to_owned(), file.clone());
        Traffic::start(Target { front, gateways: gateways.to_vec(), file }, directories(grid))
    };
    let mut haproxy = stream(&stage.haproxy_front, &stage.names);
    let mut envoy = stream(&stage.envoy_front, &stage.addresses);
    let mut watch = Watch::start(&stage, timeline);
    let rows = Fault::ALL
        .into_iter()
        .map(|fault| {
            let row = one(fault, grid, timeline, &watch, [&haproxy, &envoy]);
            timeline.event("HAProxy", &row.haproxy.to_string());
            timeline.event("Envoy", &row.envoy.to_string());
            row
        })
        .collect();
    haproxy.stop();
    envoy.stop();
    watch.stop();
    rows
}

fn one(
    fault: Fault,
    grid: &mut Grid,
    timeline: &Timeline,
    watch: &Watch,
    streams: [&Traffic; 2],
) -> Row {
    for stream in streams {
        stream.turn_to(directories(grid));
    }
    timeline.title(&format!("--- {}", fault.title()));
    let from = streams.map(Traffic::mark);
    let broken = Instant::now();
    let cuts = fault.break_it(grid);
    pause(fault.lasts());
    let mended = Instant::now();
    drop(cuts);
    fault.mend(grid);
    if fault != Fault::Nothing {
        timeline.event("grid", "mended");
    }
    wait_for("the grid and the balancers to recover", RECOVERY, || {
        let connected =
            grid.gateways.iter().all(|gateway| gateway.connected() == grid.storage.len());
        (connected && watch.all_up()).then_some(())
    });
    // The first requests after a recovery belong to the fault, too.
    pause(Duration::from_secs(1));
    let to = streams.map(Traffic::mark);
    let window = Window { fault, broken, mended };
    let reader = &grid.gateways[FARM].web;
    let [haproxy, envoy] = [0, 1].map(|stream| {
        Tally::of(&window, &streams[stream].between(from[stream], to[stream]), reader)
    });
    Row { fault, haproxy, envoy }
}

/// New empty directories.
fn directories(grid: &Grid) -> [String; DIRECTORIES] {
    std::array::from_fn(|_| {
        let answer = http::post(&grid.gateways[FARM].web, "/uri?t=mkdir", b"");
        let answer = answer.expect("the reading gateway answers");
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.text().trim().to_owned()
    })
}
