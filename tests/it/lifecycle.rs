//! The life cycle: what the service manager hears, what is said on the way out, what a restart remembers, and sockets
//! that outlive the process.

use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::failures::status;
use super::gate::{BAD, is_refused};
use super::operator::{Desk, UP, wait_up};
use crate::lab::fake::{Answer, FakeNode};
use crate::lab::haproxy::{Haproxy, Version};
use crate::lab::hcf::{Hcf, Launch, ask, port};
use crate::lab::http::get;
use crate::lab::net;
use crate::lab::ports::free_port;
use crate::lab::process::Signal;
use crate::lab::wait::{LONG, wait_until};

/// Keeps the last word standing at a stop, and looks patiently enough that a restart is soon after the last look.
const KEEP: &str = "shutdown: {say: keep}\n";

/// Listeners on ports of the kernel's choice.
const ANY: [&str; 6] =
    ["--agent", "127.0.0.1:0", "--health", "127.0.0.1:0", "--status", "127.0.0.1:0"];

/// Stops it as a service manager does.
fn stop(hcf: &mut Hcf) {
    hcf.signal(Signal::Term);
    assert_eq!(hcf.process().wait_end(LONG).code(), Some(0), "{}", hcf.log());
}

/// The service manager's end of `NOTIFY_SOCKET`.
struct Manager {
    socket: UnixDatagram,
    path: String,
}

impl Manager {
    fn at(desk: &Desk) -> Self {
        let path = desk.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        Self { socket, path: path.display().to_string() }
    }

    /// The next message; `None` when none comes within a time.
    fn next(&self, time: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(time)).unwrap();
        let mut message = [0; 4096];
        let length = self.socket.recv(&mut message).ok()?;
        Some(String::from_utf8_lossy(&message[..length]).into_owned())
    }

    /// Reads to the next message that holds this.
    fn hears(&self, part: &str) -> String {
        loop {
            let message = self.next(LONG).unwrap_or_else(|| panic!("never heard {part}"));
            if message.contains(part) {
                return message;
            }
        }
    }
}

#[test]
fn the_service_manager_hears_how_it_goes() {
    let (desk, node) = (Desk::new(), FakeNode::healthy());
    let manager = Manager::at(&desk);
    std::fs::write(desk.path("hcf.yaml"), desk.config(KEEP)).unwrap();
    let file = desk.path("hcf.yaml").display().to_string();
    let (url, variables) = (node.url(), [("NOTIFY_SOCKET", manager.path.as_str())]);
    let args = [&["-c", &file, "--node", &url][..], &ANY].concat();
    let launch = || Launch { args: &args, variables: &variables, inherited: None };
    let mut hcf = Hcf::launch(launch()).ready();
    let verdicts = "STATUS=read: up ready 100%; write: up ready 100%";
    // One comes after the first look and the other after the second, from two tasks.
    let mut wanted = vec!["READY=1", verdicts];
    while !wanted.is_empty() {
        let message = manager.next(LONG).unwrap_or_else(|| panic!("never heard {wanted:?}"));
        wanted.retain(|part| !message.contains(part));
    }
    node.set(BAD);
    manager.hears("write: down ready 100% #servers-few: 3 of 4");
    hcf.signal(Signal::Hup);
    assert!(manager.hears("RELOADING=1").contains("MONOTONIC_USEC="));
    manager.hears("READY=1");
    node.set(Answer::Grid { connected: 10, refused: 0 });
    manager.hears(verdicts);
    hcf.signal(Signal::Term);
    manager.hears("STOPPING=1");
    assert_eq!(hcf.process().wait_end(LONG).code(), Some(0));
    // A start that remembers says so, too, although nothing has changed.
    let _hcf = Hcf::launch(launch());
    manager.hears(verdicts);
}

