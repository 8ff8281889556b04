//! `hcf snippet`: a balancer's configuration for this sidecar, or the traps in an existing one.

use std::fmt::Write as _;
use std::path::Path;

use super::lint::{Severity, lint};
use super::{Failure, exit, load, print};
use crate::cli::{self, Balancer};
use crate::config::{Address, Config, Service};
use crate::tahoe::Endpoint;

pub(super) fn run(args: &cli::Snippet) -> Result<u8, Failure> {
    if let Some(path) = &args.lint {
        return check(path);
    }
    let config = load(&args.config.sources())?;
    let text = match args.balancer {
        Some(Balancer::Envoy) => envoy(&config),
        _ => haproxy(&config),
    };
    print(&text.map_err(Failure::Usage)?)?;
    Ok(exit::OK)
}

/// One line per trap, in the form that editors understand.
fn check(path: &Path) -> Result<u8, Failure> {
    let name = path.display();
    let bytes = std::fs::read(path).map_err(|e| {
        Failure::Usage(format!("cannot read {name}: {e}; --lint names a haproxy.cfg"))
    })?;
    let traps = lint(&String::from_utf8_lossy(&bytes));
    let mut out = String::new();
    for trap in &traps {
        let severity = match trap.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let _ = writeln!(out, "{name}:{}: {severity}: {} [{}]", trap.line, trap.message, trap.code);
    }
    if traps.is_empty() {
        let _ = writeln!(out, "{name}: no traps found");
    }
    print(&out)?;
    let broken = traps.iter().any(|trap| trap.severity == Severity::Error);
    Ok(if broken { exit::FAILED } else { exit::OK })
}

/// What the fragments need to know of this sidecar's place.
struct Place {
    /// A word for the node, fit for both balancers' names.
    name: String,
    node: (String, u16),
}

impl Place {
    fn of(config: &Config) -> Result<Self, String> {
        if config.node.target.trust.is_some() {
            return Err(
                "the node speaks TLS, and a fragment for that depends on how the balancer is to \
                        know it; take one for a plain node and add the balancer's own TLS settings \
                        to the server, not to its checks: those go to hcf, which speaks plainly"
                    .to_owned(),
            );
        }
        let node = match &config.node.target.endpoint {
            Endpoint::Tcp { host, port } => (host.clone(), *port),
            Endpoint::Unix(_) | Endpoint::Published(_) => {
                return Err(
                    "the node has no fixed TCP port that a balancer could use; set node.url"
                        .to_owned(),
                );
            }
        };
        let nickname = config.node.dir.as_ref().map_or("", |dir| &dir.nickname);
        let word: String = nickname
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' })
            .collect();
        let name = if word.is_empty() { "node1".to_owned() } else { word };
        Ok(Self { name, node })
    }

    /// The node's address as HAProxy writes it: no brackets around IPv6, the last colon counts.
    fn haproxy_node(&self) -> String {
        format!("{}:{}", self.node.0, self.node.1)
    }
}

/// The first TCP address of a listener, as a balancer reaches it.
fn tcp(addresses: &[Address], key: &str, node: &str) -> Result<(String, u16), String> {
    let found = addresses.iter().find_map(|address| match address {
        Address::Tcp { host, port } if *port != 0 => Some((host.clone(), *port)),
        _ => None,
    });
    let (host, port) =
        found.ok_or_else(|| format!("{key} has no fixed TCP port that a balancer could ask"))?;
    // What listens on every address is reached where the node is.
    let everywhere = matches!(host.as_str(), "0.0.0.0" | "::");
    Ok((if everywhere { node.to_owned() } else { host }, port))
}

