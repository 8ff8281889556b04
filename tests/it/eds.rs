//! `hcf eds`: what becomes of a fleet's nodes in the file that Envoy watches.

use serde_json::{Value, json};

use crate::e2e::farm::shipped;
use crate::lab::eds::{Eds, FakeSidecar, word};
use crate::lab::fake::{Answer, FakeNode};
use crate::lab::hcf::Hcf;
use crate::lab::process::Signal;
use crate::lab::wait::{LONG, wait_until};
use crate::lab::{http, place};
use crate::program;

const GOOD: Answer = Answer::Grid { connected: 5, refused: 0 };
const READS_ONLY: Answer = Answer::Grid { connected: 3, refused: 2 };
const BAD: Answer = Answer::Grid { connected: 1, refused: 4 };
const DEGRADED: Answer = Answer::NoIntroducer { connected: 5, refused: 0 };

/// Two fake nodes, a real sidecar beside each, and the fleet.
struct Farm {
    nodes: [FakeNode; 2],
    hcf: [Hcf; 2],
    sockets: [String; 2],
    eds: Eds,
    _folder: tempfile::TempDir,
}

impl Farm {
    fn start(more: &str) -> Self {
        let folder = place::folder("eds-sockets");
        let socket = |at: usize| folder.path().join(at.to_string()).display().to_string();
        let sockets = [socket(0), socket(1)];
        let nodes = [0, 1].map(|_| FakeNode::start(GOOD));
        let hcf = [0, 1].map(|at: usize| {
            let config = format!(
                "node: {{url: '{}', every: 100ms, timeout: 1s}}\nadmin: {{socket: '{}'}}\n\
                 services:\n  read: {{criteria: {{servers: {{min: 2}}}}}}\n  write:\n    criteria: {{servers: {{min: 4}}, introducers: {{else: degrade}}}}\n",
                nodes[at].url(),
                sockets[at]
            );
            Hcf::configured(&config, &[])
        });
        let fleet = [0, 1].map(|at: usize| {
            (format!("gw{at}"), nodes[at].addr.clone(), format!("http://{}", hcf[at].status()))
        });
        let eds = Eds::start(&Eds::config(more, &fleet));
        eds.wait_health(&["HEALTHY", "HEALTHY"]);
        Self { nodes, hcf, sockets, eds, _folder: folder }
    }

    fn order(&self, args: &[&str]) {
        let run = program::hcf(&[args, &["--socket", &self.sockets[0]]].concat());
        assert_eq!(run.exit, 0, "{run:?}");
    }

    fn endpoint(&self) -> Value {
        self.eds.endpoints()[0].clone()
    }
}

fn allows(endpoint: &Value) -> (bool, bool) {
    let metadata = &endpoint["metadata"]["filter_metadata"]["envoy.lb"];
    (metadata["read"] == true, metadata["write"] == true)
}

#[test]
fn each_verdict_of_a_real_sidecar_reaches_the_file() {
    let farm = Farm::start("");
    let endpoint = farm.endpoint();
    assert_eq!(
        (&endpoint["load_balancing_weight"], allows(&endpoint)),
        (&json!(100), (true, true))
    );
    let address = &endpoint["endpoint"]["address"]["socket_address"];
    let node = format!("{}:{}", address["address"].as_str().unwrap(), address["port_value"]);
    assert_eq!(node, farm.nodes[0].addr);

    farm.nodes[0].set(READS_ONLY);
    farm.eds.wait_health(&["UNHEALTHY", "HEALTHY"]);
    wait_until("reads alone", LONG, || allows(&farm.endpoint()) == (true, false));
    farm.nodes[0].set(BAD);
    wait_until("not even reads", LONG, || allows(&farm.endpoint()) == (false, false));
    farm.nodes[0].set(DEGRADED);
    farm.eds.wait_health(&["DEGRADED", "HEALTHY"]);
    assert_eq!(farm.endpoint()["load_balancing_weight"], 50);
    farm.nodes[0].set(GOOD);
    farm.eds.wait_health(&["HEALTHY", "HEALTHY"]);

    farm.order(&["weight", "7", "write", "-m", "slow disk"]);
    wait_until("the weight", LONG, || farm.endpoint()["load_balancing_weight"] == 7);
    farm.order(&["clear"]);
    farm.order(&["drain", "-m", "update"]);
    farm.eds.wait_health(&["DRAINING", "HEALTHY"]);
    farm.order(&["maint", "-m", "update"]);
    farm.order(&["clear"]);
    farm.eds.wait_health(&["HEALTHY", "HEALTHY"]);
    wait_until("both again", LONG, || allows(&farm.endpoint()) == (true, true));
}

