//! Situations that a real grid was in, each from the status page that its gateway gave then, with the
//! verdicts that an operator would want.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::lab::fake::{Answer, FakeNode};
use crate::program::hcf;

/// Needed 2, happy 4, as the grids that the pages come from had it.
const CONFIG: &str = "
services:
  read: {criteria: {servers: {min: 2}}}
  write: {criteria: {servers: {min: 4}}}
";

/// A page, with its ages as they were when it was taken.
fn page(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/data/tahoe/{name}", env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let Ok(mut page) = serde_json::from_slice::<Value>(&page) else { return page };
    let Some(servers) = page.get_mut("servers").and_then(Value::as_array_mut) else {
        return page.to_string().into_bytes();
    };
    let heard = |server: &Value| server["last_received_data"].as_f64();
    let taken = servers.iter().filter_map(heard).fold(0.0, f64::max);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    for server in servers.iter_mut() {
        if let Some(at) = heard(server) {
            server["last_received_data"] = (now - (taken - at)).into();
        }
    }
    page.to_string().into_bytes()
}

/// The states of read and write, and the codes of all reasons.
fn judged(node: &FakeNode) -> (String, String, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("hcf.yaml");
    std::fs::write(&config, CONFIG).unwrap();
    let file = config.display().to_string();
    let told = hcf(&["probe", "--json", "-c", &file, "--node", &node.url()]);
    let told: Value =
        serde_json::from_str(&told.stdout).unwrap_or_else(|e| panic!("{e}: {told:?}"));
    let state = |service: &str| told["services"][service]["state"].as_str().unwrap().to_owned();
    let reasons = told["services"]["write"]["reasons"].as_array().unwrap();
    let codes = reasons.iter().map(|reason| reason["code"].as_str().unwrap().to_owned());
    (state("read"), state("write"), codes.collect())
}

#[test]
fn every_situation_of_a_real_grid_gets_its_verdicts() {
    let node = FakeNode::healthy();
    let (up, down) = ("up", "down");
    let none: &[&str] = &[];
    let few: &[&str] = &["servers-few"];
    for (sample, read, write, codes) in [
        ("healthy-5.json", up, up, none),
        ("healthy-5-foolscap.json", up, up, none),
        // Five usable of eight: one without its plugin, one without tor, one refused.
        ("static-and-two-introducers.json", up, up, none),
        ("introducer-down.json", up, up, &["introducers-few"]),
        ("two-introducers-one-down.json", up, down, few),
        ("three-introducers-one-dead-one-wrong.json", up, up, none),
        ("partial-3of5-http.json", up, down, few),
        ("partial-3of5-foolscap.json", up, down, few),
        ("all-storage-down-http.json", down, down, few),
        ("all-storage-down-foolscap.json", down, down, few),
        // From the web port's opening to the last server's version.
        ("just-started-http-0-0ms.json", down, down, &["servers-few", "introducers-few"]),
        ("just-started-http-1-9ms.json", down, down, few),
        ("just-started-http-2-32ms.json", down, down, few),
        ("just-started-http-3-58ms.json", up, up, none),
        ("just-started-foolscap-0-0ms.json", down, down, &["servers-few", "introducers-few"]),
        ("just-started-foolscap-1-9ms.json", down, down, few),
        ("just-started-foolscap-2-283ms.json", down, down, few),
        ("just-started-foolscap-3-293ms.json", down, down, few),
        ("just-started-foolscap-4-297ms.json", up, up, none),
        ("gw-start-introducer-down-nocache.json", down, down, &["servers-few", "introducers-few"]),
        // A full or read-only server stays connected, with no space: enough to read.
        ("readonly-and-full-21211.json", up, down, few),
        ("readonly-and-full-22211.json", up, down, few),
        // One of five is hung and says "Connected", so four are left: just enough.
        ("foolscap-server-sigstop-11min.json", up, up, none),
        ("v1.17.1-partial.json", up, up, none),
        // Five are connected; that only three are certified is not on the page.
        ("grid-manager-3-of-5-certified.json", up, up, none),
        ("introducer-web.json", down, down, &["not-tahoe"]),
        ("no-introducer-no-servers.json", down, down, &["servers-few", "no-introducers"]),
        ("100-servers-95-refused.json", up, up, none),
    ] {
        node.set(Answer::Page(page(sample)));
        let expected = (read.to_owned(), write.to_owned());
        let (read, write, said) = judged(&node);
        assert_eq!((read, write), expected, "{sample}: {said:?}");
        assert_eq!(said, codes, "{sample}");
    }
}

#[test]
fn a_hung_server_counts_until_its_protocol_calls_it_lost() {
    let node = FakeNode::start(Answer::Page(page("foolscap-server-sigstop-11min.json")));
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("hcf.yaml");
    let file = config.display().to_string();
    for (limit, exit) in [("", 1), (", last_heard_max: 20m", 0), (", last_heard_max: 30s", 1)] {
        let write = format!("services: {{write: {{criteria: {{servers: {{min: 5{limit}}}}}}}}}");
        std::fs::write(&config, write).unwrap();
        let told = hcf(&["probe", "-c", &file, "--node", &node.url(), "write"]);
        assert_eq!(told.exit, exit, "{limit}: {told:?}");
    }
}

/// Tahoe-LAFS 1.16.0 and 1.17.0 fail to make the page when only some servers have told their space.
#[test]
fn a_page_that_the_node_cannot_make_is_a_doubtful_failure() {
    let body = page("v1.17.0-partial.out");
    let head = format!("HTTP/1.1 500 X\r\nContent-Length: {}\r\n\r\n", body.len());
    let node = FakeNode::start(Answer::Raw([head.into_bytes(), body].concat()));
    let (read, write, codes) = judged(&node);
    assert_eq!(
        (read.as_str(), write.as_str(), codes),
        ("down", "down", vec!["http-status".to_owned()])
    );
}
