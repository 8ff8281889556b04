//! Whatever stands in front and only connects follows the gates, and no client loses a request by it.

use std::any::Any;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use super::farm::{beside_gates, shipped, wait_line, with_ports};
use super::gate::bytes;
use crate::lab::cut::{Cut, How};
use crate::lab::envoy::Envoy;
use crate::lab::haproxy::{Haproxy, Version};
use crate::lab::hcf::port;
use crate::lab::http;
use crate::lab::nginx::Nginx;
use crate::lab::ports::free_port;
use crate::lab::tahoe::Grid;
use crate::lab::wait::{LONG, wait_until};

/// The files that stand in front of gates, by their folder.
const FILES: [(&str, &str); 3] =
    [("deploy", "nginx.conf"), ("envoy", "gate.yaml"), ("haproxy", "gate.cfg")];

/// The one of this folder.
pub(super) fn file(folder: &str) -> &'static str {
    FILES.iter().find(|(of, _)| *of == folder).expect("each of these folders has one").1
}

/// A shipped file in front of two gates, started.
struct Front {
    name: String,
    web: String,
    _program: Box<dyn Any>,
}

impl Front {
    fn start(folder: &str, gates: [u16; 2], start: impl FnOnce(&str) -> Box<dyn Any>) -> Self {
        let web = free_port();
        let mut changes = vec![(8080, web), (3455, gates[0]), (3555, gates[1])];
        if folder == "envoy" {
            changes.push((9901, 0));
        }
        let program = start(&with_ports(&shipped(folder, file(folder)), &changes));
        Self { name: folder.to_owned(), web: format!("127.0.0.1:{web}"), _program: program }
    }

    /// Every one that is shipped.
    fn all(gates: [u16; 2]) -> Vec<Self> {
        let mut fronts = vec![
            Self::start("deploy", gates, |config| Box::new(Nginx::start(config))),
            Self::start("envoy", gates, |config| {
                let envoy = Envoy::start(config);
                envoy.wait_live();
                Box::new(envoy)
            }),
        ];
        fronts.extend(Version::ALL.map(|version| {
            Self::start("haproxy", gates, |config| Box::new(Haproxy::start(version, config)))
        }));
        fronts
    }

    /// Waits until clients reach exactly these gateways, by the nicknames on their welcome pages.
    fn wait_reaches(&self, expected: &[&str]) {
        wait_until(&format!("{} to lead to {expected:?}", self.name), LONG, || {
            let seen: BTreeSet<String> = (0..8).map(|_| self.reached()).collect();
            seen.iter().eq(expected)
        });
    }

    /// Whom one request reaches, or what came in place of an answer.
    fn reached(&self) -> String {
        let page = match http::get(&self.web, "/") {
            Ok(page) => page,
            Err(error) => return error.to_string(),
        };
        let text = page.text();
        let name = ["gw1", "gw2"].into_iter().find(|name| text.contains(&format!(">{name}<")));
        name.map_or_else(|| page.status.to_string(), str::to_owned)
    }

    /// The answer when no gate is open.
    fn wait_nobody(&self) {
        // Its own answer says when to come back; one for a connect that has just failed does not.
        wait_until(&format!("{} to lead nowhere", self.name), LONG, || {
            let answer = http::put(&self.web, "/uri", &bytes(2000));
            answer.is_ok_and(|answer| {
                let own = answer.header("retry-after") == Some("5");
                answer.status == 503 && own && answer.text().starts_with("No gateway ")
            })
        });
    }
}

/// One client of a front, that asks without a pause until told to stop.
struct Client {
    orders: Arc<Orders>,
    thread: JoinHandle<Vec<String>>,
}

#[derive(Default)]
struct Orders {
    stop: AtomicBool,
    answered: AtomicUsize,
}

