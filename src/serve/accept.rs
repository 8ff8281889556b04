//! How connections come in: the accept loop of every listener but the agent's, which has `greet`, and the seats of both.
//!
//! An error of `accept` never ends a listener. Connections are bounded: at the cap the kept
//! connection that has been idle longest makes room, and while there is none the next one waits.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rustix::net::SocketFlags;
use socket2::Socket;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::unix::UCred;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::bind::Listener;
use crate::clock::Clock;
use crate::config::Networks;
use crate::counts::Door;
use crate::log::Seldom;

/// A connection, over TCP or a Unix socket.
pub type Stream = Either<TcpStream, UnixStream>;

/// What a conversation goes over: such a connection, or TLS inside one.
pub trait Wire: AsyncRead + AsyncWrite + Unpin + Send {
    /// Who asks, as the kernel knows; `None` but over a Unix socket.
    fn user(&self) -> Option<UCred> {
        None
    }
}

impl Wire for Stream {
    fn user(&self) -> Option<UCred> {
        match self {
            Self::Left(_) => None,
            Self::Right(unix) => unix.peer_cred().ok(),
        }
    }
}

/// Who connected; `None` over a Unix socket.
pub type Peer = Option<IpAddr>;

/// What accept loops share.
#[derive(Clone, Debug)]
pub struct Hall {
    /// The listener's name, for the log.
    pub name: Arc<str>,
    /// Tells how long connections are idle.
    pub clock: Clock,
    /// Ends the loop, and tells connections to end.
    pub stop: CancellationToken,
    /// Where connections run.
    pub tasks: TaskTracker,
    /// Counts connections.
    pub door: Arc<Door>,
    /// Who may come in.
    pub allow: Arc<Allow>,
}

impl Hall {
    /// Whether this one may come in; who may not is counted.
    #[must_use]
    pub fn admits(&self, peer: Peer) -> bool {
        let Some(ip) = peer else { return true };
        if self.allow.networks.load().as_ref().is_none_or(|networks| networks.hold(ip)) {
            return true;
        }
        self.door.refused.add(1);
        if let Some(more) = self.allow.refused.pass(self.clock.now()) {
            let listener = &*self.name;
            warn!(listener, peer = %ip.to_canonical(), more, "Refused whom `allow` does not name.");
        }
        false
    }
}

/// Who may come in, as the configuration has it just now. Over a Unix socket everybody may whom its file lets.
#[derive(Debug, Default)]
pub struct Allow {
    /// `None` for everybody.
    networks: ArcSwapOption<Networks>,
    refused: Seldom,
}

impl Allow {
    /// These networks; `None` for everybody.
    #[must_use]
    pub fn of(networks: Option<&Networks>) -> Self {
        let allow = Self::default();
        allow.set(networks);
        allow
    }

    /// The same from now on; who is in stays.
    pub fn set(&self, networks: Option<&Networks>) {
        self.networks.store(networks.cloned().map(Arc::new));
    }
}

/// What a stopped accept loop leaves.
#[derive(Debug)]
pub struct Left {
    /// The listener, which may have connections waiting.
    pub listener: Listener,
    /// A connection that was accepted, and waited for a seat.
    pub waiting: Option<(Stream, Peer)>,
}

/// Accepts connections until stopped, and has `handle` serve each in a seat of its own.
pub async fn serve<H, F>(listener: Listener, hall: Hall, seats: Seats, handle: H) -> Left
where
    H: Fn(Stream, Peer, Seat) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let entrance = Entrance { socket: listener.socket(), hall: &hall, seats: &seats };
    let waiting = entrance.accept_all(&handle).await;
    Left { listener, waiting }
}

/// Where connections come in.
pub(super) struct Entrance<'a> {
    pub(super) socket: &'a Socket,
    pub(super) hall: &'a Hall,
    pub(super) seats: &'a Seats,
}

/// So many are accepted before others have their turn.
const BATCH: usize = 64;

