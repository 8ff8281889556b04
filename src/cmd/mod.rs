//! The commands, one file each: what they print goes to stdout, what went wrong to stderr.

mod canary;
mod check;
mod eds;
mod history;
mod lint;
mod order;
mod probe;
mod reload;
mod report;
mod run;
mod schema;
mod settle;
mod sidecar;
mod snippet;
mod status;
mod wait;
mod watch;

use std::io::Write as _;
use std::process::ExitCode;

use crate::cli::{self, Cli, Command};
use crate::config::{Config, ConfigError, Sources};
use crate::log;

/// The exit codes that every command shares.
pub mod exit {
    /// All is well, or the service is up.
    pub const OK: u8 = 0;
    /// Something failed, or the service is not up.
    pub const FAILED: u8 = 1;
    /// The command line makes no sense, or names an unknown service.
    pub const USAGE: u8 = 2;
    /// No sidecar answers.
    pub const NO_SIDECAR: u8 = 3;
    /// The configuration makes no sense (`EX_CONFIG` of sysexits.h).
    pub const CONFIG: u8 = 78;
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration makes no sense.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// A running sidecar says that its new configuration makes no sense.
    #[error("{0}")]
    Refused(String),
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// No sidecar answers.
    #[error("{0}")]
    NoSidecar(String),
    /// Whoever reads the output has stopped, as `| head` does.
    #[error("nobody reads the output")]
    NoReader,
    /// Anything else.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

impl Failure {
    const fn exit(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Refused(_) => exit::CONFIG,
            Self::Usage(_) => exit::USAGE,
            Self::NoSidecar(_) => exit::NO_SIDECAR,
            Self::NoReader => exit::OK,
            Self::Failed(_) => exit::FAILED,
        }
    }
}

/// Runs a command, and says how it went.
#[must_use]
pub fn run(cli: &Cli) -> ExitCode {
    let done = match &cli.command {
        Command::Run(args) => run::run(args),
        Command::Check(args) => check::run(args),
        Command::Probe(args) => probe::run(args),
        Command::Wait(args) => wait::run(args),
        Command::Status(args) => status::run(args),
        Command::History(args) => history::run(args),
        Command::Explain(args) => history::why(args),
        Command::Watch(args) => watch::run(args),
        Command::Drain(args) => order::run(args, order::What::State("drain")),
        Command::Maint(args) => order::run(args, order::What::State("maint")),
        Command::Down(args) => order::run(args, order::What::State("down")),
        Command::Up(args) => order::run(args, order::What::State("up")),
        Command::Weight(args) => order::run(&args.order, order::What::Weight(args.weight)),
        Command::Clear(args) => order::clear(args),
        Command::Reload(args) => reload::run(args),
        Command::Eds(args) => eds::run(args),
        Command::Snippet(args) => snippet::run(args),
        Command::Canary(cli::Canary::Create(args)) => canary::create(args),
        Command::Schema { api } => schema::schema(*api),
        Command::Man { dir } => schema::man(dir.as_deref()),
        Command::Completions { shell } => schema::completions(*shell),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            if !matches!(failure, Failure::NoReader) {
                complain(&failure);
            }
            ExitCode::from(failure.exit())
        }
    }
}

/// Writes a message to stderr; a configuration's errors begin with their place, for editors.
fn complain(failure: &Failure) {
    log::complain(&match failure {
        Failure::Config(error) => error.to_string(),
        Failure::Refused(error) => error.clone(),
        other => format!("hcf: {other}"),
    });
}

/// Writes what is no answer to stderr.
fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "hcf: {text}");
}

/// Writes an answer to stdout.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Err(Failure::NoReader),
        Err(e) => Err(anyhow::Error::from(e).context("cannot write to standard output").into()),
    }
}

/// Reads a configuration.
fn load(sources: &Sources) -> Result<Config, Failure> {
    Ok(Config::load(sources)?)
}

/// Runs what goes on until it is told to stop, with as many open files as the administrator allows.
fn until_stopped<T>(running: impl Future<Output = T>) -> Result<T, Failure> {
    // There is room for more connections than the usual soft limit; the hard one is the administrator's word.
    if let Err(e) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!("Cannot raise the limit of open files: {e}.");
    }
    let runtime = runtime()?;
    let done = runtime.block_on(running);
    // A thread that still waits for a name or a file must not delay the end.
    runtime.shutdown_background();
    Ok(done)
}

/// A runtime of one thread.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|e| anyhow::Error::from(e).context("cannot start the runtime").into())
}
