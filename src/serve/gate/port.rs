//! A port that can stop listening, and stays ours meanwhile.
//!
//! A connect is to be refused, not accepted and reset. So the listening socket is shut down, which
//! ends its listening but not its claim to the port, and later listens again. While it does not
//! listen it must not allow others to share the port; while it does, connections that it accepts
//! must, or they would keep it from listening again. Should it not listen again all the same, it is
//! given up and taken anew.

use std::io;
use std::net::Shutdown;
use std::sync::LazyLock;
use std::time::Duration;

use socket2::{SockAddr, SockFilter, Socket};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::sleep;
use tokio_util::either::Either;

use super::super::accept::{Peer, Stream, is_of_one_connection};
use super::super::bind::{self, BindError, Listener};
use crate::config::Address;

/// A bound port that may or may not listen.
#[derive(Debug)]
pub struct Port {
    name: String,
    /// Where it was asked to be; `None` for one that somebody else keeps listening.
    pub asked: Option<Address>,
    /// Where it is, port 0 resolved.
    pub address: Address,
    bound: Bound,
}

#[derive(Debug)]
enum Bound {
    /// The socket itself, unless it was lost; what accepts is a copy of it.
    Tcp(Option<Socket>),
    /// A Unix socket has no port to keep: its file goes and comes.
    Unix,
    /// Somebody else keeps it listening, and those who wait there are for the next process.
    Given,
}

impl Port {
    /// Takes the port, without listening yet.
    ///
    /// # Errors
    ///
    /// When it cannot be had.
    pub fn bind(asked: &Address, name: &str) -> Result<Self, BindError> {
        let bound = match asked {
            Address::Tcp { .. } => {
                let (socket, address) = bind::reserve(asked, name)?;
                let (name, asked) = (name.to_owned(), Some(asked.clone()));
                return Ok(Self { name, asked, address, bound: Bound::Tcp(Some(socket)) });
            }
            // Said now, as long as somebody waits for it, rather than at the first opening.
            Address::Unix(_) => {
                bind::bind(asked, name, bind::Access::mode(0o666)).map(|_| Bound::Unix)?
            }
        };
        Ok(Self {
            name: name.to_owned(),
            asked: Some(asked.clone()),
            address: asked.clone(),
            bound,
        })
    }

    /// A port that somebody else keeps listening.
    pub(super) fn given(address: Address) -> Self {
        Self { name: String::new(), asked: None, address, bound: Bound::Given }
    }

    /// Listens, again or for the first time.
    ///
    /// # Errors
    ///
    /// When somebody else has the port; asked again, it tries again.
    pub(super) fn open(&mut self) -> io::Result<Listener> {
        match &mut self.bound {
            Bound::Tcp(kept) => {
                if let Some(socket) = kept.take()
                    && let Ok(listener) = listen(&socket)
                {
                    *kept = Some(socket);
                    return Ok(listener);
                }
                let (socket, _) =
                    bind::reserve(&self.address, &self.name).map_err(io::Error::other)?;
                let listener = listen(&socket)?;
                *kept = Some(socket);
                Ok(listener)
            }
            Bound::Unix => {
                let (listener, _) =
                    bind::bind(&self.address, &self.name, bind::Access::mode(0o666))
                        .map_err(io::Error::other)?;
                Ok(listener)
            }
            Bound::Given => Err(io::Error::other("it was given away")),
        }
    }

    /// Stops listening, and returns the connections that were waiting to be accepted.
    pub(super) async fn close(&self, listener: Listener) -> io::Result<Vec<(Stream, Peer)>> {
        let mut waiting = Vec::new();
        match (&self.bound, listener) {
            (Bound::Tcp(Some(socket)), listener) => {
                drop(listener);
                // Who comes between the last accept and the end would be reset, so nobody comes: a connect that is not
                // answered is sent again by its kernel, and refused then. Those who are half in have a moment.
                let filtered = socket.attach_filter(&*NO_CONNECTS).is_ok();
                if filtered {
                    sleep(HALF_IN).await;
                }
                let accepted = accept_all(socket);
                // Not before: who was let in with this would keep the port from listening again.
                socket.set_reuse_address(false)?;
                socket.shutdown(Shutdown::Read)?;
                if filtered {
                    socket.detach_filter()?;
                }
                for (stream, peer) in accepted {
                    stream.set_nonblocking(true)?;
                    let peer = peer.as_socket().map(|peer| peer.ip());
                    waiting.push((Either::Left(TcpStream::from_std(stream.into())?), peer));
                }
            }
            (Bound::Unix, Listener::Unix(listener, file)) => {
                // First the name, so that nobody comes after the last one.
                drop(file);
                for (stream, _) in accept_all(&listener) {
                    stream.set_nonblocking(true)?;
                    waiting.push((Either::Right(UnixStream::from_std(stream.into())?), None));
                }
            }
            // What listens was opened by this port, so there are no others.
            (Bound::Tcp(None) | Bound::Unix | Bound::Given, _) => {}
        }
        Ok(waiting)
    }
}

/// How long a connect that has begun may take to be through.
const HALF_IN: Duration = Duration::from_millis(5);

