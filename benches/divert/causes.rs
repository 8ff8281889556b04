//! What goes wrong with the first of three gateways, and how long clients still met it.

use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};

use crate::clients::{Clients, PATIENCE, SHARE, WITHIN, followed, share};
use crate::lab::cut::{Cut, How};
use crate::lab::ports::free_port;
use crate::lab::shipped::Place;
use crate::lab::sidecar::Sidecar;
use crate::lab::tahoe::Grid;
use crate::lab::wait::{pause, wait_until};
use crate::ways::{self, Way};

/// Between two requests of one way.
const EVERY: Duration = Duration::from_millis(10);
/// When no way had a bad request for so long, the round is over.
const QUIET: Duration = PATIENCE.saturating_add(Duration::from_millis(700));
/// And after this it is over in any case.
const CAP: Duration = Duration::from_secs(20);
const RECOVERY: Duration = Duration::from_mins(2);
/// The weight that the bad node is given, and its share beside two others of 100.
const WEIGHT: &str = "10";
const NEW: f64 = 10.0 / 210.0;

/// What happens to the first gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Drain,
    Killed,
    Lost,
    Frozen,
    Weight,
}

impl Cause {
    pub(crate) const ALL: [Self; 5] =
        [Self::Drain, Self::Killed, Self::Lost, Self::Frozen, Self::Weight];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Killed => "killed",
            Self::Lost => "lost",
            Self::Frozen => "frozen",
            Self::Weight => "weight",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Drain => "`hcf drain` has returned",
            Self::Killed => "the gateway is killed (kill -9)",
            Self::Lost => "the gateway loses a storage server, and `write` is not safe any more",
            Self::Frozen => "the gateway is frozen (SIGSTOP)",
            Self::Weight => {
                "`hcf weight 10` has returned; until the share is within 5 points of the new one"
            }
        }
    }

    /// Whether a balancer that only asks the node could notice.
    fn shows(self) -> bool {
        matches!(self, Self::Killed | Self::Frozen)
    }

    fn concerns(self, way: &Way) -> bool {
        self != Self::Weight || way.weighs
    }
}

/// Everything, running.
struct Scene {
    grid: Grid,
    sidecars: Vec<Sidecar>,
    ways: Vec<(Way, Clients)>,
    _runtime: Runtime,
}

impl Scene {
    fn start() -> Self {
        // One server less than all is too few for a safe write.
        let mut grid = Grid::builder().gateways(3).storage(5).shares(2, 5, 5).apart().start();
        grid.wait_ready();
        let grpc = free_port();
        let sidecars: Vec<Sidecar> = grid
            .gateways
            .iter()
            .map(|gateway| {
                let dir = format!("node: {{dir: '{}'}}", gateway.dir().display());
                Sidecar::start(&gateway.node.name, &gateway.web, grpc, &dir)
            })
            .collect();
        let places: Vec<Place> = sidecars.iter().map(|sidecar| sidecar.place.clone()).collect();
        let status: Vec<String> = sidecars.iter().map(|sidecar| sidecar.status.clone()).collect();
        let ways = vec![
            ways::haproxy_poll(&places),
            ways::haproxy_hold(&places),
            ways::envoy("Envoy, HTTP check", "refuse-writes.yaml", &places),
            ways::envoy("Envoy, gRPC check", "grpc.yaml", &places),
            ways::orca(&places),
            ways::slots(&places),
            ways::eds(&places, &status),
            ways::haproxy_plain(&places),
            ways::envoy_plain(&places),
        ];
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let count = u32::try_from(ways.len()).unwrap();
        let ways = (0..)
            .zip(ways)
            .map(|(at, way): (u32, Way)| {
                let offset = EVERY * at / count;
                let clients = Clients::start(&runtime, &way.web, &places, offset, EVERY);
                (way, clients)
            })
            .collect();
        let scene = Self { grid, sidecars, ways, _runtime: runtime };
        scene.wait_well();
        scene
    }

    /// Waits until every way sends the first gateway its full share again, and nothing goes wrong.
    fn wait_well(&self) {
        let well = |clients: &Clients| {
            let records = clients.lately(PATIENCE + Duration::from_millis(500));
            let last = &records[records.len().saturating_sub(SHARE)..];
            last.len() == SHARE
                && share(last) > 1.0 / 3.0 - WITHIN
                && last.iter().all(|record| !record.wrong)
        };
        for (way, clients) in &self.ways {
            wait_until(&format!("{} to be well", way.name), RECOVERY, || well(clients));
        }
    }

