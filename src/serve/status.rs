//! The status listener: everything that is known, for operators only, since it shows the grid's
//! topology. It answers the health listener's paths too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use arc_swap::{ArcSwap, ArcSwapOption};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;

use super::HealthSite;
use super::accept::Peer;
use super::askers::Seen;
use super::gate::Gate;
use super::http::{Later, Reply, Site};
use super::openapi::{perhaps_time, time};
use super::watch::{Watcher, Watchers};
use super::{metrics, page};
use crate::board::{Board, ServiceBoard, Table};
use crate::clock::Clock;
use crate::config::{Address, WhenBad};
use crate::daemon::Outcome;
use crate::health::{Finding, Moment, Part, Reason, Server, Since, State, Weight};
use crate::history::record::Standing;
use crate::history::{Archive, Query, Summary};
use crate::overrides::{Entry, Ruling, Shown};

/// Answers operators.
#[derive(Debug)]
pub struct StatusSite {
    health: HealthSite,
    gates: Gates,
    rulings: watch::Receiver<Arc<Ruling>>,
    history: Arc<Archive>,
    reloaded: ArcSwapOption<(Moment, Outcome)>,
    watchers: Watchers,
}

/// The gates that run, each with the address that it has.
pub type Gates = Arc<ArcSwap<Vec<(Address, Arc<Gate>)>>>;

impl StatusSite {
    /// A site that shows this board, these gates, what operators have ordered, and what was.
    #[must_use]
    pub fn new(
        board: Arc<Board>,
        gates: Gates,
        rulings: watch::Receiver<Arc<Ruling>>,
        history: Arc<Archive>,
    ) -> Self {
        Self {
            health: HealthSite { board, listener: "status" },
            gates,
            rulings,
            history,
            reloaded: ArcSwapOption::empty(),
            watchers: Watchers::default(),
        }
    }

    /// The board that it shows.
    pub(super) fn board(&self) -> &Board {
        &self.health.board
    }

    /// The gates that run.
    pub(super) fn gates(&self) -> Arc<Vec<(Address, Arc<Gate>)>> {
        self.gates.load_full()
    }

    /// What operators have ordered.
    pub(super) fn ruling(&self) -> Arc<Ruling> {
        Arc::clone(&self.rulings.borrow())
    }

    /// What was.
    pub(super) fn history(&self) -> &Archive {
        &self.history
    }

    async fn read_history(&self, query: &str) -> Reply {
        let query = match Query::parse(query, SystemTime::now()) {
            Ok(query) => query,
            Err(why) => return problem(400, "not a question that makes sense", &why),
        };
        let table = self.board().table();
        let service = query.service.clone();
        let asked = |name: &str| service.as_deref().is_none_or(|service| service == name);
        let standing = |service: &Arc<ServiceBoard>| {
            (service.name.to_string(), Standing::from(&service.answers().verdict))
        };
        let now = table.services.iter().filter(|s| asked(&s.name)).map(standing).collect();
        match self.history.answer(query, now).await {
            Ok(history) => match service {
                // One that was renamed is still in the history.
                Some(service) if !history.knows(&service) => {
                    let known: Vec<&str> = table.services.iter().map(|s| &*s.name).collect();
                    let known = known.join(", ");
                    let detail =
                        format!("there is no service `{service}`; expected one of {known}");
                    problem(404, "not found", &detail)
                }
                _ => {
                    let body = serde_json::to_vec(&history).unwrap_or_default();
                    Reply::new(200, "application/json", &[], body)
                }
            },
            Err(why) => problem(503, "not read", &why.to_string()),
        }
    }

