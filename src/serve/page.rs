//! The status page for a person: what is wrong, since when, and why, at the top; everything else below.
//!
//! It needs no script and no other host, and whatever comes from the network is escaped by the template.

use std::time::Duration;

use askama::Template;

use super::http::Reply;
use super::status::Status;
use crate::board::Board;
use crate::health::{Facts, Moment, Server, State};

/// Nothing but the style sheet of this server, and nobody may frame it.
const POLICY: (&str, &str) = (
    "Content-Security-Policy",
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);
const NO_SNIFF: (&str, &str) = ("X-Content-Type-Options", "nosniff");
const NO_REFERRER: (&str, &str) = ("Referrer-Policy", "no-referrer");

/// The most servers that are shown, worst first; a page stays one that a telephone can show.
const SERVERS: usize = 200;

/// The page.
pub(super) fn page(board: &Board, status: &Status) -> Reply {
    let html = Page::of(board, status).render().unwrap_or_default();
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
    services: Vec<Service>,
    overrides: Vec<String>,
    notes: Vec<String>,
    askers: Vec<Asker>,
    gates: Vec<Gate>,
    introducers: String,
    servers: Vec<ServerRow>,
    servers_summary: String,
    servers_left: usize,
    identity: String,
}

struct Service {
    name: String,
    class: &'static str,
    word: String,
    up: bool,
    weight: u8,
    why: String,
    since: String,
    ago: String,
    checks: Vec<Check>,
}

struct Check {
    class: &'static str,
    name: String,
    result: String,
    text: String,
}

struct Asker {
    class: &'static str,
    peer: String,
    listener: &'static str,
    service: String,
    every: String,
    last: String,
    knows: &'static str,
}

struct Gate {
    class: &'static str,
    name: String,
    address: String,
    service: String,
    when_bad: String,
    now: String,
    connections: usize,
    refused: u64,
}

struct ServerRow {
    class: &'static str,
    nickname: String,
    id: String,
    state: String,
    heard: String,
    space: String,
}

impl Page {
    fn of(board: &Board, status: &Status) -> Self {
        let now = board.clock.now();
        let view = std::sync::Arc::clone(&board.node.borrow());
        let facts = view.facts.clone().unwrap_or_default();
        let name = if status.node.nickname.is_empty() { "node" } else { &status.node.nickname };
        let services: Vec<Service> = board
            .table()
            .services
            .iter()
            .map(|service| Service::of(&service.name, &service.answers().verdict, now, board))
            .collect();
        let headline = services
            .iter()
            .map(|service| format!("{} {}", service.name, service.word))
            .collect::<Vec<_>>()
            .join(", ");
        let mut rows: Vec<&Server> = facts.servers.iter().collect();
        rows.sort_by_key(|server| {
            (server.is_usable(1, None), std::cmp::Reverse(server.silent), server.id.clone())
        });
        let usable = rows.iter().filter(|server| server.is_usable(1, None)).count();
        Self {
            headline,
            name: name.to_owned(),
            node: node(status, now, view.finished),
            services,
            overrides: status.overrides.iter().map(ToString::to_string).collect(),
            notes: status.notes.clone(),
            askers: status.askers.iter().map(Asker::of).collect(),
            gates: status.gates.iter().map(Gate::of).collect(),
            introducers: introducers(&facts),
            servers_summary: format!(
                "{usable} of {} known storage servers can be used, worst first",
                rows.len()
            ),
            servers_left: rows.len().saturating_sub(SERVERS),
            servers: rows.into_iter().take(SERVERS).map(ServerRow::of).collect(),
            identity: format!(
                "hcf {}, commit {}, configuration {}, started {}",
                status.version,
                status.commit.unwrap_or("unknown"),
                status.config_hash,
                status.started
            ),
        }
    }
}

/// Where the node is, and how the last look at it went.
fn node(status: &Status, now: Moment, finished: Option<Moment>) -> String {
    let url = &status.node.url;
    let ago = finished.map_or_else(|| "not looked at yet".to_owned(), |at| ago(now.since(at)));
    match (&status.node.failure, status.node.answer_ms) {
        (Some(failure), _) => format!("{url}: {}, {ago}", failure.text),
        (None, Some(ms)) => format!("{url} answered in {ms:.1} ms, {ago}"),
        (None, None) => format!("{url}, {ago}"),
    }
}

fn introducers(facts: &Facts) -> String {
    let seen = facts.introducers;
    match seen.configured {
        0 => "The node has no introducer configured, so it learns of no new storage server."
            .to_owned(),
        all => format!("{} of {all} introducers connected.", seen.connected),
    }
}

