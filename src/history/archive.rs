//! The reading side: what `/v1/history`, the page, the status and the metrics show.
//!
//! Files are read aside, by a few at a time and for a few seconds at most: a disk that hangs ends the question.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::gather::Gather;
use super::record::{Dated, History, Minutes, Record, Standing};
use super::segments::{paths, read};
use super::shelf::Place;
use super::timeline::Shown;
use super::{BYTES, KEEP};
use crate::counts::Count;
use crate::overrides::{parse_rfc3339, rfc3339};

/// How many read at a time.
const READERS: usize = 2;
/// How long an answer may take.
const TIME: Duration = Duration::from_secs(5);
/// Asked for unless said.
const SINCE: Duration = Duration::from_hours(24);

/// What can be read of a history.
#[derive(Debug)]
pub struct Archive {
    place: Place,
    /// The minutes that have not ended.
    pub(super) open: ArcSwapOption<Dated<Minutes>>,
    /// The last 24 hours of each service.
    pub(super) shown: ArcSwap<BTreeMap<String, Shown>>,
    /// Records that are kept.
    pub(super) records: AtomicU64,
    /// Their bytes.
    pub(super) bytes: AtomicU64,
    /// News and records that could not be kept, and lines that could not be read.
    pub missing: Count,
    /// Writes that failed.
    pub errors: Count,
    trouble: Mutex<Option<String>>,
    readers: Arc<Semaphore>,
}

/// Why a history was not read.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    /// Too many read, or the disk does not answer.
    #[error("the history could not be read in time; ask again later")]
    Busy,
    /// The disk says no.
    #[error("cannot read the history: {0}")]
    Io(#[from] io::Error),
}

/// What is asked of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    pub(super) since: SystemTime,
    pub(super) until: SystemTime,
    /// One service; all of them for none.
    pub service: Option<String>,
    /// Only what has a higher number.
    pub(super) after: u64,
}

/// What the status says of the history.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Summary {
    /// The directory in which it is kept, or `memory`.
    pub kept: String,
    /// Records that are kept.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What could not be kept or read since the start.
    pub missing: u64,
    /// Why nothing can be kept now.
    pub trouble: Option<String>,
}

impl Query {
    /// Reads the query of a URL.
    ///
    /// # Errors
    ///
    /// With a sentence, for what makes no sense.
    pub fn parse(query: &str, now: SystemTime) -> Result<Self, String> {
        let since = now.checked_sub(SINCE).unwrap_or(now);
        let mut parsed = Self { since, until: now, service: None, after: 0 };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            // A plus sign in a time is often sent as it is, and a blank is nothing that could be meant.
            let value = value
                .replace("%3A", ":")
                .replace("%3a", ":")
                .replace("%2B", "+")
                .replace("%2b", "+");
            match key {
                "since" => parsed.since = since_of(&value, now)?,
                "service" if crate::config::is_word(&value) => parsed.service = Some(value),
                "service" => return Err(format!("`{value}` is not the name of a service")),
                "after" => {
                    let wrong = || format!("`after` is a number from `next`, not `{value}`");
                    parsed.after = value.parse().map_err(|_| wrong())?;
                }
                _ => {
                    return Err(format!(
                        "there is no `{key}` here; expected since, service or after"
                    ));
                }
            }
        }
        Ok(parsed)
    }

    /// Where an answer goes on that has come to the record of this number.
    pub(super) fn next(&self, after: u64) -> String {
        let service = self.service.as_ref().map(|name| format!("&service={name}"));
        let service = service.unwrap_or_default();
        format!("/v1/history?since={}{service}&after={after}", rfc3339(self.since))
    }
}

/// A time, or a length back from now.
fn since_of(value: &str, now: SystemTime) -> Result<SystemTime, String> {
    let back = || humantime::parse_duration(value).ok().and_then(|length| now.checked_sub(length));
    let Some(since) = parse_rfc3339(value).or_else(back) else {
        return Err(format!(
            "`since` is a time such as 2026-11-24T14:03:00Z, or a length back such as 2h, not `{value}`"
        ));
    };
    if since > now {
        return Err(format!("`since` lies in the future: {value}"));
    }
    // Nothing is kept for longer, and a segment may hold what is a day older.
    Ok(now.checked_sub(KEEP).map_or(since, |oldest| since.max(oldest)))
}

