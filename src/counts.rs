//! What has happened since the start, in numbers that only grow.
//!
//! Noting something is an atomic addition: no lock, no allocation, and a place that exists from the start, since every
//! label has a fixed set of values. What holds now is on the board instead.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::health::{Code, State, Verdict};

/// Everything that is counted and belongs to no service.
#[derive(Debug, Default)]
pub struct Counts {
    /// Looks at the node that went well, and below those that failed, in the order of [`Code::ALL`].
    polls: [Times; 1 + Code::ALL.len()],
    /// By [`DOORS`].
    doors: [Arc<Door>; DOORS.len()],
    /// Questions for a service that does not exist, by [`LISTENERS`].
    unknown: [Count; LISTENERS.len()],
    /// By [`Held::ALL`].
    held: [Count; Held::ALL.len()],
    /// By [`RELOADS`].
    reloads: [Count; RELOADS.len()],
}

/// The listeners that answer balancers' questions.
pub const LISTENERS: [&str; 3] = ["agent", "health", "status"];
/// Where connections come in; all gates are one here.
pub const DOORS: [&str; 6] = ["agent", "health", "grpc", "status", "admin", "gate"];
/// What may come of a reload.
pub const RELOADS: [&str; 4] = ["unchanged", "changed", "senseless", "impossible"];
/// What a balancer may be told; a degraded service is one that is up.
pub const SAID: [&str; 5] = ["up", "degraded", "drain", "down", "maint"];

/// The place of a verdict's word in [`SAID`].
#[must_use]
pub const fn said(verdict: &Verdict) -> usize {
    match verdict.state {
        State::Up if verdict.degraded => 1,
        State::Up => 0,
        State::Drain => 2,
        State::Down => 3,
        State::Maint => 4,
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// So many more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// The number.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How a held question ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// The answer changed.
    Changed,
    /// Its time was over.
    Time,
    /// It was answered well after its time, so the balancer may have given up.
    Late,
    /// It was answered to make room, or since the listener ends.
    Room,
    /// Another process may ask from there, as after a balancer's reload, so whoever asks was answered.
    Doubt,
    /// The balancer hung up first: it waits for less long than it asks to be held.
    HungUp,
}

impl Held {
    /// Every way.
    pub const ALL: [Self; 6] =
        [Self::Changed, Self::Time, Self::Late, Self::Room, Self::Doubt, Self::HungUp];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Time => "time",
            Self::Late => "late",
            Self::Room => "room",
            Self::Doubt => "doubt",
            Self::HungUp => "hung-up",
        }
    }
}

impl Counts {
    /// A look at the node has finished: well, or with this failure.
    pub fn polled(&self, failure: Option<Code>, took: Duration) {
        let place = failure.map_or(0, |code| 1 + code as usize);
        if let Some(times) = self.polls.get(place) {
            times.add(took);
        }
    }

    /// Looks at the node by what came of them: those that went well, and each failure that there has been.
    pub fn polls(&self) -> impl Iterator<Item = (&'static str, &Times)> {
        let names = std::iter::once("ok").chain(Code::ALL.iter().map(|code| code.as_str()));
        names.zip(&self.polls).filter(|(name, times)| *name == "ok" || times.count() > 0)
    }

    /// Where connections to the listener of this name, such as `agent` or `gate/webapi`, come in.
    #[must_use]
    pub fn door(&self, listener: &str) -> Arc<Door> {
        let kind = listener.split('/').next().unwrap_or_default();
        let known = DOORS.iter().zip(&self.doors).find(|(name, _)| **name == kind);
        known.map(|(_, door)| Arc::clone(door)).unwrap_or_default()
    }

    /// Every door, by its name.
    pub fn doors(&self) -> impl Iterator<Item = (&'static str, &Door)> {
        DOORS.into_iter().zip(self.doors.iter().map(|door| &**door))
    }

    /// Somebody has asked this listener for a service that does not exist.
    pub fn asked_for_nothing(&self, listener: &str) {
        note(&LISTENERS, &self.unknown, listener);
    }

    /// Questions for a service that does not exist, by listener.
    pub fn unknown(&self) -> impl Iterator<Item = (&'static str, u64)> {
        read(LISTENERS, &self.unknown)
    }

    /// A held question has ended.
    pub fn held(&self, how: Held) {
        one_more(self.held.get(how as usize));
    }

    /// Held questions by how they ended.
    pub fn helds(&self) -> impl Iterator<Item = (&'static str, u64)> {
        read(Held::ALL.map(Held::as_str), &self.held)
    }

    /// The configuration was read again, with what came of it, a word of [`RELOADS`].
    pub fn reloaded(&self, outcome: &str) {
        note(&RELOADS, &self.reloads, outcome);
    }

    /// Reloads by what came of them.
    pub fn reloads(&self) -> impl Iterator<Item = (&'static str, u64)> {
        read(RELOADS, &self.reloads)
    }
}

fn note(names: &[&str], counts: &[Count], name: &str) {
    let known = names.iter().zip(counts).find(|(known, _)| **known == name);
    one_more(known.map(|(_, count)| count));
}

/// Every place that can be meant exists, so `None` never comes.
fn one_more(count: Option<&Count>) {
    if let Some(count) = count {
        count.add(1);
    }
}