fn haproxy(config: &Config) -> Result<String, String> {
    let place = Place::of(config)?;
    let (host, port) = tcp(&config.listen.agent.at, "listen.agent", &place.node.0)?;
    let elsewhere = if host == place.node.0 {
        String::new()
    } else {
        format!(" addr {host} agent-addr {host}")
    };
    let mut out = String::from(
        "# For haproxy.cfg (2.6 and later). Add a `server` line for each further node with an hcf beside it.\n\
         # hcf's `ready` also undoes an operator's `set server ... state maint` at the next check: use\n\
         # `hcf maint` beside the node, or `disable agent` first, or agent-send \"SERVICE admin=keep\\n\" (and drop `disabled`).\n",
    );
    for service in &config.services {
        let Service { name, maxconn, .. } = service;
        let maxconn = maxconn.map(|n| format!(" maxconn {n}")).unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = write!(
            out,
            "\nbackend hcf_{name}\n    \
             mode http\n    \
             balance roundrobin\n    \
             timeout connect 2s\n    \
             timeout server 5m\n    \
             timeout check 1s\n    \
             # A dead or frozen sidecar takes its node out: the check must be answered, not just accepted.\n    \
             option httpchk GET /livez\n    \
             http-check expect status 200\n    \
             # weight 100: percentages of less are rounded down. disabled: out until hcf has said ready.\n    \
             default-server weight 100 disabled check inter 1s fall 2 rise 1\n    \
             default-server agent-check agent-inter 500ms on-marked-down shutdown-sessions\n    \
             server {node} {address}{elsewhere} port {port} agent-port {port}{maxconn} \
             agent-send \"{name} as=hcf_{name}/{node}\\n\"\n",
            node = place.name,
            address = place.haproxy_node(),
        );
    }
    if ["read", "write"].iter().all(|name| config.service(name).is_some()) {
        out.push_str(
            "\nfrontend hcf\n    \
             mode http\n    \
             timeout client 1m\n    \
             bind 127.0.0.1:8080\n    \
             acl reads method GET HEAD OPTIONS\n    \
             http-request return status 503 hdr Retry-After 5 content-type text/plain string \
             \"No gateway can write now; reads may still work.\\n\" if !reads { nbsrv(hcf_write) eq 0 }\n    \
             use_backend hcf_write if !reads\n    \
             default_backend hcf_read\n",
        );
    }
    Ok(out)
}

fn envoy(config: &Config) -> Result<String, String> {
    let place = Place::of(config)?;
    let (node, node_port) = &place.node;
    let (host, port) = tcp(&config.listen.health.at, "listen.health", node)?;
    // Envoy looks up no names for a check's address.
    let host = if host == "localhost" { "127.0.0.1".to_owned() } else { host };
    if host != *node && host.parse::<std::net::IpAddr>().is_err() {
        return Err(format!(
            "Envoy needs an address for its checks, and listen.health is `{host}`"
        ));
    }
    let elsewhere = if host == *node {
        String::new()
    } else {
        format!("address: {{socket_address: {{address: \"{host}\", port_value: {port}}}}}, ")
    };
    // A name must be looked up; an address must not.
    let kind = if node.parse::<std::net::IpAddr>().is_ok() { "STATIC" } else { "STRICT_DNS" };
    let mut out = String::from(
        "# For static_resources.clusters of Envoy 1.36 and later, indented as that list is. Add an endpoint\n\
         # for each further node.\n\
         # In the routes set `timeout: 0s`: the default cuts downloads after 15 s.\n",
    );
    for Service { name, .. } in &config.services {
        let _ = write!(
            out,
            "- name: hcf_{name}\n  \
               type: {kind}\n  \
               connect_timeout: 2s\n  \
               # The defaults send traffic to bad nodes when most are bad, and hold back a second change.\n  \
               common_lb_config: {{healthy_panic_threshold: {{value: 0}}, update_merge_window: 0s}}\n  \
               # A gateway closes a connection that was idle for 60 s.\n  \
               typed_extension_protocol_options:\n    \
                 envoy.extensions.upstreams.http.v3.HttpProtocolOptions:\n      \
                   \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions\n      \
                   explicit_http_config: {{http_protocol_options: {{}}}}\n      \
                   common_http_protocol_options: {{idle_timeout: 50s}}\n  \
               health_checks:\n  \
               # no_traffic_interval: the default asks once a minute until the first request.\n  \
               - {{timeout: 1s, interval: 1s, no_traffic_interval: 1s, unhealthy_edge_interval: 0.25s, \
             unhealthy_threshold: 2, healthy_threshold: 1, http_health_check: {{path: /health/{name}}}}}\n  \
               load_assignment:\n    \
                 cluster_name: hcf_{name}\n    \
                 endpoints:\n    \
                 - lb_endpoints:\n      \
                   - endpoint:  # {label}\n          \
                       address: {{socket_address: {{address: \"{node}\", port_value: {node_port}}}}}\n          \
                       health_check_config: {{{elsewhere}port_value: {port}}}\n",
            label = place.name,
        );
    }
    Ok(out)
}
