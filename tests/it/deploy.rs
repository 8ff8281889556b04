//! What `deploy/` ships beside the program, each proven by its own script.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::e2e::farm::shipped;
use crate::lab::fake::FakeNode;
use crate::lab::hcf::{ask, hcf_binary};
use crate::lab::ports::free_port;
use crate::lab::process::{Process, Program};
use crate::lab::wait::{LONG, wait_until};
use crate::lab::{http, place};

/// Runs a script of `deploy/` with the program that these tests run; panics with its words when it fails.
fn deploy(script: &str, arguments: &[&str]) {
    let path = place::root().join("deploy").join(script);
    let run = Command::new(&path).args(arguments).output();
    let run = run.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    println!("{out}{err}");
    assert!(run.status.success(), "deploy/{script} failed: {err}");
}

/// The folder of cargo's that the program stands in: `debug`, or `release`.
fn profile() -> String {
    let folder = hcf_binary().parent().and_then(|dir| Some(dir.file_name()?.to_owned()));
    folder.expect("the program is in a folder").to_string_lossy().into_owned()
}

#[test]
fn the_package_installs_and_goes_without_a_trace() {
    deploy("package-check", &[&profile()]);
}

#[test]
fn the_container_runs_as_nobody_on_a_read_only_root() {
    let node = FakeNode::healthy();
    deploy("container-check", &[&profile(), &node.url()]);
}

#[test]
fn kubernetes_takes_the_manifests() {
    let python = place::root().join(".parts/kubernetes/bin/python");
    assert!(python.exists(), "{} is not there: run deploy/parts", python.display());
    let manifest = place::root().join("deploy/kubernetes/gateway.yaml");
    let check = ["-m", "kubernetes_validate", "--strict"];
    let run = Command::new(python).args(check).arg(&manifest).output().expect("it runs");
    let said = String::from_utf8_lossy(&run.stdout) + String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{said}");
    assert_eq!(said.matches(" passed for ").count(), 4, "{said}");
}

/// The short name is the instance `hcf`, and stays so.
#[test]
fn the_unit_of_a_single_node_is_that_of_an_instance() {
    let read = |name: &str| shipped("deploy/systemd", name);
    let settings = |text: String| -> Vec<String> {
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    };
    let instance = read("hcf@.service").replace("node %i for", "node for").replace("%i", "hcf");
    assert_eq!(settings(read("hcf.service")), settings(instance));
}

/// A question waits in the queue of a socket that the service manager holds, and the sidecar that is then started answers.
/// `systemd-socket-activate` does what the service manager would do with `hcf.socket`.
#[test]
fn held_sockets_are_those_of_the_default_configuration_and_answer_who_came_early() {
    let unit = shipped("deploy/systemd", "hcf.socket");
    let held: Vec<&str> = unit.lines().filter_map(|l| l.strip_prefix("ListenStream=")).collect();
    let node = FakeNode::healthy();
    let shown = crate::program::hcf(&["check", "--show", "--node", &node.url()]).stdout;
    let shown: Value = serde_yaml::from_str(&shown).expect("YAML");
    let listen = ["agent", "health", "status"].map(|name| &shown["listen"][name]);
    assert_eq!(held, listen.map(|address| address.as_str().unwrap_or("not one address")));

    // Fixed ports may be taken here.
    let ports = held.iter().map(|_| format!("127.0.0.1:{}", free_port())).collect::<Vec<_>>();
    let folder = place::folder("sockets");
    let mut program = Program::new("held", Path::new("/usr/bin/systemd-socket-activate"));
    for address in &ports {
        program = program.arg(format!("--listen={address}"));
    }
    let program =
        program.arg(hcf_binary().display().to_string()).args(["run", "--node", &node.url()]);
    let names = ["--agent", "--health", "--status"];
    let program = names
        .iter()
        .zip(&ports)
        .fold(program, |program, (name, address)| program.args([*name, address.as_str()]));
    let mut process = Process::start(&program, folder.path());
    wait_until("the sockets to be held", LONG, || {
        process.must_run();
        process.log().matches("Listening on").count() == 3
    });
    let line = ask(&ports[0], "write\n");
    assert!(line.contains("ready"), "{line}");
    for address in &ports[1..] {
        assert_eq!(http::get(address, "/livez").expect("an answer").status, 200);
    }
    assert!(!process.log().contains("inherited socket is closed"), "{}", process.log());
}

#[test]
fn the_default_configuration_names_every_key_of_the_schema() {
    let schema: Value = serde_json::from_str(&shipped("deploy", "hcf.schema.json")).expect("JSON");
    let text = shipped("deploy", "hcf.yaml");
    let sections = schema["$defs"].as_object().expect("sections").values().chain([&schema]);
    let keys = sections.filter_map(|section| section["properties"].as_object()).flatten();
    let missing: Vec<&String> = keys
        .map(|(key, _)| key)
        .filter(|key| !text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|w| w == *key))
        .collect();
    assert!(missing.is_empty(), "hcf.yaml does not name {missing:?}");
}

/// The configuration inside the manifest is one that hcf takes.
#[test]
fn the_manifest_holds_a_configuration_of_ours() {
    let text = std::fs::read_to_string(place::root().join("deploy/kubernetes/gateway.yaml"));
    let text = text.expect("the manifest can be read");
    let first = text.split("\n---\n").next().expect("a first document");
    let map: Value = serde_yaml::from_str(first).expect("YAML");
    let folder = place::folder("manifest");
    // Where the manifest mounts the node's directory.
    std::fs::write(folder.path().join("tahoe.cfg"), map["data"]["tahoe.cfg"].as_str().unwrap())
        .unwrap();
    let config = map["data"]["hcf.yaml"].as_str().unwrap();
    assert!(config.contains("dir: /node"), "{config}");
    let config = config.replace("dir: /node", &format!("dir: \"{}\"", folder.path().display()));
    let file = folder.path().join("hcf.yaml");
    std::fs::write(&file, config).unwrap();
    let run = crate::program::hcf(&["check", "-c", &file.display().to_string()]);
    assert_eq!(run.exit, 0, "{run:?}");
    assert!(run.stdout.contains("http://127.0.0.1:3456"), "{}", run.stdout);
}
