//! A port that can stop listening, and stays ours meanwhile.
//!
//! A connect is to be refused, not accepted and reset. So the listening socket is shut down, which
//! ends its listening but not its claim to the port, and later listens again. While it does not
//! listen it must not allow others to share the port; while it does, connections that it accepts
//! must, or they would keep it from listening again. Should it not listen again all the same, it is
//! given up and taken anew.

use std::io;
use std::net::Shutdown;

use socket2::Socket;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_util::either::Either;

use super::super::accept::{Peer, Stream};
use super::super::bind::{self, BindError, Listener};
use crate::config::Address;

/// A bound port that may or may not listen.
#[derive(Debug)]
pub struct Port {
    name: String,
    /// Where it was asked to be.
    pub asked: Address,
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
                let (name, asked) = (name.to_owned(), asked.clone());
                return Ok(Self { name, asked, address, bound: Bound::Tcp(Some(socket)) });
            }
            // Said now, as long as somebody waits for it, rather than at the first opening.
            Address::Unix(_) => {
                bind::bind(asked, name, bind::Access::mode(0o666)).map(|_| Bound::Unix)?
            }
        };
        Ok(Self { name: name.to_owned(), asked: asked.clone(), address: asked.clone(), bound })
    }

    /// A port that somebody else keeps listening.
    pub(super) fn given(address: Address) -> Self {
        Self { name: String::new(), asked: address.clone(), address, bound: Bound::Given }
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
    pub(super) fn close(&self, listener: Listener) -> io::Result<Vec<(Stream, Peer)>> {
        let mut waiting = Vec::new();
        match (&self.bound, listener) {
            (Bound::Tcp(Some(socket)), listener) => {
                drop(listener);
                socket.set_reuse_address(false)?;
                // With nothing else between the last of them and the end: who comes there is reset.
                let accepted: Vec<_> = std::iter::from_fn(|| socket.accept().ok()).collect();
                socket.shutdown(Shutdown::Read)?;
                for (stream, peer) in accepted {
                    stream.set_nonblocking(true)?;
                    let peer = peer.as_socket().map(|peer| peer.ip());
                    waiting.push((Either::Left(TcpStream::from_std(stream.into())?), peer));
                }
            }
            (Bound::Unix, Listener::Unix(listener, file)) => {
                // First the name, so that nobody comes after the last one.
                drop(file);
                let listener = listener.into_std()?;
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    waiting.push((Either::Right(UnixStream::from_std(stream)?), None));
                }
            }
            // What listens was opened by this port, so there are no others.
            (Bound::Tcp(None) | Bound::Unix | Bound::Given, _) => {}
        }
        Ok(waiting)
    }
}

fn listen(socket: &Socket) -> io::Result<Listener> {
    socket.set_reuse_address(true)?;
    socket.listen(bind::BACKLOG)?;
    // A copy, since the runtime remembers of a socket that it was once shut down.
    Ok(Listener::Tcp(TcpListener::from_std(socket.try_clone()?.into())?))
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};

    use super::*;

    fn port() -> (Port, SocketAddr) {
        let port = Port::bind(&Address::parse("127.0.0.1:0").unwrap(), "gate/x").unwrap();
        let address = port.address.to_string().parse().unwrap();
        (port, address)
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
            let Listener::Tcp(tcp) = &listener else { panic!("TCP") };
            kept.push((client, tcp.accept().await.unwrap()));
            let _waits = StdStream::connect(address).unwrap();
            assert_eq!(port.close(listener).unwrap().len(), 1, "round {round}");
            assert!(refused(address), "round {round}");
        }
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
            assert_eq!(port.close(listener).unwrap().len(), 1);
        }
        assert!(!path.exists());
    }
}
