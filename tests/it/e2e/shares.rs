//! HAProxy gives each node its share, in each of the balancing families that take a weight while they run.

use std::fmt::Write as _;
use std::net::TcpStream;

use crate::lab::fake::{Answer, FakeNode};
use crate::lab::haproxy::{Haproxy, Version};
use crate::lab::hcf::{Hcf, ask, port};
use crate::lab::ports::free_port;
use crate::lab::wait::{LONG, wait_until};

/// A node of which the weight is this one: so many of a hundred and one servers, of which one is needed.
fn weighing(percent: usize) -> (FakeNode, Hcf, u32) {
    let node = FakeNode::start(Answer::Grid { connected: percent + 1, refused: 100 - percent });
    let config = "node: {every: 100ms}\nservices: {write: {criteria: {servers: {min: 1}}, weight: {servers: on, min: 1}}}\n";
    let hcf = Hcf::configured(config, &["--node", &node.url()]);
    wait_until("a weight", LONG, || ask(hcf.agent(), "write\n").starts_with("up ready "));
    let line = ask(hcf.agent(), "write\n");
    let weight = line.trim_end_matches("%\n").rsplit(' ').next().and_then(|n| n.parse().ok());
    (node, hcf, weight.unwrap_or_else(|| panic!("no weight in {line:?}")))
}

#[test]
fn haproxy_splits_by_the_weights_in_every_family_that_takes_them() {
    const CLIENTS: u32 = 300;
    let nodes = [100, 50, 10].map(weighing);
    let sum: u32 = nodes.iter().map(|(_, _, weight)| weight).sum();
    for version in Version::ALL {
        for (balance, tolerance) in [
            ("balance roundrobin", 0.02),
            ("balance leastconn", 0.02),
            ("balance random", 0.05),
            // A ring of hashes is as even as chance makes it.
            ("balance hash src_port\n hash-type consistent", 0.15),
        ] {
            let web = free_port();
            let mut config = format!(
                "defaults\n mode tcp\n timeout connect 2s\n timeout client 1m\n timeout server 1m\nlisten web\n bind 127.0.0.1:{web}\n {balance}\n \
                 default-server weight 100 agent-check agent-inter 200ms agent-send \"write\\n\" agent-addr 127.0.0.1\n"
            );
            for (n, (node, hcf, _)) in nodes.iter().enumerate() {
                let (node, agent) = (port(&node.url()), port(hcf.agent()));
                let _ = writeln!(config, " server gw{n} 127.0.0.1:{node} agent-port {agent}");
            }
            let haproxy = Haproxy::start(version, &config);
            for (n, (_, _, weight)) in nodes.iter().enumerate() {
                haproxy.wait_stat("web", &format!("gw{n}"), "its weight", |stat| {
                    stat.weight() == *weight
                });
            }
            // They stay, since `leastconn` counts those that are there.
            let _clients: Vec<TcpStream> = (0..CLIENTS)
                .map(|_| TcpStream::connect(("127.0.0.1", web)).expect("HAProxy listens"))
                .collect();
            let total = |n: usize| -> u32 {
                haproxy.stat("web", &format!("gw{n}")).field("stot").parse().expect("a count")
            };
            wait_until("every client to be somewhere", LONG, || {
                (0..3).map(total).sum::<u32>() == CLIENTS
            });
            for (n, (_, _, weight)) in nodes.iter().enumerate() {
                let (share, ideal) =
                    (f64::from(total(n)) / f64::from(CLIENTS), f64::from(*weight) / f64::from(sum));
                assert!(
                    (share - ideal).abs() <= tolerance,
                    "{version:?} {balance} gw{n}: {share:.3} of {ideal:.3}"
                );
            }
        }
    }
}
