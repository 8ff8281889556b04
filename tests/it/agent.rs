//! The agent listener, byte for byte: what HAProxy and others send, and what they get.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use crate::e2e::farm::shipped;
use crate::lab::fake::{Answer, FakeNode};
use crate::lab::hcf::{Hcf, ask};
use crate::lab::process::Signal;
use crate::lab::wait::{LONG, pause, wait_for, wait_until};
use crate::lab::{http, net};

const CONFIG: &str = "
node: {every: 50ms, timeout: 400ms}
services:
  read: {criteria: {servers: {min: 2}}}
  write: {criteria: {servers: {min: 4}}, maxconn: 200}
  soft: {criteria: {servers: {min: 5, else: degrade}}, degraded_weight: 30, maxconn: 10}
  rest: {criteria: {servers: {min: 6, else: drain}}}
";

fn start(connected: usize) -> (FakeNode, Hcf) {
    let node = FakeNode::start(Answer::Grid { connected, refused: 0 });
    let hcf = Hcf::configured(CONFIG, &["--node", &node.url()]);
    wait_until("the first verdict", LONG, || !ask(hcf.agent(), "read\n").contains("starting"));
    (node, hcf)
}

/// One that sends its question too late would hear of `write`, with its maxconn.
#[test]
fn the_readmes_command_asks_what_it_says() {
    let (_node, hcf) = start(4);
    let readme = shipped(".", "README.md");
    let line = readme.lines().find(|line| line.contains("/dev/tcp/")).expect("a command");
    let (command, answer) = line.split_once(" # ").expect("what it prints");
    let (ip, port) = hcf.agent().rsplit_once(':').unwrap();
    let command = command.replace("127.0.0.1/5290", &format!("{ip}/{port}"));
    wait_until(answer, LONG, || {
        let run = Command::new("bash").args(["-c", &command]).output().expect("bash runs");
        String::from_utf8_lossy(&run.stdout) == format!("{answer}\n")
    });
}

#[test]
fn every_state_has_its_line_in_both_ownership_modes() {
    let (node, hcf) = start(4);
    let lines = |expected: &[(&str, &str)]| {
        for (question, line) in expected {
            wait_until(&format!("{question} {line}"), LONG, || {
                ask(hcf.agent(), &format!("{question}\n")) == format!("{line}\n")
            });
        }
    };
    lines(&[
        ("read", "up ready 100%"),
        ("read admin=keep", "up 100%"),
        ("write", "up ready 100% maxconn:200"),
        ("soft", "up ready 30% maxconn:3 #degraded: servers-few: 4 of 5 storage servers usable"),
        (
            "soft admin=keep",
            "up 30% maxconn:3 #degraded: servers-few: 4 of 5 storage servers usable",
        ),
        ("rest", "up drain 100% #servers-few: 4 of 6 storage servers usable"),
        ("rest admin=keep", "up 0% #drain: servers-few: 4 of 6 storage servers usable"),
        ("", "up ready 100% maxconn:200"),
        ("read as=be_read/gw1", "up ready 100%"),
    ]);
    node.set(Answer::Grid { connected: 3, refused: 1 });
    lines(&[
        (
            "write",
            "down ready 100% maxconn:200 #servers-few: 3 of 4 storage servers usable, 1 refused",
        ),
        (
            "write admin=keep",
            "down 100% maxconn:200 #servers-few: 3 of 4 storage servers usable, 1 refused",
        ),
        ("read", "up ready 100%"),
    ]);
}

#[test]
fn what_is_not_known_is_said() {
    let (_node, hcf) = start(9);
    let agent = hcf.agent();
    assert_eq!(ask(agent, "wirte\n"), "down 100% #no such service: wirte\n");
    assert_eq!(ask(agent, "read colour=blue\n"), "up ready 100% #ignored option: colour=blue\n");
    assert_eq!(ask(agent, "read hold=never admin=keep\n"), "up 100% #ignored option: hold=never\n");
    for n in 0..500 {
        ask(agent, &format!("no{n}\n"));
        ask(agent, &format!("read no{n}=1\n"));
    }
    let log = hcf.log();
    assert!(log.matches("does not exist").count() == 1, "{log}");
    assert!(log.matches("option that is not known").count() == 1, "{log}");
}

