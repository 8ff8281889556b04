//! Reloads: another configuration in force while everything runs, and nobody is refused, flipped or forgotten.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::failures::status;
use super::gate::is_refused;
use super::operator::{Desk, UP, wait_up};
use super::program::Run;
use crate::lab::fake::FakeNode;
use crate::lab::hcf::{Hcf, Launch, ask};
use crate::lab::http::get;
use crate::lab::ports::free_port;
use crate::lab::process::Signal;
use crate::lab::wait::{LONG, wait_until};

/// A sidecar beside this node, whose configuration says everything.
fn start(desk: &Desk, node: &FakeNode, more: &str) -> Hcf {
    let listen = "listen: {agent: '127.0.0.1:0', health: '127.0.0.1:0', status: '127.0.0.1:0'}\n";
    desk.sidecar(node, &format!("{more}{}", if more.contains("listen:") { "" } else { listen }))
}

/// Changes the configuration by replacing one text, and does not say so to anybody.
pub(crate) fn edit(hcf: &Hcf, from: &str, to: &str) {
    let config = std::fs::read_to_string(hcf.file()).unwrap();
    assert!(config.contains(from), "no {from} in: {config}");
    place(hcf, &config.replace(from, to));
}

fn place(hcf: &Hcf, config: &str) {
    let next = hcf.file().with_extension("next");
    std::fs::write(&next, config).unwrap();
    std::fs::rename(next, hcf.file()).unwrap();
}

/// Changes it, and reloads; once more where the sidecar has noticed by itself before the command came.
fn go_over(desk: &Desk, hcf: &Hcf, from: &str, to: &str) -> Run {
    let before = std::fs::read_to_string(hcf.file()).unwrap();
    loop {
        edit(hcf, from, to);
        let run = desk.run(&["reload"]);
        if run.stdout != "nothing has changed\n" {
            return run;
        }
        place(hcf, &before);
        desk.run(&["reload"]);
    }
}

/// Asks all the time while something is done, and says how often; each answer must be good.
fn meanwhile(asking: impl Fn() + Sync, work: impl FnOnce()) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asker = scope.spawn(|| {
            let mut asked = 0;
            while !done.load(Ordering::SeqCst) {
                asking();
                asked += 1;
            }
            asked
        });
        // The asker must be told to end also when the work fails.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.store(true, Ordering::SeqCst);
        let asked = asker.join().expect("every answer is good");
        result.expect("the work is done");
        assert!(asked > 10, "asked only {asked} times");
    });
}

#[test]
fn a_changed_file_is_noticed_however_it_was_changed() {
    let (desk, node) = (Desk::new(), FakeNode::healthy());
    // As Kubernetes mounts it: the file is a link through a directory that is a link.
    let versions = [desk.path("..1"), desk.path("..2")];
    for (dir, min) in versions.iter().zip([4, 20]) {
        std::fs::create_dir(dir).unwrap();
        let config = desk.config("").replace("min: 4", &format!("min: {min}"));
        std::fs::write(dir.join("hcf.yaml"), config).unwrap();
    }
    let link = |to: &Path, at: &Path| {
        let next = desk.path("..next");
        std::os::unix::fs::symlink(to, &next).unwrap();
        std::fs::rename(next, at).unwrap();
    };
    link(&versions[0], &desk.path("..data"));
    let file = desk.path("hcf.yaml");
    link(Path::new("..data/hcf.yaml"), &file);
    let name = file.display().to_string();
    let hcf = Hcf::start(&["-c", &name, "--node", &node.url()]);
    let down = || ask(hcf.agent(), "write\n").starts_with("down ready 100% #servers-few: 10 of 20");
    wait_up(&hcf);
    link(&versions[1], &desk.path("..data"));
    wait_until("the link to be noticed", LONG, down);
    let good = std::fs::read(versions[0].join("hcf.yaml")).unwrap();
    std::fs::write(versions[1].join("hcf.yaml"), good).unwrap();
    wait_up(&hcf);
    std::fs::write(desk.path("new"), desk.config("").replace("min: 4", "min: 20")).unwrap();
    std::fs::rename(desk.path("new"), &file).unwrap();
    wait_until("the rename to be noticed", LONG, down);
    // A file that is away is no new configuration.
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, desk.config("")).unwrap();
    wait_up(&hcf);
    assert!(!hcf.log().contains("Not reloaded"), "{}", hcf.log());
}