#[test]
fn a_sidecar_that_falls_silent_is_out_and_one_that_speaks_again_is_in() {
    let mut farm = Farm::start("");
    farm.hcf[0].signal(Signal::Stop);
    farm.eds.wait_health(&["UNHEALTHY", "HEALTHY"]);
    assert_eq!(farm.eds.fleet()["nodes"]["gw0"]["silent"], true);
    assert_eq!(allows(&farm.endpoint()), (false, false));
    farm.hcf[0].signal(Signal::Cont);
    farm.eds.wait_health(&["HEALTHY", "HEALTHY"]);
    farm.hcf[0].signal(Signal::Kill);
    farm.eds.wait_health(&["UNHEALTHY", "HEALTHY"]);
    let gone = &farm.eds.fleet()["nodes"]["gw0"];
    assert_eq!(
        (&gone["connected"], &gone["trouble"]),
        (&json!(false), &json!("nobody listens there"))
    );
    // The fleet's own process frozen is nobody else's silence.
    farm.eds.process().signal(Signal::Stop);
    crate::lab::wait::pause(std::time::Duration::from_secs(3));
    farm.eds.process().signal(Signal::Cont);
    farm.nodes[1].set(BAD);
    farm.eds.wait_health(&["UNHEALTHY", "UNHEALTHY"]);
    let log = farm.eds.log();
    assert!(log.contains("gw1") && !farm.eds.fleet()["nodes"]["gw1"]["silent"].as_bool().unwrap());
}

#[test]
fn too_few_good_nodes_keep_the_silent_one_in_but_none_that_would_lose_data() {
    let farm = Farm::start("min_available: 100");
    farm.hcf[0].signal(Signal::Kill);
    farm.eds.wait_health(&["DEGRADED", "HEALTHY"]);
    assert_eq!(farm.eds.fleet()["nodes"]["gw0"]["kept"], true);
    assert!(farm.eds.log().contains("Kept in although it is not good"), "{}", farm.eds.log());
    assert!(http::get(farm.eds.status(), "/").unwrap().text().contains("only because too few are"));
    farm.nodes[1].set(READS_ONLY);
    farm.eds.wait_health(&["DEGRADED", "UNHEALTHY"]);
}

/// Fake sidecars that say up, and the fleet of them.
fn fleet(count: usize, more: &str) -> (Vec<FakeSidecar>, Eds) {
    let up = word("up", 100, &[]);
    let sidecars: Vec<_> = (0..count).map(|_| FakeSidecar::start(&up)).collect();
    let eds = Eds::start(&config(&sidecars, more));
    wait_until("all to be in", LONG, || eds.health().iter().all(|health| health == "HEALTHY"));
    (sidecars, eds)
}

fn config(sidecars: &[FakeSidecar], more: &str) -> String {
    let nodes: Vec<_> = sidecars
        .iter()
        .enumerate()
        .map(|(at, sidecar)| {
            (format!("gw{at:03}"), format!("127.0.1.{}:3456", at + 1), sidecar.url.clone())
        })
        .collect();
    Eds::config(more, &nodes)
}

