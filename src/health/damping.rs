//! Damping: how many looks it takes to change one's mind.
//!
//! Getting worse is quick: what a good look shows counts at once, a certain failure too, and only
//! doubtful failures must come `fall` times in a row. Getting better, from anything and at the
//! start, takes `rise` good looks in a row, and never comes sooner than `hold` after the last time.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Moment;

/// How good a service is, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Level {
    /// Up, with full weight.
    Full,
    /// Up, with less.
    Degraded,
    /// No new work.
    Drain,
    /// No work at all.
    Down,
}

impl Level {
    /// Every level, from best to worst.
    pub const ALL: [Self; 4] = [Self::Full, Self::Degraded, Self::Drain, Self::Down];

    /// Whether a balancer may send new work.
    #[must_use]
    pub const fn is_up(self) -> bool {
        matches!(self, Self::Full | Self::Degraded)
    }
}

/// The numbers that damping goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damping {
    /// Good looks in a row before a service gets better.
    pub rise: NonZeroU32,
    /// Doubtful failures in a row before a service goes down.
    pub fall: NonZeroU32,
    /// The least time between two flips back up.
    pub hold: Duration,
}

/// The level of one service, damped.
#[derive(Clone, Debug)]
pub struct Damper {
    damping: Damping,
    counts: Counts,
}

/// What a damper has counted so far; it can be kept for a later one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    level: Level,
    /// For each level, the good looks in a row that wanted it or better.
    runs: [u32; Level::ALL.len()],
    /// Doubtful failures in a row.
    doubts: u32,
    /// When the service last flipped back up.
    rose: Option<Moment>,
}

/// What a look did to the level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The look's own wish is the level now.
    Applied,
    /// The service got better, as far as each of the last `rise` looks allows.
    Rose,
    /// Not yet: the level stands for its old reasons.
    Waiting,
}

impl Damper {
    /// A damper that starts down.
    #[must_use]
    pub const fn new(damping: Damping) -> Self {
        let counts =
            Counts { level: Level::Down, runs: [0; Level::ALL.len()], doubts: 0, rose: None };
        Self { damping, counts }
    }

    /// A damper that goes on from what another one has counted.
    #[must_use]
    pub const fn resumed(damping: Damping, counts: Counts) -> Self {
        Self { damping, counts }
    }

    /// What it has counted so far.
    #[must_use]
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The level now.
    #[must_use]
    pub const fn level(&self) -> Level {
        self.counts.level
    }

    /// The good looks in a row that asked for better than the level, and how many it takes.
    #[must_use]
    pub fn progress(&self) -> (u32, u32) {
        let better = Level::ALL
            .iter()
            .zip(self.counts.runs)
            .filter(|(level, _)| **level < self.counts.level);
        (better.map(|(_, run)| run).max().unwrap_or(0), self.damping.rise.get())
    }

    /// When the service last flipped back up.
    #[must_use]
    pub const fn rose(&self) -> Option<Moment> {
        self.counts.rose
    }

    /// Takes a good look into account, whose criteria want `wanted`.
    pub fn good(&mut self, now: Moment, wanted: Level) -> Effect {
        self.counts.doubts = 0;
        for (level, run) in Level::ALL.iter().zip(&mut self.counts.runs) {
            *run = if wanted <= *level { run.saturating_add(1) } else { 0 };
        }
        if wanted >= self.counts.level {
            self.counts.level = wanted;
            return Effect::Applied;
        }
        let rise = self.damping.rise.get();
        let mut earned = Level::ALL.iter().zip(self.counts.runs).filter(|(_, run)| *run >= rise);
        let Some((&level, _)) = earned.next().filter(|(level, _)| **level < self.counts.level)
        else {
            return Effect::Waiting;
        };
        let flips_up = !self.counts.level.is_up() && level.is_up();
        let held = self.counts.rose.is_some_and(|rose| now.since(rose) < self.damping.hold);
        if flips_up && held {
            return Effect::Waiting;
        }
        self.counts.level = level;
        if flips_up {
            self.counts.rose = Some(now);
        }
        Effect::Rose
    }

    /// Takes a doubtful failure into account.
    pub fn doubtful(&mut self) -> Effect {
        self.counts.runs = [0; Level::ALL.len()];
        self.counts.doubts = self.counts.doubts.saturating_add(1);
        if self.counts.doubts < self.damping.fall.get() {
            return Effect::Waiting;
        }
        self.counts.level = Level::Down;
        Effect::Applied
    }

    /// Takes the service down at once.
    pub fn certain(&mut self) -> Effect {
        self.counts.runs = [0; Level::ALL.len()];
        self.counts.level = Level::Down;
        Effect::Applied
    }
}
