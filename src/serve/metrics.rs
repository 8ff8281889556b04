//! Metrics for Prometheus: what is on the board, and what was counted, read at each scrape.
//!
//! Every name, unit, label and sentence is here and nowhere else. A label's values are the words of an enum, names of the
//! configuration, or balancers of a table that is bounded.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::families::{Family, Page, counter, gauge, histogram, info, ratio, seconds};
use super::http::Reply;
use super::status::StatusSite;
use crate::board::Board;
use crate::counts::{SAID, said};
use crate::health::{Link, Verdict, Word};
use crate::history::{Archive, Summary};
use crate::overrides::{Entry, Ruling};

const BUILD: Family =
    info("hcf_build", &["version", "commit"], "The program that runs; the value is 1.");
const STARTED: Family =
    gauge("hcf_start_time_seconds", &[], "When hcf started, since the epoch.").unit("seconds");
const READY: Family =
    gauge("hcf_ready", &[], "1 once every listener is bound and the first look is over.");
const STATE: Family = gauge(
    "hcf_service_state",
    &["service", "state"],
    "1 for what a balancer is told of the service, 0 for the other states.",
);
const SINCE: Family = gauge(
    "hcf_service_since_timestamp_seconds",
    &["service"],
    "When the state last changed, since the epoch.",
)
.unit("seconds");
const FORCED: Family = gauge(
    "hcf_service_forced",
    &["service"],
    "1 while the service is up by an order, whatever the criteria say.",
);
const WEIGHT: Family = gauge(
    "hcf_service_weight_ratio",
    &["service"],
    "The share of full work that the node is to get while the service is up.",
)
.unit("ratio");
const PART: Family = gauge(
    "hcf_service_weight_part_ratio",
    &["service", "part"],
    "What each measure alone would make the weight.",
)
.unit("ratio");
const REASON: Family =
    gauge("hcf_service_reason", &["service", "reason"], "1 for each reason that holds now.");
const PASSED: Family = gauge(
    "hcf_criterion_passed",
    &["service", "criterion", "else"],
    "1 if the last good look met the criterion; else says what a failure does.",
);
const OBSERVED: Family = gauge(
    "hcf_criterion_observed",
    &["service", "criterion"],
    "What the criterion saw: servers, introducers or seconds.",
);
const THRESHOLD: Family = gauge(
    "hcf_criterion_threshold",
    &["service", "criterion"],
    "What it is held against, in the same unit.",
);
const TRANSITIONS: Family = counter(
    "hcf_transitions",
    &["service", "to", "reason"],
    "Changes of a service's state, by the new one and its leading reason.",
);
const REACHABLE: Family =
    gauge("hcf_node_reachable", &[], "1 if the last look at the node saw something.");
const AGE: Family = gauge(
    "hcf_observation_age_seconds",
    &[],
    "How long ago the last look at the node finished, well or badly.",
)
.unit("seconds");
const POLLS: Family = histogram(
    "hcf_poll_duration_seconds",
    &["outcome"],
    "How long looks at the node took: ok, or by the code of what failed.",
);
const KNOWN: Family =
    gauge("hcf_servers_known", &[], "Storage servers that the node knew at the last good look.");
const CONNECTED: Family =
    gauge("hcf_servers_connected", &[], "Those of them that it was connected to.");
const INTRODUCERS: Family = gauge(
    "hcf_introducers_connected",
    &[],
    "Introducers that the node was connected to at the last good look.",
);
const CONFIGURED: Family =
    gauge("hcf_introducers_configured", &[], "Introducers that the node is configured with.");
const QUESTIONS: Family = counter(
    "hcf_questions",
    &["listener", "service", "answer"],
    "Questions of balancers, by what they were told.",
);
const UNKNOWN: Family = counter(
    "hcf_unknown_service_questions",
    &["listener"],
    "Questions for a service that does not exist.",
);
const HELD: Family =
    counter("hcf_held_questions", &["outcome"], "Held questions (hold=), by how they ended.");
