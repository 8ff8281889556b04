//! Long polls on the agent port: who waits for a change, and what each was told last.
//!
//! A key is a balancer's address and its whole question. The first question of a key is answered at
//! once, each next one is held while the last reply that the key got is still current. A connection
//! beside a held one (a reloading HAProxy runs two processes) is answered at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::accept::Peer;
use crate::health::Moment;

/// Who asks what.
pub(super) type Key = (Peer, Box<str>);

/// What was said to whom.
#[derive(Debug, Default)]
pub(super) struct Holds {
    keys: Mutex<HashMap<Key, Told>>,
}

#[derive(Debug)]
struct Told {
    tag: u64,
    at: Moment,
    held: bool,
}

/// More keys than this are not held; a farm has a few per balancer.
const KEYS: usize = 1024;
/// A key that was not asked for this long may be forgotten: twice the longest hold.
const FORGET: Duration = Duration::from_mins(2);

impl Holds {
    /// A question of `key` at `now`, when the current answer is `tag`: a place to wait in, or `None`
    /// when it is answered at once.
    pub(super) fn wait(self: &Arc<Self>, key: &Key, tag: u64, now: Moment) -> Option<Waiting> {
        let mut keys = self.lock();
        if let Some(told) = keys.get_mut(key) {
            told.at = now;
            if told.held {
                return None;
            }
            if told.tag != tag {
                told.tag = tag;
                return None;
            }
            told.held = true;
            return Some(Waiting { holds: Arc::clone(self), key: key.clone() });
        }
        if keys.len() >= KEYS {
            keys.retain(|_, told| told.held || now.since(told.at) < FORGET);
        }
        if keys.len() < KEYS {
            keys.insert(key.clone(), Told { tag, at: now, held: false });
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Told>> {
        // The map is whole after every statement, so a panic elsewhere did not harm it.
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A held question. Dropped without an answer, its key is forgotten: the balancer hung up, and its
/// next question is answered at once.
#[derive(Debug)]
pub(super) struct Waiting {
    holds: Arc<Holds>,
    key: Key,
}

impl Waiting {
    /// The question is answered with `tag`.
    pub(super) fn answered(self, tag: u64, now: Moment) {
        if let Some(told) = self.holds.lock().get_mut(&self.key) {
            *told = Told { tag, at: now, held: false };
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut keys = self.holds.lock();
        if keys.get(&self.key).is_some_and(|told| told.held) {
            keys.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Moment {
        Moment::after_epoch(Duration::from_secs(secs))
    }

    #[test]
    fn a_key_is_held_while_its_last_answer_is_current() {
        let holds = Arc::new(Holds::default());
        let key: Key = (None, "write hold=9s".into());
        assert!(holds.wait(&key, 1, at(0)).is_none(), "the first question");
        let held = holds.wait(&key, 1, at(1)).unwrap();
        assert!(holds.wait(&key, 1, at(1)).is_none(), "beside a held one");
        held.answered(2, at(2));
        assert!(holds.wait(&key, 3, at(3)).is_none(), "told 2, and 3 is current");
        let held = holds.wait(&key, 3, at(4)).unwrap();
        drop(held);
        assert!(holds.wait(&key, 3, at(5)).is_none(), "it hung up");
    }

    #[test]
    fn keys_are_bounded_and_old_ones_make_room() {
        let holds = Arc::new(Holds::default());
        let key = |n: usize| -> Key { (None, format!("read hold={n}s").into()) };
        for n in 0..2 * KEYS {
            assert!(holds.wait(&key(n), 1, at(0)).is_none());
        }
        assert_eq!(holds.lock().len(), KEYS);
        assert!(holds.wait(&key(2 * KEYS), 1, at(1)).is_none());
        assert!(holds.wait(&key(2 * KEYS), 1, at(1)).is_none(), "no room to be held in");
        assert!(holds.wait(&key(2 * KEYS), 1, at(500)).is_none());
        assert!(holds.wait(&key(2 * KEYS), 1, at(501)).is_some(), "the old ones made room");
    }
}
