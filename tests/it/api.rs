//! The status listener against its own description: deploy/openapi.json.

use std::process::Command;

use super::gate::{BAD, GOOD};
use super::operator::Desk;
use super::program::hcf;
use super::watch::{Watcher, start};
use crate::lab::fake::{Answer, FakeNode};
use crate::lab::http::get;
use crate::lab::place;
use crate::lab::wait::{LONG, wait_until};

fn shipped() -> std::path::PathBuf {
    place::root().join("deploy/openapi.json")
}

#[test]
fn the_shipped_api_is_the_one_of_the_types() {
    let kept = std::fs::read_to_string(shipped()).expect("deploy/openapi.json");
    let printed = hcf(&["schema", "--api"]).stdout;
    assert_eq!(printed, kept, "run: hcf schema --api > deploy/openapi.json");
}

/// Asks whatever the description allows, and what it does not, and holds each answer against it.
fn hold(address: &str, cases: &str) {
    // `/v1/watch` has no end; its events are held against the description one by one.
    ask(address, cases, &["--exclude-path", "/v1/watch", "--exclude-path", "/v1/history"], "");
    // Not every text is a time, and tests/it/history.rs knows which.
    ask(address, cases, &["--include-path", "/v1/history"], ",positive_data_acceptance");
}

fn ask(address: &str, cases: &str, paths: &[&str], but: &str) {
    let program = place::root().join(".parts/schemathesis/bin/schemathesis");
    let folder = place::folder("schemathesis");
    let mut command = Command::new("timeout");
    command.args(["-k", "5", "300"]).arg(&program).arg("run").arg(shipped());
    command.args(["--url", &format!("http://{address}"), "--max-examples", cases]);
    command.args(paths).args(["--phases", "examples,coverage,fuzzing"]);
    command.args(["--generation-deterministic", "--no-color", "--checks", "all"]);
    // 503 is a verdict here; and what a query holds beside what is known is ignored, so nothing in it is refused.
    let but = format!("not_a_server_error,negative_data_rejection{but}");
    command.args(["--exclude-checks", &but]);
    let output = command.current_dir(folder.path()).output().expect("coreutils are there");
    let said = String::from_utf8_lossy(&output.stdout);
    let wrong = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}{wrong}", program.display());
    assert!(said.contains("No issues found"), "{said}");
}

#[test]
fn every_answer_is_as_the_api_says() {
    let (desk, node) = (Desk::new(), FakeNode::start(GOOD));
    let more = "gates: {webapi: {listen: '127.0.0.1:0', when_bad: close}}\n";
    let sidecar = desk.sidecar(&node, more);
    wait_until("up", LONG, || get(sidecar.status(), "/health/read").unwrap().status == 200);
    hold(sidecar.status(), "10");
    // Everything that may be there is: orders, losses, a failure, and a reload that was refused.
    desk.order(&["drain", "read", "-m", "disk swap", "--for", "1h"]);
    desk.order(&["weight", "20", "write", "-m", "rebuilding an array"]);
    node.set(BAD);
    wait_until("the loss", LONG, || get(sidecar.status(), "/health/write").unwrap().status == 503);
    node.set(Answer::Status(500));
    std::fs::write(sidecar.file(), "nodde: 1\n").expect("it can be written");
    assert_eq!(desk.run(&["reload"]).exit, 78);
    hold(sidecar.status(), "3");
}

#[test]
fn every_event_is_as_the_api_says() {
    // Each line has the name of an event and its data.
    const HOLD: &str = "\
import json, jsonschema_rs, sys
api, events = sys.argv[1:]
api = json.load(open(api))
kinds = api['paths']['/v1/watch']['get']['responses']['200']['x-events']
seen = set()
for line in open(events):
    kind, data = json.loads(line)
    jsonschema_rs.Draft202012Validator({**kinds[kind], 'components': api['components']}).validate(data)
    seen.add(kind)
assert seen == set(kinds), seen
";
    let node = FakeNode::healthy();
    let hcf = start(&node);
    let mut watcher = Watcher::connect(&hcf);
    let mut events = Vec::new();
    let mut until = |name: &str| {
        for event in std::iter::from_fn(|| watcher.event()) {
            events.push(serde_json::to_string(&event).unwrap());
            if event.0 == name {
                return;
            }
        }
        panic!("it ended before {name}");
    };
    until("verdicts");
    until("fresh");
    node.set(BAD);
    until("verdict");
    let folder = place::folder("events");
    let file = folder.path().join("events");
    let events = events.join("\n");
    std::fs::write(&file, &events).unwrap();
    let python = place::root().join(".parts/schemathesis/bin/python");
    let held = Command::new(python).args(["-c", HOLD]).arg(shipped()).arg(&file).output().unwrap();
    assert!(held.status.success(), "{}\n{events}", String::from_utf8_lossy(&held.stderr));
}
