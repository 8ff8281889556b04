//! The configuration file's own shape: every key optional, every unknown key an error.
//!
//! These types are the format: the JSON Schema is made from them, comments included, and
//! `hcf check --show` writes them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::address::Addresses;
use super::listener::Listener;
use super::networks::Networks;
use super::units::{OrOff, PathOrOff, Ratio, Size, Span, Switch, Whole};
use crate::health::Else;

/// The configuration of hcf.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    /// The node that is watched.
    pub node: Node,
    /// The services that balancers ask for. `read` and `write` are built in.
    pub services: BTreeMap<String, OrOff<Service>>,
    /// The service of a balancer that names none; `write` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_service: Option<String>,
    /// How quickly services change.
    pub damping: Damping,
    /// How long a weight takes to grow back after a recovery, from 10 percent; `0s` (at once)
    /// unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ramp: Option<Span>,
    /// Where balancers and operators ask.
    pub listen: Listen,
    /// Ports that forward to the node while it is good, each under a name of its own.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub gates: BTreeMap<String, Gate>,
    /// Where commands change things.
    pub admin: Admin,
    /// A directory in which overrides and the last verdicts survive a restart; `$STATE_DIRECTORY` unless
    /// set, and without either they are in memory only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_dir: Option<PathBuf>,
    /// What is logged, and how.
    pub log: Log,
    /// What is said on the way out.
    pub shutdown: Shutdown,
}

/// The node that is watched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Node {
    /// The node's directory: its `tahoe.cfg` says where it listens and how many servers it needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// The node's URL, when `dir` does not say it, or says it wrong; `http://127.0.0.1:3456` unless
    /// either is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// By what an https node is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// The time from one look to the next; `1s` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<Span>,
    /// How long a look may take; `2s` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
}

/// By what an https node is known; one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// A PEM file with the authorities that may have signed its certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// A PEM file with exactly its certificate; chain and name are ignored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin: Option<PathBuf>,
}

/// A service: what must hold for it, and how it answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Service {
    /// What must hold.
    pub criteria: Criteria,
    /// The most weight while degraded, in percent; 50 unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub degraded_weight: Option<Whole>,
    /// What the weight is made of; the worst part counts. All of it unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<OrOff<Weighing>>,
    /// The connections that HAProxy may open at full weight; nothing is said unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maxconn: Option<Whole>,
    /// How quickly this service changes, where it differs from the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub damping: Option<Damping>,
    /// How long this service's weight takes to grow back, where it differs from the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ramp: Option<Span>,
}

/// What must hold for a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Criteria {
    /// Enough storage servers are usable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub servers: Option<OrOff<Servers>>,
    /// Enough introducers are connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub introducers: Option<OrOff<Introducers>>,
    /// The storage servers that were chosen by name are usable (ticket #466).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blessed: Option<OrOff<Blessed>>,
    /// The status page answers quickly, on a moving average.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<OrOff<Latency>>,
    /// The node's temporary directory has room; a full one breaks uploads of 1 MiB and more while all else
    /// looks well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spool: Option<OrOff<Spool>>,
    /// A file was read through the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary_read: Option<OrOff<CanaryRead>>,
    /// A file was uploaded through the node, and a mutable one overwritten and read back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary_write: Option<OrOff<CanaryWrite>>,
}

/// What a service's weight is made of, each part a straight line from all of it at `full` to `min` at `zero`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Weighing {
    /// The usable storage servers, from as many as the criterion needs to all that the node knows; `off` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub servers: Option<Switch>,
    /// So many storage servers are all, whatever the node knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub servers_full: Option<Whole>,
    /// The moving average of the status page's answer time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencyScale>,
    /// The machine's run queue per core, and, where its kernel says, how much waits for processor, memory and disk
    /// (all of the weight up to 20 % of the time, the least from 80 % on).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<LoadScale>,
    /// The share of a core that the node itself has used over a minute: all up to 0.5, the least from 0.95 on; `off` unless
    /// set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Switch>,
    /// The least weight that all this gives, in percent; 10 unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<Whole>,
    /// A change of so many percent is published at once; 5 unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<Whole>,
    /// A smaller one after this time; `5s` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settle: Option<Span>,
}

/// From which answer time to which.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LatencyScale {
    /// All of the weight, up to here.
    pub full: Span,
    /// The least of it, from here on.
    pub zero: Span,
}

/// From which run queue per core to which.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoadScale {
    /// All of the weight, up to here.
    pub full: Ratio,
    /// The least of it, from here on.
    pub zero: Ratio,
}

/// Enough storage servers are usable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Servers {
    /// How many; unless set, the node's `shares.needed` for `read`, its `shares.happy` otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<Whole>,
    /// Free space without which a server does not count; `1B` for `write`, none otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_space: Option<Size>,
    /// Silence beyond which a server does not count; unless set, 10 s for storage over HTTP, and
    /// for foolscap twice the node's keepalive and 20 s (500 s).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_heard_max: Option<Span>,
    /// What happens when there are too few; `down` unless set.
    #[serde(rename = "else", skip_serializing_if = "Option::is_none")]
    pub otherwise: Option<Else>,
}

/// Enough introducers are connected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Introducers {
    /// How many; 1 unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<Whole>,
    /// Every one that the node is configured with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all: Option<bool>,
    /// What happens when there are too few; `warn` unless set, since a running grid keeps serving.
    #[serde(rename = "else", skip_serializing_if = "Option::is_none")]
    pub otherwise: Option<Else>,
}

