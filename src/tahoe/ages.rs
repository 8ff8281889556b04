//! How long each server has said nothing, proof against a wall clock that is set meanwhile.

use std::collections::HashMap;
use std::time::Duration;

use crate::health::Moment;

/// Remembers what each server's `last_received_data` was, and since when.
///
/// An age is the age by the wall clock when the value was first seen, plus the monotonic time since.
/// Only servers of the last page are remembered.
#[derive(Debug, Default)]
pub(super) struct Ages {
    heard: HashMap<Box<str>, Heard>,
    page: u64,
}

#[derive(Debug)]
struct Heard {
    value: f64,
    age: Duration,
    since: Moment,
    page: u64,
}

impl Ages {
    /// The age of `value`, in seconds since the Unix epoch, when it is `now` and `wall` by the clocks.
    pub(super) fn age(&mut self, id: &str, value: f64, now: Moment, wall: f64) -> Duration {
        let fresh = || Heard {
            value,
            age: Duration::try_from_secs_f64((wall - value).max(0.0)).unwrap_or(Duration::MAX),
            since: now,
            page: self.page,
        };
        let heard = match self.heard.get_mut(id) {
            #[expect(clippy::float_cmp, reason = "the same text gives the same number")]
            Some(heard) if heard.value == value => {
                heard.page = self.page;
                heard
            }
            Some(heard) => {
                *heard = fresh();
                heard
            }
            None => self.heard.entry(id.into()).or_insert_with(fresh),
        };
        heard.age.saturating_add(now.since(heard.since))
    }

    /// Forgets every server that the page just read did not list.
    pub(super) fn end_page(&mut self) {
        let page = self.page;
        self.heard.retain(|_, heard| heard.page == page);
        self.page += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Moment {
        Moment::after_epoch(Duration::from_secs(secs))
    }

    #[test]
    fn an_age_grows_with_monotonic_time_and_ignores_the_wall_clock() {
        let mut ages = Ages::default();
        assert_eq!(ages.age("a", 1000.0, at(0), 1003.0), Duration::from_secs(3));
        ages.end_page();
        // The wall clock was set back by a day meanwhile.
        assert_eq!(ages.age("a", 1000.0, at(4), 1007.0 - 86400.0), Duration::from_secs(7));
        assert_eq!(ages.age("a", 1010.0, at(10), 1010.5), Duration::from_millis(500));
        assert_eq!(ages.age("b", 2000.0, at(10), 1010.0), Duration::ZERO, "from the future");
    }

    #[test]
    fn servers_that_are_gone_are_forgotten() {
        let mut ages = Ages::default();
        ages.age("a", 0.0, at(0), 0.0);
        ages.age("b", 0.0, at(0), 0.0);
        ages.end_page();
        ages.age("b", 0.0, at(1), 1.0);
        ages.end_page();
        assert_eq!(ages.heard.len(), 1);
    }
}
