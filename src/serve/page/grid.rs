//! The grid as the last good look saw it: introducers, and the storage servers, worst first.

use std::cmp::Reverse;
use std::time::Duration;

use super::plain;
use crate::board::{Board, NodeView};
use crate::health::{Moment, Server, Since};

/// The most servers that are shown; a page stays one that a telephone can show.
const ROWS: usize = 100;
/// What was lost within this time was lost by one cause.
const TOGETHER: Duration = Duration::from_secs(30);
/// The most servers of those that are named.
const NAMED: usize = 3;

pub(super) struct Grid {
    pub(super) introducers: String,
    /// What is known of the servers as a whole.
    pub(super) summary: String,
    pub(super) rows: Vec<Row>,
    /// How many more there are.
    pub(super) left: usize,
}

pub(super) struct Row {
    pub(super) class: &'static str,
    pub(super) nickname: String,
    pub(super) id: String,
    pub(super) state: &'static str,
    pub(super) since: String,
    pub(super) space: String,
    pub(super) heard: String,
}

impl Grid {
    pub(super) fn of(board: &Board, view: &NodeView, now: Moment) -> Self {
        let mut servers: Vec<(&Server, Since)> = view.servers().collect();
        let total = servers.len();
        let usable = servers.iter().filter(|(server, _)| is_usable(server)).count();
        servers.sort_by_cached_key(|(server, since)| {
            (is_usable(server), Reverse(when(*since)), Reverse(server.silent), server.id.clone())
        });
        let summary = match view.seen {
            None => "No look at the node has succeeded yet, so no storage server is known.".into(),
            Some(_) if total == 0 => "The node knows no storage server.".into(),
            Some(_) => {
                format!("{usable} of {total} known storage servers can be used, worst first")
            }
        };
        let aged = view.seen.map_or(Duration::ZERO, |seen| now.since(seen));
        let row = |(server, since)| Row::of(server, since, aged, now, board);
        Self {
            introducers: introducers(view),
            summary,
            left: total.saturating_sub(ROWS),
            rows: servers.into_iter().take(ROWS).map(row).collect(),
        }
    }
}

fn is_usable(server: &Server) -> bool {
    server.is_usable(1, None)
}

const fn when(since: Since) -> Moment {
    match since {
        Since::Changed(at) | Since::Before(at) => at,
    }
}

fn introducers(view: &NodeView) -> String {
    let Some(seen) = view.facts.as_ref().map(|facts| facts.introducers) else {
        return "Nothing is known of its introducers yet.".to_owned();
    };
    match seen.configured {
        0 => "The node has no introducer configured, so it learns of no new storage server."
            .to_owned(),
        all => format!("{} of {all} introducers connected.", seen.connected),
    }
}

impl Row {
    /// `aged` is how long ago the server was seen so.
    fn of(server: &Server, since: Since, aged: Duration, now: Moment, board: &Board) -> Self {
        let trouble = server.trouble(1, None);
        Self {
            class: if trouble.is_none() { "good" } else { "bad" },
            nickname: match &*server.nickname {
                "" => "no name".to_owned(),
                nickname => plain::name(nickname),
            },
            id: plain::name(&server.id),
            state: trouble.unwrap_or("usable"),
            since: match since {
                Since::Changed(at) => plain::ago(now.since(at)),
                Since::Before(at) => format!("before {}", plain::time(board.clock, at)),
            },
            heard: server.silent.map_or_else(|| "never".into(), |time| plain::ago(time + aged)),
            space: server.space.map_or_else(|| "not said".to_owned(), plain::bytes),
        }
    }
}

/// Which servers were lost last, and when; nothing where no loss was seen that still lasts.
pub(super) fn lost(view: &NodeView, now: Moment) -> Option<String> {
    let mut lost: Vec<(Moment, &Server)> = view
        .servers()
        .filter(|(server, _)| !is_usable(server))
        .filter_map(|(server, since)| match since {
            Since::Changed(at) => Some((at, server)),
            Since::Before(_) => None,
        })
        .collect();
    lost.sort_by(|(one, a), (two, b)| (two, &a.id).cmp(&(one, &b.id)));
    let last = lost.first()?.0;
    let together = lost.iter().take_while(|(at, _)| last.since(*at) <= TOGETHER).count();
    let named = together.min(NAMED);
    let mut names: Vec<String> =
        lost.iter().take(named).map(|(_, server)| called(server)).collect();
    if together > named {
        names.push(format!("{} more", together - named));
    }
    let names = match names.split_last() {
        Some((last, [_, ..])) => {
            format!("{} and {last}", names.get(..names.len() - 1).unwrap_or_default().join(", "))
        }
        _ => names.join(""),
    };
    let earlier = match lost.len() - together {
        0 => String::new(),
        more => format!(", {more} earlier"),
    };
    Some(format!("lost {names} {}{earlier}", plain::ago(now.since(last))))
}

/// A server's name, or else the beginning of its id.
fn called(server: &Server) -> String {
    match &*server.nickname {
        "" => server.id.get(..11).unwrap_or(&server.id).to_owned(),
        nickname => plain::name(nickname),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{Facts, Link};

    fn secs(secs: u64) -> Moment {
        Moment::after_epoch(Duration::from_secs(secs))
    }

    /// What is said at second 300 of servers with these names, lost at these times; those at 0 were never seen in use.
    fn said(servers: &[(&str, Option<u64>)]) -> Option<String> {
        let server = |(n, (nickname, lost)): (usize, &(&str, Option<u64>))| Server {
            id: format!("v0-{n}-and-so-on").into(),
            nickname: (*nickname).into(),
            link: if lost.is_some() { Link::Refused } else { Link::Connected },
            versioned: true,
            space: None,
            silent: Some(Duration::ZERO),
            silence_limit: Duration::from_secs(10),
        };
        let since = |(_, lost): &(&str, Option<u64>)| match lost {
            Some(0) | None => Since::Before(secs(0)),
            Some(at) => Since::Changed(secs(*at)),
        };
        let facts =
            Facts { servers: servers.iter().enumerate().map(server).collect(), ..Facts::default() };
        let since = servers.iter().map(since).collect();
        lost(&NodeView { facts: Some(facts), since, ..NodeView::default() }, secs(300))
    }

    #[test]
    fn the_last_loss_is_told_with_its_names() {
        assert_eq!(said(&[("a", None), ("b", Some(0))]), None);
        assert_eq!(said(&[("a", Some(180))]).unwrap(), "lost a 2 min ago");
        let two = said(&[("store3", Some(180)), ("x", None), ("store7", Some(170))]);
        assert_eq!(two.unwrap(), "lost store3 and store7 2 min ago");
        let many = said(&[("", Some(300)), ("b", Some(300)), ("c", Some(290)), ("d", Some(280))]);
        assert_eq!(many.unwrap(), "lost v0-0-and-so, b, c and 1 more just now");
        assert_eq!(
            said(&[("a", Some(10)), ("b", Some(20)), ("c", Some(290))]).unwrap(),
            "lost c 10 s ago, 2 earlier"
        );
    }
}
