//! Long polls on the agent port: who has been told what, and so who may wait for a change.
//!
//! A key is a balancer's address and its whole question. Several may share one: HAProxy's old and
//! new process during a reload, or two on one machine. So a key keeps what each of its askers was
//! told last, without knowing which is which, and lets a question wait only when all of them were
//! told what is current. The first question of an asker finds no such note, and is answered at once.
//!
//! That of a new process may come in the pause that an old one makes between two questions, and looks
//! like its next one. HAProxy makes pauses of one length, so what comes out of step is answered at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::accept::Peer;
use crate::health::Moment;

/// Who asks what.
pub(super) type Key = (Peer, Box<str>);

/// What was said to whom, of those who are not asking just now.
#[derive(Debug, Default)]
pub(super) struct Holds {
    keys: Mutex<HashMap<Key, Vec<Told>>>,
}

/// What one asker was told last.
#[derive(Debug)]
struct Told {
    tag: u64,
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

impl Holds {
    /// A question of `key` at `now`, when the current answer is `tag`: a place to wait in, or `None`
    /// when it is answered at once.
    pub(super) fn wait(self: &Arc<Self>, key: &Key, tag: u64, now: Moment) -> Option<Waiting> {
        let mut keys = self.lock();
        let mut rhythm = Rhythm::default();
        if let Some(askers) = keys.get_mut(key) {
            askers.retain(|told| now.since(told.at) < FORGET);
            if askers.iter().all(|told| told.tag == tag)
                && let Some(told) = askers.pop()
            {
                if let Some(rhythm) = told.rhythm.with(now.since(told.at)) {
                    if askers.is_empty() {
                        keys.remove(key);
                    }
                    return Some(Waiting { holds: Arc::clone(self), key: key.clone(), rhythm });
                }
                note(&mut keys, key, Told { tag, at: now, rhythm });
                return None;
            }
            // This asker may be any of those who have not heard of the change.
            if let Some(place) = askers.iter().position(|told| told.tag != tag) {
                let told = askers.swap_remove(place);
                rhythm = told.rhythm.with(now.since(told.at)).unwrap_or_default();
            }
        }
        note(&mut keys, key, Told { tag, at: now, rhythm });
        None
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Vec<Told>>> {
        // The map is whole after every statement, so a panic elsewhere did not harm it.
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes what an asker of `key` was told.
fn note(keys: &mut HashMap<Key, Vec<Told>>, key: &Key, told: Told) {
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

/// A question that waits. Dropped without an answer it leaves no note: the balancer hung up, and its
/// next question is a first one.
#[derive(Debug)]
pub(super) struct Waiting {
    holds: Arc<Holds>,
    key: Key,
    rhythm: Rhythm,
}

impl Waiting {
    /// The question is answered with `tag`.
    pub(super) fn answered(self, tag: u64, now: Moment) {
        note(&mut self.holds.lock(), &self.key, Told { tag, at: now, rhythm: self.rhythm });
    }
}

#[cfg(test)]
mod tests {
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
        held.answered(2, at(2));
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
        other.answered(1, at(3));
        one.answered(2, at(3));
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
            held.answered(1, at(answered));
        }
        assert!(holds.wait(&key, 1, at(36_455)).is_none(), "too soon for the one who asked so far");
        let held = holds.wait(&key, 1, at(36_600)).expect("a new one may have any step");
        held.answered(1, at(40_000));
        // Whoever asks when it likes is held as ever.
        for (asked, answered) in
            [(40_001, 40_100), (47_000, 47_001), (47_500, 48_000), (48_900, 49_000)]
        {
            holds.wait(&key, 1, at(asked)).expect("no step at all").answered(1, at(answered));
        }
    }

    #[test]
    fn keys_and_askers_are_bounded_and_old_ones_make_room() {
        let holds = Arc::new(Holds::default());
        for n in 0..2 * KEYS {
            assert!(holds.wait(&key(&n.to_string()), 1, at(0)).is_none());
        }
        assert_eq!(holds.lock().len(), KEYS);
        let late = key("late");
        assert!(holds.wait(&late, 1, at(1)).is_none());
        assert!(holds.wait(&late, 1, at(1)).is_none(), "no room to be held in");
        assert!(holds.wait(&late, 1, at(500)).is_none());
        assert!(holds.wait(&late, 1, at(501)).is_some(), "the old ones made room");
        for n in 0..100 {
            assert!(holds.wait(&late, n, at(502)).is_none());
        }
        assert!(holds.lock().values().all(|askers| askers.len() <= ASKERS));
        assert!(holds.wait(&late, 99, at(900)).is_none(), "forgotten after so long");
    }
}
