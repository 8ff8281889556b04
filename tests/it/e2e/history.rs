//! On a real grid: what was wrong is told when all is well again.

use crate::lab::hcf::{Hcf, ask};
use crate::lab::http::get;
use crate::lab::tahoe::Grid;
use crate::lab::wait::{LONG, wait_until};
use crate::operator::Desk;

#[test]
fn explain_names_the_storage_server_that_was_killed_and_came_back() {
    let mut grid = Grid::builder().storage(4).gateways(1).start();
    grid.wait_ready();
    let desk = Desk::new();
    let gateway = grid.gateways[0].dir().display().to_string();
    let hcf = Hcf::configured(&desk.config(""), &["--node-dir", &gateway]);
    let wait = |word: &str| {
        wait_until(word, LONG, || ask(hcf.agent(), "write\n").starts_with(word));
    };
    wait("up ");
    grid.storage[0].kill();
    wait("down ");
    grid.storage[0].start();
    wait("up ");
    let down = || {
        let history = get(hcf.status(), "/v1/history?service=write").unwrap().json();
        let all = history["transitions"].as_array().unwrap().clone();
        let few = |change: &&serde_json::Value| change["reasons"][0]["code"] == "servers-few";
        all.iter().rfind(few).and_then(|change| change["at"].as_str()).map(str::to_owned)
    };
    wait_until("it to be kept", LONG, || down().is_some());
    let run = desk.run(&["explain", "write", "--at", &down().unwrap()]);
    assert_eq!(run.exit, 1, "{run:?}");
    println!("{}", run.stdout);
    for words in [
        ": down, since 20",
        "servers-few      3 of 4 storage servers usable",
        "storage server store1 (v0-",
        ") was lost, ",
    ] {
        assert!(run.stdout.contains(words), "{words}\n{}", run.stdout);
    }
}
