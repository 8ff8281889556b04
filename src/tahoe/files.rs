//! Reading files aside: a file system that hangs must not take a thread that answers balancers.

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

/// One at a time: where one read hangs, the next would too, and they must not pile up.
static ONE: Semaphore = Semaphore::const_new(1);

/// Runs `read` on a thread of its own; the caller bounds the time. `None` when it could not run.
pub(super) async fn aside<T: Send + 'static>(
    read: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    // Nobody closes this semaphore.
    let permit = ONE.acquire().await.ok()?;
    let reading = spawn_blocking(move || {
        // Kept to the end of the read, also when nobody waits for it any more.
        let _permit = permit;
        read()
    });
    reading.await.ok()
}
