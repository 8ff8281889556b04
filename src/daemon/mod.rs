//! The sidecar: bind everything, look at the node, answer until told to stop.
//!
//! Nothing is said before every port is bound, and every long task that ends before the stop is a
//! bug that ends the process: half a sidecar must not go on answering.

use std::io::Write as _;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::board::Board;
use crate::clock::Clock;
use crate::config::{self, Address, Config, Say, Shutdown};
use crate::health::Order;
use crate::judge::Judge;
use crate::serve::HealthSite;
use crate::serve::accept::{self, Hall, Seats};
use crate::serve::agent::Agent;
use crate::serve::bind::{Listener, bind};
use crate::serve::gate::{Gate, Port};
use crate::serve::http::{self, Site};
use crate::serve::status::StatusSite;
use crate::tahoe::{Poller, Prober, Timing};

/// Connections that one listener serves at a time.
const HTTP_CONNECTIONS: usize = 1024;
/// More on the agent port: most of those that last are held questions.
const AGENT_CONNECTIONS: usize = 2048;

/// Runs the sidecar until it is told to stop.
///
/// # Errors
///
/// When a port cannot be bound, or a part of the sidecar ends by itself.
pub async fn run(config: &Config) -> Result<()> {
    let mut signals = Signals::register()?;
    let clock = Clock::start();
    let sockets = bind_all(config)?;
    let gates = bind_gates(config)?;
    let (judge, board, first_look) = Judge::new(config, clock);
    let board = Arc::new(board);
    let (order, orders) = watch::channel(None);
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    let mut parts = JoinSet::new();

    for (name, _, at) in &sockets {
        say(&format!("listening {name} {at}"));
    }
    for (gate, port) in &gates {
        say(&format!("listening gate/{} {}", gate.name, port.address));
    }
    let room = Room::of(limit_of_descriptors(), sockets.len(), gates.len());
    let hall =
        |name: &str| Hall { name: name.into(), clock, stop: stop.clone(), tasks: tasks.clone() };
    let mut shown = Vec::new();
    for (gate, port) in gates {
        let hall = hall(&format!("gate/{}", gate.name));
        let target = config.node.target.clone();
        let gate = Arc::new(Gate::new(gate, Arc::clone(&board), target, stop.clone()));
        shown.push((port.address.clone(), Arc::clone(&gate)));
        parts.spawn(gate.run(port, hall, room.gate));
    }
    for (name, listener, _) in sockets {
        let site: Option<Arc<dyn Site>> = match name {
            "agent" => None,
            "health" => Some(Arc::new(HealthSite { board: Arc::clone(&board) })),
            _ => Some(Arc::new(StatusSite::new(Arc::clone(&board), shown.clone()))),
        };
        parts.spawn(serve(listener, hall(name), room.listener, Arc::clone(&board), site));
    }
    let (looks, seen) = mpsc::channel(1);
    parts.spawn(judge.run(seen, orders, stop.clone()));
    parts.spawn(poller(config, clock, looks).run(stop.clone()));

    tokio::select! {
        first = first_look => first.context("the judge ended before its first look")?,
        () = signals.stop() => return Ok(()),
        ended = parts.join_next() => bail!("a part of the sidecar ended by itself: {ended:?}"),
    }
    say("ready");
    info!(node = %config.node.target, "Ready.");

    tokio::select! {
        () = signals.stop() => {}
        ended = parts.join_next() => bail!("a part of the sidecar ended by itself: {ended:?}"),
    }
    tokio::select! {
        () = wind_down(config.shutdown, &order, &stop, &tasks, &mut parts) => {}
        () = signals.stop() => info!("A second signal; stopping at once."),
    }
    Ok(())
}

type Socket = (&'static str, Listener, Address);

fn bind_all(config: &Config) -> Result<Vec<Socket>> {
    let listen = &config.listen;
    let listeners = [
        ("agent", &listen.agent, 0o666),
        ("health", &listen.health, 0o666),
        // It shows the grid's topology.
        ("status", &listen.status, 0o660),
    ];
    let mut sockets = Vec::new();
    for (name, addresses, mode) in listeners {
        for address in addresses {
            let (listener, bound) = bind(address, name, mode)?;
            sockets.push((name, listener, bound));
        }
    }
    Ok(sockets)
}

fn bind_gates(config: &Config) -> Result<Vec<(config::Gate, Port)>> {
    let mut gates = Vec::new();
    for gate in &config.gates {
        for address in &gate.listen {
            gates.push((gate.clone(), Port::bind(address, &format!("gate/{}", gate.name))?));
        }
    }
    Ok(gates)
}

/// How many connections each listener and each gate may have, so that together they leave enough
/// descriptors to look at the node by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Room {
    listener: usize,
    gate: usize,
}

