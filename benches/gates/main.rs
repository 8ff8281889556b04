//! hcf's gates beside HAProxy, in the same run: `cargo bench --bench gates [-- WORD]`, where WORD
//! picks lines.
//!
//! Whoever stands in the middle has one core to itself, and HAProxy one thread; clients and the node
//! share the other core. Trials take turns, and the medians of five are shown. Ends with 1 when a
//! bar is missed. The machine must have nothing else to do, and hcf's threads must give way to each
//! other, which they do not under a real-time scheduler.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_types,
    clippy::cast_precision_loss,
    reason = "a bench measures real time, prints, and may fail loudly"
)]

#[path = "../../tests/lab/mod.rs"]
mod lab;
mod load;
mod origin;

use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use lab::haproxy::{Haproxy, Version};
use lab::hcf::{Hcf, ask};
use lab::measure::{cpu_time, median, pin, resident};
use lab::ports::free_port;
use lab::process::{Process, Program};
use lab::wait::{LONG, pause, wait_for, wait_until};
use load::{Idle, Load, Outcome};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle};

const TRIALS: usize = 5;
/// The core of whoever is in the middle, and that of the others.
const MIDDLE: &str = "0";
const ENDS: &str = "1";
const IDLE: usize = 4000;
/// The limit of open files that idle connections are counted under.
const DESCRIPTORS: usize = 20_000;

fn main() -> ExitCode {
    let words: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    if words.first().is_some_and(|word| word == "origin") {
        return alone();
    }
    pin(std::process::id(), ENDS);
    let handle = ends();
    let origin = run(&handle, async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        // Until the process ends.
        drop(Handle::current().spawn(origin::serve(listener)));
        address
    });
    let mut table = Table { words, text: String::new(), missed: 0 };
    println!("{HEAD}");
    speed(&mut table, &handle, &origin);
    for gate in ["pass", "refuse_writes"] {
        memory(&mut table, &handle, &origin, gate);
    }
    for gate in ["pass", "refuse_writes"] {
        descriptors(&mut table, &handle, gate);
    }
    if table.missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

const HEAD: &str = "One core for hcf or HAProxy 2.8 (nbthread 1), the other for clients and the node; \
medians of five trials, in turns.\n\
plain is hcf's `pass` beside HAProxy's TCP mode, http is `refuse_writes` beside its HTTP mode.\n\n\
what                                                   hcf    haproxy   straight  ratio  bar";

/// The node by itself, where one process has too few descriptors for it and the clients.
fn alone() -> ExitCode {
    Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        origin::serve(listener).await;
    });
    ExitCode::SUCCESS
}

/// Where clients and the node run: one thread, so that they take turns without the kernel.
fn ends() -> Handle {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let handle = runtime.handle().clone();
    thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    handle
}

/// Runs it there, and waits for what comes of it.
fn run<T: Send + 'static>(handle: &Handle, future: impl Future<Output = T> + Send + 'static) -> T {
    let (done, result) = mpsc::channel();
    let task = handle.spawn(async move { done.send(future.await) });
    result.recv().unwrap_or_else(|_| panic!("{:?}", handle.block_on(task)))
}

/// The lines so far.
struct Table {
    words: Vec<String>,
    text: String,
    missed: usize,
}

impl Table {
    fn wants(&self, what: &str) -> bool {
        self.words.is_empty() || self.words.iter().any(|word| what.contains(word.as_str()))
    }

    fn line(&mut self, what: &str, figures: [Option<f64>; 3], ratio: Option<f64>, bar: Bar) {
        self.text.clear();
        let _ = write!(self.text, "{what:<46}");
        for figure in figures {
            let figure = figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.1}"));
            let _ = write!(self.text, " {figure:>10}");
        }
        let ratio = ratio.unwrap_or(0.0);
        let (kept, bar) = match bar {
            Bar::AtLeast(least) => (ratio >= least, format!("at least {least}")),
            Bar::AtMost(most) => (ratio <= most, format!("at most {most}")),
            Bar::None => (true, String::new()),
        };
        self.missed += usize::from(!kept);
        let mark = if bar.is_empty() {
            ""
        } else if kept {
            "met"
        } else {
            "MISSED"
        };
        println!("{} {ratio:>6.2}  {bar:<13} {mark}", self.text);
    }
}

