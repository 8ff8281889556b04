//! The health listener: `/health`, `/livez`, `/readyz` and nothing else, so that it can be open to
//! balancers. The agent listener answers the same paths on its own port.

use std::sync::Arc;

use serde_json::json;

use super::accept::Peer;
use super::http::{Reply, Site};
use crate::board::{Answers, Board};

/// Answers health checks.
#[derive(Debug)]
pub struct HealthSite {
    /// What is known.
    pub board: Arc<Board>,
    /// The listener's name.
    pub listener: &'static str,
}

/// What a path asks for.
#[derive(Debug)]
pub(super) enum Found {
    /// A service's health; the flag asks for a drain to look like one to HAProxy.
    Service(Arc<Answers>, bool),
    /// Whether a slot of a service's weight is to be used.
    Slot(Arc<Answers>, bool),
    /// Whether the sidecar runs.
    Alive,
    /// Whether the sidecar is ready.
    Ready(bool),
    /// No such path; 503 for those who would take 404 for a drain.
    Nothing(u16),
    /// No such service, likewise.
    NoService(u16),
}

impl Found {
    /// Finds what `path` asks for.
    pub(super) fn at(board: &Board, path: &str, query: &str) -> Self {
        match path {
            "/livez" => return Self::Alive,
            "/readyz" => return Self::Ready(board.is_ready()),
            _ => {}
        }
        let drain_404 = query.split('&').any(|pair| pair == "drain=404");
        let status = if drain_404 { 503 } else { 404 };
        let nothing = Self::Nothing(status);
        let Some(rest) = path.strip_prefix("/health") else { return nothing };
        let mut parts = rest.split('/').skip(1);
        let name = parts.next().unwrap_or_default();
        if !rest.is_empty() && (name.is_empty() || !rest.starts_with('/')) {
            return nothing;
        }
        let Some(service) = board.service(name) else {
            return Self::NoService(status);
        };
        let answers = service.answers();
        match [(); 5].map(|()| parts.next()) {
            [None, ..] => Self::Service(answers, drain_404),
            [Some("slot"), Some(slot), Some("of"), Some(slots), None] => {
                match used(&answers, slot, slots) {
                    Some(used) => Self::Slot(answers, used),
                    None => nothing,
                }
            }
            _ => nothing,
        }
    }

    /// Notes who is told this.
    pub(super) fn note(&self, board: &Board, listener: &'static str, peer: Peer) {
        match self {
            Self::Service(answers, _) | Self::Slot(answers, _) => {
                board.told(listener, peer, answers);
            }
            Self::NoService(_) => board.counts.asked_for_nothing(listener),
            Self::Alive | Self::Ready(_) | Self::Nothing(_) => {}
        }
    }

    /// The status of the answer.
    pub(super) fn status(&self) -> u16 {
        match self {
            Self::Service(answers, true) => answers.words.health.drain_404.1,
            Self::Service(answers, false) => answers.words.health.status,
            Self::Alive | Self::Slot(_, true) | Self::Ready(true) => 200,
            Self::Slot(_, false) | Self::Ready(false) => 503,
            Self::Nothing(status) | Self::NoService(status) => *status,
        }
    }

    fn reply(&self) -> Reply {
        let status = self.status();
        let word = if status == 200 { "pass" } else { "fail" };
        match self {
            Self::Service(answers, true) => answers.words.health.drain_404.0.clone(),
            Self::Service(answers, false) => answers.words.health.reply.clone(),
            Self::Nothing(404) | Self::NoService(404) => {
                Reply::not_found("no such service or path")
            }
            Self::Nothing(_) | Self::NoService(_) => {
                Reply::json(status, &json!({"status": word, "output": "no such service"}))
            }
            Self::Alive | Self::Slot(..) | Self::Ready(_) => {
                Reply::json(status, &json!({"status": word}))
            }
        }
    }
}

/// Whether slot `slot` of `slots` is within the service's weight; `None` for senseless numbers.
fn used(answers: &Answers, slot: &str, slots: &str) -> Option<bool> {
    let number = |text: &str| -> Option<u32> {
        let plain = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
        text.parse().ok().filter(|_| plain)
    };
    let (slot, slots) = (number(slot)?, number(slots)?);
    if slots > 100 || slot > slots {
        return None;
    }
    let within = |percent: u8| {
        let rounded = (u32::from(percent) * slots + 50) / 100;
        slot <= rounded.max(1)
    };
    Some(answers.words.health.percent.is_some_and(within))
}

impl Site for HealthSite {
    fn get(&self, path: &str, query: &str, peer: Peer) -> Reply {
        let found = Found::at(&self.board, path, query);
        found.note(&self.board, self.listener, peer);
        found.reply()
    }
}
