//! Long polls on the agent port: who has been told what, and so who may wait for a change.
//!
//! A key is a balancer's address and its whole question. Several may share one: HAProxy's old and
//! new process during a reload, or two on one machine. So a key keeps what each of its askers was
//! told last, without knowing which is which, and lets a question wait only when all of them were
//! told what is current. The first question of an asker finds no such note, and is answered at once.
//!
//! That of a new process may come in the pause that an old one makes between two questions, and looks
//! like its next one. HAProxy makes pauses of one length, so what comes out of step is answered at once.
//! And a process asks more than one question: when one of an address's is out of step, given up, or asked
//! by two at once, a new process may ask the others as well, so they are answered, too.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::accept::Peer;
use crate::health::Moment;

/// Who asks what.
pub(super) type Key = (Peer, Box<str>);

/// What was said to whom.
#[derive(Debug, Default)]
pub(super) struct Holds {
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
struct Books {
    /// Those who are not asking just now.
    told: HashMap<Key, Vec<Told>>,
    waiting: HashMap<u64, Sitting>,
    next: u64,
}

/// One who waits.
#[derive(Debug)]
struct Sitting {
    key: Key,
    since: Moment,
    /// Ends the waiting when it is in doubt who waits.
    doubt: Arc<Notify>,
}

/// What one asker was told last.
#[derive(Debug)]
struct Told {
    /// `None` where it may have been told to a process that has ended.
    tag: Option<u64>,
    at: Moment,
    rhythm: Rhythm,
}

/// How long an asker pauses between an answer and its next question.
#[derive(Clone, Copy, Debug, Default)]
struct Rhythm {
    pause: Duration,
    /// How many pauses in a row were as long.
    kept: u8,
}

impl Rhythm {
    /// The rhythm with another pause; `None` when an asker that kept it so far would not have come now.
    fn with(self, pause: Duration) -> Option<Self> {
        const STEADY: u8 = 2;
        // Shorter ones are none: a program that asks again at once.
        const LEAST: Duration = Duration::from_millis(10);
        let close = self.pause / 16 + Duration::from_millis(2);
        if self.pause >= LEAST && self.pause.abs_diff(pause) <= close {
            return Some(Self { kept: self.kept.saturating_add(1), ..self });
        }
        (self.kept < STEADY).then_some(Self { pause, kept: 0 })
    }
}

/// More keys than this are not held; a farm has a few per balancer.
const KEYS: usize = 1024;
/// More askers of one key are not told apart.
const ASKERS: usize = 16;
/// An asker that was silent for this long has gone: twice the longest hold.
const FORGET: Duration = Duration::from_mins(2);
/// A new process asks all of its questions for the first time within so long: HAProxy spreads them over its shortest
/// interval.
const FIRST: Duration = Duration::from_secs(2);

impl Holds {
    /// A question of `key` at `now`, when the current answer is `tag`: a place to wait in, or `None`
    /// when it is answered at once.
    pub(super) fn wait(self: &Arc<Self>, key: &Key, tag: u64, now: Moment) -> Option<Waiting> {
        let mut books = self.lock();
        let told = books.take(key, tag, now);
        let rhythm = told.as_ref().and_then(|told| told.rhythm.with(now.since(told.at)));
        let has_heard = told.as_ref().map(|told| told.tag == Some(tag));
        let is_new = match (has_heard, rhythm) {
            (Some(true), Some(rhythm)) => {
                let (id, doubt) = books.seat(key, now);
                let (holds, key) = (Arc::clone(self), key.clone());
                return Some(Waiting { holds, id, key, rhythm, doubt });
            }
            (Some(has_heard), _) => has_heard,
            (None, _) => books.waiting.values().any(|sitting| sitting.key == *key),
        };
        if is_new {
            books.doubt(key, now);
        }
        books.note(key, Told { tag: Some(tag), at: now, rhythm: rhythm.unwrap_or_default() });
        None
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        // They are whole after every statement, so a panic elsewhere did not harm them.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    /// Takes the note of who may be asking now: of several, one who has not heard what is current.
    fn take(&mut self, key: &Key, tag: u64, now: Moment) -> Option<Told> {
        let askers = self.told.get_mut(key)?;
        askers.retain(|told| now.since(told.at) < FORGET);
        let place = askers.iter().position(|told| told.tag != Some(tag));
        let told = place.map(|place| askers.swap_remove(place)).or_else(|| askers.pop());
        if askers.is_empty() {
            self.told.remove(key);
        }
        told
    }

    /// Notes what an asker of `key` was told.
    fn note(&mut self, key: &Key, told: Told) {
        let keys = &mut self.told;
        if keys.len() >= KEYS && !keys.contains_key(key) {
            let now = told.at;
            keys.retain(|_, askers| askers.iter().any(|told| now.since(told.at) < FORGET));
            if keys.len() >= KEYS {
                return;
            }
        }
        let askers = keys.entry(key.clone()).or_default();
        if askers.len() < ASKERS {
            askers.push(told);
        }
    }

    /// Notes that somebody waits; connections bound how many.
    fn seat(&mut self, key: &Key, since: Moment) -> (u64, Arc<Notify>) {
        let (id, doubt) = (self.next, Arc::new(Notify::new()));
        self.next += 1;
        self.waiting.insert(id, Sitting { key: key.clone(), since, doubt: Arc::clone(&doubt) });
        (id, doubt)
    }

    /// A new process may ask this: whoever of its address comes next, or has begun to wait just now, may be it, and
    /// so may whoever waits with this question.
    fn doubt(&mut self, asked: &Key, now: Moment) {
        let here = self.told.iter_mut().filter(|(key, _)| key.0 == asked.0);
        here.flat_map(|(_, askers)| askers).for_each(|told| told.tag = None);
        for Sitting { key, since, doubt } in self.waiting.values() {
            if key == asked || (key.0 == asked.0 && now.since(*since) < FIRST) {
                doubt.notify_one();
            }
        }
    }
}

/// A question that waits. Dropped without an answer it leaves no note: the balancer hung up, and its
/// next question is a first one.
#[derive(Debug)]
pub(super) struct Waiting {
    holds: Arc<Holds>,
    id: u64,
    key: Key,
    rhythm: Rhythm,
    doubt: Arc<Notify>,
}

impl Waiting {
    /// Ends when it is in doubt who asks, so that whoever it is must be answered.
    pub(super) async fn in_doubt(&self) {
        self.doubt.notified().await;
    }

