//! What happened lately, to say of a transition what changed just before it. Pure.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::record::{Before, Failures, Move};
use super::short;
use crate::board::NodeView;
use crate::health::{Facts, Moment, Server};

/// How far back it goes.
const LATELY: Duration = Duration::from_mins(10);
/// The most that is remembered, and the most that is said of one transition.
const REMEMBERED: usize = 64;
const SAID: usize = 12;

/// The last ten minutes.
#[derive(Debug, Default)]
pub(super) struct Lately {
    moves: VecDeque<(Moment, Move)>,
    /// Moves that were forgotten to make room, while they were recent.
    more: u64,
    failures: VecDeque<(Moment, Failures)>,
    /// The last look that saw something.
    seen: Option<Arc<NodeView>>,
}

/// Whether the node can use it, as the status page means it.
pub(super) fn usable(server: &Server) -> bool {
    server.is_usable(1, None)
}

impl Lately {
    /// A look has finished.
    pub(super) fn look(&mut self, now: Moment, wall: SystemTime, view: &Arc<NodeView>) {
        self.forget(now);
        if let Some((code, text)) = &view.failure {
            self.failed(now, wall, code, text);
            // It shows what the last good one saw, and one of both is enough to keep.
            self.seen = Some(Arc::clone(view));
            return;
        }
        let Some(facts) = &view.facts else { return };
        let last = self.seen.as_ref().and_then(|seen| seen.facts.as_ref());
        for (server, lost) in last.map_or_else(Vec::new, |last| moves(last, facts)) {
            let moved = Move {
                at: wall,
                id: short(&server.id, 64),
                nickname: short(&server.nickname, 64),
                lost: lost.map(str::to_owned),
            };
            self.moves.push_front((now, moved));
        }
        while self.moves.len() > REMEMBERED {
            self.moves.pop_back();
            self.more += 1;
        }
        self.seen = Some(Arc::clone(view));
    }

    fn failed(&mut self, now: Moment, wall: SystemTime, code: &str, text: &str) {
        let known = self.failures.iter_mut().find(|(_, known)| known.code == code);
        if let Some((last, known)) = known {
            *last = now;
            (known.text, known.last) = (short(text, 300), wall);
            known.count += 1;
        } else {
            let (code, text) = (code.to_owned(), short(text, 300));
            self.failures.push_back((now, Failures { code, text, count: 1, last: wall }));
        }
    }

    fn forget(&mut self, now: Moment) {
        let recent = |at: &Moment| now.since(*at) <= LATELY;
        while self.moves.back().is_some_and(|(at, _)| !recent(at)) {
            self.moves.pop_back();
            self.more = 0;
        }
        // Of a failure that goes on, the count goes on, too.
        self.failures.retain(|(at, _)| recent(at));
    }

    /// What to say of a transition now.
    pub(super) fn before(&mut self, now: Moment) -> Before {
        self.forget(now);
        let moves: Vec<Move> =
            self.moves.iter().take(SAID).map(|(_, moved)| moved.clone()).collect();
        Before {
            more: self.more + (self.moves.len() - moves.len()) as u64,
            moves,
            failures: self.failures.iter().map(|(_, failures)| failures.clone()).collect(),
        }
    }
}

/// Servers that were lost, with why, or came. Both have them in the order of their ids.
fn moves<'a>(last: &'a Facts, next: &'a Facts) -> Vec<(&'a Server, Option<&'static str>)> {
    let mut moves = Vec::new();
    let (mut old, mut new) = (last.servers.iter().peekable(), next.servers.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return moves,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.id.cmp(&new.id),
        };
        let was = if order.is_le() { old.next() } else { None };
        let is = if order.is_ge() { new.next() } else { None };
        match (was.filter(|server| usable(server)), is.filter(|server| usable(server))) {
            (Some(was), None) => {
                let why = is.and_then(|server| server.trouble(1, None));
                moves.push((was, Some(why.unwrap_or("not known any more"))));
            }
            (None, Some(is)) => moves.push((is, None)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Link;

    fn at(secs: u64) -> (Moment, SystemTime) {
        let passed = Duration::from_secs(secs);
        (Moment::after_epoch(passed), SystemTime::UNIX_EPOCH + passed)
    }

    /// A look at servers of these ids, of which those in capitals are refused.
    fn seen(ids: &str) -> Arc<NodeView> {
        let server = |id: char| Server {
            id: id.to_ascii_lowercase().to_string().into(),
            nickname: "".into(),
            link: if id.is_lowercase() { Link::Connected } else { Link::Refused },
            versioned: true,
            space: Some(1),
            silent: Some(Duration::ZERO),
            silence_limit: Duration::from_secs(10),
        };
        let facts = Facts { servers: ids.chars().map(server).collect(), ..Facts::default() };
        Arc::new(NodeView { facts: Some(facts), ..NodeView::default() })
    }

    fn said(before: &Before) -> Vec<(&str, Option<&str>)> {
        before.moves.iter().map(|moved| (&*moved.id, moved.lost.as_deref())).collect()
    }

    #[test]
    fn servers_that_are_lost_and_come_are_told_apart_from_those_that_stay() {
        let mut lately = Lately::default();
        let (now, wall) = at(0);
        for ids in ["abC", "aBc", "acd"] {
            lately.look(now, wall, &seen(ids));
        }
        // The first look is where it begins, and what was refused and is gone was lost before.
        assert_eq!(said(&lately.before(now)), [("d", None), ("c", None), ("b", Some("refused"))]);
        lately.look(now, wall, &seen("ad"));
        assert_eq!(said(&lately.before(now))[0], ("c", Some("not known any more")));
    }

    #[test]
    fn a_failure_is_no_loss_of_servers_and_what_is_long_ago_is_forgotten() {
        let mut lately = Lately::default();
        lately.look(at(0).0, at(0).1, &seen("ab"));
        let failure = Some(("timeout", "no answer within 1s".to_owned()));
        let failed =
            Arc::new(NodeView { failure, facts: seen("ab").facts.clone(), ..NodeView::default() });
        lately.look(at(1).0, at(1).1, &failed);
        lately.look(at(2).0, at(2).1, &failed);
        lately.look(at(3).0, at(3).1, &seen("a"));
        let before = lately.before(at(4).0);
        assert_eq!(said(&before), [("b", Some("not known any more"))]);
        assert_eq!((&*before.failures[0].code, before.failures[0].count), ("timeout", 2));
        assert_eq!(lately.before(at(3 + 601).0), Before::default());
    }

    #[test]
    fn a_grid_that_flaps_takes_no_more_room_than_it_may() {
        let mut lately = Lately::default();
        for round in 0..200 {
            lately.look(at(round).0, at(round).1, &seen(if round % 2 == 0 { "abcd" } else { "a" }));
        }
        assert_eq!(lately.moves.len(), REMEMBERED);
        let before = lately.before(at(200).0);
        assert_eq!((before.moves.len() as u64 + before.more, before.moves.len()), (199 * 3, SAID));
    }
}