#[test]
fn a_question_ends_at_its_line_end_or_at_silence() {
    let (_node, hcf) = start(9);
    let agent = hcf.agent();
    let up = "up ready 100%\n";
    for question in ["read\n", "read\r\n", "read\r", "read", "  read  \n", "read\nwrite\n"] {
        assert_eq!(ask(agent, question), up, "{question:?}");
    }
    // Nothing at all, and the end without a question, ask for the default service.
    assert_eq!(ask(agent, ""), "up ready 100% maxconn:200\n");
    let mut stream = TcpStream::connect(agent).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut stream), "up ready 100% maxconn:200\n");
    // In two segments, as a slow network may bring it.
    let mut stream = TcpStream::connect(agent).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(b"re").unwrap();
    stream.write_all(b"ad\n").unwrap();
    assert_eq!(rest(&mut stream), up);
}

#[test]
fn bad_questions_are_refused_and_cost_the_others_nothing() {
    let (_node, hcf) = start(9);
    let agent = hcf.agent();
    let too_long = "down 100% #question too long\n";
    assert_eq!(ask(agent, &"x".repeat(600)), too_long);
    let mut stream = TcpStream::connect(agent).unwrap();
    stream.write_all(&vec![b'x'; 1 << 20]).unwrap();
    assert_eq!(rest(&mut stream), too_long);
    let binary: Vec<u8> = (0..=255).filter(|b| !matches!(b, b'\n' | b'\r')).collect();
    let mut stream = TcpStream::connect(agent).unwrap();
    stream.write_all(&[&binary[..], b"\n"].concat()).unwrap();
    let answer = rest(&mut stream);
    assert!(answer.starts_with("down 100% #no such service: "), "{answer}");
    assert!(answer.len() < 256 && answer.trim_end().bytes().all(|b| (b' '..=b'~').contains(&b)));
    // A question that never ends, one byte now and then, is cut off after a second; a pause of 30 ms,
    // which a busy machine may make, ends it too.
    let mut stream = TcpStream::connect(agent).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    let answer = wait_for("the end of patience", LONG, || {
        // Once it is answered, writing may fail.
        let _ = stream.write_all(b"x");
        let mut answer = [0; 64];
        stream.read(&mut answer).ok().map(|n| answer[..n].to_vec())
    });
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer == too_long || answer.starts_with("down 100% #no such service: x"), "{answer}");
    assert_eq!(ask(agent, "read\n"), "up ready 100%\n");
}

#[test]
fn two_thousand_at_once_are_all_answered() {
    let (_node, hcf) = start(9);
    let address = hcf.agent();
    // Half of them say nothing, and hold their connection for as long as they may.
    let mut open: Vec<TcpStream> = (0..2000)
        .map(|n| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(LONG)).unwrap();
            if n % 2 == 0 {
                stream.write_all(b"read\n").unwrap();
            }
            stream
        })
        .collect();
    assert_eq!(ask(address, "read\n"), "up ready 100%\n");
    for (n, stream) in open.iter_mut().enumerate() {
        let expected = if n % 2 == 0 { "up ready 100%\n" } else { "up ready 100% maxconn:200\n" };
        assert_eq!(rest(stream), expected, "connection {n}");
    }
}

#[test]
fn connections_that_are_held_open_are_closed() {
    let (_node, hcf) = start(9);
    let mut stream = TcpStream::connect(hcf.agent()).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(b"read").unwrap();
    // The answer, and then the end of the connection, although this side never closes.
    assert_eq!(rest(&mut stream), "up ready 100%\n");
}

