//! `hcf canary create`: makes the files that canaries read and write.

use std::fs::{File, remove_file};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::time::timeout;

use super::{Failure, exit, load, print, runtime};
use crate::cli;
use crate::config::Sources;
use crate::lookout;
use crate::tahoe::create_canaries;

/// A slow grid makes the keys of a mutable file, and two uploads, within it.
const TIME: Duration = Duration::from_mins(2);

pub(super) fn create(args: &cli::CanaryCreate) -> Result<u8, Failure> {
    let out = &args.out;
    let full = std::path::absolute(out).with_context(|| format!("cannot use {}", out.display()))?;
    let config = load(&Sources { new_caps: Some(full.clone()), ..args.config.sources() })?;
    // First, so that no file is made whose capability is then lost.
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(out)
        .with_context(|| format!("cannot make {}; name a new file", out.display()))?;
    let way = lookout::way(&config);
    let made = runtime()?.block_on(async { timeout(TIME, create_canaries(&way)).await });
    let node = &config.node.target;
    let written = match made {
        Ok(Ok(text)) => {
            file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(Into::into)
        }
        Ok(Err(mishap)) => Err(anyhow!("{mishap}")),
        Err(_) => Err(anyhow!("no end within {}", humantime::format_duration(TIME))),
    };
    if let Err(e) = written {
        // What is left of it is of no use; that the real cause is said matters more.
        let _ = remove_file(out);
        return Err(e.context(format!("cannot make canaries through {node}")).into());
    }
    print(&format!(
        "{path} holds a file to read and one to write. Under `criteria`:\n  \
         canary_read: {{cap_file: {path}}}\n  canary_write: {{cap_file: {path}}}\n",
        path = full.display()
    ))?;
    Ok(exit::OK)
}
