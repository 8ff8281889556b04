//! Two nodes, an hcf beside each, and the shipped balancer files in front with only their ports changed: what most of
//! these tests start from.

use std::collections::BTreeSet;
use std::io;

use crate::lab::envoy::Envoy;
use crate::lab::fake::{Answer, FakeNode};
use crate::lab::haproxy::{self, Haproxy, Version};
use crate::lab::hcf::{Hcf, port};
use crate::lab::http::{self, Response};
use crate::lab::ports::free_port;
pub(crate) use crate::lab::shipped::{shipped, with_ports};
use crate::lab::tahoe::Gateway;
use crate::lab::wait::{LONG, wait_until};

/// One node and its hcf, as a balancer's file names them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Side {
    /// The node's own port.
    pub node: u16,
    /// hcf's agent port.
    pub agent: u16,
    /// hcf's health port.
    pub health: u16,
}

impl Side {
    /// What an hcf that may start later, or again, is told.
    pub(super) fn arguments(self) -> [String; 2] {
        [format!("--agent=127.0.0.1:{}", self.agent), format!("--health=127.0.0.1:{}", self.health)]
    }

    /// Ports for an hcf that is not there yet.
    pub(super) fn reserved(node: u16) -> Self {
        Self { node, agent: free_port(), health: free_port() }
    }

    /// Where a running hcf listens.
    pub(super) fn of(node: u16, hcf: &Hcf) -> Self {
        Self { node, agent: port(hcf.agent()), health: port(hcf.health()) }
    }
}

/// A balancer in front, and where clients reach it.
#[derive(Debug)]
pub(super) struct Front<B> {
    /// The program.
    pub balancer: B,
    /// Where clients ask.
    pub web: String,
}

/// `haproxy/NAME` in front of these two.
pub(super) fn haproxy(version: Version, name: &str, sides: &[Side; 2]) -> Front<Haproxy> {
    let (config, web) = haproxy_config(name, sides);
    Front { balancer: Haproxy::start(version, &config), web }
}

/// `haproxy/NAME` for these two, and where it listens.
pub(super) fn haproxy_config(name: &str, sides: &[Side; 2]) -> (String, String) {
    let web = free_port();
    let text = shipped("haproxy", name);
    // An abstract socket belongs to the whole machine, so its name must be this balancer's alone.
    let text = text.replace("abns@hop-", &format!("abns@hop-{web}x-"));
    let [one, two] = sides;
    let changes =
        [(8080, web), (3456, one.node), (3457, two.node), (5290, one.agent), (5390, two.agent)];
    (with_ports(&text, &changes), format!("127.0.0.1:{web}"))
}

/// `haproxy/NAME` in front of these two, in every version.
pub(super) fn haproxies(name: &str, sides: &[Side; 2]) -> Vec<Front<Haproxy>> {
    Version::ALL.iter().map(|version| haproxy(*version, name, sides)).collect()
}

/// `envoy/NAME` in front of these two.
pub(super) fn envoy(name: &str, sides: &[Side; 2]) -> Front<Envoy> {
    let web = free_port();
    let [one, two] = sides;
    let changes = [
        (8080, web),
        (9901, 0),
        (3456, one.node),
        (3457, two.node),
        (5291, one.health),
        (5391, two.health),
    ];
    let config = with_ports(&shipped("envoy", name), &changes);
    let front = Front { balancer: Envoy::start(&config), web: format!("127.0.0.1:{web}") };
    front.balancer.wait_live();
    front
}

/// How the hcf of a fake node judges: reads need 2 servers, writes 4, and without an introducer writes are degraded.
pub(super) const RULES: &str = "services:\n  read: {criteria: {servers: {min: 2}}}\n  write:\n    criteria: {servers: {min: 4}, introducers: {else: degrade}}\n\
     shutdown: {announce: 2s}\n";

/// Two fake nodes that say their names to clients, and an hcf beside each.
#[derive(Debug)]
pub(super) struct Fakes {
    /// gw1 and gw2.
    pub nodes: [FakeNode; 2],
    /// Their sidecars.
    pub hcf: [Hcf; 2],
}

/// Every server is connected.
pub(super) const GOOD: Answer = Answer::Grid { connected: 5, refused: 0 };
/// Enough for reads, too few for writes.
pub(super) const READS_ONLY: Answer = Answer::Grid { connected: 3, refused: 2 };
/// Too few for anything.
pub(super) const BAD: Answer = Answer::Grid { connected: 1, refused: 4 };

impl Fakes {
    /// Both in good health.
    pub(super) fn start() -> Self {
        let nodes = Self::nodes();
        let hcf = [0, 1].map(|at: usize| Hcf::configured(&config(&nodes[at].url()), &[]));
        Self { nodes, hcf }
    }

    /// The nodes alone.
    pub(super) fn nodes() -> [FakeNode; 2] {
        ["gw1", "gw2"].map(|name| {
            let node = FakeNode::start(GOOD);
            node.serve_clients(name);
            node
        })
    }