#[test]
fn the_watchdog_is_fed_by_the_judge_and_starves_with_it() {
    let (desk, node) = (Desk::new(), FakeNode::start(Answer::Hang));
    let manager = Manager::at(&desk);
    let url = node.url();
    // Looks are so rare that they do not feed it.
    std::fs::write(desk.path("hcf.yaml"), "node: {every: 1h, timeout: 5m}\n").unwrap();
    let file = desk.path("hcf.yaml").display().to_string();
    let args = [&["-c", &file, "--node", &url][..], &ANY].concat();
    let variables = [("NOTIFY_SOCKET", manager.path.as_str()), ("WATCHDOG_USEC", "200000")];
    let hcf = Hcf::launch(Launch { args: &args, variables: &variables, inherited: None });
    for _ in 0..5 {
        manager.hears("WATCHDOG=1");
    }
    hcf.signal(Signal::Stop);
    wait_until("silence", LONG, || manager.next(Duration::from_secs(1)).is_none());
    hcf.signal(Signal::Cont);
    manager.hears("WATCHDOG=1");
}

#[test]
fn a_stop_says_what_it_is_told_to_say_while_it_still_answers() {
    let node = FakeNode::healthy();
    for (say, line, code) in [
        ("drain", "up drain 100% #shutdown: the sidecar is stopping\n", 503),
        ("down", "down ready 100% #shutdown: the sidecar is stopping\n", 503),
    ] {
        let desk = Desk::new();
        let mut hcf = desk.sidecar(&node, &format!("shutdown: {{say: {say}, announce: 1h}}\n"));
        wait_up(&hcf);
        hcf.signal(Signal::Term);
        wait_until("the announcement", LONG, || ask(hcf.agent(), "write\n") == line);
        assert_eq!(get(hcf.health(), "/health").unwrap().status, code);
        let run = desk.run(&["reload"]);
        assert_eq!(run.exit, 1, "{run:?}");
        hcf.signal(Signal::Term);
        assert_eq!(hcf.process().wait_end(LONG).code(), Some(0));
        assert!(!desk.socket().exists(), "the file of its socket goes with it");
    }
    let mut hcf = Desk::new().sidecar(&node, "shutdown: {say: keep, announce: 1h}\n");
    wait_up(&hcf);
    stop(&mut hcf);
}

#[test]
fn a_stop_before_the_first_look_ends_at_once() {
    let (desk, node) = (Desk::new(), FakeNode::start(Answer::Hang));
    let config = desk.config("shutdown: {announce: 1h}\n").replace("400ms", "5m");
    std::fs::write(desk.path("hcf.yaml"), config).unwrap();
    let file = desk.path("hcf.yaml").display().to_string();
    let mut hcf = Hcf::spawn(&["-c", &file, "--node", &node.url()]);
    hcf.wait_listening("status");
    stop(&mut hcf);
    assert!(!desk.socket().exists(), "the file of its socket goes with it");
}

/// Two starts of one sidecar: what the second one says before it has looked at the node.
struct Restart {
    desk: Desk,
    node: FakeNode,
}

impl Restart {
    /// A first one that was up, drained by nobody, and was stopped.
    fn new() -> Self {
        let restart = Self { desk: Desk::new(), node: FakeNode::healthy() };
        // So long that a slow machine finds the last look fresh.
        let config = restart.desk.config(KEEP).replace("400ms", "1m").replace("50ms", "1s");
        std::fs::write(restart.file(), config).unwrap();
        let mut first = restart.start();
        first.wait_ready();
        wait_up(&first);
        stop(&mut first);
        restart.node.set(Answer::Hang);
        restart
    }

    fn file(&self) -> PathBuf {
        self.desk.path("hcf.yaml")
    }

    fn kept(&self) -> PathBuf {
        self.desk.path("state/verdicts.json")
    }

    fn start(&self) -> Hcf {
        Hcf::spawn(&["-c", &self.file().display().to_string(), "--node", &self.node.url()])
    }

    /// What the second one says while its first look hangs.
    fn says(&self) -> String {
        let looks = self.node.requests();
        let mut hcf = self.start();
        hcf.wait_listening("agent");
        wait_until("a look at once", LONG, || self.node.requests() > looks);
        ask(hcf.agent(), "write\n")
    }
}

