//! Gates: a port that forwards to the node while the node is good, and what it does otherwise.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::operator::Desk;
use crate::lab::fake::{Answer, FakeNode};
use crate::lab::haproxy::{Haproxy, Stat, Version};
use crate::lab::hcf::Hcf;
use crate::lab::http::{get, request};
use crate::lab::place;
use crate::lab::ports::free_port;
use crate::lab::wait::{LONG, pause, wait_until};

/// A sidecar with one gate of this kind for `write`, which wants 4 servers.
pub(crate) fn start(node: &FakeNode, gate: &str) -> (Hcf, String) {
    let config = format!(
        "node: {{every: 50ms, timeout: 400ms}}\n\
         services: {{write: {{criteria: {{servers: {{min: 4}}}}}}}}\n\
         gates: {{web: {{listen: '127.0.0.1:0', {gate}}}}}\n"
    );
    let hcf = Hcf::configured(&config, &["--node", &node.url()]);
    let address = hcf.address("gate/web").to_owned();
    (hcf, address)
}

/// Whether nobody listens there.
pub(crate) fn is_refused(address: &str) -> bool {
    TcpStream::connect(address).is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused)
}

pub(crate) const GOOD: Answer = Answer::Grid { connected: 9, refused: 0 };
pub(crate) const BAD: Answer = Answer::Grid { connected: 3, refused: 6 };

#[test]
fn a_closing_gate_refuses_connects_while_the_node_is_bad() {
    let node = FakeNode::start(BAD);
    let (_hcf, gate) = start(&node, "when_bad: close");
    assert!(is_refused(&gate), "never open before it was seen to be good");
    for _ in 0..3 {
        node.set(GOOD);
        wait_until("the gate to open", LONG, || {
            get(&gate, "/?t=json").is_ok_and(|r| r.status == 200)
        });
        node.set(BAD);
        wait_until("the gate to close", LONG, || is_refused(&gate));
        assert!(std::net::TcpListener::bind(&gate).is_err(), "the port stays ours");
    }
}

/// More than the kernel holds for who does not read.
const LARGE: usize = 32 << 20;

/// What a node does with clients: `/kept` is answered at once, `/large` too, `/half` by half until the end is there,
/// `/late` only then, and `/endless` says numbers until then.
#[derive(Debug, Default)]
struct Slow {
    end: AtomicBool,
    /// The last number of `/endless`.
    said: AtomicUsize,
}

impl Slow {
    fn serve(node: &FakeNode) -> Arc<Self> {
        let slow = Arc::<Self>::default();
        let script = Arc::clone(&slow);
        node.serve_by(move |stream, head, _| script.answer(stream, head));
        slow
    }

