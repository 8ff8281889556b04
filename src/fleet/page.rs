//! What people see of the fleet: a page, and the same as JSON; and where its metrics are.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use serde::Serialize;
use serde_json::json;

use super::config::Fleet;
use super::keeper::{Followed, Link};
use super::metrics::metrics;
use super::rules::{Ruling, Word};
use crate::serve::accept::Peer;
use crate::serve::http::{Reply, Site};

/// Answers people.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) shown: Arc<ArcSwap<View>>,
    /// When this process started.
    pub(super) started: SystemTime,
}

/// Everything, as `/v1/fleet` says it.
#[derive(Debug, Serialize)]
pub(super) struct View {
    version: &'static str,
    cluster: String,
    service: String,
    output: String,
    pub(super) min_available: u8,
    /// How many nodes are in.
    pub(super) available: usize,
    /// How many of these only because too few are good.
    pub(super) kept: usize,
    /// What the file says of itself; none before it is written.
    version_info: Option<String>,
    /// How often it was written.
    pub(super) writes: u64,
    /// Why it could not be.
    pub(super) trouble: Option<String>,
    pub(super) nodes: BTreeMap<String, NodeView>,
}

/// One node of it.
#[derive(Debug, Serialize)]
pub(super) struct NodeView {
    address: String,
    sidecar: String,
    #[serde(flatten)]
    pub(super) ruling: Ruling,
    /// The sidecar has been silent for longer than its last word counts.
    pub(super) silent: bool,
    pub(super) connected: bool,
    /// Why it is not.
    trouble: Option<String>,
    /// Its last word on each service that matters here.
    words: BTreeMap<String, Word>,
}

impl View {
    pub(super) fn of(
        fleet: &Fleet,
        followed: &[Followed],
        rulings: &[Ruling],
        (version_info, writes): (Option<String>, u64),
        trouble: Option<String>,
    ) -> Self {
        let nodes =
            fleet.nodes.iter().zip(followed).zip(rulings).map(|((node, followed), ruling)| {
                let view = NodeView {
                    address: node.address.to_string(),
                    sidecar: node.sidecar.to_string(),
                    ruling: *ruling,
                    silent: followed.known.silent,
                    connected: followed.link == Link::Open,
                    trouble: match &followed.link {
                        Link::Lost(why) => Some(why.clone()),
                        Link::New | Link::Open => None,
                    },
                    words: followed.known.words.clone(),
                };
                (node.name.to_string(), view)
            });
        Self {
            version: env!("CARGO_PKG_VERSION"),
            cluster: fleet.cluster.clone(),
            service: fleet.service.to_string(),
            output: fleet.output.display().to_string(),
            min_available: fleet.min_available,
            available: rulings.iter().filter(|ruling| ruling.health.is_in()).count(),
            kept: rulings.iter().filter(|ruling| ruling.kept).count(),
            version_info,
            writes,
            trouble,
            nodes: nodes.collect(),
        }
    }

    fn html(&self) -> String {
        let (cluster, service) = (escaped(&self.cluster), escaped(&self.service));
        let mut page = format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{cluster}: {} of {} \
             in</title>\n<meta http-equiv=\"refresh\" content=\"5\">\n<style>body{{font-family:sans-serif}}\
             td,th{{text-align:left;padding:.2em .8em}}.kept,.trouble{{background:#fc8}}</style></head>\n\
             <body><h1>{cluster}</h1>\n<p>{} of {} nodes are in for <b>{service}</b>; at least {} % are kept.</p>\n",
            self.available,
            self.nodes.len(),
            self.available,
            self.nodes.len(),
            self.min_available,
        );
        // Writing to a string cannot fail.
        if self.kept > 0 {
            let _ = writeln!(
                page,
                "<p class=\"kept\">{} of these are not good, and are in only because too few are.</p>",
                self.kept
            );
        }
        if let Some(trouble) = &self.trouble {
            let (output, trouble) = (escaped(&self.output), escaped(trouble));
            let _ = writeln!(
                page,
                "<p class=\"trouble\">{output} cannot be written, and Envoy goes on by the last one: {trouble}.</p>"
            );
        }
        page.push_str("<table><tr><th>node<th>Envoy is told<th>weight<th>its sidecar says\n");
        for (name, node) in &self.nodes {
            let class = if node.ruling.kept { " class=\"kept\"" } else { "" };
            let health = json!(node.ruling.health);
            let _ = writeln!(
                page,
                "<tr{class}><td>{}<td>{}<td>{}<td>{}",
                escaped(name),
                health.as_str().unwrap_or_default(),
                node.ruling.weight.percent(),
                escaped(&node.said(&self.service)),
            );
        }
        page.push_str("</table>\n<p>The same as JSON: <a href=\"/v1/fleet\">/v1/fleet</a></p></body></html>\n");
        page
    }
}

impl NodeView {
    fn said(&self, service: &str) -> String {
        let mut said = match self.words.get(service) {
            None if self.words.is_empty() => "nothing yet".to_owned(),
            None => format!("that it has no service {service}"),
            Some(word) => {
                let reasons: Vec<&str> = word.reasons.iter().map(|why| &*why.text).collect();
                let state = if word.degraded { "degraded" } else { word.state.as_str() };
                format!("{state} {}", reasons.join("; "))
            }
        };
        if self.silent {
            said = format!("nothing any more; the last word was: {said}");
        }
        if let Some(trouble) = &self.trouble {
            let _ = write!(said, " ({}: {trouble})", self.sidecar);
        }
        said
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

impl Site for Page {
    fn get(&self, path: &str, query: &str, _: Peer) -> Reply {
        let view = self.shown.load();
        match path {
            "/" => Reply::new(200, "text/html; charset=utf-8", &[], view.html()),
            "/v1/fleet" => {
                let body = serde_json::to_vec_pretty(&**view).unwrap_or_default();
                Reply::new(200, "application/json", &[], body)
            }
            "/metrics" => metrics(&view, self.started, query),
            "/livez" => Reply::json(200, &json!({"status": "pass"})),
            _ => Reply::not_found("there is /, /v1/fleet, /metrics and /livez"),
        }
    }
}
