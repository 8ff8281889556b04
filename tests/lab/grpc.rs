//! grpcurl, a gRPC client that knows nothing of hcf but what reflection tells it.

use serde_json::Value;
use tempfile::TempDir;

use super::place;
use super::process::{Process, Program};
use super::wait::LONG;

/// A call under way.
#[derive(Debug)]
pub struct Call {
    process: Process,
    _folder: TempDir,
}

impl Call {
    /// Calls a method, such as `grpc.health.v1.Health/Watch`, with this message. `flags` are grpcurl's own.
    pub fn start(address: &str, flags: &[&str], method: &str, message: &str) -> Self {
        Self::run(&[&["-plaintext", "-d", message], flags, &[address, method]].concat())
    }

    fn run(arguments: &[&str]) -> Self {
        let folder = place::folder("grpc");
        let program =
            Program::new("grpcurl", &place::part("grpcurl")).args(arguments.iter().copied());
        Self { process: Process::start(&program, folder.path()), _folder: folder }
    }

    /// The messages that have come so far.
    pub fn messages(&self) -> Vec<Value> {
        let text = self.process.stdout();
        // The last one may be half written.
        serde_json::Deserializer::from_str(&text).into_iter().map_while(Result::ok).collect()
    }

    /// The messages, and an error's code, once it has ended.
    pub fn end(&mut self) -> (Vec<Value>, Option<String>) {
        self.process.wait_end(LONG);
        let log = self.process.log();
        let code = log.lines().find_map(|line| line.trim().strip_prefix("Code: "));
        (self.messages(), code.map(str::to_owned))
    }

    /// What it has printed.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

/// A call that ends by itself: the one message, or the error's code.
pub fn call(address: &str, method: &str, message: &str) -> Result<Value, String> {
    let (mut messages, code) = Call::start(address, &[], method, message).end();
    match (messages.len(), code) {
        (1, None) => Ok(messages.remove(0)),
        (_, code) => Err(code.unwrap_or_else(|| format!("{messages:?}"))),
    }
}

/// What `grpcurl list` or `describe` prints.
pub fn reflect(address: &str, words: &[&str]) -> String {
    let mut call = Call::run(&[&["-plaintext", address], words].concat());
    call.process.wait_end(LONG);
    call.process.log()
}
