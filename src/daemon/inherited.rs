//! Sockets that the service manager opened for this process (socket activation, `sd_listen_fds(3)`).
//!
//! They stay open while one process follows another, so that no balancer's question is refused meanwhile.

use std::io;
use std::os::fd::AsFd;

use anyhow::{Context as _, Result};
use listenfd::ListenFd;
use socket2::SockRef;
use tracing::warn;

use crate::config::Address;
use crate::serve::bind::Listener;

/// The sockets that nobody has claimed yet, each with the name that the service manager gave it.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    sockets: Vec<(String, Listener, Address)>,
}

impl Inherited {
    /// Takes over every socket.
    ///
    /// # Errors
    ///
    /// When one of them is no listening socket.
    pub(super) fn take() -> Result<Self> {
        let mut fds = ListenFd::from_env();
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut sockets = Vec::new();
        for at in 0..fds.len() {
            let name = names.next().unwrap_or_default().to_owned();
            let (listener, address) = open(&mut fds, at)
                .with_context(|| format!("cannot use the inherited socket `{name}`"))?;
            sockets.push((name, listener, address));
        }
        Ok(Self { sockets })
    }

    /// The sockets for the listener of this name: those that are called so, and those at its addresses.
    pub(super) fn claim(
        &mut self,
        listener: &str,
        addresses: &[Address],
    ) -> Vec<(Listener, Address)> {
        let (claimed, others) = std::mem::take(&mut self.sockets)
            .into_iter()
            .partition(|(name, _, address)| name == listener || addresses.contains(address));
        self.sockets = others;
        let claimed: Vec<_> = claimed;
        claimed.into_iter().map(|(_, listener, address)| (listener, address)).collect()
    }

    /// Says which sockets nobody wants; they are closed.
    pub(super) fn finish(self) {
        for (name, _, address) in self.sockets {
            warn!(name, %address, "No listener has this name or address, so an inherited socket is closed.");
        }
    }
}

fn open(fds: &mut ListenFd, at: usize) -> io::Result<(Listener, Address)> {
    let wrong = || io::Error::other("it is neither a TCP nor a Unix socket that listens");
    if let Ok(tcp) = fds.take_tcp_listener(at) {
        let tcp = tcp.filter(listens).ok_or_else(wrong)?;
        // The runtime needs it so, and a service manager may not have made it so.
        tcp.set_nonblocking(true)?;
        let address = Address::from(tcp.local_addr()?);
        return Ok((Listener::Tcp(tcp.into()), address));
    }
    let unix = fds.take_unix_listener(at).ok().flatten();
    let unix = unix.filter(listens).ok_or_else(wrong)?;
    unix.set_nonblocking(true)?;
    let local = unix.local_addr()?;
    let path = local.as_pathname().ok_or_else(|| io::Error::other("it has no path"))?;
    let address = Address::Unix(path.to_owned());
    Ok((Listener::Unix(unix.into(), None), address))
}

fn listens(socket: &impl AsFd) -> bool {
    SockRef::from(socket).is_listener().unwrap_or(false)
}
