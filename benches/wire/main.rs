//! What a question costs, beside the least that a server could do, and what a sidecar takes at all: `cargo bench --bench wire [-- WORD]`, where WORD
//! picks lines.
//!
//! The server has one processor to itself, and the load generator the other. Every trial stands next to one of the
//! floor's, and the medians of five are shown; ratios are medians of those of the pairs. Ends with 1 when a bar is
//! missed. The machine must have nothing else to do, and hcf's threads must give way to each other, which they do not
//! under a real-time scheduler.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_types,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a bench measures real time, prints, and may fail loudly"
)]

mod floor;
mod footprint;
#[path = "../../tests/lab/mod.rs"]
mod lab;
mod load;

use std::io::Write as _;
use std::net::{SocketAddrV4, TcpStream};
use std::process::ExitCode;

use floor::Floor;
use lab::fake::{Answer, FakeNode, large_page};
use lab::hcf::{Hcf, ask};
use lab::measure::{cpu_time, median, pin};
use lab::process::{Process, Program};
use lab::wait::{LONG, wait_for, wait_until};
use load::{Ask, Outcome};

const TRIALS: usize = 5;
/// The processor of the server, and that of the load.
const SERVER: &str = "0";
const LOAD: &str = "1";

fn main() -> ExitCode {
    let words: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    if let Some(floor) = Floor::ALL.into_iter().find(|floor| words == [floor.name()]) {
        floor.serve();
    }
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    pin(std::process::id(), LOAD);
    let mut table = Table { words, missed: 0 };
    let wanted: Vec<Case> = CASES.into_iter().filter(|case| table.wants(case.what)).collect();
    if !wanted.is_empty() {
        println!("{HEAD}");
    }
    for case in wanted {
        measure(&mut table, case);
    }
    footprint::measure(&mut table);
    if table.missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

const HEAD: &str = "One processor for hcf or the floor (an epoll loop that answers a constant), the other for the load; \
medians of five trials, in turns.\n\
                                            CPU ms/1,000          rate /s           p50 us       p99 us       p99.9 us\n\
what                                         hcf floor ratio   hcf  floor ratio   hcf  floor   hcf floor ratio  hcf floor";

/// What hcf has to bear meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plight {
    Well,
    Hangs,
    Pages,
    Idle,
}

#[derive(Clone, Copy)]
struct Case {
    what: &'static str,
    ask: Ask,
    at_once: usize,
    plight: Plight,
}

const fn case(what: &'static str, ask: Ask, at_once: usize, plight: Plight) -> Case {
    Case { what, ask, at_once, plight }
}

const CONFIG: &str = "services: {write: {criteria: {servers: {min: 4}}}}\n";
/// A large page is made once, so what it says of when servers were heard grows old.
const OLD: &str = "services: {write: {criteria: {servers: {min: 4, last_heard_max: 1h}}}}\n";
const AGENT: Ask = Ask::Agent("write");
const HTTP: Ask = Ask::Http("/health/write");

const CASES: [Case; 11] = [
    case("agent, 64 at once", AGENT, 64, Plight::Well),
    case("agent, one at a time", AGENT, 1, Plight::Well),
    case("agent, 64, node hangs", AGENT, 64, Plight::Hangs),
    case("agent, one, node hangs", AGENT, 1, Plight::Hangs),
    case("agent, 64, pages of 8 MiB", AGENT, 64, Plight::Pages),
    case("agent, one, pages of 8 MiB", AGENT, 1, Plight::Pages),
    case("agent, 64, 2,000 idle connections", AGENT, 64, Plight::Idle),
    case("agent, one, 2,000 idle connections", AGENT, 1, Plight::Idle),
    case("health, 64 kept connections", HTTP, 64, Plight::Well),
    case("health, one kept connection", HTTP, 1, Plight::Well),
    case("health, 64 kept, pages of 8 MiB", HTTP, 64, Plight::Pages),
];

impl Case {
    const fn floor(self) -> Floor {
        match self.ask {
            Ask::Agent(_) => Floor::Agent,
            Ask::Http(_) => Floor::Http,
        }
    }
}

struct Table {
    words: Vec<String>,
    missed: usize,
}

impl Table {
    fn wants(&self, what: &str) -> bool {
        self.words.is_empty() || self.words.iter().any(|word| what.contains(word.as_str()))
    }

    /// One figure, beside the most that it may be.
    fn line(&mut self, what: &str, measured: f64, most: Option<f64>) {
        let kept = most.is_none_or(|most| measured <= most);
        self.missed += usize::from(!kept);
        let bar = most.map_or_else(String::new, |most| {
            format!("at most {most:<5} {}", if kept { "met" } else { "MISSED" })
        });
        println!("{what:<66} {measured:>9.2}  {bar}");
    }
}