impl Archive {
    pub(super) fn new(place: Place) -> Self {
        Self {
            place,
            open: ArcSwapOption::empty(),
            shown: ArcSwap::default(),
            records: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            missing: Count::default(),
            errors: Count::default(),
            trouble: Mutex::new(None),
            readers: Arc::new(Semaphore::new(READERS)),
        }
    }

    /// The last 24 hours of each service, as the page shows them.
    #[must_use]
    pub fn shown(&self) -> Arc<BTreeMap<String, Shown>> {
        self.shown.load_full()
    }

    /// How it is with the history itself.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary {
            kept: self.kept(),
            records: self.records.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            missing: self.missing.get(),
            trouble: self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    fn kept(&self) -> String {
        match &self.place {
            Place::Disk(dir) => dir.display().to_string(),
            Place::Memory(_) => "memory".to_owned(),
        }
    }

    /// Says why nothing can be kept, or that it can again; returns whether that is new.
    pub(super) fn troubled(&self, why: Option<String>) -> bool {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let new = trouble.is_some() != why.is_some();
        *trouble = why;
        new
    }

    /// What is known; `now` is what holds.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or not in time.
    pub async fn answer(
        &self,
        query: Query,
        now: BTreeMap<String, Standing>,
    ) -> Result<History, Unread> {
        let (place, open) = (self.place.clone(), self.open.load_full());
        let reading = async {
            let permit =
                Arc::clone(&self.readers).acquire_owned().await.map_err(|_| Unread::Busy)?;
            let read = move || {
                // A thread that hangs keeps its place, so that no more of them do.
                let _permit = permit;
                gather(&place, query)
            };
            let gathered = tokio::task::spawn_blocking(read).await.map_err(|_| Unread::Busy)?;
            Ok::<_, Unread>(gathered?)
        };
        let gathered = timeout(TIME, reading).await.map_err(|_| Unread::Busy)??;
        Ok(gathered.answer(open.as_deref(), now, self.kept(), self.missing.get()))
    }
}

fn gather(place: &Place, query: Query) -> io::Result<Gather> {
    match place {
        Place::Memory(lines) => {
            let kept = lines.lock().unwrap_or_else(PoisonError::into_inner);
            let lines: Vec<Arc<str>> = kept.iter().cloned().collect();
            drop(kept);
            let mut gather = Gather::new(query, None);
            for line in lines {
                let mut more = true;
                read(line.as_bytes(), |record, bytes| {
                    more = gather.take(record, bytes);
                    more
                })?;
                if !more {
                    break;
                }
            }
            Ok(gather)
        }
        Place::Disk(dir) => from_disk(dir, &query),
    }
}

fn from_disk(dir: &Path, query: &Query) -> io::Result<Gather> {
    let mut segments = Vec::new();
    let found = match paths(dir) {
        // Nothing was kept yet, or nothing can be.
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Vec::new()
        }
        found => found?,
    };
    for (_, path) in found {
        // One that was removed meanwhile was too old.
        let Ok(file) = File::open(&path) else { continue };
        let mut first = None;
        read(file, |record, _| {
            first = Some((record.seq, record.at));
            false
        })?;
        segments.extend(first.map(|(seq, at)| (path, seq, at)));
    }
    // What was before the segment that holds the beginning is not asked for, nor what an earlier part has told.
    let begins = |(_, seq, at): &(_, u64, SystemTime)| *at <= query.since || *seq <= query.after;
    let begin = segments.iter().rposition(begins).unwrap_or(0);
    let mut gather = Gather::new(query.clone(), segments.first().map(|(_, _, at)| *at));
    for (path, ..) in segments.into_iter().skip(begin) {
        let Ok(file) = File::open(&path) else { continue };
        let mut more = true;
        let each = |record: Record, bytes| {
            more = gather.take(record, bytes);
            more
        };
        read(file.take(BYTES), each)?;
        if !more {
            break;
        }
    }
    Ok(gather)
}
