//! What `tahoe` and `curl` see through each kind of gate while the node is good, bad, and good again.

use std::path::Path;
use std::process::Command;

use super::farm::{beside_gates, wait_line};
use super::gate::bytes;
use crate::lab::cut::{Cut, How};
use crate::lab::place;
use crate::lab::tahoe::Grid;
use crate::lab::wait::{LONG, wait_until};

/// What a client sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sees {
    /// The node's right answer.
    Works,
    /// Nobody listens.
    Refused,
    /// The gate's 503 with its reasons.
    Problem,
}
use Sees::{Problem, Refused, Works};

/// For each `when_bad`, what these see while the service is down: `tahoe put`, `get` and `check`, and `curl` of a file
/// and of a page for diagnosis.
const WHILE_BAD: [(&str, [Sees; 5]); 4] = [
    ("close", [Refused, Refused, Refused, Refused, Refused]),
    ("refuse_uri", [Problem, Problem, Problem, Problem, Works]),
    // A check is asked for by POST, and `t=` is not looked at.
    ("refuse_writes", [Problem, Works, Problem, Works, Works]),
    ("pass", [Works, Works, Works, Works, Works]),
];

/// A file in the grid, and a folder to work in.
struct Desk<'a> {
    folder: &'a Path,
    file: Vec<u8>,
    cap: String,
}

impl Desk<'_> {
    /// What all of them see at this gate.
    fn ask(&self, gate: &str) -> [Sees; 5] {
        let (from, to) = (self.path("from"), self.path("to"));
        let _ = std::fs::remove_file(&to);
        let put = self.tahoe("put", gate, &[&from], |said| said.trim() == self.cap);
        let get = self.tahoe("get", gate, &[&self.cap, &to], |_| {
            std::fs::read(&to).is_ok_and(|got| got == self.file)
        });
        let check = self.tahoe("check", gate, &[&self.cap], |said| said.contains("Summary: "));
        let file = self.curl(gate, &format!("/uri/{}", self.cap), |body| body == self.file);
        let page = self.curl(gate, "/statistics?t=json", |body| body.starts_with(b"{"));
        [put, get, check, file, page]
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// `tahoe COMMAND` at this gate; `right` judges what it prints.
    fn tahoe(
        &self,
        command: &str,
        gate: &str,
        words: &[&str],
        right: impl Fn(&str) -> bool,
    ) -> Sees {
        let output = Command::new(place::part("tahoe"))
            .args(["--node-directory", &self.path("node"), command])
            .args(["--node-url", &format!("http://{gate}")])
            .args(words)
            .output()
            .expect("tahoe can be run");
        let said = String::from_utf8_lossy(&output.stdout);
        let complained = String::from_utf8_lossy(&output.stderr);
        if output.status.success() && right(&said) {
            Works
        } else if complained.contains("Connection refused") {
            Refused
        } else if complained.contains("503 Service Unavailable")
            && complained.contains("servers-few")
        {
            Problem
        } else {
            panic!("tahoe {command} at {gate}: {output:?}")
        }
    }

    /// `curl` of this path; `right` judges the body.
    fn curl(&self, gate: &str, path: &str, right: impl Fn(&[u8]) -> bool) -> Sees {
        let to = self.path("body");
        let output = Command::new("curl")
            .args(["-sS", "-o", &to, "-w", "%{http_code} %{content_type}"])
            .arg(format!("http://{gate}{path}"))
            .output()
            .expect("deploy/parts installs curl");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let body = || std::fs::read(&to).unwrap_or_default();
        match (output.status.code(), said.split(' ').next()) {
            (Some(7), _) => Refused,
            (Some(0), Some("200")) if right(&body()) => Works,
            (Some(0), Some("503")) if said.ends_with("application/problem+json") => {
                let problem: serde_json::Value = serde_json::from_slice(&body()).expect("JSON");
                assert_eq!(problem["reasons"][0]["code"], "servers-few", "{problem}");
                Problem
            }
            _ => panic!("curl of {path} at {gate}: {output:?}"),
        }
    }
}

#[test]
fn tahoe_and_curl_see_of_each_gate_what_it_promises() {
    let grid = Grid::ready();
    let gateway = &grid.gateways[0];
    let folder = place::folder("clients");
    let file = bytes(5000);
    std::fs::write(folder.path().join("from"), &file).expect("it can be written");
    let desk = Desk { folder: folder.path(), cap: gateway.upload(&file), file };
    // The gateway itself works on without one of its servers, so that what passes is answered.
    let wants = "services: {write: {criteria: {servers: {min: 5}}}}\n";
    let hcf = beside_gates(gateway, &WHILE_BAD.map(|(kind, _)| kind), wants);
    let gate = |kind: &str| hcf.address(&format!("gate/{kind}")).to_owned();
    let all_work = || {
        wait_line(&hcf, "write\n", "up ready 100%\n");
        wait_until("the gate to open", LONG, || !crate::gate::is_refused(&gate("close")));
        for (kind, _) in WHILE_BAD {
            assert_eq!(desk.ask(&gate(kind)), [Works; 5], "{kind}, while the node is good");
        }
    };
    all_work();
    let cut = Cut::new(gateway, &grid.storage_ports(1), How::Reject);
    wait_line(&hcf, "write\n", "#servers-few");
    wait_until("the gate to close", LONG, || crate::gate::is_refused(&gate("close")));
    for (kind, expected) in WHILE_BAD {
        assert_eq!(desk.ask(&gate(kind)), expected, "{kind}, while the node is bad");
    }
    drop(cut);
    all_work();
}
