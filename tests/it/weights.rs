//! Where weights come from: what is measured of the node and its machine.

use crate::failures::status;
use crate::lab::fake::{Answer, FakeNode};
use crate::lab::hcf::{Hcf, ask};
use crate::lab::wait::{LONG, wait_until};

/// A sidecar whose service `write` needs two servers, with this weight.
fn start(node: &FakeNode, weight: &str) -> Hcf {
    let config = format!(
        "node: {{every: 50ms, timeout: 1s}}\nservices: {{write: {{criteria: {{servers: {{min: 2}}}}, weight: {weight}}}}}\n"
    );
    Hcf::configured(&config, &["--node", &node.url()])
}

fn wait_line(hcf: &Hcf, wanted: &str) {
    wait_until(wanted, LONG, || ask(hcf.agent(), "write\n") == wanted);
}

#[test]
fn a_weight_follows_the_usable_servers() {
    let node = FakeNode::start(Answer::Grid { connected: 10, refused: 0 });
    let hcf = start(&node, "{servers: on, min: 20}");
    wait_line(&hcf, "up ready 100%\n");
    // From ten of ten to two of ten, of which two are needed.
    for (connected, line) in [(6, "up ready 60%\n"), (2, "up ready 20%\n"), (10, "up ready 100%\n")]
    {
        node.set(Answer::Grid { connected, refused: 10 - connected });
        wait_line(&hcf, line);
    }
    node.set(Answer::Grid { connected: 6, refused: 4 });
    wait_line(&hcf, "up ready 60%\n");
    let shown = &status(&hcf)["services"]["write"]["weight_parts"];
    assert_eq!(shown[0]["text"], "6 of 10 storage servers, 2 needed", "{shown}");
}

#[test]
fn a_small_change_waits_until_it_has_settled() {
    let node = FakeNode::start(Answer::Grid { connected: 10, refused: 0 });
    let hcf = start(&node, "{servers: on, servers_full: 102, min: 1, step: 50, settle: 1s}");
    // Eight of the hundred that lie between all and nothing.
    wait_until("a weight", LONG, || ask(hcf.agent(), "write\n").starts_with("up ready "));
    let first = ask(hcf.agent(), "write\n");
    node.set(Answer::Grid { connected: 20, refused: 0 });
    let seen = node.requests();
    wait_until("looks", LONG, || node.requests() > seen + 3);
    assert_eq!(ask(hcf.agent(), "write\n"), first, "less than a step, and only just");
    wait_until("it to settle", LONG, || ask(hcf.agent(), "write\n") != first);
}

#[test]
fn the_machine_and_the_answer_time_are_measured() {
    let node = FakeNode::healthy();
    let hcf =
        start(&node, "{latency: {full: 500ms, zero: 2s}, load: {full: 999, zero: 1000}, node: on}");
    wait_until("it to be up", LONG, || ask(hcf.agent(), "write\n").starts_with("up ready "));
    let status = status(&hcf);
    let parts = status["services"]["write"]["weight_parts"].as_array().expect("parts").clone();
    let names: Vec<&str> = parts.iter().filter_map(|part| part["name"].as_str()).collect();
    // The fake node has no statistics, so that is no part, and no failure.
    assert_eq!(names, ["latency", "load"], "{parts:?}");
    assert_eq!(parts[0]["percent"], 100);
}
