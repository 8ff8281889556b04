//! Metrics of a fleet for Prometheus: what its page shows, read at each scrape.
//!
//! Every name, unit, label and sentence is here and nowhere else, but for what each hcf says of itself. A label's values are
//! names of the fleet file or the words of an enum.

use std::time::SystemTime;

use super::page::{NodeView, View};
use super::rules::Health;
use crate::serve::families::{Family, Page, counter, gauge, ratio};
use crate::serve::http::Reply;
use crate::serve::metrics::program;

const NODES: Family = gauge("hcf_fleet_nodes", &[], "Nodes of the fleet file.");
const IN: Family = gauge("hcf_fleet_nodes_in", &[], "Those of them that get requests.");
const KEPT: Family = gauge(
    "hcf_fleet_nodes_kept",
    &[],
    "Those that get requests although they are not good, because too few are.",
);
const LEAST: Family = gauge(
    "hcf_fleet_min_available_ratio",
    &[],
    "The share of all nodes that is kept in at least, as far as that loses no data.",
)
.unit("ratio");
const HEALTH: Family = gauge(
    "hcf_fleet_node_health",
    &["node", "health"],
    "1 for what Envoy is told of the node, 0 for the other words.",
);
const WEIGHT: Family = gauge(
    "hcf_fleet_node_weight_ratio",
    &["node"],
    "The share of full work that Envoy is told for the node.",
)
.unit("ratio");
const ALLOWED: Family = gauge(
    "hcf_fleet_node_allowed",
    &["node", "service"],
    "1 if Envoy is told that the node can be read from, or written to.",
);
const NODE_KEPT: Family = gauge(
    "hcf_fleet_node_kept",
    &["node"],
    "1 while the node is in only because too few are good.",
);
const CONNECTED: Family = gauge(
    "hcf_fleet_sidecar_connected",
    &["node"],
    "1 while the node's sidecar is connected to and speaks.",
);
const SILENT: Family = gauge(
    "hcf_fleet_sidecar_silent",
    &["node"],
    "1 once the sidecar has been silent for longer than its last word counts.",
);
const WRITES: Family =
    counter("hcf_fleet_file_writes", &[], "Times that the file for Envoy was written.");
const FAILED: Family = gauge(
    "hcf_fleet_file_failed",
    &[],
    "1 while the file cannot be written, so that Envoy goes on by the last one.",
);

const WORDS: [(Health, &str); 4] = [
    (Health::Healthy, "healthy"),
    (Health::Degraded, "degraded"),
    (Health::Draining, "draining"),
    (Health::Unhealthy, "unhealthy"),
];

/// A scrape.
pub(super) fn metrics(view: &View, started: SystemTime, query: &str) -> Reply {
    let mut page = Page::new(query);
    program(&mut page, started);
    page.one(&NODES, view.nodes.len());
    page.one(&IN, view.available);
    page.one(&KEPT, view.kept);
    page.one(&LEAST, ratio(view.min_available));
    page.one(&WRITES, view.writes);
    page.one(&FAILED, u8::from(view.trouble.is_some()));
    let nodes = || view.nodes.iter().map(|(name, node)| (&**name, node));
    let healths = nodes().flat_map(|(name, node)| {
        WORDS.map(|(health, word)| ([name, word], u8::from(node.ruling.health == health)))
    });
    page.all(&HEALTH, healths);
    let weights = nodes().map(|(name, node)| ([name], ratio(node.ruling.weight.percent())));
    page.all(&WEIGHT, weights);
    let allowed = nodes().flat_map(|(name, NodeView { ruling, .. })| {
        [("read", ruling.read), ("write", ruling.write)]
            .map(|(service, allowed)| ([name, service], u8::from(allowed)))
    });
    page.all(&ALLOWED, allowed);
    page.all(&NODE_KEPT, nodes().map(|(name, node)| ([name], u8::from(node.ruling.kept))));
    page.all(&CONNECTED, nodes().map(|(name, node)| ([name], u8::from(node.connected))));
    page.all(&SILENT, nodes().map(|(name, node)| ([name], u8::from(node.silent))));
    page.reply()
}
