//! What a node can do wrong, each with its stable code: what is certain takes the node down at once,
//! what is doubtful does not before it has added up.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use socket2::SockRef;

use crate::lab::fake::{Answer, FakeNode, page};
use crate::lab::hcf::{Hcf, ask};
use crate::lab::http;
use crate::lab::wait::{LONG, wait_until};

/// So patient that doubt never adds up, so that what takes the node down is certain.
const PATIENT: &str = "
node: {every: 50ms, timeout: 400ms}
services: {write: {criteria: {servers: {min: 4}}}}
damping: {rise: 2, fall: 1000}
";

pub(crate) fn status(hcf: &Hcf) -> Value {
    http::get(hcf.status(), "/v1/status").expect("the status listener answers").json()
}

fn wait_up(hcf: &Hcf) {
    wait_until("the node to be up", LONG, || ask(hcf.agent(), "write\n") == "up ready 100%\n");
}

fn wait_failure(hcf: &Hcf, code: &str) {
    wait_until(&format!("the failure {code}"), LONG, || {
        status(hcf)["node"]["failure"]["code"] == code
    });
}

#[test]
fn doubtful_failures_have_their_codes_and_do_not_flip_at_once() {
    let node = FakeNode::healthy();
    let hcf = Hcf::configured(PATIENT, &["--node", &node.url()]);
    let good = String::from_utf8(page(5, 0)).unwrap();
    let raw = |text: &str| Answer::Raw(text.as_bytes().to_vec());
    for (answer, code) in [
        (Answer::Hang, "timeout"),
        (Answer::HangInBody, "timeout"),
        (Answer::Slow(Duration::from_secs(2), 5), "timeout"),
        (Answer::Close, "reset"),
        (Answer::CutInBody, "reset"),
        (Answer::Status(500), "http-status"),
        (Answer::Status(302), "http-status"),
        (Answer::Status(404), "http-status"),
        (Answer::Page(b"<!DOCTYPE html><title>Welcome".to_vec()), "bad-json"),
        (Answer::Page(good.as_bytes()[..good.len() - 9].to_vec()), "bad-json"),
        (Answer::Page(Vec::new()), "bad-json"),
        (Answer::Page(vec![0xff; 100]), "bad-json"),
        (Answer::Page(good.replacen("connection_status", "state", 1).into_bytes()), "bad-shape"),
        (Answer::Page(good.replacen("\"introducers\"", "\"x\"", 1).into_bytes()), "bad-shape"),
        (raw("SSH-2.0-OpenSSH_9.2\r\n"), "bad-shape"),
        (raw("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}"), "bad-shape"),
        (raw("HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n"), "too-large"),
        (Answer::Huge(100 << 20), "too-large"),
    ] {
        wait_up(&hcf);
        node.set(answer.clone());
        wait_failure(&hcf, code);
        assert_eq!(ask(hcf.agent(), "write\n"), "up ready 100%\n", "{answer:?}");
        node.set(Answer::Grid { connected: 5, refused: 0 });
    }
}

