//! Going over to another configuration while everything runs.
//!
//! It is read and checked as a whole, and every new port is bound, before anything changes; so a bad file changes
//! nothing, and a good one is in force as a whole.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use schemars::JsonSchema;
use serde::Serialize;
use serde_yaml::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::room::Room;
use super::{Sidecar, Unfit, gates, listeners};
use crate::config::{Address, Config, ConfigError};
use crate::log;
use crate::lookout;
use crate::serve::bind::{self, BindError};

/// Somebody asks to read the configuration again, and waits for what came of it.
pub type Request = oneshot::Sender<Outcome>;

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    /// The configuration is the one that runs already.
    Unchanged,
    /// Another one is in force.
    Changed {
        /// The keys whose values are others now.
        keys: Vec<String>,
        /// Those of them that count from the next start on.
        restart: Vec<String>,
        /// What is allowed, but worth a second thought.
        warnings: Vec<String>,
    },
    /// The new one makes no sense; the old one stays.
    Senseless {
        /// Why, with places.
        error: String,
    },
    /// The new one cannot be had on this machine now; the old one stays.
    Impossible {
        /// Why.
        error: String,
    },
}

impl Outcome {
    /// Whether the old configuration stays because of the new one.
    pub(crate) const fn is_failure(&self) -> bool {
        matches!(self, Self::Senseless { .. } | Self::Impossible { .. })
    }

    /// Why that is so.
    pub(crate) fn error(&self) -> Option<&str> {
        match self {
            Self::Senseless { error } | Self::Impossible { error } => Some(error),
            Self::Unchanged | Self::Changed { .. } => None,
        }
    }

    /// The word for it, as in `outcome` of the JSON.
    const fn as_str(&self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Changed { .. } => "changed",
            Self::Senseless { .. } => "senseless",
            Self::Impossible { .. } => "impossible",
        }
    }
}

/// Keys that count from the next start on.
const RESTART: [&str; 3] = ["admin", "state_dir", "log.format"];

/// How long reading may take: the file, what it names in the node's directory, and the hosts of listeners. A stop is
/// not heard meanwhile.
const TIME: Duration = Duration::from_secs(10);

impl Sidecar {
    /// Reads the configuration again, and goes over to it if it can be had.
    pub(super) async fn reload(&mut self) -> Outcome {
        let outcome = self.go_over().await;
        match &outcome {
            Outcome::Unchanged => info!("Reloaded: nothing has changed."),
            Outcome::Changed { keys, restart, warnings } => {
                let (keys, restart) = (keys.join(", "), restart.join(", "));
                info!(keys, restart, "Reloaded.");
                for warning in warnings {
                    warn!("{warning}.");
                }
            }
            Outcome::Senseless { error } | Outcome::Impossible { error } => {
                warn!("Not reloaded, the old configuration stays: {error}");
            }
        }
        self.shared.board.counts.reloaded(outcome.as_str());
        self.listeners.reloaded(outcome.clone(), self.shared.clock.now());
        outcome
    }