    /// One round: the worst time of each way that it concerns; `None` for never.
    fn round(&mut self, cause: Cause) -> Vec<Option<Duration>> {
        self.ways.iter().for_each(|(_, clients)| clients.forget());
        let first = self.grid.storage_ports(1);
        let began = Instant::now();
        let mut cut = None;
        let since = match cause {
            Cause::Drain => self.order(&["drain", "-m", "bench"]),
            Cause::Weight => self.order(&["weight", WEIGHT, "-m", "bench"]),
            Cause::Killed => {
                self.grid.gateways[0].node.kill();
                began
            }
            Cause::Lost => {
                cut = Some(Cut::new(&self.grid.gateways[0], &first, How::Reject));
                began
            }
            Cause::Frozen => {
                self.grid.gateways[0].node.stop();
                began
            }
        };
        let times = self.observe(cause, since);
        drop(cut);
        match cause {
            Cause::Drain | Cause::Weight => _ = self.order(&["clear"]),
            Cause::Killed => self.grid.gateways[0].node.start(),
            Cause::Frozen => self.grid.gateways[0].node.cont(),
            Cause::Lost => {}
        }
        self.grid.gateways[0].wait_connected(5);
        self.wait_well();
        times
    }

    fn order(&self, words: &[&str]) -> Instant {
        self.sidecars[0].order(words).unwrap();
        Instant::now()
    }

    fn observe(&self, cause: Cause, since: Instant) -> Vec<Option<Duration>> {
        let time = |clients: &Clients| {
            let records = clients.since(since);
            if cause == Cause::Weight {
                return followed(&records, since, NEW);
            }
            let last = records.iter().rfind(|record| record.is_bad());
            Some(last.map_or(Duration::ZERO, |record| record.sent - since))
        };
        loop {
            let settled = self.ways.iter().all(|(way, clients)| {
                let heard = cause.concerns(way) && (!way.plain || cause.shows());
                let quiet = |time| cause == Cause::Weight || (since + time).elapsed() >= QUIET;
                !heard || time(clients).is_some_and(quiet)
            });
            if settled || since.elapsed() > CAP {
                break;
            }
            pause(Duration::from_millis(50));
        }
        let (ended, late) = (Instant::now(), QUIET / 2);
        let mut times = Vec::new();
        for (_, clients) in &self.ways {
            // Still going wrong at the end: it has not been noticed.
            let never = |time: &Duration| cause != Cause::Weight && ended - (since + *time) < late;
            times.push(time(clients).filter(|time| !never(time)));
        }
        times
    }
}

/// Measures, and prints a table for each cause.
pub(crate) fn measure(causes: &[Cause], rounds: usize) {
    let mut scene = Scene::start();
    println!(
        "Milliseconds until the last request of a client was sent that met the bad node, of {rounds} rounds; \
         one request of each way every {} ms, of which the node gets a third. Each hcf looks at its node every second.",
        EVERY.as_millis()
    );
    for cause in causes {
        let mut times: Vec<Vec<Option<Duration>>> = vec![Vec::new(); scene.ways.len()];
        for round in 0..rounds {
            // At another point of everybody's intervals each time.
            pause(Duration::from_millis(u64::try_from(round * 370 % 1000).unwrap()));
            for (kept, time) in times.iter_mut().zip(scene.round(*cause)) {
                kept.push(time);
            }
        }
        println!("\n{}\n{:<28} {:<44} {:>8} {:>8}", cause.title(), "", "", "median", "worst");
        for ((way, _), times) in scene.ways.iter().zip(&mut times) {
            let said = if !cause.concerns(way) {
                "hears no weights".to_owned()
            } else if way.plain && *cause == Cause::Drain {
                "hears no orders".to_owned()
            } else {
                figures(times)
            };
            println!("{:<28} {:<44} {said}", way.name, way.pace);
        }
    }
}

fn figures(times: &mut [Option<Duration>]) -> String {
    // Never is later than any time.
    times.sort_unstable_by_key(|time| time.unwrap_or(Duration::MAX));
    let word = |time: Option<&Option<Duration>>| match time.copied().flatten() {
        Some(time) => time.as_millis().to_string(),
        None => "never".to_owned(),
    };
    format!("{:>8} {:>8}", word(times.get(times.len().saturating_sub(1) / 2)), word(times.last()))
}
