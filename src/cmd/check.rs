//! `hcf check`

use std::io::Write as _;

use super::{Failure, exit, load, print};
use crate::cli;

pub(super) fn run(args: &cli::Check) -> Result<u8, Failure> {
    let config = load(&args.config.sources())?;
    for warning in &config.warnings {
        let _ = writeln!(std::io::stderr().lock(), "warning: {warning}");
    }
    if args.show {
        print(&config.show())?;
    } else {
        let names: Vec<&str> = config.services.iter().map(|service| &*service.name).collect();
        print(&format!("ok: watches {}, serves {}\n", config.node.target, names.join(", ")))?;
    }
    Ok(exit::OK)
}
