//! The `hcf` program.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    hcf::cmd::run(&hcf::cli::Cli::parse())
}
