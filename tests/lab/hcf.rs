//! The program under test, as a user starts it.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::process::{Process, Program, Signal};
use super::wait::{LONG, wait_until};
use super::{net, place};

/// On ports that a second hcf on this machine would want, too, unless told otherwise.
const LISTENERS: [&str; 3] = ["--agent", "--health", "--status"];

/// The hcf to run: the one that cargo built for this test, else what `HCF_BIN` names.
pub fn hcf_binary() -> PathBuf {
    let built = option_env!("CARGO_BIN_EXE_hcf").map(PathBuf::from);
    let named = || std::env::var_os("HCF_BIN").map(PathBuf::from);
    built.or_else(named).expect("HCF_BIN names the hcf to run")
}

/// The variables of this environment that hcf would read: a test must not meet another sidecar's socket.
pub fn read_variables() -> Vec<String> {
    let read = [
        "XDG_RUNTIME_DIR",
        "RUNTIME_DIRECTORY",
        "STATE_DIRECTORY",
        "NOTIFY_SOCKET",
        "WATCHDOG_USEC",
        "WATCHDOG_PID",
        "LISTEN_FDS",
        "LISTEN_FDNAMES",
        "LISTEN_PID",
        "RUST_LOG",
    ];
    let own = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    let own = own.filter(|name| name.starts_with("HCF_"));
    read.into_iter().map(str::to_owned).chain(own).collect()
}

/// A start that takes more than arguments. Listeners are only where these or the configuration say so.
#[derive(Debug, Default)]
pub struct Launch<'a> {
    /// Behind `hcf run`.
    pub args: &'a [&'a str],
    /// Environment variables.
    pub variables: &'a [(&'a str, &'a str)],
    /// A socket that the service manager would have opened, and the name it would give it.
    pub inherited: Option<(OwnedFd, &'a str)>,
}

/// A running sidecar.
#[derive(Debug)]
pub struct Hcf {
    process: Process,
    addresses: BTreeMap<String, String>,
    folder: TempDir,
}

impl Hcf {
    /// `hcf run` with these arguments, every listener they do not name on a free port of 127.0.0.1; waits for
    /// `ready`.
    pub fn start(args: &[&str]) -> Self {
        let mut hcf = Self::spawn(args);
        hcf.wait_ready();
        hcf
    }

    /// `hcf run --node-dir DIR`.
    pub fn beside(node: &Path) -> Self {
        Self::start(&["--node-dir", &node.display().to_string()])
    }

    /// `hcf run -c FILE` with `config` as the file. Its `listen`, if it has one, says all listeners; else they are as
    /// [`Hcf::start`] has them.
    pub fn configured(config: &str, args: &[&str]) -> Self {
        Self::configured_under(&[], config, args)
    }

    /// [`Hcf::configured`] with this many open files at most.
    pub fn limited(files: usize, config: &str, args: &[&str]) -> Self {
        let limit = format!("--nofile={files}:{files}");
        Self::configured_under(&["prlimit", &limit], config, args)
    }

    /// [`Hcf::configured`] by a program that becomes it.
    pub fn configured_under(starter: &[&str], config: &str, args: &[&str]) -> Self {
        let folder = place::folder("hcf");
        let file = folder.path().join("hcf.yaml");
        std::fs::write(&file, config).expect("the configuration can be written");
        let name = file.display().to_string();
        let own = config.lines().any(|line| line.starts_with("listen:"));
        let args = [&["-c", name.as_str()], args].concat();
        let mut hcf = Self::spawn_in(folder, starter, &args, if own { &[] } else { &LISTENERS });
        hcf.wait_ready();
        hcf
    }

    /// Starts without waiting, for starts that are to fail or to be watched.
    pub fn spawn(args: &[&str]) -> Self {
        Self::spawn_in(place::folder("hcf"), &[], args, &LISTENERS)
    }

