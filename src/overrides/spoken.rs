//! How an operator's word is spelled: on the wire, in files, and in sentences.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::health::{Weight, Word};

/// A word as JSON has it: `{"state": "drain"}` or `{"weight": 30}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Spoken {
    State(State),
    Weight(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Order")]
pub(crate) enum State {
    Maint,
    Down,
    Drain,
    Up,
}

impl From<Word> for Spoken {
    fn from(word: Word) -> Self {
        match word {
            Word::Maint => Self::State(State::Maint),
            Word::Down => Self::State(State::Down),
            Word::Drain => Self::State(State::Drain),
            Word::Up => Self::State(State::Up),
            Word::Weight(weight) => Self::Weight(weight.percent()),
        }
    }
}

impl From<Spoken> for Word {
    fn from(spoken: Spoken) -> Self {
        match spoken {
            Spoken::State(State::Maint) => Self::Maint,
            Spoken::State(State::Down) => Self::Down,
            Spoken::State(State::Drain) => Self::Drain,
            Spoken::State(State::Up) => Self::Up,
            Spoken::Weight(percent) => Self::Weight(Weight::clamped(percent.into())),
        }
    }
}

impl fmt::Display for Spoken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State(State::Maint) => f.write_str("maint"),
            Self::State(State::Down) => f.write_str("down"),
            Self::State(State::Drain) => f.write_str("drain"),
            Self::State(State::Up) => f.write_str("up"),
            Self::Weight(percent) => write!(f, "weight {percent}"),
        }
    }
}

/// Reads the name of a state that can be ordered.
pub(super) fn state(name: &str) -> Result<Word, String> {
    match name {
        "maint" => Ok(Word::Maint),
        "down" => Ok(Word::Down),
        "drain" => Ok(Word::Drain),
        "up" => Ok(Word::Up),
        _ => Err(format!("`{name}` cannot be ordered; expected drain, maint, down or up")),
    }
}

/// Reads a weight that can be ordered.
pub(super) fn weight(percent: u64) -> Result<Word, String> {
    if (1..=100).contains(&percent) {
        Ok(Word::Weight(Weight::clamped(percent)))
    } else {
        Err(format!("a weight of {percent} is out of range; expected 1 to 100, and drain for none"))
    }
}