    fn answer(&self, stream: &mut TcpStream, head: &str) -> Option<()> {
        const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n";
        let ended = || self.end.load(Ordering::SeqCst);
        let mut say = |text: &str| stream.write_all(text.as_bytes()).ok();
        match head.split(' ').nth(1)? {
            "/half" => {
                say(&format!("{HEAD}ha"))?;
                wait_until("the end", LONG, ended);
                say("lf")
            }
            "/late" => {
                wait_until("the end", LONG, ended);
                say(&format!("{HEAD}late"))
            }
            "/large" => {
                say(&format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n"))?;
                say(&"x".repeat(LARGE))
            }
            "/endless" => {
                say("HTTP/1.1 200 OK\r\n\r\n")?;
                while !ended() {
                    let number = self.said.fetch_add(1, Ordering::SeqCst) + 1;
                    say(&format!("{number}\n"))?;
                    pause(Duration::from_millis(20));
                }
                say("end\n")?;
                None
            }
            _ => say(&format!("{HEAD}kept")),
        }
    }
}

/// One who has asked for this.
fn client(gate: &str, path: &str) -> TcpStream {
    let mut client = TcpStream::connect(gate).unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    say(&mut client, path);
    client
}

fn say(client: &mut TcpStream, path: &str) {
    client.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
}

/// Reads as far as these words, which must come.
fn hear(client: &mut TcpStream, words: &str) {
    let (mut heard, mut byte) = (Vec::new(), [0]);
    while !heard.ends_with(words.as_bytes()) {
        let end = client.read_exact(&mut byte);
        end.unwrap_or_else(|e| panic!("{words:?}: {e} after {}", String::from_utf8_lossy(&heard)));
        heard.extend(byte);
    }
}

#[test]
fn a_closing_gate_cuts_idle_connections_and_lets_busy_ones_finish() {
    let node = FakeNode::healthy();
    let slow = Slow::serve(&node);
    let (_hcf, gate) = start(&node, "when_bad: close, drain: 60s");
    wait_until("the gate to open", LONG, || get(&gate, "/kept").is_ok());
    // One whose answer is on its way for long, one that waits for it, one whose answer has stopped in the middle, one that
    // does not read its own, and one that waits between requests. When that one is cut, the others have been silent for
    // longer.
    let mut busy = client(&gate, "/endless");
    hear(&mut busy, "\r\n1\n");
    let mut asking = client(&gate, "/late");
    let mut waiting = client(&gate, "/half");
    hear(&mut waiting, "ha");
    let mut late = client(&gate, "/large");
    hear(&mut late, "\r\n\r\n");
    let mut idle = client(&gate, "/kept");
    hear(&mut idle, "kept");
    node.set(BAD);
    wait_until("the gate to close", LONG, || is_refused(&gate));
    assert_eq!(idle.read(&mut [0; 64]).expect("the idle one is cut"), 0);
    slow.end.store(true, Ordering::SeqCst);
    hear(&mut busy, "end\n");
    hear(&mut asking, "late");
    hear(&mut waiting, "lf");
    let mut rest = vec![0; LARGE];
    late.read_exact(&mut rest).expect("all of it");
}

#[test]
fn a_closing_gate_cuts_busy_connections_when_their_time_is_over() {
    let node = FakeNode::healthy();
    let slow = Slow::serve(&node);
    // Longer than a busy machine takes to notice that the port is closed.
    let (_hcf, gate) = start(&node, "when_bad: close, drain: 4s");
    wait_until("the gate to open", LONG, || get(&gate, "/kept").is_ok());
    let mut busy = client(&gate, "/endless");
    hear(&mut busy, "\r\n1\n");
    node.set(BAD);
    wait_until("the gate to close", LONG, || is_refused(&gate));
    let next = slow.said.load(Ordering::SeqCst) + 1;
    hear(&mut busy, &format!("{next}\n"));
    wait_until("it to be cut", LONG, || match busy.read(&mut [0; 1 << 12]) {
        Ok(n) => {
            assert!(n > 0, "an answer of any length would look whole");
            false
        }
        Err(e) => e.kind() == ErrorKind::ConnectionReset,
    });
}

#[test]
fn a_closing_gate_cuts_nobody_when_an_operator_closes_it() {
    let (desk, node) = (Desk::new(), FakeNode::healthy());
    let hcf = desk.sidecar(&node, "gates: {web: {listen: '127.0.0.1:0', when_bad: close}}\n");
    let gate = hcf.address("gate/web");
    for order in ["drain", "maint"] {
        let slow = Slow::serve(&node);
        wait_until("the gate to open", LONG, || get(gate, "/kept").is_ok());
        let mut idle = client(gate, "/kept");
        hear(&mut idle, "kept");
        let mut busy = client(gate, "/half");
        hear(&mut busy, "ha");
        desk.order(&[order, "--reason", "disk swap"]);
        wait_until("the gate to close", LONG, || is_refused(gate));
        // Longer than an idle one stays while the node is down.
        let asked = node.requests();
        wait_until("more looks", LONG, || node.requests() > asked + 40);
        say(&mut idle, "/kept");
        hear(&mut idle, "kept");
        slow.end.store(true, Ordering::SeqCst);
        hear(&mut busy, "lf");
        assert!(is_refused(gate), "{order}");
        desk.order(&["clear"]);
    }
}

#[test]
fn who_comes_to_a_full_gate_is_served_when_another_has_left() {
    let node = FakeNode::healthy();
    node.serve_clients("here");
    let (hcf, gate) = start(&node, "when_bad: close, max_connections: 2");
    let connections = || crate::failures::status(&hcf)["gates"][0]["connections"].clone();
    wait_until("the gate to open", LONG, || TcpStream::connect(&gate).is_ok());
    wait_until("it to be empty", LONG, || connections() == 0);
    let mut holders = [client(&gate, "/?t=json"), client(&gate, "/?t=json")];
    for holder in &mut holders {
        hear(holder, "}]}");
    }
    let mut third = client(&gate, "/third");
    let asked = node.requests();
    wait_until("more looks", LONG, || node.requests() > asked + 20);
    assert_eq!((connections(), node.asked()), (2.into(), Vec::new()));
    let [first, mut second] = holders;
    drop(first);
    hear(&mut third, "here");
    assert_eq!(node.asked(), ["GET /third"]);
    say(&mut second, "/?t=json");
    hear(&mut second, "}]}");
}

#[test]
fn a_passing_gate_forwards_always() {
    let node = FakeNode::start(BAD);
    let (_hcf, gate) = start(&node, "when_bad: pass");
    assert_eq!(get(&gate, "/?t=json").unwrap().status, 200);
}

#[test]
fn a_refusing_gate_answers_for_the_node() {
    let node = FakeNode::start(BAD);
    node.serve_clients("here");
    for (gate, method, path, status) in [
        ("refuse_uri", "GET", "/uri/URI:CHK:x", 503),
        ("refuse_uri", "GET", "/%75ri/URI:CHK:x", 503),
        ("refuse_uri", "GET", "//cap/URI:CHK:x", 503),
        ("refuse_uri", "PUT", "/uri", 503),
        ("refuse_uri", "GET", "/statistics", 200),
        ("refuse_uri", "GET", "/URI", 200),
        ("refuse_writes", "GET", "/uri/URI:CHK:x", 200),
        ("refuse_writes", "HEAD", "/uri/URI:CHK:x", 200),
        ("refuse_writes", "PUT", "/uri", 503),
        ("refuse_writes", "POST", "/named/x", 503),
        ("refuse_writes", "DELETE", "/file/x", 503),
        ("refuse_writes", "POST", "/report_incident", 200),
    ] {
        let (_hcf, address) = start(&node, &format!("when_bad: {gate}, retry_after: 7s"));
        let body = (method == "PUT" || method == "POST").then_some(&b"some bytes"[..]);
        let answer = request(&address, method, path, &[], body, LONG).unwrap();
        assert_eq!(answer.status, status, "{gate} {method} {path}");
        if status == 503 {
            assert_eq!(answer.header("retry-after"), Some("7"));
            assert_eq!(answer.header("content-type"), Some("application/problem+json"));
            let problem = answer.json();
            assert_eq!(
                (&problem["service"], &problem["reasons"][0]["code"]),
                (&"write".into(), &"servers-few".into())
            );
            assert!(problem["see"].as_str().unwrap().contains("`hcf status`"), "{problem}");
        } else if method == "GET" {
            assert_eq!(answer.text(), "here");
        }
    }
    node.set(GOOD);
    let (_hcf, address) = start(&node, "when_bad: refuse_uri");
    wait_until("the node to be good", LONG, || {
        get(&address, "/uri/x").is_ok_and(|r| r.status == 200)
    });
}

#[test]
fn a_refusal_never_leaks_into_another_request_and_framing_must_be_clear() {
    let node = FakeNode::start(BAD);
    node.serve_clients("here");
    let (_hcf, gate) = start(&node, "when_bad: refuse_writes");
    let talk = |text: &str| {
        let mut stream = TcpStream::connect(&gate).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        let mut answers = String::new();
        let _ = stream.read_to_string(&mut answers);
        answers
    };
    let asked = node.requests();
    let pipelined = "PUT /uri HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcDELETE /uri/x HTTP/1.1\r\nHost: x\r\n\r\n";
    let answers = talk(pipelined);
    assert_eq!(
        answers.matches("HTTP/1.1 503 ").count(),
        1,
        "the first is refused, and ends it: {answers}"
    );
    for smuggled in [
        "POST /uri HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
        "GET /x HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n",
        "GET /x HTTP/1.1\rHost: x\r\n\r\n",
    ] {
        let answers = talk(smuggled);
        assert!(answers.starts_with("HTTP/1.1 400 "), "{smuggled:?}: {answers}");
    }
    wait_until("the requests of looks only", LONG, || node.requests() > asked);
    assert!(node.asked().is_empty(), "nothing of it reached the node: {:?}", node.asked());
}

#[test]
fn a_large_upload_that_is_refused_hears_of_it() {
    let node = FakeNode::start(BAD);
    let (_hcf, gate) = start(&node, "when_bad: refuse_writes");
    let mut stream = TcpStream::connect(&gate).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(b"PUT /uri HTTP/1.1\r\nHost: x\r\nContent-Length: 104857600\r\n\r\n").unwrap();
    // As curl does, which reads while it sends.
    let mut heard = Vec::new();
    for _ in 0..100 {
        if stream.write_all(&vec![b'x'; 1 << 20]).is_err() {
            break;
        }
    }
    let _ = stream.read_to_end(&mut heard);
    assert!(heard.starts_with(b"HTTP/1.1 503 "), "{}", String::from_utf8_lossy(&heard));
}

#[test]
fn a_stop_does_not_wait_for_idle_connections() {
    let node = FakeNode::healthy();
    let slow = Slow::serve(&node);
    slow.end.store(true, Ordering::SeqCst);
    for gate in ["when_bad: close", "when_bad: refuse_uri"] {
        let (mut hcf, address) = start(&node, gate);
        wait_until("the gate to open", LONG, || get(&address, "/?t=json").is_ok());
        let mut idle = client(&address, "/kept");
        hear(&mut idle, "kept");
        // Its answer ended with the node's connection.
        let mut ended = client(&address, "/endless");
        hear(&mut ended, "end\n");
        assert_eq!(ended.read(&mut [0; 64]).unwrap(), 0);
        let status = crate::failures::status(&hcf);
        let shown = &status["gates"][0];
        assert_eq!((&shown["name"], &shown["open"]), (&"web".into(), &true.into()), "{shown}");
        hcf.signal(crate::lab::process::Signal::Term);
        assert_eq!(hcf.process().wait_end(LONG).code(), Some(0));
        assert!(!hcf.log().contains("connections still open"), "{}", hcf.log());
    }
}

#[test]
fn a_gate_takes_a_clients_address_from_the_balancer_and_tells_the_node() {
    let node = FakeNode::healthy();
    node.serve_clients("here");
    let tells = |header: &str| {
        let head = node.last_head().to_ascii_lowercase();
        head.lines().find_map(|line| Some(line.strip_prefix(header)?.to_owned()))
    };
    let gate = |more: &str| start(&node, &format!("when_bad: refuse_uri, {more}"));
    let (_plain, address) = gate("forwarded: x-forwarded-for");
    wait_until("the gate to serve", LONG, || get(&address, "/x").is_ok_and(|r| r.status == 200));
    let claimed = [("X-Forwarded-For", "10.9.9.9")];
    request(&address, "GET", "/x", &claimed, None, LONG).unwrap();
    let head = node.last_head().to_ascii_lowercase();
    let told: Vec<_> = head.lines().filter(|line| line.starts_with("x-forwarded-for:")).collect();
    assert_eq!(told, ["x-forwarded-for: 10.9.9.9", "x-forwarded-for: 127.0.0.1"]);

    for (version, word) in [("1", "send-proxy"), ("2", "send-proxy-v2")] {
        let (hcf, address) = gate("forwarded: forwarded, proxy_protocol: on");
        let web = free_port();
        // Checked as a balancer checks that only connects: with a header of its own, and without.
        let config = format!(
            "defaults\n mode tcp\n timeout connect 2s\n timeout client 9s\n timeout server 9s\nlisten web\n \
             bind 127.0.0.1:{web}\n source 127.0.0.1\n server gw {address} {word} check inter 100ms\n \
             server bare {address} {word} check inter 100ms no-check-send-proxy\n"
        );
        let haproxy = Haproxy::start(Version::ALL[0], &config);
        haproxy.wait_stat("web", "gw", "up", Stat::is_up);
        let answer = get(&format!("127.0.0.1:{web}"), "/x").unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "here"), "version {version}");
        assert_eq!(tells("forwarded: ").as_deref(), Some("for=127.0.0.1"), "version {version}");
        // Word of another address, as a balancer on another machine gives it.
        let mut stream = TcpStream::connect(&address).unwrap();
        let hello = "PROXY TCP4 10.0.0.7 127.0.0.1 5 80\r\nGET /x HTTP/1.0\r\nHost: x\r\n\r\n";
        stream.write_all(hello.as_bytes()).unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
        assert_eq!(tells("forwarded: ").as_deref(), Some("for=10.0.0.7"));
        // Whoever does not say who it is gets nothing, and is worth one line.
        let asked = node.asked().len();
        for _ in 0..3 {
            assert!(get(&address, "/x").is_err());
        }
        assert_eq!(node.asked().len(), asked);
        assert_eq!(hcf.log().matches("no PROXY protocol header").count(), 1, "{}", hcf.log());
    }
    // The same where bytes are carried as they are.
    let (_hcf, address) = start(&node, "when_bad: close, proxy_protocol: on");
    wait_until("the gate to open", LONG, || TcpStream::connect(&address).is_ok());
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.write_all(b"PROXY UNKNOWN\r\nGET /x HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("here"), "{answer}");
}

