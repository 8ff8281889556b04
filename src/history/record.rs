//! What is kept, and what `/v1/history` says of it: plain data, the same on disk, on the wire and in the commands.
//!
//! Codes and states are words here, not enums, so that a history can be read that an older or a newer hcf wrote.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::health::{Else, Finding, Reason, Verdict};
use crate::overrides::wall;
use crate::serve::time;

/// Something, and when it happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Dated<T> {
    /// Counts what was ever kept: the order of what happened, however the wall clock was set meanwhile.
    pub seq: u64,
    /// By the wall clock; of minutes, when they began.
    #[serde(with = "wall")]
    #[schemars(schema_with = "time")]
    pub at: SystemTime,
    /// What it was.
    #[serde(flatten)]
    pub what: T,
}

/// One line of the history.
pub type Record = Dated<Event>;

/// Whatever is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// The sidecar began.
    Started {
        /// Its version.
        version: String,
    },
    /// It was told to stop, and did.
    Stopped {},
    /// A service's verdict became another one.
    Transition(Transition),
    /// A minute, or more of them that were alike.
    Minutes(Minutes),
}

/// A verdict became another one in state or reasons; a change of weight alone is none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Transition {
    /// The service.
    pub service: String,
    /// What it was before; none for the first verdict since the sidecar's start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Standing>,
    /// What it is since.
    pub to: Standing,
    /// Why, worst first.
    pub reasons: Vec<Why>,
    /// What each criterion had found in the last good look.
    pub findings: Vec<Found>,
    /// What happened just before.
    #[serde(default, skip_serializing_if = "Before::is_empty")]
    pub before: Before,
}

/// What a balancer was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Standing {
    /// `up`, `drain`, `down` or `maint`.
    pub state: String,
    /// Up, but not as it should be.
    pub degraded: bool,
    /// Up by an operator's order.
    pub forced: bool,
    /// The share of full work, 1 to 100.
    pub weight: u8,
}

/// A reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Why {
    /// Its stable code.
    pub code: String,
    /// The criterion that failed, if one did.
    pub criterion: Option<String>,
    /// What that does to the service.
    #[serde(rename = "else")]
    pub otherwise: Else,
    /// A sentence with the numbers.
    pub text: String,
}

/// What a criterion had found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Found {
    /// Its name.
    pub criterion: String,
    /// Whether it was met.
    pub pass: bool,
    /// The code that it gives when it is not.
    pub code: String,
    /// What that does to the service.
    #[serde(rename = "else")]
    pub otherwise: Else,
    /// Servers, introducers or seconds; none for what is no number.
    pub observed: Option<f64>,
    /// What it was held against.
    pub threshold: Option<f64>,
    /// A sentence with the numbers.
    pub text: String,
}

/// What happened in the ten minutes before a transition.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Before {
    /// Storage servers that were lost or came, the last ones first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moves: Vec<Move>,
    /// How many more there were.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more: u64,
    /// Looks at the node that failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<Failures>,
}

impl Before {
    fn is_empty(&self) -> bool {
        self.moves.is_empty() && self.failures.is_empty()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A storage server was lost, or came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Move {
    /// When a look saw it.
    #[serde(with = "wall")]
    #[schemars(schema_with = "time")]
    pub at: SystemTime,
    /// The server's id.
    pub id: String,
    /// The name that it gives itself.
    pub nickname: String,
    /// Why the node cannot use it any more; none when it can again, or came.
    pub lost: Option<String>,
}

/// Looks that failed in one way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failures {
    /// The code of the failure.
    pub code: String,
    /// What was said of the last one.
    pub text: String,
    /// How many.
    pub count: u64,
    /// When the last one was.
    #[serde(with = "wall")]
    #[schemars(schema_with = "time")]
    pub last: SystemTime,
}

/// A minute, or more of them that were alike.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Minutes {
    /// How long they lasted, in milliseconds, by a clock that nobody sets.
    pub lasted_ms: u64,
    /// Each service.
    pub services: BTreeMap<String, Spent>,
    /// Looks at the node.
    pub looks: Looks,
}