    /// Where everything is.
    pub(super) fn sides(&self) -> [Side; 2] {
        [0, 1].map(|at: usize| Side::of(port(&self.nodes[at].addr), &self.hcf[at]))
    }

    /// What the two nodes say of their grid from now on.
    pub(super) fn say(&self, one: &Answer, two: &Answer) {
        self.nodes[0].set(one.clone());
        self.nodes[1].set(two.clone());
    }
}

/// The configuration for an hcf beside the node at `url`.
pub(super) fn config(url: &str) -> String {
    format!("node: {{url: \"{url}\", every: 100ms, timeout: 2s}}\n{RULES}")
}

/// An hcf beside a gateway of a real grid, with looks in quick succession.
pub(super) fn beside(gateway: &Gateway, arguments: &[&str]) -> Hcf {
    let dir = gateway.dir().display();
    let config = format!("node: {{dir: \"{dir}\", every: 200ms, timeout: 1s}}\n");
    Hcf::configured(&config, arguments)
}

/// An hcf beside a gateway of a real grid, with a gate of each of these kinds under the kind's name, which gives
/// what is busy plenty of time. `more` are further lines of its configuration.
pub(super) fn beside_gates(gateway: &Gateway, kinds: &[&str], more: &str) -> Hcf {
    let dir = gateway.dir().display();
    let gate = |kind| format!("  {kind}: {{listen: '127.0.0.1:0', when_bad: {kind}, drain: 1m}}\n");
    let gates = kinds.iter().map(gate).collect::<Vec<_>>().concat();
    let config =
        format!("node: {{dir: \"{dir}\", every: 200ms, timeout: 5s}}\ngates:\n{gates}{more}");
    Hcf::configured(&config, &[])
}

/// One request that must be answered in some way.
pub(super) fn ask(web: &str, method: &str, path: &str) -> Response {
    try_ask(web, method, path).unwrap_or_else(|error| panic!("{method} {path} at {web}: {error}"))
}

/// One request, which a balancer may cut when it takes a node out.
pub(super) fn try_ask(web: &str, method: &str, path: &str) -> io::Result<Response> {
    let body = matches!(method, "PUT" | "POST" | "PATCH").then_some(&b"body"[..]);
    http::request(web, method, path, &[], body, LONG)
}

/// Who answers a few requests: the bodies of those with 200, the numbers of the other statuses, `cut` where there was
/// no answer. HEAD has no body, so there it is numbers only.
pub(super) fn answers(web: &str, method: &str, path: &str) -> BTreeSet<String> {
    let answer = |_| match try_ask(web, method, path) {
        Ok(answer) if answer.status == 200 && method != "HEAD" => answer.text(),
        Ok(answer) => answer.status.to_string(),
        Err(error) => format!("cut: {error}"),
    };
    // More than twice the nodes: each algorithm used here then reaches every one that it may.
    (0..6).map(answer).collect()
}

/// Waits until requests are answered by exactly these, which must then be so again.
pub(super) fn wait_answers(web: &str, method: &str, path: &str, expected: &[&str]) {
    let expected: BTreeSet<String> = expected.iter().map(|&name| name.to_owned()).collect();
    let mut seen = BTreeSet::new();
    let what = format!("{method} {path} at {web} to be answered by {expected:?}");
    wait_until(&what, LONG, || {
        let now = answers(web, method, path);
        if now != seen {
            seen = now;
            println!("{method} {path} at {web}: {seen:?}");
        }
        seen == expected
    });
    assert_eq!(answers(web, method, path), expected, "and again: {what}");
}

/// [`answers`] that must be exactly these now.
pub(super) fn must_answer(web: &str, method: &str, path: &str, expected: &[&str]) {
    let seen = answers(web, method, path);
    assert!(seen.iter().eq(expected), "{method} {path}: {seen:?}, expected {expected:?}");
}

/// Waits until hcf's agent port answers with a line that holds these words.
pub(super) fn wait_line(hcf: &Hcf, question: &str, words: &str) -> String {
    let mut line = String::new();
    wait_until(&format!("{question:?} to be answered with {words:?}"), LONG, || {
        let now = crate::lab::hcf::ask(hcf.agent(), question);
        if now != line {
            println!("{question:?}: {now:?}");
            line = now;
        }
        line.contains(words)
    });
    line
}

/// A whole configuration for Envoy around a list of clusters that begins at the margin.
pub(super) fn with_clusters(list: &str) -> String {
    let indented = list.trim_end().replace('\n', "\n  ");
    format!("static_resources:\n  clusters:\n  {indented}\n")
}

/// Whether a server is in service for HAProxy, with its weight.
pub(super) fn shows(stat: &haproxy::Stat) -> String {
    format!("{} {} {:?}", stat.status(), stat.weight(), stat.last_agent())
}