#[test]
fn a_gate_whose_place_is_taken_says_so_once_and_opens_when_it_is_free() {
    let node = FakeNode::start(BAD);
    let folder = place::folder("gate");
    let path = folder.path().join("web");
    let config = format!(
        "node: {{every: 50ms}}\nservices: {{write: {{criteria: {{servers: {{min: 4}}}}}}}}\n\
         gates: {{web: {{listen: 'unix:{}'}}}}\n",
        path.display()
    );
    let hcf = Hcf::configured(&config, &["--node", &node.url()]);
    // A Unix socket's name goes with it, so anybody may take it meanwhile.
    let other = UnixListener::bind(&path).unwrap();
    node.set(GOOD);
    let trouble = || crate::failures::status(&hcf)["gates"][0]["trouble"].clone();
    wait_until("status to say so", LONG, || {
        trouble().as_str().is_some_and(|text| text.ends_with("address already in use"))
    });
    let scrape = || get(hcf.status(), "/metrics").unwrap().text();
    let shown = |value: u8| {
        format!("hcf_gate_trouble{{gate=\"web\",address=\"unix:{}\"}} {value}\n", path.display())
    };
    assert!(scrape().contains(&shown(1)), "{}", scrape());
    let asked = node.requests();
    wait_until("more looks", LONG, || node.requests() > asked + 20);
    assert_eq!(hcf.log().matches("The gate cannot open").count(), 1, "{}", hcf.log());
    drop(other);
    std::fs::remove_file(&path).unwrap();
    let address = format!("unix:{}", path.display());
    wait_until("the gate to open", LONG, || get(&address, "/?t=json").is_ok());
    assert!(trouble().is_null());
}
