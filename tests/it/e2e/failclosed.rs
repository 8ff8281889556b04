//! A sidecar that is dead, frozen or absent takes its node out, from the balancer's first moment on, and a balancer
//! or a sidecar that starts again ends where it should.

use super::farm::{self, Fakes, Front, Side};
use crate::lab::haproxy::{Haproxy, Stat, Version, replace};
use crate::lab::hcf::{Hcf, port};
use crate::lab::process::Signal;
use crate::lab::wait::{LONG, wait_until};

const NONE: [&str; 1] = ["503"];

/// An hcf for the node at `url` on these ports, which may have been another's before.
fn again(url: &str, side: Side) -> Hcf {
    let [agent, health] = side.arguments();
    Hcf::configured(&farm::config(url), &[&agent, &health])
}

fn wait_up(haproxies: &[Front<Haproxy>], up: bool) {
    for front in haproxies {
        for backend in ["be_read", "be_write"] {
            let what = format!("up: {up}");
            front.balancer.wait_stat(backend, "gw1", &what, |stat| stat.is_up() == up);
        }
    }
}

#[test]
fn without_its_sidecar_a_node_gets_nothing() {
    let nodes = Fakes::nodes();
    let [one, two] = &nodes;
    let sides = [Side::reserved(port(&one.addr)), Side::reserved(port(&two.addr))];
    let haproxies = farm::haproxies("recommended.cfg", &sides);
    let envoy = farm::envoy("refuse-writes.yaml", &sides);
    let webs: Vec<&str> =
        haproxies.iter().map(|front| front.web.as_str()).chain([envoy.web.as_str()]).collect();
    // Absent at the balancers' start: both nodes are well, and neither gets anything.
    for web in &webs {
        farm::wait_answers(web, "GET", "/uri/x", &NONE);
    }
    assert!(one.asked().is_empty() && two.asked().is_empty());

    let mut first = again(&one.url(), sides[0]);
    for web in &webs {
        farm::wait_answers(web, "GET", "/uri/x", &["gw1"]);
        farm::wait_answers(web, "PUT", "/uri", &["gw1"]);
    }
    // Frozen: its sockets still accept.
    first.signal(Signal::Stop);
    for web in &webs {
        farm::wait_answers(web, "GET", "/uri/x", &NONE);
    }
    first.signal(Signal::Cont);
    for web in &webs {
        farm::wait_answers(web, "GET", "/uri/x", &["gw1"]);
    }
    // Killed.
    first.signal(Signal::Kill);
    wait_until("hcf to be gone", LONG, || first.process().ended().is_some());
    for web in &webs {
        farm::wait_answers(web, "GET", "/uri/x", &NONE);
    }
    wait_up(&haproxies, false);
    // And started again.
    let _again = again(&one.url(), sides[0]);
    for web in &webs {
        farm::wait_answers(web, "GET", "/uri/x", &["gw1"]);
        farm::wait_answers(web, "PUT", "/uri", &["gw1"]);
    }
}

#[test]
fn balancers_that_start_again_end_where_they_were() {
    let farm = Fakes::start();
    let sides = farm.sides();
    farm.say(&farm::READS_ONLY, &farm::GOOD);
    for _ in 0..2 {
        let mut fronts = Vec::new();
        for version in Version::ALL {
            fronts.push(farm::haproxy(version, "recommended.cfg", &sides));
        }
        let envoy = farm::envoy("refuse-writes.yaml", &sides);
        let webs = fronts.iter().map(|front| front.web.as_str()).chain([envoy.web.as_str()]);
        for web in webs {
            farm::wait_answers(web, "PUT", "/uri", &["gw2"]);
            farm::wait_answers(web, "GET", "/uri/x", &["gw1", "gw2"]);
        }
        assert!(
            !farm.nodes[0].asked().iter().any(|asked| asked.starts_with("PUT")),
            "never a write"
        );
    }
}

#[test]
fn a_sidecar_that_stops_says_so_first() {
    let farm = Fakes::start();
    let sides = farm.sides();
    let fronts = farm::haproxies("recommended.cfg", &sides);
    for front in &fronts {
        farm::wait_answers(&front.web, "GET", "/uri/x", &["gw1", "gw2"]);
    }
    farm.hcf[0].signal(Signal::Term);
    for front in &fronts {
        front.balancer.wait_stat("be_read", "gw1", "drained, and why", |stat| {
            stat.status().starts_with("DRAIN")
                && stat.last_agent().contains("shutdown: the sidecar is stopping")
        });
    }
}

/// HAProxy raises a server whose tracked check recovers, whatever its agent said before.
#[test]
fn a_frozen_sidecar_that_goes_on_keeps_a_bad_node_out_of_long_polls_too() {
    let farm = Fakes::start();
    let (config, _) = farm::haproxy_config("longpoll.cfg", &farm.sides());
    for (version, hold) in Version::ALL.into_iter().zip(["hold=60s", "hold=59s"]) {
        // Longer than this test waits, and not the questions of the one before.
        let changes = [("hold=9s", hold), ("timeout check 10s", "timeout check 61s")];
        let config = replace(&config, &changes);
        let haproxy = Haproxy::start(version, &config);
        haproxy.wait_stat("be_write", "gw1", "up", Stat::is_up);
        farm.hcf[0].signal(Signal::Stop);
        haproxy.wait_stat("sidecars", "gw1", "missed", |stat| !stat.is_up());
        farm.say(&farm::BAD, &farm::GOOD);
        farm.hcf[0].signal(Signal::Cont);
        haproxy.wait_stat("sidecars", "gw1", "found again", Stat::is_up);
        for backend in ["be_read", "be_write"] {
            haproxy.wait_stat(backend, "gw1", "down by its agent's word", |stat| {
                !stat.is_up() && stat.last_agent().contains("servers-few")
            });
        }
        farm.say(&farm::GOOD, &farm::GOOD);
        haproxy.wait_stat("be_write", "gw1", "up again", Stat::is_up);
    }
}
