//! The status listener: everything that is known, for operators only, since it shows the grid's
//! topology. It answers the health listener's paths too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::Serialize;
use serde_json::json;

use super::HealthSite;
use super::gate::Gate;
use super::http::{Reply, Site};
use crate::board::Board;
use crate::config::{Address, WhenBad};
use crate::health::{Finding, Reason, State, Weight};

/// Answers operators.
#[derive(Debug)]
pub struct StatusSite {
    health: HealthSite,
    gates: Vec<(Address, Arc<Gate>)>,
}

impl StatusSite {
    /// A site that shows this board, and these gates with the addresses that they have.
    #[must_use]
    pub const fn new(board: Arc<Board>, gates: Vec<(Address, Arc<Gate>)>) -> Self {
        Self { health: HealthSite { board }, gates }
    }
}

impl Site for StatusSite {
    fn get(&self, path: &str, query: &str) -> Reply {
        match path {
            "/v1/status" => {
                let status = Status::of(&self.health.board, &self.gates);
                let body = serde_json::to_vec_pretty(&status).unwrap_or_default();
                Reply::new(200, "application/json", &[], body)
            }
            "/" => {
                Reply::json(200, &json!({"see": ["/v1/status", "/health", "/livez", "/readyz"]}))
            }
            _ => self.health.get(path, query),
        }
    }
}

/// Everything, as `/v1/status` says it.
#[derive(Debug, Serialize)]
struct Status {
    version: &'static str,
    commit: Option<&'static str>,
    config_hash: String,
    started: String,
    ready: bool,
    node: NodeStatus,
    services: BTreeMap<String, ServiceStatus>,
    gates: Vec<GateStatus>,
}

#[derive(Debug, Serialize)]
struct GateStatus {
    name: String,
    address: String,
    service: String,
    when_bad: WhenBad,
    /// Whether the port listens.
    open: bool,
    /// Why it does not, although it should.
    trouble: Option<String>,
    connections: usize,
    accepted: u64,
    refused: u64,
}

impl GateStatus {
    fn of(address: &Address, gate: &Gate) -> Self {
        let view = &gate.view;
        Self {
            name: gate.config.name.to_string(),
            address: address.to_string(),
            service: gate.config.service.to_string(),
            when_bad: gate.config.when_bad,
            open: view.open.load(Ordering::Relaxed),
            trouble: view.trouble(),
            connections: view.connections.load(Ordering::Relaxed),
            accepted: view.accepted.load(Ordering::Relaxed),
            refused: view.refused.load(Ordering::Relaxed),
        }
    }
}

#[derive(Debug, Serialize)]
struct NodeStatus {
    url: String,
    dir: Option<String>,
    nickname: String,
    observed: Option<String>,
    age_ms: Option<u128>,
    answer_ms: Option<f64>,
    failure: Option<Failure>,
    introducers: Option<crate::health::Introducers>,
    servers_known: Option<usize>,
}

#[derive(Debug, Serialize)]
struct Failure {
    code: &'static str,
    text: String,
}

#[derive(Debug, Serialize)]
struct ServiceStatus {
    state: State,
    degraded: bool,
    forced: bool,
    weight: Weight,
    since: String,
    seq: u64,
    fresh_until: Option<String>,
    reasons: Vec<Reason>,
    findings: Vec<Finding>,
    #[serde(rename = "override")]
    overridden: Option<()>,
}

impl Status {
    fn of(board: &Board, gates: &[(Address, Arc<Gate>)]) -> Self {
        let clock = board.clock;
        let table = board.table();
        let now = clock.now();
        let view = Arc::clone(&board.node.borrow());
        let fresh_until = board.fresh_until().map(|until| clock.rfc3339(until));
        let facts = view.facts.as_ref();
        let node = NodeStatus {
            url: table.fixed.url.clone(),
            dir: table.fixed.dir.clone(),
            nickname: table.fixed.nickname.clone(),
            observed: view.finished.map(|at| clock.rfc3339(at)),
            age_ms: view.finished.map(|at| now.since(at).as_millis()),
            answer_ms: view.finished.map(|_| view.took.as_secs_f64() * 1e3),
            failure: view.failure.clone().map(|(code, text)| Failure { code, text }),
            introducers: facts.map(|facts| facts.introducers),
            servers_known: facts.map(|facts| facts.servers.len()),
        };
        let services = table.services.iter().map(|service| {
            let verdict = service.answers().verdict.clone();
            let status = ServiceStatus {
                state: verdict.state,
                degraded: verdict.degraded,
                forced: verdict.forced,
                weight: verdict.weight,
                since: clock.rfc3339(verdict.since),
                seq: verdict.seq,
                fresh_until: fresh_until.clone(),
                reasons: verdict.reasons,
                findings: verdict.findings,
                overridden: None,
            };
            (service.name.to_string(), status)
        });
        Self {
            version: env!("CARGO_PKG_VERSION"),
            commit: option_env!("HCF_COMMIT"),
            config_hash: table.fixed.config_hash.clone(),
            started: clock.rfc3339(board.started),
            ready: board.is_ready(),
            node,
            services: services.collect(),
            gates: gates.iter().map(|(address, gate)| GateStatus::of(address, gate)).collect(),
        }
    }
}
