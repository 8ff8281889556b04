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

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::super::record::{Before, Spent};
    use super::*;

    fn at(secs: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_700_000_000 + secs)
    }

    fn query(since: u64, after: u64) -> Query {
        Query { since: at(since), until: at(10_000), service: None, after }
    }

    fn started() -> Event {
        Event::Started { version: "1".to_owned() }
    }

    fn change(service: &str) -> Event {
        let to = Standing { state: "up".to_owned(), degraded: false, forced: false, weight: 100 };
        Event::Transition(Transition {
            service: service.to_owned(),
            from: None,
            to,
            reasons: Vec::new(),
            findings: Vec::new(),
            before: Before::default(),
        })
    }

    fn minutes(count: u64) -> Event {
        let services = ["read", "write"].map(|name| (name.to_owned(), Spent::default())).into();
        Event::Minutes(Minutes { lasted_ms: count * 60_000, services, ..Minutes::default() })
    }

    fn gathered(query: Query, records: Vec<(u64, u64, Event)>) -> History {
        let mut gather = Gather::new(query, None);
        for (seq, secs, what) in records {
            if !gather.take(Record { seq, at: at(secs), what }, 1000) {
                break;
            }
        }
        gather.answer(None, BTreeMap::new(), "memory".to_owned(), 0)
    }

    fn gaps(history: &History) -> Vec<(SystemTime, SystemTime, &str)> {
        history.gaps.iter().map(|gap| (gap.from, gap.until, &*gap.why)).collect()
    }

    #[test]
    fn what_was_written_again_after_an_error_is_told_once() {
        let records = [1, 2, 3, 2, 3, 4].map(|seq| (seq, seq, change("write"))).to_vec();
        let seqs: Vec<u64> =
            gathered(query(0, 0), records).transitions.iter().map(|t| t.seq).collect();
        assert_eq!(seqs, [1, 2, 3, 4]);
    }

    #[test]
    fn a_gap_is_where_hcf_did_not_run_or_minutes_are_missing() {
        let records = vec![
            (1, 0, started()),
            (2, 0, minutes(60)),
            // A minute that has not ended when something happens is no gap.
            (3, 3650, change("write")),
            (4, 3600, minutes(1)),
            (5, 3900, minutes(1)),
            (6, 4000, started()),
        ];
        let history = gathered(query(0, 0), records.clone());
        let lost = (at(3660), at(3900), "nothing was kept");
        let off = (at(3960), at(4000), "hcf was not running");
        assert_eq!(gaps(&history), [lost, off]);
        assert_eq!((history.complete_from, history.minutes.len()), (at(0), 3));
        // A gap that ends after the beginning is told, and none twice.
        assert_eq!(gaps(&gathered(query(3950, 0), records.clone())), [off]);
        assert_eq!(gaps(&gathered(query(0, 5), records)), [off]);
    }

    #[test]
    fn an_answer_that_is_full_says_where_it_goes_on_and_nothing_is_told_twice_or_lost() {
        let records: Vec<_> = (1..=300).map(|seq| (seq, seq, change("write"))).collect();
        let (mut after, mut seqs) = (0, Vec::new());
        loop {
            let part = gathered(query(0, after), records.clone());
            seqs.extend(part.transitions.iter().map(|transition| transition.seq));
            let Some(next) = part.next else { break };
            assert_eq!(part.transitions.len(), PAGE / 1000);
            after = next.rsplit('=').next().and_then(|after| after.parse().ok()).unwrap();
        }
        assert!(seqs.iter().copied().eq(1..=300));
    }

    #[test]
    fn one_service_is_told_of_by_itself() {
        let records = vec![(1, 0, change("read")), (2, 1, change("write")), (3, 2, minutes(1))];
        let query = Query { service: Some("write".to_owned()), ..query(0, 0) };
        let history = gathered(query, records);
        assert_eq!(history.transitions.len(), 1);
        assert!(history.minutes[0].what.services.keys().eq(["write"]));
    }
}
