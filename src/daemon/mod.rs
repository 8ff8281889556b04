//! The sidecar: bind everything, look at the node, answer until told to stop.
//!
//! Nothing is said before every port is bound, and every long task that ends before its end was asked for is a bug that
//! ends the process: half a sidecar must not go on answering.

mod gates;
mod inherited;
mod listeners;
mod memory;
mod parts;
mod reload;
mod room;
mod signals;

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::board::Board;
use crate::clock::Clock;
use crate::config::{Config, Say, Shutdown, Sources};
use crate::health::{Observation, Stop};
use crate::judge::{Inbox, Judge, Memory};
use crate::overrides::{self, Desk, Keeper, Loaded, Ruling, Store};
use crate::serve::accept::Hall;
use crate::systemd::Systemd;
use crate::tahoe::{Measures, Poller, Prober, Timing};
use gates::Gates;
use inherited::Inherited;
use listeners::{Listeners, Sites};
use parts::Parts;
pub use reload::{Outcome, Request as ReloadRequest};
use room::Room;
use signals::{Signals, Told};

/// The configuration makes no sense together with what the service manager has set up.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unfit(String);

/// Runs the sidecar until it is told to stop. Told to reload, it reads `sources` again.
///
/// # Errors
///
/// When a port cannot be bound, or a part of the sidecar ends by itself.
pub async fn run(config: Config, sources: Sources) -> Result<()> {
    let mut signals = Signals::register()?;
    let (mut sidecar, first_look) = Sidecar::start(config, sources).await?;
    tokio::select! {
        first = first_look => first.context("the judge ended before its first look")?,
        () = signals.stop() => return Ok(()),
        ended = sidecar.parts.ended() => bail!("{ended}"),
    }
    say("ready");
    sidecar.systemd.ready();
    info!(node = %sidecar.config.node.target, "Ready.");
    sidecar.serve(&mut signals).await?;
    tokio::select! {
        () = sidecar.wind_down() => {}
        () = signals.stop() => info!("A second signal; stopping at once."),
    }
    Ok(())
}

/// A running sidecar.
struct Sidecar {
    config: Arc<Config>,
    sources: Sources,
    shared: Shared,
    systemd: Systemd,
    parts: Parts,
    listeners: Listeners,
    gates: Gates,
    /// Ends the present poller.
    poller: CancellationToken,
    looks: mpsc::Sender<Observation>,
    configs: mpsc::Sender<(Arc<Config>, oneshot::Sender<()>)>,
    stopping: watch::Sender<Option<Stop>>,
    /// What the judge knew at its end.
    memory: Option<oneshot::Receiver<Memory>>,
    boot_id: Arc<str>,
    /// Requests to read the configuration again.
    reloads: mpsc::Receiver<ReloadRequest>,
}

/// What all parts share.
#[derive(Clone)]
struct Shared {
    clock: Clock,
    board: Arc<Board>,
    stop: CancellationToken,
    tasks: TaskTracker,
    /// Where gates run.
    carrier: Handle,
    /// Room for their connections.
    pairs: Arc<Semaphore>,
}

impl Shared {
    /// What an accept loop needs, which ends with `end`.
    fn hall(&self, name: &str, end: CancellationToken) -> Hall {
        let door = self.board.counts.door(name);
        Hall { name: name.into(), clock: self.clock, stop: end, tasks: self.tasks.clone(), door }
    }
}

impl Sidecar {
    async fn start(config: Config, sources: Sources) -> Result<(Self, oneshot::Receiver<()>)> {
        let systemd = Systemd::of_environment();
        let clock = Clock::start();
        let stop = CancellationToken::new();
        let mut parts = Parts::default();
        let mut inherited = Inherited::take()?;
        let sockets = listeners::bind_all(&config, &mut inherited)?;
        let ports = gates::bind_all(&config, &mut inherited)?;
        inherited.finish();

        let config = Arc::new(config);
        let boot_id = overrides::Now::read().boot_id;
        let memory = match config.state_dir.clone() {
            Some(dir) => {
                let (boot_id, hash, now) = (Arc::clone(&boot_id), config.hash(), clock.now());
                let read = move || memory::read(&dir, &boot_id, &hash, now);
                tokio::task::spawn_blocking(read).await.unwrap_or_default()
            }
            None => Memory::new(),
        };
        let (keeper, desk, rulings) = keeper(config.state_dir.clone()).await?;
        let ruling = Arc::clone(&rulings.borrow());
        let (judge, board, first_look) = Judge::new(&config, clock, memory, &ruling, systemd);
        let (board, tasks, carrier) = (Arc::new(board), TaskTracker::new(), carrier()?);
        let room = Room::here(sockets.len(), !ports.is_empty());
        let pairs = Arc::new(Semaphore::new(room.gates));
        let shared = Shared { clock, board, stop: stop.clone(), tasks, carrier, pairs };

        let (looks, seen) = mpsc::channel(1);
        let (configs, new_configs) = mpsc::channel(1);
        let (stopping, stop_word) = watch::channel(None);
        let inbox = Inbox {
            looks: seen,
            configs: new_configs,
            rulings: rulings.clone(),
            stopping: stop_word,
            stop: stop.clone(),
        };
        let (knew, memory) = oneshot::channel();
        parts.spawn("the judge", stop.clone(), async move {
            let _ = knew.send(judge.run(inbox).await);
        });
        parts.spawn("the keeper of overrides", stop.clone(), keeper.run(stop.clone()));
        let (reload, reloads) = mpsc::channel(8);
        if let Some(file) = &sources.file {
            let watching = reload::watch(file.clone(), reload.clone(), stop.clone());
            parts.spawn("the watch on the configuration", stop.clone(), watching);
        }

        let gates = Gates::default();
        let sites = Sites::new(&shared.board, gates.shown(), rulings, desk, reload);
        let mut sidecar = Self {
            listeners: Listeners::new(sites),
            gates,
            poller: stop.child_token(),
            config,
            sources,
            shared,
            systemd,
            parts,
            looks,
            configs,
            stopping,
            memory: Some(memory),
            boot_id,
            reloads,
        };
        for (kind, _, _, bound) in &sockets {
            say(&format!("listening {} {bound}", kind.name()));
        }
        for (gate, handover) in &ports {
            say(&format!("listening gate/{} {}", gate.name, handover.port.address));
        }
        sidecar.gates.open(ports, &sidecar.config, &sidecar.shared, &mut sidecar.parts);
        sidecar.listeners.open(sockets, room, &sidecar.shared, &mut sidecar.parts);
        sidecar.look();
        Ok((sidecar, first_look))
    }