    async fn go_over(&mut self) -> Outcome {
        let sources = self.sources.clone();
        let reading = tokio::task::spawn_blocking(move || Config::load(&sources));
        let until = Instant::now() + TIME;
        let config: Result<Config, ConfigError> = match timeout_at(until, reading).await {
            Ok(Ok(config)) => config,
            Ok(Err(e)) => return Outcome::Impossible { error: format!("cannot read it: {e}") },
            Err(_) => {
                return Outcome::Impossible { error: "reading it takes too long".to_owned() };
            }
        };
        let config = match config {
            Ok(config) => Arc::new(config),
            Err(error) => return Outcome::Senseless { error: error.to_string() },
        };
        if *config == *self.config {
            return Outcome::Unchanged;
        }
        let (sockets, ports) = match self.bind_missing(&config, until).await {
            Ok(bound) => bound,
            Err(e) if e.is::<Unfit>() => return Outcome::Senseless { error: e.to_string() },
            Err(e) => return Outcome::Impossible { error: format!("{e:#}") },
        };
        let old = std::mem::replace(&mut self.config, Arc::clone(&config));
        log::set_level(config.log.level);
        let (done, in_force) = oneshot::channel();
        if self.configs.send((Arc::clone(&config), done)).await.is_ok() {
            // The judge's end is noticed elsewhere.
            let _ = in_force.await;
        }
        let room = Room::here(self.listeners.len() + sockets.len(), !config.gates.is_empty());
        let opened = async {
            self.gates.go_over(&config, &self.shared, &mut self.parts).await?;
            self.gates.open(ports, &config, &self.shared, &mut self.parts)?;
            self.listeners.open(sockets, room, &self.shared, &mut self.parts)
        };
        // A machine that has no thread left for them.
        if let Err(e) = opened.await {
            return Outcome::Impossible { error: format!("{e:#}") };
        }
        self.listeners.go_over(&config);
        let plan = lookout::plan(&config);
        self.plan.send_if_modified(|old| {
            let other = *old != plan;
            *old = plan;
            other
        });
        // At once, so that what the new criteria say is not a look away.
        self.look();
        let keys = changed(&old, &config);
        let counts_later = |key: &&String| {
            RESTART.iter().any(|late| {
                key.strip_prefix(late).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
        };
        let restart = keys.iter().filter(counts_later).cloned().collect();
        Outcome::Changed { keys, restart, warnings: config.warnings.clone() }
    }

    /// Binds what `config` wants beyond what runs. Hosts are resolved first, and aside: nobody may know one, and what
    /// is bound meanwhile would let clients in whom nobody serves.
    async fn bind_missing(
        &self,
        config: &Config,
        until: Instant,
    ) -> Result<(Vec<listeners::Socket>, Vec<gates::Bound>)> {
        let (sockets, ports) = (self.listeners.missing(config), self.gates.missing(config)?);
        let of_sockets =
            sockets.iter().map(|missing| (missing.asked.clone(), missing.kind.name().to_owned()));
        let of_ports =
            ports.iter().map(|(gate, asked)| (asked.clone(), format!("gate/{}", gate.name)));
        let asked: Vec<(Address, String)> = of_sockets.chain(of_ports).collect();
        let resolve = move || -> Result<Vec<Address>, BindError> {
            asked.iter().map(|(address, name)| bind::resolve(address, name)).collect()
        };
        let resolved = timeout_at(until, tokio::task::spawn_blocking(resolve)).await;
        let mut at =
            resolved.context("resolving the hosts of its listeners takes too long")???;
        let at_ports = at.split_off(sockets.len());
        let sockets = listeners::bind_missing(config, sockets.into_iter().zip(at))?;
        Ok((sockets, gates::bind_missing(ports.into_iter().zip(at_ports))?))
    }
}

/// The keys whose values differ; where only what a file holds has changed, the key that names it.
fn changed(old: &Config, new: &Config) -> Vec<String> {
    let value = |config: &Config| serde_yaml::to_value(&config.effective).unwrap_or_default();
    let mut keys = Vec::new();
    differences("", &value(old), &value(new), &mut keys);
    if keys.is_empty() {
        keys.push("(files that it names)".to_owned());
    }
    keys
}

fn differences(path: &str, old: &Value, new: &Value, keys: &mut Vec<String>) {
    if old == new {
        return;
    }
    let (Value::Mapping(one), Value::Mapping(two)) = (old, new) else {
        keys.push(path.to_owned());
        return;
    };
    let names: std::collections::BTreeSet<&str> =
        one.keys().chain(two.keys()).filter_map(Value::as_str).collect();
    for name in names {
        let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        let of = |map: &serde_yaml::Mapping| map.get(name).cloned().unwrap_or_default();
        differences(&path, &of(one), &of(two), keys);
    }
}

/// How often the file is looked at.
const EVERY: Duration = Duration::from_millis(500);

/// Asks for a reload whenever the file has changed: renamed over, written in place, or (as Kubernetes does) with a link
/// on the way to it turned elsewhere. A file that is still being written is left alone until it rests.
pub(super) async fn watch(file: PathBuf, reload: mpsc::Sender<Request>, stop: CancellationToken) {
    let mut known = mark(&file).await;
    let mut before = known;
    loop {
        tokio::select! {
            () = sleep(EVERY) => {}
            () = stop.cancelled() => return,
        }
        let now = mark(&file).await;
        // A file that is away for a moment, or for good, is no new configuration.
        if now.is_some() && now != known && now == before {
            known = now;
            let (answer, _outcome) = oneshot::channel();
            if reload.send(answer).await.is_err() {
                return;
            }
        }
        before = now;
    }
}

/// What tells one state of a file from another.
type Mark = (u64, u64, u64, i64, i64);

async fn mark(file: &Path) -> Option<Mark> {
    let file = tokio::fs::metadata(file).await.ok()?;
    let changed = file.ctime().saturating_mul(1_000_000_000).saturating_add(file.ctime_nsec());
    Some((file.dev(), file.ino(), file.size(), changed, file.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    #[test]
    fn changes_are_named_by_their_keys() {
        let parse = |text: &str| Config::parse("x", text, &Sources::default()).unwrap();
        let old = parse("node: {every: 1s}\nlisten: {agent: '127.0.0.1:1'}");
        let new = parse(
            "node: {every: 2s}\nlisten: {agent: '127.0.0.1:1'}\nlog: {level: debug}\n\
             services: {read: {criteria: {servers: {min: 4}}}}",
        );
        assert_eq!(
            changed(&old, &new),
            ["log.level", "node.every", "services.read.criteria.servers.min"]
        );
    }
}
