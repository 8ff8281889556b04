//! Noticing between two looks that the node's process has ended, or was stopped or continued.
//!
//! It is a reason to look at once, and never evidence: what is found is what the look finds. What cannot be told (another
//! user's process, another namespace) trips nothing.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;

use super::files::aside;
use super::identity::Identity;

/// The kernel tells nobody but the parent that a process was stopped, so that is looked for.
const EVERY: Duration = Duration::from_millis(100);

/// Watches one process.
#[derive(Debug, Default)]
pub(super) struct Tripwire {
    /// What the node wrote of the process that is watched.
    running: Option<String>,
    /// Readable once the process has ended; `None` where it cannot be watched, or has ended.
    process: Option<AsyncFd<OwnedFd>>,
    /// Whether it was stopped when the last look began.
    frozen: bool,
}

impl Tripwire {
    /// Watches the process of this `running.process`, as a look has just seen it.
    pub(super) fn set(&mut self, running: Option<&str>, seen: Seen) {
        self.frozen = seen.frozen;
        if self.running.as_deref() != running {
            self.running = running.map(str::to_owned);
            self.process = seen.process.and_then(watched);
        }
    }

    /// Ends when the process is not as it was.
    pub(super) async fn tripped(&mut self) {
        let (Some(process), Some(running)) = (&self.process, &self.running) else {
            return std::future::pending().await;
        };
        loop {
            tokio::select! {
                _ = process.readable() => break,
                () = sleep(EVERY) => {}
            }
            let running = running.clone();
            if aside(move || Identity::is_frozen(&running))
                .await
                .is_some_and(|now| now != self.frozen)
            {
                return;
            }
        }
        // Once: it stays so.
        self.process = None;
    }
}

/// What a look sees of a process.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// It is stopped.
    pub(super) frozen: bool,
    /// A hold on it, where it is another one than before.
    process: Option<OwnedFd>,
}

impl Seen {
    /// Looks at the process of this `running.process`; `last` is that of the last look. Reads files.
    pub(super) fn of(running: &str, last: Option<&str>) -> Self {
        let new = last != Some(running);
        let process = new.then(|| open(running)).flatten();
        Self { frozen: Identity::is_frozen(running), process }
    }
}

fn open(running: &str) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(Identity::pid(running)?).ok()?)?;
    let process = pidfd_open(pid, PidfdFlags::NONBLOCK).ok()?;
    // The number may have been given to another process before that; not after.
    Identity::runs(running).then_some(process)
}

fn watched(process: OwnedFd) -> Option<AsyncFd<OwnedFd>> {
    #[allow(
        deprecated,
        reason = "what takes its place is unsafe, for descriptors that others may close"
    )]
    AsyncFd::with_interest(process, Interest::READABLE).ok()
}
