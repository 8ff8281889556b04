//! The node's unit (`deploy/systemd/tahoe@.service`): its commands, as they stand there, run against real nodes. No
//! service manager runs here, so the test does what one would do between them.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::Value;

use super::farm::{self, Side, shipped};
use crate::lab::cut::{Cut, How};
use crate::lab::fake::FakeNode;
use crate::lab::haproxy::{Stat, Version};
use crate::lab::hcf::Hcf;
use crate::lab::process::Signal;
use crate::lab::tahoe::{Gateway, Grid};
use crate::lab::wait::{LONG, wait_for, wait_until};
use crate::lab::{http, place};
use crate::program::{Run, hcf};

/// The commands of this key in the node's unit, for the sidecar with the configuration `file`.
fn commands(key: &str, file: &Path) -> Vec<Vec<String>> {
    let unit = shipped("deploy/systemd", "tahoe@.service");
    let lines = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let commands: Vec<_> = lines.map(|line| command(line, file)).collect();
    assert!(!commands.is_empty(), "the unit has no {key}");
    commands
}

fn command(line: &str, file: &Path) -> Vec<String> {
    // What a service manager takes for itself: failures that count for nothing, and who runs it.
    let line = line.trim_start_matches(['-', '+']);
    let line = line.strip_prefix("/usr/bin/hcf ").unwrap_or_else(|| panic!("no hcf in {line}"));
    // An instance's files are at fixed places of the machine, the test's are not.
    assert!(line.contains("-i %i"), "{line}");
    let line = line.replace("-i %i", &format!("-c {}", file.display()));
    // Between double quotes, blanks are letters.
    line.split('"')
        .enumerate()
        .flat_map(|(at, part)| match at % 2 {
            0 => part.split_whitespace().map(str::to_owned).collect(),
            _ => vec![part.to_owned()],
        })
        .collect()
}

fn run(words: &[String]) -> Run {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let run = hcf(&words);
    println!("hcf {words:?}: {run:?}");
    run
}

/// `hcf wait` as the unit has it, with less patience for what is to fail.
fn impatient(gateway: &Gateway, folder: &Path) -> Run {
    let file = configure(gateway, folder);
    let mut words = commands("ExecStartPost", &file).remove(0);
    assert_eq!(words[0], "wait");
    let patience = words.iter_mut().find(|word| *word == "60s").expect("the unit's patience");
    "3s".clone_into(patience);
    run(&words)
}

/// Writes the sidecar's configuration for this gateway.
fn configure(gateway: &Gateway, folder: &Path) -> std::path::PathBuf {
    let file = folder.join(format!("{}.yaml", gateway.node.name));
    let (name, folder, dir) = (&gateway.node.name, folder.display(), gateway.dir().display());
    let text = format!(
        "node: {{dir: \"{dir}\", every: 200ms, timeout: 1s}}\n\
         admin: {{socket: \"{folder}/{name}.sock\"}}\nstate_dir: \"{folder}/{name}\"\n"
    );
    std::fs::create_dir_all(format!("{folder}/{name}")).expect("a state directory can be made");
    std::fs::write(&file, text).expect("the configuration can be written");
    file
}

/// Waits until the start of this gateway fails so; on a busy machine it may not have come to that in 3 s.
fn fails(gateway: &Gateway, folder: &Path, code: &str) {
    wait_until(code, LONG, || {
        let run = impatient(gateway, folder);
        assert_eq!(run.exit, 1, "{run:?}");
        assert_eq!(run.stdout, "", "{run:?}");
        run.stderr.starts_with(&format!("hcf: write is not up after 3s: {code}: "))
    });
}

#[test]
fn a_node_that_cannot_serve_fails_its_start_with_the_reason() {
    let mut grid = Grid::builder().storage(2).shares(1, 2, 2).start();
    grid.wait_ready();
    let folder = place::folder("unit");
    let ports = grid.storage_ports(2);
    let [one, two] = &mut grid.gateways[..] else { panic!("two gateways") };

    let file = configure(one, folder.path());
    let healthy = run(&commands("ExecStartPost", &file)[0]);
    assert_eq!((healthy.exit, healthy.stdout.as_str()), (0, "write is up\n"), "{healthy:?}");
    let clear = run(&commands("ExecStartPost", &file)[1]);
    assert_eq!(clear.exit, 0, "no sidecar runs: {clear:?}");
    let drain = run(&commands("ExecStop", &file)[0]);
    assert_eq!(drain.exit, 0, "no sidecar runs: {drain:?}");

    // Not enough of its grid.
    one.node.term();
    let cut = Cut::new(one, &ports, How::Reject);
    one.node.start();
    fails(one, folder.path(), "servers-few");
    drop(cut);
    one.wait_connected(2);
    assert_eq!(run(&commands("ExecStartPost", &file)[0]).exit, 0);

    // Some other program has its port. The node starts all the same, and is deaf.
    one.node.term();
    let other = TcpListener::bind(&one.web).expect("the node's port is free");
    let page = thread::spawn(move || {
        for stream in other.incoming() {
            if !hello(stream.expect("a connection")) {
                break;
            }
        }
    });
    one.node.start();
    fails(one, folder.path(), "wrong-node");
    let _ = http::get(&one.web, "/end");
    page.join().expect("the other program ended");

    // Another gateway has its port.
    one.node.term();
    two.node.term();
    let config = std::fs::read_to_string(two.dir().join("tahoe.cfg")).expect("it can be read");
    let (mine, taken) = (two.port().to_string(), one.port().to_string());
    two.node.write("tahoe.cfg", &config.replace(&mine, &taken));
    two.web.clone_from(&one.web);
    two.node.start();
    two.wait_connected(2);
    one.node.start();
    fails(one, folder.path(), "wrong-node");
}

