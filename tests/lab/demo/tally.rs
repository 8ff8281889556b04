//! What became of the requests during one fault.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fault::Fault;
use crate::lab::http;
use crate::lab::wait::wait_for;
use crate::traffic::{Kind, Outcome, Record};

/// For reading back: no verdict on the grid, so it may take as long as a busy machine needs.
const PATIENCE: Duration = Duration::from_mins(2);

/// When what was broken.
#[derive(Debug)]
pub struct Window {
    /// The fault.
    pub fault: Fault,
    /// Just before it was broken.
    pub broken: Instant,
    /// Just before it was mended.
    pub mended: Instant,
}

/// Counts over the requests that were sent from a fault's beginning until all had recovered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// All.
    pub requests: usize,
    /// Turned away by the balancer itself (503): nothing was done, and the client knows.
    pub refused: usize,
    /// Failed at a gateway, or not answered in time.
    pub failed: usize,
    /// Directory updates that a gateway accepted while it saw fewer than `happy` servers.
    pub blind: usize,
    /// Directory updates that were accepted and are gone after everything was mended.
    pub lost: usize,
    /// How many of which kind failed how.
    causes: BTreeMap<(Kind, String), usize>,
    /// When the first and the last failed request was sent, since the fault's beginning.
    failures: Option<(Duration, Duration)>,
}

impl Tally {
    /// Counts, and reads the directories back through `reader`, a gateway without other work.
    pub fn of(window: &Window, records: &[Record], reader: &str) -> Self {
        let mut causes = BTreeMap::new();
        let mut failures = Vec::new();
        for record in records {
            if let Outcome::Failed(cause) = &record.outcome {
                *causes.entry((record.kind, cause.clone())).or_default() += 1;
                failures.push(record.sent.saturating_duration_since(window.broken));
            }
        }
        let blind = records.iter().filter(|record| {
            record.kind == Kind::Update
                && record.outcome == Outcome::Accepted
                && record.gateway.is_some_and(|gateway| window.fault.blinds(gateway))
                && record.sent >= window.broken
                && record.done <= window.mended
        });
        let refused = records.iter().filter(|record| record.outcome == Outcome::Refused);
        Self {
            requests: records.len(),
            refused: refused.count(),
            failed: failures.len(),
            blind: blind.count(),
            lost: lost(records, reader),
            causes,
            failures: failures.iter().min().copied().zip(failures.iter().max().copied()),
        }
    }
}

/// How many accepted names are not in their directory.
fn lost(records: &[Record], reader: &str) -> usize {
    let mut accepted: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for record in records.iter().filter(|record| record.outcome == Outcome::Accepted) {
        if let Some((directory, name)) = &record.added {
            accepted.entry(directory).or_default().push(name);
        }
    }
    let missing = |names: &[&str], children: &Value| {
        names.iter().filter(|name| children.get(**name).is_none()).count()
    };
    let lost = accepted.iter().map(|(directory, names)| {
        let first = missing(names, &children(reader, directory));
        // Only what is missing twice is lost: an update of the moment may be under way.
        if first == 0 { 0 } else { first.min(missing(names, &children(reader, directory))) }
    });
    lost.sum()
}

/// What is in a directory. No error counts as an empty one: the reader is asked until it has read it.
fn children(reader: &str, directory: &str) -> Value {
    let path = format!("/uri/{directory}?t=json");
    wait_for("a directory to be read back", PATIENCE, || {
        let answer = http::get(reader, &path).ok().filter(|answer| answer.status == 200)?;
        answer.json()[1].get("children").cloned()
    })
}

impl fmt::Display for Tally {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "clients: {} requests, {} failed", self.requests, self.failed)?;
        if let Some((first, last)) = self.failures {
            let causes = self.causes.iter().map(|((kind, cause), count)| {
                let kind = match kind {
                    Kind::Read => "read",
                    Kind::Write => "write",
                    Kind::Update => "update",
                };
                format!("{count} {kind} {cause}")
            });
            let causes: Vec<String> = causes.collect();
            let (first, last) = (first.as_secs_f64(), last.as_secs_f64());
            write!(out, " ({}; sent {first:+.1} to {last:+.1} s)", causes.join(", "))?;
        }
        if self.refused > 0 {
            write!(out, ", {} refused with 503", self.refused)?;
        }
        if self.blind > 0 {
            write!(out, ", {} updates accepted by a gateway that saw too few servers", self.blind)?;
        }
        if self.lost > 0 {
            write!(out, ", {} accepted updates LOST", self.lost)?;
        }
        Ok(())
    }
}