#[derive(Clone, Copy)]
enum Bar {
    AtLeast(f64),
    AtMost(f64),
    None,
}

/// The ways through: of hcf and HAProxy.
struct Middles {
    hcf: Hcf,
    haproxy: Haproxy,
    http: String,
    tcp: String,
}

impl Middles {
    fn start(origin: &str) -> Self {
        let (http, tcp) = (free_port(), free_port());
        let haproxy = Haproxy::start(
            Version::V2_8,
            &format!(
                "global\n maxconn 9000\n nbthread 1\n\
                 defaults\n timeout client 1h\n timeout server 1h\n timeout connect 5s\n timeout http-request 75s\n\
                 listen http\n mode http\n bind 127.0.0.1:{http}\n server node {origin}\n\
                 listen tcp\n mode tcp\n bind 127.0.0.1:{tcp}\n server node {origin}\n"
            ),
        );
        let info = haproxy.command("show info");
        let pid = info.lines().find_map(|line| line.strip_prefix("Pid: ")).unwrap();
        pin(pid.trim().parse().unwrap(), MIDDLE);
        let mut hcf = Hcf::configured(&config(), &["--node", &format!("http://{origin}")]);
        pin(hcf.process().pid(), MIDDLE);
        wait_until("up", LONG, || ask(hcf.agent(), "write\n").starts_with("up "));
        Self { hcf, haproxy, http: format!("127.0.0.1:{http}"), tcp: format!("127.0.0.1:{tcp}") }
    }

    /// Where hcf and HAProxy do the same.
    fn both(&self, gate: &str) -> [Arc<str>; 2] {
        let haproxy = if gate == "pass" { &self.tcp } else { &self.http };
        [self.hcf.address(&format!("gate/{gate}")).into(), haproxy.as_str().into()]
    }

    fn pids(&mut self) -> [u32; 2] {
        let info = self.haproxy.command("show info");
        let pid = info.lines().find_map(|line| line.strip_prefix("Pid: ")).unwrap();
        [self.hcf.process().pid(), pid.trim().parse().unwrap()]
    }
}

fn config() -> String {
    let gate = |name: &str| {
        format!("{name}: {{listen: \"127.0.0.1:0\", when_bad: {name}, max_connections: 1000000}}")
    };
    format!(
        "services: {{write: {{criteria: {{servers: {{min: 4}}}}}}}}\ngates: {{{}, {}}}\n",
        gate("pass"),
        gate("refuse_writes")
    )
}

fn speed(table: &mut Table, handle: &Handle, origin: &str) {
    let pace = Duration::from_millis(16);
    let loads = [
        ("pass", "plain: download, MB/s", Load::Download, Bar::AtLeast(0.9)),
        ("pass", "plain: upload, MB/s", Load::Upload, Bar::AtLeast(0.9)),
        ("pass", "plain: connections/s", Load::Connections, Bar::AtLeast(0.9)),
        ("pass", "plain: requests/s, 64 connections", Load::Requests(64), Bar::None),
        ("pass", "plain: p99 us, 64 connections, 4,000/s", Load::Paced(64, pace), Bar::AtMost(1.0)),
        ("pass", "plain: p99 us, 1 connection", Load::Requests(1), Bar::AtMost(1.0)),
        (
            "refuse_writes",
            "http: requests/s, 64 connections",
            Load::Requests(64),
            Bar::AtLeast(0.8),
        ),
        ("refuse_writes", "http: download, MB/s", Load::Download, Bar::None),
        ("refuse_writes", "http: upload, MB/s", Load::Upload, Bar::None),
        ("refuse_writes", "http: connections/s", Load::Connections, Bar::None),
        (
            "refuse_writes",
            "http: p99 us, 64 connections, 4,000/s",
            Load::Paced(64, pace),
            Bar::AtMost(1.0),
        ),
        ("refuse_writes", "http: p99 us, 1 connection", Load::Requests(1), Bar::AtMost(1.0)),
    ];
    if !loads.iter().any(|(_, what, ..)| table.wants(what)) {
        return;
    }
    let mut middles = Middles::start(origin);
    let pids = middles.pids();
    for (gate, what, load, bar) in loads {
        if !table.wants(what) {
            continue;
        }
        let [hcf, haproxy] = middles.both(gate);
        let ways: [Arc<str>; 3] = [hcf, haproxy, origin.into()];
        let mut trials: [Vec<Outcome>; 3] = Default::default();
        let mut work = [(0.0, 0.0); 2];
        for _ in 0..TRIALS {
            for (way, address) in ways.iter().enumerate() {
                let before = pids.map(cpu_time);
                let outcome = run(handle, load.run(Arc::clone(address)));
                if let (Some(work), Some(pid)) = (work.get_mut(way), pids.get(way)) {
                    work.0 += cpu_time(*pid).saturating_sub(before[way]).as_secs_f64();
                    work.1 += outcome.rate;
                }
                trials[way].push(outcome);
            }
        }
        let p99 = matches!(bar, Bar::AtMost(_));
        let unit = if let Load::Download | Load::Upload = load { 1e6 } else { 1.0 };
        let [hcf, haproxy, straight] = trials.map(|way| {
            median(way.iter().map(|trial| if p99 { trial.p99 } else { trial.rate / unit }))
        });
        // What is added, which noise must not make less than nothing.
        let added = |p99: f64| (p99 - straight).max(0.1);
        let ratio = if p99 { added(hcf) / added(haproxy) } else { hcf / haproxy };
        table.line(what, [Some(hcf), Some(haproxy), Some(straight)], Some(ratio), bar);
        // Who is in the middle need not be what limits; its own work tells more.
        let [hcf, haproxy] = work.map(|(spent, done)| spent * 1e6 * unit / done);
        let unit = if unit > 1.0 { "MB" } else { "each" };
        let what = format!("  CPU in the middle, about, us/{unit}");
        table.line(&what, [Some(hcf), Some(haproxy), None], Some(hcf / haproxy), Bar::None);
    }
}