/// Answers one request like any web server; false when it was told to end.
fn hello(mut stream: TcpStream) -> bool {
    use std::io::{Read as _, Write as _};
    let mut question = [0; 4096];
    let size = stream.read(&mut question).unwrap_or_default();
    let _ =
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello");
    !question[..size].starts_with(b"GET /end")
}

/// How many operations the node's own page shows.
fn active(gateway: &Gateway) -> usize {
    let Ok(page) = http::get(&gateway.web, "/status/?t=json") else { return 0 };
    let page: Value = page.json();
    page["active"].as_array().map_or(0, Vec::len)
}

/// How many questions were asked by those who ask, if all of them know what holds.
fn heard(sidecar: &Hcf) -> Option<u64> {
    let status = http::get(sidecar.status(), "/v1/status").expect("the sidecar answers").json();
    let askers = status["askers"].as_array().expect("a list of askers");
    let current = askers.iter().all(|asker| asker["current"] == true);
    current.then(|| askers.iter().filter_map(|asker| asker["count"].as_u64()).sum())
}

#[test]
fn a_node_is_stopped_when_the_balancer_knows_and_its_uploads_have_ended() {
    let mut grid = Grid::builder().storage(2).shares(1, 2, 2).start();
    grid.wait_ready();
    let folder = place::folder("unit");
    let files = [0, 1].map(|at: usize| configure(&grid.gateways[at], folder.path()));
    let sidecars = [0, 1].map(|at: usize| Hcf::start(&["-c", &files[at].display().to_string()]));
    let sides = [0, 1].map(|at: usize| Side::of(grid.gateways[at].port(), &sidecars[at]));
    let front = farm::haproxy(Version::V2_6, "recommended.cfg", &sides);
    let names = ["gw1", "gw2"];
    for name in names {
        front.balancer.wait_stat("be_write", name, "to be up", Stat::is_up);
    }

    // Frozen storage servers hold an upload up, so that it is under way for as long as the test wants.
    grid.storage.iter().for_each(crate::lab::tahoe::Node::stop);
    let web = front.web.clone();
    let upload = thread::spawn(move || {
        http::request(&web, "PUT", "/uri", &[], Some(&vec![b'u'; 20_000]), LONG * 2)
    });
    let at = wait_for("an upload under way", LONG, || {
        grid.gateways.iter().position(|gateway| active(gateway) > 0)
    });
    let words = commands("ExecStop", &files[at]).remove(0);
    let stop = thread::spawn(move || run(&words));
    front
        .balancer
        .wait_stat("be_write", names[at], "to drain", |stat| stat.status().starts_with("DRAIN"));
    // All have heard of it, and long enough ago for a command that waits for nothing else to have ended.
    let told = wait_for("everybody to be told", LONG, || heard(&sidecars[at]));
    wait_until("a few more questions", LONG, || heard(&sidecars[at]).is_some_and(|n| n > told + 8));
    assert!(!upload.is_finished(), "the servers are frozen");
    assert!(!stop.is_finished(), "an upload is under way");
    grid.storage.iter().for_each(crate::lab::tahoe::Node::cont);
    let stopped = stop.join().expect("ExecStop ran");
    assert_eq!((stopped.exit, stopped.stdout.as_str()), (0, ""), "{stopped:?}");
    let uploaded = upload.join().expect("the upload ended").expect("an answer");
    assert!(matches!(uploaded.status, 200 | 201), "{}: {}", uploaded.status, uploaded.text());
    let told = front.balancer.stat("be_write", names[at]);
    assert!(told.status().starts_with("DRAIN"), "{}", told.status());

    // Now the service manager stops the node, and later starts it.
    let gateway = &mut grid.gateways[at];
    gateway.node.term();
    front.balancer.wait_stat("be_write", names[at], "to be down", |stat| !stat.is_up());
    gateway.node.start();
    let [wait, clear] = &commands("ExecStartPost", &files[at])[..] else { panic!("two commands") };
    assert_eq!(run(wait).exit, 0);
    front.balancer.wait_stat("be_write", names[at], "to drain again", |stat| {
        stat.status().starts_with("DRAIN")
    });
    assert_eq!(run(clear).exit, 0);
    wait_until("HAProxy to use it again", LONG, || {
        front.balancer.stat("be_write", names[at]).is_up()
    });
}

