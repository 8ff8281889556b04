//! Gates: ports that forward to the node while the node is good, as ticket #529 asked for.
//!
//! For every balancer that only knows whether a port connects and whether a page answers. The
//! node's own port stays beside it, for diagnosis.

mod forwarded;
mod framing;
mod http;
mod path;
mod plain;
mod port;
mod proxy;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use port::Port;
use proxy::Opening;

use super::accept::{self, Hall, Left, Peer, Seat, Seats, Stream};
use super::bind::Listener;
use crate::board::{Board, ServiceBoard};
use crate::config::{self, WhenBad};
use crate::health::State;
use crate::log::Seldom;
use crate::tahoe::Target;

/// How long the node may take to accept a connection.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// A connection that carried nothing for this long serves nobody just now.
const IDLE: Duration = Duration::from_secs(1);
/// How soon a port that cannot be opened is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// One gate.
#[derive(Debug)]
pub struct Gate {
    /// What it was told to do.
    pub config: config::Gate,
    board: Arc<Board>,
    target: Target,
    stop: CancellationToken,
    /// What it does, for showing.
    pub view: View,
    /// Says once a minute that the node does not answer.
    unreachable: Seldom,
    /// Says once a minute that a client came without the header that it should begin with.
    headless: Seldom,
}

/// What a gate does, for showing.
#[derive(Debug, Default)]
pub struct View {
    /// Whether its port listens.
    pub open: AtomicBool,
    /// Connections that it carries.
    pub connections: AtomicUsize,
    /// Connections that it has accepted.
    pub accepted: AtomicU64,
    /// Requests that it has refused.
    pub refused: AtomicU64,
    /// Why its port does not listen although it should.
    trouble: Mutex<Option<String>>,
}

impl View {
    /// Why the gate's port does not listen although it should.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        // The text is whole after every statement, so a panic elsewhere did not harm it.
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes the trouble, or its end; says whether that is news.
    fn note(&self, trouble: Option<String>) -> bool {
        let mut noted = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let news = *noted != trouble;
        *noted = trouble;
        news
    }
}

impl Gate {
    /// A gate to the node at `target`, which ends with `stop`.
    #[must_use]
    pub fn new(
        config: config::Gate,
        board: Arc<Board>,
        target: Target,
        stop: CancellationToken,
    ) -> Self {
        let (view, unreachable, headless) = Default::default();
        Self { config, board, target, stop, view, unreachable, headless }
    }

    /// The service that decides. The configuration knows that it exists.
    fn service(&self) -> Option<&ServiceBoard> {
        self.board.service(&self.config.service)
    }

    fn state(&self) -> State {
        self.service().map_or(State::Down, |service| service.answers().verdict.state)
    }

    /// Opens and closes the port as the verdict has it, until stopped. There is `room` for so many
    /// connections, whatever the configuration allows.
    pub async fn run(self: Arc<Self>, mut port: Port, hall: Hall, room: usize) {
        let most = self.config.max_connections.min(room);
        if most < self.config.max_connections {
            let wanted = self.config.max_connections;
            warn!(
                gate = &*self.config.name,
                wanted, most, "The limit of open files allows fewer connections."
            );
        }
        let seats = Seats::new(most);
        loop {
            let wanted = self.config.when_bad != WhenBad::Close || self.state() == State::Up;
            if !wanted {
                let Some(service) = self.service() else { return };
                let tag = service.tag();
                // The verdict may have changed since it was read.
                if self.state() != State::Up {
                    tokio::select! {
                        () = service.changed(tag) => {}
                        () = hall.stop.cancelled() => return,
                    }
                }
                continue;
            }
            match port.open() {
                Ok(listener) => self.open(listener, &port, &hall, &seats).await,
                Err(e) => {
                    // Whoever has the port may leave it, so the gate tries again for as long as it takes.
                    if self.view.note(Some(e.to_string())) {
                        warn!(
                            gate = &*self.config.name,
                            "The gate cannot open: {e}. It tries again."
                        );
                    }
                    tokio::select! {
                        () = sleep(RETRY) => {}
                        () = hall.stop.cancelled() => {}
                    }
                }
            }
            if hall.stop.is_cancelled() {
                return;
            }
        }
    }

