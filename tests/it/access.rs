//! Who may ask: allow-lists, on every kind of listener.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};

use super::gate::GOOD;
use super::operator::{Desk, UP};
use crate::lab::eds::{Eds, FakeSidecar, word};
use crate::lab::fake::FakeNode;
use crate::lab::hcf::Hcf;
use crate::lab::http::get;
use crate::lab::wait::{LONG, wait_until};

const ONE: Ipv4Addr = Ipv4Addr::LOCALHOST;
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 9, 0, 2);

/// What is said at `to`, in IPv4, to who asks from the address `from`; nothing where it is turned away.
fn ask_from(from: Ipv4Addr, to: &str, question: &str) -> String {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    let port = to.rsplit(':').next().unwrap().parse().unwrap();
    socket.connect(&SocketAddr::from((ONE, port)).into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(LONG)).unwrap();
    let mut answer = Vec::new();
    // Who is turned away may be so before it has asked.
    let _ = stream.write_all(question.as_bytes());
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

const GET: &str = "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// The number of a metric, asked where everybody may.
fn refused(hcf: &Hcf, listener: &str) -> u64 {
    let page = get(hcf.status(), "/metrics").unwrap().text();
    let name = format!("hcf_listener_refused_total{{listener=\"{listener}\"}} ");
    let line = page.lines().find_map(|line| line.strip_prefix(&name));
    line.unwrap_or_else(|| panic!("no {name} in: {page}")).parse().unwrap()
}

#[test]
fn a_listener_answers_only_those_whom_allow_names() {
    let node = FakeNode::healthy();
    let config = format!(
        "node: {{url: '{}', every: 50ms}}\n\
         services: {{write: {{criteria: {{servers: {{min: 4}}}}}}}}\n\
         listen:\n  agent: {{at: '127.0.0.1:0', allow: [127.9.0.0/16]}}\n  \
         health: {{at: '[::]:0', allow: ['::ffff:127.9.0.2', 2001:db8::/32]}}\n  status: '127.0.0.1:0'\n",
        node.url()
    );
    let mut hcf = Hcf::configured(&config, &[]);
    wait_until("up", LONG, || ask_from(OTHER, hcf.agent(), "write\n") == UP);
    let health = hcf.health().to_owned();
    assert!(ask_from(OTHER, &health, GET).starts_with("HTTP/1.1 200 "), "IPv4 over IPv6 is IPv4");
    for _ in 0..5 {
        assert_eq!(ask_from(ONE, hcf.agent(), "write\n"), "");
        assert_eq!(ask_from(ONE, &health, GET), "");
    }
    assert_eq!((refused(&hcf, "agent"), refused(&hcf, "health")), (5, 5));
    assert_eq!(refused(&hcf, "status"), 0);
    let log = hcf.process().log();
    assert_eq!(log.matches("Refused whom").count(), 2, "once each: {log}");
    assert!(log.contains("127.0.0.1") && !log.contains("::ffff:"), "{log}");
}

#[test]
fn a_reload_says_anew_who_may_ask() {
    let (desk, node) = (Desk::new(), FakeNode::healthy());
    let listen = "listen: {agent: {at: '127.0.0.1:0', allow: [127.0.0.1]}, health: off, status: '127.0.0.1:0'}\n";
    let hcf = desk.sidecar(&node, listen);
    wait_until("up", LONG, || ask_from(ONE, hcf.agent(), "write\n") == UP);
    assert_eq!(ask_from(OTHER, hcf.agent(), "write\n"), "");
    let config = std::fs::read_to_string(hcf.file()).unwrap();
    let config = config.replace("allow: [127.0.0.1]", "allow: [127.9.0.2]");
    std::fs::write(hcf.file(), config).unwrap();
    desk.run(&["reload"]);
    assert_eq!(ask_from(OTHER, hcf.agent(), "write\n"), UP);
    assert_eq!(ask_from(ONE, hcf.agent(), "write\n"), "");
}

#[test]
fn a_gate_carries_only_those_whom_allow_names() {
    let node = FakeNode::start(GOOD);
    let (hcf, gate) = super::gate::start(&node, "when_bad: pass, allow: [127.9.0.2]");
    let question = "GET /?t=json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert!(ask_from(OTHER, &gate, question).starts_with("HTTP/1.1 200 "));
    assert_eq!(ask_from(ONE, &gate, question), "");
    assert!(refused(&hcf, "gate") >= 1);
}

#[test]
fn the_page_of_a_fleet_is_shown_only_to_those_whom_allow_names() {
    let sidecar = FakeSidecar::start(&word("up", 100, &[]));
    let nodes = [("gw0".to_owned(), "10.0.0.1:3456".to_owned(), sidecar.url)];
    let config = Eds::config("", &nodes);
    let listen = "listen: {status: {at: '127.0.0.1:0', allow: [127.9.0.2]}}";
    let eds = Eds::start(&config.replace("listen: {status: '127.0.0.1:0'}", listen));
    assert!(ask_from(OTHER, eds.status(), GET).starts_with("HTTP/1.1 200 "));
    assert_eq!(ask_from(ONE, eds.status(), GET), "");
}
