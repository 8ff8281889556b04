//! Time as the deciding core sees it: monotonic, and handed in.

use std::ops::Add;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point in monotonic time, as the time passed since an epoch that only the caller knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Moment(Duration);

impl Moment {
    /// The moment that lies `passed` after the epoch.
    #[must_use]
    pub const fn after_epoch(passed: Duration) -> Self {
        Self(passed)
    }

    /// How long after the epoch this moment lies.
    #[must_use]
    pub const fn since_epoch(self) -> Duration {
        self.0
    }

    /// How long after `earlier` this moment lies; zero when it does not.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, later: Duration) -> Self {
        Self(self.0.saturating_add(later))
    }
}
