//! `hcf schema`, `man` and `completions`: what the types and the command line say of themselves.

use clap::CommandFactory as _;

use super::{Failure, exit, print};
use crate::cli::Cli;
use crate::config::File;

pub(super) fn schema() -> Result<u8, Failure> {
    let schema = schemars::schema_for!(File);
    let text = serde_json::to_string_pretty(&schema).map_err(anyhow::Error::from)?;
    print(&format!("{text}\n"))?;
    Ok(exit::OK)
}

pub(super) fn man() -> Result<u8, Failure> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(anyhow::Error::from)?;
    print(&String::from_utf8_lossy(&page))?;
    Ok(exit::OK)
}

pub(super) fn completions(shell: clap_complete::Shell) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "hcf", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(exit::OK)
}
