//! Trouble that has broken other programs of this kind, and what must hold meanwhile. Each test says so above it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use super::failures::status;
use super::operator::{Desk, UP, wait_up};
use super::reload::edit;
use crate::lab::fake::{Answer, FakeNode, large_page, page};
use crate::lab::haproxy::{Haproxy, Stat, Version};
use crate::lab::hcf::{Hcf, ask};
use crate::lab::http::get;
use crate::lab::measure::memory;
use crate::lab::place;
use crate::lab::ports::free_port;
use crate::lab::process::Signal;
use crate::lab::wait::{LONG, wait_until};

/// What the documentation promises that a sidecar stays under, 48 MiB, without what the pages of a released program's file
/// take of it, 9 MiB; in KiB.
const MEMORY: u64 = (48 - 9) << 10;

/// The most memory that a process has had at once, in KiB, without the pages of its file: a debug build has twice as many.
fn peak(hcf: &mut Hcf) -> u64 {
    let pid = hcf.process().pid();
    memory(pid, "VmHWM").unwrap() - memory(pid, "RssFile").unwrap()
}

/// Under a memory limit that its documentation names, a sidecar is not killed for what its node sends, be it a page of
/// 8 MiB at each look, or one without an end; nor for what operators ask of it meanwhile.
#[test]
fn large_pages_leave_memory_under_its_bound() {
    let node = FakeNode::healthy();
    let config =
        "node: {every: 50ms, timeout: 10s}\nservices: {write: {criteria: {servers: {min: 4}}}}\n";
    let mut hcf = Hcf::configured(config, &["--node", &node.url()]);
    wait_up(&hcf);
    let pages = [
        (Answer::Page(large_page(5)), UP),
        (Answer::Huge(100 << 20), "down ready 100% #too-large"),
    ];
    for (answer, said) in pages {
        node.set(answer);
        let looks = node.requests();
        wait_until("some large pages", LONG, || node.requests() >= looks + 8);
        for path in ["/", "/v1/status", "/metrics"] {
            assert_eq!(get(hcf.status(), path).unwrap().status, 200, "{path}");
        }
        let answer = ask(hcf.agent(), "write\n");
        assert!(answer.starts_with(said), "{answer}");
    }
    let peak = peak(&mut hcf);
    assert!(peak < MEMORY, "{peak} KiB");
}

/// A line without an end is not kept, however many send one (two peers held 96 MB of it), and whoever asks in earnest
/// is answered meanwhile.
#[test]
fn endless_lines_are_not_kept() {
    let node = FakeNode::healthy();
    let config = "services: {write: {criteria: {servers: {min: 4}}}}\n";
    let mut hcf = Hcf::configured(config, &["--node", &node.url()]);
    wait_up(&hcf);
    let chunk = vec![b'x'; 1 << 20];
    for listener in [hcf.agent(), hcf.health(), hcf.status()] {
        let mut streams: Vec<TcpStream> =
            (0..8).map(|_| TcpStream::connect(listener).unwrap()).collect();
        for stream in &mut streams {
            stream.set_write_timeout(Some(LONG)).unwrap();
            // It is refused on the way.
            for _ in 0..12 {
                if stream.write_all(&chunk).is_err() {
                    break;
                }
            }
        }
        assert_eq!(ask(hcf.agent(), "write\n"), UP);
    }
    let peak = peak(&mut hcf);
    assert!(peak < MEMORY, "{peak} KiB");
}

