//! The command line: exit codes, where messages go, and what a start says.

use std::net::TcpListener;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::lab::fake::{Answer, FakeNode};
use crate::lab::hcf::{Hcf, hcf_binary};
use crate::lab::process::Signal;
use crate::lab::wait::{LONG, wait_until};
use crate::program::hcf;

#[test]
fn probe_says_what_it_sees_by_table_json_and_exit_code() {
    let node = FakeNode::start(Answer::Grid { connected: 5, refused: 2 });
    let url = node.url();
    let run = hcf(&["probe", "--node", &url]);
    assert_eq!(run.exit, 1, "write is not up: {run:?}");
    for line in [
        "read: up, weight 100",
        "  servers       pass     5 usable, 3 needed (default; set node.dir or services.read.criteria.servers.min), 2 refused",
        "write: down",
        "  servers       down     5 of 7 usable (default; set node.dir or services.write.criteria.servers.min), 2 refused",
        "  introducers   pass     1 of 1 introducers connected, 1 needed",
    ] {
        assert!(run.stdout.lines().any(|l| l == line), "{line}\n{}", run.stdout);
    }
    assert_eq!(hcf(&["probe", "--node", &url, "read"]).exit, 0);
    let json: Value =
        serde_json::from_str(&hcf(&["probe", "--node", &url, "--json", "read"]).stdout).unwrap();
    assert_eq!(json["services"]["read"]["state"], "up");
    assert_eq!(json["services"].as_object().unwrap().len(), 1);
    let run = hcf(&["probe", "--node", &url, "raed"]);
    assert_eq!((run.exit, run.stdout.as_str()), (2, ""));
    assert_eq!(run.stderr, "hcf: there is no service `raed`; expected one of read, write\n");
}

#[test]
fn status_asks_the_running_sidecar() {
    let node = FakeNode::start(Answer::Grid { connected: 5, refused: 0 });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("status");
    let both = format!("127.0.0.1:0,unix:{}", path.display());
    let sidecar = Hcf::start(&["--node", &node.url(), "--status", &both]);
    let unix = format!("unix:{}", path.display());
    wait_until("read to be up", LONG, || hcf(&["status", "--url", &unix, "read"]).exit == 0);
    let run = hcf(&["status", "--url", &unix]);
    assert_eq!(run.exit, 1, "{run:?}");
    assert!(run.stdout.contains("\nread: up, weight 100, since 20"), "{}", run.stdout);
    let json = hcf(&["status", "--url", &unix, "--json"]).stdout;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["services"]["write"]["state"], "down");
    assert_eq!(json["commit"].as_str(), option_env!("HCF_COMMIT"));
    let text = |key: &str| json[key].as_str().expect(key).to_owned();
    let (version, hash, started) = (env!("HCF_VERSION"), text("config_hash"), text("started"));
    let who = format!("\nhcf {version}, configuration {hash}, started {started}\n");
    assert!(run.stdout.ends_with(&who), "{who}{}", run.stdout);
    assert_eq!(hcf(&["status", "--url", &unix, "nosuch"]).exit, 2);
    drop(sidecar);
    let run = hcf(&["status", "--url", &unix]);
    assert_eq!((run.exit, run.stdout.as_str()), (3, ""));
    assert!(run.stderr.contains("is `hcf run` running there?"), "{}", run.stderr);
    assert_eq!(hcf(&["status", "--url", &node.url()]).exit, 3, "a node is no sidecar");
}

#[test]
fn the_files_of_unix_sockets_go_with_the_sidecar() {
    let node = FakeNode::healthy();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| format!("unix:{}", folder.path().join(name).display());
    let listeners = ["--agent", &at("agent"), "--health", &at("health"), "--status", &at("status")];
    let mut hcf = Hcf::configured(
        "shutdown: {announce: 0s}\n",
        &[&["--node", node.url().as_str()][..], &listeners].concat(),
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
    hcf.signal(Signal::Term);
    assert_eq!(hcf.process().wait_end(LONG).code(), Some(0));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn usage_and_configuration_have_their_exit_codes() {
    assert_eq!(hcf(&["nonsense"]).exit, 2);
    assert_eq!(hcf(&["run", "--agent", "nowhere"]).exit, 2);
    let run = hcf(&["check", "-c", "/nonexistent/hcf.yaml"]);
    assert_eq!((run.exit, run.stdout.as_str()), (78, ""));
    assert!(run.stderr.starts_with("/nonexistent/hcf.yaml: cannot read it: "), "{}", run.stderr);
    for command in ["run", "check", "probe"] {
        let run = hcf(&[command, "--node-dir", "/nonexistent"]);
        assert_eq!(run.exit, 78);
        assert_eq!(
            run.stderr,
            "--node-dir: /nonexistent is not a Tahoe-LAFS node's directory: it holds no tahoe.cfg\n"
        );
    }
    assert_eq!(hcf(&["check"]).exit, 0);
    assert_eq!(
        hcf(&["check", "--node", "http://h:1"]).stdout,
        "ok: watches http://h:1, serves read, write\n"
    );
    assert_eq!(hcf(&["--version"]).stdout, format!("hcf {}\n", env!("HCF_VERSION")));
}

#[test]
fn a_port_that_cannot_be_bound_ends_the_start_with_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let others = ["--agent", "127.0.0.1:0", "--status", "off"];
    let run = hcf(&[&["run", "--health", &address][..], &others].concat());
    assert_eq!((run.exit, run.stdout.as_str()), (1, ""), "nothing is said before all is bound");
    let last = run.stderr.lines().last().unwrap();
    assert_eq!(last, format!("hcf: cannot listen on {address} for health: address already in use"));
}

#[test]
fn nobody_reading_is_no_error() {
    for command in ["schema", "man", "completions bash"] {
        let line =
            format!("{} {command} | head -n 1; exit ${{PIPESTATUS[0]}}", hcf_binary().display());
        let run = Command::new("bash").args(["-c", &line]).stdin(Stdio::null()).output().unwrap();
        assert_eq!(run.status.code(), Some(0), "{command}");
        assert_eq!(String::from_utf8_lossy(&run.stderr), "", "{command}");
        assert!(!run.stdout.is_empty());
    }
}

#[test]
fn the_schema_in_deploy_is_the_programs_own() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/hcf.schema.json");
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(hcf(&["schema"]).stdout, kept, "run: hcf schema > deploy/hcf.schema.json");
}

#[test]
fn a_stop_is_announced_and_a_second_signal_ends_it_at_once() {
    let node = FakeNode::healthy();
    let config = "services: {write: {criteria: {servers: {min: 7}}}}\nshutdown: {announce: 1h}\n";
    let mut hcf = Hcf::configured(config, &["--node", &node.url()]);
    let write = || crate::lab::hcf::ask(hcf.agent(), "write\n");
    wait_until("up", LONG, || write() == "up ready 100%\n");
    hcf.signal(Signal::Term);
    wait_until("the announcement", LONG, || {
        write() == "up drain 100% #shutdown: the sidecar is stopping\n"
    });
    hcf.signal(Signal::Term);
    assert_eq!(hcf.process().wait_end(LONG).code(), Some(0));
}