const ASKED: Family = counter(
    "hcf_asker_questions",
    &["listener", "peer", "service"],
    "Questions of one balancer; at most 1,024 are told apart.",
);
const LAST: Family = gauge(
    "hcf_asker_last_seconds",
    &["listener", "peer", "service"],
    "How long ago the balancer asked last.",
)
.unit("seconds");
const INTERVAL: Family = gauge(
    "hcf_asker_interval_seconds",
    &["listener", "peer", "service"],
    "The usual time between two of its questions.",
)
.unit("seconds");
const CONNECTIONS: Family = gauge("hcf_listener_connections", &["listener"], "Open connections.");
const ACCEPTED: Family =
    counter("hcf_listener_accepted", &["listener"], "Connections that were accepted.");
const REFUSED: Family = counter(
    "hcf_listener_refused",
    &["listener"],
    "Connections that were closed at once, since `allow` names no network that they came from.",
);
const NOT_SECURED: Family = counter(
    "hcf_listener_tls_failures",
    &["listener"],
    "Connections that came to no TLS: another protocol, no certificate or a wrong one, or too slow.",
);
const EVICTED: Family = counter(
    "hcf_listener_evicted",
    &["listener"],
    "Connections that were asked to leave, to make room for others.",
);
const ACCEPT_ERRORS: Family = counter(
    "hcf_listener_accept_errors",
    &["listener"],
    "Connections that this machine was too short of something to accept.",
);
const GATE_OPEN: Family =
    gauge("hcf_gate_open", &["gate", "address", "service"], "1 while the gate's port listens.");
const GATE_TROUBLE: Family = gauge(
    "hcf_gate_trouble",
    &["gate", "address"],
    "1 while the gate's port should listen and cannot; the status says why.",
);
const GATE_CONNECTIONS: Family =
    gauge("hcf_gate_connections", &["gate", "address"], "Connections that the gate carries.");
const GATE_ACCEPTED: Family =
    counter("hcf_gate_accepted", &["gate", "address"], "Connections that the gate has accepted.");
const GATE_REFUSED: Family =
    counter("hcf_gate_refused", &["gate", "address"], "Requests that the gate has refused.");
const GATE_RECEIVED: Family =
    counter("hcf_gate_received_bytes", &["gate", "address"], "Bytes from the gate's clients.")
        .unit("bytes");
const GATE_SENT: Family =
    counter("hcf_gate_sent_bytes", &["gate", "address"], "Bytes to the gate's clients.")
        .unit("bytes");
const OVERRIDES: Family = gauge(
    "hcf_overrides",
    &["service", "word", "ends"],
    "Orders of operators that are in force; ends says whether they end by themselves.",
);
const OLDEST: Family = gauge(
    "hcf_override_oldest_timestamp_seconds",
    &["service", "word", "ends"],
    "When the oldest of them was given, since the epoch.",
)
.unit("seconds");
const LOST: Family = gauge("hcf_overrides_lost", &[], "1 if what was ordered cannot be read.");
const HISTORY: Family =
    gauge("hcf_history_records", &[], "Transitions and minutes that the history keeps.");
const HISTORY_SIZE: Family =
    gauge("hcf_history_size_bytes", &[], "What they take in the state directory, or in memory.")
        .unit("bytes");
const HISTORY_MISSING: Family = counter(
    "hcf_history_missing",
    &[],
    "Records that could not be kept, and lines that could not be read.",
);
const HISTORY_ERRORS: Family =
    counter("hcf_history_write_errors", &[], "Writes of the history that failed.");
const RELOADS: Family = counter(
    "hcf_reloads",
    &["outcome"],
    "Times that the configuration was read again, by what came of it.",
);

/// A scrape.
pub(super) fn metrics(site: &StatusSite, query: &str) -> Reply {
    let mut page = Page::new(query);
    sidecar(&mut page, site);
    services(&mut page, site.board());
    node(&mut page, site.board());
    askers(&mut page, site.board());
    listeners(&mut page, site.board());
    gates(&mut page, site);
    overrides(&mut page, &site.ruling());
    history(&mut page, site.history());
    page.reply()
}

fn sidecar(page: &mut Page, site: &StatusSite) {
    let board = site.board();
    program(page, board.clock.wall(board.started));
    page.one(&READY, u8::from(board.is_ready()));
    page.all(&RELOADS, board.counts.reloads().map(|(outcome, n)| ([outcome], n)));
}

