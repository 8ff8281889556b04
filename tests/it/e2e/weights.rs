//! Every file in `envoy/` that can say a weight, or asks over gRPC: real requests are shared out as hcf says, and go on
//! to nodes as HTTP/1.1.

use super::farm::{BAD, GOOD, must_answer, shipped, wait_answers, with_ports};
use crate::lab::envoy::{Envoy, Version};
use crate::lab::fake::{Answer, FakeNode};
use crate::lab::hcf::{Hcf, port};
use crate::lab::http;
use crate::lab::place;
use crate::lab::ports::free_port;
use crate::lab::wait::{LONG, wait_until};
use crate::program::hcf;

/// The files, all of which are started here.
pub(super) const FILES: [&str; 3] = ["grpc.yaml", "slots.yaml", "weights.yaml"];

/// Requests in one count: enough for the split to be exact within a few percent.
const COUNT: u32 = 2000;

/// A node that says its name, and its sidecar.
struct Side {
    node: FakeNode,
    sidecar: Hcf,
    folder: tempfile::TempDir,
}

impl Side {
    fn start(name: &str, ip: &str, grpc: &str) -> Self {
        let node = FakeNode::start_at(ip, GOOD);
        node.serve_clients(name);
        let folder = place::folder("weights");
        let config = format!(
            "node: {{url: \"{}\", every: 100ms, timeout: 2s}}\nadmin: {{socket: \"{}/s\"}}\n\
             services:\n  write: {{criteria: {{servers: {{min: 4}}}}}}\n  read: off\n",
            node.url(),
            folder.path().display()
        );
        let health = format!("{ip}:0");
        let sidecar = Hcf::configured(&config, &["--health", &health, "--grpc", grpc]);
        Self { node, sidecar, folder }
    }

    fn weigh(&self, weight: u8) {
        let socket = self.folder.path().join("s").display().to_string();
        let run = hcf(&["weight", &weight.to_string(), "--reason", "test", "--socket", &socket]);
        assert_eq!(run.exit, 0, "{run:?}");
    }
}

/// `envoy/NAME` in front of two sides, with these changes of ports beside those of the nodes.
fn start(
    version: Version,
    name: &str,
    sides: &[Side; 2],
    changes: &[(u16, u16)],
) -> (Envoy, String) {
    let web = free_port();
    let mut all = vec![(8080, web), (9901, 0)];
    all.extend([(3456, port(&sides[0].node.addr)), (3457, port(&sides[1].node.addr))]);
    all.extend(changes);
    let envoy = Envoy::start_version(version, &with_ports(&shipped("envoy", name), &all));
    envoy.wait_live();
    (envoy, format!("127.0.0.1:{web}"))
}

fn healths(sides: &[Side; 2]) -> [(u16, u16); 2] {
    [(5291, port(sides[0].sidecar.health())), (5391, port(sides[1].sidecar.health()))]
}

/// The share of requests that gw1 answers.
fn share(web: &str, count: u32) -> f64 {
    let ones = (0..count).filter(|_| {
        let answer = http::get(web, "/uri/x").unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.text() == "gw1"
    });
    f64::from(u32::try_from(ones.count()).unwrap()) / f64::from(count)
}

/// Waits until requests are shared out by these weights, and counts once more.
fn must_split(web: &str, weights: [u8; 2]) {
    let [one, two] = weights.map(f64::from);
    let ideal = one / (one + two);
    let error = |share: f64| {
        let by = |share: f64, ideal: f64| (share - ideal).abs() / ideal;
        by(share, ideal).max(by(1.0 - share, 1.0 - ideal))
    };
    wait_until(&format!("a split by {weights:?}"), LONG, || error(share(web, 220)) <= 0.1);
    let share = share(web, COUNT);
    println!("{weights:?}: gw1 got {share:.4} of {COUNT}, ideally {ideal:.4}");
    assert!(error(share) <= 0.05, "{weights:?}: gw1 got {share} of {COUNT}, ideally {ideal}");
}

/// Weights that orders set, one after the other; then one side fails, and comes back with its weight.
fn must_follow(web: &str, sides: &[Side; 2]) {
    wait_answers(web, "GET", "/uri/x", &["gw1", "gw2"]);
    must_split(web, [100, 100]);
    sides[1].weigh(50);
    must_split(web, [100, 50]);
    sides[1].weigh(10);
    must_split(web, [100, 10]);
    sides[0].weigh(50);
    must_split(web, [50, 10]);
    sides[0].node.set(BAD);
    wait_answers(web, "GET", "/uri/x", &["gw2"]);
    sides[0].node.set(GOOD);
    must_split(web, [50, 10]);
}

#[test]
fn envoy_shares_out_by_the_weights_that_sidecars_report() {
    // One port at two addresses, as it is with nodes on machines of their own.
    let grpc = free_port();
    let sides = [("gw1", "127.0.0.1"), ("gw2", "127.0.0.2")]
        .map(|(name, ip)| Side::start(name, ip, &format!("{ip}:{grpc}")));
    let [one, two] = healths(&sides);
    let (_envoy, web) = start(Version::Newest, "weights.yaml", &sides, &[one, two, (5292, grpc)]);
    must_follow(&web, &sides);
}

fn slots(version: Version) {
    let sides = ["gw1", "gw2"].map(|name| Side::start(name, "127.0.0.1", "off"));
    let (_envoy, web) = start(version, "slots.yaml", &sides, &healths(&sides));
    must_follow(&web, &sides);
}

#[test]
fn envoy_shares_out_by_slots() {
    slots(Version::Newest);
}

#[test]
fn an_older_envoy_shares_out_by_slots() {
    slots(Version::Oldest);
}

fn check(version: Version) {
    let sides = ["gw1", "gw2"].map(|name| Side::start(name, "127.0.0.1", "127.0.0.1:0"));
    let ports = [5292, 5392];
    let at = |n: usize| (ports[n], port(sides[n].sidecar.address("grpc")));
    let (_envoy, web) = start(version, "grpc.yaml", &sides, &[at(0), at(1)]);
    let both = ["gw1", "gw2"];
    wait_answers(&web, "PUT", "/uri", &both);
    assert!(sides[0].node.last_head().starts_with("PUT /uri HTTP/1.1\r\n"));
    sides[0].node.set(BAD);
    wait_answers(&web, "PUT", "/uri", &["gw2"]);
    must_answer(&web, "GET", "/", &["gw2"]);
    sides[1].node.set(Answer::Close);
    wait_answers(&web, "GET", "/", &["503"]);
    for side in &sides {
        side.node.set(GOOD);
    }
    wait_answers(&web, "PUT", "/uri", &both);
    // A sidecar that is gone vouches for nothing.
    sides[0].sidecar.signal(crate::lab::process::Signal::Kill);
    wait_answers(&web, "PUT", "/uri", &["gw2"]);
    // Nodes know no HTTP/2, so clients get none.
    let h2 = crate::lab::net::ask(&web, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", LONG);
    assert!(h2.is_ok_and(|answer| answer.starts_with("HTTP/1.1 4")));
}

#[test]
fn envoy_checks_over_grpc() {
    check(Version::Newest);
}

#[test]
fn an_older_envoy_checks_over_grpc() {
    check(Version::Oldest);
}
