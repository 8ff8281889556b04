//! The long tasks of a sidecar, each with the token that asks it to end.

use anyhow::{Context as _, Result};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// Every long task.
#[derive(Debug, Default)]
pub(crate) struct Parts(JoinSet<Ended>);

/// How a task ended.
#[derive(Debug)]
struct Ended {
    what: String,
    asked: bool,
}

impl Parts {
    /// Starts a task, whose end is asked for by `end`.
    pub(crate) fn spawn(
        &mut self,
        what: &str,
        end: CancellationToken,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.spawn_on(&Handle::current(), what, end, task);
    }

    /// The same on another runtime.
    pub(crate) fn spawn_on(
        &mut self,
        runtime: &Handle,
        what: &str,
        end: CancellationToken,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let what = what.to_owned();
        let task = async move {
            task.await;
            Ended { what, asked: end.is_cancelled() }
        };
        self.0.spawn_on(task, runtime);
    }

    /// Starts one that waits as threads do, on a thread of its own.
    ///
    /// # Errors
    ///
    /// When the machine is short of what a thread takes.
    pub(crate) fn spawn_thread(
        &mut self,
        name: &str,
        what: &str,
        end: CancellationToken,
        task: impl FnOnce() + Send + 'static,
    ) -> Result<()> {
        let (ended, has_ended) = oneshot::channel::<()>();
        let run = move || {
            task();
            drop(ended);
        };
        let started = std::thread::Builder::new().name(name.to_owned()).spawn(run);
        started.with_context(|| format!("cannot start the thread of {what}"))?;
        self.spawn(what, end, async {
            let _ = has_ended.await;
        });
        Ok(())
    }

    /// Ends when a task has ended that nobody asked to, and says which.
    pub(crate) async fn ended(&mut self) -> String {
        loop {
            match self.0.join_next().await {
                Some(ended) if is_expected(&ended) => {}
                Some(Ok(ended)) => return format!("{} has ended by itself", ended.what),
                Some(Err(e)) => return format!("a part of the sidecar has failed: {e}"),
                // Every part was asked to end, which is for others to notice.
                None => std::future::pending().await,
            }
        }
    }

    /// Ends when every task has.
    pub(crate) async fn all_ended(&mut self) {
        while self.0.join_next().await.is_some() {}
    }
}

fn is_expected(ended: &Result<Ended, JoinError>) -> bool {
    ended.as_ref().is_ok_and(|ended| ended.asked)
}