#[test]
fn certain_failures_flip_at_once() {
    let mut node = FakeNode::healthy();
    let hcf = Hcf::configured(PATIENT, &["--node", &node.url()]);
    let says = |what: &str| {
        wait_until(what, LONG, || {
            ask(hcf.agent(), "write\n").starts_with(&format!("down ready 100% #{what}: "))
        });
    };
    wait_up(&hcf);
    node.set(Answer::Page(br#"{"subscription_summary": {"storage": 7}}"#.to_vec()));
    says("not-tahoe");
    node.set(Answer::Grid { connected: 5, refused: 0 });
    wait_up(&hcf);
    node.close();
    says("refused");
    node.reopen();
    wait_up(&hcf);
}

#[test]
fn doubt_that_adds_up_takes_the_node_down_and_looks_that_end_badly_keep_it_fresh() {
    let node = FakeNode::healthy();
    let config = PATIENT.replace("fall: 1000", "fall: 3");
    let hcf = Hcf::configured(&config, &["--node", &node.url()]);
    wait_up(&hcf);
    node.set(Answer::Hang);
    wait_until("the timeouts to count", LONG, || {
        ask(hcf.agent(), "write\n") == "down ready 100% #timeout: no answer within 400ms\n"
    });
    let looks = node.requests();
    wait_until("two more looks", LONG, || node.requests() > looks + 1);
    assert!(ask(hcf.agent(), "write\n").contains("#timeout: "), "not stale: every look finished");
    node.set(Answer::Grid { connected: 5, refused: 0 });
    wait_up(&hcf);
}

#[test]
fn a_kept_connection_that_the_node_has_closed_is_no_failure() {
    let node = FakeNode::healthy();
    let hcf = Hcf::configured(&PATIENT.replace("fall: 1000", "fall: 1"), &["--node", &node.url()]);
    wait_up(&hcf);
    for _ in 0..20 {
        let connections = node.connections();
        node.hang_up();
        wait_until("a new connection", LONG, || node.connections() > connections);
        // A second request on it, so that hanging up again meets it between two.
        let requests = node.requests();
        wait_until("looks to go on", LONG, || node.requests() > requests + 1);
        assert_eq!(status(&hcf)["node"]["failure"], Value::Null);
    }
    assert!(!hcf.log().contains("failed"), "{}", hcf.log());
}

#[test]
fn looks_share_one_connection_and_questions_cost_the_node_nothing() {
    let node = FakeNode::healthy();
    let hcf =
        Hcf::configured(&PATIENT.replace("every: 50ms", "every: 1h"), &["--node", &node.url()]);
    wait_up(&hcf);
    let looks = node.requests();
    for _ in 0..100 {
        ask(hcf.agent(), "write\n");
        http::get(hcf.health(), "/health").unwrap();
        http::get(hcf.status(), "/v1/status").unwrap();
    }
    assert_eq!((node.requests(), node.connections()), (looks, 1));
}

#[test]
fn what_the_node_says_of_its_servers_stays_inside() {
    let node = FakeNode::start(Answer::Grid { connected: 1, refused: 4 });
    let hcf = Hcf::configured(PATIENT, &["--node", &node.url()]);
    wait_until("the loss", LONG, || ask(hcf.agent(), "write\n").contains("servers-few"));
    let said = [
        ask(hcf.agent(), "write\n"),
        http::get(hcf.health(), "/health").unwrap().text(),
        http::get(hcf.status(), "/v1/status").unwrap().text(),
        hcf.log(),
    ];
    for said in said {
        assert!(said.contains("1 of 4 storage servers usable, 4 refused"), "{said}");
        assert!(!said.contains("Traceback") && !said.contains("/secret/path"), "{said}");
    }
}

/// A file system that hangs, as one over a network may: here a pipe that nobody writes to.
#[test]
fn a_file_that_cannot_be_read_to_its_end_ends_the_look_and_nothing_else() {
    let node = FakeNode::healthy();
    let dir = tempfile::tempdir().unwrap();
    let port = node.addr.rsplit(':').next().unwrap();
    std::fs::write(dir.path().join("tahoe.cfg"), format!("[node]\nweb.port = {port}\n")).unwrap();
    let pipe = dir.path().join("running.process");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let config = format!("node: {{every: 50ms, timeout: 200ms, dir: {}}}\n", dir.path().display());
    let mut hcf = Hcf::configured(&config, &[]);
    for _ in 0..20 {
        wait_until("looks to time out", LONG, || {
            ask(hcf.agent(), "write\n").contains("#timeout: ")
        });
    }
    assert!(!hcf.log().contains("stale"), "looks go on finishing: {}", hcf.log());
    std::fs::remove_file(&pipe).unwrap();
    hcf.signal(crate::lab::process::Signal::Term);
    hcf.signal(crate::lab::process::Signal::Term);
    assert_eq!(hcf.process().wait_end(LONG).code(), Some(0));
}

#[test]
fn a_node_that_ends_its_connections_is_looked_at_at_once() {
    let mut node = FakeNode::healthy();
    // So seldom that no other look sees it.
    let seldom = "node: {every: 1h}\nservices: {write: {criteria: {servers: {min: 4}}}}\n";
    let hcf = Hcf::configured(seldom, &["--node", &node.url()]);
    wait_up(&hcf);
    node.close();
    wait_until("the node to be down", LONG, || {
        ask(hcf.agent(), "write\n").starts_with("down ready 100% #refused: ")
    });
}

/// The kernel ends the connections of a process that was killed before it closes its port.
#[test]
fn a_node_whose_port_outlives_its_connections_for_a_moment_is_down_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let node = format!("http://{}", listener.local_addr().unwrap());
    // So seldom that no other look sees it.
    let seldom = "node: {every: 1h}\ndamping: {rise: 1}\nservices: {write: {criteria: {servers: {min: 4}}}}\n";
    let (kill, killed) = channel();
    thread::spawn(move || {
        let heard = || {
            let mut stream = listener.accept().unwrap().0;
            assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
            stream
        };
        let (mut kept, page) = (heard(), page(5, 0));
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", page.len());
        kept.write_all(&[head.as_bytes(), &page].concat()).unwrap();
        killed.recv().unwrap();
        drop(kept);
        let last = heard();
        drop(listener);
        SockRef::from(&last).set_linger(Some(Duration::ZERO)).unwrap();
    });
    let hcf = Hcf::configured(seldom, &["--node", &node]);
    wait_up(&hcf);
    kill.send(()).unwrap();
    wait_until("the node to be down", LONG, || {
        ask(hcf.agent(), "write\n").starts_with("down ready 100% #refused: ")
    });
}

#[test]
fn a_node_that_ends_its_connections_all_the_time_is_not_looked_at_all_the_time() {
    let node = FakeNode::healthy();
    let seldom = "node: {every: 1h}\nservices: {write: {criteria: {servers: {min: 4}}}}\n";
    let hcf = Hcf::configured(seldom, &["--node", &node.url()]);
    wait_up(&hcf);
    let looks = node.requests();
    node.hang_up();
    wait_until("one more look", LONG, || node.requests() == looks + 1);
    // The connection of that look has nothing to say any more, and nor have those to come.
    for _ in 0..3 {
        node.hang_up();
        ask(hcf.agent(), "write\n");
    }
    assert_eq!(node.requests(), looks + 1);
}