#[test]
fn a_signal_and_a_command_reload_also_what_no_file_of_ours_says() {
    let (desk, node) = (Desk::new(), FakeNode::healthy());
    let port = node.addr.rsplit(':').next().unwrap();
    let tahoe = |nickname: &str| {
        let text = format!("[node]\nnickname = {nickname}\nweb.port = tcp:{port}\n");
        std::fs::write(desk.path("tahoe.cfg"), text).unwrap();
    };
    tahoe("one");
    // The default place of the socket.
    let home = desk.path("").display().to_string();
    let any = "127.0.0.1:0";
    let args = ["--node-dir", &home, "--agent", any, "--health", any, "--status", any];
    let variables = [("XDG_RUNTIME_DIR", home.as_str())];
    let hcf = Hcf::launch(Launch { args: &args, variables: &variables, inherited: None }).ready();
    let shown = || status(&hcf)["node"]["nickname"].clone();
    assert_eq!(shown(), "one");
    tahoe("two");
    hcf.signal(Signal::Hup);
    wait_until("the signal to be heard", LONG, || shown() == "two");
    tahoe("three");
    let socket = desk.path("hcf/admin.sock").display().to_string();
    let run = super::program::hcf(&["reload", "--socket", &socket]);
    assert!(run.stdout.starts_with("changed: (files that it names)\n"), "{run:?}");
    assert_eq!((run.exit, shown()), (0, "three".into()));
}

#[test]
fn what_has_changed_is_printed_and_what_counts_later_is_marked() {
    let (desk, node) = (Desk::new(), FakeNode::healthy());
    let hcf = start(&desk, &node, "log: {level: info, format: json}\n");
    assert_eq!(desk.run(&["reload"]).stdout, "nothing has changed\n");
    let run = go_over(&desk, &hcf, "every: 50ms", "every: 60ms");
    assert_eq!((run.exit, run.stdout.as_str()), (0, "changed: node.every\n"));
    let run = go_over(&desk, &hcf, "level: info, format: json", "level: warn, format: text");
    let late = " (from the next start on)";
    assert_eq!(run.stdout, format!("changed: log.format{late}\nchanged: log.level\n"));
    let run = go_over(&desk, &hcf, "/state\n", "/elsewhere\n");
    assert_eq!(run.stdout, format!("changed: state_dir{late}\n"));
    let run = go_over(&desk, &hcf, "admin.sock", "other.sock");
    assert_eq!(run.stdout, format!("changed: admin.socket{late}\n"));
    assert_eq!(desk.run(&["reload"]).exit, 0, "the socket is where it was");
    let reload = status(&hcf)["reload"].clone();
    assert_eq!(
        (&reload["outcome"], &reload["keys"][0]),
        (&"changed".into(), &"admin.socket".into())
    );
}

#[test]
fn a_bad_file_changes_nothing_and_is_named_everywhere() {
    let (desk, node) = (Desk::new(), FakeNode::healthy());
    let hcf = start(&desk, &node, "");
    wait_up(&hcf);
    let run = go_over(&desk, &hcf, "min: 4", "min: 20, mni: 4");
    assert_eq!((run.exit, run.stdout.as_str()), (78, ""));
    let place = format!("{}:2:", hcf.file().display());
    assert!(run.stderr.starts_with(&place) && run.stderr.contains("mni"), "{}", run.stderr);
    assert_eq!(ask(hcf.agent(), "write\n"), UP);
    assert_eq!(status(&hcf)["reload"]["outcome"], "senseless");
    assert!(hcf.log().contains("Not reloaded, the old configuration stays"), "{}", hcf.log());
    let shown = desk.run(&["status", "read"]);
    assert_eq!(shown.exit, 0);
    assert!(shown.stdout.contains("\nnot reloaded at ") && shown.stdout.contains(&place));
    // The old file again: nothing is wrong any more.
    edit(&hcf, "min: 20, mni: 4", "min: 4");
    assert_eq!(desk.run(&["reload"]).stdout, "nothing has changed\n");
    assert!(!desk.run(&["status"]).stdout.contains("not reloaded"));
    std::fs::remove_file(hcf.file()).unwrap();
    assert_eq!(desk.run(&["reload"]).exit, 78);
    assert_eq!(ask(hcf.agent(), "write\n"), UP);
}

