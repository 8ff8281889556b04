//! What a gate that knows HTTP relays: requests and answers as they came, each to its end, and nothing that has two.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use crate::gate::is_refused;
use crate::lab::fake::FakeNode;
use crate::lab::hcf::Hcf;
use crate::lab::process::Signal;
use crate::lab::wait::{LONG, wait_until};
use crate::peers::{connect, open, reset, rest, statuses, talk};

/// A node that gives the answers in turn, each to one request, and keeps the heads that came. After `close` it ends its
/// connection.
fn answers(node: &FakeNode, all: &[&str]) -> Arc<Mutex<Vec<String>>> {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let (log, all): (_, Vec<String>) =
        (Arc::clone(&heads), all.iter().map(|answer| (*answer).to_owned()).collect());
    node.serve_by(move |stream, head, _| {
        let answer = {
            let mut log = log.lock().unwrap();
            log.push(head.to_owned());
            all.get(log.len() - 1)?.clone()
        };
        let (answer, end) = answer.strip_suffix("|close").map_or((&*answer, false), |a| (a, true));
        stream.write_all(answer.as_bytes()).ok()?;
        (!end).then_some(())
    });
    heads
}

const LAST: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nlast";

#[test]
fn requests_and_answers_pass_as_they_came() {
    for (request, answer) in [
        (
            "GET /a?b=c HTTP/1.1\r\nhOsT: x\r\n\r\n",
            "HTTP/1.1 200 Fine\r\nx-Y:  z \r\nContent-Length: 2\r\n\r\nok",
        ),
        (
            "GET /a HTTP/1.1\r\nHost: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nT: z\r\nU: y\r\n\r\n",
        ),
        ("HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"),
        (
            "HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (
            "GET /a HTTP/1.1\r\nHost: x\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\nETag: \"x\"\r\n\r\n",
        ),
        ("DELETE /a HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n"),
        (
            "GET /a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "GET /a HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        ),
    ] {
        let node = FakeNode::healthy();
        let (_hcf, gate) = open(&node, "refuse_uri");
        let heads = answers(&node, &[answer, LAST]);
        // The second one shows where the first answer ended.
        let last = "POST /last HTTP/1.1\r\nHost: y\r\n\r\n";
        let heard = talk(&gate, &format!("{request}{last}"));
        assert_eq!(heard, format!("{answer}{LAST}"), "{request}");
        assert_eq!(*heads.lock().unwrap(), [request, last]);
    }
}

#[test]
fn an_answer_without_an_end_of_its_own_ends_with_the_connection() {
    let node = FakeNode::healthy();
    let (_hcf, gate) = open(&node, "refuse_uri");
    let answer = "HTTP/1.1 200 OK\r\n\r\nall that comes";
    let heads = answers(&node, &[&format!("{answer}|close"), LAST]);
    let request = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut client = connect(&gate);
    client.write_all(format!("{request}{request}").as_bytes()).unwrap();
    let mut heard = String::new();
    client.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, answer);
    assert_eq!(heads.lock().unwrap().len(), 1, "nobody could tell where the second one begins");
}

/// The fake node ends its connections in order, so this is another one.
#[test]
fn what_breaks_off_there_is_broken_off_for_the_client() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let node = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).ok()?;
                    head.push(byte[0]);
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhalf").ok()?;
                stream.read_exact(&mut [0]).ok()?;
                reset(&stream);
                Some(())
            });
        }
    });
    let hcf = Hcf::configured(
        "services: {write: {criteria: {servers: {min: 4}}}}\n\
         gates: {web: {listen: '127.0.0.1:0', when_bad: refuse_uri}}\n",
        &["--node", &node],
    );
    let mut client = connect(hcf.address("gate/web"));
    client.write_all(b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n").unwrap();
    let mut heard = Vec::new();
    while !heard.ends_with(b"half") {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        heard.push(byte[0]);
    }
    client.write_all(b"x").unwrap();
    let end = client.read(&mut [0]);
    assert!(end.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset));
}

