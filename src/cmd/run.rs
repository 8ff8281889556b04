//! `hcf run`

use tracing::warn;

use super::{Failure, exit, load};
use crate::cli;
use crate::{daemon, log};

pub(super) fn run(args: &cli::Run) -> Result<u8, Failure> {
    let sources = args.sources();
    let config = load(&sources)?;
    log::init(config.log);
    for warning in &config.warnings {
        warn!("{warning}.");
    }
    // Listeners have room for more connections than the usual soft limit; the hard one is the
    // administrator's word.
    if let Err(e) = rlimit::increase_nofile_limit(u64::MAX) {
        warn!("Cannot raise the limit of open files: {e}.");
    }
    // Answers are prepared and looks are rare, so two threads are enough: one may be reading a
    // large page while the other answers.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| anyhow::Error::from(e).context("cannot start the runtime"))?;
    let done = runtime.block_on(daemon::run(config, sources));
    // A thread that still waits for a name or a file must not delay the end.
    runtime.shutdown_background();
    match done {
        Err(e) if e.is::<daemon::Unfit>() => Err(Failure::Refused(format!("hcf: {e}"))),
        done => Ok(done.map(|()| exit::OK)?),
    }
}
