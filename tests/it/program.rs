//! The program, run to its end.

use std::process::{Command, Stdio};

use crate::lab::hcf::{hcf_binary, read_variables};

/// How a run ended, and what it said.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) exit: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs hcf with these arguments, and nothing of this environment that it reads.
pub(crate) fn hcf(args: &[&str]) -> Run {
    let mut command = Command::new(hcf_binary());
    for name in read_variables() {
        command.env_remove(name);
    }
    let run = command.args(args).stdin(Stdio::null()).output().expect("hcf can be started");
    Run {
        exit: run.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&run.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&run.stderr).into_owned(),
    }
}
