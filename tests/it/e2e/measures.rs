//! What a real node is asked beside its status page: its room for uploads, and how busy it is.

use super::farm::wait_line;
use crate::lab::hcf::Hcf;
use crate::lab::http;
use crate::lab::tahoe::Grid;
use crate::lab::wait::{LONG, wait_for};

#[test]
fn the_room_for_uploads_and_the_nodes_own_statistics_are_read() {
    let mut grid = Grid::builder().storage(1).shares(1, 1, 1).gateways(1).start();
    grid.wait_ready();
    let dir = grid.gateways[0].dir().display();
    // No disk has an exbibyte free, and any has a byte.
    let services = "full: {criteria: {spool: {min_free: 1048576TiB}}}, \
                    roomy: {criteria: {spool: {min_free: 1B}}, weight: {node: on}}";
    let config = format!(
        "node: {{dir: \"{dir}\", every: 200ms, timeout: 2s}}\n\
         services: {{{services}}}\ndefault_service: roomy\n"
    );
    let hcf = Hcf::configured(&config, &[]);
    wait_line(
        &hcf,
        "full\n",
        "down ready 100% #spool-full: the node's temporary directory has too little room",
    );
    wait_line(&hcf, "roomy\n", "up ready ");
    let service = |name: &str| {
        let status = http::get(hcf.status(), "/v1/status").expect("an answer").json();
        status["services"][name].clone()
    };
    let full = service("full");
    assert_eq!(
        (&full["state"], &full["reasons"][0]["code"]),
        (&"down".into(), &"spool-full".into())
    );
    assert_eq!(service("roomy")["state"], "up");

    // A node has an average of a minute once it has run for one, and is asked four times in that.
    let part = wait_for("the node's own figure", 4 * LONG, || {
        let parts = service("roomy")["weight_parts"].as_array().cloned().unwrap_or_default();
        parts.into_iter().find(|part| part["name"] == "node")
    });
    let text = part["text"].as_str().unwrap_or_default();
    assert!(text.starts_with("the node uses ") && text.ends_with(" of a core"), "{part}");
    assert!((1..=100).contains(&part["percent"].as_u64().unwrap_or_default()), "{part}");
}