#[test]
fn a_restart_goes_on_from_the_last_verdict() {
    let restart = Restart::new();
    assert_eq!(restart.says(), UP);
    // It was killed in the midst of it, and what it had read is not there for a second time.
    assert!(restart.says().contains("#starting: "));
}

#[test]
fn a_start_that_is_stopped_before_its_first_look_passes_on_what_it_remembers() {
    let restart = Restart::new();
    for _ in 0..2 {
        let mut hcf = restart.start();
        hcf.wait_listening("agent");
        assert_eq!(ask(hcf.agent(), "write\n"), UP);
        stop(&mut hcf);
    }
    assert_eq!(restart.says(), UP);
}

#[test]
fn a_restart_forgets_what_does_not_count_any_more() {
    let changes: [fn(&Restart); 5] = [
        |restart| {
            let config = std::fs::read_to_string(restart.file()).unwrap();
            std::fs::write(restart.file(), config.replace("min: 4", "min: 5")).unwrap();
        },
        |restart| std::fs::write(restart.kept(), "{torn").unwrap(),
        |restart| rewrite(restart, "boot_id", "another start".into()),
        |restart| rewrite(restart, "fresh_until", serde_json::json!({"secs": 1, "nanos": 0})),
        |restart| std::fs::remove_file(restart.kept()).unwrap(),
    ];
    for (n, change) in changes.iter().enumerate() {
        let restart = Restart::new();
        change(&restart);
        let said = restart.says();
        assert!(said.starts_with("down ready 100% #starting: "), "change {n}: {said}");
    }
}

fn rewrite(restart: &Restart, key: &str, to: Value) {
    let mut kept: Value = serde_json::from_slice(&std::fs::read(restart.kept()).unwrap()).unwrap();
    assert!(kept.get(key).is_some(), "{kept}");
    kept[key] = to;
    std::fs::write(restart.kept(), kept.to_string()).unwrap();
}

#[test]
fn an_announced_stop_is_not_remembered_as_a_verdict() {
    let restart = Restart::new();
    restart.node.set(Answer::Grid { connected: 10, refused: 0 });
    let config = std::fs::read_to_string(restart.file()).unwrap();
    let config = config.replace("say: keep", "say: down, announce: 100ms");
    std::fs::write(restart.file(), config).unwrap();
    let mut hcf = restart.start();
    hcf.wait_ready();
    wait_up(&hcf);
    stop(&mut hcf);
    restart.node.set(Answer::Hang);
    assert_eq!(restart.says(), UP);
}

/// A sidecar that is given a socket.
fn given(desk: &Desk, node: &FakeNode, config: &str, name: &str, socket: OwnedFd) -> Hcf {
    std::fs::write(desk.path("hcf.yaml"), config).unwrap();
    let file = desk.path("hcf.yaml").display().to_string();
    let args = ["-c", &file, "--node", &node.url()];
    Hcf::launch(Launch { args: &args, variables: &[], inherited: Some((socket, name)) })
}

/// A socket that a process blocks on, as service managers open them.
fn listening() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

fn copy(listener: &TcpListener) -> OwnedFd {
    listener.try_clone().unwrap().into()
}

const OTHERS: &str = "health: '127.0.0.1:0', status: '127.0.0.1:0'}\n";

#[test]
fn an_inherited_socket_takes_its_listeners_place_and_stays_through_reloads() {
    let node = FakeNode::healthy();
    for by_name in [true, false] {
        let desk = Desk::new();
        let (listener, address) = listening();
        let free = format!("127.0.0.1:{}", free_port());
        let asked = if by_name { &free } else { &address };
        let config = desk.config(&format!("listen: {{agent: '{asked}', {OTHERS}"));
        let name = if by_name { "agent" } else { "hcf.socket" };
        let hcf = given(&desk, &node, &config, name, copy(&listener)).ready();
        assert_eq!(hcf.agent(), address);
        wait_up(&hcf);
        assert!(is_refused(&free), "nothing else is opened for it");
        for (from, to) in [("every: 50ms", "every: 60ms"), (asked.as_str(), "127.0.0.1:1")] {
            std::fs::write(desk.path("hcf.yaml"), config.replace(from, to)).unwrap();
            let run = desk.run(&["reload"]);
            assert_eq!(run.exit, 0, "{run:?}");
            assert_eq!(ask(&address, "write\n"), UP);
        }
    }
}