/// Whoever reads nothing, or writes one byte now and then, takes a place for a time, and nothing from others.
#[test]
fn slow_peers_on_every_listener_cost_the_others_nothing() {
    let (desk, node) = (Desk::new(), FakeNode::healthy());
    node.serve_clients("node");
    let more = "gates: {web: {listen: '127.0.0.1:0', when_bad: refuse_uri}, raw: {listen: '127.0.0.1:0', when_bad: pass}}\n\
                listen: {agent: '127.0.0.1:0', health: '127.0.0.1:0', status: '127.0.0.1:0', grpc: '127.0.0.1:0'}\n";
    // Patient, since the node has much to do for the gates.
    let config = desk.config(more).replace("400ms", "10s");
    let mut hcf = Hcf::configured(&config, &["--node", &node.url()]);
    wait_up(&hcf);
    let names = ["agent", "health", "status", "grpc", "gate/web", "gate/raw"];
    let addresses: Vec<String> = names.iter().map(|name| hcf.address(name).to_owned()).collect();
    let mut slow = Vec::new();
    for address in &addresses {
        for n in 0..50 {
            let mut stream = TcpStream::connect(address).unwrap();
            let said: &[u8] = match n % 3 {
                // A byte, and then nothing.
                0 => b"G",
                // As many answers as the socket takes, and none is read.
                1 => &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2000),
                _ => b"GET /v1/watch HTTP/1.1\r\nHost: x\r\n\r\n",
            };
            stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
            let _ = stream.write_all(said);
            slow.push(stream);
        }
    }
    let mut admin: Vec<UnixStream> =
        (0..50).map(|_| UnixStream::connect(desk.socket()).unwrap()).collect();
    for stream in &mut admin {
        stream
            .write_all(b"PUT /v1/overrides/write HTTP/1.1\r\nContent-Length: 100\r\n\r\n{")
            .unwrap();
    }
    assert_eq!(ask(hcf.agent(), "write\n"), UP);
    assert_eq!(get(hcf.health(), "/health/write").unwrap().status, 200);
    assert_eq!(get(hcf.status(), "/").unwrap().status, 200);
    for gate in &addresses[4..] {
        let answer = get(gate, "/uri/x").unwrap();
        assert_eq!(answer.status, 200, "{}\n{}", answer.text(), hcf.log());
    }
    desk.order(&["drain", "--reason", "slow"]);
    assert!(ask(hcf.agent(), "write\n").starts_with("up drain"));
    // Who has not asked by now is not waited for.
    for stream in slow.iter_mut().take(1) {
        stream.set_read_timeout(Some(LONG)).unwrap();
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard);
        assert!(heard.ends_with(b"\n"), "the agent port takes silence for the end of a question");
    }
    let peak = peak(&mut hcf);
    assert!(peak < MEMORY, "{peak} KiB");
}