/// What runs, and since when.
pub(crate) fn program(page: &mut Page, started: SystemTime) {
    let commit = option_env!("HCF_COMMIT").unwrap_or_default();
    page.all(&BUILD, [([env!("CARGO_PKG_VERSION"), commit], 1)]);
    page.one(&STARTED, seconds(started));
}

fn services(page: &mut Page, board: &Board) {
    let table = board.table();
    let answers: Vec<_> = table.services.iter().map(|service| service.answers()).collect();
    let verdicts = || answers.iter().map(|answers| (&*answers.service, &answers.verdict));
    let states = verdicts().flat_map(|(name, verdict)| {
        let now = said(verdict);
        let each = SAID.iter().enumerate();
        each.map(move |(place, word)| ([name, *word], u8::from(place == now)))
    });
    page.all(&STATE, states);
    let since = |verdict: &Verdict| seconds(board.clock.wall(verdict.since));
    page.all(&SINCE, verdicts().map(|(name, verdict)| ([name], since(verdict))));
    page.all(&FORCED, verdicts().map(|(name, verdict)| ([name], u8::from(verdict.forced))));
    let weights = verdicts().map(|(name, verdict)| ([name], ratio(verdict.weight.percent())));
    page.all(&WEIGHT, weights);
    let parts = verdicts().flat_map(|(name, verdict)| {
        verdict.parts.iter().map(move |part| ([name, &*part.name], ratio(part.percent)))
    });
    page.all(&PART, parts);
    let reasons = verdicts().flat_map(|(name, verdict)| {
        // Two criteria may give the same one.
        let mut codes: Vec<_> = verdict.reasons.iter().map(|reason| reason.code.as_str()).collect();
        codes.sort_unstable();
        codes.dedup();
        codes.into_iter().map(move |code| ([name, code], 1))
    });
    page.all(&REASON, reasons);
    let findings = || {
        verdicts()
            .flat_map(|(name, verdict)| verdict.findings.iter().map(move |finding| (name, finding)))
    };
    let passed = findings().map(|(name, finding)| {
        let otherwise = match finding.otherwise {
            crate::health::Else::Warn => "warn",
            crate::health::Else::Degrade => "degrade",
            crate::health::Else::Drain => "drain",
            crate::health::Else::Down => "down",
        };
        ([name, finding.criterion, otherwise], u8::from(finding.pass))
    });
    page.all(&PASSED, passed);
    let observed = findings().map(|(name, found)| ([name, found.criterion], found.observed));
    page.all(&OBSERVED, observed);
    let thresholds = findings().map(|(name, found)| ([name, found.criterion], found.threshold));
    page.all(&THRESHOLD, thresholds);
    let transitions = table.services.iter().flat_map(|service| {
        service.counts.transitions().map(|(to, why, n)| ([&*service.name, to, why], n))
    });
    page.all(&TRANSITIONS, transitions);
    let questions = table.services.iter().flat_map(|service| {
        service.counts.questions().map(|(listener, told, n)| ([listener, &*service.name, told], n))
    });
    page.all(&QUESTIONS, questions);
    page.all(&UNKNOWN, board.counts.unknown().map(|(listener, n)| ([listener], n)));
    page.all(&HELD, board.counts.helds().map(|(outcome, n)| ([outcome], n)));
}

fn node(page: &mut Page, board: &Board) {
    let view = std::sync::Arc::clone(&board.node.borrow());
    let now = board.clock.now();
    page.maybe(&REACHABLE, view.finished.map(|_| u8::from(view.failure.is_none())));
    page.maybe(&AGE, view.finished.map(|at| now.since(at).as_secs_f64()));
    page.histogram(&POLLS, board.counts.polls());
    let facts = view.facts.as_ref();
    let connected = |facts: &crate::health::Facts| {
        facts.servers.iter().filter(|server| server.link == Link::Connected).count()
    };
    page.maybe(&KNOWN, facts.map(|facts| facts.servers.len()));
    page.maybe(&CONNECTED, facts.map(connected));
    page.maybe(&INTRODUCERS, facts.map(|facts| facts.introducers.connected));
    page.maybe(&CONFIGURED, facts.map(|facts| facts.introducers.configured));
}

