//! The sidecar: bind everything, look at the node, answer until told to stop.
//!
//! Nothing is said before every port is bound, and every long task that ends before its end was asked for is a bug that
//! ends the process: half a sidecar must not go on answering.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod gates;
mod inherited;
mod listeners;
mod memory;
mod parts;
mod reload;
mod room;
mod signals;
mod threads;

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::board::Board;
use crate::clock::Clock;
use crate::config::{Config, Say, Shutdown, Sources};
use crate::health::{Observation, Stop};
use crate::history;
use crate::judge::{Inbox, Judge, Memory};
use crate::lookout;
use crate::overrides::{self, Desk, Keeper, Loaded, Ruling, Store};
use crate::serve::accept::{Allow, Hall};
use crate::systemd::Systemd;
use crate::tahoe::{Canaries, Plan, Poller, Results, Timing};
use gates::Gates;
use inherited::Inherited;
use listeners::{Listeners, Sites};
pub(crate) use parts::Parts;
pub use reload::{Outcome, Request as ReloadRequest};
use room::Room;
pub(crate) use signals::Signals;
use signals::Told;
use threads::Thread;

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
    let ready = tokio::select! {
        first = first_look => first.context("the judge ended before its first look").map(|()| true)?,
        () = signals.stop() => false,
        ended = sidecar.parts.ended() => bail!("{ended}"),
    };
    if ready {
        say("ready");
        sidecar.systemd.ready();
        info!(node = %sidecar.config.node.target, "Ready.");
        if sidecar.config.admin.socket.is_none() {
            info!(
                "There is no admin socket, so nobody can order anything; admin.socket names one."
            );
        }
        if sidecar.config.state_dir.is_none() {
            info!(
                "Orders and verdicts are in memory only, and gone with a stop; state_dir names a place."
            );
        }
        sidecar.serve(&mut signals).await?;
    }
    tokio::select! {
        () = sidecar.wind_down(ready) => return Ok(()),
        () = signals.stop() => info!("A second signal; stopping at once."),
    }
    sidecar.shared.stop.cancel();
    // With the listeners go the files of their sockets.
    let _ = timeout(AT_ONCE, sidecar.parts.all_ended()).await;
    Ok(())
}

/// The most that a second signal takes.
const AT_ONCE: Duration = Duration::from_millis(200);

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
    /// What canaries are to do, and what they came to.
    plan: watch::Sender<Plan>,
    results: watch::Receiver<Results>,
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
    /// Where balancers' questions are answered, so that neither a large page nor a gate's bytes delay them.
    answering: Arc<Thread>,
    /// Where gates run: one processor of bytes is more than a node, one thread of Python, has.
    carrying: Arc<Thread>,
    /// Room for their connections.
    pairs: Arc<Semaphore>,
}

impl Shared {
    /// What an accept loop needs, which ends with `stop`.
    fn hall(&self, name: &str, stop: CancellationToken, allow: Arc<Allow>) -> Hall {
        let (door, tasks) = (self.board.counts.door(name), self.tasks.clone());
        Hall { name: name.into(), clock: self.clock, stop, tasks, door, allow }
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
        let (board, tasks) = (Arc::new(board), TaskTracker::new());
        let (historian, tap) = history::open(config.state_dir.as_ref(), Arc::clone(&board));
        let (judge, archive) = (judge.telling(tap), historian.archive());
        let answering = Arc::new(Thread::new("answers"));
        let carrying = Arc::new(Thread::new("gates"));
        let room = Room::here(sockets.len(), !ports.is_empty());
        let pairs = Arc::new(Semaphore::new(room.gates));
        let shared = Shared { clock, board, stop: stop.clone(), tasks, answering, carrying, pairs };

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
        parts.spawn("the keeper of the history", stop.clone(), historian.run(stop.clone()));
        let (plan, planned) = watch::channel(lookout::plan(&config));
        let (canaries, results) = Canaries::new(clock, planned);
        parts.spawn("the canaries", stop.clone(), canaries.run(stop.clone()));
        let (reload, reloads) = mpsc::channel(8);
        if let Some(file) = &sources.file {
            let watching = reload::watch(file.clone(), reload.clone(), stop.clone());
            parts.spawn("the watch on the configuration", stop.clone(), watching);
        }

        let gates = Gates::default();
        let sites = Sites::new(&shared.board, gates.shown(), rulings, archive, desk, reload)?;
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
            plan,
            results,
            configs,
            stopping,
            memory: Some(memory),
            boot_id,
            reloads,
        };
        for socket in &sockets {
            say(&format!("listening {} {}", socket.kind.name(), socket.bound));
        }
        for (gate, handover) in &ports {
            say(&format!("listening gate/{} {}", gate.name, handover.port.address));
        }
        sidecar.gates.open(ports, &sidecar.config, &sidecar.shared, &mut sidecar.parts)?;
        sidecar.listeners.open(sockets, room, &sidecar.shared, &mut sidecar.parts)?;
        sidecar.look();
        Ok((sidecar, first_look))
    }

    /// Begins to look at the node, in place of whoever looked before.
    fn look(&mut self) {
        self.poller.cancel();
        self.poller = self.shared.stop.child_token();
        let clock = self.shared.clock;
        let prober = lookout::prober(&self.config, clock, self.results.clone());
        let poller =
            Poller { prober, timing: timing(&self.config), observations: self.looks.clone() };
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

    /// Tells balancers, unless it was never `ready`, waits until they have heard, and lets what runs end.
    async fn wind_down(&mut self, ready: bool) {
        self.systemd.stopping();
        // Whoever asks for a reload now hears that it is too late.
        self.reloads.close();
        while self.reloads.try_recv().is_ok() {}
        let Shutdown { say, announce, timeout: time } = self.config.shutdown;
        let word = match say {
            Say::Drain => Some(Stop::Drain),
            Say::Down => Some(Stop::Down),
            Say::Keep => None,
        };
        if ready && word.is_some() {
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

/// Whoever keeps what operators order, with what was kept.
async fn keeper(dir: Option<PathBuf>) -> Result<(Keeper, Desk, watch::Receiver<Arc<Ruling>>)> {
    let open = move || match dir {
        Some(dir) => Store::open(&dir).map(|(store, loaded)| Keeper::new(Some(store), loaded)),
        None => Ok(Keeper::new(None, Loaded::default())),
    };
    Ok(tokio::task::spawn_blocking(open).await??)
}

fn timing(config: &Config) -> Timing {
    let rises = config.services.iter().map(|service| service.rules.damping.rise.get());
    Timing { every: config.node.every, rise: rises.max().unwrap_or(1) }
}

/// Prints a line for whoever started the sidecar; that nobody reads it is no reason to stop.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