    /// Shows what came of the last reload. One that found nothing new says only that nothing is wrong any more.
    pub fn reloaded(&self, at: Moment, outcome: Outcome) {
        let wrong = self.reloaded.load().as_ref().is_some_and(|last| last.1.is_failure());
        if outcome != Outcome::Unchanged || wrong {
            self.reloaded.store(Some(Arc::new((at, outcome))));
        }
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
            "/metrics" => metrics::metrics(self, query),
            "/" => page::page(self),
            "/style.css" => page::style(),
            // Asked for by HEAD, or while all places are taken.
            "/v1/watch" if self.watchers.has_room() => {
                Reply::new(200, "text/event-stream", &[], "")
            }
            "/v1/watch" => {
                let detail = "as many watch this sidecar as may; ask again later";
                Reply::json(503, &json!({"status": 503, "title": "full", "detail": detail}))
            }
            _ => self.health.get(path, query, peer),
        }
    }

    fn later<'a>(&'a self, path: &str, query: &'a str) -> Option<Later<'a>> {
        (path == "/v1/history").then(|| Box::pin(self.read_history(query)) as Later<'a>)
    }

    fn watch(&self, path: &str) -> Option<Watcher> {
        (path == "/v1/watch").then(|| self.watchers.admit(Arc::clone(&self.health.board)))?
    }
}

/// Everything, as `/v1/status` says it.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Status {
    pub(super) version: &'static str,
    pub(super) commit: Option<&'static str>,
    pub(super) config_hash: String,
    /// Where orders and verdicts are kept; none for in memory only.
    pub(super) state_dir: Option<String>,
    #[schemars(schema_with = "time")]
    pub(super) started: String,
    pub(super) ready: bool,
    pub(super) node: NodeStatus,
    pub(super) services: BTreeMap<String, ServiceStatus>,
    pub(super) gates: Vec<GateStatus>,
    pub(super) askers: Vec<AskerStatus>,
    /// Everything that operators have ordered.
    #[schemars(with = "Vec<Shown<'_>>")]
    pub(super) overrides: Vec<Entry>,
    /// What they had ordered cannot be read any more.
    pub(super) overrides_lost: bool,
    /// How it is with the history itself.
    pub(super) history: Summary,
    /// What is wrong with files that order something, and the like.
    pub(super) notes: Vec<String>,
    /// What came of the last reload that changed, or would have changed, something.
    pub(super) reload: Option<Reloaded>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Reloaded {
    #[schemars(schema_with = "time")]
    pub(super) at: String,
    #[serde(flatten)]
    pub(super) outcome: Outcome,
}

