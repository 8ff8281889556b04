//! From records to an answer. Pure: records come in, in their order.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::archive::Query;
use super::record::{Dated, Event, Gap, History, Minutes, Record, Standing, Transition};

/// The most bytes of one answer, about.
const PAGE: usize = 128 << 10;
/// A time without any record that says nothing: minutes are kept when they end.
const HOLE: Duration = Duration::from_secs(90);

/// An answer that is being put together.
#[derive(Debug)]
pub(super) struct Gather {
    query: Query,
    first: Option<SystemTime>,
    last: u64,
    /// Until when something is known, by the records so far.
    known: Option<SystemTime>,
    bytes: usize,
    transitions: Vec<Dated<Transition>>,
    minutes: Vec<Dated<Minutes>>,
    gaps: Vec<Gap>,
    full: bool,
}

impl Gather {
    pub(super) fn new(query: Query, first: Option<SystemTime>) -> Self {
        let (transitions, minutes, gaps) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            query,
            first,
            last: 0,
            known: None,
            bytes: 0,
            transitions,
            minutes,
            gaps,
            full: false,
        }
    }

    /// Takes the next record, of so many bytes, and says whether it takes more.
    pub(super) fn take(&mut self, record: Record, bytes: usize) -> bool {
        let Record { seq, at, what } = record;
        // What was written again after an error is there twice.
        if seq <= self.last {
            return true;
        }
        self.first.get_or_insert(at);
        if self.bytes + bytes > PAGE {
            self.full = true;
            return false;
        }
        self.last = seq;
        if seq > self.query.after {
            self.look_for_gap(at, matches!(what, Event::Started { .. }));
        }
        let end = match &what {
            Event::Minutes(minutes) => at + minutes.lasted(),
            _ => at,
        };
        self.known = self.known.max(Some(end));
        if seq <= self.query.after || end < self.query.since {
            return true;
        }
        let wanted =
            |name: &str| self.query.service.as_deref().is_none_or(|service| service == name);
        match what {
            Event::Transition(what) if wanted(&what.service) => {
                self.transitions.push(Dated { seq, at, what });
            }
            Event::Minutes(mut what) => {
                what.services.retain(|name, _| wanted(name));
                self.minutes.push(Dated { seq, at, what });
            }
            _ => return true,
        }
        self.bytes += bytes;
        true
    }

    fn look_for_gap(&mut self, at: SystemTime, started: bool) {
        let Some(known) = self.known else { return };
        let passed = at.duration_since(known).unwrap_or_default();
        if (started || passed > HOLE) && at > self.query.since && !passed.is_zero() {
            let why = if started { "hcf was not running" } else { "nothing was kept" };
            self.gaps.push(Gap { from: known, until: at, why: why.to_owned() });
        }
    }

    /// The answer, with the minutes that have not ended.
    pub(super) fn answer(
        mut self,
        open: Option<&Dated<Minutes>>,
        now: BTreeMap<String, Standing>,
        kept: String,
        missing: u64,
    ) -> History {
        let next = self.full.then(|| self.query.next(self.last));
        if let (None, Some(open)) = (&next, open) {
            let what = Event::Minutes(open.what.clone());
            self.take(Record { seq: self.last + 1, at: open.at, what }, 0);
        }
        let Query { since, until, .. } = self.query;
        History {
            since,
            until,
            complete_from: self.first.unwrap_or(until),
            kept,
            missing,
            now,
            transitions: self.transitions,
            minutes: self.minutes,
            gaps: self.gaps,
            next,
        }
    }
}
