//! The health and status listeners: statuses, headers and bodies, and connections that misbehave.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use crate::failures::status;
use crate::lab::fake::{Answer, FakeNode};
use crate::lab::hcf::Hcf;
use crate::lab::http::{Response, get, head, request};
use crate::lab::process::Signal;
use crate::lab::wait::{LONG, wait_until};

const CONFIG: &str = "
node: {every: 50ms, timeout: 400ms}
services:
  read: {criteria: {servers: {min: 2}}}
  write: {criteria: {servers: {min: 6}}}
  soft: {criteria: {servers: {min: 5, else: degrade}}, degraded_weight: 30}
  rest: {criteria: {servers: {min: 6, else: drain}}}
default_service: read
";

fn start() -> (FakeNode, Hcf) {
    let node = FakeNode::start(Answer::Grid { connected: 4, refused: 0 });
    let hcf = Hcf::configured(CONFIG, &["--node", &node.url()]);
    wait_until("up", LONG, || get(hcf.health(), "/health/read").unwrap().status == 200);
    (node, hcf)
}

#[test]
fn every_state_has_its_status_header_and_body() {
    let (_node, hcf) = start();
    let at = |path: &str| get(hcf.health(), path).unwrap();
    let degraded = |response: &Response| response.header("x-envoy-degraded").map(str::to_owned);
    let immediate = |response: &Response| {
        response.header("x-envoy-immediate-health-check-fail").map(str::to_owned)
    };
    let yes = Some("true".to_owned());
    for (path, code, is_degraded, is_immediate, word) in [
        ("/health", 200, None, None, "pass"),
        ("/health/read", 200, None, None, "pass"),
        ("/health/write", 503, None, None, "fail"),
        ("/health/soft", 200, yes.clone(), None, "warn"),
        ("/health/rest", 503, None, yes.clone(), "fail"),
        ("/health/rest?drain=404", 404, None, yes, "fail"),
        ("/health/write?drain=404", 503, None, None, "fail"),
        ("/health/read?drain=404", 200, None, None, "pass"),
    ] {
        let response = at(path);
        assert_eq!(response.status, code, "{path}");
        assert_eq!(
            (degraded(&response), immediate(&response)),
            (is_degraded, is_immediate),
            "{path}"
        );
        assert_eq!(response.header("content-type"), Some("application/health+json"), "{path}");
        let body = response.json();
        assert_eq!(body["status"], word, "{path}");
        assert_eq!(body["checks"]["servers"][0]["observedValue"], 4.0, "{path}");
    }
    assert_eq!(at("/health/write").json()["output"], "servers-few: 4 of 6 storage servers usable");
    let without_body = head(hcf.health(), "/health/write").unwrap();
    assert_eq!((without_body.status, without_body.body.len()), (503, 0));
}

