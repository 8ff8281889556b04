//! The verdict: the answer for one service.

use std::borrow::Cow;
use std::num::NonZeroU32;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{Code, Finding, Moment, Part, Reason};

/// What a balancer should do with the node, for one service.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Send it work.
    Up,
    /// Send it no new work, and let what runs there finish.
    Drain,
    /// Send it nothing.
    Down,
    /// An operator works on it.
    Maint,
}

impl State {
    /// The word that every protocol and document uses.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Drain => "drain",
            Self::Down => "down",
            Self::Maint => "maint",
        }
    }
}

/// A share of full work, 1 to 100: no work at all is a state, never a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "u8", from = "u8")]
pub struct Weight(u8);

impl JsonSchema for Weight {
    fn schema_name() -> Cow<'static, str> {
        "Weight".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let meaning = "A share of full work, in percent; meant only where the state is up.";
        json_schema!({"type": "integer", "minimum": 1, "maximum": 100, "description": meaning})
    }
}

impl From<u8> for Weight {
    fn from(percent: u8) -> Self {
        Self::clamped(percent.into())
    }
}

impl From<Weight> for u8 {
    fn from(weight: Weight) -> Self {
        weight.0
    }
}

impl Weight {
    /// The least weight.
    pub const LEAST: Self = Self(1);
    /// Full weight.
    pub const FULL: Self = Self(100);

    /// The weight nearest to `percent`.
    #[must_use]
    pub const fn clamped(percent: u64) -> Self {
        match percent {
            0 => Self::LEAST,
            1..=99 => {
                #[expect(clippy::cast_possible_truncation, reason = "the pattern bounds it")]
                let percent = percent as u8;
                Self(percent)
            }
            _ => Self::FULL,
        }
    }

    /// The weight as a number from 1 to 100.
    #[must_use]
    pub const fn percent(self) -> u8 {
        self.0
    }

    /// This share of `full`, rounded up and never zero: HAProxy reads `maxconn:0` as no limit.
    #[must_use]
    pub fn share_of(self, full: NonZeroU32) -> NonZeroU32 {
        let share = (u64::from(full.get()) * u64::from(self.0)).div_ceil(100);
        u32::try_from(share).ok().and_then(NonZeroU32::new).unwrap_or(full)
    }
}

impl Verdict {
    /// Whether it says that nobody has looked for too long.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.reasons.first().is_some_and(|reason| reason.code == Code::Stale)
    }
}

/// The answer for one service.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// What a balancer should do.
    pub state: State,
    /// Up, but not as it should be; only ever true in [`State::Up`].
    pub degraded: bool,
    /// Up by an operator's order, whatever the criteria say; only ever true in [`State::Up`].
    pub forced: bool,
    /// The share of full work, meant only in [`State::Up`].
    pub weight: Weight,
    /// Why, worst first; also what is only warned of.
    pub reasons: Vec<Reason>,
    /// What each criterion found in the last good look.
    pub findings: Vec<Finding>,
    /// What the weight is made of, by the last good look.
    pub parts: Vec<Part>,
    /// When the state last changed.
    pub since: Moment,
    /// Counts the changes of state, weight and reason codes.
    pub seq: u64,
}
