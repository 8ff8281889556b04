//! Operators' overrides: kept, expired, and told to the judge.
//!
//! Whatever was acknowledged is kept (where there is a place to keep it), and whatever is kept is in force until it
//! expires or is cleared. What cannot be read any more never turns into "up": see [`Ruling::lost`].
//!
//! ```text
//! admin socket --Request--> Desk --> Keeper --Ruling--> judge, status
//!                                     |  ^
//!                    Store <--Book----+  +--Folder <-- override.d/SERVICE
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use crate::health::{Orders, Override, Stop, Word};

mod book;
mod folder;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod keeper;
mod kept;
mod request;
mod spoken;
mod store;
mod time;
mod wire;

pub use book::Book;
pub use keeper::{Desk, Keeper};
pub use request::{Clear, Lasting, Refused, Request};
pub use store::{InUse, Loaded, Store};
pub use time::{Expiry, Now};
pub(crate) use time::{parse_rfc3339, rfc3339, wall};
pub use wire::Put;

use spoken::Spoken;

/// One override, as it is kept and shown. There is one for each service and owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The service.
    pub service: Arc<str>,
    /// On whose behalf it stands: each owner clears its own.
    pub owner: Arc<str>,
    /// What was ordered.
    pub word: Word,
    /// Why, in the operator's words.
    pub reason: Arc<str>,
    /// Who set it, such as `root (uid 0, pid 17)`, and from where: `admin socket` or a file's path.
    pub by: Arc<str>,
    /// When this owner first ordered this word; a refresh keeps it.
    pub since: SystemTime,
    /// When it ends by itself.
    pub expiry: Expiry,
}

impl Entry {
    /// The same, in the words of the core: short, since a balancer shows a hundred characters.
    fn order(&self) -> Override {
        let (reason, word, owner) = (&self.reason, Spoken::from(self.word), &self.owner);
        let text = match self.expiry.until() {
            Some(until) => format!("{reason} ({word} by {owner} until {})", time::minute(until)),
            None => format!("{reason} ({word} by {owner}, no end set)"),
        };
        Override { word: self.word, text }
    }
}

impl std::fmt::Display for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { service, word, reason, owner, by, since, expiry } = self;
        let (word, since) = (Spoken::from(*word), rfc3339(*since));
        write!(f, "{service}: {word}: {reason}. For {owner}, by {by}, since {since}, ")?;
        match expiry.until() {
            Some(until) => write!(f, "until {}", rfc3339(until)),
            None => f.write_str("with no end set"),
        }
    }
}

/// An override as JSON has it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Override")]
pub(crate) struct Shown<'a> {
    pub(crate) service: &'a str,
    pub(crate) owner: &'a str,
    #[serde(flatten)]
    pub(crate) word: Spoken,
    pub(crate) reason: &'a str,
    pub(crate) by: &'a str,
    pub(crate) since: String,
    pub(crate) until: Option<String>,
}

impl Entry {
    pub(crate) fn shown(&self) -> Shown<'_> {
        Shown {
            service: &self.service,
            owner: &self.owner,
            word: self.word.into(),
            reason: &self.reason,
            by: &self.by,
            since: rfc3339(self.since),
            until: self.expiry.until().map(rfc3339),
        }
    }
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.shown().serialize(serializer)
    }
}

/// What is in force now.
#[derive(Clone, Debug, Default)]
pub struct Ruling {
    /// Counts the rulings, so that one can wait until a certain one is published.
    pub generation: u64,
    /// What was kept cannot be read, so every service drains until everything is cleared.
    pub lost: bool,
    /// Everything that is in force, by service and owner.
    pub entries: Vec<Entry>,
    /// The same, in the words of the core.
    pub services: BTreeMap<Arc<str>, Vec<Override>>,
    /// What is wrong with what is kept, a sentence each.
    pub notes: Vec<String>,
}

impl Ruling {
    fn new(generation: u64, lost: bool, mut entries: Vec<Entry>, notes: Vec<String>) -> Self {
        entries.sort_by(|a, b| (&a.service, &a.owner).cmp(&(&b.service, &b.owner)));
        let mut services: BTreeMap<Arc<str>, Vec<Override>> = BTreeMap::new();
        for entry in &entries {
            services.entry(Arc::clone(&entry.service)).or_default().push(entry.order());
        }
        Self { generation, lost, entries, services, notes }
    }

    /// The orders for one service.
    #[must_use]
    pub fn orders(&self, service: &str, stop: Option<Stop>) -> Orders {
        let overrides = self.services.get(service).cloned().unwrap_or_default();
        Orders { overrides, lost: self.lost, stop }
    }
}