fn measure(table: &mut Table, case: Case) {
    let node = FakeNode::healthy();
    let config = if case.plight == Plight::Pages { OLD } else { CONFIG };
    let mut hcf = Hcf::configured(config, &["--node", &node.url()]);
    wait_until("up", LONG, || ask(hcf.agent(), "write\n").starts_with("up "));
    let _held = bear(case.plight, &node, &hcf);
    pin(hcf.process().pid(), SERVER);
    let folder = lab::place::folder("wire");
    let program = Program::new("floor", &std::env::current_exe().unwrap()).arg(case.floor().name());
    let floor = Process::start(&program, folder.path());
    let address: SocketAddrV4 = wait_for("the floor", LONG, || floor.stdout().trim().parse().ok());
    pin(floor.pid(), SERVER);
    let way = match case.ask {
        Ask::Agent(_) => hcf.agent(),
        Ask::Http(_) => hcf.health(),
    };
    let ways = [(way.parse().unwrap(), hcf.process().pid()), (address, floor.pid())];
    let trials: Vec<[Outcome; 2]> = (0..TRIALS)
        .map(|_| ways.map(|(address, pid)| case.ask.run(address, case.at_once, || cpu_time(pid))))
        .collect();
    report(table, case, &trials);
}

/// Brings the plight about; what is returned holds it.
fn bear(plight: Plight, node: &FakeNode, hcf: &Hcf) -> Vec<TcpStream> {
    match plight {
        Plight::Well => Vec::new(),
        Plight::Hangs => {
            node.set(Answer::Hang);
            wait_until("down", LONG, || ask(hcf.agent(), "write\n").starts_with("down "));
            Vec::new()
        }
        Plight::Pages => {
            node.set(Answer::Page(large_page(5)));
            let seen = node.requests() + 2;
            wait_until("a large page", LONG, || node.requests() >= seen);
            assert!(ask(hcf.agent(), "write\n").starts_with("up "), "it is read");
            Vec::new()
        }
        Plight::Idle => {
            let held = (0..1000).map(|n| {
                let mut stream = TcpStream::connect(hcf.agent()).unwrap();
                stream.write_all(format!("write hold=60s as=b/{n}\n").as_bytes()).unwrap();
                stream
            });
            let idle = (0..1000).map(|_| TcpStream::connect(hcf.health()).unwrap());
            held.chain(idle).collect()
        }
    }
}

fn report(table: &mut Table, case: Case, trials: &[[Outcome; 2]]) {
    let of = |way: usize, figure: fn(&Outcome) -> f64| {
        median(trials.iter().map(|pair| figure(&pair[way])))
    };
    let ratio = |figure: fn(&Outcome) -> f64| {
        median(trials.iter().map(|pair| figure(&pair[0]) / figure(&pair[1])))
    };
    let (cpu, rate, p99) = (ratio(|o| o.cpu), ratio(|o| o.rate), ratio(|o| o.p99));
    println!(
        "{:<42} {:>6.2} {:>5.2} {cpu:>5.2} {:>6.0} {:>6.0} {rate:>5.2} {:>5.0} {:>6.0} {:>5.0} {:>5.0} {p99:>5.2} {:>5.0} {:>5.0}",
        case.what,
        of(0, |o| o.cpu),
        of(1, |o| o.cpu),
        of(0, |o| o.rate),
        of(1, |o| o.rate),
        of(0, |o| o.p50),
        of(1, |o| o.p50),
        of(0, |o| o.p99),
        of(1, |o| o.p99),
        of(0, |o| o.p999),
        of(1, |o| o.p999),
    );
    let errors: usize = trials.iter().flatten().map(|outcome| outcome.errors).sum();
    let mut bars = vec![("errors", errors as f64, 0.0)];
    match case.ask {
        // A rate is bounded by the load's own processor as well, so it may differ by what trials differ.
        Ask::Agent(_) => bars.extend([
            ("CPU", cpu, 1.15),
            ("rate, the floor's of ours", 1.0 / rate, 1.0),
            ("p99", p99, 1.2),
        ]),
        Ask::Http(_) => bars.push(("CPU", cpu, 1.6)),
    }
    for (what, measured, most) in bars {
        let kept = measured <= most;
        table.missed += usize::from(!kept);
        println!(
            "  {what:<40} {measured:>6.2}  at most {most:<5} {}",
            if kept { "met" } else { "MISSED" }
        );
    }
}
