//! Gates between peers that misbehave: slow ones, ones that give up, ones that answer before they were asked in full.
//!
//! What one side sees of the other must be what it would see without a gate: bytes when they come, and a cut as a cut.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use crate::gate::{BAD, GOOD, start};
use crate::lab::fake::FakeNode;
use crate::lab::hcf::Hcf;
use crate::lab::http::{get, put, request};
use crate::lab::wait::{LONG, wait_until};

/// One gate that only carries bytes, and one that reads requests.
const KINDS: [&str; 2] = ["close", "refuse_uri"];

/// An open gate of this kind.
pub(crate) fn open(node: &FakeNode, kind: &str) -> (Hcf, String) {
    // Patient, since a gate that closes on a busy machine is not what is tested.
    let config = format!(
        "node: {{every: 100ms, timeout: 10s}}\nservices: {{write: {{criteria: {{servers: {{min: 4}}}}}}}}\n\
         gates: {{web: {{listen: '127.0.0.1:0', when_bad: {kind}}}}}\n"
    );
    let hcf = Hcf::configured(&config, &["--node", &node.url()]);
    let gate = hcf.address("gate/web").to_owned();
    wait_until("the gate to open", LONG, || get(&gate, "/?t=json").is_ok_and(|r| r.status == 200));
    wait_until("the service to be up", LONG, || {
        crate::lab::hcf::ask(hcf.agent(), "write\n").starts_with("up")
    });
    (hcf, gate)
}

pub(crate) fn connect(gate: &str) -> TcpStream {
    let stream = TcpStream::connect(gate).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.set_write_timeout(Some(LONG)).unwrap();
    stream
}

/// All that comes until the gate ends the connection, however it does.
pub(crate) fn rest(stream: &mut TcpStream) -> String {
    let mut heard = Vec::new();
    let _ = stream.read_to_end(&mut heard);
    String::from_utf8_lossy(&heard).into_owned()
}

/// What a client hears that sends all of this, and nothing more.
pub(crate) fn talk(gate: &str, text: &str) -> String {
    let mut stream = connect(gate);
    stream.write_all(text.as_bytes()).unwrap();
    rest(&mut stream)
}

pub(crate) fn statuses(answers: &str) -> Vec<&str> {
    answers.split("HTTP/1.1 ").skip(1).filter_map(|answer| answer.get(..3)).collect()
}

/// The length that a head announces.
fn length(head: &str) -> usize {
    let named = head.lines().filter_map(|line| line.split_once(": "));
    let mut named = named.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    named.next().map_or(0, |(_, value)| value.parse().unwrap())
}

/// Reads the rest of a body of known length.
fn take(stream: &mut TcpStream, head: &str, body: &[u8]) -> Option<Vec<u8>> {
    let mut body = body.to_vec();
    let mut left = vec![0; length(head) - body.len()];
    stream.read_exact(&mut left).ok()?;
    body.extend(left);
    Some(body)
}

/// Says `answer` and keeps the connection.
fn say(stream: &mut TcpStream, answer: &str) -> Option<()> {
    let length = answer.len();
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{answer}").ok()
}

/// A node that answers each request with its first line and its body, and keeps connections.
fn echo(node: &FakeNode) -> Arc<Mutex<Vec<String>>> {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    node.serve_by(move |stream, head, body| {
        let line = head.lines().next()?.to_owned();
        log.lock().unwrap().push(line.clone());
        let body = take(stream, head, body)?;
        say(stream, &format!("{line}|{}", String::from_utf8_lossy(&body)))
    });
    asked
}

/// Makes the end of a connection a reset.
pub(crate) fn reset(stream: &TcpStream) {
    socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
}

