//! Canaries on a real grid: proof where the status page claims.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::farm::wait_line;
use crate::lab::hcf::{Hcf, ask, hcf_binary, read_variables};
use crate::lab::process::{Process, Program, Signal};
use crate::lab::tahoe::{Gateway, Grid, Protocol};
use crate::lab::wait::{LONG, wait_until};
use crate::lab::{grpc, http, place};
use crate::program::{Run, hcf as run};
use crate::watch::Watcher;

/// Makes canaries through this gateway.
fn create(gateway: &Gateway, out: &Path) -> Run {
    let (dir, out) = (gateway.dir().display().to_string(), out.display().to_string());
    run(&["canary", "create", "--node-dir", &dir, "--out", &out])
}

/// A configuration for an hcf beside this gateway, which looks quickly.
fn config(gateway: &Gateway, services: &str) -> String {
    let dir = gateway.dir().display();
    format!(
        "node: {{dir: \"{dir}\", every: 200ms, timeout: 2s}}\nlog: {{level: trace}}\n{services}"
    )
}

/// What is secret in a file of capabilities.
fn secrets(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).expect("it was written");
    let caps = text.lines().filter(|line| line.starts_with("URI:"));
    let parts = caps.flat_map(|cap| cap.split(':')).filter(|part| part.len() > 10);
    let parts: Vec<String> = parts.map(str::to_owned).collect();
    assert_eq!(parts.len(), 4, "two capabilities, each with two secrets");
    parts
}

/// The findings of a service, by their criteria: whether each passes, and why.
fn finding(hcf: &Hcf, service: &str, criterion: &str) -> (bool, String) {
    let status = http::get(hcf.status(), "/v1/status").expect("an answer").json();
    let findings = status["services"][service]["findings"].as_array().cloned().unwrap_or_default();
    let found = findings.into_iter().find(|finding| finding["criterion"] == criterion);
    let found = found.unwrap_or_else(|| panic!("no {criterion} in {status}"));
    (found["pass"] == true, found["text"].as_str().unwrap_or_default().to_owned())
}

/// What a sidecar says in each way in which it can be asked, where both canaries fail.
fn everything(hcf: &Hcf, socket: &Path) -> Vec<String> {
    let get = |address: &str, path: &str| http::get(address, path).expect("an answer").text();
    let socket = socket.display().to_string();
    let (admin, url) = (format!("unix:{socket}"), format!("http://{}", hcf.status()));
    let tells = |text: &str| {
        let text = text.replace('_', "-");
        ["canary-read", "canary-write"].iter().all(|code| text.contains(code))
    };
    for service in ["read", "write"] {
        let path = format!("/v1/history?service={service}");
        wait_until("the history", LONG, || get(hcf.status(), &path).contains("gw1.caps, line 1: "));
    }
    let mut told: Vec<String> = [
        (hcf.status(), "/"),
        (hcf.status(), "/metrics"),
        (hcf.status(), "/v1/status"),
        (hcf.status(), "/v1/history"),
        (&admin, "/v1/status"),
        (&admin, "/v1/history"),
    ]
    .map(|(address, path)| get(address, path))
    .to_vec();
    let commands = [
        "status",
        "status --json",
        "history",
        "history --json",
        "explain read",
        "explain write",
        "reload",
    ];
    let runs = commands.map(|words| {
        let words: Vec<&str> = words.split(' ').collect();
        run(&[&words[..], &["--socket", &socket]].concat())
    });
    assert_eq!(runs.each_ref().map(|run| run.exit), [1, 1, 1, 1, 1, 1, 78], "{runs:?}");
    let [status, status_json, history, history_json, read, write, reload] =
        runs.map(|run| format!("{run:?}"));
    told.extend([status, status_json, history, history_json, format!("{read}{write}")]);
    let mut watcher = Watcher::connect(hcf);
    let events = std::iter::from_fn(|| watcher.event());
    let events = events.take_while(|(name, _)| name != "fresh");
    let events: Vec<String> = events.map(|(name, data)| format!("{name} {data}")).collect();
    told.push(events.join("\n"));
    for told in &told {
        assert!(tells(told), "it must tell of both canaries: {told}");
    }

    // These have no room for reasons.
    let posted = http::post(&admin, "/v1/reload", b"").expect("an answer");
    assert_eq!(posted.status, 422, "{}", posted.text());
    let listed = grpc::call(hcf.address("grpc"), "grpc.health.v1.Health/List", "{}");
    told.extend([reload, posted.text(), listed.expect("an answer").to_string()]);
    told.push(format!("{:?}", run(&["status", "--url", &url])));
    told.push(format!("{:?}", run(&["status", "--json", "--url", &url])));
    for service in ["read", "write"] {
        let path = format!("/health/{service}");
        told.push(get(hcf.status(), &path));
        told.push(get(hcf.health(), &path));
        told.push(http::get(hcf.agent(), &path).expect("an answer").reason);
    }
    told
}