impl Client {
    fn start(front: &Front, cap: &str) -> Self {
        let orders = Arc::new(Orders::default());
        let (web, name, file) = (front.web.clone(), front.name.clone(), format!("/uri/{cap}"));
        let thread = thread::spawn({
            let orders = Arc::clone(&orders);
            move || orders.obey(&web, &file).map(|bad| format!("{name}: {bad}")).collect()
        });
        Self { orders, thread }
    }

    /// Waits until this many more requests have been answered.
    fn wait_more(&self, count: usize) {
        let answered = || self.orders.answered.load(Ordering::SeqCst);
        let enough = answered() + count;
        wait_until("more answers", LONG, || answered() >= enough);
    }

    /// The requests that were not answered with 200.
    fn finish(self) -> Vec<String> {
        self.orders.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("no panic in a client")
    }
}

impl Orders {
    /// Asks until told to stop; what was not answered with 200.
    fn obey(&self, web: &str, file: &str) -> impl Iterator<Item = String> {
        let mut bad = Vec::new();
        while !self.stop.load(Ordering::SeqCst) {
            let answers = [
                ("GET", http::get(web, file)),
                ("POST", http::post(web, &format!("{file}?t=check"), b"")),
                ("PUT", http::put(web, "/uri", &bytes(2000))),
            ];
            for (method, answer) in answers {
                self.answered.fetch_add(1, Ordering::SeqCst);
                match answer {
                    Ok(answer) if answer.status == 200 => {}
                    // The gateway's own word: it fails uploads for a moment when it loses a server.
                    Ok(answer) if method == "PUT" && answer.status == 500 => {}
                    Ok(other) => bad.push(format!("{method}: {} {}", other.status, other.reason)),
                    Err(error) => bad.push(format!("{method}: {error}")),
                }
            }
        }
        bad.into_iter()
    }
}

#[test]
fn every_front_that_only_connects_follows_the_gates_and_no_client_notices() {
    let grid = Grid::ready();
    let cap = grid.gateways[0].upload(&bytes(2000));
    // One lost server is too much for hcf, while the gateway could go on: so what a client loses, the gate has lost.
    let wants = "services: {write: {criteria: {servers: {min: 5}}}}\n";
    let hcf = [0, 1].map(|at: usize| beside_gates(&grid.gateways[at], &["close"], wants));
    let gates = [0, 1].map(|at: usize| hcf[at].address("gate/close").to_owned());
    for hcf in &hcf {
        wait_line(hcf, "write\n", "up ready 100%\n");
    }
    let fronts = Front::all([0, 1].map(|at: usize| port(&gates[at])));
    let all_reach = |expected: &[&str]| {
        for front in &fronts {
            front.wait_reaches(expected);
        }
    };
    for _ in 0..2 {
        all_reach(&["gw1", "gw2"]);
        let clients: Vec<Client> = fronts.iter().map(|front| Client::start(front, &cap)).collect();
        for client in &clients {
            client.wait_more(9);
        }
        let cut = Cut::new(&grid.gateways[0], &grid.storage_ports(1), How::Reject);
        wait_until("the gate to close", LONG, || crate::gate::is_refused(&gates[0]));
        all_reach(&["gw2"]);
        for client in &clients {
            client.wait_more(9);
        }
        for front in &fronts {
            let stored = http::put(&front.web, "/uri", &bytes(2000)).expect("an answer");
            assert_eq!(stored.status, 200, "{}", front.name);
        }
        // The node's own port stays for diagnosis, whatever the gate does.
        assert_eq!(http::get(&grid.gateways[0].web, "/?t=json").expect("an answer").status, 200);
        drop(cut);
        all_reach(&["gw1", "gw2"]);
        let bad: Vec<String> = clients.into_iter().flat_map(Client::finish).collect();
        assert!(bad.is_empty(), "{bad:#?}");
    }
    // Cut off from everything, and the other one too.
    let ports = grid.storage_ports(5);
    let _cuts = [0, 1].map(|at: usize| Cut::new(&grid.gateways[at], &ports, How::Reject));
    for front in &fronts {
        front.wait_nobody();
    }
}
