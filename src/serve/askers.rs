//! Who asks: each balancer's address with the listener and the service that it asks for, and what it was told last.
//!
//! For showing, and for waiting until everybody has heard of something. Noting an answer takes no lock that anybody
//! holds across work.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use super::accept::Peer;
use crate::health::{Moment, State};

/// More than this are not told apart; a farm has a few balancers.
const LIMIT: usize = 1024;
/// Whoever was silent for this long makes room for others.
const FORGET: Duration = Duration::from_hours(24);
/// Nobody is missed sooner.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who asks what, and where.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The listener's name.
    pub listener: &'static str,
    /// From where; `None` over a Unix socket.
    pub peer: Option<IpAddr>,
    /// The service.
    pub service: Arc<str>,
}

/// Everybody who asks.
#[derive(Debug, Default)]
pub struct Askers(RwLock<HashMap<Key, Arc<Asker>>>);

/// One who asks; the times are nanoseconds after the clock's epoch.
#[derive(Debug, Default)]
struct Asker {
    first: AtomicU64,
    last: AtomicU64,
    /// The usual time between two questions, in nanoseconds.
    interval: AtomicU64,
    count: AtomicU64,
    told: AtomicU64,
    /// The place of the state among [`STATES`].
    state: AtomicU8,
}

const STATES: [State; 4] = [State::Up, State::Drain, State::Down, State::Maint];

/// One who asks, for showing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Who, what and where.
    pub key: Key,
    /// When it asked first.
    pub first: Moment,
    /// When it asked last.
    pub last: Moment,
    /// The usual time between two questions; `None` after one.
    pub interval: Option<Duration>,
    /// How often it has asked.
    pub count: u64,
    /// The sequence number of the verdict that it was told last.
    pub told: u64,
    /// And its state. Of an asker that is told something just now it may be another one's.
    pub state: State,
    /// It has been silent for three times as long as usual, and for 10 s.
    pub lost: bool,
}

impl Askers {
    /// Notes that at `now` somebody was told the verdict of this sequence number, and its state.
    pub fn told(
        &self,
        listener: &'static str,
        peer: Peer,
        service: &Arc<str>,
        (seq, state): (u64, State),
        now: Moment,
    ) {
        let key = Key { listener, peer, service: Arc::clone(service) };
        let nanos = nanos(now.since_epoch());
        let known = self.read(&key);
        let asker = known.unwrap_or_else(|| self.add(key, nanos));
        let last = asker.last.swap(nanos, Ordering::Relaxed);
        if asker.count.fetch_add(1, Ordering::Relaxed) > 0 {
            let passed = nanos.saturating_sub(last);
            let usual = asker.interval.load(Ordering::Relaxed);
            let usual = if usual == 0 { passed } else { usual / 8 * 7 + passed / 8 };
            asker.interval.store(usual.max(1), Ordering::Relaxed);
        }
        asker.told.store(seq, Ordering::Relaxed);
        asker.state.store(state as u8, Ordering::Relaxed);
    }

    fn read(&self, key: &Key) -> Option<Arc<Asker>> {
        // The map is whole after every statement, so a panic elsewhere did not harm it.
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn add(&self, key: Key, now: u64) -> Arc<Asker> {
        let mut askers = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if askers.len() >= LIMIT {
            let old = now.saturating_sub(nanos(FORGET));
            askers.retain(|_, asker| asker.last.load(Ordering::Relaxed) >= old);
        }
        let asker = Arc::new(Asker { first: now.into(), last: now.into(), ..Asker::default() });
        if askers.len() < LIMIT {
            return Arc::clone(askers.entry(key).or_insert(asker));
        }
        asker
    }

    /// Everybody, as it is at `now`, in the order of listeners, peers and services.
    #[must_use]
    pub fn seen(&self, now: Moment) -> Vec<Seen> {
        let askers = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut seen: Vec<Seen> = askers.iter().map(|(key, asker)| asker.seen(key, now)).collect();
        drop(askers);
        seen.sort_by(|one, two| {
            let order =
                |seen: &Seen| (seen.key.listener, seen.key.peer, Arc::clone(&seen.key.service));
            order(one).cmp(&order(two))
        });
        seen
    }
}

impl Asker {
    fn seen(&self, key: &Key, now: Moment) -> Seen {
        let at = |time: &AtomicU64| {
            Moment::after_epoch(Duration::from_nanos(time.load(Ordering::Relaxed)))
        };
        let interval = Duration::from_nanos(self.interval.load(Ordering::Relaxed));
        let (last, state) = (at(&self.last), self.state.load(Ordering::Relaxed));
        Seen {
            key: key.clone(),
            first: at(&self.first),
            last,
            interval: (!interval.is_zero()).then_some(interval),
            count: self.count.load(Ordering::Relaxed),
            told: self.told.load(Ordering::Relaxed),
            state: *STATES.get(usize::from(state)).unwrap_or(&State::Down),
            lost: now.since(last) > (interval * 3).max(PATIENCE),
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Moment {
        Moment::after_epoch(Duration::from_secs(secs))
    }

    #[test]
    fn askers_are_told_apart_and_missed_when_they_fall_silent() {
        let askers = Askers::default();
        let (read, write): (Arc<str>, Arc<str>) = ("read".into(), "write".into());
        let peer = "10.0.0.7".parse().ok();
        for second in 1..=5 {
            askers.told("agent", peer, &write, (second, State::Down), at(second * 20));
        }
        askers.told("agent", peer, &read, (9, State::Maint), at(100));
        askers.told("health", None, &write, (5, State::Up), at(100));
        let seen = askers.seen(at(111));
        let shown: Vec<_> = seen
            .iter()
            .map(|seen| (seen.key.listener, &*seen.key.service, seen.told, seen.state, seen.lost))
            .collect();
        assert_eq!(
            shown,
            [
                ("agent", "read", 9, State::Maint, true),
                ("agent", "write", 5, State::Down, false),
                ("health", "write", 5, State::Up, true),
            ]
        );
        assert_eq!(seen[1].count, 5);
        assert_eq!(seen[1].interval, Some(Duration::from_secs(20)));
        assert!(askers.seen(at(161))[1].lost);
    }

    #[test]
    fn each_state_has_its_place() {
        for state in STATES {
            assert_eq!(STATES.get(state as usize), Some(&state));
        }
    }

    #[test]
    fn there_is_room_for_so_many_and_the_silent_make_room() {
        let askers = Askers::default();
        let service: Arc<str> = "write".into();
        let peer = |n: u32| Some(std::net::Ipv4Addr::from(n).into());
        for n in 0..5000 {
            askers.told("agent", peer(n), &service, (1, State::Up), at(1));
        }
        assert_eq!(askers.seen(at(1)).len(), LIMIT);
        let day = FORGET.as_secs() + 2;
        askers.told("agent", peer(9999), &service, (1, State::Up), at(day));
        assert_eq!(askers.seen(at(day)).len(), 1);
    }
}