/// Every file below this folder.
fn files(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("it is there");
    let paths = entries.map(|entry| entry.expect("it is there").path());
    let read = |path: PathBuf| {
        if path.is_dir() {
            return files(&path);
        }
        let bytes = std::fs::read(&path).expect("it is ours");
        vec![format!("{}: {}", path.display(), String::from_utf8_lossy(&bytes))]
    };
    paths.flat_map(read).collect()
}

/// `hcf watch`, which prints a line for each change.
fn watch(socket: &Path, folder: &Path) -> Process {
    let program = Program::new("watch", &hcf_binary()).without(read_variables());
    let program = program.args(["watch", "--socket", &socket.display().to_string()]);
    Process::start(&program, folder)
}

#[test]
fn canaries_prove_reading_and_writing_and_show_no_capability() {
    let mut grid = Grid::builder().storage(3).shares(2, 3, 3).gateways(1).start();
    grid.wait_ready();
    let folder = place::folder("caps");
    let caps = folder.path().join("gw1.caps");
    let mut said = Vec::new();
    let made = create(&grid.gateways[0], &caps);
    assert_eq!(made.exit, 0, "{made:?}");
    let mode = std::fs::metadata(&caps).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let secret = secrets(&caps);
    let again = create(&grid.gateways[0], &caps);
    assert_eq!(again.exit, 1, "{again:?}");
    assert_eq!(secrets(&caps), secret, "what is there stays");
    said.extend([format!("{made:?}"), format!("{again:?}")]);

    let path = caps.display();
    let services = format!(
        "services:\n  read:\n    criteria:\n      servers: {{min: 1}}\n      \
         canary_read: {{cap_file: {path}, every: 1s, timeout: 20s}}\n  write:\n    criteria:\n      \
         servers: {{min: 2}}\n      canary_write: {{cap_file: {path}, every: 1s, timeout: 40s}}\n"
    );
    let (state, socket) = (folder.path().join("state"), folder.path().join("admin.sock"));
    let kept = format!("state_dir: {}\nadmin: {{socket: {}}}\n", state.display(), socket.display());
    let text = config(&grid.gateways[0], &format!("{services}{kept}"));
    let file = folder.path().join("hcf.yaml");
    std::fs::write(&file, &text).expect("it can be written");
    let mut hcf = Hcf::start(&["-c", &file.display().to_string(), "--grpc=127.0.0.1:0"]);
    let mut watch = watch(&socket, folder.path());
    let mut lines = Vec::new();
    let mut expect =
        |hcf: &Hcf, service: &str, line: &str| lines.push(wait_line(hcf, service, line));
    expect(&hcf, "read\n", "up ready 100%\n");
    expect(&hcf, "write\n", "up ready 100%\n");
    let probe = |words: &[&str]| {
        let file = file.display().to_string();
        run(&[words, &["-c", &file]].concat())
    };
    let up = probe(&["probe"]);
    assert_eq!(up.exit, 0, "{up:?}");
    let waited = probe(&["wait", "--timeout=60s"]);
    assert_eq!(waited.exit, 0, "{waited:?}");

    // One is gone: the two that are left are enough for the criterion, and too few for an upload.
    grid.storage[2].kill();
    expect(&hcf, "write\n", "#canary-write: the upload reached too few servers");
    assert!(finding(&hcf, "write", "servers").0);
    expect(&hcf, "read\n", "up ready 100%\n");
    // One is left, with too few shares.
    grid.storage[1].kill();
    expect(&hcf, "read\n", "#canary-read: too few shares");
    assert!(finding(&hcf, "read", "servers").0);
    said.extend([probe(&["probe"]), probe(&["probe", "--json"])].map(|run| {
        assert_eq!(run.exit, 1, "{run:?}");
        format!("{run:?}")
    }));
    for node in &mut grid.storage[1..] {
        node.start();
    }
    expect(&hcf, "read\n", "up ready 100%\n");
    expect(&hcf, "write\n", "up ready 100%\n");

    // Whatever goes wrong with the file or the configuration is said without what is secret.
    let cap = std::fs::read_to_string(&caps).expect("it is there");
    let cap =
        cap.lines().find(|line| line.starts_with("URI:SSK:")).expect("one to write").to_owned();
    std::fs::set_permissions(&caps, std::fs::Permissions::from_mode(0o644)).expect("it is ours");
    expect(&hcf, "read\n", "#canary-read: others may read");
    expect(&hcf, "write\n", "#canary-write: others may read");
    said.push(format!("{:?}", probe(&["check"])));
    std::fs::set_permissions(&caps, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
    // A history has the words of a change alone.
    expect(&hcf, "read\n", "up ready 100%\n");
    expect(&hcf, "write\n", "up ready 100%\n");
    std::fs::write(&caps, format!("{cap}/and/more\n")).expect("it is ours");
    expect(&hcf, "read\n", "gw1.caps, line 1: ");
    expect(&hcf, "write\n", "gw1.caps, line 1: ");
    said.push(format!("{:?}", probe(&["check"])));
    std::fs::write(&file, text.replace(&path.to_string(), &format!("\"{cap}\"")))
        .expect("it is ours");
    said.push(format!("{:?}", probe(&["check", "--show"])));
    wait_until("the bad file to be refused", LONG, || hcf.log().contains("Not reloaded"));

    said.extend(everything(&hcf, &socket));
    wait_until("the watcher to have heard", LONG, || {
        let heard = watch.stdout();
        ["read", "write"]
            .iter()
            .all(|what| heard.contains(&format!("canary-{what}: {path}, line 1: ")))
    });
    watch.signal(Signal::Kill);
    watch.wait_end(LONG);
    said.push(watch.log());
    let pid = hcf.process().pid();
    said.push(std::fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("it runs"));
    said.extend(lines);
    hcf.signal(Signal::Term);
    hcf.process().wait_end(LONG);
    said.push(hcf.log());
    said.push(hcf.process().stdout());
    assert!(hcf.log().contains("canary-write"), "the log tells what happened: {}", hcf.log());
    let kept = files(&state);
    assert!(kept.iter().any(|kept| kept.contains("canary-write")), "a history: {kept:?}");
    said.extend(kept);
    for said in &said {
        for secret in &secret {
            assert!(!said.contains(secret.as_str()), "{secret} in: {said}");
        }
    }
}

#[test]
fn a_canary_hangs_where_the_status_page_says_connected_and_none_follows_it() {
    let mut grid =
        Grid::builder().storage(3).shares(2, 3, 3).gateways(1).protocol(Protocol::Foolscap).start();
    grid.wait_ready();
    let folder = place::folder("caps");
    let caps = folder.path().join("gw1.caps");
    assert_eq!(create(&grid.gateways[0], &caps).exit, 0);
    let path = caps.display();
    let canary =
        |timeout: &str| format!("canary_read: {{cap_file: {path}, every: 1s, timeout: {timeout}}}");
    let services = format!(
        "services:\n  read: {{criteria: {{{}}}}}\n  other: {{criteria: {{{}}}}}\n",
        canary("3s"),
        canary("3100ms")
    );
    let hcf = Hcf::configured(&config(&grid.gateways[0], &services), &[]);
    let lines = || ["read\n", "other\n"].map(|service| ask(hcf.agent(), service));
    wait_until("both to be up", LONG, || lines().iter().all(|line| line.starts_with("up ")));

    for node in &grid.storage[1..] {
        node.stop();
    }
    wait_until("one to hang and the other to be unknown", LONG, || {
        let lines = lines();
        let says = |words: &str| lines.iter().any(|line| line.contains(words));
        says("#canary-read: it hangs, no end within 3s") && says("#canary-read-unknown: ")
    });
    let (passes, text) = finding(&hcf, "read", "servers");
    assert!(passes, "the node believes in all of them: {text}");
    assert_eq!(grid.gateways[0].connected(), 3);
    assert_eq!(active(&grid.gateways[0]), 1);
    for node in &grid.storage[1..] {
        node.cont();
    }
    wait_until("both to be up again", LONG, || lines().iter().all(|line| line.starts_with("up ")));
}

/// The operations that a gateway has under way.
fn active(gateway: &Gateway) -> usize {
    let status = http::get(&gateway.web, "/status/?t=json").expect("an answer").json();
    println!("{status}");
    status["active"].as_array().map_or(0, Vec::len)
}

/// Runs the program that comes with Tahoe-LAFS, and returns what it says.
fn grid_manager(dir: &Path, words: &[&str]) -> String {
    let program = place::root().join(".parts/venv/bin/grid-manager");
    let run = Command::new(program).arg("--config").arg(dir).args(words).output();
    let run = run.expect("it can be run");
    assert!(run.status.success(), "{words:?}: {}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).expect("text")
}

#[test]
fn servers_count_as_blessed_when_a_grid_manager_certifies_them() {
    let mut grid = Grid::builder().storage(3).shares(2, 3, 3).gateways(1).start();
    grid.wait_ready();
    let folder = place::folder("manager");
    let manager: PathBuf = folder.path().join("manager");
    grid_manager(&manager, &["create"]);
    let key = grid_manager(&manager, &["public-identity"]).trim().to_owned();
    let certify = |grid: &mut Grid, at: usize| {
        let node = &mut grid.storage[at];
        let pubkey = std::fs::read_to_string(node.dir.join("node.pubkey")).expect("it has run");
        grid_manager(&manager, &["add", &node.name, pubkey.trim()]);
        node.write("ours.cert", &grid_manager(&manager, &["sign", &node.name, "30"]));
        let config = std::fs::read_to_string(node.dir.join("tahoe.cfg")).expect("it is there");
        let config = config.replace("[storage]\n", "[storage]\ngrid_management = True\n");
        let more = "[grid_manager_certificates]\nours = ours.cert\n";
        node.write("tahoe.cfg", &format!("{config}{more}"));
        node.term();
        node.start();
    };
    for at in 0..2 {
        certify(&mut grid, at);
    }
    let gateway = &mut grid.gateways[0].node;
    let old = std::fs::read_to_string(gateway.dir.join("tahoe.cfg")).expect("it is there");
    gateway.write("tahoe.cfg", &format!("{old}[grid_managers]\nours = {key}\n"));
    gateway.term();
    gateway.start();
    grid.wait_ready();

    let caps = folder.path().join("gw1.caps");
    let refused = create(&grid.gateways[0], &caps);
    assert_eq!(refused.exit, 1, "{refused:?}");
    assert!(refused.stderr.contains("too few servers"), "{refused:?}");
    assert!(!caps.exists(), "what failed leaves nothing");

    let services = "services: {write: {criteria: {blessed: {grid_manager: true}}}}\n";
    let hcf = Hcf::configured(&config(&grid.gateways[0], services), &[]);
    let line = wait_line(&hcf, "write\n", "down ready 100% #blessed-missing: ");
    assert!(
        line.contains("2 usable servers with a grid manager's certificate, 3 needed"),
        "{line}"
    );
    let (passes, text) = finding(&hcf, "write", "servers");
    assert!(passes && text.starts_with("3 "), "{text}");

    certify(&mut grid, 2);
    wait_line(&hcf, "write\n", "up ready 100%\n");
    let made = create(&grid.gateways[0], &caps);
    assert_eq!(made.exit, 0, "{made:?}");
    let status: Value = http::get(hcf.status(), "/v1/status").expect("an answer").json();
    assert_eq!(status["services"]["write"]["state"], "up");
}