#[test]
fn an_answer_that_has_two_readings_is_none() {
    let node = FakeNode::healthy();
    let (_hcf, gate) = open(&node, "refuse_uri");
    for (version, answer) in [
        ("1.1", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nsecret"),
        (
            "1.1",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nsecret",
        ),
        ("1.1", "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nsecret"),
        ("1.1", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nsecret"),
        ("1.1", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nsecret"),
        ("1.1", "HTTP/1.1 200 OK\nContent-Length: 6\n\nsecret"),
        ("1.1", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 6\r\n\r\nsecret"),
        ("1.1", "HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\nsecret"),
        ("1.1", "HTTP/1.1 204 X\r\nContent-Length: 6\r\n\r\nsecret"),
        ("1.1", "HTTP/1.1 100 X\r\nContent-Length: 6\r\n\r\nsecret"),
        ("1.0", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nsecret\r\n0\r\n\r\n"),
        ("1.0", "HTTP/1.1 100 X\r\n\r\nsecret"),
        ("1.1", "HTTP/2 200 OK\r\n\r\nsecret"),
        ("1.1", "secret"),
        ("1.1", ""),
    ] {
        let heads = answers(&node, &[&format!("{answer}|close"), LAST]);
        let request = format!("POST /a HTTP/{version}\r\nConnection: close\r\nHost: x\r\n\r\n");
        let heard = talk(&gate, &request);
        assert_eq!(statuses(&heard), ["502"], "{answer:?}: {heard}");
        assert!(!heard.contains("secret") && heard.contains("application/problem+json"), "{heard}");
        assert_eq!(heads.lock().unwrap().len(), 1, "{answer:?}");
    }
}

#[test]
fn what_stands_behind_an_answer_answers_nothing() {
    let node = FakeNode::healthy();
    let (_hcf, gate) = open(&node, "refuse_uri");
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let heads = answers(&node, &[&format!("{answer}{answer}"), LAST]);
    let request = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";
    let heard = talk(&gate, &format!("{request}{request}"));
    assert_eq!(heard, answer);
    assert_eq!(heads.lock().unwrap().len(), 1);
    // Behind chunks, where an answer has begun already: it stays without an end.
    node.serve_by(move |stream, _, body| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
            .ok()?;
        if body.is_empty() {
            stream.read_exact(&mut [0]).ok()?;
        }
        stream.write_all(b"nonsense\r\n0\r\n\r\n").ok()
    });
    let mut client = connect(&gate);
    client.write_all(b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n").unwrap();
    let mut heard = String::new();
    while !heard.ends_with("ok\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        heard.push(char::from(byte[0]));
    }
    client.write_all(b"x").unwrap();
    assert_eq!(rest(&mut client), "");
}

#[test]
fn a_client_that_asks_first_is_told_by_the_node() {
    let node = FakeNode::healthy();
    let (_hcf, gate) = open(&node, "refuse_uri");
    node.serve_by(move |stream, head, body| {
        assert!(body.is_empty() && head.contains("Expect: 100-continue"), "{head}");
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
        let mut body = [0; 4];
        stream.read_exact(&mut body).ok()?;
        stream
            .write_all(&[b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", &body[..]].concat())
            .ok()
    });
    let mut client = connect(&gate);
    let mut ask = |body: &[u8]| {
        client
            .write_all(
                b"PUT /a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n",
            )
            .unwrap();
        let mut go = [0; 25];
        client.read_exact(&mut go).unwrap();
        assert_eq!(&go, b"HTTP/1.1 100 Continue\r\n\r\n");
        client.write_all(body).unwrap();
        let mut answer = [0; 42];
        client.read_exact(&mut answer).unwrap();
        assert!(answer.ends_with(body), "{}", String::from_utf8_lossy(&answer));
    };
    ask(b"here");
    ask(b"more");
}

#[test]
fn one_connection_outlives_an_answer_that_comes_before_the_end_of_its_request() {
    let node = FakeNode::healthy();
    let (_hcf, gate) = open(&node, "refuse_uri");
    node.serve_by(move |stream, head, body| {
        let length = if head.starts_with("PUT") { 6 } else { 0 };
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").ok()?;
        stream.read_exact(&mut vec![0; length - body.len()]).ok()
    });
    let mut client = connect(&gate);
    let mut hear = |says: &[u8]| {
        client.write_all(says).unwrap();
        let mut answer = [0; 40];
        client.read_exact(&mut answer).unwrap();
        assert!(answer.ends_with(b"\r\n\r\nok"));
    };
    hear(b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nthe");
    hear(b"endGET /b HTTP/1.1\r\nHost: x\r\n\r\n");
    hear(b"GET /c HTTP/1.1\r\nHost: x\r\n\r\n");
}

#[test]
fn a_stop_answers_what_is_under_way_and_says_that_it_is_the_last() {
    let node = FakeNode::healthy();
    let (mut hcf, gate) = open(&node, "refuse_uri");
    let (asked, asks) = channel();
    let (go, goes) = channel::<()>();
    let (asked, goes) = (Mutex::new(asked), Mutex::new(goes));
    node.serve_by(move |stream, _, _| {
        asked.lock().unwrap().send(()).ok()?;
        goes.lock().unwrap().recv_timeout(LONG).ok()?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").ok()
    });
    let mut client = connect(&gate);
    client.write_all(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    asks.recv_timeout(LONG).unwrap();
    hcf.signal(Signal::Term);
    wait_until("the gate to stop", LONG, || is_refused(&gate));
    go.send(()).unwrap();
    let heard = rest(&mut client);
    assert_eq!(heard, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
    assert_eq!(hcf.process().wait_end(LONG).code(), Some(0));
}