#[test]
fn a_port_that_cannot_be_had_changes_nothing() {
    let (desk, node) = (Desk::new(), FakeNode::healthy());
    let hcf = start(&desk, &node, "");
    wait_up(&hcf);
    let agent = "agent: '127.0.0.1:0'";
    let free = free_port();
    let run = go_over(&desk, &hcf, agent, &format!("agent: ['127.0.0.1:{free}', '{}']", node.addr));
    assert_eq!(run.exit, 1);
    let why = format!("cannot listen on {} for agent: address already in use", node.addr);
    assert!(run.stderr.contains(&why), "{}", run.stderr);
    assert!(is_refused(&format!("127.0.0.1:{free}")), "the other one is not opened either");
    assert_eq!(ask(hcf.agent(), "write\n"), UP);
    assert_eq!(status(&hcf)["reload"]["outcome"], "impossible");
}

#[test]
fn another_host_for_a_port_takes_a_restart_and_says_so() {
    let (desk, node) = (Desk::new(), FakeNode::healthy());
    let port = free_port();
    let listen =
        format!("listen: {{agent: '127.0.0.1:{port}', health: off, status: '127.0.0.1:0'}}\n");
    let hcf = start(&desk, &node, &listen);
    wait_up(&hcf);
    let run = go_over(&desk, &hcf, &format!("127.0.0.1:{port}"), &format!("0.0.0.0:{port}"));
    assert_eq!(run.exit, 1);
    assert!(run.stderr.contains("only at a restart: cannot listen on 0.0.0.0:"), "{}", run.stderr);
    assert_eq!(ask(hcf.agent(), "write\n"), UP);
}

#[test]
fn listeners_move_and_one_that_stays_refuses_no_question() {
    let (desk, node) = (Desk::new(), FakeNode::healthy());
    let at = || format!("127.0.0.1:{}", free_port());
    let (stays, old, new, health) = (at(), at(), at(), at());
    let listen = format!(
        "listen: {{agent: ['{stays}', '{old}'], health: '{health}', status: '127.0.0.1:0'}}\n"
    );
    let hcf = start(&desk, &node, &listen);
    wait_until("up", LONG, || ask(&stays, "write\n") == UP);
    meanwhile(
        || assert_eq!(ask(&stays, "write\n"), UP),
        || {
            for _ in 0..3 {
                assert_eq!(go_over(&desk, &hcf, &old, &new).stdout, "changed: listen.agent\n");
                wait_until("the old one to close", LONG, || is_refused(&old));
                assert_eq!(ask(&new, "write\n"), UP);
                assert_eq!(go_over(&desk, &hcf, &new, &old).exit, 0);
                wait_until("the new one to close", LONG, || is_refused(&new));
            }
            let socket = format!("unix:{}", desk.path("health.sock").display());
            assert_eq!(go_over(&desk, &hcf, &health, &socket).exit, 0);
            assert_eq!(get(&socket, "/health").unwrap().status, 200);
            assert_eq!(go_over(&desk, &hcf, &format!("'{socket}'"), "off").exit, 0);
            wait_until("its file to go", LONG, || !desk.path("health.sock").exists());
        },
    );
}

#[test]
fn gates_change_without_a_refused_connect() {
    let (desk, node) = (Desk::new(), FakeNode::healthy());
    node.serve_clients("node");
    let gate = "gates: {web: {listen: '127.0.0.1:0', when_bad: close}}\n";
    let hcf = start(&desk, &node, gate);
    let web = hcf.address("gate/web");
    wait_until("the gate to open", LONG, || get(web, "/x").is_ok_and(|r| r.status == 200));
    // A connection that goes on through all of it.
    let mut kept = TcpStream::connect(web).unwrap();
    let mut ask_on = || {
        kept.write_all(b"GET /?t=json HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        assert!(kept.read(&mut [0; 1 << 14]).unwrap() > 0);
    };
    ask_on();
    meanwhile(
        || assert_eq!(get(web, "/x").unwrap_or_else(|e| panic!("{e}")).text(), "node"),
        || {
            for (from, to) in [
                ("when_bad: close", "when_bad: refuse_uri"),
                ("when_bad: refuse_uri", "when_bad: close, drain: 7s"),
                ("drain: 7s", "service: read"),
                ("service: read", "max_connections: 9"),
                (", max_connections: 9", ""),
            ] {
                let run = go_over(&desk, &hcf, from, to);
                assert!(run.stdout.starts_with("changed: gates.web."), "{run:?}");
                ask_on();
            }
        },
    );
    let counted = status(&hcf)["gates"][0]["accepted"].as_u64().unwrap();
    assert!(counted > 10, "it counts on: {counted}");
    let run = go_over(&desk, &hcf, gate, "");
    assert_eq!((run.exit, run.stdout.as_str()), (0, "changed: gates\n"));
    wait_until("the gate to go", LONG, || is_refused(web));
}

#[test]
fn a_held_question_waits_on_through_a_reload() {
    let (desk, node) = (Desk::new(), FakeNode::healthy());
    let hcf = start(&desk, &node, "");
    wait_up(&hcf);
    let question = "write hold=60s\n";
    assert_eq!(ask(hcf.agent(), question), UP, "the first is answered at once");
    let mut held = TcpStream::connect(hcf.agent()).unwrap();
    held.write_all(question.as_bytes()).unwrap();
    assert_eq!(go_over(&desk, &hcf, "every: 50ms", "every: 70ms").exit, 0);
    let looks = node.requests();
    wait_until("some looks", LONG, || node.requests() > looks + 3);
    held.set_nonblocking(true).unwrap();
    let nothing = held.read(&mut [0; 256]).unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    held.set_nonblocking(false).unwrap();
    desk.order(&["drain", "write", "-m", "now"]);
    let mut answer = String::new();
    held.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("up drain 100% #override: now"), "{answer}");
}

