//! `hcf run`

use tracing::warn;

use super::{Failure, exit, load, until_stopped};
use crate::cli;
use crate::{daemon, log};

pub(super) fn run(args: &cli::Run) -> Result<u8, Failure> {
    let sources = args.sources();
    let config = load(&sources)?;
    log::init(config.log);
    for warning in &config.warnings {
        warn!("{warning}.");
    }
    let done = until_stopped(daemon::run(config, sources))?;
    match done {
        Err(e) if e.is::<daemon::Unfit>() => Err(Failure::Refused(format!("hcf: {e}"))),
        done => Ok(done.map(|()| exit::OK)?),
    }
}
