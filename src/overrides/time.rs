//! When an override ends, by two clocks.
//!
//! A length (`for 30m`) runs on the clock that counts from the start of the machine, so nobody who sets the wall clock
//! makes it longer or shorter. A time (`until 14:00`) means the wall clock, whatever that is set to.

use std::fs;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// The latest time that can be written.
const END: Duration = Duration::from_secs(253_402_300_000);

/// What all clocks say at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Now {
    /// The wall clock, to the millisecond.
    pub wall: SystemTime,
    /// Since the machine started, sleep included.
    pub boot: Duration,
    /// Which start of the machine that was.
    pub boot_id: Arc<str>,
}

impl Now {
    /// Reads the clocks.
    #[must_use]
    pub fn read() -> Self {
        static BOOT_ID: OnceLock<Arc<str>> = OnceLock::new();
        let wall = whole_millis(SystemTime::now());
        let boot_id = BOOT_ID.get_or_init(|| {
            let read = fs::read_to_string("/proc/sys/kernel/random/boot_id");
            let id = read.map(|id| id.trim().to_owned()).unwrap_or_default();
            // Without a name, this start is no other process's.
            let unnamed = || format!("process {} at {}", std::process::id(), rfc3339(wall));
            if id.is_empty() { unnamed().into() } else { id.into() }
        });
        let boot = Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default();
        Self { wall, boot, boot_id: Arc::clone(boot_id) }
    }
}

/// When something ends by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expiry {
    /// It does not.
    Never,
    /// After a length of time.
    After {
        /// From when it was set.
        length: Duration,
        /// The start of the machine that `deadline` belongs to.
        #[serde(with = "text")]
        boot_id: Arc<str>,
        /// Its end on the clock that counts from that start.
        deadline: Duration,
        /// Its end as the wall clock had it: what is left when the machine was started anew.
        #[serde(with = "wall")]
        wall: SystemTime,
    },
    /// At a time by the wall clock.
    At(#[serde(with = "wall")] SystemTime),
}

impl Expiry {
    /// Ends after `length` from now.
    #[must_use]
    pub fn after(length: Duration, now: &Now) -> Self {
        Self::After {
            length,
            boot_id: Arc::clone(&now.boot_id),
            deadline: now.boot.saturating_add(length),
            wall: later(now.wall, length),
        }
    }

    /// Ends after `length` from `start`, a time that the wall clock told, maybe before it was set.
    #[must_use]
    pub fn since(start: SystemTime, length: Duration, now: &Now) -> Self {
        let wall = later(start, length);
        Self::After { length, boot_id: "".into(), deadline: Duration::ZERO, wall }.settled(now)
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_over(&self, now: &Now) -> bool {
        match self {
            Self::Never => false,
            Self::At(time) => now.wall >= *time,
            Self::After { boot_id, deadline, .. } if *boot_id == now.boot_id => {
                now.boot >= *deadline
            }
            Self::After { wall, .. } => now.wall >= *wall,
        }
    }

    /// The same, counted on this start of the machine: what was left by the wall clock, but never more than the whole
    /// length, since a wall clock that was set back would have it last for ever.
    #[must_use]
    pub fn settled(self, now: &Now) -> Self {
        match self {
            Self::After { length, boot_id, wall, .. } if boot_id != now.boot_id => {
                let left = wall.duration_since(now.wall).unwrap_or_default().min(length);
                Self::After {
                    length,
                    boot_id: Arc::clone(&now.boot_id),
                    deadline: now.boot.saturating_add(left),
                    wall: later(now.wall, left),
                }
            }
            other => other,
        }
    }

    /// The end by the wall clock, as it was when this was set; `None` for no end.
    #[must_use]
    pub const fn until(&self) -> Option<SystemTime> {
        match self {
            Self::Never => None,
            Self::After { wall: time, .. } | Self::At(time) => Some(*time),
        }
    }
}

/// To the millisecond, since it is kept so.
fn later(time: SystemTime, by: Duration) -> SystemTime {
    whole_millis(time.checked_add(by).unwrap_or(UNIX_EPOCH + END))
}

/// Times are kept and shown to the millisecond, so that what was kept equals what was set.
pub(super) fn whole_millis(time: SystemTime) -> SystemTime {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default().min(END);
    UNIX_EPOCH + Duration::new(since.as_secs(), since.subsec_millis() * 1_000_000)
}

/// A time as people and JSON write it: RFC 3339 in UTC, to the millisecond.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(whole_millis(time)).to_string()
}