    /// Serves while the port is open.
    async fn open(self: &Arc<Self>, listener: Listener, port: &Port, hall: &Hall, seats: &Seats) {
        self.view.open.store(true, Ordering::Relaxed);
        self.view.note(None);
        info!(gate = &*self.config.name, address = %port.address, "The gate is open.");
        let serve = {
            let gate = Arc::clone(self);
            move |stream, peer, seat| Arc::clone(&gate).serve(stream, peer, seat)
        };
        let ends = CancellationToken::new();
        let until = Hall { stop: ends.clone(), ..hall.clone() };
        let closing = async {
            tokio::select! {
                () = self.turned_bad(), if self.config.when_bad == WhenBad::Close => {}
                () = hall.stop.cancelled() => {}
            }
            ends.cancel();
        };
        let (Left { listener, waiting: accepted }, ()) =
            tokio::join!(accept::serve(listener, until, seats.clone(), &serve), closing);
        self.view.open.store(false, Ordering::Relaxed);
        match port.close(listener) {
            // They were there before the port closed, so they are served as the others are.
            Ok(waiting) => {
                for (stream, peer) in accepted.into_iter().chain(waiting) {
                    let (serve, seats, hall) = (serve.clone(), seats.clone(), hall.clone());
                    // Aside, since where the gate is full it must still be able to open again.
                    let tasks = hall.tasks.clone();
                    tasks.spawn(async move {
                        let seat = seats.take(&hall).await;
                        serve(stream, peer, seat).await;
                    });
                }
            }
            Err(e) => warn!(gate = &*self.config.name, "Cannot close {}: {e}.", port.address),
        }
        info!(gate = &*self.config.name, address = %port.address, "The gate is closed.");
    }

    /// Ends when the service is no longer up.
    async fn turned_bad(&self) {
        let Some(service) = self.service() else { return };
        loop {
            let tag = service.tag();
            if self.state() != State::Up {
                return;
            }
            service.changed(tag).await;
        }
    }

    /// Serves one connection.
    async fn serve(self: Arc<Self>, mut client: Stream, peer: Peer, _seat: Seat) {
        self.view.accepted.fetch_add(1, Ordering::Relaxed);
        self.view.connections.fetch_add(1, Ordering::Relaxed);
        if let Some(opening) = self.opening(&mut client, peer).await {
            match self.config.when_bad {
                WhenBad::Close | WhenBad::Pass => self.carry(client, &opening.early).await,
                WhenBad::RefuseUri | WhenBad::RefuseWrites => {
                    http::serve(&self, client, opening).await;
                }
            }
        }
        self.view.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Who the client is, and what it has said so far; `None` when it is not to be served.
    async fn opening(&self, client: &mut Stream, peer: Peer) -> Option<Opening> {
        if !self.config.proxy_protocol {
            return Some(Opening { peer, early: Vec::new() });
        }
        let opening = tokio::select! {
            opening = proxy::read(client) => opening,
            () = self.stop.cancelled() => return None,
        };
        // Checks that only connect say nothing, and end that way.
        let silent = |e: &std::io::Error| e.kind() == std::io::ErrorKind::UnexpectedEof;
        if let Err(e) = &opening
            && !silent(e)
            && let Some(more) = self.headless.pass(self.board.clock.now())
        {
            let gate = &*self.config.name;
            warn!(gate, more, "A client's connection has no PROXY protocol header: {e}.");
        }
        opening.ok()
    }

    async fn carry(&self, client: Stream, early: &[u8]) {
        let Some(mut node) = self.connect().await else { return };
        if !early.is_empty() && node.write_all(early).await.is_err() {
            return;
        }
        let clock = self.board.clock;
        let activity = plain::Activity::default();
        activity.note(!early.is_empty(), clock);
        tokio::select! {
            () = plain::carry(&client, &node, &activity, clock) => {}
            () = self.cut(&activity), if self.config.when_bad == WhenBad::Close => {}
            () = self.stopping(&activity) => {}
        }
    }

    /// Ends when the sidecar stops and the connection is idle. A busy one has until the end of
    /// `shutdown.timeout`.
    async fn stopping(&self, activity: &plain::Activity) {
        self.stop.cancelled().await;
        loop {
            let idle = activity.idle(self.board.clock);
            if idle >= IDLE {
                return;
            }
            sleep(IDLE.saturating_sub(idle)).await;
        }
    }

    /// Ends when a connection is to be cut: the service is down, and it is idle or its time is over.
    async fn cut(&self, activity: &plain::Activity) {
        let Some(service) = self.service() else { return };
        let clock = self.board.clock;
        loop {
            let tag = service.tag();
            if self.state() != State::Down {
                service.changed(tag).await;
                continue;
            }
            let over = clock.now() + self.config.drain;
            while self.state() == State::Down {
                let (idle, left) = (activity.idle(clock), over.since(clock.now()));
                if idle >= IDLE || left.is_zero() {
                    return;
                }
                tokio::select! {
                    () = sleep(IDLE.saturating_sub(idle).min(left)) => {}
                    () = service.changed(tag) => break,
                }
            }
        }
    }

    /// Connects to the node as it is: what the client says goes through, TLS included.
    async fn connect(&self) -> Option<Stream> {
        let connected = timeout(CONNECT_TIME, self.target.connect()).await;
        match connected.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())) {
            Ok(node) => Some(node),
            Err(e) => {
                if let Some(more) = self.unreachable.pass(self.board.clock.now()) {
                    let gate = &*self.config.name;
                    warn!(gate, more, "Cannot connect to the node for a client: {e}.");
                }
                None
            }
        }
    }
}
