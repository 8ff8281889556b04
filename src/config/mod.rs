//! The configuration: read from a file, completed with defaults and with what the node's own
//! directory says, and checked as a whole.
//!
//! What leaves this module makes sense; nothing after it asks again.

mod address;
mod file;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod listener;
mod networks;
mod positions;
mod problem;
mod resolve;
mod units;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Read as _;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;

pub use address::{Address, Addresses};
pub use file::{File, Forwarded, LogFormat, LogLevel, Say, WhenBad};
pub(crate) use listener::Listener as ListenerKeys;
pub use networks::{Network, Networks};
pub use problem::ConfigError;
pub(crate) use problem::Problems;
pub(crate) use resolve::{NOT_A_WORD, is_word};
pub(crate) use units::Whole;

use crate::health::Rules;
use crate::tahoe::{NodeDir, Target};
use crate::tls::Identity;
use positions::Positions;
use units::PathOrOff;

/// A configuration that makes sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The node that is watched.
    pub node: Node,
    /// The services, in the order of their names.
    pub services: Vec<Service>,
    /// The name of the service that answers a balancer which names none.
    pub default_service: Arc<str>,
    /// Where balancers and operators ask.
    pub listen: Listen,
    /// Ports that forward to the node.
    pub gates: Vec<Gate>,
    /// Where commands change things.
    pub admin: Admin,
    /// Where things survive a restart; `None` for in memory only.
    pub state_dir: Option<PathBuf>,
    /// What is logged, and how.
    pub log: Log,
    /// What is said on the way out.
    pub shutdown: Shutdown,
    /// What is allowed, but worth a second thought.
    pub warnings: Vec<String>,
    /// The same configuration as a file that says everything.
    pub effective: File,
}

/// The node that is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Where it listens.
    pub target: Target,
    /// Whether `target` came from elsewhere than the directory.
    pub overridden: bool,
    /// Its directory.
    pub dir: Option<NodeDir>,
    /// The time from one look to the next.
    pub every: Duration,
    /// How long a look may take.
    pub timeout: Duration,
}

impl Node {
    /// How long the last look counts: three that never finished, and the time for one.
    #[must_use]
    pub fn freshness(&self) -> Duration {
        self.every * 3 + self.timeout
    }
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: Arc<str>,
    /// What it is judged by.
    pub rules: Rules,
    /// The connections that HAProxy may open at full weight.
    pub maxconn: Option<NonZeroU32>,
}

/// Where balancers and operators ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// HAProxy's agent checks.
    pub agent: Listener,
    /// HTTP health checks.
    pub health: Listener,
    /// Health checks and weights over gRPC.
    pub grpc: Listener,
    /// Status for operators.
    pub status: Listener,
}

/// Where somebody may ask, and who.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where it listens.
    pub at: Vec<Address>,
    /// From where connections are taken; `None` for everywhere.
    pub allow: Option<Networks>,
    /// What is spoken there is TLS.
    pub tls: Option<ListenerTls>,
}

/// By what a listener proves itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    /// Its certificate, and whose it asks for.
    pub identity: Identity,
    /// Whether a client must have a certificate.
    pub asks_for_proof: bool,
    /// The file with its private key, where anybody on this machine may read it.
    pub open_key: Option<PathBuf>,
}

/// A port that forwards to the node while the node is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gate {
    /// Its name.
    pub name: Arc<str>,
    /// Where it listens.
    pub listen: Vec<Address>,
    /// From where connections are taken; `None` for everywhere.
    pub allow: Option<Networks>,
    /// The service that decides.
    pub service: Arc<str>,
    /// What happens while it is not up.
    pub when_bad: WhenBad,
    /// How long busy connections may go on when the service is down.
    pub drain: Duration,
    /// Connections at a time.
    pub max_connections: usize,
    /// What a refused request is told to wait.
    pub retry_after: Duration,
    /// Whether each connection begins with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// How the node is told who its client is.
    pub forwarded: Forwarded,
}

/// Where commands change things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// The Unix socket; `None` for off.
    pub socket: Option<PathBuf>,
    /// The id of the group that may connect; `None` for the process's own.
    pub group: Option<u32>,
}

/// What is logged, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// The least level.
    pub level: LogLevel,
    /// The form.
    pub format: LogFormat,
}