#[test]
fn other_paths_and_methods_are_refused() {
    let (_node, hcf) = start();
    for (path, code) in [
        ("/health/nosuch", 404),
        ("/health/nosuch?drain=404", 503),
        ("/heath/read?drain=404", 503),
        ("/health/", 404),
        ("/healthy", 404),
        ("/health/read/more", 404),
        ("/", 404),
        ("/v1/status", 404),
        ("/livez", 200),
        ("/readyz", 200),
    ] {
        let response = get(hcf.health(), path).unwrap();
        assert_eq!(response.status, code, "{path}");
        assert!(response.json().is_object(), "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let response = request(hcf.health(), method, "/health", &[], None, LONG).unwrap();
        assert_eq!((response.status, response.header("allow")), (405, Some("GET, HEAD")));
    }
}

#[test]
fn slots_share_out_the_weight() {
    let (_node, hcf) = start();
    let passed = |service: &str, slots: u32| {
        let pass = |slot: &u32| {
            let path = format!("/health/{service}/slot/{slot}/of/{slots}");
            get(hcf.health(), &path).unwrap().status == 200
        };
        (1..=slots).filter(pass).count()
    };
    assert_eq!(passed("read", 10), 10);
    assert_eq!((passed("soft", 10), passed("soft", 100), passed("soft", 1)), (3, 30, 1));
    assert_eq!((passed("write", 10), passed("rest", 10)), (0, 0));
    for path in [
        "slot/0/of/10",
        "slot/11/of/10",
        "slot/1/of/101",
        "slot/1/of",
        "slot/x/of/10",
        "slot/01/of/10",
    ] {
        assert_eq!(
            get(hcf.health(), &format!("/health/read/{path}")).unwrap().status,
            404,
            "{path}"
        );
    }
}

#[test]
fn status_says_everything_and_health_says_no_more_than_health() {
    let (_node, hcf) = start();
    let said = status(&hcf);
    assert_eq!(said["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(said["node"]["servers_known"], 4);
    assert_eq!(said["node"]["failure"], Value::Null);
    let write = &said["services"]["write"];
    assert_eq!((&write["state"], &write["weight"]), (&"down".into(), &100.into()));
    assert_eq!(write["reasons"][0]["code"], "servers-few");
    assert_eq!(write["reasons"][0]["else"], "down");
    assert_eq!(write["findings"][1]["criterion"], "introducers");
    assert_eq!(get(hcf.status(), "/health/rest").unwrap().status, 503);
    for time in ["since", "fresh_until"] {
        let text = write[time].as_str().unwrap();
        assert!(text.ends_with('Z') && text.len() == 24, "{time}: {text}");
    }
}

#[test]
fn a_frozen_judge_is_stale_and_a_frozen_node_is_not() {
    // A node that never answers, with a timeout that ends each look: not stale but timed out.
    let node = FakeNode::start(Answer::Hang);
    let hcf = Hcf::configured(CONFIG, &["--node", &node.url()]);
    wait_until("the timeout", LONG, || {
        status(&hcf)["services"]["read"]["reasons"][0]["code"] == "timeout"
    });
    node.set(Answer::Grid { connected: 9, refused: 0 });
    wait_until("up", LONG, || status(&hcf)["services"]["read"]["state"] == "up");
    // The sidecar itself was stopped for longer than its word counts: when it goes on, it says so
    // until it has looked again.
    hcf.signal(Signal::Stop);
    crate::lab::wait::pause(Duration::from_millis(900));
    hcf.signal(Signal::Cont);
    wait_until("up again", LONG, || status(&hcf)["services"]["read"]["state"] == "up");
    assert!(hcf.log().contains("stale"), "{}", hcf.log());
}

fn open(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

fn ask(stream: &mut TcpStream) -> Option<String> {
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").ok()?;
    let mut answer = vec![0; 1024];
    let n = stream.read(&mut answer).ok().filter(|n| *n > 0)?;
    answer.truncate(n);
    String::from_utf8(answer).ok()
}

#[test]
fn connections_are_kept_and_pipelined_requests_answered_in_order() {
    let (_node, hcf) = start();
    let mut stream = open(hcf.health());
    for _ in 0..3 {
        assert!(ask(&mut stream).unwrap().starts_with("HTTP/1.1 200 OK\r\n"));
    }
    let two = "GET /health/write HTTP/1.1\r\n\r\nGET /livez HTTP/1.1\r\nConnection: close\r\n\r\n";
    stream.write_all(two.as_bytes()).unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    let (write, alive) = (answers.find("503 Service Unavailable"), answers.find("HTTP/1.1 200 OK"));
    assert!(write.is_some() && write < alive, "{answers}");
}

#[test]
fn half_a_header_and_a_large_one_are_closed() {
    let (_node, hcf) = start();
    let mut half = open(hcf.health());
    half.write_all(b"GET /livez HTT").unwrap();
    let mut large = open(hcf.health());
    large
        .write_all(format!("GET /livez HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(9000)).as_bytes())
        .unwrap();
    let mut answer = String::new();
    large.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let mut nothing = String::new();
    half.read_to_string(&mut nothing).unwrap();
    assert_eq!(nothing, "", "closed without an answer");
}

#[test]
fn at_the_cap_the_longest_idle_connection_makes_room() {
    let (_node, hcf) = start();
    let mut first = open(hcf.health());
    assert!(ask(&mut first).is_some());
    let mut others: Vec<TcpStream> = (0..1024).map(|_| open(hcf.health())).collect();
    let last = others.last_mut().unwrap();
    assert!(ask(last).unwrap().starts_with("HTTP/1.1 200 "));
    let mut nothing = String::new();
    assert_eq!(first.read_to_string(&mut nothing).unwrap_or(0), 0, "the first was closed");
    assert_eq!(get(hcf.health(), "/livez").unwrap().status, 200);
}
