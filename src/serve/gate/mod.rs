//! Gates: ports that forward to the node while the node is good, as ticket #529 asked for.
//!
//! For every balancer that only knows whether a port connects and whether a page answers. The
//! node's own port stays beside it, for diagnosis.

mod activity;
mod answer;
mod asked;
mod buffer;
mod exchange;
mod forwarded;
mod framing;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod http;
mod path;
mod plain;
mod port;
mod proxy;
#[cfg(any(test, feature = "fuzzing"))]
mod reference;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use activity::Activity;
pub use port::Port;
use proxy::Opening;

use super::accept::{self, Hall, Left, Peer, Seat, Seats, Stream};
use super::bind::Listener;
use crate::board::{Board, ServiceBoard};
use crate::config::{self, Address, WhenBad};
use crate::counts::Count;
use crate::health::State;
use crate::log::Seldom;
use crate::tahoe::Target;

/// How long the node may take to accept a connection.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// A connection that carried nothing for this long, and owes nothing, serves nobody just now.
const IDLE: Duration = Duration::from_secs(1);
/// How long a client may take no byte of an answer, and send none of a request, while nobody else is
/// waited for. The kernel holds enough of an answer to keep a slow client busy for a minute or two.
const STALL: Duration = Duration::from_mins(5);
/// How soon a port that cannot be opened is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// One gate.
#[derive(Debug)]
pub struct Gate {
    /// What it was told to do.
    pub config: config::Gate,
    board: Arc<Board>,
    /// The node.
    pub target: Target,
    stop: CancellationToken,
    /// What it does, for showing.
    pub view: Arc<View>,
    /// Says once a minute that the node does not answer.
    unreachable: Seldom,
    /// Says once a minute that a client came without the header that it should begin with.
    headless: Seldom,
}

/// A port, and what listens on it, on the way from one gate to another.
#[derive(Debug)]
pub struct Handover {
    /// The port.
    pub port: Port,
    open: Option<Listener>,
}

impl Handover {
    /// A port that does not listen yet.
    #[must_use]
    pub const fn of(port: Port) -> Self {
        Self { port, open: None }
    }

    /// Has it listen. Where it cannot, the gate that gets it tries again, and says so.
    pub fn listen(&mut self) {
        if self.open.is_none() {
            self.open = self.port.open().ok();
        }
    }

    /// A socket that listens already, and that somebody else keeps listening.
    #[must_use]
    pub fn given(listener: Listener, address: Address) -> Self {
        Self { port: Port::given(address), open: Some(listener) }
    }
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
    /// Bytes that clients have sent, as far as they were carried or read as requests.
    pub received: Count,
    /// Bytes that clients were sent.
    pub sent: Count,
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
    /// A gate to the node at `target`, whose connections end with `stop`, and that counts on in `view`.
    #[must_use]
    pub fn new(
        config: config::Gate,
        board: Arc<Board>,
        target: Target,
        stop: CancellationToken,
        view: Arc<View>,
    ) -> Self {
        let (unreachable, headless) = Default::default();
        Self { config, board, target, stop, view, unreachable, headless }
    }

    /// The service that decides. The configuration knows that it exists.
    fn service(&self) -> Option<Arc<ServiceBoard>> {
        self.board.service(&self.config.service)
    }

    fn state(&self) -> State {
        self.service().map_or(State::Down, |service| service.answers().verdict.state)
    }

    /// Opens and closes the port as the verdict has it, until `hall.stop`; then the port is another gate's, unless
    /// the sidecar itself stops. Each connection takes one from `pool`, which all gates share.
    pub async fn run(
        self: Arc<Self>,
        handover: Handover,
        hall: Hall,
        pool: Arc<Semaphore>,
    ) -> Handover {
        let Handover { mut port, mut open } = handover;
        let (wanted, most) = (self.config.max_connections, pool.available_permits());
        if most < wanted {
            let gate = &*self.config.name;
            warn!(gate, wanted, most, "The limit of open files allows fewer connections.");
        }
        let seats = Seats::of_pool(wanted, pool);
        while !hall.stop.is_cancelled() {
            let tag = self.tag();
            let wanted = self.config.when_bad != WhenBad::Close || self.state() == State::Up;
            let listener = match open.take() {
                Some(listener) if !wanted => {
                    self.close(listener, None, &port, &hall, &seats).await;
                    continue;
                }
                None if !wanted => {
                    tokio::select! {
                        () = self.changed(tag) => {}
                        () = hall.stop.cancelled() => {}
                    }
                    continue;
                }
                Some(listener) => listener,
                None => match port.open() {
                    Ok(listener) => listener,
                    Err(e) => {
                        self.cannot_open(&e.to_string());
                        tokio::select! {
                            () = sleep(RETRY) => {}
                            () = hall.stop.cancelled() => {}
                        }
                        continue;
                    }
                },
            };
            let Left { listener, waiting } = self.open(listener, &port, &hall, &seats).await;
            if hall.stop.is_cancelled() && !self.stop.is_cancelled() {
                self.serve_later(waiting.into_iter().collect(), &hall, &seats);
                open = Some(listener);
            } else {
                self.close(listener, waiting, &port, &hall, &seats).await;
            }
        }
        Handover { port, open }
    }

    /// Whoever has the port may leave it, so it is worth one line, and the gate tries for as long as it takes.
    fn cannot_open(&self, why: &str) {
        if self.view.note(Some(why.to_owned())) {
            warn!(gate = &*self.config.name, "The gate cannot open: {why}. It tries again.");
        }
    }

