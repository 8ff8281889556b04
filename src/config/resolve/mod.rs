//! From a file's keys to a configuration: defaults, the node's directory, and the sense of it all.

mod admin;
mod canaries;
mod gates;
mod node;
mod services;
mod weighing;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::address::Addresses;
use super::file::{self, Damping, File, LogFormat, LogLevel, Say};
use super::positions::Positions;
use super::problem::Problems;
use super::units::{Span, Whole};
use super::{Address, Config, ConfigError, Listen, ListenerKeys, Log, Shutdown, Sources};
use crate::health;
use crate::tahoe::NodeDir;
use crate::tls::{HTTP_1, HTTP_2};
use services::WRITE;

const DAY: Duration = Duration::from_hours(24);

pub(super) fn resolve(
    name: &str,
    text: &str,
    positions: &Positions,
    file: File,
    sources: &Sources,
) -> Result<Config, ConfigError> {
    let mut overridden = Vec::new();
    let file = overlay(file, sources, &mut overridden);
    let mut resolver = Resolver {
        problems: Problems::new(positions, &overridden),
        warnings: Vec::new(),
        effective: file.clone(),
    };
    let config = resolver.config(&file, sources);
    let Resolver { problems, warnings, effective } = resolver;
    match config {
        Some(config) if problems.is_empty() => Ok(Config { warnings, effective, ..config }),
        _ => Err(problems.into_error(name, text)),
    }
}

/// Lays what the command line and the environment say over the file.
fn overlay(
    mut file: File,
    sources: &Sources,
    overridden: &mut Vec<(&'static str, &'static str)>,
) -> File {
    fn set<T: Clone>(
        slot: &mut Option<T>,
        value: Option<&T>,
        names: (&'static str, &'static str),
        overridden: &mut Vec<(&'static str, &'static str)>,
    ) {
        if let Some(value) = value {
            *slot = Some(value.clone());
            overridden.push(names);
        }
    }
    let node = &mut file.node;
    set(&mut node.dir, sources.node_dir.as_ref(), ("node.dir", "--node-dir"), overridden);
    set(&mut node.url, sources.node.as_ref(), ("node.url", "--node"), overridden);
    // Whoever names addresses opens them to nobody else than the file does.
    let mut set_at = |listener: &mut Option<ListenerKeys>, at: &Option<Addresses>, names| {
        if at.is_some() {
            set(&mut listener.get_or_insert_default().0.at, at.as_ref(), names, overridden);
        }
    };
    let listen = &mut file.listen;
    set_at(&mut listen.agent, &sources.agent, ("listen.agent", "--agent"));
    set_at(&mut listen.health, &sources.health, ("listen.health", "--health"));
    set_at(&mut listen.grpc, &sources.grpc, ("listen.grpc", "--grpc"));
    set_at(&mut listen.status, &sources.status, ("listen.status", "--status"));
    file
}

struct Resolver<'a> {
    problems: Problems<'a>,
    warnings: Vec<String>,
    effective: File,
}

