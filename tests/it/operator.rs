//! What operators order: from the command to every listener's answer, and through whatever happens to the sidecar.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::failures::status;
use super::gate::{BAD, GOOD};
use super::program::{Run, hcf};
use crate::lab::fake::FakeNode;
use crate::lab::hcf::{Hcf, ask};
use crate::lab::http::get;
use crate::lab::place;
use crate::lab::process::Signal;
use crate::lab::wait::{LONG, wait_until};

pub(crate) const UP: &str = "up ready 100%\n";

/// A place where sidecars follow each other: an admin socket, and a state directory.
pub(crate) struct Desk {
    folder: TempDir,
}

impl Desk {
    pub(crate) fn new() -> Self {
        Self { folder: place::folder("desk") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("admin.sock")
    }

    /// A configuration that works here; `write` wants 4 servers.
    pub(crate) fn config(&self, more: &str) -> String {
        let (socket, state) = (self.socket(), self.path("state"));
        format!(
            "node: {{every: 50ms, timeout: 400ms}}\n\
             services: {{read: {{criteria: {{servers: {{min: 2}}}}}}, write: {{criteria: {{servers: {{min: 4}}}}}}}}\n\
             admin: {{socket: {}}}\nstate_dir: {}\n{more}",
            socket.display(),
            state.display()
        )
    }

    pub(crate) fn sidecar(&self, node: &FakeNode, more: &str) -> Hcf {
        Hcf::configured(&self.config(more), &["--node", &node.url()])
    }

    /// `hcf ARGS --socket …`
    pub(crate) fn run(&self, args: &[&str]) -> Run {
        hcf(&[args, &["--socket", &self.socket().display().to_string()]].concat())
    }

    /// The same, which must succeed and say nothing.
    pub(crate) fn order(&self, args: &[&str]) {
        let run = self.run(args);
        assert_eq!((run.exit, &*run.stdout, &*run.stderr), (0, "", ""), "{args:?}");
    }

    /// What curl gets for its arguments and a path: the status, and the JSON.
    fn curl(&self, args: &[&str], path: &str) -> (u16, Value) {
        let socket = self.socket();
        let output = Command::new("curl")
            .args(["-sS", "--max-time", "20", "-w", "%{stderr}%{http_code}", "--unix-socket"])
            .arg(socket)
            .args(args)
            .arg(format!("http://localhost{path}"))
            .output()
            .expect("curl can be run");
        let code = String::from_utf8_lossy(&output.stderr).into_owned();
        let code = code.parse().unwrap_or_else(|_| panic!("{args:?} {path}: {code}"));
        (code, serde_json::from_slice(&output.stdout).unwrap_or_default())
    }
}

pub(crate) fn wait_up(hcf: &Hcf) {
    wait_until("up", LONG, || ask(hcf.agent(), "write\n") == UP);
}

fn write(hcf: &Hcf) -> String {
    ask(hcf.agent(), "write\n")
}

#[test]
fn an_order_is_in_every_answer_as_soon_as_the_command_returns() {
    let (desk, node) = (Desk::new(), FakeNode::healthy());
    node.serve_clients("node");
    let gate = "gates: {web: {listen: '127.0.0.1:0', when_bad: refuse_uri}}\n";
    let hcf = desk.sidecar(&node, gate);
    wait_up(&hcf);
    let gate = hcf.address("gate/web");
    let why = |word: &str| format!("override: disk swap ({word} by operator, no end set)");
    for (word, owning, keep, code, fails_at_once) in [
        ("drain", "up drain 100% #", "up 0% #drain: ", 503, true),
        ("maint", "up maint 100% #", "down 100% #maint: ", 503, true),
        ("down", "down ready 100% #", "down 100% #", 503, false),
        ("weight 30", "up ready 30%", "up 30%", 200, false),
    ] {
        let words: Vec<&str> = word.split(' ').collect();
        desk.order(&[&words[..], &["--reason", "disk swap"]].concat());
        let why = if code == 200 { String::new() } else { why(word) };
        assert_eq!(write(&hcf), format!("{owning}{why}\n"));
        assert_eq!(ask(hcf.agent(), "write admin=keep\n"), format!("{keep}{why}\n"));
        let health = get(hcf.health(), "/health/write").unwrap();
        assert_eq!(health.status, code, "{word}");
        let immediate = health.header("x-envoy-immediate-health-check-fail").is_some();
        assert_eq!(immediate, fails_at_once, "{word}");
        assert_eq!(get(hcf.health(), "/health/write/slot/3/of/10").unwrap().status, code);
        assert_eq!(get(hcf.health(), "/health/write/slot/4/of/10").unwrap().status, 503);
        assert_eq!(get(gate, "/uri/x").unwrap().status, code, "{word}");
        let status = status(&hcf);
        let service = &status["services"]["write"];
        assert_eq!(service["override"]["reason"], "disk swap");
        assert_eq!(service["reasons"][0]["code"], "override");
        assert_eq!(status["overrides"].as_array().unwrap().len(), 2, "read and write");
        // Each word takes the place of the one before, since one owner has one.
    }
    desk.order(&["clear"]);
    assert_eq!(write(&hcf), UP);
    assert_eq!(get(gate, "/uri/x").unwrap().status, 200);
    let log = hcf.log();
    for part in ["An override was set", "An override was cleared", "disk swap", "uid ", "pid "] {
        assert!(log.contains(part), "{part} in:\n{log}");
    }
}

#[test]
fn up_silences_criteria_only_and_shows_as_forced_everywhere() {
    let (desk, mut node) = (Desk::new(), FakeNode::start(BAD));
    let hcf = desk.sidecar(&node, "");
    desk.order(&["up", "write", "--reason", "must go on"]);
    wait_until("forced", LONG, || write(&hcf).starts_with("up ready"));
    let why = "override: must go on (up by operator, no end set)";
    assert!(write(&hcf).starts_with(&format!("up ready 100% #forced: {why}")), "{}", write(&hcf));
    let keep = ask(hcf.agent(), "write admin=keep\n");
    assert!(keep.starts_with(&format!("up 100% #forced: {why}")), "{keep}");
    let health = get(hcf.health(), "/health/write").unwrap();
    assert_eq!((health.status, &health.json()["forced"]), (200, &true.into()));
    assert_eq!(status(&hcf)["services"]["write"]["forced"], true);
    let run = desk.run(&["status", "write"]);
    assert_eq!(run.exit, 0);
    assert!(run.stdout.contains("\nwrite: up (forced), weight 100, since "), "{}", run.stdout);
    // Beyond criteria it has no say.
    node.close();
    wait_until("the loss", LONG, || write(&hcf).starts_with("down ready 100% #refused: "));
    desk.order(&["maint", "write", "--reason", "gone for good"]);
    assert!(write(&hcf).starts_with("up maint 100% #override: "), "{}", write(&hcf));
}

#[test]
fn each_owner_has_a_word_of_its_own_and_the_strongest_counts() {
    let (desk, node) = (Desk::new(), FakeNode::healthy());
    let hcf = desk.sidecar(&node, "");
    wait_up(&hcf);
    desk.order(&["weight", "40", "write", "-m", "slow disk", "--owner", "ann"]);
    desk.order(&["drain", "write", "-m", "update", "--owner", "deploy"]);
    assert!(write(&hcf).starts_with("up drain 100% #override: update (drain by deploy"));
    desk.order(&["clear", "write", "--owner", "nobody"]);
    desk.order(&["clear", "--owner", "deploy"]);
    assert_eq!(write(&hcf), "up ready 40%\n");
    desk.order(&["weight", "70", "write", "-m", "slow too", "--owner", "bob"]);
    assert_eq!(write(&hcf), "up ready 40%\n");
    desk.order(&["clear", "write"]);
    assert_eq!(write(&hcf), UP);
}

#[test]
fn orders_end_by_themselves() {
    let (desk, node) = (Desk::new(), FakeNode::healthy());
    let hcf = desk.sidecar(&node, "");
    wait_up(&hcf);
    desk.order(&["drain", "-m", "a moment", "--for", "1s"]);
    wait_until("the end", LONG, || write(&hcf) == UP);
    assert!(hcf.log().contains("An override has expired"), "{}", hcf.log());
    desk.order(&["drain", "-m", "a century", "--until", "2099-01-02T03:04:05+01:00"]);
    assert!(write(&hcf).contains("(drain by operator until 2099-01-02T02:04Z)"), "{}", write(&hcf));
    assert_eq!(status(&hcf)["overrides"][0]["until"], "2099-01-02T02:04:05.000Z");
    for (args, why) in [
        (["--until", "2020-01-01T00:00:00Z"], "which is past"),
        (["--until", "tomorrow"], "expected a time such as `2026-11-24T14:03:00Z`"),
        (["--for", "0s"], "expected a duration such as `30m` or `2h`"),
        (["--for", "long"], "--for"),
    ] {
        let run = desk.run(&[&["maint", "-m", "x"][..], &args].concat());
        assert_eq!((run.exit, run.stdout.as_str()), (2, ""), "{args:?} {run:?}");
        assert!(run.stderr.contains(why), "{}", run.stderr);
    }
    assert!(write(&hcf).starts_with("up drain "), "nothing of that counts");
}

#[test]
fn orders_survive_a_kill_and_a_refresh_keeps_the_first_time() {
    let (desk, node) = (Desk::new(), FakeNode::healthy());
    let mut hcf = desk.sidecar(&node, "");
    wait_up(&hcf);
    desk.order(&["drain", "write", "-m", "first", "--for", "1h"]);
    let first = status(&hcf)["overrides"][0].clone();
    desk.order(&["drain", "write", "-m", "second", "--for", "2h"]);
    let second = status(&hcf)["overrides"][0].clone();
    assert_eq!(second["since"], first["since"]);
    assert!(second["until"].as_str() > first["until"].as_str());
    assert!(second["by"].as_str().unwrap().contains("uid "), "{second}");
    hcf.signal(Signal::Kill);
    hcf.process().wait_end(LONG);
    // Its socket is left over, and is replaced.
    assert!(std::fs::symlink_metadata(desk.socket()).unwrap().file_type().is_socket());
    let hcf = desk.sidecar(&node, "");
    // What it looks at may take a moment, but it is up at no time.
    wait_until("the order", LONG, || {
        let said = write(&hcf);
        assert!(!said.starts_with("up ready"), "{said}");
        said.starts_with("up drain 100% #override: second")
    });
    assert_eq!(status(&hcf)["overrides"][0], second);
    desk.order(&["maint", "write", "-m", "another word"]);
    assert_ne!(status(&hcf)["overrides"][0]["since"], first["since"]);
}

#[test]
fn what_was_ordered_and_cannot_be_read_drains_until_it_is_cleared() {
    let (desk, node) = (Desk::new(), FakeNode::healthy());
    std::fs::create_dir(desk.path("state")).unwrap();
    std::fs::write(desk.path("state/overrides.json"), "{torn").unwrap();
    let hcf = desk.sidecar(&node, "");
    wait_until("the loss to show", LONG, || {
        write(&hcf).starts_with("up drain 100% #overrides-lost: ")
    });
    assert_eq!(status(&hcf)["overrides_lost"], true);
    let shown = desk.run(&["status"]).stdout;
    assert!(shown.contains("overrides.json"), "the file is named: {shown}");
    desk.order(&["clear"]);
    assert_eq!(write(&hcf), UP);
}

#[test]
fn a_file_orders_as_long_as_it_is_there() {
    let (desk, node) = (Desk::new(), FakeNode::healthy());
    let hcf = desk.sidecar(&node, "");
    wait_up(&hcf);
    let file = desk.path("state/override.d/write");
    std::fs::write(&file, "drain 30m disk swap\n").unwrap();
    wait_until("the file", LONG, || write(&hcf).starts_with("up drain 100% #override: disk swap"));
    let entry = status(&hcf)["services"]["write"]["override"].clone();
    assert_eq!(entry["owner"], "file");
    assert!(entry["by"].as_str().unwrap().starts_with(&file.display().to_string()), "{entry}");
    let run = desk.run(&["clear", "--owner", "file"]);
    assert_eq!(run.exit, 2);
    assert!(run.stderr.contains("ends when that file is removed"), "{}", run.stderr);
    std::fs::write(&file, "drian 30m disk swap\n").unwrap();
    wait_until("the note", LONG, || {
        desk.run(&["status"]).stdout.contains("`drian` cannot be ordered")
    });
    assert!(write(&hcf).starts_with("up drain "), "what it ordered before stays");
    std::fs::remove_file(&file).unwrap();
    wait_until("the end", LONG, || write(&hcf) == UP);
    std::fs::write(desk.path("state/override.d/wirte"), "drain a typo").unwrap();
    wait_until("the typo to show", LONG, || {
        desk.run(&["status"]).stdout.contains("there is no service `wirte`")
    });
}

#[test]
fn the_admin_socket_speaks_http() {
    let (desk, node) = (Desk::new(), FakeNode::healthy());
    let hcf = desk.sidecar(&node, "");
    wait_up(&hcf);
    let file = std::fs::symlink_metadata(desk.socket()).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o660);
    let body = r#"{"state": "drain", "reason": "by hand", "for": "30m"}"#;
    let (code, answer) = desk.curl(&["-X", "PUT", "-d", body], "/v1/overrides/write");
    assert_eq!((code, &answer["overrides"][0]["reason"]), (200, &"by hand".into()));
    assert!(write(&hcf).starts_with("up drain "));
    assert_eq!(desk.curl(&[], "/v1/overrides").1, answer);
    assert_eq!(desk.curl(&[], "/v1/status").1["overrides"], answer["overrides"]);
    let large = format!("{{\"state\": \"up\", \"reason\": \"{}\"}}", "x".repeat(20 << 10));
    for (args, path, code) in [
        (&["-X", "PUT", "-d", body][..], "/v1/overrides/wirte", 404),
        (&["-X", "PUT", "-d", body], "/v1/overrides/read,wirte", 404),
        (&["-X", "PUT", "-d", body], "/v1/overrides/", 404),
        (&["-X", "PUT", "-d", "{}"], "/v1/overrides/read", 400),
        (&["-X", "PUT", "-d", "drain"], "/v1/overrides/read", 400),
        (&["-X", "PUT", "-d", r#"{"state": "drain"}"#], "/v1/overrides/read", 400),
        (
            &["-X", "PUT", "-d", r#"{"state": "drain", "reason": "x", "wor": 1}"#],
            "/v1/overrides",
            400,
        ),
        (
            &["-X", "PUT", "-d", r#"{"state": "drain", "reason": "x", "owner": "file"}"#],
            "/v1/overrides",
            400,
        ),
        (&["-X", "PUT", "-d", &large], "/v1/overrides/read", 413),
        (&["-X", "PUT", "-H", "Transfer-Encoding: chunked", "-d", body], "/v1/overrides/read", 411),
        (&["-X", "DELETE"], "/v1/overrides/wirte", 404),
        (&["-X", "DELETE"], "/v1/overrides?owner=a%20b", 400),
        (&["-X", "POST", "-d", ""], "/v1/status", 405),
        (&["-X", "PATCH", "-d", body], "/v1/overrides/read", 405),
    ] {
        let (got, answer) = desk.curl(args, path);
        assert_eq!(got, code, "{args:?} {path}: {answer}");
        assert!(answer["detail"].is_string() || answer["title"].is_string(), "{answer}");
    }
    assert_eq!(ask(hcf.agent(), "read\n"), UP);
    let (code, answer) = desk.curl(&["-X", "DELETE"], "/v1/overrides/write");
    assert_eq!((code, answer), (200, serde_json::json!({"overrides": []})));
    assert_eq!(write(&hcf), UP);
    // Nobody changes anything elsewhere.
    for (address, code) in [(hcf.status(), 405), (hcf.health(), 405)] {
        let put = crate::lab::http::put(address, "/v1/overrides/write", body.as_bytes());
        assert_eq!(put.unwrap().status, code);
    }
    assert_eq!(get(hcf.health(), "/v1/overrides").unwrap().status, 404);
}

#[test]
fn the_admin_socket_has_the_group_that_it_is_given() {
    let (desk, node) = (Desk::new(), FakeNode::healthy());
    // A group of this process's own, so that it needs no root.
    let group = std::fs::metadata(desk.path("")).unwrap().gid();
    let config = desk.config("").replace("admin.sock}", &format!("admin.sock, group: '{group}'}}"));
    let _hcf = Hcf::configured(&config, &["--node", &node.url()]);
    assert_eq!(std::fs::symlink_metadata(desk.socket()).unwrap().gid(), group);
    let config = config.replace(&format!("'{group}'"), "no-such-group");
    std::fs::write(desk.path("bad.yaml"), config).unwrap();
    let run = hcf(&["check", "-c", &desk.path("bad.yaml").display().to_string()]);
    assert_eq!(run.exit, 78);
    assert!(run.stderr.contains("there is no group `no-such-group`"), "{}", run.stderr);
}

#[test]
fn commands_have_their_exit_codes() {
    let (desk, node) = (Desk::new(), FakeNode::healthy());
    let none = desk.run(&["drain", "-m", "x"]);
    assert_eq!((none.exit, none.stdout.as_str()), (3, ""));
    assert!(none.stderr.contains("is `hcf run` running there?"), "{}", none.stderr);
    assert_eq!(hcf(&["drain", "-m", "x"]).exit, 3, "there is no socket by default here");
    assert_eq!(hcf(&["reload", "-c", "/nonexistent.yaml"]).exit, 78);
    let hcf = desk.sidecar(&node, "");
    wait_up(&hcf);
    for (args, why) in [
        (
            &["drain", "wirte", "-m", "x"][..],
            "there is no service `wirte`; expected one of read, write",
        ),
        // All of them or none.
        (&["drain", "write", "wirte", "-m", "x"], "there is no service `wirte`"),
        (&["drain", "", "-m", "x"], "`` is not the name of a service"),
        (&["drain", "../x", "-m", "x"], "`../x` is not the name of a service"),
        (&["drain"], "say why, by --reason"),
        (&["drain", "-m", "  "], "a reason is required"),
        (&["drain", "-m", "two\nlines"], "which cannot be shown"),
        (&["drain", "-m", "x", "--owner", "a b"], "is no name"),
        (&["clear", "--owner", "a b"], "is no name"),
        (&["weight", "0", "-m", "x"], "0 is not in 1..=100"),
        (&["weight", "-m", "x"], "Usage"),
    ] {
        let run = desk.run(args);
        assert_eq!((run.exit, run.stdout.as_str()), (2, ""), "{args:?} {run:?}");
        assert!(run.stderr.contains(why), "{args:?}: {}", run.stderr);
        assert_eq!(write(&hcf), UP, "{args:?}");
    }
    for n in 0..16 {
        desk.order(&["up", "write", "-m", "x", "--owner", &format!("o{n}")]);
    }
    let full = desk.run(&["up", "write", "-m", "x", "--owner", "late"]);
    assert_eq!(full.exit, 1);
    assert!(
        full.stderr.contains("16 owners override `write`; clear some first"),
        "{}",
        full.stderr
    );
}

#[test]
fn a_sidecar_is_found_whatever_else_its_file_says() {
    let (desk, node) = (Desk::new(), FakeNode::healthy());
    let hcf = desk.sidecar(&node, "");
    wait_up(&hcf);
    let file = hcf.file().display().to_string();
    let run = |args: &[&str]| super::program::hcf(&[args, &["-c", &file]].concat());
    assert_eq!(run(&["drain", "-m", "x"]).exit, 0);
    // Somebody is writing to it, or only the sidecar may read what it names.
    for more in ["nodde: 1\n", "listen: {agent: 7}\n"] {
        std::fs::write(
            hcf.file(),
            desk.config("").replace("node: {", "node: {dir: /nonexistent, ") + more,
        )
        .unwrap();
        let word = run(&["maint", "-m", "x"]);
        assert_eq!((word.exit, word.stderr.as_str()), (0, ""));
        assert!(write(&hcf).starts_with("up maint "));
        assert_eq!(run(&["clear"]).exit, 0);
        assert_eq!(run(&["reload"]).exit, 78);
    }
    std::fs::write(hcf.file(), "admin: {socket: relative}\n").unwrap();
    assert_eq!(run(&["clear"]).exit, 78);
    std::fs::write(hcf.file(), "admin: {socket: off}\n").unwrap();
    assert_eq!(run(&["clear"]).exit, 3);
}

#[test]
fn what_cannot_be_kept_is_refused_and_the_sidecar_goes_on() {
    let (desk, node) = (Desk::new(), FakeNode::healthy());
    let hcf = desk.sidecar(&node, "");
    wait_up(&hcf);
    // The kernel's own full disk.
    let next = desk.path("state/overrides.json.new");
    symlink("/dev/full", &next).unwrap();
    let run = desk.run(&["drain", "-m", "x"]);
    assert_eq!(run.exit, 1);
    assert!(run.stderr.contains("No space left on device"), "{}", run.stderr);
    assert_eq!(write(&hcf), UP);
    assert!(desk.run(&["status"]).stdout.contains("No space left"), "it shows");
    std::fs::remove_file(next).unwrap();
    desk.order(&["drain", "-m", "x"]);
    assert!(write(&hcf).starts_with("up drain "));
}

#[test]
fn a_state_directory_that_cannot_be_used_drains_and_is_named() {
    let (desk, node) = (Desk::new(), FakeNode::healthy());
    let state = desk.path("state").display().to_string();
    let config = desk.config("").replace(&state, "/proc/hcf");
    let hcf = Hcf::configured(&config, &["--node", &node.url()]);
    wait_until("the loss", LONG, || write(&hcf).contains("#overrides-lost: "));
    let run = desk.run(&["clear"]);
    assert_eq!(run.exit, 1);
    assert!(run.stderr.contains("/proc/hcf"), "{}", run.stderr);
}

#[test]
fn an_admin_socket_takes_nobodys_place() {
    let (desk, node) = (Desk::new(), FakeNode::healthy());
    let spawn = || {
        let config = desk.config("").replace("/state", &format!("/state{}", serial()));
        let file = desk.path(&format!("{}.yaml", serial()));
        std::fs::write(&file, config).unwrap();
        Hcf::spawn(&["-c", &file.display().to_string(), "--node", &node.url()])
    };
    std::fs::write(desk.socket(), "precious").unwrap();
    let mut refused = spawn();
    assert_eq!(refused.process().wait_end(LONG).code(), Some(1));
    assert!(
        refused.log().contains("a file that is not a socket stands there"),
        "{}",
        refused.log()
    );
    assert_eq!(std::fs::read(desk.socket()).unwrap(), b"precious");
    std::fs::remove_file(desk.socket()).unwrap();
    // Both at once, again and again: one of them has it, and it is that one's.
    for _ in 0..10 {
        let mut both = [spawn(), spawn()];
        wait_until("one to give up and the other to be ready", LONG, || {
            let ended = both.iter_mut().filter_map(|hcf| hcf.process().ended()).count();
            let ready = both
                .iter_mut()
                .filter_map(|hcf| hcf.process().stdout().contains("ready").then_some(()))
                .count();
            assert!(ready < 2, "{}{}", both[0].log(), both[1].log());
            (ended, ready) == (1, 1)
        });
        desk.order(&["drain", "-m", "x"]);
        let gone = both.iter_mut().position(|hcf| hcf.process().ended().is_some()).unwrap();
        assert!(both[gone].log().contains("address already in use"), "{}", both[gone].log());
    }
}

/// A number that no other call has had.
fn serial() -> usize {
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

#[test]
fn a_state_directory_has_one_sidecar() {
    let (desk, node) = (Desk::new(), FakeNode::healthy());
    let mut first = desk.sidecar(&node, "");
    let other = desk.config("").replace("admin.sock", "other.sock");
    std::fs::write(desk.path("other.yaml"), other).unwrap();
    let file = desk.path("other.yaml").display().to_string();
    let mut second = Hcf::spawn(&["-c", &file, "--node", &node.url()]);
    assert_eq!(second.process().wait_end(LONG).code(), Some(1));
    let said = format!("is in use by another sidecar (process {})", first.process().pid());
    assert!(second.log().contains(&said), "{}", second.log());
    assert!(!desk.path("other.sock").exists(), "what it had opened is gone");
    node.set(GOOD);
    wait_up(&first);
}