/// A client of a gate that takes nothing of a large answer keeps a part of it in memory, and one that does not end its
/// head all of that; hundreds of them keep a bounded amount, and nothing from others.
#[test]
fn clients_that_stall_at_a_gate_leave_memory_under_its_bound() {
    const STALLED: usize = 700;
    let _ = rlimit::increase_nofile_limit(8192);
    let node = FakeNode::healthy();
    let bytes = vec![b'x'; 384 << 10];
    node.serve_by(move |stream, head, _| {
        if head.starts_with("GET /short") {
            return stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").ok();
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 393216\r\n\r\n").ok()?;
        stream.write_all(&bytes).ok()?;
        stream.read_exact(&mut [0]).ok()
    });
    let config = "node: {timeout: 10s}\n\
                  services: {write: {criteria: {servers: {min: 4}}}}\n\
                  gates: {web: {listen: '127.0.0.1:0', when_bad: refuse_uri}}\n";
    let mut hcf = Hcf::configured(config, &["--node", &node.url()]);
    wait_up(&hcf);
    let gate: SocketAddr = hcf.address("gate/web").parse().unwrap();
    let asks = |head: &[u8]| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        // So that the kernel takes little of an answer on the way.
        socket.set_recv_buffer_size(1).unwrap();
        socket.set_tcp_mss(536).unwrap();
        socket.connect(&gate.into()).unwrap();
        let mut stream = TcpStream::from(socket);
        stream.write_all(head).unwrap();
        stream
    };
    let long = [&b"GET /short HTTP/1.1\r\nHost: x\r\nCookie: "[..], &vec![b'x'; 10 << 10]].concat();
    let ended = [&long[..], b"\r\nConnection: close\r\n\r\n"].concat();
    let answer = |mut stream: TcpStream| {
        stream.set_read_timeout(Some(LONG)).unwrap();
        let mut heard = String::new();
        stream.read_to_string(&mut heard).map(|_| heard).unwrap()
    };
    let stalled: Vec<TcpStream> =
        (0..STALLED).map(|_| asks(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n")).collect();
    let mut before = 0;
    wait_until("nobody takes any more", LONG, || {
        let scrape = get(hcf.status(), "/metrics").unwrap().text();
        let sent =
            scrape.lines().find(|line| line.starts_with("hcf_gate_sent_bytes_total")).unwrap();
        let sent: usize = sent.rsplit(' ').next().unwrap().parse().unwrap();
        let ended = sent > STALLED * 4096 && sent == before;
        before = sent;
        ended
    });
    assert!(answer(asks(&ended)).starts_with("HTTP/1.1 200 "), "there is room for a long head");
    let heads: Vec<TcpStream> = (0..100).map(|_| asks(&long)).collect();
    wait_until("no room for another long head", LONG, || {
        answer(asks(&ended)).starts_with("HTTP/1.1 503 ")
    });
    assert_eq!(get(&gate.to_string(), "/short").unwrap().text(), "hi");
    assert_eq!(ask(hcf.agent(), "write\n"), UP);
    let peak = peak(&mut hcf);
    assert!(peak < MEMORY, "{peak} KiB");
    drop((stalled, heads));
    wait_until("room again", LONG, || answer(asks(&ended)).starts_with("HTTP/1.1 200 "));
}

/// With every listener flooded by connections that ask nothing, and no descriptor to spare, HAProxy is still answered,
/// the node is still looked at, and an operator can still order: nobody's connections take what others need.
#[test]
fn a_flood_of_connections_keeps_neither_haproxy_nor_operators_out() {
    let (desk, node) = (Desk::new(), FakeNode::healthy());
    node.serve_clients("node");
    let agent = free_port();
    let more = format!(
        "gates: {{web: {{listen: '127.0.0.1:0', when_bad: refuse_uri}}}}\n\
         listen: {{agent: '127.0.0.1:{agent}', health: '127.0.0.1:0', status: '127.0.0.1:0'}}\n"
    );
    let config = desk.config(&more).replace("400ms", "10s");
    let hcf = Hcf::limited(400, &config, &["--node", &node.url()]);
    wait_up(&hcf);
    let haproxy = Haproxy::start(
        Version::V2_6,
        &format!(
            "defaults\n  mode http\n  timeout connect 5s\n  timeout client 5s\n  timeout server 5s\n  timeout check 5s\n\
             backend be\n  server gw1 {} agent-check agent-inter 100ms agent-port {agent} agent-send \"write\\n\"\n",
            node.addr
        ),
    );
    haproxy.wait_stat("be", "gw1", "is up", |stat| stat.is_up() && stat.agent_status() == "L7OK");
    let mut flood = Vec::new();
    for address in [hcf.agent(), hcf.health(), hcf.status(), hcf.address("gate/web")] {
        for n in 0..300 {
            let mut stream = TcpStream::connect(address).unwrap();
            // Half of them as if they were about to ask.
            if n % 2 == 0 {
                let _ = stream.write_all(b"write hold=60s");
            }
            flood.push(stream);
        }
    }
    desk.order(&["drain", "--reason", "flood"]);
    haproxy.wait_stat("be", "gw1", "drains", |stat| stat.status().contains("DRAIN"));
    desk.order(&["clear"]);
    haproxy.wait_stat("be", "gw1", "is up", Stat::is_up);
    let looks = node.requests();
    wait_until("looks that go on", LONG, || node.requests() > looks + 5);
    assert_eq!(ask(hcf.agent(), "write\n"), UP);
    drop(flood);
    assert_eq!(get(hcf.health(), "/health/write").unwrap().status, 200);
    assert!(hcf.log().lines().count() < 40, "no line per connection:\n{}", hcf.log());
}

/// Signals that operators and scripts send by habit end nothing (several peers died of SIGHUP, one of SIGUSR1).
#[test]
fn no_usual_signal_ends_it() {
    let node = FakeNode::healthy();
    let config = "services: {write: {criteria: {servers: {min: 4}}}}\n";
    let mut hcf = Hcf::configured(config, &["--node", &node.url()]);
    wait_up(&hcf);
    let pid = hcf.process().pid().to_string();
    for signal in ["USR1", "USR2", "HUP", "PIPE", "WINCH", "CHLD", "URG"] {
        for _ in 0..20 {
            assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
        }
        hcf.process().must_run();
        assert_eq!(ask(hcf.agent(), "write\n"), UP, "after SIG{signal}");
    }
    hcf.signal(Signal::Term);
    assert_eq!(hcf.process().wait_end(LONG).code(), Some(0));
}

/// Names whose resolving waits: in the place of /etc/hosts a sidecar has a pipe, which nobody opens at its other end.
struct SlowNames {
    folder: TempDir,
}

impl SlowNames {
    fn new() -> Self {
        let names = Self { folder: place::folder("names") };
        let made = Command::new("mkfifo").arg(names.pipe()).status().expect("mkfifo can be run");
        assert!(made.success());
        names
    }

    fn pipe(&self) -> PathBuf {
        self.folder.path().join("hosts")
    }

    /// A sidecar that has them.
    fn sidecar(&self, config: &str, args: &[&str]) -> Hcf {
        let mount = format!("mount --bind {} /etc/hosts && exec \"$@\"", self.pipe().display());
        let mut starter = vec!["unshare", "--mount"];
        if !is_root() {
            starter.push("--map-root-user");
        }
        starter.extend(["sh", "-c", &mount, "sh"]);
        Hcf::configured_under(&starter, config, args)
    }
}

/// A node's name that nobody resolves is waited for aside: looks fail in their time, and every answer goes on.
#[test]
fn a_name_that_does_not_resolve_delays_no_answer() {
    let names = SlowNames::new();
    let config =
        "node: {every: 100ms, timeout: 300ms, url: 'http://gateway.hcf-test.example:3456'}\n";
    let hcf = names.sidecar(config, &[]);
    wait_until("a look that failed", LONG, || status(&hcf)["node"]["failure"]["code"] == "timeout");
    for _ in 0..50 {
        assert!(ask(hcf.agent(), "write\n").starts_with("down ready 100% #"));
        assert_eq!(get(hcf.health(), "/health/write").unwrap().status, 503);
    }
}

/// So is a listener's at a reload: looks and answers go on, the old configuration stays, and no port of the new one is
/// taken, so that a better one can have it.
#[test]
fn a_listener_whose_name_does_not_resolve_delays_nothing_else() {
    let (names, node) = (SlowNames::new(), FakeNode::healthy());
    let config = "node: {every: 50ms}\nservices: {write: {criteria: {servers: {min: 4}}}}\n\
                  listen: {agent: '127.0.0.1:0', status: '127.0.0.1:0', health: '127.0.0.1:0'}\n";
    let mut hcf = names.sidecar(config, &["--node", &node.url()]);
    wait_up(&hcf);
    let looks = node.requests();
    let (old, here) = ("health: '127.0.0.1:0'", format!("127.0.0.1:{}", free_port()));
    let late = format!("health: ['{here}', 'late.hcf-test.example:5291']");
    edit(&hcf, old, &late);
    wait_until("the reload to be given up", LONG, || {
        assert_eq!(ask(hcf.agent(), "write\n"), UP);
        hcf.log()
            .contains("Not reloaded, the old configuration stays: resolving the hosts of its listeners takes too long")
    });
    assert!(node.requests() > looks + 20, "it looks on");
    assert_eq!(get(hcf.health(), "/health/write").unwrap().status, 200);
    assert!(get(&here, "/health/write").is_err(), "nobody listens there");
    edit(&hcf, &late, &format!("health: '{here}'"));
    wait_until("the next reload", LONG, || get(&here, "/health/write").is_ok());
    hcf.signal(Signal::Term);
    assert_eq!(hcf.process().wait_end(LONG).code(), Some(0));
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("id can be run");
    String::from_utf8_lossy(&id.stdout).trim() == "0"
}

/// The wall clock of the machine steps by a day, either way: no verdict changes for it, and nothing goes stale.
#[test]
fn a_wall_clock_that_steps_changes_no_verdict() {
    let node = FakeNode::healthy();
    let folder = place::folder("clock");
    let offset = folder.path().join("offset");
    std::fs::write(&offset, "+0").unwrap();
    let files = Command::new("dpkg").args(["-L", "libfaketime"]).output().expect("dpkg can be run");
    let files = String::from_utf8(files.stdout).unwrap();
    let library = files.lines().find(|file| file.ends_with("/libfaketime.so.1"));
    let library = format!("LD_PRELOAD={}", library.expect("deploy/parts installs libfaketime"));
    let file = format!("FAKETIME_TIMESTAMP_FILE={}", offset.display());
    let starter = ["env", &library, &file, "FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1"];
    let config = "node: {every: 50ms}\nservices: {write: {criteria: {servers: {min: 4}}}}\n";
    let hcf = Hcf::configured_under(&starter, config, &["--node", &node.url()]);
    wait_up(&hcf);
    let looked = |page: Vec<u8>| {
        node.set(Answer::Page(page));
        let looks = node.requests();
        wait_until("some looks", LONG, || node.requests() > looks + 6);
    };
    let seq = || status(&hcf)["services"]["write"]["seq"].clone();
    let before = seq();
    let mut noted = page(10, 0);
    for (step, days) in [("+1d", 1.0), ("-1d", -1.0), ("+0", 0.0)] {
        // What the node has noted before the step stays as it was noted; what it notes afterwards is by the new time.
        looked(noted.clone());
        std::fs::write(&offset, step).unwrap();
        looked(noted);
        noted = page_at(days * 86_400.0);
        looked(noted.clone());
        assert_eq!(ask(hcf.agent(), "write\n"), UP, "{step}");
        assert_eq!(seq(), before, "{step}: the verdict is the same one\n{}", hcf.log());
        if step == "+1d" {
            let shown = status(&hcf)["node"]["observed"].as_str().unwrap().to_owned();
            let here = humantime::parse_rfc3339(&shown).unwrap();
            let ahead = here.duration_since(std::time::SystemTime::now()).unwrap_or_default();
            assert!(ahead > Duration::from_hours(12), "the clock was stepped: {shown}");
        }
    }
}

/// A page by a clock that is so many seconds ahead.
fn page_at(ahead: f64) -> Vec<u8> {
    let mut page: Value = serde_json::from_slice(&page(10, 0)).unwrap();
    for server in page["servers"].as_array_mut().unwrap() {
        let heard = server["last_received_data"].as_f64().unwrap();
        server["last_received_data"] = (heard + ahead).into();
    }
    page.to_string().into_bytes()
}
