//! From what happens to a minute's figures. Pure: moments come in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::record::{Looks, Minutes, Range, Spent};
use crate::counts::SAID;
use crate::health::Moment;

/// The most minutes that are put together, so that the figures of a quiet week are not one line.
const MOST: Duration = Duration::from_hours(1);
/// Answer times below this are alike, in milliseconds.
const QUICK: f64 = 10.0;

/// A minute that has not ended.
#[derive(Debug)]
pub(super) struct Tally {
    since: Moment,
    services: BTreeMap<Arc<str>, Course>,
    looks: Looks,
}

/// How a service spends the minute.
#[derive(Debug)]
struct Course {
    /// The place in [`SAID`] of what is said now, and since when.
    said: usize,
    since: Moment,
    spent: [Duration; SAID.len()],
    weight: Range,
}

impl Course {
    fn go_on(&mut self, now: Moment) {
        if let Some(spent) = self.spent.get_mut(self.said) {
            *spent += now.since(self.since);
        }
        self.since = now;
    }
}

impl Tally {
    pub(super) fn new(now: Moment) -> Self {
        Self { since: now, services: BTreeMap::new(), looks: Looks::default() }
    }

    /// From now on this is said of a service: a place in [`SAID`], and a weight.
    pub(super) fn turn(&mut self, now: Moment, service: &Arc<str>, said: usize, weight: u8) {
        let last = u64::from(weight);
        let new = || Course {
            said,
            since: now,
            spent: [Duration::ZERO; SAID.len()],
            weight: Range { least: last, last },
        };
        let course = self.services.entry(Arc::clone(service)).or_insert_with(new);
        course.go_on(now);
        course.said = said;
        course.weight = Range { least: course.weight.least.min(last), last };
    }

    /// A look went well, with so many usable servers.
    pub(super) fn good(&mut self, took: Duration, usable: usize) {
        let looks = &mut self.looks;
        let (took, last) = (took.as_secs_f64() * 1e3, usable as u64);
        looks.good += 1;
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let count = looks.good as f64;
        looks.mean_ms += (took - looks.mean_ms) / count;
        looks.max_ms = looks.max_ms.max(took);
        let least = looks.usable.map_or(last, |usable| usable.least.min(last));
        looks.usable = Some(Range { least, last });
    }

    /// A look failed with this code.
    pub(super) fn failed(&mut self, code: &str) {
        *self.looks.failed.entry(code.to_owned()).or_default() += 1;
    }