#[test]
fn bytes_pass_one_by_one_as_they_come() {
    for kind in KINDS {
        let node = FakeNode::healthy();
        let (seen, sees) = channel();
        let (go, goes) = channel::<()>();
        let goes = Mutex::new(goes);
        node.serve_by(move |stream, head, body| {
            let mut left = length(head) - body.len();
            for byte in body {
                seen.send(*byte).ok()?;
            }
            while left > 0 {
                let mut byte = [0];
                stream.read_exact(&mut byte).ok()?;
                seen.send(byte[0]).ok()?;
                left -= 1;
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").ok()?;
            for byte in b"answer" {
                goes.lock().unwrap().recv_timeout(LONG).ok()?;
                stream.write_all(&[b"1\r\n", &[*byte][..], b"\r\n"].concat()).ok()?;
            }
            stream.write_all(b"0\r\n\r\n").ok()
        });
        let (_hcf, gate) = open(&node, kind);
        let mut client = connect(&gate);
        for byte in
            b"PUT /uri HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\nConnection: close\r\n\r\n"
        {
            client.write_all(&[*byte]).unwrap();
        }
        // Nobody sends the next byte before the other end has this one.
        for byte in b"upload" {
            client.write_all(&[*byte]).unwrap();
            assert_eq!(sees.recv_timeout(LONG).unwrap(), *byte, "{kind}");
        }
        let mut heard = Vec::new();
        for byte in b"answer" {
            go.send(()).unwrap();
            while heard.last() != Some(byte) || !heard.ends_with(&[b'\n', *byte]) {
                let mut next = [0];
                client.read_exact(&mut next).unwrap();
                heard.push(next[0]);
            }
        }
        assert!(rest(&mut client).ends_with("0\r\n\r\n"), "{kind}");
    }
}

#[test]
fn a_slow_reader_gets_all_of_an_answer_that_ends_the_connection() {
    for kind in KINDS {
        let node = FakeNode::healthy();
        node.serve_by(move |stream, head, _| {
            let size = head.split(['/', ' ']).nth(2)?.parse().ok()?;
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"
            )
            .ok()?;
            stream.write_all(&vec![b'x'; size]).ok()?;
            None
        });
        let (_hcf, gate) = open(&node, kind);
        // At some of these sizes the gate has seen all of an answer that the sockets cannot take.
        let clients: Vec<(usize, TcpStream)> = (1..=32_usize)
            .map(|step| {
                let size = step * (192 << 10);
                let mut client = connect(&gate);
                socket2::SockRef::from(&client).set_recv_buffer_size(64 << 10).unwrap();
                write!(client, "GET /{size} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
                (size, client)
            })
            .collect();
        // A slow reader is what is tested.
        crate::lab::wait::pause(std::time::Duration::from_millis(500));
        for (size, mut client) in clients {
            let heard = rest(&mut client);
            let (_, body) = heard.split_once("\r\n\r\n").unwrap();
            assert_eq!(body.len(), size, "{kind}");
        }
    }
}

/// A node that reports the end of each connection, after having sent this.
fn watch(node: &FakeNode, sends: &'static [u8]) -> Receiver<Vec<u8>> {
    let (ended, ends) = channel();
    let ended: Mutex<Sender<Vec<u8>>> = Mutex::new(ended);
    node.serve_by(move |stream, _, body| {
        let mut heard = body.to_vec();
        let _ = stream.write_all(sends);
        let mut piece = [0; 1024];
        while let Ok(n @ 1..) = stream.read(&mut piece) {
            heard.extend_from_slice(&piece[..n]);
        }
        let _ = ended.lock().unwrap().send(heard);
        None
    });
    ends
}

#[test]
fn the_node_sees_it_when_a_client_gives_up() {
    for kind in KINDS {
        for (what, says, hears, sends) in [
            (
                "an upload",
                "PUT /uri HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf",
                "",
                &b""[..],
            ),
            (
                "a chunk",
                "PUT /uri HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf",
                "",
                b"",
            ),
            ("waiting", "GET /uri/x HTTP/1.1\r\nHost: x\r\n\r\n", "", b""),
            (
                "a download",
                "GET /uri/x HTTP/1.1\r\nHost: x\r\n\r\n",
                "half",
                b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
            ),
        ] {
            for by_reset in [false, true] {
                let node = FakeNode::healthy();
                let ends = watch(&node, sends);
                let (_hcf, gate) = open(&node, kind);
                let requests = node.requests();
                let mut client = connect(&gate);
                client.write_all(says.as_bytes()).unwrap();
                wait_until("the node to have it", LONG, || node.requests() > requests);
                let mut heard = String::new();
                while !heard.ends_with(hears) {
                    let mut byte = [0];
                    client.read_exact(&mut byte).unwrap();
                    heard.push(char::from(byte[0]));
                }
                if by_reset {
                    reset(&client);
                }
                drop(client);
                let seen = ends.recv_timeout(LONG);
                assert!(seen.is_ok(), "{kind}, {what}, reset {by_reset}: the node waits for ever");
                assert!(!seen.unwrap().ends_with(b"0\r\n\r\n"), "{kind}, {what}: no whole body");
            }
        }
    }
}

#[test]
fn an_answer_that_the_node_cuts_is_cut_for_the_client() {
    for kind in KINDS {
        let node = FakeNode::healthy();
        let (_hcf, gate) = open(&node, kind);
        for sends in [
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf",
        ] {
            for by_reset in [false, true] {
                node.serve_by(move |stream, _, _| {
                    stream.write_all(sends.as_bytes()).ok()?;
                    if by_reset {
                        reset(stream);
                    }
                    None
                });
                let mut client = connect(&gate);
                client.write_all(b"GET /uri/x HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
                let heard = rest(&mut client);
                assert!(
                    !heard.ends_with("0\r\n\r\n"),
                    "{kind}: {sends:?}, reset {by_reset}: {heard}"
                );
                let answer = get(&gate, "/uri/x");
                // A reset may overtake the answer's head; then the gate that reads it has its own.
                let cut =
                    answer.as_ref().is_ok_and(|answer| answer.status == 502) || answer.is_err();
                assert!(cut, "{kind}: {sends:?}, reset {by_reset}: {answer:?}");
            }
        }
    }
}

#[test]
fn a_request_on_a_connection_that_the_node_has_closed_is_sent_once_more() {
    let node = FakeNode::healthy();
    let asked = echo(&node);
    let (_hcf, gate) = open(&node, "refuse_uri");
    let mut client = connect(&gate);
    let mut ask = |line: &str, body: &str| {
        let length = body.len();
        write!(client, "{line}\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
        let mut heard = String::new();
        while !heard.ends_with(&format!("|{body}")) && !heard.ends_with("}\n") {
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            heard.push(char::from(byte[0]));
        }
        statuses(&heard)[0].to_owned()
    };
    for _ in 0..20 {
        assert_eq!(ask("GET /uri/x HTTP/1.1", ""), "200");
        node.hang_up();
        assert_eq!(ask("DELETE /uri/x HTTP/1.1", ""), "200");
    }
    // A node that closes just when it is asked.
    let end = Arc::new(Mutex::new(0));
    let log = Arc::clone(&asked);
    node.serve_by(move |stream, head, body| {
        log.lock().unwrap().push(head.lines().next()?.to_owned());
        let mut end = end.lock().unwrap();
        *end += 1;
        // Each second request finds a closed door.
        if *end % 2 == 0 {
            return None;
        }
        let body = take(stream, head, body)?;
        say(stream, &format!("|{}", String::from_utf8_lossy(&body)))
    });
    assert_eq!(ask("GET /first HTTP/1.1", ""), "200");
    asked.lock().unwrap().clear();
    assert_eq!(ask("GET /second HTTP/1.1", ""), "200");
    assert_eq!(asked.lock().unwrap().len(), 2, "once more");
    asked.lock().unwrap().clear();
    assert_eq!(ask("POST /third?t=mkdir HTTP/1.1", ""), "502");
    assert_eq!(asked.lock().unwrap().len(), 1, "what may have been done is not done twice");
}

#[test]
fn what_the_node_says_before_it_has_read_a_body_reaches_the_client() {
    for after in [0, 1 << 20] {
        let node = FakeNode::healthy();
        node.serve_by(move |stream, _, _| {
            stream.read_exact(&mut vec![0; after]).ok()?;
            let answer =
                "HTTP/1.1 413 Too large\r\nContent-Length: 5\r\nConnection: close\r\n\r\nlarge";
            stream.write_all(answer.as_bytes()).ok()?;
            None
        });
        let (_hcf, gate) = open(&node, "refuse_uri");
        for _ in 0..5 {
            // It listens only when it has sent all.
            let answer = put(&gate, "/uri", &vec![b'x'; 32 << 20]).unwrap();
            assert_eq!((answer.status, answer.text().as_str()), (413, "large"), "after {after}");
        }
    }
}

#[test]
fn a_client_that_listens_only_after_a_large_upload_hears_that_it_was_refused() {
    let node = FakeNode::start(BAD);
    node.serve_clients("here");
    for kind in ["refuse_uri", "refuse_writes"] {
        let (_hcf, gate) = start(&node, &format!("when_bad: {kind}"));
        let body = vec![b'x'; 100 << 20];
        let answer = request(&gate, "PUT", "/uri", &[], Some(&body), LONG).unwrap();
        assert_eq!(answer.status, 503);
        assert_eq!(answer.json()["service"], "write");
    }
    assert!(node.asked().is_empty(), "{:?}", node.asked());
}

#[test]
fn a_client_that_asks_first_is_refused_before_it_sends() {
    let node = FakeNode::start(BAD);
    let (_hcf, gate) = start(&node, "when_bad: refuse_writes");
    let mut client = connect(&gate);
    client
        .write_all(
            b"PUT /uri HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\nExpect: 100-continue\r\n\r\n",
        )
        .unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let heard = rest(&mut client);
    assert_eq!(statuses(&heard), ["503"], "{heard}");
}

#[test]
fn one_connection_carries_good_and_refused_requests_and_each_gets_its_own_answer() {
    let node = FakeNode::start(BAD);
    let asked = echo(&node);
    let (_hcf, gate) = start(&node, "when_bad: refuse_uri");
    let heard = talk(
        &gate,
        "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc\
         GET /uri/x HTTP/1.1\r\nHost: x\r\n\r\n\
         POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 27\r\n\r\nGET /uri/y HTTP/1.1\r\nHost: x\
         HEAD /uri/x HTTP/1.1\r\nHost: x\r\n\r\n\
         PUT /uri HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nGET\
         GET /c HTTP/1.1\r\nHost: x\r\n\r\n",
    );
    assert_eq!(statuses(&heard), ["200", "503", "200", "503", "503"], "{heard}");
    assert!(
        heard.contains("POST /a HTTP/1.1|abc") && heard.contains("POST /b HTTP/1.1|GET /uri/y")
    );
    assert_eq!(*asked.lock().unwrap(), ["POST /a HTTP/1.1", "POST /b HTTP/1.1"]);
}

/// Requests that not everybody reads in the same way.
const UNCLEAR: [&str; 30] = [
    "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 3, 3\r\n\r\nabc",
    "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\nabc",
    "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: -3\r\n\r\nabc",
    "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 0x3\r\n\r\nabc",
    "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 3 3\r\n\r\nabc",
    "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\nabc",
    "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\nabc",
    "POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
    "POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc",
    "POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\n\r\n",
    "POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \u{b}chunked\r\n\r\n0\r\n\r\n",
    "POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\u{e9}\r\n\r\n0\r\n\r\n",
    "POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "POST /x HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "GET /x HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n",
    "GET /x HTTP/1.1\r\n Host: x\r\n\r\n",
    "GET /x HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "GET /x HTTP/1.1\rHost: x\r\n\r\n",
    "GET /x HTTP/1.1\nHost: x\n\n",
    "GET /x HTTP/1.1\r\nHost: x\r\nA: b\rContent-Length: 5\r\n\r\n",
    "GET xuri HTTP/1.1\r\nHost: x\r\n\r\n",
    "CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /x\r\n\r\n",
];

/// The start of a body in chunks that not everybody reads in the same way.
const SENSELESS: [&str; 11] = [
    "xyz\r\n",
    "+3\r\nabc\r\n0\r\n\r\n",
    "0x3\r\nabc\r\n0\r\n\r\n",
    " 3\r\nabc\r\n0\r\n\r\n",
    "3 \r\nabc\r\n0\r\n\r\n",
    "3\nabc\n0\n\n",
    "3;a=b\nabc\r\n0\r\n\r\n",
    "3;a\rb\r\nabc\r\n0\r\n\r\n",
    "3\r\nabcd\r\n0\r\n\r\n",
    "10000000000000003\r\nabc\r\n0\r\n\r\n",
    "0\r\nno trailer\r\n\r\n",
];

#[test]
fn an_unclear_request_is_refused_alone_and_behind_good_ones() {
    let node = FakeNode::healthy();
    let asked = echo(&node);
    let (_hcf, gate) = open(&node, "refuse_uri");
    // What would be smuggled past whoever reads it the other way.
    let behind = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    for unclear in UNCLEAR {
        let heard = talk(&gate, &format!("{unclear}{behind}"));
        assert_eq!(statuses(&heard), ["400"], "{unclear:?}: {heard}");
        assert!(heard.contains("\r\nConnection: close\r\n"), "{heard}");
    }
    assert!(asked.lock().unwrap().is_empty(), "nothing of it reached the node: {asked:?}");
    let good = "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\nHost: x\r\n\r\n";
    for unclear in UNCLEAR {
        let heard = talk(&gate, &format!("{good}{unclear}{behind}"));
        assert_eq!(statuses(&heard), ["200", "200", "400"], "{unclear:?}: {heard}");
    }
    for senseless in SENSELESS {
        let head = "POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
        let heard = talk(&gate, &format!("{good}{head}{senseless}{behind}"));
        assert_eq!(statuses(&heard)[..2], ["200", "200"], "{senseless:?}: {heard}");
        assert!(!heard.contains("smuggled"), "{senseless:?}: {heard}");
    }
    let smuggled = asked.lock().unwrap().iter().any(|line| line.contains("smuggled"));
    assert!(!smuggled, "{asked:?}");
}

#[test]
fn a_body_in_senseless_chunks_is_refused_and_the_node_sees_it_cut() {
    let node = FakeNode::healthy();
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&bodies);
    node.serve_by(move |stream, _, body| {
        let at = seen.lock().unwrap().len();
        seen.lock().unwrap().push(None);
        let mut body = body.to_vec();
        let _ = stream.read_to_end(&mut body);
        seen.lock().unwrap()[at] = Some(body);
        None
    });
    let (_hcf, gate) = open(&node, "refuse_uri");
    for senseless in SENSELESS {
        let head = "POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
        let heard = talk(&gate, &format!("{head}{senseless}"));
        assert_eq!(statuses(&heard), ["400"], "{senseless:?}: {heard}");
    }
    wait_until("the node to see the ends", LONG, || {
        bodies.lock().unwrap().iter().all(Option::is_some)
    });
    let whole =
        |body: &Option<Vec<u8>>| body.as_ref().is_some_and(|body| body.ends_with(b"0\r\n\r\n"));
    assert!(!bodies.lock().unwrap().iter().any(whole), "{bodies:?}");
}

#[test]
fn a_head_of_any_size_is_judged() {
    let node = FakeNode::healthy();
    let asked = echo(&node);
    let (_hcf, gate) = open(&node, "refuse_uri");
    for size in [1 << 10, 60 << 10, 70 << 10, 300 << 10, 500 << 10] {
        asked.lock().unwrap().clear();
        let filler = "x".repeat(size);
        let heard = talk(
            &gate,
            &format!(
                "GET /large HTTP/1.1\r\nHost: x\r\nA: {filler}\r\n\r\n\
                 POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
        );
        let expected: &[_] = if size < 64 << 10 { &["200", "400"] } else { &["431"] };
        assert_eq!(statuses(&heard), expected, "{size}");
        assert!(!asked.lock().unwrap().iter().any(|line| line.contains("POST")));
    }
}

#[test]
fn a_gate_goes_on_when_its_service_comes_back() {
    let node = FakeNode::start(BAD);
    echo(&node);
    let (_hcf, gate) = start(&node, "when_bad: refuse_uri");
    let mut client = connect(&gate);
    let mut ask = || {
        client.write_all(b"GET /uri/x HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut heard = String::new();
        while !heard.ends_with('|') && !heard.ends_with("}\n") {
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            heard.push(char::from(byte[0]));
        }
        statuses(&heard)[0].to_owned()
    };
    // All on one connection, as a balancer's pool has it.
    assert_eq!((ask(), ask()), ("503".to_owned(), "503".to_owned()));
    node.set(GOOD);
    wait_until("the service to be up", LONG, || ask() == "200");
}
