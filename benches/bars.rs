//! The bars that hcf is held to, measured on the program itself: `cargo bench --bench bars`.
//!
//! Each line is a figure beside its limit. Ends with 1 when one is missed. Figures belong here and
//! not into tests, since a busy machine can spoil them.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_types,
    clippy::cast_precision_loss,
    reason = "a bench measures real time, prints, and may fail loudly"
)]

#[path = "../tests/lab/mod.rs"]
mod lab;

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use lab::eds::{Eds, FakeSidecar, word};
use lab::envoy::Envoy;
use lab::fake::{Answer, FakeNode, page};
use lab::haproxy::{Haproxy, Version};
use lab::hcf::{Hcf, ask, hcf_binary, port};
use lab::http::get;
use lab::measure::{cpu_time, resident};
use lab::shipped::{self, Place};
use lab::wait::{LONG, pause, wait_until};

const EVERY: Duration = Duration::from_millis(200);
const RISE: u32 = 2;
const TRIALS: u32 = 25;

fn main() -> ExitCode {
    let mut bars = Bars::default();
    memory(&mut bars);
    grpc_memory(&mut bars);
    judging(&mut bars);
    reaction(&mut bars);
    long_poll(&mut bars);
    order(&mut bars);
    node_cost(&mut bars);
    gate_reopens(&mut bars);
    fleet(&mut bars);
    scrapes(&mut bars);
    pages(&mut bars);
    full_history(&mut bars);
    println!("{}", bars.table);
    if bars.missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The figures so far.
#[derive(Default)]
struct Bars {
    table: String,
    missed: usize,
}

impl Bars {
    fn note(&mut self, what: &str, measured: f64, limit: f64, unit: &str) {
        let kept = measured <= limit;
        self.missed += usize::from(!kept);
        let mark = if kept { "kept" } else { "MISSED" };
        let _ =
            writeln!(self.table, "{what:<66} {measured:>9.2} {unit:<4} limit {limit:>7.1}  {mark}");
    }
}

fn start(config: &str, node: &FakeNode) -> Hcf {
    let config = format!("{config}\nservices: {{write: {{criteria: {{servers: {{min: 4}}}}}}}}\n");
    Hcf::configured(&config, &["--node", &node.url()])
}

fn wait_up(hcf: &Hcf) {
    wait_until("up", LONG, || ask(hcf.agent(), "write\n").starts_with("up "));
}

/// Resident memory with every listener on, looked at by the default settings.
fn memory(bars: &mut Bars) {
    let node = FakeNode::healthy();
    let mut hcf = start("log: {level: info}", &node);
    wait_up(&hcf);
    let pid = hcf.process().pid();
    bars.note("resident memory, idle, every listener on", resident(pid), 8.0, "MiB");
    for _ in 0..20_000 {
        ask(hcf.agent(), "write\n");
    }
    bars.note("resident memory after 20,000 agent checks", resident(pid), 8.0, "MiB");
}

/// What the grpc listener adds, when three Envoys check by it, three take weights from it, and three clients watch.
fn grpc_memory(bars: &mut Bars) {
    let node = FakeNode::healthy();
    let config = "services: {write: {criteria: {servers: {min: 4}}}}\n";
    let url = node.url();
    let mut without = Hcf::configured(config, &["--node", &url]);
    let mut with = Hcf::configured(config, &["--node", &url, "--grpc", "127.0.0.1:0"]);
    wait_up(&without);
    wait_up(&with);
    let grpc = with.address("grpc").to_owned();
    let place = Place {
        name: "gw1".to_owned(),
        ip: "127.0.0.1".to_owned(),
        node: port(&node.addr),
        agent: port(with.agent()),
        health: port(with.health()),
        grpc: port(&grpc),
    };
    let start = |file| {
        let config = shipped::envoy(file, lab::ports::free_port(), std::slice::from_ref(&place));
        let envoy = Envoy::start(&config);
        envoy.wait_live();
        envoy
    };
    let files = ["grpc.yaml", "weights.yaml"];
    let envoys: Vec<Envoy> = files.into_iter().cycle().take(6).map(start).collect();
    let watch = |_| {
        let message = "{\"service\": \"write\"}";
        let call = lab::grpc::Call::start(&grpc, &[], "grpc.health.v1.Health/Watch", message);
        wait_until("a watch to be answered", LONG, || !call.messages().is_empty());
        call
    };
    let watches: Vec<_> = (0..3).map(watch).collect();
    let sample =
        "hcf_asker_questions_total{listener=\"grpc\",peer=\"127.0.0.1\",service=\"write\"} ";
    wait_until("100 checks", LONG * 4, || {
        let text = get(with.status(), "/metrics").unwrap().text();
        let asked = text.lines().find_map(|line| line.strip_prefix(sample));
        asked.is_some_and(|asked| asked.parse::<u32>().unwrap() >= 100)
    });
    // Both have been asked for their metrics.
    get(without.status(), "/metrics").unwrap();
    let more = resident(with.process().pid()) - resident(without.process().pid());
    bars.note("resident memory, grpc on, 6 Envoys and 3 watches, beyond off", more, 4.0, "MiB");
    drop((envoys, watches));
}

/// CPU per look at a grid of a thousand servers, well or all failing with their tracebacks.
fn judging(bars: &mut Bars) {
    let failing = String::from_utf8(page(4, 996)).unwrap();
    // As long as the real ones: about two thousand bytes each.
    let failing = failing.replace("_inlineCallbacks", &"_inlineCallbacks".repeat(110));
    for (what, answer) in [
        ("CPU per look, 1,000 servers connected", Answer::Grid { connected: 1000, refused: 0 }),
        ("CPU per look, 996 of 1,000 servers failing, 2 kB each", Answer::Page(failing.into())),
    ] {
        let node = FakeNode::start(answer);
        let mut hcf = start("node: {every: 50ms}", &node);
        wait_up(&hcf);
        let pid = hcf.process().pid();
        let (cpu, looks) = (cpu_time(pid), node.requests());
        wait_until("100 looks", LONG, || node.requests() >= looks + 100);
        let looks = node.requests() - looks;
        let spent = cpu_time(pid).saturating_sub(cpu);
        let per_look = spent.as_secs_f64() * 1e3 / looks as f64;
        bars.note(what, per_look, 5.0, "ms");
    }
}

/// From the node's change to the agent port's, at any phase of the looks.
fn reaction(bars: &mut Bars) {
    let mut node = FakeNode::healthy();
    let config = format!("node: {{every: {}ms}}\ndamping: {{rise: {RISE}}}", EVERY.as_millis());
    let hcf = start(&config, &node);
    let good = Answer::Grid { connected: 9, refused: 0 };
    let until = |word: &str| {
        let changed = Instant::now();
        while !ask(hcf.agent(), "write\n").starts_with(word) {
            assert!(changed.elapsed() < LONG, "waited for {word}");
        }
        changed.elapsed().as_secs_f64() * 1e3
    };
    let (mut loss, mut refusal, mut recovery) = (0.0_f64, 0.0_f64, 0.0_f64);
    for trial in 0..TRIALS {
        wait_up(&hcf);
        pause(EVERY * trial / TRIALS);
        node.set(Answer::Grid { connected: 3, refused: 6 });
        loss = loss.max(until("down "));
        pause(EVERY * trial / TRIALS);
        node.set(good.clone());
        recovery = recovery.max(until("up "));
        pause(EVERY * trial / TRIALS);
        node.close();
        refusal = refusal.max(until("down "));
        node.reopen();
    }
    let every = EVERY.as_secs_f64() * 1e3;
    bars.note("worst of 25: servers lost, until the agent port says so", loss, every + 50.0, "ms");
    bars.note(
        "worst of 25: node killed, until the agent port says so",
        refusal,
        every + 50.0,
        "ms",
    );
    let recovered = f64::from(RISE) * every + 50.0;
    bars.note("worst of 25: servers back, until the agent port says so", recovery, recovered, "ms");
}

/// A held question against one that asks all the time: how much later it hears of a change.
fn long_poll(bars: &mut Bars) {
    let node = FakeNode::healthy();
    let hcf = start("node: {every: 100ms}", &node);
    let question = b"write hold=60s\n";
    let mut worst = 0.0_f64;
    for trial in 0..TRIALS {
        let (answer, word) = if trial % 2 == 0 {
            (Answer::Grid { connected: 3, refused: 6 }, "down ")
        } else {
            (Answer::Grid { connected: 9, refused: 0 }, "up ")
        };
        wait_until("the other state", LONG, || !ask(hcf.agent(), "write\n").starts_with(word));
        // The first question of a key, or one after a change, is answered at once; the next is held.
        let mut held = loop {
            let mut stream = TcpStream::connect(hcf.agent()).unwrap();
            stream.write_all(question).unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            if stream.read(&mut [0; 256]).is_err() {
                break stream;
            }
        };
        held.set_read_timeout(Some(LONG)).unwrap();
        let waiting = thread::spawn(move || {
            let n = held.read(&mut [0; 256]).unwrap();
            assert!(n > 0, "an answer");
            Instant::now()
        });
        node.set(answer);
        let asked = loop {
            if ask(hcf.agent(), "write\n").starts_with(word) {
                break Instant::now();
            }
        };
        let heard = waiting.join().unwrap();
        worst = worst.max(heard.saturating_duration_since(asked).as_secs_f64() * 1e3);
    }
    bars.note("worst of 25: a held question, after one that asks all the time", worst, 5.0, "ms");
}

/// From an operator's command to the agent port's answer, and to the real HAProxy's own state.
fn order(bars: &mut Bars) {
    let node = FakeNode::healthy();
    let folder = lab::place::folder("order");
    let socket = folder.path().join("admin.sock").display().to_string();
    let state = folder.path().join("state").display().to_string();
    let hcf = start(&format!("admin: {{socket: {socket}}}\nstate_dir: {state}"), &node);
    wait_up(&hcf);
    let haproxy = Haproxy::start(
        Version::V2_6,
        &format!(
            "defaults\n  mode http\n  timeout connect 1s\n  timeout client 1s\n  timeout server 1s\n\
             \x20 timeout check 30s\nbackend be\n  server gw1 {} agent-check agent-inter 100ms \
             agent-port {} agent-send \"write hold=9s\\n\"\n",
            node.addr,
            port(hcf.agent()),
        ),
    );
    let run = |words: &[&str]| {
        let mut command = Command::new(hcf_binary());
        let done = command.args(words).args(["--socket", &socket]).status().unwrap();
        assert!(done.success());
        Instant::now()
    };
    let (mut answer, mut shown, mut whole) = (0.0_f64, 0.0_f64, 0.0_f64);
    for _ in 0..TRIALS {
        haproxy.wait_stat("be", "gw1", "up", lab::haproxy::Stat::is_up);
        // Until its next question is held.
        pause(Duration::from_millis(250));
        let began = Instant::now();
        let returned = run(&["drain", "--reason", "bench"]);
        assert!(
            ask(hcf.agent(), "write\n").starts_with("up drain "),
            "the very next answer has it"
        );
        answer = answer.max(returned.elapsed().as_secs_f64() * 1e3);
        while !haproxy.stat("be", "gw1").status().starts_with("DRAIN") {
            assert!(began.elapsed() < LONG, "waited for DRAIN");
        }
        shown = shown.max(returned.elapsed().as_secs_f64() * 1e3);
        whole = whole.max(began.elapsed().as_secs_f64() * 1e3);
        run(&["clear"]);
    }
    bars.note("worst of 25: `hcf drain` returned, until an answer has it", answer, 5.0, "ms");
    bars.note("worst of 25: the same, until HAProxy shows DRAIN (hold=)", shown, 20.0, "ms");
    println!("the whole of `hcf drain`, until HAProxy shows DRAIN, at worst: {whole:.1} ms");
}

/// Requests that a thousand questions cost the node, beyond its looks.
fn node_cost(bars: &mut Bars) {
    let node = FakeNode::healthy();
    let hcf = start("node: {every: 1h}", &node);
    wait_up(&hcf);
    let before = node.requests();
    for _ in 0..1000 {
        ask(hcf.agent(), "write\n");
    }
    bars.note(
        "requests to the node for 1,000 questions",
        (node.requests() - before) as f64,
        0.0,
        "",
    );
}

/// How long after the verdict a gate listens again.
fn gate_reopens(bars: &mut Bars) {
    let node = FakeNode::healthy();
    let config = "node: {every: 100ms}\ngates: {web: {listen: '127.0.0.1:0'}}\n";
    let hcf = Hcf::configured(config, &["--node", &node.url()]);
    let gate = hcf.address("gate/web").to_owned();
    let mut worst = 0.0_f64;
    for _ in 0..TRIALS {
        node.set(Answer::Grid { connected: 3, refused: 6 });
        wait_until("the gate to close", LONG, || TcpStream::connect(&gate).is_err());
        let waiting = thread::spawn({
            let gate = gate.clone();
            move || {
                while TcpStream::connect(&gate).is_err() {}
                Instant::now()
            }
        });
        node.set(Answer::Grid { connected: 9, refused: 0 });
        let up = loop {
            if ask(hcf.agent(), "write\n").starts_with("up ") {
                break Instant::now();
            }
        };
        let open = waiting.join().unwrap();
        worst = worst.max(open.saturating_duration_since(up).as_secs_f64() * 1e3);
    }
    bars.note("worst of 25: a gate listens again, after the verdict", worst, 50.0, "ms");
}

/// From a sidecar's word to the file that Envoy watches, in a fleet of two hundred.
fn fleet(bars: &mut Bars) {
    let sidecars: Vec<_> = (0..200).map(|_| FakeSidecar::start(&word("up", 100, &[]))).collect();
    let node = |(at, sidecar): (usize, &FakeSidecar)| {
        (format!("gw{at:03}"), format!("127.0.1.{}:3456", at + 1), sidecar.url.clone())
    };
    let nodes: Vec<_> = sidecars.iter().enumerate().map(node).collect();
    let mut eds = Eds::start(&Eds::config("", &nodes));
    wait_until("all to be in", LONG, || eds.health().iter().all(|health| health == "HEALTHY"));
    let (mut worst, writes) = (0.0_f64, eds.writes());
    let changes = 4 * TRIALS;
    for trial in 0..changes {
        let before = eds.inode();
        let sidecar = &sidecars[trial as usize % sidecars.len()];
        // Heartbeats of all the others go on, five a second each.
        pause(Duration::from_millis(7));
        let said = Instant::now();
        sidecar.say("write", &word("up", 50, &[]));
        while eds.inode() == before {
            assert!(said.elapsed() < LONG, "waited for the file");
        }
        worst = worst.max(said.elapsed().as_secs_f64() * 1e3);
    }
    bars.note("worst of 100: a change in a fleet of 200, until the file has it", worst, 20.0, "ms");
    // A file is there before it is counted.
    let expected = writes + u64::from(changes);
    wait_until("the files to be counted", LONG, || eds.writes() >= expected);
    let extra = (eds.writes() - expected) as f64;
    bars.note("files written beyond one for each of 100 changes", extra, 0.0, "");
    let pid = eds.process().pid();
    let before = cpu_time(pid);
    pause(Duration::from_secs(5));
    let spent = (cpu_time(pid).saturating_sub(before)).as_secs_f64() / 5.0 * 100.0;
    bars.note("CPU of 1,000 heartbeats a second from a fleet of 200", spent, 10.0, "%");
}

/// A scrape, when as many balancers ask as a large farm has.
fn scrapes(bars: &mut Bars) {
    let node = FakeNode::healthy();
    let hcf = start("node: {every: 1h}", &node);
    wait_up(&hcf);
    let agent: SocketAddr = hcf.agent().parse().unwrap();
    for host in (1..=100).chain(1..=100) {
        let from = SocketAddr::from(([127, 0, 1, host], 0));
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        socket.bind(&from.into()).unwrap();
        socket.connect(&agent.into()).unwrap();
        let mut stream = TcpStream::from(socket);
        stream.write_all(b"write\n").unwrap();
        assert!(stream.read(&mut [0; 256]).unwrap() > 0, "an answer");
    }
    let mut times: Vec<f64> = (0..101)
        .map(|_| {
            let begun = Instant::now();
            let text = get(hcf.status(), "/metrics").unwrap().text();
            let took = begun.elapsed().as_secs_f64() * 1e3;
            assert!(text.matches("hcf_asker_interval_seconds{").count() >= 100, "{text}");
            took
        })
        .collect();
    times.sort_by(f64::total_cmp);
    bars.note("median of 101: a scrape of 100 askers, connecting too", times[50], 2.0, "ms");
}

/// The status page of a grid of a thousand servers.
fn pages(bars: &mut Bars) {
    let node = FakeNode::start(Answer::Grid { connected: 600, refused: 400 });
    let folder = lab::place::folder("pages");
    lab::past::write(folder.path());
    let state = folder.path().display();
    let mut hcf = start(&format!("node: {{every: 1h}}\nstate_dir: {state}"), &node);
    let page = || get(hcf.status(), "/").unwrap().body;
    wait_until("the servers and the past", LONG, || {
        let page = String::from_utf8(page()).unwrap();
        page.contains("of 1000 known") && page.contains("class=\"down\"")
    });
    bars.note(
        "the status page of 1,000 servers and 24 hours",
        page().len() as f64 / 1024.0,
        50.0,
        "KiB",
    );
    let status = hcf.status().to_owned();
    let pid = hcf.process().pid();
    let before = cpu_time(pid);
    for _ in 0..100 {
        get(&status, "/").unwrap();
    }
    let spent = cpu_time(pid).saturating_sub(before).as_secs_f64() * 1e3 / 100.0;
    bars.note("CPU of it, connecting too", spent, 5.0, "ms");
}

/// What a history of seven days adds to resident memory, also after all of it was asked for.
fn full_history(bars: &mut Bars) {
    let node = FakeNode::healthy();
    let folders = ["empty", "past"].map(lab::place::folder);
    lab::past::write(folders[1].path());
    let [mut empty, mut hcf] = folders.each_ref().map(|folder| {
        start(&format!("log: {{level: info}}\nstate_dir: {}", folder.path().display()), &node)
    });
    wait_up(&empty);
    wait_up(&hcf);
    let records = |hcf: &Hcf| get(hcf.status(), "/metrics").unwrap().text();
    wait_until("the past", LONG, || records(&hcf).contains("\nhcf_history_records 11"));
    records(&empty);
    let without = resident(empty.process().pid());
    let status = hcf.status().to_owned();
    let pid = hcf.process().pid();
    let more = || resident(pid) - without;
    bars.note("resident memory, a history of seven days, beyond none", more(), 1.0, "MiB");
    let begun = Instant::now();
    let (mut next, mut bytes) = (Some("/v1/history?since=7d".to_owned()), 0);
    while let Some(path) = next {
        let answer = get(&status, &path).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        bytes += answer.body.len();
        next = answer.json()["next"].as_str().map(str::to_owned);
    }
    println!("all of it: {} KiB in {:.0} ms", bytes >> 10, begun.elapsed().as_secs_f64() * 1e3);
    bars.note("resident memory after all of it was asked for, beyond none", more(), 4.0, "MiB");
}
