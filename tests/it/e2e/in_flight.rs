//! A request that a gate has accepted gets its whole right answer, whatever the node's state becomes meanwhile.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::farm::{beside_gates, wait_line};
use super::gate::bytes;
use crate::gate::is_refused;
use crate::lab::cut::{Cut, How};
use crate::lab::http;
use crate::lab::tahoe::{Grid, Node};
use crate::lab::wait::{LONG, pause, wait_until};

/// So large that neither a download nor an upload is over before the gate has turned.
const LARGE: usize = 8 << 20;
/// A slow client's share of it, and its pace: far quicker than what counts as idle.
const PIECE: usize = 16 << 10;
const PACE: Duration = Duration::from_millis(20);

/// Whether the gate has turned, and what the many small requests came to.
#[derive(Default)]
struct Turn {
    turned: AtomicBool,
    answered: AtomicUsize,
    turned_away: AtomicUsize,
}

impl Turn {
    fn is_over(&self) -> bool {
        self.turned.load(Ordering::SeqCst)
    }

    /// Sends or takes a piece at a time until the gate has turned; `false` when there was no more of it by then.
    fn slowly(&self, mut piece: impl FnMut() -> bool) -> bool {
        while !self.is_over() {
            if !piece() {
                return false;
            }
            pause(PACE);
        }
        true
    }
}

fn connect(gate: &str) -> TcpStream {
    let stream = TcpStream::connect(gate).expect("the gate is open");
    stream.set_read_timeout(Some(LONG)).expect("a time");
    stream
}

/// All that comes until the end: the head, and the body.
fn rest(mut stream: &TcpStream, mut so_far: Vec<u8>) -> (String, Vec<u8>) {
    stream.read_to_end(&mut so_far).expect("a whole answer");
    let end = so_far.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a whole head") + 4;
    let body = so_far.split_off(end);
    (String::from_utf8_lossy(&so_far).into_owned(), body)
}

fn slow_download(gate: &str, cap: &str, file: &[u8], turn: &Turn) {
    let mut stream = connect(gate);
    let head = format!("GET /uri/{cap} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("it is accepted");
    let mut got = Vec::new();
    let in_time = turn.slowly(|| {
        let mut piece = [0; PIECE];
        let n = stream.read(&mut piece).expect("an answer on its way");
        got.extend_from_slice(&piece[..n]);
        n > 0
    });
    assert!(in_time, "the download was over before the gate turned");
    let (head, body) = rest(&stream, got);
    assert!(head.starts_with("HTTP/1.1 200 ") && body == file, "{head}, {} bytes", body.len());
}

fn slow_upload(gate: &str, cap: &str, file: &[u8], turn: &Turn) {
    let mut stream = connect(gate);
    let length = file.len();
    let head = format!(
        "PUT /uri HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("it is accepted");
    let mut left = file;
    let in_time = turn.slowly(|| {
        let (piece, more) = left.split_at(PIECE.min(left.len()));
        stream.write_all(piece).expect("it is taken");
        left = more;
        !left.is_empty()
    });
    assert!(in_time, "the upload was over before the gate turned");
    stream.write_all(left).expect("the rest is taken, too");
    let (head, body) = rest(&stream, Vec::new());
    // The same bytes have the same capability.
    let stored = String::from_utf8_lossy(&body);
    assert!(head.starts_with("HTTP/1.1 200 ") && stored.contains(cap), "{head}{stored}");
}

/// Small requests in quick succession, until some have met the gate as it is after the turn.
fn many(gate: &str, method: &str, path: &str, body: &[u8], turn: &Turn) {
    let with = (method == "POST").then_some(&b""[..]);
    while turn.turned_away.load(Ordering::SeqCst) < 50 {
        match http::request(gate, method, path, &[], with, LONG) {
            Ok(answer) if answer.status == 200 => {
                assert!(method == "POST" || answer.body == body, "another body");
                turn.answered.fetch_add(1, Ordering::SeqCst);
            }
            Ok(answer) => {
                assert_eq!(answer.status, 503, "{}", answer.text());
                assert_eq!(answer.json()["reasons"][0]["code"], "servers-few");
                turn.turned_away.fetch_add(1, Ordering::SeqCst);
            }
            // Before anything was accepted. Whatever else happens to a request is a request lost.
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
                turn.turned_away.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}

#[test]
fn what_a_gate_has_accepted_is_answered_whatever_comes() {
    let mut grid = Grid::ready();
    let (large, small) = (bytes(LARGE), bytes(2000));
    let caps = [&large, &small].map(|file| grid.gateways[0].upload(file));
    // The gateway itself works on without one of its servers: what is lost, the gate has lost.
    let wants = "services: {write: {criteria: {servers: {min: 5}}}}\n";
    let kinds = ["close", "refuse_uri", "refuse_writes"];
    let hcf = beside_gates(&grid.gateways[0], &kinds, wants);
    for kind in kinds {
        println!("{kind}");
        grid.wait_ready();
        wait_line(&hcf, "write\n", "up ready 100%\n");
        let gate = hcf.address(&format!("gate/{kind}"));
        wait_until("the gate to open", LONG, || !is_refused(gate));
        // What the gate turns away after the turn.
        let (method, path) = match kind {
            "refuse_writes" => ("POST", format!("/uri/{}?t=check", caps[1])),
            _ => ("GET", format!("/uri/{}", caps[1])),
        };
        let turn = Turn::default();
        thread::scope(|scope| {
            scope.spawn(|| slow_download(gate, &caps[0], &large, &turn));
            scope.spawn(|| slow_upload(gate, &caps[0], &large, &turn));
            for _ in 0..4 {
                scope.spawn(|| many(gate, method, &path, &small, &turn));
            }
            wait_until("answers", LONG, || turn.answered.load(Ordering::SeqCst) >= 20);
            let _cut = Cut::new(&grid.gateways[0], &grid.storage_ports(1), How::Reject);
            wait_until("the gate to turn", LONG, || turn.turned_away.load(Ordering::SeqCst) >= 20);
            turn.turned.store(true, Ordering::SeqCst);
            wait_until("the rest of it", LONG, || turn.turned_away.load(Ordering::SeqCst) >= 50);
        });
    }
}

#[test]
fn an_upload_that_waits_for_its_answer_is_not_idle() {
    let grid = Grid::ready();
    let wants = "services: {write: {criteria: {servers: {last_heard_max: 3s}}}}\n";
    let hcf = beside_gates(&grid.gateways[0], &["close"], wants);
    let gate = hcf.address("gate/close");
    wait_line(&hcf, "write\n", "up ready 100%\n");
    wait_until("the gate to open", LONG, || !is_refused(gate));
    // A grid that hangs: the gateway has the whole upload, and nothing to say.
    grid.storage.iter().for_each(Node::stop);
    let file = bytes(5000);
    let mut upload = connect(gate);
    let head = "PUT /uri HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5000\r\n\r\n";
    upload.write_all(&[head.as_bytes(), &file].concat()).expect("it is accepted");
    let mut idle = connect(gate);
    idle.write_all(b"GET /?t=json HTTP/1.1\r\nHost: x\r\n\r\n").expect("it is accepted");
    wait_line(&hcf, "write\n", "down ready 100% #servers-");
    while idle.read(&mut [0; 1 << 12]).expect("an answer, and the end") > 0 {}
    // That one was cut. The upload has been silent for longer, and its answer is yet to come.
    grid.storage.iter().for_each(Node::cont);
    let (head, body) = rest(&upload, Vec::new());
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}{}", String::from_utf8_lossy(&body));
}
