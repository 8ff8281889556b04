//! Gateways that reach the storage servers over forwarders of their own, so that one can be cut off without root.
//!
//! A gateway prefers what its `private/servers.yaml` says of a server to what the introducer announces. So each gets
//! there what was announced, with the forwarders' ports in place of the servers'.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::forwarder::Forwarder;
use super::tahoe::Node;

/// The places in an announcement that hold addresses: of the older protocol, and of HTTP.
const ADDRESSES: [&str; 2] = ["anonymous-storage-FURL", "anonymous-storage-NURLs"];

/// What the introducer has told a gateway (by its folder) of storage servers, once it is so many of them.
pub fn announced(gateway: &Path, count: usize) -> Option<Vec<Value>> {
    let cache = std::fs::read_to_string(gateway.join("private/introducer_lab_cache.yaml")).ok()?;
    let known: Vec<Value> = serde_yaml::from_str(&cache).ok()?;
    (known.len() == count).then_some(known)
}

/// Writes the gateway's `private/servers.yaml`, which it reads when it starts, and starts the forwarders.
pub fn lead(gateway: &Node, storage: &[Node], announced: &[Value]) -> Vec<Arc<Forwarder>> {
    let ways: Vec<_> = storage.iter().map(|node| Arc::new(Forwarder::start(node.port))).collect();
    let servers: serde_json::Map<String, Value> = announced
        .iter()
        .map(|server| {
            let id = server["key_s"].as_str().expect("a server has an id").to_owned();
            let mut announcement = server["ann"].clone();
            for key in ADDRESSES {
                announcement.get_mut(key).into_iter().for_each(|value| turn(value, &ways));
            }
            (id, json!({ "ann": announcement }))
        })
        .collect();
    // JSON is YAML.
    gateway.write("private/servers.yaml", &json!({ "storage": servers }).to_string());
    ways
}

/// Turns an address, or each of a list, to the forwarder that leads there.
fn turn(value: &mut Value, ways: &[Arc<Forwarder>]) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(|value| turn(value, ways)),
        Value::String(address) => {
            // A server may have several addresses, but the lab's have one.
            let to = |way: &&Arc<Forwarder>| address.contains(&format!(":{}/", way.target()));
            let way = ways.iter().find(to).expect("an announced server is of this grid");
            *address =
                address.replace(&format!(":{}/", way.target()), &format!(":{}/", way.port()));
        }
        _ => {}
    }
}