/// A time for a short line, to the minute: `2026-11-24T14:03Z`.
pub(super) fn minute(time: SystemTime) -> String {
    let text = rfc3339(time);
    format!("{}Z", text.get(..16).unwrap_or(&text))
}

/// Reads an RFC 3339 time, in UTC or with an offset. `None` when it is none, or before 1970.
pub(crate) fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    if let Ok(time) = humantime::parse_rfc3339(text) {
        return Some(whole_millis(time));
    }
    let at = text.len().checked_sub(6)?;
    let (local, offset) = (text.get(..at)?, text.get(at..)?);
    let (sign, offset) = offset.split_at_checked(1)?;
    let (hours, minutes) = offset.split_once(':')?;
    let number = |text: &str, end: u64| {
        let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u64>().ok().filter(|n| digits && *n < end)
    };
    let offset = Duration::from_secs(number(hours, 24)? * 3600 + number(minutes, 60)? * 60);
    let local = humantime::parse_rfc3339(&format!("{local}Z")).ok()?;
    let time = match sign {
        "+" => local.checked_sub(offset)?,
        "-" => local.checked_add(offset)?,
        _ => return None,
    };
    (time >= UNIX_EPOCH).then(|| whole_millis(time))
}

/// Times in what is kept.
pub(crate) mod wall {
    use std::time::SystemTime;

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(crate) fn serialize<S: Serializer>(
        time: &SystemTime,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::rfc3339(*time))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<SystemTime, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::parse_rfc3339(&text).ok_or_else(|| D::Error::custom("expected an RFC 3339 time"))
    }
}

/// Shared text in what is kept.
pub(super) mod text {
    use std::sync::Arc;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(in crate::overrides) fn serialize<S: Serializer>(
        text: &Arc<str>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(text)
    }

