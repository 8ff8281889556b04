//! How exactly requests are shared out by weights, and how soon by new ones. Only the balancers count here, so the nodes
//! are stubs.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Builder;

use crate::clients::{Clients, followed};
use crate::lab::fake::FakeNode;
use crate::lab::http;
use crate::lab::ports::free_port;
use crate::lab::shipped::Place;
use crate::lab::sidecar::Sidecar;
use crate::lab::wait::{LONG, pause, wait_until};
use crate::ways::{self, Way};

/// The weights that orders set.
const WEIGHTS: [u8; 3] = [100, 50, 10];
/// Requests in a count, and in one that only looks whether all is ready.
const COUNT: usize = 4800;
const LOOK: usize = 320;
/// Clients at a time; least connections are a share of these.
const CLIENTS: usize = 32;
/// How long a node takes.
const WORK: Duration = Duration::from_millis(5);
/// When the nodes' names are in doubt, requests differ, for what goes by their paths.
static NUMBER: AtomicUsize = AtomicUsize::new(0);

struct Stubs {
    sidecars: Vec<Sidecar>,
    places: Vec<Place>,
    _nodes: Vec<FakeNode>,
}

impl Stubs {
    fn start() -> Self {
        let grpc = free_port();
        let names = ["gw1", "gw2", "gw3"];
        let nodes: Vec<FakeNode> = names
            .iter()
            .zip(1..)
            .map(|(name, at)| {
                let answer = crate::lab::fake::Answer::Grid { connected: 10, refused: 0 };
                let node = FakeNode::start_at(&format!("127.0.0.{at}"), answer);
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\n{name}"
                );
                node.serve_by(move |stream, _, _| {
                    pause(WORK);
                    let _ = stream.write_all(answer.as_bytes());
                    None
                });
                node
            })
            .collect();
        let sidecars: Vec<Sidecar> = names
            .iter()
            .zip(&nodes)
            .map(|(name, node)| {
                let config = format!("node: {{url: '{}'}}", node.url());
                Sidecar::start(name, &node.addr, grpc, &config)
            })
            .collect();
        let places = sidecars.iter().map(|sidecar| sidecar.place.clone()).collect();
        Self { sidecars, places, _nodes: nodes }
    }
}

/// How many requests each node answers.
fn count(web: &str, requests: usize) -> BTreeMap<String, usize> {
    let each = |_| {
        let web = web.to_owned();
        thread::spawn(move || {
            let mut seen: BTreeMap<String, usize> = BTreeMap::new();
            for _ in 0..requests / CLIENTS {
                let path = format!("/uri/{}", NUMBER.fetch_add(1, Ordering::Relaxed));
                let answer = http::get(&web, &path).map(|answer| answer.text());
                *seen.entry(answer.unwrap_or_else(|error| error.to_string())).or_default() += 1;
            }
            seen
        })
    };
    let threads: Vec<_> = (0..CLIENTS).map(each).collect();
    let mut all: BTreeMap<String, usize> = BTreeMap::new();
    for thread in threads {
        for (who, n) in thread.join().unwrap() {
            *all.entry(who).or_default() += n;
        }
    }
    all
}

/// The share of each node in percent, and the largest distance from what it should be.
fn shares(places: &[Place], seen: &BTreeMap<String, usize>) -> ([f64; 3], f64) {
    let total: usize = seen.values().sum();
    let sum: f64 = WEIGHTS.iter().map(|weight| f64::from(*weight)).sum();
    let mut error = 0.0_f64;
    let shares = [0, 1, 2].map(|at: usize| {
        let n = seen.get(&places[at].name).copied().unwrap_or_default();
        let share = n as f64 / total as f64 * 100.0;
        error = error.max((share - f64::from(WEIGHTS[at]) / sum * 100.0).abs());
        share
    });
    (shares, error)
}