    /// Starts without waiting.
    pub fn launch(launch: Launch<'_>) -> Self {
        let binary = hcf_binary().display().to_string();
        let mut words = vec![binary.as_str(), "run"];
        // The protocol wants the socket as descriptor 3, and the process id of whoever uses it.
        let shell = "exec 3<&0 0</dev/null; LISTEN_PID=$$ exec \"$@\"";
        if launch.inherited.is_some() {
            words.splice(0..0, ["sh", "-c", shell, "sh"]);
        }
        words.extend(launch.args);
        let mut program = program(&words);
        for (name, value) in launch.variables {
            program = program.variable(name, value);
        }
        if let Some((socket, name)) = launch.inherited {
            program = program.variable("LISTEN_FDS", "1").variable("LISTEN_FDNAMES", name);
            program = program.stdin(socket);
        }
        Self::of(&program, place::folder("hcf"))
    }

    fn spawn_in(folder: TempDir, starter: &[&str], args: &[&str], listeners: &[&str]) -> Self {
        let binary = hcf_binary().display().to_string();
        let words = [starter, &[binary.as_str(), "run"], args].concat();
        let mut program = program(&words);
        for listener in listeners {
            if !args.iter().any(|arg| arg.split('=').next() == Some(*listener)) {
                program = program.args([*listener, "127.0.0.1:0"]);
            }
        }
        Self::of(&program, folder)
    }

    fn of(program: &Program, folder: TempDir) -> Self {
        let process = Process::start(program, folder.path());
        Self { process, addresses: BTreeMap::new(), folder }
    }

    /// Waits until it says that every listener is bound and the first look at the node is over.
    pub fn wait_ready(&mut self) {
        wait_until("hcf to be ready", LONG, || {
            self.process.must_run();
            self.process.stdout().lines().any(|line| line == "ready")
        });
        self.read_addresses();
    }

    /// Waits until this listener is bound, which comes before the first look at the node.
    pub fn wait_listening(&mut self, name: &str) {
        wait_until("hcf to listen", LONG, || {
            self.process.must_run();
            self.read_addresses();
            self.addresses.contains_key(name)
        });
    }

    fn read_addresses(&mut self) {
        for line in self.process.stdout().lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let ["listening", name, address] = words[..] {
                self.addresses.insert(name.to_owned(), address.to_owned());
            }
        }
    }

    /// Waits for `ready` after a start that was not waited for.
    #[must_use]
    pub fn ready(mut self) -> Self {
        self.wait_ready();
        self
    }

    /// The configuration file of [`Hcf::configured`].
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("hcf.yaml")
    }

    /// Where HAProxy asks.
    pub fn agent(&self) -> &str {
        self.address("agent")
    }

    /// Where Envoy asks.
    pub fn health(&self) -> &str {
        self.address("health")
    }

    /// Where people and monitoring ask.
    pub fn status(&self) -> &str {
        self.address("status")
    }

    /// Any listener by the name it was announced under.
    pub fn address(&self, name: &str) -> &str {
        self.addresses
            .get(name)
            .unwrap_or_else(|| panic!("no {name} in: {}", self.process.stdout()))
    }

    /// The process, to signal it, to wait for its end or to read its log.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Freezes, continues or ends it.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// What it has written.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

fn program(words: &[&str]) -> Program {
    let program = Program::new("hcf", Path::new(words[0])).args(words[1..].iter().copied());
    program.without(read_variables())
}

/// One agent question, such as `"write\n"`; the answer as it came, with its line end.
pub fn ask(agent: &str, question: &str) -> String {
    net::ask(agent, question.as_bytes(), Duration::from_secs(5))
        .unwrap_or_else(|error| panic!("asked {agent} {question:?}: {error}"))
}

/// The port's number of a printed address, for balancer configurations.
pub fn port(address: &str) -> u16 {
    address
        .rsplit(':')
        .next()
        .and_then(|port| port.parse().ok())
        .unwrap_or_else(|| panic!("no port in {address}"))
}
