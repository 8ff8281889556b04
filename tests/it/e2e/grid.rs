//! On a real grid, with either storage protocol: reads are refused only below shares.needed, writes below
//! shares.happy, and the balancers' clients see it; a lost introducer is only warned of; and while one gateway is cut
//! off from the grid, everything goes to the other one.

use super::farm::{self, Front, Side, shows};
use crate::lab::cut::{Cut, How};
use crate::lab::envoy::Envoy;
use crate::lab::haproxy::Haproxy;
use crate::lab::hcf::{self, Hcf};
use crate::lab::http;
use crate::lab::tahoe::{Grid, Protocol};
use crate::lab::wait::{LONG, wait_until};

/// A grid with two gateways, an hcf beside each, and every balancer in front.
struct Scene {
    grid: Grid,
    hcf: [Hcf; 2],
    haproxies: Vec<Front<Haproxy>>,
    envoy: Front<Envoy>,
    /// A file that was uploaded while all was well.
    cap: String,
}

/// More than a capability string could hold by itself.
const FILE: &[u8] = &[b'f'; 2000];

#[test]
fn over_http_storage() {
    walk(Protocol::Http);
}

#[test]
fn over_foolscap() {
    walk(Protocol::Foolscap);
}

fn walk(protocol: Protocol) {
    let mut scene = Scene::start(protocol);
    scene.expect(5, true, true);
    one_gateway_cut_off(&mut scene);
    servers_lost_and_back(&mut scene);
    introducer_lost(&mut scene);
}

impl Scene {
    fn start(protocol: Protocol) -> Self {
        // A foolscap connection notices a cut when it next sends something, so it must do that soon.
        let mut grid = Grid::builder().protocol(protocol).keepalive(2).start();
        grid.wait_ready();
        let cap = grid.gateways[0].upload(FILE);
        let hcf = [0, 1].map(|at: usize| farm::beside(&grid.gateways[at], &[]));
        let sides = [0, 1].map(|at: usize| Side::of(grid.gateways[at].port(), &hcf[at]));
        let haproxies = farm::haproxies("recommended.cfg", &sides);
        let envoy = farm::envoy("refuse-writes.yaml", &sides);
        Self { grid, hcf, haproxies, envoy, cap }
    }

    /// With so many servers, both gateways' verdicts, the balancers' states and the clients' answers are these.
    fn expect(&self, servers: usize, reads: bool, writes: bool) {
        println!("{servers} servers: reads {reads}, writes {writes}");
        for (name, up) in [("read", reads), ("write", writes)] {
            for hcf in &self.hcf {
                let words = if up { "up ready 100%\n" } else { "down ready 100% #servers-few: " };
                farm::wait_line(hcf, &format!("{name}\n"), words);
            }
            for at in [0, 1] {
                self.wait_balancers(at, name, up);
            }
        }
        for web in self.webs() {
            client_sees(web, "GET", &format!("/uri/{}", self.cap), reads);
            client_sees(web, "PUT", "/uri", writes);
        }
    }

    /// Waits until every balancer has gateway `at` in or out for a service.
    fn wait_balancers(&self, at: usize, service: &str, up: bool) {
        let server = format!("gw{}", at + 1);
        for front in &self.haproxies {
            let backend = format!("be_{service}");
            let what = format!("up: {up}");
            // While a check runs HAProxy shows no last answer, so the reason is waited for as well.
            let stat = front.balancer.wait_stat(&backend, &server, &what, |stat| {
                stat.is_up() == up && stat.last_agent().contains("servers-few") != up
            });
            println!("{backend}/{server}: {}", shows(&stat));
        }
        let cluster = format!("nodes_{service}");
        let host = &self.grid.gateways[at].web;
        wait_until(&format!("Envoy's {cluster}, {server} to be up: {up}"), LONG, || {
            self.envoy.balancer.is_up(&cluster, host) == up
        });
    }

    fn webs(&self) -> impl Iterator<Item = &String> {
        self.haproxies.iter().map(|front| &front.web).chain([&self.envoy.web])
    }
}

/// A client's requests are served, all of them, or refused by the balancer.
fn client_sees(web: &str, method: &str, path: &str, served: bool) {
    let body = (method == "PUT").then_some(FILE);
    let mut first = true;
    // Envoy's workers follow its admin port by a few milliseconds.
    wait_until(&format!("{method} at {web} to be served: {served}"), LONG, || {
        let answer = http::request(web, method, path, &[], body, LONG).expect("an answer");
        if std::mem::take(&mut first) {
            println!("{method} at {web}: {} {}", answer.status, answer.reason);
        }
        let good = matches!(answer.status, 200 | 201);
        if method == "GET" && good {
            assert!(answer.body == FILE, "the file's own bytes");
        }
        let refused = answer.status == 503 && answer.header("retry-after") == Some("5");
        if served { good } else { refused }
    });
    for _ in 0..4 {
        let answer = http::request(web, method, path, &[], body, LONG).expect("an answer");
        let good = matches!(answer.status, 200 | 201);
        assert_eq!(good, served, "{method} at {web}: {} {}", answer.status, answer.text());
    }
}

/// Storage servers die one by one and come back: happy is 4, needed is 2.
fn servers_lost_and_back(scene: &mut Scene) {
    for alive in (1..5).rev() {
        scene.grid.storage[alive].kill();
        scene.expect(alive, alive >= 2, alive >= 4);
    }
    for alive in 2..=5 {
        scene.grid.storage[alive - 1].start();
        scene.expect(alive, alive >= 2, alive >= 4);
    }
}

/// A running grid keeps serving without its introducer, so it is only told of.
fn introducer_lost(scene: &mut Scene) {
    scene.grid.introducer.kill();
    for hcf in &scene.hcf {
        for service in ["read", "write"] {
            wait_until("the lost introducer to be warned of", LONG, || {
                let status = http::get(hcf.status(), "/v1/status").expect("an answer").json();
                let service = &status["services"][service];
                assert_eq!(service["state"], "up", "{service}");
                let reasons = service["reasons"].as_array().expect("a list of reasons");
                reasons
                    .iter()
                    .any(|reason| reason["code"] == "introducers-few" && reason["else"] == "warn")
            });
            assert_eq!(hcf::ask(hcf.agent(), &format!("{service}\n")), "up ready 100%\n");
        }
    }
    scene.expect(5, true, true);
}

/// One gateway loses the grid while the other one stays well: no client is to notice once the balancer knows.
fn one_gateway_cut_off(scene: &mut Scene) {
    let ports = scene.grid.storage_ports(5);
    let cut = Cut::new(&scene.grid.gateways[0], &ports, How::Reject);
    for service in ["read", "write"] {
        farm::wait_line(
            &scene.hcf[0],
            &format!("{service}\n"),
            "down ready 100% #servers-few: 0 of",
        );
        farm::wait_line(&scene.hcf[1], &format!("{service}\n"), "up ready 100%\n");
        scene.wait_balancers(0, service, false);
        scene.wait_balancers(1, service, true);
    }
    for web in scene.webs() {
        for (method, path) in [("GET", format!("/uri/{}", scene.cap)), ("PUT", "/uri".to_owned())] {
            client_sees(web, method, &path, true);
        }
    }
    drop(cut);
    scene.expect(5, true, true);
}