    pub(in crate::overrides) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<str>, D::Error> {
        String::deserialize(deserializer).map(Into::into)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn now(wall: u64, boot: u64, boot_id: &str) -> Now {
        Now {
            wall: UNIX_EPOCH + Duration::from_secs(wall),
            boot: Duration::from_secs(boot),
            boot_id: boot_id.into(),
        }
    }

    #[test]
    fn a_length_ignores_a_wall_clock_that_jumps_a_day_either_way() {
        let start = now(1_000_000, 50, "one");
        let expiry = Expiry::after(Duration::from_mins(1), &start);
        for wall in [start.wall + DAY, start.wall - DAY] {
            let early = Now { wall, boot: Duration::from_secs(109), ..start.clone() };
            let late = Now { wall, boot: Duration::from_secs(110), ..start.clone() };
            assert!(!expiry.is_over(&early));
            assert!(expiry.is_over(&late));
        }
    }

    #[test]
    fn a_time_follows_the_wall_clock() {
        let start = now(1_000_000, 50, "one");
        let expiry = Expiry::At(start.wall + Duration::from_hours(1));
        assert!(!expiry.is_over(&start));
        assert!(expiry.is_over(&Now { wall: start.wall + DAY, ..start.clone() }));
        assert!(!expiry.is_over(&Now { wall: start.wall - DAY, ..start }));
    }

    #[test]
    fn a_length_lasts_no_longer_than_itself_after_a_start_with_the_clock_set_back() {
        let expiry = Expiry::after(Duration::from_mins(1), &now(1_000_000, 50, "one"));
        let started = now(1_000_000 - 86_400, 5, "two");
        let settled = expiry.settled(&started);
        assert!(!settled.is_over(&now(1_000_000 - 86_400, 64, "two")));
        assert!(settled.is_over(&now(1_000_000 - 86_400, 65, "two")));
    }

    #[test]
    fn a_length_goes_on_by_the_wall_clock_after_the_machine_was_started_anew() {
        let expiry = Expiry::after(Duration::from_mins(1), &now(1_000_000, 50, "one"));
        assert!(!expiry.is_over(&now(1_000_059, 1, "two")));
        assert!(expiry.is_over(&now(1_000_060, 1, "two")));
        let settled = expiry.clone().settled(&now(1_000_050, 1, "two"));
        assert!(!settled.is_over(&now(1_000_050, 10, "two")));
        assert!(settled.is_over(&now(1_000_050, 11, "two")));
        assert!(expiry.settled(&now(1_000_070, 1, "two")).is_over(&now(0, 1, "two")));
    }

    #[test]
    fn times_are_read_with_any_offset() {
        for text in [
            "2026-11-24T14:03:00Z",
            "2026-11-24T16:03:00+02:00",
            "2026-11-24T10:33:00-03:30",
            "2026-11-24T14:03:00.000+00:00",
        ] {
            let time = parse_rfc3339(text).unwrap();
            assert_eq!(minute(time), "2026-11-24T14:03Z", "{text}");
        }
        for text in [
            "",
            "tomorrow",
            "2026-11-24",
            "2026-11-24T14:03:00+2:00",
            "2026-11-24T14:03:00+99:00",
            "2026-11-24T14:03:00++1:00",
            "1970-01-01T00:00:00+01:00",
            "é2026-11-24T14:03:00é:00é",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn a_length_is_kept_however_fine_it_is() {
        for nanos in [1, 999_999, 1_500_000] {
            let expiry = Expiry::after(Duration::from_nanos(nanos), &now(1_000_000, 50, "one"));
            let text = serde_json::to_string(&expiry).unwrap();
            assert_eq!(serde_json::from_str::<Expiry>(&text).unwrap(), expiry);
        }
    }

    #[test]
    fn any_time_can_be_written() {
        for time in [UNIX_EPOCH - DAY, UNIX_EPOCH + END * 4] {
            assert!(parse_rfc3339(&rfc3339(time)).is_some());
        }
    }

    proptest! {
        #[test]
        fn a_length_never_lasts_longer_than_itself(
            length in 0u64..1_000_000,
            set in 0u64..10_000_000,
            wall in 0u64..10_000_000,
            boot in 0u64..10_000_000,
            same in any::<bool>(),
        ) {
            let start = now(set, 7, "one");
            let length = Duration::from_secs(length);
            let expiry = Expiry::after(length, &start);
            let restarted = now(wall, boot.max(7), if same { "one" } else { "two" });
            let settled = expiry.settled(&restarted);
            let end = Now { boot: restarted.boot + length, ..restarted };
            prop_assert!(settled.is_over(&end));
        }

        #[test]
        fn a_kept_expiry_is_the_same(length in 0u64..u64::MAX, wall in 0u64..u64::MAX) {
            let wall = whole_millis(UNIX_EPOCH + Duration::from_millis(wall));
            let now = Now { wall, boot: Duration::from_secs(1), boot_id: "one".into() };
            for expiry in [
                Expiry::Never,
                Expiry::after(Duration::from_millis(length), &now),
                Expiry::At(wall),
            ] {
                let text = serde_json::to_string(&expiry).unwrap();
                prop_assert_eq!(serde_json::from_str::<Expiry>(&text).unwrap(), expiry);
            }
        }

        #[test]
        fn no_text_is_too_strange_to_be_read_as_a_time(text in ".*") {
            let _ = parse_rfc3339(&text);
        }
    }
}