impl Resolver<'_> {
    fn config(&mut self, file: &File, sources: &Sources) -> Option<Config> {
        let node = self.node(&file.node);
        let listen = self.listen(&file.listen);
        let log = Log {
            level: file.log.level.unwrap_or(LogLevel::Info),
            format: file.log.format.unwrap_or(LogFormat::Auto),
        };
        self.effective.log = file::Log { level: Some(log.level), format: Some(log.format) };
        let admin = self.admin(&file.admin, sources.socket.as_deref());
        let state_dir = self.state_dir(file.state_dir.as_deref(), sources.state_dir.as_deref());
        let shutdown = self.shutdown(&file.shutdown);
        let damping = self.damping("damping", &file.damping, DEFAULT_DAMPING);
        let ramp = self.span("ramp", file.ramp, Span::secs(0), Duration::ZERO..=DAY);
        self.effective.damping = show_damping(damping);
        self.effective.ramp = Some(Span(ramp));
        let (dir, freshness) = match &node {
            Some(node) => (node.dir.as_ref(), node.freshness()),
            None => (None, Duration::ZERO),
        };
        let new_caps = sources.new_caps.as_deref();
        let base = Base { dir, new_caps, damping, ramp, freshness };
        let services = self.services(&file.services, &base);
        let default_service: Arc<str> = file.default_service.as_deref().unwrap_or(WRITE).into();
        self.effective.default_service = Some(default_service.to_string());
        if services.is_empty() {
            self.problems.add("services", "every service is off; leave at least one");
        } else if !services.iter().any(|service| service.name == default_service) {
            let names: Vec<&str> = services.iter().map(|service| &*service.name).collect();
            self.problems.add(
                "default_service",
                format!(
                    "there is no service `{default_service}`; expected one of {}",
                    names.join(", ")
                ),
            );
        }
        let gates = self.gates(&file.gates, &services, &default_service);
        if let Some(node) = &node
            && node.target.trust.is_some()
        {
            self.gates_to_tls(&gates);
        }
        Some(Config {
            node: node?,
            services,
            default_service,
            listen,
            gates,
            admin,
            state_dir,
            log,
            shutdown,
            warnings: Vec::new(),
            effective: File::default(),
        })
    }

    fn listen(&mut self, file: &file::Listen) -> Listen {
        let mut resolve =
            |key: &str, listener: &Option<ListenerKeys>, port: Option<u16>, protocol| {
                let local = port.map(|port| Address::Tcp { host: "127.0.0.1".to_owned(), port });
                let keys = listener.clone().unwrap_or_default();
                let listener =
                    keys.resolve(key, local.into_iter().collect(), protocol, &mut self.problems);
                (Some(keys.shown(&listener)), listener)
            };
        let (agent_keys, agent) = resolve("listen.agent", &file.agent, Some(5290), None);
        let (health_keys, health) =
            resolve("listen.health", &file.health, Some(5291), Some(HTTP_1));
        let (grpc_keys, grpc) = resolve("listen.grpc", &file.grpc, None, Some(HTTP_2));
        let (status_keys, status) =
            resolve("listen.status", &file.status, Some(5293), Some(HTTP_1));
        self.effective.listen = file::Listen {
            agent: agent_keys,
            health: health_keys,
            grpc: grpc_keys,
            status: status_keys,
        };
        let mut seen: BTreeMap<String, &str> = BTreeMap::new();
        let listeners =
            [("agent", &agent), ("health", &health), ("grpc", &grpc), ("status", &status)];
        for (name, listener) in listeners {
            if let Some(file) = listener.tls.as_ref().and_then(|tls| tls.open_key.as_ref()) {
                let file = file.display();
                self.warnings.push(format!(
                    "listen.{name}.tls.key: anybody on this machine may read {file}; take that away: chmod o= {file}"
                ));
            }
            for address in &listener.at {
                let key = format!("listen.{name}");
                let any_port = matches!(address, Address::Tcp { port: 0, .. });
                if let Some(other) = seen.insert(address.to_string(), name)
                    && !any_port
                {
                    let message = format!("{address} is taken by listen.{other} already");
                    self.problems.add(&key, message);
                }
                if !address.is_local() && listener.takes_everybody() {
                    let who = if name == "status" {
                        "and it shows the grid's topology"
                    } else {
                        "see that only balancers can reach it"
                    };
                    self.warnings.push(format!(
                        "{key}: anybody who reaches {address} may ask there, {who}; `allow` names who may"
                    ));
                }
            }
        }
        Listen { agent, health, grpc, status }
    }

    fn shutdown(&mut self, file: &file::Shutdown) -> Shutdown {
        let hour = Duration::ZERO..=Duration::from_hours(1);
        let say = file.say.unwrap_or(Say::Drain);
        let announce = self.span("shutdown.announce", file.announce, Span::secs(3), hour.clone());
        let timeout = self.span("shutdown.timeout", file.timeout, Span::secs(10), hour);
        self.effective.shutdown = file::Shutdown {
            say: Some(say),
            announce: Some(Span(announce)),
            timeout: Some(Span(timeout)),
        };
        Shutdown { say, announce, timeout }
    }

    fn damping(&mut self, key: &str, file: &Damping, default: health::Damping) -> health::Damping {
        let mut count = |name: &str, value, default: NonZeroU32| {
            let n = self.whole(&format!("{key}.{name}"), value, default.get().into(), 1..=1000);
            u32::try_from(n).ok().and_then(NonZeroU32::new).unwrap_or(default)
        };
        let rise = count("rise", file.rise, default.rise);
        let fall = count("fall", file.fall, default.fall);
        let hold = Span(default.hold);
        let hold = self.span(&format!("{key}.hold"), file.hold, hold, Duration::ZERO..=DAY);
        health::Damping { rise, fall, hold }
    }

    /// A duration within bounds, or a problem and the default.
    fn span(
        &mut self,
        key: &str,
        value: Option<Span>,
        default: Span,
        bounds: std::ops::RangeInclusive<Duration>,
    ) -> Duration {
        let span = value.unwrap_or(default);
        if !bounds.contains(&span.0) {
            let (least, most) = (Span(*bounds.start()), Span(*bounds.end()));
            self.problems.add(key, format!("{span} is out of range, expected {least} to {most}"));
            return *bounds.start();
        }
        span.0
    }

    /// A number within bounds, or a problem and the least one.
    fn whole(
        &mut self,
        key: &str,
        value: Option<Whole>,
        default: u64,
        bounds: std::ops::RangeInclusive<u64>,
    ) -> u64 {
        let n = value.map_or(default, |Whole(n)| n);
        if bounds.contains(&n) {
            return n;
        }
        let (least, most) = (bounds.start(), bounds.end());
        self.problems.add(key, format!("{n} is out of range, expected {least} to {most}"));
        *least
    }
}

pub(crate) const NOT_A_WORD: &str = "a name has letters, digits, `-`, `_` and `.`, at most 64";

/// Whether a name can stand in a question, a path and a metric's label.
pub(crate) fn is_word(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
}

/// What services share.
struct Base<'a> {
    dir: Option<&'a NodeDir>,
    /// A file of capabilities that is about to be made.
    new_caps: Option<&'a Path>,
    damping: health::Damping,
    ramp: Duration,
    freshness: Duration,
}

const DEFAULT_DAMPING: health::Damping = {
    const fn count(n: u32) -> NonZeroU32 {
        match NonZeroU32::new(n) {
            Some(count) => count,
            None => NonZeroU32::MIN,
        }
    }
    health::Damping { rise: count(2), fall: count(3), hold: Duration::ZERO }
};

fn show_damping(damping: health::Damping) -> Damping {
    Damping {
        rise: Some(Whole(damping.rise.get().into())),
        fall: Some(Whole(damping.fall.get().into())),
        hold: Some(Span(damping.hold)),
    }
}
