//! The balancer files as they are shipped, made fit for this machine: ports, and as many nodes as there are.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::place;

/// A shipped file as it stands.
pub fn shipped(folder: &str, name: &str) -> String {
    let path = place::root().join(folder).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Changes ports, all at once and only where a whole number is one. Each must be there.
pub fn with_ports(text: &str, changes: &[(u16, u16)]) -> String {
    let (out, missing) = renumbered(text, changes);
    assert!(missing.is_empty(), "no port {missing:?} in:\n{text}");
    out
}

/// The text, and the ports that were not there to be changed.
fn renumbered(text: &str, changes: &[(u16, u16)]) -> (String, BTreeSet<u16>) {
    let mut missing: BTreeSet<u16> = changes.iter().map(|(from, _)| *from).collect();
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, from) = rest.split_at(start);
        let end = from.find(|c: char| !c.is_ascii_digit()).unwrap_or(from.len());
        let (number, after) = from.split_at(end);
        out.push_str(before);
        match changes.iter().find(|(from, _)| number.parse() == Ok(*from)) {
            Some((from, to)) => {
                missing.remove(from);
                out.push_str(&to.to_string());
            }
            None => out.push_str(number),
        }
        rest = after;
    }
    out.push_str(rest);
    (out, missing)
}

/// A node at an address of its own, with the ports of the hcf beside it. Zero for one that nobody asks.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its name.
    pub name: String,
    /// The address that the node and its hcf listen on.
    pub ip: String,
    /// The node's own port.
    pub node: u16,
    /// hcf's agent port.
    pub agent: u16,
    /// hcf's health port.
    pub health: u16,
    /// hcf's grpc port.
    pub grpc: u16,
}

impl Place {
    /// What a shipped file says of the first of its nodes, said of this one.
    fn said(&self, of_first: &str) -> String {
        let named = of_first.replace("gw1", &self.name).replace("127.0.0.1", &self.ip);
        let changes =
            [(3456, self.node), (5290, self.agent), (5291, self.health), (5292, self.grpc)];
        renumbered(&named, &changes).0
    }
}

/// `haproxy/NAME` for these nodes, listening on `web` and saying in each answer which node gave it (`x-gateway`) and how
/// often another one was tried before (`x-retries`).
pub fn haproxy(name: &str, web: u16, places: &[Place]) -> String {
    haproxy_of(&shipped("haproxy", name), web, places)
}

/// The same for a file of one's own.
pub fn haproxy_of(text: &str, web: u16, places: &[Place]) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let words = line.trim_start();
        if words.starts_with("server gw1 ") {
            for place in places {
                let _ = writeln!(out, "{}", place.said(line));
            }
        } else if words.starts_with("bind ") {
            let _ = writeln!(out, "    bind 127.0.0.1:{web}");
            out.push_str("    http-response set-header x-gateway %s\n");
            out.push_str("    http-response set-header x-retries %rc\n");
        } else if !words.starts_with("server gw2 ") {
            let _ = writeln!(out, "{line}");
        }
    }
    out
}

/// `envoy/NAME` for these nodes, listening on `web`, with the answers' headers as in [`haproxy`]; `x-gateway` holds the
/// node's address.
pub fn envoy(name: &str, web: u16, places: &[Place]) -> String {
    envoy_of(&shipped("envoy", name), web, places)
}

/// The same for a changed file.
pub fn envoy_of(text: &str, web: u16, places: &[Place]) -> String {
    let text = renumbered(text, &[(8080, web), (9901, 0)]).0;
    let mut out = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let mut block = format!("{line}\n");
        if line.trim() == "- endpoint:" {
            for line in lines.by_ref().take(2) {
                let _ = writeln!(block, "{line}");
            }
            if block.contains("port_value: 3456") {
                out.extend(places.iter().map(|place| place.said(&block)));
            }
            continue;
        }
        out.push_str(&block);
        if let Some(indent) = line.strip_suffix("domains: [\"*\"]") {
            let header = |name: &str, value: &str| {
                format!("{indent}- {{header: {{key: {name}, value: \"%{value}%\"}}}}\n")
            };
            let _ = writeln!(out, "{indent}response_headers_to_add:");
            out.push_str(&header("x-gateway", "UPSTREAM_HOST"));
            out.push_str(&header("x-attempts", "UPSTREAM_REQUEST_ATTEMPT_COUNT"));
        }
    }
    // Where the port is the same for all nodes, it stands outside of their list.
    match places.first() {
        Some(place) => renumbered(&out, &[(5292, place.grpc)]).0,
        None => out,
    }
}

#[cfg(test)]
#[allow(unused_imports, reason = "a bench is built for tests, but without them")]
mod tests {
    use super::{Place, envoy, haproxy, shipped, with_ports};

    #[test]
    fn only_whole_numbers_are_ports() {
        let text = with_ports("bind :80 8080 hop-80\n", &[(80, 8080)]);
        assert_eq!(text, "bind :8080 8080 hop-8080\n");
    }

    #[test]
    fn shipped_files_take_as_many_nodes_as_there_are() {
        let place = |n: u16| Place {
            name: format!("node{n}"),
            ip: format!("127.0.0.{n}"),
            node: 25290 + n,
            agent: 20100 + n,
            health: 20200 + n,
            grpc: 20300,
        };
        let places = [place(1), place(2), place(3)];
        let text = haproxy("longpoll.cfg", 20400, &places);
        let third = "server node3 127.0.0.3:25293 track sidecars/node3 agent-port 20103 agent-send \"read hold=9s as=be_read/node3\\n\"";
        assert!(text.contains(third), "{text}");
        assert!(text.contains("server node2 127.0.0.2:20102\n"), "{text}");
        let servers = text.lines().filter(|line| line.trim().starts_with("server "));
        assert_eq!(servers.count(), 9, "{text}");
        let text = envoy("weights.yaml", 20400, &places);
        assert_eq!(text.matches("- endpoint:").count(), 3, "{text}");
        assert!(text.contains("address: 127.0.0.3, port_value: 25293}"), "{text}");
        assert!(text.contains("oob_reporting_config: {port_value: 20300,"), "{text}");
        let text = envoy("slots.yaml", 20400, &places);
        assert!(text.contains("{port_value: 20203, hostname: 7.of.10}"), "{text}");
        for old in ["3456", "3457", "5290", "5291", "5391", "5392", "gw1", "gw2"] {
            let code: String = text.lines().filter(|line| !line.trim().starts_with('#')).collect();
            assert!(!code.contains(&format!(" {old}")), "{old} in:\n{text}");
        }
        assert!(shipped("envoy", "eds.yaml").contains("type: EDS"));
    }
}