    /// Begins to look at the node, in place of whoever looked before.
    fn look(&mut self) {
        self.poller.cancel();
        self.poller = self.shared.stop.child_token();
        let poller = poller(&self.config, self.shared.clock, self.looks.clone());
        self.parts.spawn("the poller", self.poller.clone(), poller.run(self.poller.clone()));
    }

    /// Serves until told to stop.
    async fn serve(&mut self, signals: &mut Signals) -> Result<()> {
        loop {
            let answer = tokio::select! {
                told = signals.next() => match told {
                    Told::Stop => return Ok(()),
                    Told::Reload => None,
                },
                Some(request) = self.reloads.recv() => Some(request),
                ended = self.parts.ended() => bail!("{ended}"),
            };
            self.systemd.reloading();
            let outcome = self.reload().await;
            self.systemd.ready();
            if let Some(answer) = answer {
                // Whoever asked may have gone meanwhile.
                let _ = answer.send(outcome);
            }
        }
    }

    /// Tells balancers, waits until they have heard, and lets what runs end.
    async fn wind_down(&mut self) {
        self.systemd.stopping();
        let Shutdown { say, announce, timeout: time } = self.config.shutdown;
        let word = match say {
            Say::Drain => Some(Stop::Drain),
            Say::Down => Some(Stop::Down),
            Say::Keep => None,
        };
        if word.is_some() {
            self.stopping.send_replace(word);
            info!(?say, announce = %humantime::format_duration(announce), "Stopping.");
            sleep(announce).await;
        }
        // What is kept must not hold the word of this stop, and does not: orders are not memory.
        let fresh_until = self.shared.board.fresh_until();
        self.shared.stop.cancel();
        self.shared.tasks.close();
        if let (Some(dir), Some(memory), Some(until)) =
            (self.config.state_dir.clone(), self.memory.take(), fresh_until)
            && let Ok(memory) = memory.await
        {
            let (boot_id, hash) = (Arc::clone(&self.boot_id), self.config.hash());
            let write = move || memory::write(&dir, &boot_id, &hash, until, memory);
            let _ = timeout(time, tokio::task::spawn_blocking(write)).await;
        }
        let ended = async {
            // With the listeners go the files of their sockets.
            self.parts.all_ended().await;
            self.shared.tasks.wait().await;
        };
        if timeout(time, ended).await.is_err() {
            warn!(connections = self.shared.tasks.len(), "Stopped with connections still open.");
        }
    }
}

/// Where gates run: a thread of their own, so that their bytes and the balancer's questions do not wait for each other,
/// and so that no connection is handed from one thread to another.
fn carrier() -> Result<Handle> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime of the gates")?;
    let handle = runtime.handle().clone();
    std::thread::Builder::new()
        .name("gates".to_owned())
        // It ends with the process: connections may go on after the stop.
        .spawn(move || runtime.block_on(std::future::pending::<()>()))
        .context("cannot start the thread of the gates")?;
    Ok(handle)
}

/// Whoever keeps what operators order, with what was kept.
async fn keeper(dir: Option<PathBuf>) -> Result<(Keeper, Desk, watch::Receiver<Arc<Ruling>>)> {
    let open = move || match dir {
        Some(dir) => Store::open(&dir).map(|(store, loaded)| Keeper::new(Some(store), loaded)),
        None => Ok(Keeper::new(None, Loaded::default())),
    };
    Ok(tokio::task::spawn_blocking(open).await??)
}

fn poller(config: &Config, clock: Clock, observations: mpsc::Sender<Observation>) -> Poller {
    let node = &config.node;
    let rises = config.services.iter().map(|service| service.rules.damping.rise.get());
    let timing = Timing { every: node.every, rise: rises.max().unwrap_or(1) };
    let prober =
        Prober::new(node.target.clone(), node.dir.as_ref(), node.overridden, node.timeout, clock)
            .measuring(measures(config));
    Poller { prober, timing, observations }
}

/// What any service's weight is made of.
fn measures(config: &Config) -> Measures {
    let mut measures = Measures::default();
    for weighing in config.services.iter().filter_map(|service| service.rules.weighing.as_ref()) {
        measures.host |= weighing.load.is_some();
        measures.node |= weighing.node.is_some();
    }
    measures
}

/// Prints a line for whoever started the sidecar; that nobody reads it is no reason to stop.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