fn read<const N: usize>(
    names: [&'static str; N],
    counts: &[Count; N],
) -> impl Iterator<Item = (&'static str, u64)> {
    names.into_iter().zip(counts.iter().map(Count::get))
}

/// What is counted of one service, for as long as there is a service of that name.
#[derive(Debug, Default)]
pub struct ServiceCounts {
    /// By listener and what was answered.
    questions: [[Count; SAID.len()]; LISTENERS.len()],
    /// By the word gone over to and the leading reason: none, or one in the order of [`Code::ALL`].
    transitions: [[Count; 1 + Code::ALL.len()]; SAID.len()],
}

impl ServiceCounts {
    /// This listener has told somebody this verdict.
    pub fn told(&self, listener: &str, verdict: &Verdict) {
        let known = LISTENERS.iter().zip(&self.questions).find(|(name, _)| **name == listener);
        one_more(known.and_then(|(_, counts)| counts.get(said(verdict))));
    }

    /// The verdict is this one now; a change of figures, weight or reasons alone is no transition.
    pub fn turned(&self, from: &Verdict, to: &Verdict) {
        let reason = to.reasons.first().map_or(0, |reason| 1 + reason.code as usize);
        if said(from) != said(to) {
            one_more(self.transitions.get(said(to)).and_then(|to| to.get(reason)));
        }
    }

    /// Questions, as listener, answer and number.
    pub fn questions(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        let of = |(listener, counts): (&'static str, &_)| {
            let each: Vec<_> = read(SAID, counts).collect();
            each.into_iter().map(move |(said, number)| (listener, said, number))
        };
        LISTENERS.into_iter().zip(&self.questions).flat_map(of)
    }

    /// The transitions that there have been, as word, reason and number.
    pub fn transitions(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        let of = |(said, counts): (&'static str, &[Count; 1 + Code::ALL.len()])| {
            let reasons = std::iter::once("none").chain(Code::ALL.iter().map(|code| code.as_str()));
            let each: Vec<_> = reasons.zip(counts.iter().map(Count::get)).collect();
            each.into_iter().map(move |(reason, number)| (said, reason, number))
        };
        SAID.into_iter().zip(&self.transitions).flat_map(of).filter(|(_, _, number)| *number > 0)
    }
}

/// The connections of a listener.
#[derive(Debug, Default)]
pub struct Door {
    /// Those that are open.
    pub open: AtomicUsize,
    /// Those that were accepted.
    pub accepted: Count,
    /// Those that came from where nobody may ask, and were closed at once.
    pub refused: Count,
    /// Those that came to no TLS, where it is spoken.
    pub not_secured: Count,
    /// Those that were asked to leave, to make room.
    pub evicted: Count,
    /// Errors of `accept` that say that this machine is short of something.
    pub errors: Count,
}

/// How long something took, each time.
#[derive(Debug, Default)]
pub struct Times {
    /// Up to each of [`LIMITS`], but beyond the one before; the last is beyond all.
    counts: [Count; LIMITS.len() + 1],
    nanos: Count,
}

/// The upper limits of a histogram's buckets, in milliseconds: around a healthy node's few, up to its longest timeout.
pub const LIMITS: [u64; 12] = [2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000];

impl Times {
    /// Once more.
    pub fn add(&self, took: Duration) {
        let place = LIMITS.iter().position(|limit| took <= Duration::from_millis(*limit));
        one_more(self.counts.get(place.unwrap_or(LIMITS.len())));
        self.nanos.add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// How often.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().map(Count::get).sum()
    }

    /// How often up to each limit, and beyond all of them; each number holds those before it.
    #[must_use]
    pub fn cumulated(&self) -> [u64; LIMITS.len() + 1] {
        let mut sum = 0;
        self.counts.each_ref().map(|count| {
            sum += count.get();
            sum
        })
    }

    /// How long in all.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.nanos.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_of_the_names() {
        for (place, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, place);
        }
        for (place, held) in Held::ALL.into_iter().enumerate() {
            assert_eq!(held as usize, place);
        }
    }

    #[test]
    fn times_are_counted_up_to_their_limits() {
        let counts = Counts::default();
        for millis in [1, 2, 3, 20_000] {
            counts.polled(Some(Code::Timeout), Duration::from_millis(millis));
        }
        let polls: Vec<_> = counts.polls().collect();
        let [("ok", ok), ("timeout", late)] = polls[..] else { panic!("{polls:?}") };
        assert_eq!((ok.count(), late.count()), (0, 4));
        let cumulated = late.cumulated();
        assert_eq!((cumulated[0], cumulated[1], cumulated[11], cumulated[12]), (2, 3, 3, 4));
        assert_eq!(late.sum(), Duration::from_millis(20_006));
    }

    #[test]
    fn each_gate_comes_in_by_the_same_door() {
        let counts = Counts::default();
        counts.door("gate/webapi").errors.add(1);
        counts.door("gate/other").errors.add(1);
        let errors: Vec<_> = counts.doors().map(|(name, door)| (name, door.errors.get())).collect();
        assert_eq!(errors[5], ("gate", 2));
    }
}
