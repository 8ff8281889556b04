//! `/v1/watch`: everything once, then each change, and heartbeats between.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;

use crate::lab::fake::{Answer, FakeNode};
use crate::lab::hcf::{Hcf, ask};
use crate::lab::http;
use crate::lab::process::Signal;
use crate::lab::wait::{LONG, wait_until};

/// One who watches.
pub(super) struct Watcher {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Watcher {
    pub(super) fn connect(hcf: &Hcf) -> Self {
        let mut stream = TcpStream::connect(hcf.status()).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.write_all(b"GET /v1/watch HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut watcher = Self { stream, read: Vec::new() };
        let head = watcher.until("\r\n\r\n").expect("a head");
        assert!(
            head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"),
            "{head}"
        );
        watcher
    }

    /// What comes up to and with `end`; `None` when the answer ends before.
    fn until(&mut self, end: &str) -> Option<String> {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|w| w == end.as_bytes()) {
                let text: Vec<u8> = self.read.drain(..at + end.len()).collect();
                return Some(String::from_utf8(text).unwrap());
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(n) => self.read.extend_from_slice(&bytes[..n]),
                Err(e) if e.kind() == ErrorKind::ConnectionReset => return None,
                Err(e) => panic!("{e}"),
            }
        }
    }

    /// The next event: its name and data.
    pub(super) fn event(&mut self) -> Option<(String, Value)> {
        let text = self.until("\n\n")?;
        let (name, data) = text.trim_end().split_once("\ndata: ").expect("two fields");
        let name = name.strip_prefix("event: ").expect("the name first").to_owned();
        Some((name, serde_json::from_str(data).expect("JSON in one line")))
    }

    /// The next service that goes down.
    fn down(&mut self) -> String {
        loop {
            let (_, change) = self.change().expect("it goes on");
            if change["state"] == "down" {
                return change["service"].as_str().unwrap().to_owned();
            }
        }
    }

    /// The next event that is no heartbeat.
    fn change(&mut self) -> Option<(String, Value)> {
        // A minute of heartbeats.
        for _ in 0..240 {
            match self.event() {
                Some((name, _)) if name == "fresh" => {}
                other => return other,
            }
        }
        panic!("nothing but heartbeats");
    }
}

fn config(node: &FakeNode, more: &str) -> String {
    let url = node.url();
    format!(
        "node: {{url: '{url}', every: 100ms, timeout: 500ms}}\nshutdown: {{announce: 0s}}\n\
         services: {{write: {{criteria: {{servers: {{min: 4}}}}}}, read: {{criteria: {{servers: {{min: 1}}}}}}{more}}}\n"
    )
}

/// A sidecar of this node that says it is up.
pub(super) fn start(node: &FakeNode) -> Hcf {
    let hcf = Hcf::configured(&config(node, ""), &[]);
    wait_until("up", LONG, || ask(hcf.agent(), "write\n").starts_with("up "));
    hcf
}

#[test]
fn a_watcher_hears_everything_then_each_change_and_heartbeats_between() {
    let node = FakeNode::healthy();
    let mut hcf = start(&node);
    let mut watcher = Watcher::connect(&hcf);
    let (name, all) = watcher.event().unwrap();
    assert_eq!((&*name, all["services"].as_object().unwrap().len()), ("verdicts", 2));
    assert_eq!(
        (&all["services"]["write"]["state"], &all["node"]["url"]),
        (&"up".into(), &node.url().into())
    );
    // Freshness is three looks and a timeout, 800 ms.
    assert_eq!(all["heartbeat_ms"], 266);
    assert!((1..=800).contains(&all["fresh_ms"].as_u64().unwrap()), "{all}");
    let requests = node.requests();
    for _ in 0..3 {
        let (name, beat) = watcher.event().unwrap();
        assert_eq!((&*name, beat["fresh_ms"].as_u64().is_some()), ("fresh", true));
    }
    assert!(node.requests() > requests, "looks go on by themselves");
    node.set(Answer::Grid { connected: 3, refused: 6 });
    let (name, change) = watcher.change().unwrap();
    assert_eq!(
        (&*name, &change["service"], &change["state"]),
        ("verdict", &"write".into(), &"down".into())
    );
    assert_eq!(change["reasons"][0]["criterion"], "servers");
    node.set(Answer::Grid { connected: 9, refused: 0 });
    let (_, change) = watcher.change().unwrap();
    assert_eq!((&change["service"], &change["state"]), (&"write".into(), &"up".into()));
    // The end is said before the connection ends.
    hcf.process().signal(Signal::Term);
    let ends: Vec<_> =
        std::iter::from_fn(|| watcher.change()).map(|(_, data)| data["state"].clone()).collect();
    assert!(ends.iter().all(|state| state == "drain"), "{ends:?}");
    assert!(hcf.process().wait_end(LONG).success());
}

#[test]
fn a_reload_that_changes_the_services_says_everything_again() {
    let node = FakeNode::healthy();
    let folder = crate::lab::place::folder("watch");
    let file = folder.path().join("hcf.yaml");
    std::fs::write(&file, config(&node, "")).unwrap();
    let mut hcf = Hcf::start(&["-c", &file.display().to_string()]);
    let mut watcher = Watcher::connect(&hcf);
    watcher.event().unwrap();
    std::fs::write(&file, config(&node, ", mine: {criteria: {servers: {min: 2}}}")).unwrap();
    hcf.process().signal(Signal::Hup);
    let all = loop {
        let (name, data) = watcher.event().unwrap();
        if name == "verdicts" {
            break data;
        }
    };
    assert!(all["services"]["mine"]["state"].is_string(), "{all}");
    wait_until("all to be up", LONG, || {
        ["read\n", "write\n", "mine\n"].iter().all(|q| ask(hcf.agent(), q).starts_with("up "))
    });
    // Too few servers for any of them.
    node.set(Answer::Grid { connected: 0, refused: 9 });
    let down: BTreeSet<String> = (0..3).map(|_| watcher.down()).collect();
    assert!(down.iter().eq(["mine", "read", "write"]), "{down:?}");
}

#[test]
fn watchers_are_bounded_and_leave_their_places() {
    let node = FakeNode::healthy();
    let hcf = start(&node);
    let watchers: Vec<_> = (0..64).map(|_| Watcher::connect(&hcf)).collect();
    let status = || http::head(hcf.status(), "/v1/watch").unwrap().status;
    assert_eq!(status(), 503);
    assert_eq!(http::get(hcf.status(), "/v1/watch").unwrap().status, 503);
    assert_eq!(http::get(hcf.status(), "/v1/status").unwrap().status, 200);
    drop(watchers);
    wait_until("their places to be free", LONG, || status() == 200);
    Watcher::connect(&hcf).event().unwrap();
}