impl Entrance<'_> {
    /// Accepts until stopped; returns a connection that waited for a seat.
    async fn accept_all<H, F>(&self, handle: &H) -> Option<(Stream, Peer)>
    where
        H: Fn(Stream, Peer, Seat) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        let hall = self.hall;
        let trouble = Seldom::default();
        let mut stopped = std::pin::pin!(hall.stop.cancelled());
        let mut known = None;
        loop {
            let Some(socket) = &known else {
                #[allow(
                    deprecated,
                    reason = "what takes its place is unsafe, for descriptors that others may close"
                )]
                match AsyncFd::with_interest(self.socket.as_fd(), Interest::READABLE) {
                    Ok(socket) => known = Some(socket),
                    Err(e) => self.short_of(&e, &trouble).await,
                }
                continue;
            };
            let ready = tokio::select! {
                biased;
                () = &mut stopped => return None,
                ready = socket.readable() => ready,
            };
            let mut ready = match ready {
                Ok(ready) => ready,
                Err(e) => {
                    self.short_of(&e, &trouble).await;
                    continue;
                }
            };
            let mut more = true;
            for _ in 0..BATCH {
                let (stream, peer) = match accept(self.socket) {
                    Ok(connection) => connection,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        ready.clear_ready();
                        more = false;
                        break;
                    }
                    Err(e) if is_of_one_connection(&e) => continue,
                    Err(e) => {
                        self.short_of(&e, &trouble).await;
                        break;
                    }
                };
                if hall.admits(peer)
                    && let Some(waiting) = self.seat(stream, peer, handle).await
                {
                    return waiting;
                }
            }
            if more {
                // Others have their turn.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Gives a connection a seat, and a task. Where the end comes first, it is returned, as far as it lives.
    #[allow(clippy::option_option, reason = "the end, and what it leaves")]
    pub(super) async fn seat<H, F>(
        &self,
        stream: OwnedFd,
        peer: Peer,
        handle: H,
    ) -> Option<Option<(Stream, Peer)>>
    where
        H: FnOnce(Stream, Peer, Seat) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        // A connection that the runtime cannot take up is one more that has gone.
        let Ok(stream) = adopt(stream, peer) else { return None };
        let seat = tokio::select! {
            // Who was accepted before the end is served, where there is room.
            biased;
            seat = self.seats.take(self.hall) => seat,
            () = self.hall.stop.cancelled() => return Some(Some((stream, peer))),
        };
        self.hall.tasks.spawn(handle(stream, peer, seat));
        None
    }

    /// Out of descriptors or memory: closing an idle connection frees some, and the pause keeps a lasting shortage from
    /// burning a processor.
    pub(super) async fn short_of(&self, error: &(impl std::fmt::Display + Sync), trouble: &Seldom) {
        self.hall.door.errors.add(1);
        if let Some(more) = trouble.pass(self.hall.clock.now()) {
            warn!(listener = &*self.hall.name, more, "Cannot accept connections: {error}.");
        }
        self.seats.idlers.close_longest(&self.hall.door);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(super) fn accept(socket: &Socket) -> io::Result<(OwnedFd, Peer)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (stream, peer) = rustix::net::acceptfrom_with(socket, flags)?;
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
    Ok((stream, peer.map(|peer| peer.ip())))
}

/// Makes the runtime know a connection.
fn adopt(stream: OwnedFd, peer: Peer) -> io::Result<Stream> {
    if peer.is_none() {
        return Ok(Either::Right(UnixStream::from_std(stream.into())?));
    }
    let stream = TcpStream::from_std(stream.into())?;
    // Every answer is one write, so waiting to fill a segment could only delay it.
    let _ = stream.set_nodelay(true);
    Ok(Either::Left(stream))
}

/// The room for connections, shared by those who accept them.
#[derive(Clone, Debug)]
pub struct Seats {
    free: Arc<Semaphore>,
    /// What others take from, too.
    pool: Option<Arc<Semaphore>>,
    idlers: Arc<Idlers>,
}

impl Seats {
    /// Room for this many.
    #[must_use]
    pub fn new(cap: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(cap)), pool: None, idlers: Arc::default() }
    }

    /// The same, each of which also takes one from `pool`.
    #[must_use]
    pub fn of_pool(cap: usize, pool: Arc<Semaphore>) -> Self {
        Self { pool: Some(pool), ..Self::new(cap) }
    }

    /// Waits for a seat; where all are taken, the connection that is idle longest is asked to leave.
    pub async fn take(&self, hall: &Hall) -> Seat {
        let permit = if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
            Some(permit)
        } else {
            self.idlers.close_longest(&hall.door);
            // Nobody closes this semaphore, so there is always one in the end.
            Arc::clone(&self.free).acquire_owned().await.ok()
        };
        let pooled = match &self.pool {
            Some(pool) => Arc::clone(pool).acquire_owned().await.ok(),
            None => None,
        };
        self.idlers.seat(hall, [permit, pooled])
    }
}

