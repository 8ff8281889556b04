//! The one place where time is read: moments for deciding, wall-clock times for showing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::health::Moment;

/// Tells the time; copies of one clock agree. Its epoch is the machine's start, so that a moment means
/// the same to the next process, unless the machine was asleep between.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    /// How long after the epoch.
    at: Duration,
}

impl Clock {
    /// Starts a clock.
    #[must_use]
    pub fn start() -> Self {
        let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Self { started: Instant::now(), at: Duration::try_from(boot).unwrap_or_default() }
    }

    /// Now, for deciding.
    #[must_use]
    pub fn now(&self) -> Moment {
        Moment::after_epoch(self.at + self.started.elapsed())
    }

    /// The instant of a moment, to wait for it.
    #[must_use]
    pub fn instant(&self, moment: Moment) -> Instant {
        // A moment beyond what an instant can hold is never reached, nor is one a year from now.
        let year = Duration::from_hours(365 * 24);
        let after = moment.since_epoch().saturating_sub(self.at);
        self.started.checked_add(after).unwrap_or_else(|| self.started + year)
    }

    /// The wall-clock time of a moment, by what the wall clock says now.
    #[must_use]
    pub fn wall(&self, moment: Moment) -> SystemTime {
        let (now, wall) = (self.now(), SystemTime::now());
        let time = if moment > now {
            wall.checked_add(moment.since(now))
        } else {
            wall.checked_sub(now.since(moment))
        };
        time.unwrap_or(UNIX_EPOCH)
    }

    /// A moment as people and JSON write it: RFC 3339 in UTC, to the millisecond.
    #[must_use]
    pub fn rfc3339(&self, moment: Moment) -> String {
        humantime::format_rfc3339_millis(self.wall(moment)).to_string()
    }
}
