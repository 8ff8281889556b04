//! `hcf status`: what a running sidecar says, read from its admin socket or its status listener.

use super::report::Report;
use super::sidecar::Place;
use super::{Failure, print, runtime};
use crate::cli;

pub(super) fn run(args: &cli::Status) -> Result<u8, Failure> {
    let timeout = args.look.timeout;
    let asking = Place::first(&args.look, async |place| place.fetch_status(timeout).await);
    let value = runtime()?.block_on(asking)?;
    let (report, value) = Report::read(value, args.service.as_deref())?;
    print(&if args.json { format!("{value:#}\n") } else { report.table() })?;
    Ok(report.exit())
}