/// The storage servers that were chosen by name are usable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Blessed {
    /// Their ids, as the status page has them: `v0-…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<String>>,
    /// A file with one id a line; `#` starts a comment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// In place of a list: those that hold a valid certificate of one of the grid managers in the node's
    /// `tahoe.cfg`. Needs `node.dir`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grid_manager: Option<bool>,
    /// How many of them are enough; unless set, all of a list, and with `grid_manager` the node's
    /// `shares.happy`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<Whole>,
    /// What happens when too few are usable; `down` unless set.
    #[serde(rename = "else", skip_serializing_if = "Option::is_none")]
    pub otherwise: Option<Else>,
}

/// The status page answers quickly.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Latency {
    /// The limit for the moving average of its answer time; must be set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<Span>,
    /// What happens beyond; `down` unless set.
    #[serde(rename = "else", skip_serializing_if = "Option::is_none")]
    pub otherwise: Option<Else>,
}

/// The node's temporary directory has room.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Spool {
    /// The free space that is enough; `1GiB` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_free: Option<Size>,
    /// What happens below; `down` unless set.
    #[serde(rename = "else", skip_serializing_if = "Option::is_none")]
    pub otherwise: Option<Else>,
}

/// A file was read through the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CanaryRead {
    /// A file with its capability, which nobody but hcf's user may read (mode 0600); `hcf canary create`
    /// makes one. Must be set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cap_file: Option<PathBuf>,
    /// The SHA-256, in hexadecimal, of what must be read; unless set, of what this sidecar read first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// How often; `30s` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<Span>,
    /// What takes longer has failed; `10s` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// What happens when it fails; `down` unless set.
    #[serde(rename = "else", skip_serializing_if = "Option::is_none")]
    pub otherwise: Option<Else>,
}

/// A file was uploaded through the node, and a mutable one overwritten and read back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CanaryWrite {
    /// A file with the capability to write a mutable file that no other gateway writes, otherwise as for
    /// `canary_read`; the same file may serve both. Must be set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cap_file: Option<PathBuf>,
    /// How often; `1m` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<Span>,
    /// What takes longer has failed; `20s` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// What happens when it fails; `down` unless set.
    #[serde(rename = "else", skip_serializing_if = "Option::is_none")]
    pub otherwise: Option<Else>,
}

/// How quickly services change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Damping {
    /// Good looks in a row before a service gets better; 2 unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rise: Option<Whole>,
    /// Doubtful failures in a row before a service goes down; 3 unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fall: Option<Whole>,
    /// The least time between two flips back up; `0s` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<Span>,
}

/// Where balancers and operators ask.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// HAProxy's agent checks; `127.0.0.1:5290` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<Listener>,
    /// HTTP health checks; `127.0.0.1:5291` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Listener>,
    /// Health checks and weights over gRPC; off unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<Listener>,
    /// Status for operators; `127.0.0.1:5293` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Listener>,
}

/// Where commands change things.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// A Unix socket, or `off`. Unless set, `admin.sock` in `$RUNTIME_DIRECTORY` or in
    /// `$XDG_RUNTIME_DIR/hcf`; without either it is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathOrOff>,
    /// The group, by name or number, that may connect, beside the user that hcf runs as; whoever can
    /// connect may change things. hcf's own group unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

/// A port that forwards to the node while the node is good.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Gate {
    /// Where it listens; must be set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<Addresses>,
    /// The networks and addresses from which connections are taken; everybody's unless set. Behind a balancer, the
    /// balancer's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow: Option<Networks>,
    /// The service that decides; `default_service` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// What happens while the service is not up; `close` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when_bad: Option<WhenBad>,
    /// How long busy connections may go on when the service is down; `10s` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain: Option<Span>,
    /// Connections at a time; 4096 unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<Whole>,
    /// What a refused request is told to wait; `5s` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Span>,
    /// Whether the balancer begins each connection with a PROXY protocol header, version 1 or 2; `off`
    /// unless set. With it on, whoever sends none is not served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<Switch>,
    /// The header in which the node is told who its client is; `off` unless set. Only where requests
    /// are read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forwarded: Option<Forwarded>,
}

/// How the node is told who its client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Forwarded {
    /// Not at all.
    Off,
    /// In `X-Forwarded-For`.
    XForwardedFor,
    /// In `Forwarded` (RFC 7239).
    Forwarded,
}

/// What a gate does while its service is not up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenBad {
    /// The port stops listening.
    Close,
    /// Requests to `/uri` and its aliases are answered with 503.
    RefuseUri,
    /// Writing ones are.
    RefuseWrites,
    /// It forwards all the same.
    Pass,
}

/// What is logged, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// The least level that is logged; `info` unless set. `RUST_LOG` beats it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<LogLevel>,
    /// `auto` unless set: text on a terminal, JSON otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<LogFormat>,
}

/// The least level that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// The form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum LogFormat {
    Auto,
    Text,
    Json,
}

/// What is said on the way out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Shutdown {
    /// `drain` unless set; `keep` leaves the last verdict standing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub say: Option<Say>,
    /// How long it is said before the ports close; `3s` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub announce: Option<Span>,
    /// How long open connections may then take to end; `10s` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
}

/// What balancers hear on the way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Say {
    Drain,
    Down,
    Keep,
}
