//! The long tasks of a sidecar, each with the token that asks it to end.

use tokio::runtime::Handle;
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

    /// Starts one that waits as threads do: it has a thread of that runtime's to itself.
    pub(crate) fn spawn_thread_on(
        &mut self,
        runtime: &Handle,
        what: &str,
        end: CancellationToken,
        task: impl FnOnce() + Send + 'static,
    ) {
        let what = what.to_owned();
        let task = move || {
            task();
            Ended { what, asked: end.is_cancelled() }
        };
        self.0.spawn_blocking_on(task, runtime);
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