#[test]
fn an_inherited_socket_can_be_a_gates_unless_the_gate_must_close() {
    let node = FakeNode::healthy();
    let desk = Desk::new();
    let (listener, address) = listening();
    let config = |gate: &str| {
        let gates = format!("gates: {{web: {{listen: 'localhost:1', when_bad: {gate}}}}}\n");
        desk.config(&format!("listen: {{agent: '127.0.0.1:0', {OTHERS}{gates}"))
    };
    let mut refused = given(&desk, &node, &config("close"), "gate/web", copy(&listener));
    assert_eq!(refused.process().wait_end(LONG).code(), Some(78));
    assert!(refused.log().contains("hcf: gates.web: "), "{}", refused.log());
    let hcf = given(&desk, &node, &config("refuse_uri"), "gate/web", copy(&listener)).ready();
    let page = || get(&address, "/?t=json").unwrap().status;
    wait_until("up", LONG, || page() == 200);
    let reload = |config: String| {
        std::fs::write(desk.path("hcf.yaml"), config).unwrap();
        desk.run(&["reload"])
    };
    let run = reload(config("refuse_uri").replace("50ms", "60ms"));
    assert_eq!((run.exit, page()), (0, 200), "{run:?}");
    let run = reload(config("pass"));
    assert_eq!((run.exit, page()), (0, 200), "{run:?}");
    let run = reload(config("close"));
    assert_eq!((run.exit, page()), (78, 200), "{run:?}");
    assert!(run.stderr.contains("gates.web: "), "{}", run.stderr);
    assert_eq!(status(&hcf)["gates"][0]["when_bad"], "pass");
}

#[test]
fn an_inherited_socket_of_the_wrong_kind_is_refused_and_one_that_nobody_wants_is_named() {
    let (desk, node) = (Desk::new(), FakeNode::healthy());
    let config = desk.config("listen: {agent: '127.0.0.1:0', health: off, status: off}\n");
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let deaf = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    for socket in [OwnedFd::from(udp), deaf.into(), file.into()] {
        let mut hcf = given(&desk, &node, &config, "agent", socket);
        assert_eq!(hcf.process().wait_end(LONG).code(), Some(1));
        let said = hcf.log();
        assert!(said.contains("hcf: cannot use the inherited socket `agent`: "), "{said}");
        assert!(said.trim_end().lines().count() == 1, "{said}");
    }
    let (listener, _) = listening();
    let hcf = given(&desk, &node, &config, "metrics", copy(&listener)).ready();
    assert!(hcf.log().contains("an inherited socket is closed"), "{}", hcf.log());
}

#[test]
fn health_checks_on_an_inherited_socket_do_not_fail_through_a_restart() {
    let (desk, node) = (Desk::new(), FakeNode::healthy());
    let (listener, address) = listening();
    let others = "agent: '127.0.0.1:0', status: '127.0.0.1:0'";
    let config = desk.config(&format!("{KEEP}listen: {{{others}, health: '{address}'}}\n"));
    let config = config.replace("400ms", "10s");
    let start = || given(&desk, &node, &config, "health", copy(&listener)).ready();
    let mut hcf = start();
    let check = || get(&address, "/health/write").map(|answer| answer.status);
    wait_until("up", LONG, || check().is_ok_and(|status| status == 200));
    let done = AtomicBool::new(false);
    let bad = std::thread::scope(|scope| {
        let asker = scope.spawn(|| {
            let mut bad = Vec::new();
            while !done.load(Ordering::SeqCst) {
                bad.extend(check().map_or_else(
                    |e| Some(e.to_string()),
                    |status| (status != 200).then(|| status.to_string()),
                ));
            }
            bad
        });
        for _ in 0..10 {
            stop(&mut hcf);
            hcf = start();
        }
        done.store(true, Ordering::SeqCst);
        asker.join().unwrap()
    });
    assert_eq!(bad, [""; 0]);
}

