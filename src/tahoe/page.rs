//! The status page, `GET /?t=json`: from its bytes to facts.
//!
//! The page answers 200 in every state of the grid, so all depends on reading it exactly: fields
//! that are not needed may come and go, a missing one that is needed is an error, never a zero, and
//! a word that is not known counts as not connected.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::{self, IgnoredAny, MapAccess, SeqAccess, Visitor};
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
        let Bounded(servers): Bounded<RawServer<'_>> = Page::part("servers", page.servers)?;
        let mut servers: Vec<Server> =
            servers.into_iter().map(|server| self.server(server, now, wall)).collect();
        self.ages.end_page();
        servers.sort_by(|a, b| a.id.cmp(&b.id));
        // One that is listed twice is still one.
        servers.dedup_by(|a, b| a.id == b.id);
        let statuses = introducers.statuses.0;
        let connected = statuses.iter().filter(|s| link(s) == Link::Connected).count();
        let configured = statuses.len();
        let introducers = Introducers { connected, configured };
        Ok(Facts { introducers, servers, ..Facts::default() })
    }

    fn server(&mut self, raw: RawServer<'_>, now: Moment, wall: f64) -> Server {
        let id = first(&raw.nodeid, LONGEST_ID);
        Server {
            id: id.into(),
            nickname: raw.nickname,
            link: raw.connection_status.link,
            versioned: raw.version,
            space: raw.available_space,
            silent: raw.last_received_data.map(|at| self.ages.age(id, at, now, wall)),
            silence_limit: if raw.connection_status.foolscap {
                self.foolscap_silence
            } else {
                HTTP_SILENCE
            },
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
        serde_json::from_str(part.get())
            .map_err(|_| bad("lack something that is needed, or are too many"))
    }
}

#[derive(Deserialize)]
struct RawIntroducers<'a> {
    #[serde(borrow)]
    statuses: Bounded<Cow<'a, str>>,
}

/// A list of at most as many as any grid has, and more, so that no page becomes a large heap.
struct Bounded<T>(Vec<T>);

const MOST: usize = 4096;
/// In bytes; the node's are of 55.
const LONGEST_ID: usize = 128;
/// In bytes. Whoever runs a server chooses its name.
const LONGEST_NAME: usize = 256;

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Bounded<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
            type Value = Bounded<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MOST}")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Bounded<T>, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = seq.next_element()? {
                    if list.len() == MOST {
                        return Err(de::Error::invalid_length(MOST + 1, &self));
                    }
                    list.push(item);
                }
                Ok(Bounded(list))
            }
        }
        deserializer.deserialize_seq(List(PhantomData))
    }
}

/// One server. Every field but the name must be there; one of another type than it should have is
/// that server's own trouble, since a server's announcement must not take its gateways down.
#[derive(Deserialize)]
struct RawServer<'a> {
    #[serde(borrow)]
    nodeid: Cow<'a, str>,
    #[serde(deserialize_with = "status")]
    connection_status: Status,
    #[serde(default, deserialize_with = "nickname")]
    nickname: Box<str>,
    /// Whether it has one.
    #[serde(deserialize_with = "is_text")]
    version: bool,
    #[serde(deserialize_with = "space")]
    available_space: Option<u64>,
    #[serde(deserialize_with = "number")]
    last_received_data: Option<f64>,
}

/// A connection in the node's words.
struct Status {
    link: Link,
    foolscap: bool,
}

fn status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Status, D::Error> {
    let status = Loose::deserialize(deserializer)?;
    let status = status.text().unwrap_or_default();
    Ok(Status { link: link(status), foolscap: status.starts_with("Connected ") })
}

fn nickname<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<str>, D::Error> {
    let name = Loose::deserialize(deserializer)?;
    Ok(first(name.text().unwrap_or_default(), LONGEST_NAME).into())
}

fn is_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(Loose::deserialize(deserializer)?.text().is_some())
}

fn space<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(Loose::deserialize(deserializer)?.space())
}

fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    Ok(Loose::deserialize(deserializer)?.number())
}

/// At most so many bytes of it.
fn first(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or_default()
}

/// A value of whatever type.
#[derive(Default)]
enum Loose<'a> {
    #[default]
    Null,
    Whole(u64),
    Number(f64),
    Text(Cow<'a, str>),
    Other,
}

impl Loose<'_> {
    fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    #[expect(clippy::cast_precision_loss, reason = "seconds since the epoch are far below 2^52")]
    const fn number(&self) -> Option<f64> {
        match self {
            Self::Whole(n) => Some(*n as f64),
            Self::Number(n) => Some(*n),
            _ => None,
        }
    }

    /// Bytes of space: none said for null, none there for what is no number.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a cast from a float saturates: below zero is zero, beyond is the most"
    )]
    const fn space(&self) -> Option<u64> {
        match self {
            Self::Null => None,
            Self::Whole(n) => Some(*n),
            // A server that cannot tell its space announces 2^64.
            Self::Number(n) => Some(*n as u64),
            Self::Text(_) | Self::Other => Some(0),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Loose<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any<'a>(PhantomData<&'a str>);
        impl<'de: 'a, 'a> Visitor<'de> for Any<'a> {
            type Value = Loose<'a>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }
            fn visit_unit<E>(self) -> Result<Loose<'a>, E> {
                Ok(Loose::Null)
            }
            fn visit_bool<E>(self, _: bool) -> Result<Loose<'a>, E> {
                Ok(Loose::Other)
            }
            fn visit_u64<E>(self, n: u64) -> Result<Loose<'a>, E> {
                Ok(Loose::Whole(n))
            }
            #[expect(clippy::cast_precision_loss, reason = "a negative number, exact or not")]
            fn visit_i64<E>(self, n: i64) -> Result<Loose<'a>, E> {
                Ok(Loose::Number(n as f64))
            }
            fn visit_f64<E>(self, n: f64) -> Result<Loose<'a>, E> {
                Ok(Loose::Number(n))
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Loose<'a>, E> {
                Ok(Loose::Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Loose<'a>, E> {
                Ok(Loose::Text(Cow::Owned(text.to_owned())))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Loose<'a>, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Loose::Other)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Loose<'a>, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Loose::Other)
            }
        }
        deserializer.deserialize_any(Any(PhantomData))
    }
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
            ("\"v0-b\"", "7"),
            ("\"later\"", "\"servers\""),
        ] {
            assert_eq!(read(&GOOD.replacen(from, to, 1)), Err(FailureKind::BadShape), "{from}");
        }
    }

    /// A server announces these itself, so a strange one must not take its gateways down.
    #[test]
    fn a_value_of_another_type_is_its_servers_own_trouble() {
        let b = |from: &str, to: &str| {
            let page = GOOD.replacen(from, to, 1);
            assert_ne!(page, GOOD);
            read(&page).unwrap().servers.remove(1)
        };
        let space = "\"available_space\": 5";
        for (to, usable) in [
            ("18446744073709551616", true),
            ("1e12", true),
            ("-5", false),
            ("\"5\"", false),
            ("[5]", false),
        ] {
            let server = b(space, &format!("\"available_space\": {to}"));
            assert_eq!(server.is_usable(1, None), usable, "{to}");
        }
        assert_eq!(&*b("\"n\"", "{\"x\": [1]}").nickname, "");
        assert!(!b("\"tahoe-lafs/1.20.0\"", "7").versioned);
        assert_eq!(b("999.5", "\"now\"").silent, None);
        assert_eq!(b("\"connected\"", "true").link, Link::Unrecognised);
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