    /// Ends the minute, and begins the next one with the services that `stay`.
    pub(super) fn close(&mut self, now: Moment, stay: impl Fn(&str) -> bool) -> Minutes {
        let mut services = BTreeMap::new();
        for (name, course) in &mut self.services {
            course.go_on(now);
            let spent = SAID.iter().zip(&course.spent).filter(|(_, time)| !time.is_zero());
            let states_ms = spent.map(|(word, time)| ((*word).to_owned(), millis(*time))).collect();
            services.insert(name.to_string(), Spent { states_ms, weight: course.weight });
            course.spent = [Duration::ZERO; SAID.len()];
            course.weight.least = course.weight.last;
        }
        self.services.retain(|name, _| stay(name));
        let mut looks = std::mem::take(&mut self.looks);
        // What is kept is read by people, too.
        looks.mean_ms = (looks.mean_ms * 100.0).round() / 100.0;
        looks.max_ms = (looks.max_ms * 100.0).round() / 100.0;
        let lasted_ms = millis(now.since(std::mem::replace(&mut self.since, now)));
        Minutes { lasted_ms, services, looks }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Minutes {
    /// Takes in the next minute where nothing happened in both of them, and says whether it did.
    pub(super) fn take(&mut self, next: &Self) -> bool {
        let alike = self.is_quiet()
            && next.is_quiet()
            && self.lasted() + next.lasted() <= MOST
            && self.services.keys().eq(next.services.keys())
            && self.services.values().zip(next.services.values()).all(|(a, b)| a.is_like(b))
            && self.looks.is_like(&next.looks);
        if alike {
            self.lasted_ms += next.lasted_ms;
            for (spent, more) in self.services.values_mut().zip(next.services.values()) {
                for (word, time) in &more.states_ms {
                    *spent.states_ms.entry(word.clone()).or_default() += time;
                }
            }
            self.looks.take(&next.looks);
        }
        alike
    }

    /// Every service was one thing with one weight, and no look failed.
    fn is_quiet(&self) -> bool {
        let steady =
            |spent: &Spent| spent.states_ms.len() == 1 && spent.weight.least == spent.weight.last;
        self.services.values().all(steady)
            && self.looks.failed.is_empty()
            && self.looks.usable.is_none_or(|usable| usable.least == usable.last)
    }
}

impl Spent {
    fn is_like(&self, next: &Self) -> bool {
        self.states_ms.keys().eq(next.states_ms.keys()) && self.weight == next.weight
    }
}

impl Looks {
    fn is_like(&self, next: &Self) -> bool {
        let alike = |a: f64, b: f64| (a <= QUICK && b <= QUICK) || (a <= 2.0 * b && b <= 2.0 * a);
        self.usable == next.usable
            && alike(self.mean_ms, next.mean_ms)
            && alike(self.max_ms, next.max_ms)
    }

    fn take(&mut self, next: &Self) {
        let good = self.good + next.good;
        if good > 0 {
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
            let share = next.good as f64 / good as f64;
            self.mean_ms += (next.mean_ms - self.mean_ms) * share;
        }
        self.good = good;
        self.max_ms = self.max_ms.max(next.max_ms);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(secs: u64) -> Moment {
        Moment::after_epoch(Duration::from_secs(secs))
    }

    fn quiet(millis: u64, mean: f64) -> Minutes {
        let states_ms = BTreeMap::from([("up".to_owned(), millis)]);
        let spent = Spent { states_ms, weight: Range { least: 100, last: 100 } };
        Minutes {
            lasted_ms: millis,
            services: BTreeMap::from([("write".to_owned(), spent)]),
            looks: Looks {
                good: 60,
                mean_ms: mean,
                max_ms: mean,
                usable: Some(Range { least: 5, last: 5 }),
                ..Looks::default()
            },
        }
    }

    #[test]
    fn quiet_minutes_are_put_together_and_others_are_not() {
        let mut hour = quiet(60_000, 3.0);
        assert!(hour.take(&quiet(60_000, 9.0)));
        assert_eq!((hour.lasted_ms, hour.looks.good), (120_000, 120));
        assert!((hour.looks.mean_ms - 6.0).abs() < 1e-9 && hour.looks.max_ms >= 9.0);
        assert_eq!(hour.services["write"].states_ms["up"], 120_000);
        let mut lost = quiet(60_000, 3.0);
        lost.looks.usable = Some(Range { least: 4, last: 5 });
        let mut failed = quiet(60_000, 3.0);
        failed.looks.failed.insert("timeout".to_owned(), 1);
        let mut turned = quiet(60_000, 3.0);
        turned.services.values_mut().for_each(|s| {
            s.states_ms.insert("down".to_owned(), 1);
        });
        for other in [lost, failed, turned, quiet(60_000, 900.0), quiet(59 * 60_000, 3.0)] {
            assert!(!hour.take(&other), "{other:?}");
            assert!(!other.clone().take(&quiet(60_000, 3.0)) || other.is_quiet(), "{other:?}");
        }
    }

    #[test]
    fn a_service_that_is_gone_is_in_its_last_minute_and_no_more() {
        let mut tally = Tally::new(at(0));
        tally.turn(at(0), &"old".into(), 0, 100);
        assert_eq!(tally.close(at(60), |_| false).services["old"].states_ms["up"], 60_000);
        assert!(tally.close(at(120), |_| true).services.is_empty());
    }

    proptest! {
        /// Second by second, as slowly as it can be done.
        #[test]
        fn figures_are_those_of_one_who_looks_every_second(
            turns in prop::collection::vec((0u64..180, 0usize..5, 1u8..=100), 1..20),
            looks in prop::collection::vec((0u64..180, prop::option::of((0usize..9, 1u64..500))), 0..40),
        ) {
            let (mut turns, mut looks) = (turns, looks);
            turns.sort_by_key(|turn| turn.0);
            looks.sort_by_key(|look| look.0);
            let service: Arc<str> = "write".into();
            let mut tally = Tally::new(at(0));
            tally.turn(at(0), &service, 3, 50);
            let mut said = [(3usize, 50u8); 180];
            for (when, to, weight) in &turns {
                said[usize::try_from(*when).unwrap()..].fill((*to, *weight));
            }
            let mut feed: Vec<(u64, usize)> = turns.iter().enumerate().map(|(n, t)| (t.0, n)).collect();
            for minute in 0..3u64 {
                let (from, until) = (minute * 60, minute * 60 + 60);
                while let Some((when, n)) = feed.first().copied().filter(|(when, _)| *when < until) {
                    let (_, to, weight) = turns[n];
                    tally.turn(at(when), &service, to, weight);
                    feed.remove(0);
                }
                let seen: Vec<_> = looks.iter().filter(|l| (from..until).contains(&l.0)).collect();
                for (_, outcome) in &seen {
                    match outcome {
                        Some((usable, took)) => tally.good(Duration::from_millis(*took), *usable),
                        None => tally.failed("timeout"),
                    }
                }
                let minutes = tally.close(at(until), |_| true);
                let range = usize::try_from(from).unwrap()..usize::try_from(until).unwrap();
                let spent = &minutes.services["write"];
                for (place, word) in SAID.iter().enumerate() {
                    let naive = said[range.clone()].iter().filter(|(s, _)| *s == place).count() as u64;
                    prop_assert_eq!(spent.states_ms.get(*word).copied().unwrap_or(0), naive * 1000);
                }
                prop_assert_eq!(spent.weight.last, u64::from(said[range.end - 1].1));
                let least = said[range].iter().map(|(_, weight)| u64::from(*weight)).min().unwrap();
                // What held for less than a second counts here, and one who looks every second misses it.
                prop_assert!(spent.weight.least <= least);
                let good: Vec<_> = seen.iter().filter_map(|look| look.1).collect();
                prop_assert_eq!(minutes.looks.good, good.len() as u64);
                let failed = minutes.looks.failed.get("timeout").copied().unwrap_or(0);
                prop_assert_eq!(failed, (seen.len() - good.len()) as u64);
                let usable: Vec<_> = good.iter().map(|(usable, _)| *usable as u64).collect();
                prop_assert_eq!(minutes.looks.usable.map(|range| range.least), usable.iter().min().copied());
                prop_assert_eq!(minutes.looks.usable.map(|range| range.last), usable.last().copied());
                let took: Vec<f64> =
                    good.iter().map(|(_, took)| Duration::from_millis(*took).as_secs_f64() * 1e3).collect();
                let max = took.iter().copied().fold(0.0, f64::max);
                prop_assert!((minutes.looks.max_ms - max).abs() < 0.01);
                let count = f64::from(u32::try_from(took.len()).unwrap().max(1));
                let mean = took.iter().sum::<f64>() / count;
                prop_assert!((minutes.looks.mean_ms - mean).abs() < 0.01);
            }
        }
    }
}
