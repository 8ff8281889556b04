//! What operators ask for, and why it can be refused.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Expiry, Now};
use crate::config::is_word;
use crate::health::Word;

/// The owner of what stands in files; nobody else can use this name.
pub(super) const FILE: &str = "file";
/// The most characters of a reason.
const REASON: usize = 200;
/// The most bytes of who set it and from where.
const BY: usize = 300;

/// An order for some services: all of them take it, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The services. Whether they exist is known to the caller only.
    pub services: Vec<Arc<str>>,
    /// On whose behalf.
    pub owner: Arc<str>,
    /// What is ordered.
    pub word: Word,
    /// Why.
    pub reason: Arc<str>,
    /// Who asks, and from where.
    pub by: Arc<str>,
    /// How long it stands.
    pub expiry: Lasting,
}

/// How long an order stands, as it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasting {
    /// From when it is taken.
    For(Duration),
    /// By the wall clock.
    Until(SystemTime),
    /// Until it is cleared.
    Never,
}

impl Lasting {
    pub(super) fn expiry(self, now: &Now) -> Expiry {
        match self {
            Self::For(length) => Expiry::after(length, now),
            Self::Until(time) => Expiry::At(super::time::whole_millis(time)),
            Self::Never => Expiry::Never,
        }
    }
}

/// An end to orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clear {
    /// Of which services; `None` for all of them, also of services that are not known any more.
    pub services: Option<Vec<Arc<str>>>,
    /// Whose; `None` for everybody's. Of all services and everybody's also ends [`super::Ruling::lost`].
    pub owner: Option<Arc<str>>,
    /// Who asks, and from where.
    pub by: Arc<str>,
}

/// Why something that was asked for is not in force, in a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It makes no sense, and never will.
    #[error("{0}")]
    Senseless(String),
    /// There are too many overrides already.
    #[error("{0}")]
    Full(String),
    /// It cannot be kept; what was in force stays.
    #[error("{0}")]
    NotKept(String),
    /// No answer in time, or ever: whether it comes into force is not known.
    #[error("{0}")]
    Unknown(String),
}

impl Request {
    /// What is wrong with it by itself.
    pub(super) fn check(&self) -> Result<(), Refused> {
        let wrong = |text: String| Err(Refused::Senseless(text));
        if self.services.is_empty() {
            return wrong("an override needs a service".to_owned());
        }
        if let Some(service) = self.services.iter().find(|service| !is_word(service)) {
            return wrong(format!("`{service}` is not the name of a service"));
        }
        check_owner(&self.owner).map_err(Refused::Senseless)?;
        check_reason(&self.reason).map_err(Refused::Senseless)?;
        if self.by.len() > BY {
            return wrong(format!("who sets an override takes more than {BY} bytes"));
        }
        Ok(())
    }
}

/// Whether a name can be an owner's.
pub(super) fn check_owner(owner: &str) -> Result<(), String> {
    if owner == FILE {
        return Err(format!("the owner `{FILE}` stands for files in override.d; choose another"));
    }
    if is_word(owner) {
        return Ok(());
    }
    let owner: String = owner.chars().take(64).collect();
    Err(format!(
        "the owner `{owner}` is no name; use letters, digits, `-`, `_` and `.`, at most 64"
    ))
}

/// Whether a text can be shown as a reason, on one line.
pub(super) fn check_reason(reason: &str) -> Result<(), String> {
    if reason.trim().is_empty() {
        return Err("a reason is required, so that others know why".to_owned());
    }
    if reason.chars().count() > REASON {
        return Err(format!("the reason has more than {REASON} characters"));
    }
    let odd = |c: &char| c.is_control() || (c.is_whitespace() && *c != ' ');
    match reason.chars().find(odd) {
        None => Ok(()),
        Some(c) => Err(format!("the reason holds U+{:04X}, which cannot be shown", u32::from(c))),
    }
}
