//! The status page, `GET /?t=json`: from its bytes to facts.
//!
//! The page answers 200 in every state of the grid, so all depends on reading it exactly: fields
//! that are not needed may come and go, a missing one that is needed is an error, never a zero, and
//! a word that is not known counts as not connected.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::ages::Ages;
use crate::health::{Facts, FailureKind, Introducers, Link, Moment, ProbeFailure, Server};

/// What reading needs beside the bytes: the clocks, and what was read before.
#[derive(Debug)]
pub(super) struct Reader {
    ages: Ages,
    foolscap_silence: Duration,
}

/// A server that speaks HTTP is polled by the node every second; see `Reader::new` for foolscap.
const HTTP_SILENCE: Duration = Duration::from_secs(10);

impl Reader {
    /// A reader for a node whose foolscap connections ping after `keepalive` of silence. A healthy
    /// one may be silent for twice that; what is beyond means that the other side is gone.
    pub(super) fn new(keepalive: Duration) -> Self {
        let foolscap_silence = keepalive.saturating_mul(2).saturating_add(Duration::from_secs(20));
        Self { ages: Ages::default(), foolscap_silence }
    }

    /// Reads a page that arrived at `now`, when the wall clock said `wall` seconds.
    pub(super) fn read(
        &mut self,
        page: &[u8],
        now: Moment,
        wall: f64,
    ) -> Result<Facts, ProbeFailure> {
        let page = Page::split(page)?;
        let introducers: RawIntroducers<'_> = Page::part("introducers", page.introducers)?;
        let servers: Vec<RawServer<'_>> = Page::part("servers", page.servers)?;
        let mut servers: Vec<Server> =
            servers.iter().map(|server| self.server(server, now, wall)).collect();
        self.ages.end_page();
        servers.sort_by(|a, b| a.id.cmp(&b.id));
        let connected = introducers.statuses.iter().filter(|s| link(s) == Link::Connected).count();
        let configured = introducers.statuses.len();
        Ok(Facts { introducers: Introducers { connected, configured }, servers })
    }

    fn server(&mut self, raw: &RawServer<'_>, now: Moment, wall: f64) -> Server {
        let foolscap = raw.connection_status.starts_with("Connected ");
        Server {
            id: raw.nodeid.as_ref().into(),
            nickname: raw.nickname.as_deref().unwrap_or_default().into(),
            link: link(&raw.connection_status),
            versioned: raw.version.is_some(),
            space: raw.available_space,
            silent: raw.last_received_data.map(|at| self.ages.age(&raw.nodeid, at, now, wall)),
            silence_limit: if foolscap { self.foolscap_silence } else { HTTP_SILENCE },
        }
    }
}

/// The page, taken apart just far enough to see whose it is.
#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    introducers: Option<&'a RawValue>,
    #[serde(borrow)]
    servers: Option<&'a RawValue>,
}

impl<'a> Page<'a> {
    fn split(page: &'a [u8]) -> Result<Self, ProbeFailure> {
        let bad_json = || ProbeFailure::new(FailureKind::BadJson, "the status page is not JSON");
        let not_tahoe = || {
            let text = "what answers speaks JSON, but is not a Tahoe-LAFS gateway";
            ProbeFailure::new(FailureKind::NotTahoe, text)
        };
        let value: &RawValue = serde_json::from_slice(page).map_err(|_| bad_json())?;
        if !value.get().starts_with('{') {
            return Err(not_tahoe());
        }
        let page: Self = serde_json::from_str(value.get()).map_err(|_| {
            ProbeFailure::new(FailureKind::BadShape, "the status page names something twice")
        })?;
        if page.introducers.is_none() && page.servers.is_none() {
            return Err(not_tahoe());
        }
        Ok(page)
    }

    fn part<T: Deserialize<'a>>(name: &str, part: Option<&'a RawValue>) -> Result<T, ProbeFailure> {
        let bad = |what: &str| {
            ProbeFailure::new(FailureKind::BadShape, format!("the status page's {name} {what}"))
        };
        let part = part.ok_or_else(|| bad("are missing"))?;
        serde_json::from_str(part.get()).map_err(|_| bad("lack something that is needed"))
    }
}

#[derive(Deserialize)]
struct RawIntroducers<'a> {
    #[serde(borrow)]
    statuses: Vec<Cow<'a, str>>,
}

/// One server. `deserialize_with` makes a field that may be null one that may not be missing.
#[derive(Deserialize)]
struct RawServer<'a> {
    #[serde(borrow)]
    nodeid: Cow<'a, str>,
    #[serde(borrow)]
    connection_status: Cow<'a, str>,
    #[serde(borrow, default)]
    nickname: Option<Cow<'a, str>>,
    #[serde(borrow, deserialize_with = "nullable")]
    version: Option<Cow<'a, str>>,
    #[serde(deserialize_with = "nullable")]
    available_space: Option<u64>,
    #[serde(deserialize_with = "nullable")]
    last_received_data: Option<f64>,
}

fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de>>(d: D) -> Result<Option<T>, D::Error> {
    Option::deserialize(d)
}

