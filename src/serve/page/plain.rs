//! Numbers and times as people say them.

use std::time::Duration;

use crate::clock::Clock;
use crate::health::{Finding, Moment};

/// The most characters of a name that anybody may choose.
const NAME: usize = 60;

/// A moment by the clock on the wall, to the second.
pub(super) fn time(clock: Clock, moment: Moment) -> String {
    date(&clock.rfc3339(moment))
}

/// A time as RFC 3339 has it in UTC, to the second.
pub(super) fn date(text: &str) -> String {
    match text.get(..19) {
        Some(seconds) => format!("{} UTC", seconds.replace('T', " ")),
        None => text.to_owned(),
    }
}

/// A time that has passed.
pub(super) fn ago(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        "just now".to_owned()
    } else {
        format!("{} ago", span(time))
    }
}

/// A span in its two largest units.
pub(super) fn span(time: Duration) -> String {
    let secs = time.as_secs();
    match secs {
        0 => format!("{} ms", time.as_millis()),
        1..60 => format!("{secs} s"),
        60..3600 => format!("{} min{}", secs / 60, rest(secs % 60, "s")),
        3600..86_400 => format!("{} h{}", secs / 3600, rest(secs % 3600 / 60, "min")),
        _ => format!("{} d{}", secs / 86_400, rest(secs % 86_400 / 3600, "h")),
    }
}

fn rest(count: u64, unit: &str) -> String {
    if count == 0 { String::new() } else { format!(" {count} {unit}") }
}

/// A size in its largest binary unit.
pub(super) fn bytes(size: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.iter().find(|(_, bits)| size >> bits > 0) {
        Some((unit, bits)) => {
            format!("{}.{} {unit}", size >> bits, (size >> (bits - 10) & 1023) * 10 / 1024)
        }
        None => format!("{size} B"),
    }
}

/// A name that comes from the network, cut, and without what would turn the text around it.
pub(super) fn name(name: &str) -> String {
    let turns = |c| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let shown = |c: char| if c.is_control() || turns(c) { char::REPLACEMENT_CHARACTER } else { c };
    let mut cut: String = name.chars().take(NAME).map(shown).collect();
    if name.chars().nth(NAME).is_some() {
        cut.push('…');
    }
    cut
}

/// What a criterion found, and what it needs, in its own unit.
pub(super) fn numbers(finding: &Finding) -> (String, String) {
    let Finding { observed, threshold, .. } = *finding;
    let (found, needed) = match finding.criterion {
        "latency" => (seconds(observed), format!("at most {}", seconds(threshold))),
        "spool" => (size(observed), format!("at least {}", size(threshold))),
        "canary_read" | "canary_write" => {
            let found = format!("ended {} ago", seconds(observed));
            (found, format!("at most {} ago", seconds(threshold)))
        }
        _ => (format!("{observed}"), format!("at least {threshold}")),
    };
    let unknown = !finding.pass && finding.code.as_str().ends_with("-unknown");
    (if unknown { "not known".to_owned() } else { found }, needed)
}

fn seconds(seconds: f64) -> String {
    Duration::try_from_secs_f64(seconds).map(span).unwrap_or_default()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it was a whole number of bytes, and a cast of any other figure is bounded"
)]
fn size(size: f64) -> String {
    bytes(size as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{Code, Else};

    #[test]
    fn times_and_sizes_are_short() {
        for (secs, said) in [
            (59, "59 s"),
            (61, "1 min 1 s"),
            (120, "2 min"),
            (3_700, "1 h 1 min"),
            (86_400, "1 d"),
            (200_000, "2 d 7 h"),
        ] {
            assert_eq!(span(Duration::from_secs(secs)), said);
        }
        assert_eq!((bytes(0), bytes(1536)), ("0 B".to_owned(), "1.5 KiB".to_owned()));
        assert_eq!(bytes(5 << 40), "5.0 TiB");
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        assert_eq!(name("store1"), "store1");
        assert_eq!(name("a\u{202e}b\nc"), "a\u{fffd}b\u{fffd}c");
        assert_eq!(name(&"ä".repeat(61)), format!("{}…", "ä".repeat(60)));
    }

    #[test]
    fn numbers_have_the_unit_of_their_criterion() {
        let said = |criterion, pass, code, observed, threshold| {
            let (otherwise, text) = (Else::Down, String::new());
            numbers(&Finding { criterion, pass, code, otherwise, observed, threshold, text })
        };
        let two = |found: &str, needed: &str| (found.to_owned(), needed.to_owned());
        assert_eq!(said("servers", false, Code::ServersFew, 4.0, 7.0), two("4", "at least 7"));
        assert_eq!(said("latency", true, Code::Slow, 0.25, 1.0), two("250 ms", "at most 1 s"));
        assert_eq!(
            said("spool", false, Code::SpoolFull, 1024.0, f64::from(1 << 30)),
            two("1.0 KiB", "at least 1.0 GiB")
        );
        // Nothing is known, so nothing is said of it.
        assert_eq!(
            said("spool", false, Code::SpoolUnknown, 0.0, 1024.0),
            two("not known", "at least 1.0 KiB")
        );
        assert_eq!(
            said("canary_read", true, Code::CanaryRead, 12.0, 100.0),
            two("ended 12 s ago", "at most 1 min 40 s ago")
        );
        assert_eq!(said("canary_read", false, Code::CanaryReadUnknown, 0.0, 100.0).0, "not known");
    }
}
