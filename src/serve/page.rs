//! The status page for a person: what is wrong, since when, why and what to do, at the top; everything else below.
//!
//! It needs no script and no other host, and whatever comes from the network is escaped by the template.

mod grid;
mod plain;

use std::sync::Arc;

use askama::Template;

use self::grid::Grid;
use super::http::Reply;
use super::status::{GateStatus, Status, StatusSite};
use crate::board::{Board, NodeView, ServiceBoard};
use crate::config::WhenBad;
use crate::health::{Else, Finding, Moment, State, Verdict};
use crate::history::Shown;
use crate::overrides::Entry;
use crate::serve::askers::Seen;

/// Nothing but the style sheet of this server, and nobody may frame it.
const POLICY: (&str, &str) = (
    "Content-Security-Policy",
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);
const NO_SNIFF: (&str, &str) = ("X-Content-Type-Options", "nosniff");
const NO_REFERRER: (&str, &str) = ("Referrer-Policy", "no-referrer");

/// The page.
pub(super) fn page(site: &StatusSite) -> Reply {
    let html = Page::of(site).render().unwrap_or_default();
    Reply::new(200, "text/html; charset=utf-8", &[POLICY, NO_SNIFF, NO_REFERRER], html)
}

/// Its style.
pub(super) fn style() -> Reply {
    let css = include_str!("../../templates/style.css");
    Reply::new(200, "text/css; charset=utf-8", &[NO_SNIFF], css)
}

#[derive(Template)]
#[template(path = "status.html")]
struct Page {
    headline: String,
    name: String,
    node: String,
    now: String,
    services: Vec<Service>,
    /// By which look the criteria are shown, where it is not the last one.
    judged: String,
    orders: Vec<Order>,
    notes: Vec<String>,
    askers: Vec<Asker>,
    gates: Vec<Gate>,
    grid: Grid,
    identity: String,
}

struct Service {
    name: String,
    class: &'static str,
    word: String,
    up: bool,
    weight: u8,
    why: String,
    remedies: Vec<&'static str>,
    since: String,
    since_exact: String,
    ago: String,
    checks: Vec<Check>,
    parts: Vec<Part>,
    /// The last 24 hours; nothing in the first moment after the start.
    day: Option<Shown>,
}

struct Check {
    class: &'static str,
    name: &'static str,
    result: String,
    found: String,
    needed: String,
    text: String,
}

struct Part {
    class: &'static str,
    name: String,
    percent: u8,
    text: String,
}

struct Order {
    service: String,
    word: String,
    reason: String,
    owner: String,
    by: String,
    since: String,
    until: String,
}

struct Asker {
    class: &'static str,
    peer: String,
    listener: &'static str,
    service: String,
    rate: String,
    last: String,
    told: String,
}

struct Gate {
    class: &'static str,
    name: String,
    address: String,
    service: String,
    when_bad: &'static str,
    now: String,
    connections: usize,
    refused: u64,
}

impl Page {
    fn of(site: &StatusSite) -> Self {
        let status = Status::of(site);
        let board = site.board();
        let now = board.clock.now();
        let view = Arc::clone(&board.node.borrow());
        let name = if status.node.nickname.is_empty() { "gateway" } else { &status.node.nickname };
        let table = board.table();
        let days = site.history().shown();
        let of = |service: &Arc<ServiceBoard>| {
            Service::of(service, board, &view, now, days.get(&*service.name).cloned())
        };
        let services: Vec<Service> = table.services.iter().map(of).collect();
        let headline = services
            .iter()
            .map(|service| format!("{} {}", service.name, service.word))
            .collect::<Vec<_>>()
            .join(", ");
        let mut seen = board.askers.seen(now);
        seen.sort_by_key(|seen| !seen.lost);
        Self {
            headline,
            name: name.to_owned(),
            node: node(&status, now, view.finished),
            now: plain::time(board.clock, now),
            services,
            judged: judged(&view, now),
            orders: status.overrides.iter().map(Order::of).collect(),
            notes: notes(&status),
            askers: seen.iter().map(|seen| Asker::of(seen, board, now)).collect(),
            gates: status.gates.iter().map(Gate::of).collect(),
            grid: Grid::of(board, &view, now),
            identity: format!(
                "hcf {}, commit {}, configuration {}, started {}",
                status.version,
                status.commit.unwrap_or("unknown"),
                status.config_hash,
                plain::time(board.clock, board.started)
            ),
        }
    }
}

/// Where the node is, and how the last look at it went.
fn node(status: &Status, now: Moment, finished: Option<Moment>) -> String {
    let url = &status.node.url;
    let Some(finished) = finished else {
        return format!("{url}: no look at it has finished yet.");
    };
    let ago = plain::ago(now.since(finished));
    match (&status.node.failure, status.node.answer_ms) {
        (Some(failure), _) => format!("{url}: {} ({ago}).", failure.text),
        (None, Some(ms)) => format!("{url} answered in {ms:.1} ms, {ago}."),
        (None, None) => format!("{url}, looked at {ago}."),
    }
}

/// By which look the criteria and the grid are shown, where that is not the last one.
fn judged(view: &NodeView, now: Moment) -> String {
    match view.seen {
        None => "No look at the node has succeeded yet, so no criterion could be held against it."
            .to_owned(),
        Some(seen) if view.finished != Some(seen) => {
            format!("By the last look that succeeded, {}.", plain::ago(now.since(seen)))
        }
        Some(_) => String::new(),
    }
}

