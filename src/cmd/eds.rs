//! `hcf eds`

use tracing::warn;

use super::{Failure, exit};
use crate::cli;
use crate::config::{Log, LogFormat, LogLevel};
use crate::fleet::{self, Fleet};
use crate::log;

pub(super) fn run(args: &cli::Eds) -> Result<u8, Failure> {
    let fleet = Fleet::load(&args.config)?;
    log::init(Log { level: LogLevel::Info, format: LogFormat::Auto });
    // A connection to each sidecar.
    if let Err(e) = rlimit::increase_nofile_limit(u64::MAX) {
        warn!("Cannot raise the limit of open files: {e}.");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| anyhow::Error::from(e).context("cannot start the runtime"))?;
    let done = runtime.block_on(fleet::run(fleet));
    // A thread that still waits for a name or a file must not delay the end.
    runtime.shutdown_background();
    Ok(done.map(|()| exit::OK)?)
}