impl Service {
    fn of(name: &str, verdict: &crate::health::Verdict, now: Moment, board: &Board) -> Self {
        let (class, word) = match verdict.state {
            State::Up if verdict.forced => ("mild", "up, forced".to_owned()),
            State::Up if verdict.degraded => ("mild", "degraded".to_owned()),
            State::Up => ("good", "up".to_owned()),
            State::Drain => ("mild", "drain".to_owned()),
            state => ("bad", state.as_str().to_owned()),
        };
        let reasons: Vec<&str> = verdict.reasons.iter().map(|reason| &*reason.text).collect();
        let why =
            if reasons.is_empty() { "All is well.".to_owned() } else { reasons.join("; ") + "." };
        let checks = verdict.findings.iter().map(|finding| Check {
            class: match (finding.pass, finding.otherwise) {
                (true, _) => "good",
                (false, crate::health::Else::Down) => "bad",
                (false, _) => "mild",
            },
            name: finding.criterion.to_owned(),
            result: if finding.pass {
                "pass".to_owned()
            } else {
                format!("{:?}", finding.otherwise).to_lowercase()
            },
            text: finding.text.clone(),
        });
        let parts = verdict.parts.iter().map(|part| Check {
            class: if part.percent < 100 { "mild" } else { "good" },
            name: format!("weight by {}", part.name),
            result: format!("{} %", part.percent),
            text: part.text.clone(),
        });
        Self {
            name: name.to_owned(),
            class,
            word,
            up: verdict.state == State::Up,
            weight: verdict.weight.percent(),
            why,
            since: board.clock.rfc3339(verdict.since),
            ago: ago(now.since(verdict.since)),
            checks: checks.chain(parts).collect(),
        }
    }
}

impl Asker {
    fn of(asker: &super::status::AskerStatus) -> Self {
        Self {
            class: if asker.lost || !asker.current { "mild" } else { "good" },
            peer: asker.peer.clone(),
            listener: asker.listener,
            service: asker.service.clone(),
            every: match asker.every_ms {
                Some(ms) => format!(
                    "every {}",
                    span(Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX)))
                ),
                None => "once so far".to_owned(),
            },
            last: asker.last.clone(),
            knows: match (asker.lost, asker.current) {
                (true, _) => "it has stopped asking",
                (false, true) => "what holds now",
                (false, false) => "what held before",
            },
        }
    }
}

impl Gate {
    fn of(gate: &super::status::GateStatus) -> Self {
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
            when_bad: format!("{:?}", gate.when_bad),
            now,
            connections: gate.connections,
            refused: gate.refused,
        }
    }
}

impl ServerRow {
    fn of(server: &Server) -> Self {
        let trouble = server.trouble(1, None);
        Self {
            class: if trouble.is_none() { "good" } else { "bad" },
            nickname: server.nickname.to_string(),
            id: server.id.to_string(),
            state: trouble.unwrap_or("usable").to_owned(),
            heard: server.silent.map_or_else(|| "never".to_owned(), ago),
            space: server.space.map_or_else(|| "not said".to_owned(), bytes),
        }
    }
}

/// A time that has passed, as people say it.
fn ago(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        "just now".to_owned()
    } else {
        format!("{} ago", span(time))
    }
}

/// A span in its two largest units.
fn span(time: Duration) -> String {
    let secs = time.as_secs();
    match secs {
        0 => format!("{} ms", time.as_millis()),
        1..60 => format!("{secs} s"),
        60..3600 => format!("{} min {} s", secs / 60, secs % 60),
        3600..86_400 => format!("{} h {} min", secs / 3600, secs % 3600 / 60),
        _ => format!("{} d {} h", secs / 86_400, secs % 86_400 / 3600),
    }
}

/// A size in its largest binary unit.
fn bytes(size: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.iter().find(|(_, bits)| size >> bits > 0) {
        Some((unit, bits)) => {
            format!("{}.{} {unit}", size >> bits, (size >> (bits - 10) & 1023) * 10 / 1024)
        }
        None => format!("{size} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_short() {
        let said = |secs| span(Duration::from_secs(secs));
        assert_eq!(
            (said(59), said(61), said(3_700), said(200_000)),
            (
                "59 s".to_owned(),
                "1 min 1 s".to_owned(),
                "1 h 1 min".to_owned(),
                "2 d 7 h".to_owned()
            )
        );
        assert_eq!(
            (bytes(0), bytes(1536), bytes(5 << 40)),
            ("0 B".to_owned(), "1.5 KiB".to_owned(), "5.0 TiB".to_owned())
        );
    }
}