    /// The question is answered with `tag`; with `None` it stays in doubt who has heard it.
    pub(super) fn answered(self, tag: Option<u64>, now: Moment) {
        let mut books = self.holds.lock();
        books.note(&self.key, Told { tag, at: now, rhythm: self.rhythm });
    }

    /// The balancer hung up; its process may have ended.
    pub(super) fn given_up(self, now: Moment) {
        self.holds.lock().doubt(&self.key, now);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.holds.lock().waiting.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn at(secs: u64) -> Moment {
        Moment::after_epoch(Duration::from_secs(secs))
    }

    fn key(question: &str) -> Key {
        (None, question.into())
    }

    #[test]
    fn a_question_waits_while_the_last_answer_is_current() {
        let holds = Arc::new(Holds::default());
        let key = key("write hold=9s");
        assert!(holds.wait(&key, 1, at(0)).is_none(), "the first question");
        let held = holds.wait(&key, 1, at(1)).unwrap();
        held.answered(Some(2), at(2));
        assert!(holds.wait(&key, 3, at(3)).is_none(), "told 2, and 3 is current");
        let held = holds.wait(&key, 3, at(4)).unwrap();
        drop(held);
        assert!(holds.wait(&key, 3, at(5)).is_none(), "it hung up");
    }

    /// As when HAProxy reloads, or two of them run on one machine.
    #[test]
    fn askers_that_share_a_key_are_all_told_of_a_change() {
        let holds = Arc::new(Holds::default());
        let key = key("write hold=9s");
        assert!(holds.wait(&key, 1, at(0)).is_none());
        let one = holds.wait(&key, 1, at(1)).unwrap();
        assert!(holds.wait(&key, 1, at(1)).is_none(), "the second asker's first question");
        let other = holds.wait(&key, 1, at(2)).unwrap();
        // One hears of the change while the other is between two questions.
        other.answered(Some(1), at(3));
        one.answered(Some(2), at(3));
        assert!(holds.wait(&key, 2, at(4)).is_none(), "whoever it is, it may not have heard");
        assert!(holds.wait(&key, 2, at(5)).is_some());
        assert!(holds.wait(&key, 2, at(5)).is_some());
        assert!(holds.wait(&key, 2, at(5)).is_none(), "a third asker");
    }

    /// As when HAProxy reloads while its old process pauses.
    #[test]
    fn what_comes_out_of_step_is_answered_at_once() {
        let at = |millis| Moment::after_epoch(Duration::from_millis(millis));
        let holds = Arc::new(Holds::default());
        let key = key("write hold=9s");
        assert!(holds.wait(&key, 1, at(0)).is_none());
        for (asked, answered) in [(100, 9_100), (9_201, 18_201), (18_300, 27_300), (27_405, 36_405)]
        {
            let held = holds.wait(&key, 1, at(asked)).expect("in step, or there is none yet");
            held.answered(Some(1), at(answered));
        }
        assert!(holds.wait(&key, 1, at(36_455)).is_none(), "too soon for the one who asked so far");
        let held = holds.wait(&key, 1, at(36_600)).expect("a new one may have any step");
        held.answered(Some(1), at(40_000));
        // Whoever asks when it likes is held as ever.
        for (asked, answered) in
            [(40_001, 40_100), (47_000, 47_001), (47_500, 48_000), (48_900, 49_000)]
        {
            holds.wait(&key, 1, at(asked)).expect("no step at all").answered(Some(1), at(answered));
        }
    }

    /// As when HAProxy reloads while its old process pauses in one of its questions, and waits in another.
    #[test]
    fn a_new_process_is_known_by_any_of_its_questions() {
        let at = |millis| Moment::after_epoch(Duration::from_millis(millis));
        let (read, write) = (key("read hold=9s"), key("write hold=9s"));
        // One process asks both, and now pauses in one of them.
        let asking = || {
            let holds = Arc::new(Holds::default());
            assert!(holds.wait(&write, 1, at(0)).is_none());
            for asked in [100, 200, 300, 400] {
                holds.wait(&write, 1, at(asked)).unwrap().answered(Some(1), at(asked));
            }
            assert!(holds.wait(&read, 1, at(400)).is_none());
            let reading = holds.wait(&read, 1, at(450)).unwrap();
            (holds, reading)
        };
        let in_doubt = |waiting: &Waiting| waiting.in_doubt().now_or_never().is_some();

        let (holds, reading) = asking();
        assert!(holds.wait(&write, 1, at(500)).is_some_and(|held| !in_doubt(&held)), "in step");
        assert!(!in_doubt(&reading));

        let (holds, reading) = asking();
        assert!(holds.wait(&read, 1, at(490)).is_none(), "its first question");
        assert!(in_doubt(&reading));
        assert!(holds.wait(&write, 1, at(500)).is_none(), "in step, but who is it?");
        assert!(holds.wait(&write, 1, at(600)).is_some());

        let (holds, _reading) = asking();
        let held = holds.wait(&write, 1, at(500)).unwrap();
        assert!(holds.wait(&read, 1, at(510)).is_none());
        assert!(in_doubt(&held), "it came before it was known");
        held.answered(None, at(510));
        assert!(holds.wait(&write, 1, at(610)).is_none());

        let (holds, reading) = asking();
        reading.given_up(at(490));
        assert!(holds.wait(&write, 1, at(500)).is_none(), "the old one has gone");

        let (holds, reading) = asking();
        assert!(holds.wait(&write, 1, at(450)).is_none(), "out of step");
        assert!(in_doubt(&reading), "it has just begun");
        reading.answered(None, at(451));
        let held = holds.wait(&write, 1, at(550)).unwrap();
        held.answered(Some(1), at(9550));
        assert!(holds.wait(&read, 1, at(9560)).is_none());

        // Nobody else's questions say anything of this address.
        let (holds, reading) = asking();
        let others = ("192.0.2.1".parse().ok(), "read hold=9s".into());
        assert!(holds.wait(&others, 1, at(490)).is_none());
        holds.wait(&others, 1, at(495)).unwrap().given_up(at(496));
        assert!(!in_doubt(&reading));
        assert!(holds.wait(&write, 1, at(500)).is_some());
    }

    #[test]
    fn keys_and_askers_are_bounded_and_old_ones_make_room() {
        let holds = Arc::new(Holds::default());
        for n in 0..2 * KEYS {
            assert!(holds.wait(&key(&n.to_string()), 1, at(0)).is_none());
        }
        assert_eq!(holds.lock().told.len(), KEYS);
        let late = key("late");
        assert!(holds.wait(&late, 1, at(1)).is_none());
        assert!(holds.wait(&late, 1, at(1)).is_none(), "no room to be held in");
        assert!(holds.wait(&late, 1, at(500)).is_none());
        assert!(holds.wait(&late, 1, at(501)).is_some(), "the old ones made room");
        for n in 0..100 {
            assert!(holds.wait(&late, n, at(502)).is_none());
        }
        assert!(holds.lock().told.values().all(|askers| askers.len() <= ASKERS));
        assert!(holds.wait(&late, 99, at(900)).is_none(), "forgotten after so long");
    }
}