/// Memory per idle connection, of fresh processes.
fn memory(table: &mut Table, handle: &Handle, origin: &str, gate: &str) {
    let kind = if gate == "pass" { "plain" } else { "http" };
    let lines = ["before a request", "after one, 3 s later"]
        .map(|when| format!("{kind}: KiB per idle connection, {when}"));
    if !lines.iter().any(|line| table.wants(line)) {
        return;
    }
    let mut middles = Middles::start(origin);
    let (pids, ways) = (middles.pids(), middles.both(gate));
    let mut figures = [[0.0; 2]; 2];
    for (way, (pid, address)) in pids.into_iter().zip(ways).enumerate() {
        let before = resident(pid);
        let per = || (resident(pid) - before) * 1024.0 / IDLE as f64;
        let idle = run(handle, Idle::open(address, IDLE));
        pause(Duration::from_secs(1));
        figures[0][way] = per();
        let idle = run(handle, idle.ask());
        pause(Duration::from_secs(3));
        figures[1][way] = per();
        assert_eq!(idle.held(), IDLE, "connections held");
    }
    for (line, [hcf, haproxy]) in lines.iter().zip(figures) {
        table.line(line, [Some(hcf), Some(haproxy), None], Some(hcf), Bar::AtMost(8.0));
    }
}

/// As many idle connections as the limit of open files allows, and whether hcf still answers.
fn descriptors(table: &mut Table, handle: &Handle, gate: &str) {
    let kind = if gate == "pass" { "plain" } else { "http" };
    let what = format!("{kind}: idle connections of {DESCRIPTORS} files");
    if !table.wants(&what) {
        return;
    }
    let folder = lab::place::folder("gates");
    let program = Program::new("origin", &std::env::current_exe().unwrap()).arg("origin");
    let mut origin = Process::start(&program, folder.path());
    let address = wait_for("the node", LONG, || {
        origin.must_run();
        let out = origin.stdout();
        out.ends_with('\n').then(|| out.trim().to_owned())
    });
    let hcf = Hcf::limited(DESCRIPTORS, &config(), &["--node", &format!("http://{address}")]);
    wait_until("up", LONG, || ask(hcf.agent(), "write\n").starts_with("up "));
    let way: Arc<str> = hcf.address(&format!("gate/{gate}")).into();
    let idle = run(handle, Idle::fill(way, DESCRIPTORS / 2));
    let answer = ask(hcf.agent(), "write\n");
    assert!(answer.starts_with("up "), "still looks and answers, but: {answer}");
    let held = idle.held() as f64;
    table.line(&what, [Some(held), None, None], Some(held), Bar::AtLeast(9000.0));
}
