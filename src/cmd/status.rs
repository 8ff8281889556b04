//! `hcf status`: what a running sidecar says, read from its admin socket or its status listener.

use super::report::Report;
use super::sidecar::Place;
use super::{Failure, load, print, runtime};
use crate::cli;

pub(super) fn run(args: &cli::Status) -> Result<u8, Failure> {
    let value = runtime()?.block_on(async {
        if let Some(url) = &args.url {
            return Place::of_url(url).fetch_status(args.timeout).await;
        }
        // Who may not use the admin socket, or has none, may still look.
        let admin = match Place::admin(&args.sidecar) {
            Ok(admin) => admin.fetch_status(args.timeout).await,
            Err(failure) => Err(failure),
        };
        match admin {
            Err(Failure::NoSidecar(_)) if args.sidecar.socket.is_none() => {
                let config = load(&args.sidecar.config.sources())?;
                Place::status(&config)?.fetch_status(args.timeout).await
            }
            said => said,
        }
    })?;
    let (report, value) = Report::read(value, args.service.as_deref())?;
    print(&if args.json { format!("{value:#}\n") } else { report.table() })?;
    Ok(report.exit())
}
