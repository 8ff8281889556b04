//! The history: what was is there after a kill, is explained, and ends nothing when it cannot be kept.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::operator::Desk;
use super::program::hcf;
use crate::lab::fake::{Answer, FakeNode};
use crate::lab::hcf::{Hcf, ask, hcf_binary, read_variables};
use crate::lab::http::get;
use crate::lab::past;
use crate::lab::process::{Process, Program, Signal};
use crate::lab::wait::{LONG, wait_until};

const GOOD: Answer = Answer::Grid { connected: 9, refused: 0 };
const BAD: Answer = Answer::Grid { connected: 3, refused: 6 };

fn history(hcf: &Hcf, query: &str) -> Value {
    let answer = get(hcf.status(), &format!("/v1/history{query}")).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// The states to which `write` went, the oldest first.
fn states(history: &Value) -> Vec<String> {
    let of = |transition: &&Value| transition["service"] == "write";
    let state = |transition: &Value| transition["to"]["state"].as_str().unwrap().to_owned();
    history["transitions"].as_array().unwrap().iter().filter(of).map(state).collect()
}

fn wait(hcf: &Hcf, state: &str) {
    wait_until(state, LONG, || ask(hcf.agent(), "write\n").starts_with(state));
    // What is said is in the history a moment later.
    wait_until("it to be kept", LONG, || {
        states(&history(hcf, "")).last().is_some_and(|last| last == state)
    });
}

#[test]
fn what_was_is_there_after_a_kill_and_the_time_between_is_not_known() {
    let (node, desk) = (FakeNode::start(GOOD), Desk::new());
    let mut hcf = desk.sidecar(&node, "");
    wait(&hcf, "up");
    node.set(BAD);
    wait(&hcf, "down");
    let before = history(&hcf, "");
    assert_eq!(states(&before), ["down", "up", "down"], "{before:#}");
    hcf.signal(Signal::Kill);
    hcf.process().wait_end(LONG);
    let mut hcf = desk.sidecar(&node, "");
    wait_until("a gap", LONG, || !history(&hcf, "")["gaps"].as_array().unwrap().is_empty());
    let after = history(&hcf, "");
    let kept = before["transitions"].as_array().unwrap();
    assert_eq!(&after["transitions"].as_array().unwrap()[..kept.len()], kept);
    let gap = &after["gaps"][0];
    assert_eq!(gap["why"], "hcf was not running", "{after:#}");
    assert!(gap["from"].as_str() < gap["until"].as_str(), "{gap}");
    assert_eq!(after["kept"], desk.path("state/history").display().to_string());
    // A stop in order is told, too, and loses nothing of the last minute.
    hcf.signal(Signal::Term);
    hcf.process().wait_end(LONG);
    let hcf = desk.sidecar(&node, "");
    wait_until("a second gap", LONG, || history(&hcf, "")["gaps"].as_array().unwrap().len() == 2);
    let all = history(&hcf, "");
    assert!(!all["minutes"].as_array().unwrap().is_empty(), "{all:#}");
    assert!(
        all["minutes"][0]["services"]["write"]["states_ms"]["down"].as_u64() > Some(0),
        "{all:#}"
    );
}

#[test]
fn explain_says_what_was_wrong_with_a_node_that_is_well_again() {
    let (mut node, desk) = (FakeNode::start(GOOD), Desk::new());
    let hcf = desk.sidecar(&node, "");
    wait(&hcf, "up");
    node.set(BAD);
    wait(&hcf, "down");
    let lost =
        history(&hcf, "?service=write")["transitions"].as_array().unwrap().last().unwrap().clone();
    node.close();
    wait_until("refused", LONG, || ask(hcf.agent(), "write\n").contains("#refused"));
    node.reopen();
    node.set(GOOD);
    wait(&hcf, "up");
    let at = lost["at"].as_str().unwrap();
    let run = desk.run(&["explain", "write", "--at", at]);
    assert_eq!((run.exit, &*run.stderr), (1, ""), "{run:?}");
    for words in [
        "write at 20",
        ": down, since 20",
        "Before that it was up with weight 100.",
        "  servers-few      3 of 4 storage servers usable, 6 refused\n",
        "  servers          down     3 of 4 storage servers usable, 6 refused\n",
        " was lost, refused\n",
    ] {
        assert!(run.stdout.contains(words), "{words}\n{}", run.stdout);
    }
    let run = desk.run(&["explain", "write"]);
    assert_eq!(run.exit, 0, "{run:?}");
    assert!(
        run.stdout.contains(": up with weight 100, since 20")
            && run.stdout.contains(" at the node failed, refused: "),
        "{}",
        run.stdout
    );
    let run = desk.run(&["explain", "write", "--at", "2020-01-01T00:00:00Z"]);
    assert_eq!(run.exit, 1, "{run:?}");
    assert!(run.stdout.contains("not known; what is kept begins at 20"), "{}", run.stdout);
    let run = desk.run(&["history", "write"]);
    assert_eq!((run.exit, &*run.stderr), (0, ""), "{run:?}");
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert!(lines[0].contains("  write     start -> down      starting: "), "{}", run.stdout);
    assert!(
        lines.iter().any(|l| l
            .ends_with("up -> down      servers-few: 3 of 4 storage servers usable, 6 refused")),
        "{}",
        run.stdout
    );
    assert!(!run.stdout.contains("read"), "{}", run.stdout);
    let json: Value =
        serde_json::from_str(&desk.run(&["history", "--json", "--since", "1h"]).stdout).unwrap();
    assert_eq!(json["now"]["write"]["state"], "up");
}

#[test]
fn questions_that_make_no_sense_are_refused_with_a_sentence() {
    let (node, desk) = (FakeNode::start(GOOD), Desk::new());
    let hcf = desk.sidecar(&node, "");
    wait(&hcf, "up");
    for (query, status, words) in [
        ("?since=yesterday", 400, "`since` is a time such as"),
        ("?since=2999-01-01T00:00:00Z", 400, "lies in the future"),
        ("?service=", 400, "`` is not the name of a service"),
        ("?after=x", 400, "`after` is a number"),
        ("?until=1h", 400, "there is no `until` here"),
        ("?service=raed", 404, "there is no service `raed`; expected one of read, write"),
    ] {
        let answer = get(hcf.status(), &format!("/v1/history{query}")).unwrap();
        assert_eq!(answer.status, status, "{query}");
        assert!(answer.text().contains(words), "{query}: {}", answer.text());
    }
    for good in
        ["?since=2h", "?since=2026-01-01T00:00:00%2B02:00", "?since=1h&service=read&after=2"]
    {
        assert!(history(&hcf, good)["transitions"].is_array(), "{good}");
    }
    assert_eq!(
        get(hcf.health(), "/v1/history").unwrap().status,
        404,
        "it shows the grid's topology"
    );
    for (args, exit) in [
        (&["history", "raed"][..], 2),
        (&["history", "--since", "yesterday"], 2),
        (&["explain", "raed"], 2),
        (&["explain", "write", "--at", "25:00"], 2),
        (&["watch", "raed"], 2),
    ] {
        let run = desk.run(args);
        assert_eq!((run.exit, &*run.stdout), (exit, ""), "{args:?} {run:?}");
        assert!(run.stderr.starts_with("hcf: "), "{run:?}");
    }
    assert_eq!(hcf_at("/nonexistent/admin.sock", "history").exit, 3);
    assert_eq!(hcf_at("/nonexistent/admin.sock", "watch").exit, 3);
}

fn hcf_at(socket: &str, command: &str) -> super::program::Run {
    hcf(&[command, "--socket", socket])
}

#[test]
fn a_history_that_cannot_be_kept_ends_nothing_else_and_says_so() {
    let (node, desk) = (FakeNode::start(GOOD), Desk::new());
    std::fs::create_dir(desk.path("state")).unwrap();
    std::fs::write(desk.path("state/history"), "in its place").unwrap();
    let hcf = desk.sidecar(&node, "");
    wait_until("up", LONG, || ask(hcf.agent(), "write\n") == "up ready 100%\n");
    wait_until("to be told", LONG, || hcf.log().contains("The history is not kept: cannot make"));
    assert_eq!(hcf.log().matches("The history is not kept").count(), 1);
    let status = get(hcf.status(), "/v1/status").unwrap().json();
    assert!(status["history"]["trouble"].as_str().unwrap().contains("state/history"), "{status:#}");
    assert!(
        status["notes"][0].as_str().unwrap().starts_with("the history is not kept"),
        "{status:#}"
    );
    let metrics = get(hcf.status(), "/metrics").unwrap().text();
    assert!(metrics.contains("\nhcf_history_write_errors_total 1\n"), "{metrics}");
    node.set(BAD);
    wait_until("down", LONG, || ask(hcf.agent(), "write\n").starts_with("down "));
    let empty = history(&hcf, "");
    assert_eq!(empty["transitions"].as_array().unwrap().len(), 0, "{empty:#}");
    let page = get(hcf.status(), "/").unwrap().text();
    assert!(page.contains("<svg class=\"day\"") && page.contains("servers-few"), "{page}");
}

#[test]
fn without_a_state_directory_it_is_in_memory_and_says_so() {
    let node = FakeNode::start(GOOD);
    let config = "node: {every: 50ms}\nservices: {write: {criteria: {servers: {min: 4}}}}\n";
    let hcf = Hcf::configured(config, &["--node", &node.url()]);
    wait(&hcf, "up");
    node.set(BAD);
    wait(&hcf, "down");
    assert_eq!(history(&hcf, "")["kept"], "memory");
    let url = format!("http://{}", hcf.status());
    let run = super::program::hcf(&["history", "--url", &url]);
    assert_eq!(run.exit, 1, "{run:?}");
    assert!(run.stdout.contains("It is kept in memory only"), "{}", run.stdout);
}

/// `hcf watch`, with its output in a pipe.
fn watch(desk: &Desk, args: &[&str]) -> Child {
    let mut command = Command::new(hcf_binary());
    for name in read_variables() {
        command.env_remove(name);
    }
    let socket = desk.socket().display().to_string();
    let command = command.arg("watch").args(args).args(["--socket", &socket]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn watch_prints_a_line_for_each_change_and_connects_again() {
    let (node, desk) = (FakeNode::start(GOOD), Desk::new());
    let mut hcf = desk.sidecar(&node, "shutdown: {announce: 0s}\n");
    wait(&hcf, "up");
    let mut child = watch(&desk, &["write"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut errors = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut next = |words: &str| {
        let line = lines.find(|line| line.contains(words)).expect(words);
        assert!(!line.contains('\u{1b}') && !line.contains("read"), "{line}");
    };
    next("  write  start -> up, weight 100  all is well");
    node.set(BAD);
    next("  write  up -> down, weight 100  servers-few: 3 of 4 storage servers usable, 6 refused");
    hcf.signal(Signal::Kill);
    hcf.process().wait_end(LONG);
    assert!(errors.next().unwrap().ends_with("trying again"));
    node.set(GOOD);
    let _hcf = desk.sidecar(&node, "");
    assert!(errors.next().unwrap().ends_with("is back"));
    next("  write  down -> up, weight 100  all is well");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn watch_ends_without_a_word_when_nobody_reads() {
    let (node, desk) = (FakeNode::start(GOOD), Desk::new());
    let hcf = desk.sidecar(&node, "");
    wait(&hcf, "up");
    let mut child = watch(&desk, &["--json", "write"]);
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let first: Value = serde_json::from_str(&first).unwrap();
    assert_eq!((&first["service"], &first["state"]), (&"write".into(), &"up".into()));
    // The pipe is closed now, and the next lines cannot be written.
    wait_until("the end", LONG, || {
        node.set(if ask(hcf.agent(), "write\n").starts_with("up ") { BAD } else { GOOD });
        child.try_wait().unwrap().is_some()
    });
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((child.wait().unwrap().code(), &*said), (Some(0), ""));
}

#[test]
fn watch_draws_on_a_terminal_what_is_so_now() {
    let (node, desk) = (FakeNode::start(GOOD), Desk::new());
    let mut hcf = desk.sidecar(&node, "shutdown: {announce: 0s}\n");
    wait(&hcf, "up");
    // `script` is killed at the end, and a hang-up may be ignored where the tests run.
    let command = format!(
        "exec setpriv --pdeathsig KILL '{}' watch write --socket '{}'",
        hcf_binary().display(),
        desk.socket().display()
    );
    // Each on a terminal of its own, which `script` makes.
    let terminals = [("colour", ""), ("plain", "1")].map(|(name, no_color)| {
        let program = Program::new(name, Path::new("script"))
            .args(["-qec", &command, "/dev/null"])
            .without(read_variables())
            .variable("SHELL", "/bin/sh")
            .variable("NO_COLOR", no_color);
        Process::start(&program, &desk.path(""))
    });
    let wait_drawn = |colour: &str, plain: &str, also: &str| {
        for (terminal, word) in terminals.iter().zip([colour, plain]) {
            wait_until(also, LONG, || {
                // From home to where the rest is cleared.
                let drawn = terminal.stdout();
                let drawn = drawn.rsplit("\x1b[H").next().unwrap_or_default();
                let state = format!("\x1b[K\r\nwrite: {word}, weight 100, since ");
                let is_whole = drawn.ends_with("\x1b[K\r\n\x1b[J");
                is_whole && drawn.contains(&state) && drawn.contains(also)
            });
        }
    };
    wait_drawn("\x1b[32mup\x1b[0m", "up", "\r\n  all is well\x1b[K");
    node.set(BAD);
    wait_drawn(
        "\x1b[31mdown\x1b[0m",
        "down",
        "  write  up -> down, weight 100  servers-few: 3 of 4",
    );
    hcf.signal(Signal::Kill);
    hcf.process().wait_end(LONG);
    wait_drawn("\x1b[31mdown\x1b[0m", "down", "is gone, it has ended the connection; trying again");
    for (terminal, coloured) in terminals.iter().zip([true, false]) {
        let all = terminal.stdout();
        assert!(all.starts_with("\x1b[H") && !all.contains("read: "), "{all:?}");
        assert_eq!(all.contains("\x1b[3"), coloured, "{all:?}");
    }
}

#[test]
fn seven_days_are_read_at_a_start_and_answered_in_parts() {
    let (node, desk) = (FakeNode::start(GOOD), Desk::new());
    past::write(&desk.path("state"));
    let hcf = desk.sidecar(&node, "");
    wait(&hcf, "up");
    let (mut next, mut transitions, mut minutes, mut parts) =
        (Some("?since=7d".to_owned()), 0, 0, 0);
    let mut last = 0;
    while let Some(query) = next {
        let part = history(&hcf, &query);
        for list in ["transitions", "minutes"] {
            let seqs: Vec<u64> =
                part[list].as_array().unwrap().iter().map(|r| r["seq"].as_u64().unwrap()).collect();
            assert!(
                seqs.first().is_none_or(|first| *first > last) && seqs.is_sorted(),
                "{last} {seqs:?}"
            );
        }
        let size = serde_json::to_vec(&part).unwrap().len();
        assert!(size < 1 << 20, "{size}");
        transitions += part["transitions"].as_array().unwrap().len();
        minutes += part["minutes"].as_array().unwrap().len();
        next =
            part["next"].as_str().map(|next| next.strip_prefix("/v1/history").unwrap().to_owned());
        last = next.as_ref().map_or(0, |next| next.rsplit('=').next().unwrap().parse().unwrap());
        parts += 1;
    }
    assert!(
        transitions >= 1007 && minutes >= 10_079 && parts > 3,
        "{transitions} {minutes} {parts}"
    );
    let run = desk.run(&["history", "write", "--since", "7d"]);
    assert_eq!((run.exit, &*run.stderr), (0, ""));
    assert!(
        run.stdout.contains("\nwrite: up 99.9") || run.stdout.contains("\nwrite: up 100.00 %"),
        "{}",
        run.stdout.lines().last().unwrap()
    );
    let page = get(hcf.status(), "/").unwrap().text();
    // A minute in which it was down is one in which it was down, however short that was.
    assert!(page.contains("The last 24 h (UTC): up 22 h 4"), "{page}");
}