impl Minutes {
    /// How long they lasted.
    #[must_use]
    pub const fn lasted(&self) -> Duration {
        Duration::from_millis(self.lasted_ms)
    }
}

/// How a service spent the time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Spent {
    /// Milliseconds in each state that there was, by its word: `up`, `degraded`, `drain`, `down`, `maint`.
    pub states_ms: BTreeMap<String, u64>,
    /// The weight.
    pub weight: Range,
}

/// The least and the last of several values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Range {
    /// The least.
    pub least: u64,
    /// The last.
    pub last: u64,
}

/// Looks at the node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Looks {
    /// Those that went well.
    pub good: u64,
    /// Those that failed, by code.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failed: BTreeMap<String, u64>,
    /// How long the good ones took, in milliseconds, on average.
    pub mean_ms: f64,
    /// How long the longest good one took.
    pub max_ms: f64,
    /// Storage servers that the node could use; none when no look went well.
    pub usable: Option<Range>,
}

/// A time of which nothing is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Gap {
    /// From when.
    #[serde(with = "wall")]
    #[schemars(schema_with = "time")]
    pub from: SystemTime,
    /// Until when.
    #[serde(with = "wall")]
    #[schemars(schema_with = "time")]
    pub until: SystemTime,
    /// Why nothing is.
    pub why: String,
}

/// The answer of `/v1/history`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct History {
    /// What was asked for.
    #[serde(with = "wall")]
    #[schemars(schema_with = "time")]
    pub since: SystemTime,
    /// When it was answered.
    #[serde(with = "wall")]
    #[schemars(schema_with = "time")]
    pub until: SystemTime,
    /// From when on everything is known that is not in a gap.
    #[serde(with = "wall")]
    #[schemars(schema_with = "time")]
    pub complete_from: SystemTime,
    /// The directory in which it is kept, or `memory`.
    pub kept: String,
    /// Records that could not be kept or read since the start.
    pub missing: u64,
    /// What holds now.
    pub now: BTreeMap<String, Standing>,
    /// Changes, the oldest first.
    pub transitions: Vec<Dated<Transition>>,
    /// Aggregates, the oldest first.
    pub minutes: Vec<Dated<Minutes>>,
    /// When the sidecar did not run, or nothing was kept.
    pub gaps: Vec<Gap>,
    /// Where the answer goes on, when it would be too long.
    pub next: Option<String>,
}

impl History {
    /// Whether there is anything of this service, now or then.
    #[must_use]
    pub fn knows(&self, service: &str) -> bool {
        self.now.contains_key(service)
            || self.transitions.iter().any(|transition| transition.what.service == service)
            || self.minutes.iter().any(|minutes| minutes.what.services.contains_key(service))
    }
}

impl From<&Verdict> for Standing {
    fn from(verdict: &Verdict) -> Self {
        Self {
            state: verdict.state.as_str().to_owned(),
            degraded: verdict.degraded,
            forced: verdict.forced,
            weight: verdict.weight.percent(),
        }
    }
}

impl Standing {
    /// The word for people: a degraded service is up.
    #[must_use]
    pub fn word(&self) -> &str {
        if self.degraded { "degraded" } else { &self.state }
    }
}

impl From<&Reason> for Why {
    fn from(reason: &Reason) -> Self {
        Self {
            code: reason.code.to_string(),
            criterion: reason.criterion.map(str::to_owned),
            otherwise: reason.otherwise,
            text: reason.text.clone(),
        }
    }
}

impl From<&Finding> for Found {
    fn from(finding: &Finding) -> Self {
        // JSON has no word for infinity.
        let number = |value: f64| value.is_finite().then_some(value);
        Self {
            criterion: finding.criterion.to_owned(),
            pass: finding.pass,
            code: finding.code.to_string(),
            otherwise: finding.otherwise,
            observed: number(finding.observed),
            threshold: number(finding.threshold),
            text: finding.text.clone(),
        }
    }
}
