//! The threads of a sidecar beside the main one, which looks and judges: each runs what must not wait for the others.

use std::sync::OnceLock;

use anyhow::{Context as _, Result};
use tokio::runtime::{Builder, Handle};

/// A thread with a runtime of its own, which starts when something is to run there and ends with the process. A
/// connection that a runtime serves stays there.
#[derive(Debug)]
pub(super) struct Thread {
    name: &'static str,
    runtime: OnceLock<Handle>,
}

impl Thread {
    /// A thread that has not started.
    pub(super) const fn new(name: &'static str) -> Self {
        Self { name, runtime: OnceLock::new() }
    }

    /// Its runtime; starts it where it does not run yet.
    ///
    /// # Errors
    ///
    /// When the machine is short of what a thread takes.
    pub(super) fn start(&self) -> Result<Handle> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime.clone());
        }
        let name = self.name;
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .with_context(|| format!("cannot start the runtime of the {name}"))?;
        let handle = runtime.handle().clone();
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || runtime.block_on(std::future::pending::<()>()))
            .with_context(|| format!("cannot start the thread of the {name}"))?;
        Ok(self.runtime.get_or_init(|| handle).clone())
    }
}
