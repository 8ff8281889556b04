//! What a sidecar takes when nothing happens, and after much has.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::lab::fake::FakeNode;
use super::lab::hcf::{Hcf, ask, hcf_binary};
use super::lab::measure::{cpu_time, resident};
use super::lab::wait::{LONG, pause, wait_until};
use super::{AGENT, CONFIG, Table};

/// Ten balancers, each of which asks for four services once a second.
const BALANCERS: usize = 10;
const SERVICES: [&str; 4] = ["write", "read", "a", "b"];
/// What they ask in a day.
const DAY: usize = BALANCERS * SERVICES.len() * 86_400;

pub(crate) fn measure(table: &mut Table) {
    size(table);
    first_verdict(table);
    idle(table);
    connections(table);
    day(table);
}

fn size(table: &mut Table) {
    if table.wants("program") {
        let size = std::fs::metadata(hcf_binary()).unwrap().len() as f64 / f64::from(1 << 20);
        table.line("program file, MiB", size, None);
    }
}

/// From the start of the process to the first answer that is not `starting`.
fn first_verdict(table: &mut Table) {
    if !table.wants("start to first verdict") {
        return;
    }
    let node = FakeNode::healthy();
    let mut times: Vec<f64> = (0..9)
        .map(|_| {
            let begun = Instant::now();
            let hcf = Hcf::configured(CONFIG, &["--node", &node.url()]);
            while !ask(hcf.agent(), "write\n").starts_with("up ") {
                assert!(begun.elapsed() < LONG, "up");
            }
            begun.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    table.line("start to first verdict (up), median of 9, ms", times[4], None);
}

fn idle(table: &mut Table) {
    if !table.wants("idle") {
        return;
    }
    let node = FakeNode::healthy();
    let config = "services: {write: {criteria: {servers: {min: 4}}}, a: {criteria: {servers: {min: 1}}}, b: {criteria: {servers: {min: 2}}}}\n";
    let mut hcf = Hcf::configured(config, &["--node", &node.url()]);
    wait_until("up", LONG, || ask(hcf.agent(), "write\n").starts_with("up "));
    table.line("idle: resident memory, MiB", resident(hcf.process().pid()), Some(8.0));
    let pid = hcf.process().pid();
    let (cpu, begun) = (cpu_time(pid), Instant::now());
    for second in 1..=20 {
        for _ in 0..BALANCERS {
            for service in SERVICES {
                let mut stream = TcpStream::connect(hcf.agent()).unwrap();
                stream.write_all(format!("{service}\n").as_bytes()).unwrap();
                let mut line = String::new();
                stream.read_to_string(&mut line).unwrap();
                assert!(line.starts_with("up "), "{line}");
            }
        }
        pause(Duration::from_secs(second).saturating_sub(begun.elapsed()));
    }
    let share =
        cpu_time(pid).saturating_sub(cpu).as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0;
    table.line(
        "idle: asked by 10 balancers for 4 services a second, % of a core",
        share,
        Some(0.5),
    );
}

/// Held questions, idle health checks, idle operators, and clients of a gate.
fn connections(table: &mut Table) {
    if !table.wants("10,000 connections") {
        return;
    }
    let node = FakeNode::healthy();
    let config = format!(
        "{CONFIG}gates: {{web: {{listen: '127.0.0.1:0', when_bad: refuse_writes, max_connections: 100000}}}}\n"
    );
    let mut hcf = Hcf::configured(&config, &["--node", &node.url()]);
    wait_until("up", LONG, || ask(hcf.agent(), "write\n").starts_with("up "));
    let before = resident(hcf.process().pid());
    let mut open = Vec::new();
    for n in 0..1000 {
        // Asked twice, the second one is held.
        let question = format!("write hold=60s as=b/{n}\n");
        assert!(ask(hcf.agent(), &question).starts_with("up "));
        let mut stream = TcpStream::connect(hcf.agent()).unwrap();
        stream.write_all(question.as_bytes()).unwrap();
        open.push(stream);
    }
    for (address, count) in
        [(hcf.health(), 1000), (hcf.status(), 1000), (hcf.address("gate/web"), 7000)]
    {
        open.extend((0..count).map(|_| TcpStream::connect(address).unwrap()));
    }
    pause(Duration::from_secs(2));
    let after = resident(hcf.process().pid());
    table.line("10,000 connections: resident memory, MiB", after, None);
    table.line(
        "10,000 connections: KiB more for each",
        (after - before) * 1024.0 / open.len() as f64,
        None,
    );
}

fn day(table: &mut Table) {
    if !table.wants("a day of questions") {
        return;
    }
    let node = FakeNode::healthy();
    let mut hcf = Hcf::configured(CONFIG, &["--node", &node.url()]);
    wait_until("up", LONG, || ask(hcf.agent(), "write\n").starts_with("up "));
    let address = hcf.agent().parse().unwrap();
    let before = resident(hcf.process().pid());
    let mut asked = 0.0;
    while asked < DAY as f64 {
        asked += AGENT.run(address, 16, || Duration::ZERO).rate;
    }
    let after = resident(hcf.process().pid());
    table.line("a day of questions (3,456,000): resident memory, MiB", after, None);
    table.line("a day of questions: MiB more than before", after - before, Some(1.0));
}