#[test]
fn the_least_bad_are_kept_and_let_go_as_others_come_back() {
    let (sidecars, eds) = fleet(4, "min_available: 50");
    sidecars[0].say("write", &word("maint", 100, &[Some("latency")]));
    sidecars[1].say("write", &word("down", 100, &[None]));
    eds.wait_health(&["DRAINING", "UNHEALTHY", "HEALTHY", "HEALTHY"]);
    sidecars[2].say("write", &word("down", 100, &[Some("latency")]));
    eds.wait_health(&["DRAINING", "UNHEALTHY", "DEGRADED", "HEALTHY"]);
    sidecars[3].say("write", &word("down", 100, &[Some("latency"), Some("servers")]));
    eds.wait_health(&["DRAINING", "UNHEALTHY", "DEGRADED", "UNHEALTHY"]);
    assert_eq!(
        (eds.fleet()["available"].as_u64(), eds.fleet()["kept"].as_u64()),
        (Some(1), Some(1))
    );
    let page = http::get(eds.status(), "/").unwrap().text();
    assert!(page.contains("&lt;b&gt;why") && !page.contains("<b>why"), "{page}");
    sidecars[0].say("write", &word("up", 100, &[]));
    sidecars[1].say("write", &word("up", 1, &[]));
    eds.wait_health(&["HEALTHY", "HEALTHY", "UNHEALTHY", "UNHEALTHY"]);
}

#[test]
fn two_hundred_nodes_make_one_new_file_for_each_change_and_none_for_a_heartbeat() {
    let (sidecars, eds) = fleet(200, "");
    let (mut writes, mut inode) = (eds.writes(), eds.inode());
    for round in 0..20 {
        let sidecar = &sidecars[round * 7];
        sidecar.say("write", &word("up", 10, &[]));
        let weight = || eds.endpoints()[round * 7]["load_balancing_weight"].clone();
        wait_until("the change to reach the file", LONG, || weight() == 10);
        wait_until("it to be counted", LONG, || eds.writes() > writes);
        assert_eq!(eds.writes(), writes + 1);
        assert_ne!(eds.inode(), inode);
        (writes, inode) = (writes + 1, eds.inode());
    }
    let beats: Vec<usize> = sidecars.iter().map(|sidecar| sidecar.beats() + 3).collect();
    wait_until("heartbeats of all", LONG, || {
        sidecars.iter().zip(&beats).all(|(sidecar, wanted)| sidecar.beats() >= *wanted)
    });
    // What is said again is no change.
    sidecars[7].say("write", &word("up", 10, &[]));
    sidecars[7].say("read", &word("down", 10, &[None]));
    wait_until("the next change", LONG, || eds.writes() > writes);
    assert_eq!(eds.writes(), writes + 1, "heartbeats are no changes");
}

#[test]
fn a_restart_takes_nobody_out_but_who_is_not_heard_is_out_when_it_is_ready() {
    let (sidecars, eds) = fleet(3, "");
    let config = config(&sidecars, "");
    let folder = eds.stop();
    let eds = Eds::start_in(folder, &config);
    assert_eq!(eds.health(), ["HEALTHY"; 3], "as soon as it is ready");
    assert_eq!(eds.writes(), 1);
    let folder = eds.stop();
    drop(sidecars);
    let eds = Eds::start_in(folder, &config.replace("http://127.0.0.1:", "unix:/nonexistent/"));
    assert_eq!(eds.health(), ["UNHEALTHY"; 3]);
    assert!(eds.endpoints().iter().all(|endpoint| endpoint["load_balancing_weight"] == 100));
}

#[test]
fn mistakes_are_named_and_end_the_start() {
    let folder = place::folder("eds");
    let run = |text: &str| {
        let file = folder.path().join("fleet.yaml");
        std::fs::write(&file, text).unwrap();
        program::hcf(&["eds", "-c", &file.display().to_string()])
    };
    let text = shipped("deploy", "fleet.yaml").replace("127.0.0.1:5295", "127.0.0.1:0");
    let wrong = run(&text.replace("min_available: 0", "min_available: 150"));
    assert_eq!(wrong.exit, 78, "{wrong:?}");
    assert!(
        wrong.stderr.contains("min_available: 150 is out of range") && wrong.stderr.contains('^')
    );
    let nowhere = run(&text.replace("/run/hcf/", "/nonexistent/"));
    assert_eq!(nowhere.exit, 1, "{nowhere:?}");
    assert!(nowhere.stderr.contains("cannot write /nonexistent/webapi.eds.json"), "{nowhere:?}");
    assert_eq!(program::hcf(&["eds", "-c", "/nonexistent"]).exit, 78);
}
