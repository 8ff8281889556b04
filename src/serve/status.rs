//! The status listener: everything that is known, for operators only, since it shows the grid's
//! topology. It answers the health listener's paths too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::{ArcSwap, ArcSwapOption};
use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;

use super::HealthSite;
use super::accept::Peer;
use super::askers::Seen;
use super::gate::Gate;
use super::http::{Reply, Site};
use super::watch::{Watcher, Watchers};
use crate::board::Board;
use crate::config::{Address, WhenBad};
use crate::daemon::Outcome;
use crate::health::{Finding, Moment, Reason, State, Weight};
use crate::overrides::{Entry, Ruling};

/// Answers operators.
#[derive(Debug)]
pub struct StatusSite {
    health: HealthSite,
    gates: Gates,
    rulings: watch::Receiver<Arc<Ruling>>,
    reloaded: ArcSwapOption<(Moment, Outcome)>,
    watchers: Watchers,
}

/// The gates that run, each with the address that it has.
pub type Gates = Arc<ArcSwap<Vec<(Address, Arc<Gate>)>>>;

impl StatusSite {
    /// A site that shows this board, these gates, and what operators have ordered.
    #[must_use]
    pub fn new(board: Arc<Board>, gates: Gates, rulings: watch::Receiver<Arc<Ruling>>) -> Self {
        Self {
            health: HealthSite { board, listener: "status" },
            gates,
            rulings,
            reloaded: ArcSwapOption::empty(),
            watchers: Watchers::default(),
        }
    }

    /// The board that it shows.
    pub(super) fn board(&self) -> &Board {
        &self.health.board
    }

    /// Shows what came of the last reload.
    pub fn reloaded(&self, at: Moment, outcome: Outcome) {
        self.reloaded.store(Some(Arc::new((at, outcome))));
    }
}

impl Site for StatusSite {
    fn get(&self, path: &str, query: &str, peer: Peer) -> Reply {
        match path {
            "/v1/status" => {
                let status = Status::of(self);
                let body = serde_json::to_vec_pretty(&status).unwrap_or_default();
                Reply::new(200, "application/json", &[], body)
            }
            "/v1/overrides" => {
                let entries = &self.rulings.borrow().entries;
                Reply::json(200, &json!({"overrides": entries}))
            }
            // Asked for by HEAD, or while all places are taken.
            "/v1/watch" if self.watchers.has_room() => {
                Reply::new(200, "text/event-stream", &[], "")
            }
            "/v1/watch" => {
                let detail = "as many watch this sidecar as may; ask again later";
                Reply::json(503, &json!({"status": 503, "title": "full", "detail": detail}))
            }
            "/" => Reply::json(
                200,
                &json!({"see": ["/v1/status", "/v1/watch", "/health", "/livez", "/readyz"]}),
            ),
            _ => self.health.get(path, query, peer),
        }
    }

    fn watch(&self, path: &str) -> Option<Watcher> {
        (path == "/v1/watch").then(|| self.watchers.admit(Arc::clone(&self.health.board)))?
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
    askers: Vec<AskerStatus>,
    /// Everything that operators have ordered.
    overrides: Vec<Entry>,
    /// What they had ordered cannot be read any more.
    overrides_lost: bool,
    /// What is wrong with files that order something, and the like.
    notes: Vec<String>,
    /// What came of the last reload that changed, or would have changed, something.
    reload: Option<Reloaded>,
}

#[derive(Debug, Serialize)]
struct Reloaded {
    at: String,
    #[serde(flatten)]
    outcome: Outcome,
}

/// One who asks.
#[derive(Debug, Serialize)]
struct AskerStatus {
    listener: &'static str,
    peer: String,
    service: String,
    first: String,
    last: String,
    every_ms: Option<u128>,
    count: u64,
    /// It was told what holds now.
    current: bool,
    /// It has fallen silent.
    lost: bool,
}

impl AskerStatus {
    fn of(seen: &Seen, board: &Board) -> Self {
        let now = board.service(&seen.key.service).map(|service| service.tag());
        Self {
            listener: seen.key.listener,
            peer: seen.key.peer.map_or_else(|| "unix".to_owned(), |peer| peer.to_string()),
            service: seen.key.service.to_string(),
            first: board.clock.rfc3339(seen.first),
            last: board.clock.rfc3339(seen.last),
            every_ms: seen.interval.map(|interval| interval.as_millis()),
            count: seen.count,
            current: now == Some(seen.told),
            lost: seen.lost,
        }
    }
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
    overridden: Option<Entry>,
}

impl Status {
    fn of(site: &StatusSite) -> Self {
        let board = site.board();
        let gates = site.gates.load();
        let ruling = Arc::clone(&site.rulings.borrow());
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
                overridden: ruling
                    .entries
                    .iter()
                    .filter(|entry| entry.service == service.name)
                    .min_by_key(|entry| entry.word)
                    .cloned(),
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
            askers: board
                .askers
                .seen(now)
                .into_iter()
                .map(|seen| AskerStatus::of(&seen, board))
                .collect(),
            overrides: ruling.entries.clone(),
            overrides_lost: ruling.lost,
            notes: ruling.notes.clone(),
            reload: site.reloaded.load().as_ref().map(|reloaded| Reloaded {
                at: clock.rfc3339(reloaded.0),
                outcome: reloaded.1.clone(),
            }),
        }
    }
}