/// One who asks.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct AskerStatus {
    pub(super) listener: &'static str,
    pub(super) peer: String,
    pub(super) service: String,
    #[schemars(schema_with = "time")]
    pub(super) first: String,
    #[schemars(schema_with = "time")]
    pub(super) last: String,
    pub(super) every_ms: Option<u128>,
    pub(super) count: u64,
    /// The state that it was told last.
    pub(super) told: State,
    /// Which holds now.
    pub(super) current: bool,
    /// It has fallen silent.
    pub(super) lost: bool,
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
            told: seen.state,
            current: now == Some(seen.told),
            lost: seen.lost,
        }
    }
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct GateStatus {
    pub(super) name: String,
    pub(super) address: String,
    pub(super) service: String,
    pub(super) when_bad: WhenBad,
    /// Whether the port listens.
    pub(super) open: bool,
    /// Why it does not, although it should.
    pub(super) trouble: Option<String>,
    pub(super) connections: usize,
    pub(super) accepted: u64,
    pub(super) refused: u64,
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

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct NodeStatus {
    pub(super) url: String,
    pub(super) dir: Option<String>,
    pub(super) nickname: String,
    #[schemars(schema_with = "perhaps_time")]
    pub(super) observed: Option<String>,
    pub(super) age_ms: Option<u128>,
    pub(super) answer_ms: Option<f64>,
    pub(super) failure: Option<Failure>,
    pub(super) introducers: Option<crate::health::Introducers>,
    pub(super) servers_known: Option<usize>,
    /// When the introducers and servers were so.
    #[schemars(schema_with = "perhaps_time")]
    pub(super) seen: Option<String>,
    /// Every storage server that the node knows; none before the first good look.
    pub(super) servers: Vec<ServerStatus>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ServerStatus {
    pub(super) id: String,
    /// The name that it gives itself.
    pub(super) nickname: String,
    pub(super) usable: bool,
    /// `usable`, or what it lacks, in a few words.
    pub(super) state: &'static str,
    /// When it became usable, or not; none where it was so when it was first seen.
    #[schemars(schema_with = "perhaps_time")]
    pub(super) since: Option<String>,
    /// How long it has said nothing, when it was seen; none when it has never been heard.
    pub(super) silent_ms: Option<u128>,
    /// Free bytes; none when it has not said.
    pub(super) space: Option<u64>,
}

impl ServerStatus {
    fn of(server: &Server, since: Since, clock: Clock) -> Self {
        let trouble = server.trouble(1, None);
        Self {
            id: server.id.to_string(),
            nickname: server.nickname.to_string(),
            usable: trouble.is_none(),
            state: trouble.unwrap_or("usable"),
            since: match since {
                Since::Changed(at) => Some(clock.rfc3339(at)),
                Since::Before(_) => None,
            },
            silent_ms: server.silent.map(|silent| silent.as_millis()),
            space: server.space,
        }
    }
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Failure {
    pub(super) code: &'static str,
    pub(super) text: String,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ServiceStatus {
    pub(super) state: State,
    pub(super) degraded: bool,
    pub(super) forced: bool,
    pub(super) weight: Weight,
    #[schemars(schema_with = "time")]
    pub(super) since: String,
    pub(super) seq: u64,
    #[schemars(schema_with = "perhaps_time")]
    pub(super) fresh_until: Option<String>,
    pub(super) reasons: Vec<Reason>,
    pub(super) findings: Vec<Finding>,
    /// What the weight is made of.
    pub(super) weight_parts: Vec<Part>,
    #[serde(rename = "override")]
    #[schemars(with = "Option<Shown<'_>>")]
    pub(super) overridden: Option<Entry>,
}

/// A sentence for each override of a service that does not exist, since it does nothing.
fn unknown(ruling: &Ruling, table: &Table) -> impl Iterator<Item = String> {
    let known = |entry: &&Entry| table.services.iter().any(|s| s.name == entry.service);
    ruling.entries.iter().filter(move |entry| !known(entry)).map(|entry| {
        let Entry { service, by, .. } = entry;
        format!("there is no service `{service}`, so an override of it does nothing; set by {by}")
    })
}

fn problem(status: u16, title: &str, detail: &str) -> Reply {
    Reply::json(status, &json!({"status": status, "title": title, "detail": detail}))
}

/// Everything that somebody should look at.
fn notes(ruling: &Ruling, table: &Table, history: Option<String>) -> Vec<String> {
    let history = history.map(|why| format!("the history is not kept: {why}"));
    ruling.notes.iter().cloned().chain(unknown(ruling, table)).chain(history).collect()
}

impl Status {
    pub(super) fn of(site: &StatusSite) -> Self {
        let board = site.board();
        let gates = site.gates();
        let ruling = site.ruling();
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
            seen: view.seen.map(|at| clock.rfc3339(at)),
            servers: view
                .servers()
                .map(|(server, since)| ServerStatus::of(server, since, clock))
                .collect(),
        };
        let services = table.services.iter().map(|service| {
            let answers = service.answers();
            let verdict = answers.verdict.clone();
            let status = ServiceStatus {
                state: verdict.state,
                degraded: verdict.degraded,
                forced: verdict.forced,
                weight: verdict.weight,
                since: clock.rfc3339(service.since(&answers)),
                seq: verdict.seq,
                fresh_until: fresh_until.clone(),
                reasons: verdict.reasons,
                findings: verdict.findings,
                weight_parts: verdict.parts,
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
            state_dir: table.fixed.state_dir.clone(),
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
            history: site.history.summary(),
            notes: notes(&ruling, &table, site.history.summary().trouble),
            reload: site.reloaded.load().as_ref().map(|reloaded| Reloaded {
                at: clock.rfc3339(reloaded.0),
                outcome: reloaded.1.clone(),
            }),
        }
    }
}
