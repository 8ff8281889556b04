//! Why a verdict is what it is: a stable code for machines, a sentence for people.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::Else;

/// The stable name of a reason: metric label, JSON value and heading in the documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    /// No look has finished yet, or too few good ones since the start.
    Starting,
    /// The last look finished too long ago.
    Stale,
    /// Nobody listens on the node's port.
    Refused,
    /// Something answers, but it is not the node it should be.
    WrongNode,
    /// What answers speaks JSON, but is no gateway.
    NotTahoe,
    /// No answer in time.
    Timeout,
    /// The connection broke.
    Reset,
    /// The status page came with a status other than 200.
    HttpStatus,
    /// The status page is not JSON.
    BadJson,
    /// The status page lacks something that is needed.
    BadShape,
    /// The status page is larger than the limit.
    TooLarge,
    /// Too few usable storage servers.
    ServersFew,
    /// A blessed storage server is not usable.
    BlessedMissing,
    /// Too few introducers are connected.
    IntroducersFew,
    /// The node has no introducer configured.
    NoIntroducers,
    /// The status page takes too long to answer.
    Slow,
    /// The node's temporary directory has too little room.
    SpoolFull,
    /// The room in the node's temporary directory cannot be told.
    SpoolUnknown,
    /// The servers that a grid manager certifies cannot be told.
    BlessedUnknown,
    /// A file could not be read.
    CanaryRead,
    /// Nobody has tried to read a file, or not lately.
    CanaryReadUnknown,
    /// A file could not be written.
    CanaryWrite,
    /// Nobody has tried to write a file, or not lately.
    CanaryWriteUnknown,
    /// An operator has ordered it.
    Override,
    /// What operators had ordered cannot be read any more.
    OverridesLost,
    /// The sidecar is on its way out.
    Shutdown,
}

impl Code {
    /// Every code.
    pub const ALL: [Self; 26] = [
        Self::Starting,
        Self::Stale,
        Self::Refused,
        Self::WrongNode,
        Self::NotTahoe,
        Self::Timeout,
        Self::Reset,
        Self::HttpStatus,
        Self::BadJson,
        Self::BadShape,
        Self::TooLarge,
        Self::ServersFew,
        Self::BlessedMissing,
        Self::IntroducersFew,
        Self::NoIntroducers,
        Self::Slow,
        Self::SpoolFull,
        Self::SpoolUnknown,
        Self::BlessedUnknown,
        Self::CanaryRead,
        Self::CanaryReadUnknown,
        Self::CanaryWrite,
        Self::CanaryWriteUnknown,
        Self::Override,
        Self::OverridesLost,
        Self::Shutdown,
    ];

    /// The code as every protocol and document spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Stale => "stale",
            Self::Refused => "refused",
            Self::WrongNode => "wrong-node",
            Self::NotTahoe => "not-tahoe",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::HttpStatus => "http-status",
            Self::BadJson => "bad-json",
            Self::BadShape => "bad-shape",
            Self::TooLarge => "too-large",
            Self::ServersFew => "servers-few",
            Self::BlessedMissing => "blessed-missing",
            Self::IntroducersFew => "introducers-few",
            Self::NoIntroducers => "no-introducers",
            Self::Slow => "slow",
            Self::SpoolFull => "spool-full",
            Self::SpoolUnknown => "spool-unknown",
            Self::BlessedUnknown => "blessed-unknown",
            Self::CanaryRead => "canary-read",
            Self::CanaryReadUnknown => "canary-read-unknown",
            Self::CanaryWrite => "canary-write",
            Self::CanaryWriteUnknown => "canary-write-unknown",
            Self::Override => "override",
            Self::OverridesLost => "overrides-lost",
            Self::Shutdown => "shutdown",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let known = Self::ALL.into_iter().find(|code| code.as_str() == name);
        known.ok_or_else(|| de::Error::custom(format!("no such code: {name}")))
    }
}

/// One reason for a verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// The stable code.
    pub code: Code,
    /// The criterion that failed; none when no criterion was asked.
    pub criterion: Option<&'static str>,
    /// What the failure does to the service.
    #[serde(rename = "else")]
    pub otherwise: Else,
    /// A sentence with the numbers.
    pub text: String,
}

impl Reason {
    /// The last look finished more than `freshness` ago.
    #[must_use]
    pub fn stale(freshness: Duration) -> Self {
        let limit = humantime::format_duration(freshness);
        let text = format!("no look at the node has finished for {limit}");
        Self { code: Code::Stale, criterion: None, otherwise: Else::Down, text }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.text)
    }
}