/// What is said on the way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// The word.
    pub say: Say,
    /// How long it is said.
    pub announce: Duration,
    /// How long open connections may then take.
    pub timeout: Duration,
}

/// Where a configuration comes from. The command line beats the environment, which beats the file.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file; none is read unless one is named.
    pub file: Option<PathBuf>,
    /// `--node-dir`
    pub node_dir: Option<PathBuf>,
    /// `--node`
    pub node: Option<String>,
    /// `--agent`
    pub agent: Option<Addresses>,
    /// `--health`
    pub health: Option<Addresses>,
    /// `--grpc`
    pub grpc: Option<Addresses>,
    /// `--status`
    pub status: Option<Addresses>,
    /// Where the admin socket is unless the file says so; `None` for nowhere.
    pub socket: Option<PathBuf>,
    /// A file of capabilities that is about to be made, so that it need not be there yet.
    pub new_caps: Option<PathBuf>,
    /// Where state is kept unless the file says so; `None` for nowhere.
    pub state_dir: Option<PathBuf>,
}

/// No configuration is larger; what is, is another file.
const FILE_LIMIT: u64 = 1 << 20;

impl Config {
    /// Reads, completes and checks a configuration.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it, each with its place.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        match &sources.file {
            Some(path) => {
                let (name, text) = read_text(path)?;
                Self::parse(&name, &text, sources)
            }
            None => resolve::resolve("", "", &Positions::default(), File::default(), sources),
        }
    }

    /// The same for a text that is called `name`.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it, each with its place.
    pub fn parse(name: &str, text: &str, sources: &Sources) -> Result<Self, ConfigError> {
        let (positions, file) = shape(name, text)?;
        resolve::resolve(name, text, &positions, file, sources)
    }

    /// Where the admin socket of a configuration is, without a look at anything else in it: a mistake elsewhere, or a
    /// node's directory that only the sidecar may read, must not keep an operator from a sidecar that runs.
    ///
    /// # Errors
    ///
    /// When not even that can be read.
    pub fn socket(sources: &Sources) -> Result<Option<PathBuf>, ConfigError> {
        let Some(file) = &sources.file else { return Ok(sources.socket.clone()) };
        let value = read(file).ok().and_then(|bytes| serde_yaml::from_slice(&bytes).ok());
        let Some(value) = value else {
            // It says what is wrong.
            return Self::load(sources).map(|config| config.admin.socket);
        };
        let value: serde_yaml::Value = value;
        match value.get("admin").and_then(|admin| admin.get("socket")) {
            None => Ok(sources.socket.clone()),
            Some(socket) => match serde_yaml::from_value::<PathOrOff>(socket.clone()) {
                Ok(PathOrOff(socket)) => Ok(socket),
                Err(_) => Self::load(sources).map(|config| config.admin.socket),
            },
        }
    }

    /// The effective configuration as YAML.
    #[must_use]
    pub fn show(&self) -> String {
        serde_yaml::to_string(&self.effective).unwrap_or_default()
    }

    /// A number that tells two configurations apart.
    #[must_use]
    pub fn hash(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.show().hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }

    /// The service of this name.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| &*service.name == name)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_LIMIT + 1).read_to_end(&mut bytes))
        .map_err(|e| format!("cannot read it: {e}"))?;
    Ok(bytes)
}

/// The name and the text of a configuration file.
pub(crate) fn read_text(path: &Path) -> Result<(String, String), ConfigError> {
    let name = path.display().to_string();
    let bytes = read(path).map_err(|why| {
        ConfigError::whole(&name, format!("{why}; -c names the configuration file"))
    })?;
    if bytes.len() as u64 > FILE_LIMIT {
        let message = "larger than 1 MiB; -c names a configuration file in YAML";
        return Err(ConfigError::whole(&name, message.to_owned()));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok((name, text)),
        Err(e) => {
            let valid = e.utf8_error().valid_up_to();
            Err(ConfigError::not_utf8(&name, e.as_bytes(), valid))
        }
    }
}

/// The keys and values of a text, and where each stands.
pub(crate) fn shape<T: DeserializeOwned>(
    name: &str,
    text: &str,
) -> Result<(Positions, T), ConfigError> {
    let positions = Positions::of(text).map_err(|why| ConfigError::unreadable(name, text, why))?;
    let file =
        serde_yaml::from_str(text).map_err(|e| ConfigError::shape(name, text, &positions, &e))?;
    Ok((positions, file))
}
