//! Canaries: small files that are read or written to prove what a status page only claims.
//!
//! Here is what is tried and what came of it, as data; who tries it is no business of the core.

use std::path::PathBuf;
use std::time::Duration;

use super::Code;

/// What is tried, and how often. Two services that say the same of one share it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Canary {
    /// What it proves.
    pub kind: Proof,
    /// The file that holds its capabilities.
    pub cap_file: PathBuf,
    /// The time from one try to the next.
    pub every: Duration,
    /// When a try that has not ended counts as hung.
    pub timeout: Duration,
}

/// What a canary proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Proof {
    /// A file can be read.
    Read {
        /// The SHA-256 of what must be read; unless set, of what was read first.
        sha256: Option<[u8; 32]>,
    },
    /// A file can be uploaded, and a mutable one overwritten and read back.
    Write,
}

/// What a canary last came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// How long ago it ended, or was found hung.
    pub age: Duration,
    /// How it ended.
    pub outcome: Result<(), Mishap>,
}

/// Why a canary failed. None of it holds text from the node, or a capability.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mishap {
    /// Too few shares of the file can be had.
    Shares,
    /// An upload reaches fewer servers than the node's `shares.happy`.
    Unhappy,
    /// Nothing can be written, since the node has no servers.
    NoServers,
    /// Other bytes came back than should have.
    WrongBytes,
    /// More came back than a canary may hold.
    TooLarge,
    /// No end within this time.
    Hung(Duration),
    /// The node says that it is no capability that it can use so.
    BadCap,
    /// The node answered with this status.
    Status(u16),
    /// The node cannot be asked, or is not the one that it should be.
    Unasked(String),
    /// The file of capabilities is of no use.
    CapFile(String),
}

impl Canary {
    /// How long the last result counts.
    #[must_use]
    pub fn freshness(&self) -> Duration {
        self.every.saturating_mul(3).saturating_add(self.timeout)
    }

    /// The name of its criterion, as in the configuration.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self.kind {
            Proof::Read { .. } => "canary_read",
            Proof::Write => "canary_write",
        }
    }

    /// The codes of its failure, and of not knowing.
    pub(super) const fn codes(&self) -> (Code, Code) {
        match self.kind {
            Proof::Read { .. } => (Code::CanaryRead, Code::CanaryReadUnknown),
            Proof::Write => (Code::CanaryWrite, Code::CanaryWriteUnknown),
        }
    }
}

impl std::fmt::Display for Mishap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Shares => f.write_str("too few shares can be had"),
            Self::Unhappy => f.write_str("the upload reached too few servers (shares.happy)"),
            Self::NoServers => f.write_str("the node has no server to write to"),
            Self::WrongBytes => f.write_str("other bytes came back"),
            Self::TooLarge => f.write_str("more than 1 MiB came back"),
            Self::Hung(time) => {
                write!(f, "it hangs, no end within {}", humantime::format_duration(*time))
            }
            Self::BadCap => f.write_str("the node cannot use what the cap_file holds"),
            Self::Status(status) => write!(f, "the node answered with status {status}"),
            Self::Unasked(why) | Self::CapFile(why) => f.write_str(why),
        }
    }
}
