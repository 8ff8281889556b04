//! Operators' overrides: kept, expired, and told to the judge.
//!
//! Whatever was acknowledged is kept (where there is a place to keep it), and whatever is kept is in force until it
//! expires or is cleared. What cannot be read any more never turns into "up": see [`Ruling::lost`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use crate::health::{Orders, Override, Stop, Word};

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
    /// When it ends by itself, by the wall clock at the time it was set.
    pub until: Option<SystemTime>,
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
}

impl Ruling {
    /// The orders for one service.
    #[must_use]
    pub fn orders(&self, service: &str, stop: Option<Stop>) -> Orders {
        let overrides = self.services.get(service).cloned().unwrap_or_default();
        Orders { overrides, lost: self.lost, stop }
    }
}
