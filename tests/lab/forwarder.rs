//! A TCP forwarder that can be stopped: what a packet filter rule does to packets, done without root.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use super::cut::How;
use super::ports;
use super::wait::pause;

/// A port that leads to another one, both on 127.0.0.1, until dropped.
#[derive(Debug)]
pub struct Forwarder {
    line: Arc<Line>,
}

impl Forwarder {
    /// Leads from a free port to `target`.
    pub fn start(target: u16) -> Self {
        let port = ports::free_port();
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        // Else its own old connections would keep it from listening again.
        socket.set_reuse_address(true).expect("a socket's option");
        socket.bind(&local(port).into()).expect("the port is free");
        let state = Mutex::default();
        let line = Arc::new(Line { port, target, socket, state, changed: Condvar::new() });
        line.listen(&mut line.lock());
        Self { line }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.line.port
    }

    /// Where it leads.
    pub fn target(&self) -> u16 {
        self.line.target
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.line.change(|stops| *stops = vec![How::Reject]);
    }
}

/// A forwarder is stopped while this lives.
#[derive(Debug)]
pub struct Stopped {
    forwarder: Arc<Forwarder>,
    how: How,
}

impl Stopped {
    /// Stops it; of several stops the newest counts, as of packet filter rules.
    pub fn new(forwarder: Arc<Forwarder>, how: How) -> Self {
        forwarder.line.change(|stops| stops.push(how));
        Self { forwarder, how }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.forwarder.line.change(|stops| {
            if let Some(at) = stops.iter().rposition(|how| *how == self.how) {
                stops.remove(at);
            }
        });
    }
}

#[derive(Debug)]
struct Line {
    port: u16,
    target: u16,
    /// Holds the port, listening or not, so that nobody else takes it.
    socket: Socket,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Each stop in force, the newest last.
    stops: Vec<How>,
    /// The thread that accepts connections, while it listens.
    accepting: Option<JoinHandle<()>>,
    /// Connections that nobody accepts; see [`Line::swallow`].
    waiting: Vec<TcpStream>,
    /// The connections that are open, to reset them all.
    open: Vec<Weak<Pair>>,
}

/// Both sides of a connection; closed when the last thread that uses it ends.
#[derive(Debug)]
struct Pair {
    near: TcpStream,
    far: TcpStream,
    over: AtomicBool,
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes which stops are in force and does what follows from it.
    fn change(self: &Arc<Self>, change: impl FnOnce(&mut Vec<How>)) {
        let mut state = self.lock();
        let before = state.stops.last().copied();
        change(&mut state.stops);
        let now = state.stops.last().copied();
        if before == now {
            return;
        }
        // Where it listens: one that is shut down while it does not would reset whatever it accepts later.
        if before != Some(How::Reject) {
            self.socket.shutdown(Shutdown::Both).expect("it listens");
        }
        state.waiting.clear();
        if let Some(thread) = state.accepting.take() {
            thread.join().expect("accepting does not panic");
        }
        match now {
            None => self.listen(&mut state),
            Some(How::Reject) => {
                state.open.drain(..).filter_map(|p| p.upgrade()).for_each(|p| p.reset());
            }
            Some(How::Drop) => self.swallow(&mut state),
        }
        self.changed.notify_all();
    }

    fn listen(self: &Arc<Self>, state: &mut State) {
        self.socket.listen(128).expect("the port is ours");
        let line = Arc::clone(self);
        state.accepting = Some(thread::spawn(move || line.accept()));
    }

    /// The kernel drops what asks for a connection while the queue of those to be accepted is full: so fill the
    /// smallest queue there is until nothing is answered any more.
    fn swallow(&self, state: &mut State) {
        self.socket.listen(1).expect("the port is ours");
        let patience = Duration::from_millis(100);
        while let Ok(stream) = TcpStream::connect_timeout(&local(self.port), patience) {
            state.waiting.push(stream);
        }
    }

    /// Accepts until it no longer listens.
    fn accept(self: &Arc<Self>) {
        loop {
            match self.socket.accept() {
                Ok((near, _)) => {
                    let line = Arc::clone(self);
                    thread::spawn(move || line.carry(near.into()));
                }
                Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => return,
                // One that was gone before it was accepted, or for the moment no more files can be opened.
                Err(_) => pause(Duration::from_millis(10)),
            }
        }
    }

    /// Carries bytes both ways until the connection ends.
    fn carry(self: Arc<Self>, near: TcpStream) {
        let Ok(far) = TcpStream::connect(local(self.target)) else {
            // Nobody listens there; the nearest thing to a refusal that is still possible.
            reset_on_close(&near);
            return;
        };
        // Else small messages wait for acknowledgements of those before them.
        _ = near.set_nodelay(true);
        _ = far.set_nodelay(true);
        let pair = Arc::new(Pair { near, far, over: AtomicBool::new(false) });
        {
            let mut state = self.lock();
            if state.stops.last() == Some(&How::Reject) {
                pair.reset();
                return;
            }
            state.open.retain(|open| open.strong_count() > 0);
            state.open.push(Arc::downgrade(&pair));
        }
        let (line, other) = (Arc::clone(&self), Arc::clone(&pair));
        thread::spawn(move || line.copy(&other, &other.far, &other.near));
        self.copy(&pair, &pair.near, &pair.far);
    }

    /// Copies one way. What arrives while packets vanish comes later, as it does when TCP sends it again.
    fn copy(&self, pair: &Pair, mut from: &TcpStream, mut to: &TcpStream) {
        let mut bytes = vec![0; 16 * 1024];
        loop {
            let read = from.read(&mut bytes);
            self.wait_while_dropping();
            if pair.over.load(Ordering::SeqCst) {
                return;
            }
            match read {
                Ok(0) => {
                    _ = to.shutdown(Shutdown::Write);
                    return;
                }
                Ok(count) if to.write_all(&bytes[..count]).is_ok() => {}
                _ => return pair.reset(),
            }
        }
    }

    fn wait_while_dropping(&self) {
        let mut state = self.lock();
        while state.stops.last() == Some(&How::Drop) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Pair {
    /// Wakes the threads that read, without a word on the near side: what its peer is to see is a reset, which it
    /// gets when those threads have closed it.
    fn reset(&self) {
        self.over.store(true, Ordering::SeqCst);
        reset_on_close(&self.near);
        _ = self.near.shutdown(Shutdown::Read);
        _ = self.far.shutdown(Shutdown::Both);
    }
}

fn reset_on_close(stream: &TcpStream) {
    _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}