#[test]
fn the_log_level_changes() {
    let (desk, node) = (Desk::new(), FakeNode::healthy());
    let hcf = start(&desk, &node, "log: {level: info}\n");
    desk.order(&["drain", "-m", "said-aloud"]);
    assert!(hcf.log().contains("said-aloud"));
    assert_eq!(go_over(&desk, &hcf, "level: info", "level: error").exit, 0);
    desk.order(&["drain", "-m", "said-quietly"]);
    assert_eq!(go_over(&desk, &hcf, "level: error", "level: info").exit, 0);
    desk.order(&["drain", "-m", "said-again"]);
    assert!(hcf.log().contains("said-again") && !hcf.log().contains("said-quietly"));
}

#[test]
fn twenty_reloads_flip_nothing() {
    let (desk, node) = (Desk::new(), FakeNode::healthy());
    let hcf = start(&desk, &node, "damping: {rise: 2, fall: 3}\nramp: 1h\n");
    wait_until("up", LONG, || ask(hcf.agent(), "write\n").starts_with("up ready"));
    desk.order(&["weight", "7", "write", "-m", "cap"]);
    let capped = "up ready 7%\n";
    assert_eq!(ask(hcf.agent(), "write\n"), capped);
    let before = status(&hcf)["services"]["write"].clone();
    meanwhile(
        || assert_eq!(ask(hcf.agent(), "write\n"), capped),
        || {
            for _ in 0..5 {
                for (from, to) in [
                    ("rise: 2", "rise: 20"),
                    ("rise: 20", "rise: 2"),
                    ("timeout: 400ms", "timeout: 500ms"),
                    ("timeout: 500ms", "timeout: 400ms"),
                ] {
                    assert_eq!(go_over(&desk, &hcf, from, to).exit, 0);
                }
            }
        },
    );
    let after = status(&hcf)["services"]["write"].clone();
    assert_eq!((&after["seq"], &after["override"]), (&before["seq"], &before["override"]));
    assert!(!hcf.log().contains("\"to\":\"down\""), "{}", hcf.log());
}

#[test]
fn services_come_and_go() {
    let (desk, node) = (Desk::new(), FakeNode::healthy());
    let hcf = start(&desk, &node, "");
    wait_up(&hcf);
    let run =
        go_over(&desk, &hcf, "services: {", "services: {bulk: {criteria: {servers: {min: 5}}}, ");
    assert_eq!(run.stdout, "changed: services.bulk\n");
    let bulk = || ask(hcf.agent(), "bulk\n");
    wait_until("the new one to be up", LONG, || bulk() == UP);
    assert_eq!(ask(hcf.agent(), "write\n"), UP);
    desk.order(&["drain", "bulk", "-m", "x"]);
    assert!(bulk().starts_with("up drain "), "{}", bulk());
    let run = go_over(&desk, &hcf, "bulk: {criteria: {servers: {min: 5}}}, ", "");
    assert_eq!(run.stdout, "changed: services.bulk\n");
    assert_eq!(bulk(), "down 100% #no such service: bulk\n");
    assert_eq!(desk.run(&["drain", "bulk", "-m", "x"]).exit, 2);
    assert!(desk.run(&["status"]).stdout.contains("there is no service `bulk`"));
    // Its order is still there when it comes back.
    go_over(&desk, &hcf, "services: {", "services: {bulk: {criteria: {servers: {min: 5}}}, ");
    wait_until("the order", LONG, || bulk().starts_with("up drain 100% #override: x"));
    assert_eq!(go_over(&desk, &hcf, "services: {", "default_service: read\nservices: {").exit, 0);
    assert_eq!(ask(hcf.agent(), "\n"), UP);
}
