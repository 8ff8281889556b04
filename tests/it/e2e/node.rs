//! What becomes of a gateway's own process: killed, started again, frozen, continued, and what answers on its port
//! when it is not there. The agent's line, both balancers and the clients are asked each time.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use super::farm::{self, Front, Side, shows, wait_line};
use crate::lab::envoy::Envoy;
use crate::lab::fake;
use crate::lab::haproxy::Haproxy;
use crate::lab::hcf::{self, Hcf};
use crate::lab::http;
use crate::lab::tahoe::{Gateway, Grid};
use crate::lab::wait::{LONG, wait_until};
use crate::program::hcf as run;

/// A small grid, and an hcf beside each gateway.
fn grid(gateways: usize) -> Grid {
    let mut grid = Grid::builder().storage(2).gateways(gateways).shares(1, 2, 2).start();
    grid.wait_ready();
    grid
}

/// The balancers in front of both gateways.
struct Fronts {
    haproxies: Vec<Front<Haproxy>>,
    envoy: Front<Envoy>,
}

impl Fronts {
    fn start(sides: &[Side; 2]) -> Self {
        Self {
            haproxies: farm::haproxies("recommended.cfg", sides),
            envoy: farm::envoy("refuse-writes.yaml", sides),
        }
    }

    /// Waits until every balancer shows gw1 in or out, and for what reason; then every client must be served.
    fn expect(&self, gw1: &Gateway, up: bool, reason: &str, cap: &str) {
        for front in &self.haproxies {
            for backend in ["be_read", "be_write"] {
                let what = format!("up: {up}, {reason:?}");
                let stat = front.balancer.wait_stat(backend, "gw1", &what, |stat| {
                    stat.is_up() == up && stat.last_agent().contains(reason)
                });
                println!("{backend}/gw1: {}", shows(&stat));
            }
        }
        for cluster in ["nodes_read", "nodes_write"] {
            wait_until(&format!("{cluster}: gw1 to be up: {up}"), LONG, || {
                self.envoy.balancer.is_up(cluster, &gw1.web) == up
            });
        }
        for web in self.haproxies.iter().map(|front| &front.web).chain([&self.envoy.web]) {
            for _ in 0..4 {
                let answer = http::get(web, &format!("/uri/{cap}")).expect("an answer");
                assert_eq!(answer.status, 200, "{}", answer.text());
            }
        }
    }
}

#[test]
fn killed_frozen_and_back() {
    let mut grid = grid(2);
    let cap = grid.gateways[0].upload(&[b'f'; 2000]);
    let hcf = [0, 1].map(|at: usize| farm::beside(&grid.gateways[at], &[]));
    let sides = [0, 1].map(|at: usize| Side::of(grid.gateways[at].port(), &hcf[at]));
    let fronts = Fronts::start(&sides);
    let gw1 = &mut grid.gateways[0];
    for service in ["read\n", "write\n"] {
        wait_line(&hcf[0], service, "up ready 100%\n");
    }
    fronts.expect(gw1, true, "via agent : up", &cap);

    gw1.node.kill();
    for service in ["read\n", "write\n"] {
        wait_line(&hcf[0], service, "down ready 100% #refused: ");
    }
    fronts.expect(gw1, false, "refused", &cap);
    gw1.node.start();
    wait_line(&hcf[0], "write\n", "up ready 100%\n");
    fronts.expect(gw1, true, "via agent : up", &cap);

    gw1.node.stop();
    for service in ["read\n", "write\n"] {
        wait_line(&hcf[0], service, "down ready 100% #timeout: ");
    }
    fronts.expect(gw1, false, "timeout", &cap);
    gw1.node.cont();
    wait_line(&hcf[0], "write\n", "up ready 100%\n");
    fronts.expect(gw1, true, "via agent : up", &cap);

    gw1.node.term();
    wait_line(&hcf[0], "write\n", "down ready 100% #refused: ");
    fronts.expect(gw1, false, "refused", &cap);
    gw1.node.start();
    wait_line(&hcf[0], "write\n", "up ready 100%\n");
    fronts.expect(gw1, true, "via agent : up", &cap);
}

#[test]
fn what_happens_to_its_process_is_known_at_once() {
    let mut grid = grid(1);
    let gateway = &mut grid.gateways[0];
    let dir = gateway.dir().display().to_string();
    // So seldom that no other look sees it.
    let seldom = "node: {every: 1h}\ndamping: {rise: 1}\n";
    let hcf = Hcf::configured(seldom, &["--node-dir", &dir]);
    wait_line(&hcf, "write\n", "up ready 100%\n");
    gateway.node.stop();
    wait_line(&hcf, "write\n", "down ready 100% #timeout: the node's process is stopped");
    gateway.node.cont();
    wait_line(&hcf, "write\n", "up ready 100%\n");
    gateway.node.kill();
    wait_line(&hcf, "write\n", "down ready 100% #refused: ");
}