impl Room {
    /// The room under a limit of open files. A gate's connections take two each, and gates take what
    /// there is; but never so much that balancers are not answered.
    fn of(limit: usize, listeners: usize, gates: usize) -> Self {
        const RESERVE: usize = 64;
        let all = limit.saturating_sub(RESERVE);
        if gates == 0 {
            return Self { listener: (all / listeners.max(1)).max(8), gate: 0 };
        }
        let listener = (all / 12 / listeners.max(1)).clamp(8, AGENT_CONNECTIONS);
        let gate = all.saturating_sub(listener * listeners) / 2 / gates;
        Self { listener, gate: gate.max(8) }
    }
}

fn limit_of_descriptors() -> usize {
    let limit = rlimit::getrlimit(rlimit::Resource::NOFILE).map_or(1024, |(soft, _)| soft);
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// Serves one of the listeners that answer questions: an HTTP one with its site, or the agent.
async fn serve(
    listener: Listener,
    hall: Hall,
    room: usize,
    board: Arc<Board>,
    site: Option<Arc<dyn Site>>,
) {
    if let Some(site) = site {
        let seats = Seats::new(HTTP_CONNECTIONS.min(room));
        accept::serve(listener, hall, seats, |stream, _, seat| {
            http::serve(stream, seat, Arc::clone(&site))
        })
        .await;
    } else {
        let agent = Arc::new(Agent::new(board));
        let seats = Seats::new(AGENT_CONNECTIONS.min(room));
        accept::serve(listener, hall, seats, |stream, peer, seat| {
            Arc::clone(&agent).serve(stream, peer, seat)
        })
        .await;
    }
}

fn poller(
    config: &Config,
    clock: Clock,
    observations: mpsc::Sender<crate::health::Observation>,
) -> Poller {
    let node = &config.node;
    let rises = config.services.iter().map(|service| service.rules.damping.rise.get());
    let timing = Timing { every: node.every, rise: rises.max().unwrap_or(1) };
    let prober =
        Prober::new(node.target.clone(), node.dir.as_ref(), node.overridden, node.timeout, clock);
    Poller { prober, timing, observations }
}

/// Tells balancers, waits until they have heard, and lets what runs end.
async fn wind_down(
    shutdown: Shutdown,
    order: &watch::Sender<Option<Order>>,
    stop: &CancellationToken,
    tasks: &TaskTracker,
    parts: &mut JoinSet<()>,
) {
    let word = match shutdown.say {
        Say::Drain => Some(Order::ShutdownDrain),
        Say::Down => Some(Order::ShutdownDown),
        Say::Keep => None,
    };
    if word.is_some() {
        order.send_replace(word);
        info!(say = ?shutdown.say, announce = %humantime::format_duration(shutdown.announce), "Stopping.");
        sleep(shutdown.announce).await;
    }
    stop.cancel();
    tasks.close();
    let ended = async {
        // With the listeners go the files of their sockets.
        while parts.join_next().await.is_some() {}
        tasks.wait().await;
    };
    if timeout(shutdown.timeout, ended).await.is_err() {
        warn!(connections = tasks.len(), "Stopped with connections still open.");
    }
}

/// The signals that stop the sidecar.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn register() -> Result<Self> {
        let register = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            terminate: register(SignalKind::terminate())?,
            interrupt: register(SignalKind::interrupt())?,
        })
    }

    /// Ends when the next one of them arrives.
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Prints a line for whoever started the sidecar; that nobody reads it is no reason to stop.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_have_what_others_leave() {
        assert_eq!(Room::of(1 << 20, 3, 0).listener, 349_504);
        let room = Room::of(20_000, 3, 1);
        assert!(room.gate >= 9_000, "{room:?}");
        for limit in [0, 64, 256, 1024, 20_000, 1 << 30] {
            for (listeners, gates) in [(0, 1), (3, 1), (5, 4)] {
                let room = Room::of(limit, listeners, gates);
                let taken = room.listener * listeners + 2 * room.gate * gates;
                assert!(
                    taken + 64 <= limit.max(64 + 8 * (listeners + 2 * gates)),
                    "{limit}: {room:?}"
                );
            }
        }
    }
}
