//! `hcf eds`

use super::{Failure, exit, until_stopped};
use crate::cli;
use crate::config::{Log, LogFormat, LogLevel};
use crate::fleet::{self, Fleet};
use crate::log;

pub(super) fn run(args: &cli::Eds) -> Result<u8, Failure> {
    let fleet = Fleet::load(&args.config)?;
    log::init(Log { level: LogLevel::Info, format: LogFormat::Auto });
    Ok(until_stopped(fleet::run(fleet))?.map(|()| exit::OK)?)
}
