//! The balancer fragments of the README start as they are.

use super::farm::{shipped, with_clusters};
use crate::lab::envoy::{Envoy, validate};
use crate::lab::haproxy::{Haproxy, Version, replace};
use crate::lab::ports::free_port;

/// The fenced blocks with this tag.
fn blocks(tag: &str) -> Vec<String> {
    let text = shipped(".", "README.md");
    let mut parts = text.split("```");
    let mut found = Vec::new();
    // Before each block stands text, and after it again.
    while let (Some(_), Some(block)) = (parts.next(), parts.next()) {
        if let Some(("", block)) = block.split_once(&format!("{tag}\n")) {
            found.push(block.to_owned());
        }
    }
    assert!(!found.is_empty(), "the README shows none for {tag}");
    found
}

#[test]
fn haproxy_starts_with_the_readmes_fragment() {
    for block in blocks("haproxy") {
        let defaults = "defaults\n    mode http\n    timeout connect 2s\n    timeout client 1m\n    timeout server 5m\n";
        let config = replace(
            &format!("{defaults}{block}"),
            &[("127.0.0.1:8080", &format!("127.0.0.1:{}", free_port()))],
        );
        for version in Version::ALL {
            let haproxy = Haproxy::start(version, &config);
            assert!(!haproxy.stat("be_write", "gw1").is_up(), "out until an hcf has spoken");
        }
    }
}

#[test]
fn envoy_starts_with_the_readmes_fragment() {
    for block in blocks("envoy") {
        let config = with_clusters(&block);
        validate(&config).expect("Envoy accepts it");
        let envoy = Envoy::start(&config);
        envoy.wait_live();
        assert!(!envoy.is_up("nodes_write", "127.0.0.1:3456"), "out until an hcf has spoken");
    }
}