/// What is wrong beside the services.
fn notes(status: &Status) -> Vec<String> {
    let reload = status.reload.iter().filter_map(|reload| {
        let why = reload.outcome.error()?;
        Some(format!(
            "The configuration was not reloaded at {}, the old one stays: {why}",
            reload.at
        ))
    });
    reload.chain(status.notes.iter().cloned()).collect()
}

impl Service {
    fn of(
        service: &ServiceBoard,
        board: &Board,
        view: &NodeView,
        now: Moment,
        day: Option<Shown>,
    ) -> Self {
        let answers = service.answers();
        let verdict = &answers.verdict;
        let (class, word) = word(verdict);
        let since = service.since(&answers);
        let parts = verdict.parts.iter().map(|part| Part {
            class: if part.percent < 100 { "mild" } else { "good" },
            name: part.name.clone(),
            percent: part.percent,
            text: part.text.clone(),
        });
        Self {
            name: service.name.to_string(),
            class,
            word,
            up: verdict.state == State::Up,
            weight: verdict.weight.percent(),
            why: why(verdict, view, now),
            remedies: remedies(verdict),
            since: plain::time(board.clock, since),
            since_exact: board.clock.rfc3339(since),
            ago: plain::ago(now.since(since)),
            checks: verdict.findings.iter().map(Check::of).collect(),
            parts: parts.collect(),
            day,
        }
    }
}

fn word(verdict: &Verdict) -> (&'static str, String) {
    match verdict.state {
        State::Up if verdict.forced => ("mild", "up, forced".to_owned()),
        State::Up if verdict.degraded => ("mild", "degraded".to_owned()),
        State::Up => ("good", "up".to_owned()),
        State::Drain => ("mild", "drain".to_owned()),
        state => ("bad", state.as_str().to_owned()),
    }
}

/// All reasons in a sentence; where servers are lacking, also which were lost last.
fn why(verdict: &Verdict, view: &NodeView, now: Moment) -> String {
    let mut clauses: Vec<String> = Vec::new();
    for reason in &verdict.reasons {
        clauses.push(reason.text.clone());
        if matches!(reason.criterion, Some("servers" | "blessed")) {
            let lost = grid::lost(view, now).filter(|lost| !clauses.contains(lost));
            clauses.extend(lost);
        }
    }
    if clauses.is_empty() { "All is well.".to_owned() } else { clauses.join("; ") + "." }
}

/// What to do, worst reason first, each once.
fn remedies(verdict: &Verdict) -> Vec<&'static str> {
    let mut remedies = Vec::new();
    for remedy in verdict.reasons.iter().map(|reason| reason.code.remedy()) {
        if !remedies.contains(&remedy) {
            remedies.push(remedy);
        }
    }
    remedies
}

impl Check {
    fn of(finding: &Finding) -> Self {
        let (found, needed) = plain::numbers(finding);
        let (class, result) = match (finding.pass, finding.otherwise) {
            (true, _) => ("good", "passes".to_owned()),
            (false, Else::Down) => ("bad", "fails: down".to_owned()),
            (false, Else::Drain) => ("mild", "fails: drain".to_owned()),
            (false, Else::Degrade) => ("mild", "fails: degraded".to_owned()),
            (false, Else::Warn) => ("mild", "fails: only warned of".to_owned()),
        };
        let text = finding.text.clone();
        Self { class, name: finding.criterion, result, found, needed, text }
    }
}

impl Order {
    fn of(entry: &Entry) -> Self {
        let shown = entry.shown();
        Self {
            service: shown.service.to_owned(),
            word: shown.word.to_string(),
            reason: shown.reason.to_owned(),
            owner: shown.owner.to_owned(),
            by: shown.by.to_owned(),
            since: plain::date(&shown.since),
            until: shown.until.map_or_else(|| "no end set".to_owned(), |until| plain::date(&until)),
        }
    }
}

impl Asker {
    fn of(seen: &Seen, board: &Board, now: Moment) -> Self {
        let answers = board.service(&seen.key.service).map(|service| service.answers());
        let current = answers.filter(|answers| answers.verdict.seq == seen.told);
        let told = match &current {
            Some(answers) => format!("{}, which holds now", word(&answers.verdict).1),
            None => format!("{}, which has changed since", seen.state.as_str()),
        };
        let current = current.is_some();
        Self {
            class: if seen.lost || !current { "mild" } else { "good" },
            peer: seen.key.peer.map_or_else(|| "a Unix socket".to_owned(), |peer| peer.to_string()),
            listener: seen.key.listener,
            service: seen.key.service.to_string(),
            rate: match seen.interval {
                Some(interval) => format!("every {}", plain::span(interval)),
                None => "once so far".to_owned(),
            },
            last: {
                let ago = plain::ago(now.since(seen.last));
                if seen.lost { format!("{ago}: it has stopped asking") } else { ago }
            },
            told,
        }
    }
}

impl Gate {
    fn of(gate: &GateStatus) -> Self {
        let now = match (&gate.trouble, gate.open) {
            (Some(trouble), _) => trouble.clone(),
            (None, true) => "open".to_owned(),
            (None, false) => "closed".to_owned(),
        };
        Self {
            class: if gate.open { "good" } else { "bad" },
            name: gate.name.clone(),
            address: gate.address.clone(),
            service: gate.service.clone(),
            when_bad: match gate.when_bad {
                WhenBad::Close => "closes",
                WhenBad::RefuseUri => "refuses /uri",
                WhenBad::RefuseWrites => "refuses writes",
                WhenBad::Pass => "passes all",
            },
            now,
            connections: gate.connections,
            refused: gate.refused,
        }
    }
}
