//! What one look at the node saw: facts, or a failure to see any.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use super::{Canary, Code, Moment, Tried};

/// One finished look at the node.
#[derive(Clone, Debug)]
pub struct Observation {
    /// When the look finished, well or badly.
    pub finished: Moment,
    /// How long the node took to answer; for a failure, how long the look lasted.
    pub took: Duration,
    /// What was seen.
    pub outcome: Result<Facts, ProbeFailure>,
}

/// What a good look saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// The introducers that the node is configured with.
    pub introducers: Introducers,
    /// Every storage server that the node knows, dead ones too, in the order of their ids.
    pub servers: Vec<Server>,
    /// How busy the machine is; `None` when nobody asked, or it cannot be read.
    pub host: Option<Host>,
    /// The share of a core that the node has used lately, in thousandths; `None` when it has not said.
    pub node_busy: Option<u32>,
    /// What canaries last came to; those that never ended are not among them.
    #[serde(skip)]
    pub canaries: Vec<(Canary, Tried)>,
    /// Free bytes in the node's temporary directory; `None` when that cannot be told, or is not asked.
    pub spool: Option<u64>,
    /// The ids, in order, of the servers that a grid manager of the node's certifies now; `None` when that
    /// cannot be told, or is not asked.
    pub certified: Option<Vec<Box<str>>>,
}

/// How busy a machine is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Host {
    /// The runnable tasks per core, over a minute, in thousandths.
    pub run_queue: u32,
    /// The share of the last ten seconds in which something waited for the processor, for memory and for the disk, in
    /// thousandths; `None` where the kernel does not say.
    pub pressure: [Option<u32>; 3],
}

/// How many introducers a node has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Introducers {
    /// Those it is connected to.
    pub connected: usize,
    /// Those it is configured with.
    pub configured: usize,
}

/// One storage server, as the node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Server {
    /// The id that the server's own key gives it.
    pub id: Box<str>,
    /// The name it gives itself; anybody may claim any, so it decides nothing.
    pub nickname: Box<str>,
    /// The state of the node's connection to it.
    pub link: Link,
    /// Whether it has told the node its version, without which the node cannot use it.
    pub versioned: bool,
    /// Free space in bytes; `None` when it has not said.
    pub space: Option<u64>,
    /// How long it has said nothing; `None` when it has never been heard.
    pub silent: Option<Duration>,
    /// The silence from which its protocol's own rules call it lost.
    pub silence_limit: Duration,
}

/// The state of a connection, reduced to a stable word: the node's own text may hold tracebacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Link {
    /// Connected.
    Connected,
    /// An attempt is under way.
    Connecting,
    /// The next attempt waits for its time.
    Waiting,
    /// No attempt was made yet, or none can be: the node lacks the plugin.
    Unstarted,
    /// The last attempt was refused.
    Refused,
    /// The last attempt got no answer in time.
    Unanswered,
    /// The last attempt failed in another way.
    Failed,
    /// A word that this version does not know; counts as not connected.
    Unrecognised,
}

impl Link {
    /// The word for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Connecting => "connecting",
            Self::Waiting => "waiting to reconnect",
            Self::Unstarted => "not started",
            Self::Refused => "refused",
            Self::Unanswered => "unanswered",
            Self::Failed => "failed",
            Self::Unrecognised => "in an unknown state",
        }
    }
}

/// A look that saw nothing it could judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeFailure {
    /// What went wrong.
    pub kind: FailureKind,
    /// A sentence for people; it never holds text from the node.
    pub text: String,
}

impl ProbeFailure {
    /// A failure of this kind, with a sentence that says what was seen.
    pub fn new(kind: FailureKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }
}

/// The ways in which a look can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// Nobody listens there.
    Refused,
    /// Another node, or another program, answers there.
    WrongNode,
    /// The answer is JSON, but not a gateway's.
    NotTahoe,
    /// No answer in time.
    Timeout,
    /// The node's process is stopped, so it will not answer.
    Frozen,
    /// The connection broke, or could not be made.
    Reset,
    /// Any status but 200.
    HttpStatus,
    /// The answer is not JSON.
    BadJson,
    /// The answer lacks something that is needed.
    BadShape,
    /// The answer is larger than the limit.
    TooLarge,
}

impl FailureKind {
    /// Whether one such failure proves the node bad. The others also befall a healthy node that is
    /// busy for seconds, so they count to `damping.fall`.
    #[must_use]
    pub const fn is_certain(self) -> bool {
        matches!(self, Self::Refused | Self::WrongNode | Self::NotTahoe | Self::Frozen)
    }

    /// The reason code that this failure gives.
    #[must_use]
    pub const fn code(self) -> Code {
        match self {
            Self::Refused => Code::Refused,
            Self::WrongNode => Code::WrongNode,
            Self::NotTahoe => Code::NotTahoe,
            Self::Timeout | Self::Frozen => Code::Timeout,
            Self::Reset => Code::Reset,
            Self::HttpStatus => Code::HttpStatus,
            Self::BadJson => Code::BadJson,
            Self::BadShape => Code::BadShape,
            Self::TooLarge => Code::TooLarge,
        }
    }
}
