//! The log: what is in it and what is not, in each form, and where the journal reads it.

use std::process::Command;

use serde_json::Value;

use super::failures::status;
use super::gate::{BAD, GOOD};
use crate::lab::fake::{Answer, FakeNode};
use crate::lab::hcf::{Hcf, ask, hcf_binary};
use crate::lab::http::get;
use crate::lab::process::Signal;
use crate::lab::wait::{LONG, wait_until};

/// A look may take its time on a busy machine, and nothing is to be said of that.
const CONFIG: &str = "node: {every: 50ms, timeout: 20s}\n";

/// Becomes hcf, with the journal's stream named as the service manager would if stderr were it.
const UNDER_JOURNAL: [&str; 4] =
    ["sh", "-c", "JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec \"$@\"", "sh"];

fn wait_said(hcf: &Hcf, line: &str) {
    wait_until(line, LONG, || ask(hcf.agent(), "write\n").starts_with(line));
}

/// The lines on stderr, each of which must be JSON.
fn lines(log: &str) -> Vec<Value> {
    let lines = log.lines().filter(|line| line.contains("\"level\""));
    lines.map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

#[test]
fn a_transition_is_one_line_with_all_reasons() {
    let node = FakeNode::start(GOOD);
    let config = format!("{CONFIG}log: {{format: json}}\n");
    let hcf = Hcf::configured(&config, &["--node", &node.url()]);
    wait_said(&hcf, "up ready");
    node.set(Answer::NoIntroducer { connected: 3, refused: 6 });
    wait_said(&hcf, "down ready");
    node.set(GOOD);
    wait_said(&hcf, "up ready");
    let log = lines(&hcf.log());
    let turned = |from: &str, to: &str| -> Vec<&Value> {
        let write = |line: &&Value| line["service"] == "write";
        log.iter().filter(write).filter(|line| line["from"] == from && line["to"] == to).collect()
    };
    let [down] = turned("up", "down")[..] else { panic!("{log:?}") };
    assert_eq!(
        (&down["level"], &down["message"]),
        (&"INFO".into(), &"The verdict changed.".into())
    );
    assert_eq!(
        down["reasons"],
        "servers-few: 3 of 7 usable (default; set node.dir or services.write.criteria.servers.min), \
         6 refused; introducers-few: 0 of 1 introducers connected, 1 needed"
    );
    // At the start, and after that.
    assert_eq!(turned("down", "up").len(), 2, "{log:?}");
}

#[test]
fn text_says_the_same_in_a_line() {
    let node = FakeNode::start(GOOD);
    let config = format!("{CONFIG}log: {{format: text}}\n");
    let hcf = Hcf::configured(&config, &["--node", &node.url()]);
    wait_said(&hcf, "up ready");
    node.set(BAD);
    wait_said(&hcf, "down ready");
    let log = hcf.log();
    let down = log.lines().find(|line| line.contains("to=\"down\"")).expect("a line");
    assert!(down.contains(" INFO The verdict changed. service=\"write\" from=\"up\""), "{down}");
    assert!(down.contains("reasons=\"servers-few: 3 of 7 usable"), "{down}");
    assert!(!log.contains('\u{1b}'), "no colour where nobody sees it");
}

#[test]
fn questions_leave_no_line_and_mistakes_few() {
    let node = FakeNode::start(GOOD);
    let hcf = Hcf::configured(CONFIG, &["--node", &node.url()]);
    wait_said(&hcf, "up ready");
    // What happened so far may still be on its way into the file.
    let settled = || lines(&hcf.log()).iter().filter(|line| line["to"] == "up").count() == 2;
    wait_until("both services", LONG, settled);
    let before = hcf.log();
    for _ in 0..50 {
        ask(hcf.agent(), "write\n");
        ask(hcf.agent(), "read admin=keep\n");
        assert_eq!(get(hcf.health(), "/health/read").unwrap().status, 200);
        assert_eq!(get(hcf.health(), "/health/none").unwrap().status, 404);
        assert_eq!(get(hcf.status(), "/").unwrap().status, 200);
    }
    assert_eq!(hcf.log(), before);
    for _ in 0..50 {
        ask(hcf.agent(), "wirte\n");
        ask(hcf.agent(), "write hodl=9s\n");
    }
    let more = lines(&hcf.log()).len() - lines(&before).len();
    assert!((1..=2).contains(&more), "one of each kind at most: {}", hcf.log());
}

#[test]
fn in_the_journal_each_line_has_its_priority() {
    let node = FakeNode::start(GOOD);
    for format in ["text", "json"] {
        let config = format!("{CONFIG}log: {{format: {format}, level: debug}}\n");
        let args = ["--node", &node.url()];
        let hcf = Hcf::configured_under(&UNDER_JOURNAL, &config, &args);
        wait_said(&hcf, "up ready");
        node.set(Answer::Status(500));
        wait_said(&hcf, "down ready");
        let log = hcf.log();
        let has = |priority: &str, words: &str| {
            log.lines().any(|line| line.starts_with(priority) && line.contains(words))
        };
        assert!(has("<6>", "The verdict changed."), "{log}");
        assert!(has("<4>", "A look at the node failed"), "{log}");
        assert!(has("<7>", "A look at the node failed"), "{log}");
        let told = |line: &&str| !line.starts_with("listening ") && *line != "ready";
        assert!(log.lines().filter(told).all(|line| line.starts_with('<')), "{log}");
        node.set(GOOD);
    }
    // What it says when it cannot start is an error.
    let binary = hcf_binary();
    let mut command = Command::new(UNDER_JOURNAL[0]);
    command.args(&UNDER_JOURNAL[1..]).arg(&binary).args(["run", "-c", "/nonexistent.yaml"]);
    let said = String::from_utf8(command.output().unwrap().stderr).unwrap();
    assert!(said.starts_with("<3>/nonexistent.yaml: cannot read it"), "{said}");
    assert_eq!(said.matches("<3>").count(), said.lines().count(), "{said}");
    // A stderr that was sent elsewhere is not the journal's.
    let mut command = Command::new(&binary);
    command.env("JOURNAL_STREAM", "1:2").args(["run", "-c", "/nonexistent.yaml"]);
    let said = String::from_utf8(command.output().unwrap().stderr).unwrap();
    assert!(said.starts_with("/nonexistent.yaml: cannot read it"), "{said}");
}

#[test]
fn the_environment_beats_the_configured_level() {
    let node = FakeNode::start(GOOD);
    let under = |level: &'static str| ["env", level];
    let args = ["--node", &node.url()];
    let quiet = Hcf::configured_under(&under("RUST_LOG=error"), CONFIG, &args);
    wait_said(&quiet, "up ready");
    assert_eq!(lines(&quiet.log()), Vec::<Value>::new());
    let config = format!("{CONFIG}log: {{level: error}}\n");
    let loud = Hcf::configured_under(&under("RUST_LOG=debug"), &config, &args);
    wait_said(&loud, "up ready");
    node.set(Answer::Status(500));
    wait_until("a line for debugging", LONG, || {
        lines(&loud.log()).iter().any(|line| line["level"] == "DEBUG")
    });
}

#[test]
fn a_reload_changes_the_level() {
    let node = FakeNode::start(GOOD);
    let config = |level: &str| format!("{CONFIG}log: {{level: {level}}}\n");
    let hcf = Hcf::configured(&config("error"), &["--node", &node.url()]);
    wait_said(&hcf, "up ready");
    assert_eq!(lines(&hcf.log()), Vec::<Value>::new());
    std::fs::write(hcf.file(), config("info")).unwrap();
    hcf.signal(Signal::Hup);
    wait_until("the reload", LONG, || hcf.log().contains("Reloaded."));
    node.set(BAD);
    wait_said(&hcf, "down ready");
    wait_until("the line", LONG, || hcf.log().contains("The verdict changed."));
    std::fs::write(hcf.file(), config("error")).unwrap();
    // Nothing says that this one is over but the status.
    let reloaded = || status(&hcf)["reload"]["at"].clone();
    let first = reloaded();
    hcf.signal(Signal::Hup);
    wait_until("the reload", LONG, || reloaded() != first);
    let before = hcf.log().len();
    node.set(GOOD);
    wait_said(&hcf, "up ready");
    assert_eq!(hcf.log().len(), before, "{}", hcf.log());
}