/// Drops segments that open a connection: those whose flags have SYN without ACK.
static NO_CONNECTS: LazyLock<[SockFilter; 5]> = LazyLock::new(|| {
    const FLAGS_AT: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    [
        // Load the byte of the flags; keep the two; if SYN alone is left drop all of it, else take all of it.
        SockFilter::new(0x30, 0, 0, FLAGS_AT),
        SockFilter::new(0x54, 0, 0, SYN | ACK),
        SockFilter::new(0x15, 0, 1, SYN),
        SockFilter::new(0x06, 0, 0, 0),
        SockFilter::new(0x06, 0, 0, u32::MAX),
    ]
});

/// Accepts everybody who waits.
fn accept_all(socket: &Socket) -> Vec<(Socket, SockAddr)> {
    let mut accepted = Vec::new();
    loop {
        match socket.accept() {
            Ok(connection) => accepted.push(connection),
            Err(e) if is_of_one_connection(&e) => {}
            Err(_) => return accepted,
        }
    }
}

fn listen(socket: &Socket) -> io::Result<Listener> {
    socket.set_reuse_address(true)?;
    socket.listen(bind::BACKLOG)?;
    // A copy, since this one is kept when what listens is gone.
    Ok(Listener::Tcp(socket.try_clone()?))
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read as _, Write as _};
    use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn port() -> (Port, SocketAddr) {
        let port = Port::bind(&Address::parse("127.0.0.1:0").unwrap(), "gate/x").unwrap();
        let address = port.address.to_string().parse().unwrap();
        (port, address)
    }

    async fn accept(listener: &Listener) -> StdStream {
        let Listener::Tcp(socket) = listener else { panic!("TCP") };
        loop {
            match socket.accept() {
                Ok((stream, _)) => return stream.into(),
                Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock),
            }
            tokio::task::yield_now().await;
        }
    }

    fn refused(address: SocketAddr) -> bool {
        StdStream::connect(address).is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused)
    }

    #[tokio::test]
    async fn a_port_opens_and_closes_and_stays_ours() {
        let (mut port, address) = port();
        assert!(refused(address), "bound, but not listening yet");
        let mut kept = Vec::new();
        for round in 0..3 {
            assert!(StdListener::bind(address).is_err(), "round {round}: nobody else can have it");
            let listener = port.open().unwrap();
            // A connection that lives on, and one that waits to be accepted.
            let client = StdStream::connect(address).unwrap();
            kept.push((client, accept(&listener).await));
            let _waits = StdStream::connect(address).unwrap();
            assert_eq!(port.close(listener).await.unwrap().len(), 1, "round {round}");
            assert!(refused(address), "round {round}");
        }
    }

    /// Ends the clients, also where a check fails.
    struct Ends<'a>(&'a AtomicBool);
    impl Drop for Ends<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nobody_who_was_let_in_is_reset_when_it_closes() {
        let (mut port, address) = port();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let ends = Ends(&stop);
            let clients: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        let mut reset = 0;
                        while !stop.load(Ordering::Relaxed) {
                            let Ok(mut stream) = StdStream::connect(address) else { continue };
                            // Everybody who is served hears one byte.
                            reset += u32::from(stream.read(&mut [0]).ok() != Some(1));
                        }
                        reset
                    })
                })
                .collect();
            let serve = |mut stream: StdStream| stream.write_all(b"x").unwrap();
            for _ in 0..20 {
                let listener = port.open().unwrap();
                // Those who lost the race against the last closing come a second later.
                let handle = tokio::runtime::Handle::current();
                for _ in 0..50 {
                    serve(tokio::task::block_in_place(|| handle.block_on(accept(&listener))));
                }
                tokio::task::block_in_place(|| handle.block_on(port.close(listener)))
                    .unwrap()
                    .into_iter()
                    .for_each(|(stream, _)| {
                        let Either::Left(tcp) = stream else { panic!("TCP") };
                        serve(tcp.into_std().unwrap());
                    });
            }
            drop(ends);
            let reset: u32 = clients.into_iter().map(|client| client.join().unwrap()).sum();
            assert_eq!(reset, 0);
        });
    }

    #[tokio::test]
    async fn a_port_that_was_lost_is_taken_anew_once_it_is_free() {
        let (mut port, address) = port();
        port.bound = Bound::Tcp(None);
        let other = StdListener::bind(address).unwrap();
        for _ in 0..2 {
            let error = port.open().unwrap_err().to_string();
            assert!(error.ends_with("address already in use"), "{error}");
        }
        drop(other);
        let _listener = port.open().unwrap();
        StdStream::connect(address).unwrap();
    }

    #[tokio::test]
    async fn a_unix_socket_comes_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gate");
        let mut port = Port::bind(&Address::Unix(path.clone()), "gate/x").unwrap();
        for _ in 0..2 {
            assert!(!path.exists());
            let listener = port.open().unwrap();
            let _waits = std::os::unix::net::UnixStream::connect(&path).unwrap();
            assert_eq!(port.close(listener).await.unwrap().len(), 1);
        }
        assert!(!path.exists());
    }
}