/// As deploy/README.md describes it: one node after the other, each with its sidecar, under a stream of requests.
#[test]
fn a_farm_is_upgraded_one_node_after_the_other_and_no_client_notices() {
    let mut grid = Grid::builder().storage(2).shares(1, 2, 2).start();
    grid.wait_ready();
    let folder = place::folder("unit");
    let files = [0, 1].map(|at: usize| configure(&grid.gateways[at], folder.path()));
    let sides = [0, 1].map(|at: usize| Side::reserved(grid.gateways[at].port()));
    let start = |at: usize| {
        let file = files[at].display().to_string();
        let [agent, health] = sides[at].arguments();
        Hcf::start(&["-c", &file, &agent, &health])
    };
    let mut sidecars = [0, 1].map(start);
    let front = farm::haproxy(Version::V2_6, "recommended.cfg", &sides);
    let names = ["gw1", "gw2"];
    let up = |name: &str| {
        for backend in ["be_read", "be_write"] {
            front.balancer.wait_stat(backend, name, "to be up", Stat::is_up);
        }
    };
    for name in names {
        up(name);
    }
    let traffic = Traffic::start(&front.web);

    for at in [0, 1] {
        for command in commands("ExecStop", &files[at]) {
            assert_eq!(run(&command).exit, 0);
        }
        grid.gateways[at].node.term();
        sidecars[at].signal(Signal::Term);
        sidecars[at].process().wait_end(LONG);
        sidecars[at] = start(at);
        grid.gateways[at].node.start();
        for command in commands("ExecStartPost", &files[at]) {
            assert_eq!(run(&command).exit, 0);
        }
        up(names[at]);
    }

    let (good, bad) = traffic.end();
    assert!(bad.is_empty(), "{} failed beside {good} good ones: {bad:?}", bad.len());
    assert!(good > 20, "only {good} requests");
}

/// Uploads and reads what was uploaded, without a pause, until the end.
struct Traffic {
    end: Arc<AtomicBool>,
    client: thread::JoinHandle<(usize, Vec<String>)>,
}

impl Traffic {
    fn start(web: &str) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let (web, over) = (web.to_owned(), Arc::clone(&end));
        let client = thread::spawn(move || {
            let (mut good, mut bad) = (0, Vec::new());
            while !over.load(Ordering::Relaxed) {
                let body = vec![b'a' + u8::try_from(good % 26).unwrap_or_default(); 1000 + good];
                let done = http::put(&web, "/uri", &body).and_then(|put| {
                    let cap = put.text().trim().to_owned();
                    http::get(&web, &format!("/uri/{cap}")).map(|got| (put, got))
                });
                match done {
                    Ok((put, got)) if put.status < 300 && got.body == body => good += 1,
                    Ok((put, got)) => bad.push(format!("{} {}", put.status, got.status)),
                    Err(error) => bad.push(error.to_string()),
                }
            }
            (good, bad)
        });
        Self { end, client }
    }

    /// How many were good, and how the others failed.
    fn end(self) -> (usize, Vec<String>) {
        self.end.store(true, Ordering::Relaxed);
        self.client.join().expect("the client ended")
    }
}

/// A balancer that has not asked since the order is waited for, and named when it does not.
#[test]
fn a_drain_that_settles_waits_for_each_balancer_that_asks() {
    let node = FakeNode::healthy();
    let folder = place::folder("unit");
    let socket = folder.path().join("admin.sock").display().to_string();
    let config = format!(
        "node: {{url: \"{}\", every: 100ms}}\nadmin: {{socket: \"{socket}\"}}\n",
        node.url()
    );
    let sidecar = Hcf::configured(&config, &[]);
    farm::wait_line(&sidecar, "read\n", "up ready");
    farm::wait_line(&sidecar, "write\n", "up ready");
    let drain =
        |settle: &str| hcf(&["drain", "--socket", &socket, "--reason", "test", "--settle", settle]);
    let early = drain("300ms");
    let lines: Vec<&str> = early.stdout.lines().collect();
    let late =
        ["read", "write"].map(|name| format!("not heard of it yet: 127.0.0.1 at agent for {name}"));
    assert_eq!((early.exit, lines), (0, late.iter().map(String::as_str).collect()));
    for question in ["read\n", "write\n"] {
        farm::wait_line(&sidecar, question, "up drain");
    }
    let heard = drain("1h");
    assert_eq!((heard.exit, heard.stdout.as_str()), (0, ""), "{heard:?}");
}