    /// Serves while the port is open.
    async fn open(
        self: &Arc<Self>,
        listener: Listener,
        port: &Port,
        hall: &Hall,
        seats: &Seats,
    ) -> Left {
        self.view.note(None);
        if !self.view.open.swap(true, Ordering::Relaxed) {
            info!(gate = &*self.config.name, address = %port.address, "The gate is open.");
        }
        let gate = Arc::clone(self);
        let serve = move |stream, peer, seat| Arc::clone(&gate).serve(stream, peer, seat);
        let ends = CancellationToken::new();
        let until = Hall { stop: ends.clone(), ..hall.clone() };
        let closing = async {
            tokio::select! {
                () = self.turned_bad(), if self.config.when_bad == WhenBad::Close => {}
                () = hall.stop.cancelled() => {}
            }
            ends.cancel();
        };
        tokio::join!(accept::serve(listener, until, seats.clone(), &serve), closing).0
    }

    async fn close(
        self: &Arc<Self>,
        listener: Listener,
        accepted: Option<(Stream, Peer)>,
        port: &Port,
        hall: &Hall,
        seats: &Seats,
    ) {
        self.view.open.store(false, Ordering::Relaxed);
        match port.close(listener).await {
            // They were there before the port closed, so they are served as the others are.
            Ok(waiting) => {
                let waiting = waiting.into_iter().filter(|(_, peer)| hall.admits(*peer));
                self.serve_later(accepted.into_iter().chain(waiting).collect(), hall, seats);
            }
            Err(e) => warn!(gate = &*self.config.name, "Cannot close {}: {e}.", port.address),
        }
        info!(gate = &*self.config.name, address = %port.address, "The gate is closed.");
    }

    /// Serves connections as seats become free; aside, since a full gate must still be able to open again.
    fn serve_later(self: &Arc<Self>, waiting: Vec<(Stream, Peer)>, hall: &Hall, seats: &Seats) {
        for (stream, peer) in waiting {
            let (gate, seats, hall) = (Arc::clone(self), seats.clone(), hall.clone());
            let tasks = hall.tasks.clone();
            tasks.spawn(async move {
                let seat = seats.take(&hall).await;
                gate.serve(stream, peer, seat).await;
            });
        }
    }

    fn tag(&self) -> Option<u64> {
        self.service().map(|service| service.tag())
    }

    /// Ends when the service's answer is another one than that of `tag`. A service that is not there any more may come
    /// back, so that is looked for now and then.
    async fn changed(&self, tag: Option<u64>) {
        match (self.service(), tag) {
            (Some(service), Some(tag)) => service.changed(tag).await,
            (Some(_), None) => {}
            (None, _) => sleep(RETRY).await,
        }
    }

    /// Ends when the service is no longer up.
    async fn turned_bad(&self) {
        loop {
            let tag = self.tag();
            if self.state() != State::Up {
                return;
            }
            self.changed(tag).await;
        }
    }

    /// Serves one connection.
    async fn serve(self: Arc<Self>, mut client: Stream, peer: Peer, _seat: Seat) {
        self.view.accepted.fetch_add(1, Ordering::Relaxed);
        self.view.connections.fetch_add(1, Ordering::Relaxed);
        if let Some(opening) = self.opening(&mut client, peer).await {
            match self.config.when_bad {
                // Boxed, so that a connection of the other kind needs no room for it.
                WhenBad::Close | WhenBad::Pass => Box::pin(self.carry(client, opening.early)).await,
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
            opening = Box::pin(proxy::read(client)) => opening,
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

    async fn carry(&self, mut client: Stream, early: Vec<u8>) {
        let Some(mut node) = self.connect().await else { return };
        if !early.is_empty() && node.write_all(&early).await.is_err() {
            return;
        }
        self.view.received.add(early.len() as u64);
        let activity = Activity::new(self.board.clock);
        if !early.is_empty() {
            activity.asked(&early);
        }
        tokio::select! {
            () = plain::carry(&mut client, &mut node, &activity, &self.view) => {}
            () = self.cut(&activity), if self.config.when_bad == WhenBad::Close => {
                // What breaks off in the middle must not look like an end.
                if activity.idle() < IDLE {
                    let _ = (plain::abort(&client), plain::abort(&node));
                }
            }
            () = self.stopping(&activity) => {}
        }
    }

    /// Ends when the sidecar stops and the connection is idle. A busy one has until the end of
    /// `shutdown.timeout`.
    async fn stopping(&self, activity: &Activity) {
        self.stop.cancelled().await;
        loop {
            let idle = activity.idle();
            if idle >= IDLE {
                return;
            }
            sleep(IDLE.saturating_sub(idle)).await;
        }
    }

    /// Ends when a connection is to be cut: the service is down, and it is idle or its time is over.
    async fn cut(&self, activity: &Activity) {
        let clock = self.board.clock;
        let mut over = None;
        loop {
            let tag = self.tag();
            if self.state() != State::Down {
                over = None;
                self.changed(tag).await;
                continue;
            }
            let over = *over.get_or_insert_with(|| clock.now() + self.config.drain);
            let (idle, left) = (activity.idle(), over.since(clock.now()));
            if idle >= IDLE || left.is_zero() {
                return;
            }
            tokio::select! {
                () = sleep(IDLE.saturating_sub(idle).min(left)) => {}
                () = self.changed(tag) => {}
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