/// The node's words for a connection, in both protocols, reduced to one of ours.
fn link(status: &str) -> Link {
    match status {
        // Storage over HTTP.
        "connected" => Link::Connected,
        "unstarted" => Link::Unstarted,
        "Trying to connect" => Link::Connecting,
        _ if status.starts_with("Connected to ") || status.starts_with("Connected via ") => {
            Link::Connected
        }
        _ if status.starts_with("Reconnecting in ") => Link::Waiting,
        // Storage over HTTP, with a traceback: only the error's own class says something.
        _ if status.starts_with("failure: ") => {
            let class = status.split_once("<class '").and_then(|(_, rest)| rest.split_once("'>"));
            match class.and_then(|(class, _)| class.rsplit('.').next()) {
                Some("ConnectionRefusedError") => Link::Refused,
                Some(
                    "ResponseNeverReceived"
                    | "ConnectingCancelledError"
                    | "CancelledError"
                    | "TimeoutError"
                    | "TCPTimedOutError",
                ) => Link::Unanswered,
                _ => Link::Failed,
            }
        }
        _ => Link::Unrecognised,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"introducers": {"statuses": ["Connected to tcp:h:1 via tcp"]},
        "servers": [{"nodeid": "v0-b", "connection_status": "connected", "available_space": 5,
          "nickname": "n", "version": "tahoe-lafs/1.20.0", "last_received_data": 999.5, "new": []},
         {"nodeid": "v0-a", "connection_status": "unstarted", "available_space": null,
          "version": null, "last_received_data": null}], "later": {}}"#;

    fn read(page: &str) -> Result<Facts, FailureKind> {
        let mut reader = Reader::new(Duration::from_mins(4));
        reader.read(page.as_bytes(), Moment::default(), 1000.0).map_err(|failure| failure.kind)
    }

    #[test]
    fn a_page_becomes_facts_in_the_order_of_ids() {
        let facts = read(GOOD).unwrap();
        assert_eq!((facts.introducers.connected, facts.introducers.configured), (1, 1));
        let [a, b] = &facts.servers[..] else { panic!("two servers") };
        assert_eq!(
            (&*a.id, a.link, a.versioned, a.space, a.silent),
            ("v0-a", Link::Unstarted, false, None, None)
        );
        assert_eq!(b.silent, Some(Duration::from_millis(500)));
        assert!(b.is_usable(1, None) && !a.is_usable(0, None));
    }

    #[test]
    fn nothing_that_is_needed_may_be_missing() {
        for field in
            ["nodeid", "connection_status", "available_space", "version", "last_received_data"]
        {
            let page = GOOD.replacen(field, "renamed", 1);
            assert_eq!(read(&page), Err(FailureKind::BadShape), "{field}");
        }
        for (from, to) in [
            ("\"introducers\"", "\"intruders\""),
            ("\"servers\"", "\"waiters\""),
            ("\"statuses\"", "\"stati\""),
            ("\"connected\"", "7"),
            ("\"available_space\": 5", "\"available_space\": \"5\""),
            ("\"available_space\": 5", "\"available_space\": -5"),
            ("\"later\"", "\"servers\""),
        ] {
            assert_eq!(read(&GOOD.replacen(from, to, 1)), Err(FailureKind::BadShape), "{from}");
        }
    }

    #[test]
    fn other_answers_are_told_apart() {
        for (page, kind) in [
            ("", FailureKind::BadJson),
            ("<!DOCTYPE html>", FailureKind::BadJson),
            (&GOOD[..GOOD.len() / 2], FailureKind::BadJson),
            ("[1, 2]", FailureKind::NotTahoe),
            ("null", FailureKind::NotTahoe),
            (r#" {"subscription_summary": {}}"#, FailureKind::NotTahoe),
            (&"[".repeat(100_000), FailureKind::BadJson),
        ] {
            assert_eq!(read(page), Err(kind));
        }
        let mut reader = Reader::new(Duration::ZERO);
        let failure = reader.read(b"\xff\xfe{}", Moment::default(), 0.0).unwrap_err();
        assert_eq!(failure.kind, FailureKind::BadJson);
    }

    #[test]
    fn every_form_of_status_is_known() {
        for (status, expected) in [
            ("connected", Link::Connected),
            ("Connected to tcp:127.0.0.1:21011 via tcp", Link::Connected),
            ("Connected via listener (tcp)", Link::Connected),
            ("Connected", Link::Unrecognised),
            ("disconnected", Link::Unrecognised),
            ("Trying to connect", Link::Connecting),
            ("Reconnecting in 0 seconds (last attempt 2s ago)", Link::Waiting),
            ("Reconnecting in -1 seconds (last attempt 2s ago)", Link::Waiting),
            ("unstarted", Link::Unstarted),
            (
                "failure: [Failure instance: Traceback: <class 'twisted.internet.error.ConnectionRefusedError'>: no\n/x/y.py\n]",
                Link::Refused,
            ),
            (
                "failure: [Failure instance: Traceback: <class 'twisted.web._newclient.ResponseNeverReceived'>: [...]]",
                Link::Unanswered,
            ),
            ("failure: something new", Link::Failed),
        ] {
            assert_eq!(link(status), expected, "{status}");
        }
    }

    #[test]
    fn silence_is_judged_by_the_protocol() {
        let facts = read(&GOOD.replacen("999.5", "985", 1)).unwrap();
        assert!(!facts.servers[1].is_usable(0, None), "15 s of silence over HTTP");
        let foolscap = GOOD.replacen("\"connected\"", "\"Connected to tcp:h:2 via tcp\"", 1);
        assert!(read(&foolscap.replacen("999.5", "600", 1)).unwrap().servers[1].is_usable(0, None));
        assert!(
            !read(&foolscap.replacen("999.5", "499", 1)).unwrap().servers[1].is_usable(0, None)
        );
    }
}