/// Errors that belong to the connection that was to be accepted (accept(2)).
pub(super) fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted,
        NetworkDown, NetworkUnreachable,
    };
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
    )
}

/// The connections of one listener, and since when each is idle.
#[derive(Debug, Default)]
struct Idlers {
    next: AtomicU64,
    seats: Mutex<HashMap<u64, Arc<Sitting>>>,
}

#[derive(Debug)]
struct Sitting {
    /// Nanoseconds after the clock's epoch, and `KEPT`; `BUSY` while a question is answered.
    idle_since: AtomicU64,
    leave: CancellationToken,
}

/// How long a question may be on its way when its listener stops; more than a silent one takes on the agent port.
const LAST_WORDS: Duration = Duration::from_millis(50);

const BUSY: u64 = u64::MAX;
/// Marks a connection that waits with nothing read, so that it counts as idle for less long.
const KEPT: u64 = 1 << 62;

impl Idlers {
    fn seat(self: &Arc<Self>, hall: &Hall, permits: [Option<OwnedSemaphorePermit>; 2]) -> Seat {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let leave = hall.stop.child_token();
        let sitting = Arc::new(Sitting { idle_since: AtomicU64::new(BUSY), leave });
        self.lock().insert(id, Arc::clone(&sitting));
        let door = Arc::clone(&hall.door);
        door.accepted.add(1);
        door.open.fetch_add(1, Ordering::Relaxed);
        let (clock, stop, idlers) = (hall.clock, hall.stop.clone(), Arc::clone(self));
        Seat { id, clock, sitting, stop, idlers, door, _permits: permits }
    }

    /// Asks the connection that has been idle longest to leave.
    fn close_longest(&self, door: &Door) {
        let seats = self.lock();
        let idle = seats.values().filter_map(|sitting| {
            let since = sitting.idle_since.load(Ordering::Relaxed);
            (since != BUSY && !sitting.leave.is_cancelled()).then_some((since, sitting))
        });
        if let Some((_, sitting)) = idle.min_by_key(|(since, _)| *since) {
            sitting.leave.cancel();
            door.evicted.add(1);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Sitting>>> {
        // The map is whole after every statement, so a panic elsewhere did not harm it.
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place; given up when it is dropped.
#[derive(Debug)]
pub struct Seat {
    id: u64,
    clock: Clock,
    sitting: Arc<Sitting>,
    stop: CancellationToken,
    idlers: Arc<Idlers>,
    door: Arc<Door>,
    _permits: [Option<OwnedSemaphorePermit>; 2],
}

impl Seat {
    /// Says that the connection waits for a question, or for an answer that may come at any time.
    pub fn idle(&self) {
        self.sitting.idle_since.store(self.now() | KEPT, Ordering::Relaxed);
    }

    /// Says that a part of a question has come. It makes room sooner than one that waits: whoever
    /// asks in earnest has asked by now.
    pub fn reading(&self) {
        self.sitting.idle_since.store(self.now(), Ordering::Relaxed);
    }

    /// Nanoseconds after the clock's epoch; two bits are free for a century and more.
    fn now(&self) -> u64 {
        u64::try_from(self.clock.now().since_epoch().as_nanos()).unwrap_or(u64::MAX) & (KEPT - 1)
    }

    /// Says that a question is being read or answered.
    pub fn busy(&self) {
        self.sitting.idle_since.store(BUSY, Ordering::Relaxed);
    }

    /// Ends when the connection should end, at the next moment that suits it.
    pub async fn leave(&self) {
        self.sitting.leave.cancelled().await;
    }

    /// The same for a connection that may be about to ask. Where the listener stops, a question that is on its way is
    /// still heard, for a moment: whoever was let in would take its end for a failure.
    pub async fn leave_unheard(&self) {
        self.leave().await;
        if let Some(moment) = self.last_words() {
            tokio::time::sleep(moment).await;
        }
    }

    /// How long a question that is on its way is still heard; `None` where the listener goes on.
    #[must_use]
    pub fn last_words(&self) -> Option<Duration> {
        self.stop.is_cancelled().then_some(LAST_WORDS)
    }

    /// Counts that no TLS came about.
    pub fn not_secured(&self) {
        self.door.not_secured.add(1);
    }

    /// Whether the connection should end.
    #[must_use]
    pub fn must_leave(&self) -> bool {
        self.sitting.leave.is_cancelled()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.idlers.lock().remove(&self.id);
        self.door.open.fetch_sub(1, Ordering::Relaxed);
    }
}