/// HAProxy, which asks every 100 ms, and a client that asks as fast as it can, through restarts.
fn restarts(activated: bool) {
    let (desk, node) = (Desk::new(), FakeNode::healthy());
    let listener = TcpListener::bind(format!("127.0.0.1:{}", free_port())).unwrap();
    let agent = listener.local_addr().unwrap().to_string();
    let config = desk.config(&format!("{KEEP}listen: {{agent: '{agent}', {OTHERS}"));
    // So that the last look is fresh however slow the machine is.
    let config = config.replace("400ms", "10s");
    let held = activated.then_some(listener);
    let start = || {
        if let Some(listener) = &held {
            return given(&desk, &node, &config, "agent", copy(listener)).ready();
        }
        std::fs::write(desk.path("hcf.yaml"), &config).unwrap();
        let file = desk.path("hcf.yaml").display().to_string();
        let args = ["-c", &file, "--node", &node.url()];
        Hcf::launch(Launch { args: &args, ..Launch::default() }).ready()
    };
    let mut hcf = start();
    wait_until("up", LONG, || ask(&agent, "write\n") == UP);
    let haproxy = Haproxy::start(
        Version::V2_6,
        &format!(
            "global\n  log stdout format raw local0\n\
             defaults\n  mode http\n  timeout connect 1s\n  timeout client 1s\n  timeout server 1s\n\
             \x20 timeout check 1s\n  log global\n  option log-health-checks\n\
             backend be\n  server gw1 {} check inter 100ms agent-check agent-inter 100ms \
             agent-port {} agent-send \"write\\n\"\n",
            node.addr,
            port(&agent)
        ),
    );
    let before = haproxy.wait_stat("be", "gw1", "is up and has asked", |stat| {
        stat.is_up() && stat.agent_status() == "L7OK"
    });
    let done = AtomicBool::new(false);
    let (asked, bad) = std::thread::scope(|scope| {
        let asker = scope.spawn(|| {
            let (mut asked, mut bad) = (0, Vec::new());
            while !done.load(Ordering::SeqCst) {
                asked += 1;
                match net::ask(&agent, b"write\n", Duration::from_secs(20)) {
                    Ok(answer) if answer == UP => {}
                    other => bad.push(format!("{other:?}")),
                }
            }
            (asked, bad)
        });
        let watcher = scope.spawn(|| {
            let mut failed = Vec::new();
            while !done.load(Ordering::SeqCst) {
                let stat = haproxy.stat("be", "gw1");
                assert!(stat.is_up(), "{}: {}", stat.status(), stat.last_agent());
                if stat.agent_status() != "L7OK" && !stat.agent_status().starts_with('*') {
                    failed.push(stat.agent_status().to_owned());
                }
            }
            failed
        });
        for _ in 0..5 {
            stop(&mut hcf);
            hcf = start();
            let looks = node.requests();
            wait_until("some looks", LONG, || node.requests() > looks + 4);
        }
        done.store(true, Ordering::SeqCst);
        let failed = watcher.join().expect("HAProxy sees it up all the time");
        if activated {
            assert_eq!(failed, [""; 0], "not one failed agent check");
        }
        asker.join().unwrap()
    });
    assert!(asked > 100, "asked only {asked} times");
    if activated {
        assert_eq!(bad, [""; 0], "of {asked} questions");
    }
    // Without activation a question may be refused; an answer is never another one.
    assert!(bad.iter().all(|bad| bad.starts_with("Err(")), "{bad:?}");
    let after = haproxy.stat("be", "gw1");
    for field in ["chkdown", "downtime", "weight", "status"] {
        assert_eq!(after.field(field), before.field(field), "{field}");
    }
    let log = haproxy.log();
    assert!(!log.contains(" is DOWN") && !log.contains(" is going DOWN"), "{log}");
    if activated {
        assert!(!log.contains("Agent check for server be/gw1 failed"), "{log}");
    }
}

#[test]
fn haproxy_sees_nothing_of_a_restart() {
    restarts(false);
}

#[test]
fn with_socket_activation_not_one_question_fails_through_a_restart() {
    restarts(true);
}
