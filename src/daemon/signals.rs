//! The signals that the sidecar listens for.

use anyhow::{Context as _, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Registered from the start, so that none is missed.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    /// They say nothing here, and would end a process that does not listen for them.
    _others: [Signal; 2],
}

impl Signals {
    pub(crate) fn register() -> Result<Self> {
        let register = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            terminate: register(SignalKind::terminate())?,
            interrupt: register(SignalKind::interrupt())?,
            hang_up: register(SignalKind::hangup())?,
            _others: [
                register(SignalKind::user_defined1())?,
                register(SignalKind::user_defined2())?,
            ],
        })
    }

    /// Ends when the sidecar is told to stop, or to read its configuration again.
    pub(crate) async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Stop,
            _ = self.interrupt.recv() => Told::Stop,
            _ = self.hang_up.recv() => Told::Reload,
        }
    }

    /// Ends when the sidecar is told to stop.
    pub(crate) async fn stop(&mut self) {
        while !matches!(self.next().await, Told::Stop) {}
    }
}

/// What a signal says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Stop,
    Reload,
}