#[test]
fn one_port_serves_both_of_haproxys_checks() {
    let (_node, hcf) = start(4);
    let http = |request: &str| net::ask(hcf.agent(), request.as_bytes(), LONG).unwrap();
    let head = |status: &str| {
        format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    };
    assert_eq!(http("GET /livez HTTP/1.0\r\n\r\n"), head("200 OK"));
    assert_eq!(http("OPTIONS /readyz HTTP/1.0\r\n\r\n"), head("200 OK"));
    assert_eq!(http("GET /health/read HTTP/1.1\r\nHost: x\r\n\r\n"), head("200 up ready 100%"));
    let drain = "up drain 100% #servers-few: 4 of 6 storage servers usable";
    assert_eq!(
        http("GET /health/rest HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!(
            "HTTP/1.1 503 {drain}\r\nx-envoy-immediate-health-check-fail: true\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
    );
    assert!(
        http("GET /health/rest?drain=404 HTTP/1.0\r\n\r\n")
            .starts_with(&format!("HTTP/1.1 404 {drain}\r\n"))
    );
    assert!(http("GET /health/soft HTTP/1.0\r\n\r\n").contains("\r\nx-envoy-degraded: true\r\n"));
    assert!(http("GET /nowhere HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 404 "));
    assert!(
        http("GET /v1/status HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 404 "),
        "for operators only"
    );
    assert!(http("POST /livez HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 405 "));
    assert!(
        http(&format!("GET /livez HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(9000)))
            .starts_with("HTTP/1.1 431 ")
    );
}

#[test]
fn it_listens_on_ipv6_and_on_a_unix_socket_too() {
    let node = FakeNode::healthy();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent");
    let both = format!("[::1]:0,unix:{}", path.display());
    let mut hcf = Hcf::configured(CONFIG, &["--node", &node.url(), "--agent", &both]);
    let said = hcf.process().stdout();
    let v6 = said.lines().find_map(|line| line.strip_prefix("listening agent [")).unwrap();
    let v6 = format!("[{v6}");
    assert!(said.contains(&format!("listening agent unix:{}\n", path.display())), "{said}");
    wait_until("up", LONG, || ask(&v6, "read\n") == "up ready 100%\n");
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(b"read admin=keep\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "up 100%\n");
    drop(hcf);
}

/// A connection whose question is held: it is the one that is not answered at once.
fn held(agent: &str, question: &str) -> TcpStream {
    wait_for("a question to be held", LONG, || {
        let mut stream = TcpStream::connect(agent).unwrap();
        stream.write_all(question.as_bytes()).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let answered = rest(&mut stream);
        stream.set_read_timeout(Some(LONG)).unwrap();
        answered.is_empty().then_some(stream)
    })
}

/// A held question ends when the verdict changes, and not before; nothing here depends on how long.
#[test]
fn a_held_question_waits_for_a_change() {
    let (node, hcf) = start(9);
    let agent = hcf.agent();
    let question = "write hold=60s as=be/gw1\n";
    let up = "up ready 100% maxconn:200\n";
    let down = "down ready 100% maxconn:200 #servers-few: 3 of 4 storage servers usable\n";
    assert_eq!(ask(agent, question), up, "the first question of a key");
    let mut first = held(agent, question);
    assert_eq!(ask(agent, question), up, "one beside a held one");
    assert_eq!(rest(&mut first), up, "either may be the one who knows nothing");
    let mut first = held(agent, question);
    node.set(Answer::Grid { connected: 3, refused: 0 });
    assert_eq!(rest(&mut first), down);
    // What changed while nobody was held is told at once, too.
    node.set(Answer::Grid { connected: 9, refused: 0 });
    wait_until("up again", LONG, || ask(agent, "write\n") == up);
    assert_eq!(ask(agent, question), up);
    // A hang-up clears the key: the next question is a first one again, answered at once.
    drop(held(agent, question));
    wait_until("the key to be forgotten", LONG, || {
        net::ask(agent, question.as_bytes(), Duration::from_millis(300))
            .is_ok_and(|line| line == up)
    });
    // One that is held to the end of its time gets the same answer again.
    for _ in 0..2 {
        assert_eq!(ask(agent, "read hold=300ms\n"), "up ready 100%\n");
    }
}

/// A question that is sent and not waited for.
fn asked(agent: &str, question: &str) -> TcpStream {
    let mut stream = TcpStream::connect(agent).unwrap();
    stream.write_all(question.as_bytes()).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

/// As when a frozen sidecar goes on: HAProxy has given up what it asked meanwhile, and asks again.
#[test]
fn what_was_said_to_nobody_does_not_count_as_told() {
    let (node, hcf) = start(3);
    let agent = hcf.agent();
    let question = "write hold=60s\n";
    assert!(ask(agent, question).starts_with("down "), "the first question");
    node.set(Answer::Grid { connected: 9, refused: 0 });
    wait_until("another verdict", LONG, || ask(agent, "write\n").starts_with("up "));
    hcf.signal(Signal::Stop);
    drop(asked(agent, question));
    let mut waiting = asked(agent, question);
    hcf.signal(Signal::Cont);
    assert!(rest(&mut waiting).starts_with("up "), "who waits has not heard of the change");
}

/// The same for one that was held while the sidecar froze, beyond its time.
#[test]
fn a_late_answer_does_not_count_as_told() {
    let node = FakeNode::healthy();
    // A freeze must not make the verdict stale, which would be another answer.
    let config = CONFIG.replace("timeout: 400ms", "timeout: 20s");
    let hcf = Hcf::configured(&config, &["--node", &node.url()]);
    wait_until("up", LONG, || ask(hcf.agent(), "write\n").starts_with("up "));
    let agent = hcf.agent();
    let question = "write hold=2s\n";
    assert!(ask(agent, question).starts_with("up "), "the first question");
    let held = held(agent, question);
    hcf.signal(Signal::Stop);
    drop(held);
    pause(Duration::from_millis(2500));
    let mut waiting = asked(agent, question);
    hcf.signal(Signal::Cont);
    assert!(!rest(&mut waiting).is_empty());
    let metrics = http::get(hcf.status(), "/metrics").unwrap().text();
    let held = "hcf_held_questions_total{outcome=\"time\"} 0\n";
    assert!(metrics.contains(held), "it was not held: {metrics}");
}

/// HAProxy takes a tracked check that recovers for more than what its agent said before.
#[test]
fn a_bad_word_is_repeated_before_the_time_is_up() {
    let (_node, hcf) = start(3);
    for _ in 0..3 {
        assert!(ask(hcf.agent(), "write hold=60s\n").starts_with("down "));
    }
}

#[test]
fn a_held_question_ends_when_the_sidecar_stops() {
    let (_node, mut hcf) = start(9);
    let question = "read hold=60s\n";
    assert_eq!(ask(hcf.agent(), question), "up ready 100%\n");
    let mut held = held(hcf.agent(), question);
    hcf.signal(Signal::Term);
    assert_eq!(rest(&mut held), "up drain 100% #shutdown: the sidecar is stopping\n");
    assert_eq!(hcf.process().wait_end(LONG).code(), Some(0));
}

/// What comes until the end of the connection, or until nothing came for the read timeout.
fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// Out of descriptors, a listener neither dies nor goes deaf: it serves again when there are some.
#[test]
fn a_listener_outlives_a_lack_of_descriptors() {
    let (_node, mut hcf) = start(9);
    let pid = hcf.process().pid().to_string();
    let limit = |count: &str| {
        let done =
            Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={count}")]).status();
        assert!(done.expect("util-linux has prlimit").success());
    };
    limit("40:4096");
    let idle: Vec<TcpStream> =
        (0..100).map(|_| TcpStream::connect(hcf.health()).unwrap()).collect();
    wait_until("accept to fail", LONG, || hcf.log().contains("Cannot accept connections"));
    drop(idle);
    for _ in 0..100 {
        assert_eq!(ask(hcf.agent(), "read\n"), "up ready 100%\n");
    }
    // Once for each listener that lacked one.
    assert!(hcf.log().matches("Cannot accept connections").count() <= 2, "{}", hcf.log());
}

/// Whoever fills the port with held questions cannot keep others out: the one that was held longest
/// is answered to make room.
#[test]
fn a_port_full_of_held_questions_answers_a_new_asker() {
    let (_node, hcf) = start(9);
    let mut open = Vec::new();
    // Asked once a key is answered, and asked again it is held.
    for n in 0..2400 {
        let question = format!("read hold=60s as=a/{n}\n");
        assert_eq!(ask(hcf.agent(), &question), "up ready 100%\n");
        open.push(asked(hcf.agent(), &question));
    }
    for _ in 0..20 {
        assert_eq!(ask(hcf.agent(), "read\n"), "up ready 100%\n");
    }
    drop(open);
}

#[test]
fn a_held_question_takes_no_more_than_a_question() {
    let (_node, hcf) = start(9);
    let question = "read hold=60s\n";
    assert_eq!(ask(hcf.agent(), question), "up ready 100%\n");
    let mut held = held(hcf.agent(), question);
    wait_until("the connection to end", LONG, || held.write_all(&[b'x'; 1 << 12]).is_err());
    assert_eq!(ask(hcf.agent(), "read\n"), "up ready 100%\n");
}
