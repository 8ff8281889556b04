//! The balancers in front of the gateways, with hcf or without.

use crate::arm::Arm;
use crate::lab::envoy::Envoy;
use crate::lab::haproxy::{self, Haproxy, Version};
use crate::lab::hcf::{self, Hcf};
use crate::lab::place;
use crate::lab::ports::free_port;
use crate::lab::tahoe::Grid;

/// So many gateways take requests.
pub const FARM: usize = 2;

/// What stands between the clients and the grid.
#[derive(Debug)]
pub struct Stage {
    /// HAProxy, Debian's.
    pub haproxy: Haproxy,
    /// Where clients reach it.
    pub haproxy_front: String,
    /// Its backends.
    pub backends: Vec<String>,
    /// Envoy.
    pub envoy: Envoy,
    /// Where clients reach it.
    pub envoy_front: String,
    /// Its clusters.
    pub clusters: Vec<String>,
    /// The gateways' names.
    pub names: Vec<String>,
    /// The gateways' addresses.
    pub addresses: Vec<String>,
    /// Each gateway's name and its sidecar's agent port; empty without hcf.
    pub agents: Vec<(String, String)>,
    _sidecars: Vec<Hcf>,
}

impl Stage {
    /// Starts hcf where it belongs, then both balancers.
    pub fn start(arm: Arm, grid: &Grid) -> Self {
        let farm = &grid.gateways[..FARM];
        let names: Vec<String> = farm.iter().map(|gateway| gateway.node.name.clone()).collect();
        let addresses: Vec<String> = farm.iter().map(|gateway| gateway.web.clone()).collect();
        let sidecars: Vec<Hcf> = match arm {
            Arm::Hcf => farm.iter().map(|gateway| sidecar(gateway.dir())).collect(),
            Arm::Today => Vec::new(),
        };
        let (haproxy_front, envoy_front) = (front(), front());
        let (haproxy, envoy) = match arm {
            Arm::Hcf => (
                haproxy_with_hcf(&addresses, &sidecars, &haproxy_front),
                envoy_with_hcf(&addresses, &sidecars, &envoy_front),
            ),
            Arm::Today => {
                (haproxy_today(&addresses, &haproxy_front), envoy_today(&addresses, &envoy_front))
            }
        };
        let stage = Self {
            haproxy: Haproxy::start(Version::V2_6, &haproxy),
            haproxy_front,
            backends: owned(arm.backends()),
            envoy: Envoy::start(&envoy),
            envoy_front,
            clusters: owned(arm.clusters()),
            agents: names
                .iter()
                .cloned()
                .zip(sidecars.iter().map(|one| one.agent().to_owned()))
                .collect(),
            names,
            addresses,
            _sidecars: sidecars,
        };
        stage.envoy.wait_live();
        for backend in &stage.backends {
            for name in &stage.names {
                stage.haproxy.wait_stat(backend, name, "up", haproxy::Stat::is_up);
            }
        }
        stage
    }
}

/// As a user starts it, but looking twice as often as by default, to keep the demo short.
fn sidecar(node: &std::path::Path) -> Hcf {
    Hcf::configured(
        &format!("node: {{dir: {:?}, every: 500ms}}\n", node.display().to_string()),
        &[],
    )
}

/// The shipped configuration, on this lab's ports, telling the client which gateway answered.
fn haproxy_with_hcf(addresses: &[String], sidecars: &[Hcf], front: &str) -> String {
    let agents: Vec<u16> = sidecars.iter().map(|one| hcf::port(one.agent())).collect();
    changed(
        &shipped("haproxy/recommended.cfg"),
        &[
            ("127.0.0.1:3456 port 5290", format!("{} port {}", addresses[0], agents[0])),
            ("127.0.0.1:3457 port 5390", format!("{} port {}", addresses[1], agents[1])),
            ("agent-port 5290", format!("agent-port {}", agents[0])),
            ("agent-port 5390", format!("agent-port {}", agents[1])),
            (
                "bind 127.0.0.1:8080",
                format!("bind {front}\n    http-response set-header x-gateway %s"),
            ),
        ],
    )
}

/// The demo's own configuration: a check of the node itself, all else as shipped.
fn haproxy_today(addresses: &[String], front: &str) -> String {
    changed(
        include_str!("haproxy-today.cfg"),
        &[
            ("127.0.0.1:3456", addresses[0].clone()),
            ("127.0.0.1:3457", addresses[1].clone()),
            ("127.0.0.1:8080", front.to_owned()),
        ],
    )
}

/// The shipped configuration: a cluster for reads and one for writes.
fn envoy_with_hcf(addresses: &[String], sidecars: &[Hcf], front: &str) -> String {
    let checks: Vec<u16> = sidecars.iter().map(|one| hcf::port(one.health())).collect();
    envoy_on(&shipped("envoy/refuse-writes.yaml"), addresses, &checks, front)
}

/// The shipped configuration with one cluster, its check turned from hcf to the node itself.
fn envoy_today(addresses: &[String], front: &str) -> String {
    let checks: Vec<u16> = addresses.iter().map(|address| hcf::port(address)).collect();
    let config = changed(
        &shipped("envoy/no-traffic.yaml"),
        &[("path: /health/write", "path: \"/?t=json\"".to_owned())],
    );
    envoy_on(&config, addresses, &checks, front)
}

/// A shipped Envoy configuration on this lab's ports, telling the client which gateway answered.
fn envoy_on(config: &str, addresses: &[String], checks: &[u16], front: &str) -> String {
    let header = "- {header: {key: x-gateway, value: \"%UPSTREAM_HOST%\"}}";
    let indent = " ".repeat(14);
    changed(
        config,
        &[
            ("port_value: 9901", "port_value: 0".to_owned()),
            ("port_value: 8080", format!("port_value: {}", hcf::port(front))),
            ("port_value: 3456", format!("port_value: {}", hcf::port(&addresses[0]))),
            ("port_value: 3457", format!("port_value: {}", hcf::port(&addresses[1]))),
            ("port_value: 5291", format!("port_value: {}", checks[0])),
            ("port_value: 5391", format!("port_value: {}", checks[1])),
            (
                "domains: [\"*\"]",
                format!("domains: [\"*\"]\n{indent}response_headers_to_add:\n{indent}{header}"),
            ),
        ],
    )
}

fn shipped(name: &str) -> String {
    let path = place::root().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn changed(config: &str, changes: &[(&str, String)]) -> String {
    let changes: Vec<(&str, &str)> =
        changes.iter().map(|(from, to)| (*from, to.as_str())).collect();
    haproxy::replace(config, &changes)
}

fn front() -> String {
    format!("127.0.0.1:{}", free_port())
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