fn askers(page: &mut Page, board: &Board) {
    let now = board.clock.now();
    let seen = board.askers.seen(now);
    let peers: Vec<String> = seen
        .iter()
        .map(|seen| seen.key.peer.map_or_else(|| "unix".to_owned(), |peer| peer.to_string()))
        .collect();
    let each = || {
        let labelled = seen.iter().zip(&peers);
        labelled.map(|(seen, peer)| ([seen.key.listener, &**peer, &*seen.key.service], seen))
    };
    page.all(&ASKED, each().map(|(labels, seen)| (labels, seen.count)));
    page.all(&LAST, each().map(|(labels, seen)| (labels, now.since(seen.last).as_secs_f64())));
    let intervals =
        each().filter_map(|(labels, seen)| Some((labels, seen.interval?.as_secs_f64())));
    page.all(&INTERVAL, intervals);
}

fn listeners(page: &mut Page, board: &Board) {
    let doors = || board.counts.doors();
    page.all(&CONNECTIONS, doors().map(|(name, door)| ([name], door.open.load(Ordering::Relaxed))));
    page.all(&ACCEPTED, doors().map(|(name, door)| ([name], door.accepted.get())));
    page.all(&REFUSED, doors().map(|(name, door)| ([name], door.refused.get())));
    page.all(&NOT_SECURED, doors().map(|(name, door)| ([name], door.not_secured.get())));
    page.all(&EVICTED, doors().map(|(name, door)| ([name], door.evicted.get())));
    page.all(&ACCEPT_ERRORS, doors().map(|(name, door)| ([name], door.errors.get())));
}

fn gates(page: &mut Page, site: &StatusSite) {
    let gates = site.gates();
    let addresses: Vec<String> = gates.iter().map(|(address, _)| address.to_string()).collect();
    let each = || {
        let labelled = gates.iter().zip(&addresses);
        labelled.map(|((_, gate), address)| ([&*gate.config.name, &**address], gate))
    };
    let open = each().map(|([name, address], gate)| {
        ([name, address, &gate.config.service], u8::from(gate.view.open.load(Ordering::Relaxed)))
    });
    page.all(&GATE_OPEN, open);
    let connections =
        each().map(|(labels, gate)| (labels, gate.view.connections.load(Ordering::Relaxed)));
    page.all(&GATE_CONNECTIONS, connections);
    let trouble = |gate: &super::gate::Gate| u64::from(gate.view.trouble().is_some());
    page.all(&GATE_TROUBLE, each().map(|(labels, gate)| (labels, trouble(gate))));
    let accepted = |gate: &super::gate::Gate| gate.view.accepted.load(Ordering::Relaxed);
    page.all(&GATE_ACCEPTED, each().map(|(labels, gate)| (labels, accepted(gate))));
    let refused = |gate: &super::gate::Gate| gate.view.refused.load(Ordering::Relaxed);
    page.all(&GATE_REFUSED, each().map(|(labels, gate)| (labels, refused(gate))));
    page.all(&GATE_RECEIVED, each().map(|(labels, gate)| (labels, gate.view.received.get())));
    page.all(&GATE_SENT, each().map(|(labels, gate)| (labels, gate.view.sent.get())));
}

fn overrides(page: &mut Page, ruling: &Ruling) {
    let mut orders: BTreeMap<[&str; 3], (usize, SystemTime)> = BTreeMap::new();
    for Entry { service, word, since, expiry, .. } in &ruling.entries {
        let word = match word {
            Word::Maint => "maint",
            Word::Down => "down",
            Word::Drain => "drain",
            Word::Up => "up",
            Word::Weight(_) => "weight",
        };
        let ends = if expiry.until().is_some() { "yes" } else { "no" };
        let (count, oldest) = orders.entry([service, word, ends]).or_insert((0, *since));
        *count += 1;
        *oldest = (*oldest).min(*since);
    }
    page.all(&OVERRIDES, orders.iter().map(|(labels, (count, _))| (*labels, *count)));
    page.all(&OLDEST, orders.iter().map(|(labels, (_, oldest))| (*labels, seconds(*oldest))));
    page.one(&LOST, u8::from(ruling.lost));
}

fn history(page: &mut Page, history: &Archive) {
    let Summary { records, bytes, missing, .. } = history.summary();
    page.one(&HISTORY, records);
    page.one(&HISTORY_SIZE, bytes);
    page.one(&HISTORY_MISSING, missing);
    page.one(&HISTORY_ERRORS, history.errors.get());
}