#[test]
fn another_node_on_the_port_is_never_up() {
    let mut grid = grid(2);
    let (one, two) = grid.gateways.split_at_mut(1);
    let (gw1, gw2) = (&mut one[0], &mut two[0]);
    let hcf = farm::beside(gw1, &[]);
    wait_line(&hcf, "read\n", "up ready 100%\n");

    // Killed, gw1 leaves its process file; stopped, it takes it along. gw2 answers on the port as gw1 would.
    let old = std::fs::read_to_string(gw2.dir().join("tahoe.cfg")).expect("it can be read");
    let moved = old.replace(&format!("tcp:{}:", gw2.port()), &format!("tcp:{}:", gw1.port()));
    assert_ne!(old, moved);
    gw2.node.term();
    gw2.node.write("tahoe.cfg", &moved);
    gw1.node.kill();
    gw2.node.start();
    wait_until("gw2 to answer on gw1's port", LONG, || gw1.connected() == 2);
    wait_line(&hcf, "write\n", "down ready 100% #wrong-node: ");
    must_be_wrong(gw1);
    gw2.node.term();
    gw1.node.start();
    wait_line(&hcf, "write\n", "up ready 100%\n");
    gw1.node.term();
    gw2.node.start();
    wait_until("gw2 to answer on gw1's port", LONG, || gw1.connected() == 2);
    wait_line(&hcf, "read\n", "down ready 100% #wrong-node: ");
    must_be_wrong(gw1);
}

/// Neither an hcf that starts now nor a single look takes what answers for this node.
fn must_be_wrong(gateway: &Gateway) {
    let new = farm::beside(gateway, &[]);
    wait_line(&new, "read\n", "down ready 100% #wrong-node: ");
    let health = http::get(new.health(), "/health/read").expect("an answer");
    assert_eq!(health.status, 503);
    let probe = run(&["probe", "--node-dir", &gateway.dir().display().to_string()]);
    assert_eq!(probe.exit, 1);
    assert!(probe.stdout.contains("wrong-node"), "{probe:?}");
}

#[test]
fn a_squatter_on_the_port_is_never_up() {
    let mut grid = grid(1);
    let gateway = &mut grid.gateways[0];
    let hcf = farm::beside(gateway, &[]);
    wait_line(&hcf, "read\n", "up ready 100%\n");
    gateway.node.kill();
    wait_line(&hcf, "read\n", "down ready 100% #refused: ");
    let squatter = Squatter::start(&gateway.web);
    // Some web server, and one that repeats a gateway's very page.
    for page in [b"<!DOCTYPE html><p>It works!".to_vec(), fake::page(5, 0)] {
        squatter.say(page);
        let new = farm::beside(gateway, &[]);
        for hcf in [&hcf, &new] {
            for service in ["read\n", "write\n"] {
                let line = wait_line(hcf, service, "down ready 100% #");
                assert!(!line.contains("servers-few"), "{line}");
            }
        }
        wait_line(&new, "read\n", "#wrong-node: ");
        // Nor after more looks, each of which asks it for something.
        let before = squatter.asked();
        wait_until("more looks", LONG, || {
            assert!(hcf::ask(new.agent(), "read\n").starts_with("down "));
            squatter.asked() > before + 10
        });
    }
}

/// Whatever is asked, it says the same page.
struct Squatter {
    page: Arc<Mutex<Vec<u8>>>,
    asked: Arc<AtomicUsize>,
}

impl Squatter {
    fn start(address: &str) -> Self {
        let listener = TcpListener::bind(address).expect("the port is free");
        let squatter = Self { page: Arc::default(), asked: Arc::default() };
        let (page, asked) = (Arc::clone(&squatter.page), Arc::clone(&squatter.asked));
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                asked.fetch_add(1, Ordering::SeqCst);
                let _ = stream.read(&mut [0; 4096]);
                let page = page.lock().expect("no panic").clone();
                let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: ";
                let head = format!("{head}{}\r\n\r\n", page.len());
                let _ = stream.write_all(&[head.as_bytes(), &page].concat());
            }
        });
        squatter
    }

    fn say(&self, page: Vec<u8>) {
        *self.page.lock().expect("no panic") = page;
    }

    /// The connections so far.
    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[test]
fn probe_tells_a_node_that_is_up_from_one_that_is_not() {
    let mut grid = grid(1);
    let dir = grid.gateways[0].dir().display().to_string();
    let probe = |words: &[&str]| run(&[&["probe", "--node-dir", &dir][..], words].concat());
    let up = probe(&[]);
    assert_eq!((up.exit, up.stderr.as_str()), (0, ""), "{up:?}");
    let first = format!("gw1 at http://{} answered in ", grid.gateways[0].web);
    assert!(up.stdout.starts_with(&first), "{}", up.stdout);
    for line in ["read: up, weight 100", "write: up, weight 100"] {
        assert!(up.stdout.lines().any(|found| found == line), "{line}:\n{}", up.stdout);
    }
    for row in [
        "  servers       pass     2 storage servers usable, 1 needed",
        "  servers       pass     2 storage servers usable, 2 needed",
        "  introducers   pass     1 of 1 introducers connected, 1 needed",
    ] {
        assert!(up.stdout.lines().any(|found| found == row), "{row}:\n{}", up.stdout);
    }
    let json: serde_json::Value =
        serde_json::from_str(&probe(&["--json"]).stdout).expect("it is JSON");
    assert_eq!(json["services"]["write"]["state"], "up", "{json}");
    assert_eq!(probe(&["no-such-service"]).exit, 2);

    grid.storage[1].kill();
    grid.gateways[0].wait_connected(1);
    let some = probe(&[]);
    assert_eq!((some.exit, probe(&["read"]).exit, probe(&["write"]).exit), (1, 0, 1), "{some:?}");
    assert!(some.stdout.lines().any(|line| line == "write: down"), "{}", some.stdout);

    grid.gateways[0].node.kill();
    let gone = probe(&[]);
    assert_eq!(gone.exit, 1, "{gone:?}");
    assert!(gone.stdout.contains("refused"), "{}", gone.stdout);
    let nowhere = run(&["probe", "--node-dir", &format!("{dir}/private")]);
    assert_eq!((nowhere.exit, nowhere.stdout.as_str()), (78, ""), "{nowhere:?}");
}