/// Prints how far each way is from weights of 100, 50 and 10.
pub(crate) fn errors() {
    let stubs = Stubs::start();
    let status: Vec<String> = stubs.sidecars.iter().map(|sidecar| sidecar.status.clone()).collect();
    let places = &stubs.places;
    let ways: Vec<Way> = vec![
        ways::haproxy_balancing("HAProxy, roundrobin", "balance roundrobin", places),
        ways::haproxy_balancing("HAProxy, leastconn", "balance leastconn", places),
        ways::haproxy_balancing("HAProxy, random", "balance random", places),
        ways::haproxy_balancing(
            "HAProxy, consistent hash",
            "balance uri\n    hash-type consistent",
            places,
        ),
        ways::orca(places),
        ways::slots(places),
        ways::eds(places, &status),
    ];
    for (sidecar, weight) in stubs.sidecars.iter().zip(WEIGHTS) {
        sidecar.order(&["weight", &weight.to_string(), "-m", "bench"]).unwrap();
    }
    println!(
        "Shares at weights {WEIGHTS:?}, in percent of {COUNT} requests of {CLIENTS} clients; exact would be {}.\n\
         {:<28} {:>8} {:>8} {:>8} {:>22}",
        WEIGHTS.map(|w| format!("{:.2}", f64::from(w) / 1.6)).join(" "),
        "",
        "gw1",
        "gw2",
        "gw3",
        "worst error, points"
    );
    for way in &ways {
        wait_until(&format!("{} to know the weights", way.name), LONG, || {
            shares(places, &count(&way.web, LOOK)).1 < 10.0
        });
        let ([one, two, three], error) = shares(places, &count(&way.web, COUNT));
        println!("{:<28} {one:>8.2} {two:>8.2} {three:>8.2} {error:>22.2}", way.name);
    }
    println!();
}

/// How often a request is sent.
const EVERY: Duration = Duration::from_millis(2);

/// How long a report may take that Envoy asks for, once in `weight_update_period`.
const REPORTING: Duration = Duration::from_millis(150);

/// Prints how soon Envoy shares out by a new ORCA weight, by how often it takes up new ones; returns how many limits were
/// missed.
pub(crate) fn follow(rounds: usize) -> usize {
    let stubs = Stubs::start();
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    println!(
        "Milliseconds from `hcf weight` (100 to 10 and back, in turns) until requests are shared out by it, \
         of {rounds} rounds; at worst the period and {} ms of reporting.\n{:<28} {:>8} {:>8} {:>8}",
        REPORTING.as_millis(),
        "weight_update_period",
        "median",
        "worst",
        "limit"
    );
    let mut missed = 0;
    for (period, span) in [("0.1s", 100), ("0.5s", 500), ("1s", 1000), ("2s", 2000)] {
        let limit = Duration::from_millis(span) + REPORTING;
        let way = ways::orca_updated(period, &stubs.places);
        let clients = Clients::start(&runtime, &way.web, &stubs.places, Duration::ZERO, EVERY);
        let mut times = Vec::new();
        for round in 0..=rounds {
            pause(Duration::from_millis(u64::try_from(round * 370 % 1000).unwrap()));
            let (weight, share) =
                if round % 2 == 0 { ("10", 10.0 / 210.0) } else { ("100", 1.0 / 3.0) };
            clients.forget();
            stubs.sidecars[0].order(&["weight", weight, "-m", "bench"]).unwrap();
            let since = Instant::now();
            let mut time = None;
            wait_until("the new share", LONG, || {
                time = followed(&clients.since(since), since, share);
                time.is_some()
            });
            // Before the first one Envoy had to ask for weights.
            times.extend(time.filter(|_| round > 0));
        }
        times.sort_unstable();
        let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
        let kept = worst <= limit;
        missed += usize::from(!kept);
        println!(
            "{period:<28} {:>8} {:>8} {:>8}  {}",
            median.as_millis(),
            worst.as_millis(),
            limit.as_millis(),
            if kept { "kept" } else { "MISSED" }
        );
        stubs.sidecars[0].order(&["clear"]).unwrap();
    }
    println!();
    missed
}
