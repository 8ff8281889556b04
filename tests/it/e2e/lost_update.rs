//! A gateway that sees 2 of 5 storage servers accepts the overwrite of a mutable file with 200, and when those two are
//! gone, the file is what it was before. A plain check of the gateway's status page lets that happen; a balancer that
//! hcf informs sends the overwrite to the gateway that sees them all.

use super::farm::{self, Side};
use crate::lab::cut::{Cut, How};
use crate::lab::haproxy::{Haproxy, Version};
use crate::lab::http::{self, Response};
use crate::lab::ports::free_port;
use crate::lab::tahoe::Grid;

const FIRST: &[u8] = b"one line, written while all was well\n";
const SECOND: &[u8] = b"one line, written while all was well\nand one that was accepted with 200\n";
const THIRD: &[u8] = b"one line, written while all was well\nand another client's\n";

/// What people have today: the node's own status page, which answers 200 in every state of its grid.
fn plain(gateways: [u16; 2], web: u16) -> String {
    let [one, two] = gateways;
    format!(
        "defaults
    mode http
    timeout connect 2s
    timeout client 1m
    timeout server 1m
frontend web
    bind 127.0.0.1:{web}
    default_backend be
backend be
    balance roundrobin
    option httpchk GET /?t=json
    http-check expect status 200
    http-response set-header X-Gateway %s
    server gw1 127.0.0.1:{one} check inter 200ms
    server gw2 127.0.0.1:{two} check inter 200ms
"
    )
}

/// The shipped file, and which gateway answered.
fn informed(sides: &[Side; 2]) -> (String, String) {
    let (config, web) = farm::haproxy_config("recommended.cfg", sides);
    let told = config.replace(
        "    default_backend be_read\n",
        "    http-response set-header X-Gateway %s\n    default_backend be_read\n",
    );
    assert_ne!(told, config);
    (told, web)
}

#[test]
fn an_accepted_overwrite_is_lost_behind_a_plain_balancer_and_kept_behind_an_informed_one() {
    let mut grid = Grid::ready();
    let ports = [0, 1].map(|at: usize| grid.gateways[at].port());
    let hcf = [0, 1].map(|at: usize| farm::beside(&grid.gateways[at], &[]));
    let sides = [0, 1].map(|at: usize| Side::of(ports[at], &hcf[at]));
    let (config, informed_web) = informed(&sides);
    let web = free_port();
    let plain_web = format!("127.0.0.1:{web}");
    for version in Version::ALL {
        let plain = Haproxy::start(version, &plain(ports, web));
        let informed = Haproxy::start(version, &config);
        for server in ["gw1", "gw2"] {
            informed.wait_stat("be_write", server, "up", super::super::lab::haproxy::Stat::is_up);
            plain.wait_stat("be", server, "up", super::super::lab::haproxy::Stat::is_up);
        }
        round(&mut grid, &plain, &plain_web, &informed, &informed_web);
    }
}

/// One cut of gw1, one overwrite through each balancer, and what is left of it when two servers are lost.
fn round(
    grid: &mut Grid,
    plain: &Haproxy,
    plain_web: &str,
    informed: &Haproxy,
    informed_web: &str,
) {
    let files: Vec<String> = (0..4).map(|_| grid.gateways[1].upload_mutable(FIRST)).collect();
    let (unlucky, lucky) = files.split_at(2);

    // gw1 keeps the first two servers only.
    let three = grid.storage_ports(5).split_off(2);
    let cut = Cut::new(&grid.gateways[0], &three, How::Reject);
    grid.gateways[0].wait_connected(2);
    informed.wait_stat("be_write", "gw1", "down", |stat| stat.status().starts_with("DOWN"));

    let through_gw1: Vec<&String> = unlucky
        .iter()
        .filter(|cap| overwrite(plain_web, cap, SECOND).header("x-gateway") == Some("gw1"))
        .collect();
    assert_eq!(through_gw1.len(), 1, "in turn, whatever state gw1 is in");
    assert!(plain.stat("be", "gw1").is_up(), "the plain check has noticed nothing");
    for cap in lucky {
        let answer = overwrite(informed_web, cap, SECOND);
        assert_eq!(answer.header("x-gateway"), Some("gw2"), "not to the gateway that is cut off");
    }

    drop(cut);
    grid.gateways[0].wait_connected(5);
    for node in &mut grid.storage[..2] {
        node.kill();
    }
    for gateway in &mut grid.gateways {
        gateway.wait_connected(3);
    }
    let lost = through_gw1[0];
    assert_eq!(content(plain_web, lost), text(FIRST), "the accepted overwrite has vanished");
    for cap in lucky {
        assert_eq!(content(informed_web, cap), text(SECOND), "the accepted overwrite is there");
    }
    // The next client builds on what it read, and its second overwrite has a higher number than the lost one: that
    // cannot even come back.
    overwrite(plain_web, lost, FIRST);
    overwrite(plain_web, lost, THIRD);
    for node in &mut grid.storage[..2] {
        node.start();
    }
    for gateway in &mut grid.gateways {
        gateway.wait_connected(5);
    }
    assert_eq!(content(plain_web, lost), text(THIRD), "for good");
    for server in ["gw1", "gw2"] {
        informed.wait_stat("be_write", server, "up", super::super::lab::haproxy::Stat::is_up);
    }
    for cap in lucky {
        assert_eq!(content(informed_web, cap), text(SECOND));
    }
}

/// An overwrite that is accepted.
fn overwrite(web: &str, cap: &str, body: &[u8]) -> Response {
    let answer = http::put(web, &format!("/uri/{cap}"), body).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer
}

fn content(web: &str, cap: &str) -> String {
    let answer = http::get(web, &format!("/uri/{cap}")).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
