//! Why a service was what it was at some time, in sentences. Pure: from a history to text.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use super::record::{Before, Dated, History, Looks, Standing, Transition};
use crate::health::Else;
use crate::overrides::rfc3339;

/// A time as it is printed: to the second, in UTC.
#[must_use]
pub fn stamp(time: SystemTime) -> String {
    rfc3339(time).get(..19).unwrap_or_default().to_owned() + "Z"
}

/// A length in its two largest units.
#[must_use]
pub fn length(time: Duration) -> String {
    let secs = time.as_secs();
    match secs {
        0..60 => format!("{secs} s"),
        60..3600 => format!("{} min {} s", secs / 60, secs % 60),
        3600..86_400 => format!("{} h {} min", secs / 3600, secs % 3600 / 60),
        _ => format!("{} d {} h", secs / 86_400, secs % 86_400 / 3600),
    }
}

/// A state, with its weight where that means something.
#[must_use]
pub fn standing(standing: &Standing) -> String {
    let forced = if standing.forced { ", forced" } else { "" };
    if standing.state == "up" {
        format!("{}{forced} with weight {}", standing.word(), standing.weight)
    } else {
        standing.word().to_owned()
    }
}

/// What was with a service at a time.
#[must_use]
pub fn explain(history: &History, service: &str, at: SystemTime) -> String {
    let mut out = format!("{service} at {}: ", stamp(at));
    let of: Vec<_> = history.transitions.iter().filter(|t| t.what.service == service).collect();
    let until = of.iter().rposition(|transition| transition.at <= at);
    let next = of.get(until.map_or(0, |last| last + 1));
    if let Some(gap) = history.gaps.iter().find(|gap| gap.from < at && at < gap.until) {
        let (from, until) = (stamp(gap.from), stamp(gap.until));
        let _ = writeln!(out, "not known; {} from {from} to {until}.", gap.why);
        if let Some(last) = of.iter().rev().find(|transition| transition.at <= gap.from) {
            let (when, what) = (stamp(last.at), standing(&last.what.to));
            let _ =
                writeln!(out, "Before that it was {what}, since {when}{}.", because(&last.what));
        }
        if let Some(next) = next {
            let _ = writeln!(
                out,
                "After it, it was {}{}.",
                standing(&next.what.to),
                because(&next.what)
            );
        }
        return out;
    }
    let Some(last) = until.and_then(|last| of.get(..=last)) else {
        let _ =
            writeln!(out, "not known; what is kept begins at {}.", stamp(history.complete_from));
        return out;
    };
    said(&mut out, history, last, next.copied(), at);
    out
}

fn because(transition: &Transition) -> String {
    let first = transition.reasons.first();
    first.map_or_else(String::new, |why| format!(" ({}: {})", why.code, why.text))
}

/// Of the transitions up to that time, and the one after it.
fn said(
    out: &mut String,
    history: &History,
    until: &[&Dated<Transition>],
    next: Option<&Dated<Transition>>,
    at: SystemTime,
) {
    let Some(last) = until.last() else { return };
    let word = last.what.to.word();
    // Reasons change while the state stays.
    let run = until.iter().rev().take_while(|t| t.what.to.word() == word).count();
    let begin = until.len().saturating_sub(run);
    let Some(first) = until.get(begin) else { return };
    let _ = write!(out, "{}, since {}", standing(&last.what.to), stamp(first.at));
    let passed = at.duration_since(first.at).unwrap_or_default();
    let _ = write!(out, " ({} before)", length(passed));
    match next {
        Some(next) if next.what.to.word() != word => {
            let all = next.at.duration_since(first.at).unwrap_or_default();
            let then = standing(&next.what.to);
            let _ = writeln!(
                out,
                ".\nIt was {then} from {} on, {} later.",
                stamp(next.at),
                length(all)
            );
        }
        Some(next) => {
            let _ = writeln!(out, ".\nThe reasons were others from {} on.", stamp(next.at));
        }
        None => out.push_str(", to this day.\n"),
    }
    match &first.what.from {
        Some(from) => {
            let _ = writeln!(out, "Before that it was {}.", standing(from));
        }
        None => {
            let _ = writeln!(out, "That was the first verdict after hcf had started.");
        }
    }
    if first.seq != last.seq {
        let _ = writeln!(out, "\nIt began with{}.", because(&first.what));
        before(out, &first.what.before);
        let _ = writeln!(out, "\nSince {} it was so:", stamp(last.at));
    }
    reasons(out, &last.what);
    before(out, &last.what.before);
    let within = |from: SystemTime, lasted: Duration| {
        at.duration_since(from).is_ok_and(|passed| passed < lasted)
    };
    let minutes = history.minutes.iter().rev().find(|m| within(m.at, m.what.lasted()));
    if let Some(minutes) = minutes {
        let lasted = length(minutes.what.lasted());
        let _ = writeln!(
            out,
            "\nIn the {lasted} from {}: {}.",
            stamp(minutes.at),
            looks(&minutes.what.looks)
        );
    }
}

fn reasons(out: &mut String, transition: &Transition) {
    out.push_str("\nWhy:\n");
    if transition.reasons.is_empty() {
        out.push_str("  all is well\n");
    }
    for why in &transition.reasons {
        let _ = writeln!(out, "  {:<15}  {}", why.code, why.text);
    }
    if transition.findings.is_empty() {
        return;
    }
    out.push_str("What each criterion had found:\n");
    for found in &transition.findings {
        let result = match (found.pass, found.otherwise) {
            (true, _) => "pass",
            (false, Else::Warn) => "warn",
            (false, Else::Degrade) => "degrade",
            (false, Else::Drain) => "drain",
            (false, Else::Down) => "down",
        };
        let _ = writeln!(out, "  {:<15}  {result:<7}  {}", found.criterion, found.text);
    }
}

fn before(out: &mut String, before: &Before) {
    let Before { moves, more, failures } = before;
    if moves.is_empty() && failures.is_empty() {
        return;
    }
    out.push_str("In the ten minutes before:\n");
    for failure in failures {
        let looks = if failure.count == 1 { "look" } else { "looks" };
        let (count, last) = (failure.count, stamp(failure.last));
        let _ = writeln!(
            out,
            "  {last}  {count} {looks} at the node failed, {}: {}",
            failure.code, failure.text
        );
    }
    for moved in moves {
        let id = moved.id.get(..11).unwrap_or(&moved.id);
        let name = if moved.nickname.is_empty() {
            id.to_owned()
        } else {
            format!("{} ({id})", moved.nickname)
        };
        let what =
            moved.lost.as_ref().map_or_else(|| "came".to_owned(), |why| format!("was lost, {why}"));
        let _ = writeln!(out, "  {}  storage server {name} {what}", stamp(moved.at));
    }
    if *more > 0 {
        let _ = writeln!(out, "  and {more} more storage servers came or were lost");
    }
}

/// Looks at the node, in a sentence without its end.
#[must_use]
pub fn looks(looks: &Looks) -> String {
    let mut out = format!("{} looks at the node went well", looks.good);
    if looks.good > 0 {
        let _ = write!(
            out,
            ", in {:.1} ms on average and {:.1} ms at most",
            looks.mean_ms, looks.max_ms
        );
    }
    for (n, (code, count)) in looks.failed.iter().enumerate() {
        let failed = if n == 0 { "; those that failed: " } else { ", " };
        let _ = write!(out, "{failed}{count} {code}");
    }
    if let Some(usable) = looks.usable {
        let _ = write!(
            out,
            "; {} storage servers usable at least, {} at last",
            usable.least, usable.last
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::record::{Failures, Found, Gap, Minutes, Move, Range, Why};
    use super::*;
    use crate::overrides::parse_rfc3339;

    fn time(clock: &str) -> SystemTime {
        parse_rfc3339(&format!("2026-11-24T{clock}Z")).unwrap()
    }

    fn standing_of(state: &str) -> Standing {
        Standing { state: state.to_owned(), degraded: false, forced: false, weight: 100 }
    }

    fn transition(
        seq: u64,
        at: &str,
        from: Option<&str>,
        to: &str,
        why: &[(&str, &str)],
    ) -> Dated<Transition> {
        let reason = |(code, text): &(&str, &str)| Why {
            code: (*code).to_owned(),
            criterion: None,
            otherwise: Else::Down,
            text: (*text).to_owned(),
        };
        let what = Transition {
            service: "write".to_owned(),
            from: from.map(standing_of),
            to: standing_of(to),
            reasons: why.iter().map(reason).collect(),
            findings: Vec::new(),
            before: Before::default(),
        };
        Dated { seq, at: time(at), what }
    }

    fn history() -> History {
        let few = ("servers-few", "4 of 7 storage servers usable, 6 refused");
        let mut down = transition(3, "14:02:51", Some("up"), "down", &[few]);
        down.what.findings.push(Found {
            criterion: "servers".to_owned(),
            pass: false,
            code: "servers-few".to_owned(),
            otherwise: Else::Down,
            observed: Some(4.0),
            threshold: Some(7.0),
            text: few.1.to_owned(),
        });
        let lost = |id: &str| Move {
            at: time("14:02:50"),
            id: id.to_owned(),
            nickname: "store3".to_owned(),
            lost: Some("refused".to_owned()),
        };
        down.what.before = Before {
            moves: vec![lost("v0-abcdefghijklmnop")],
            more: 2,
            failures: vec![Failures {
                code: "timeout".to_owned(),
                text: "no answer within 1s".to_owned(),
                count: 2,
                last: time("14:02:40"),
            }],
        };
        let looks = Looks {
            good: 50,
            failed: BTreeMap::from([("timeout".to_owned(), 2)]),
            mean_ms: 3.25,
            max_ms: 8.0,
            usable: Some(Range { least: 4, last: 4 }),
        };
        let minute = Minutes { lasted_ms: 60_000, looks, ..Minutes::default() };
        History {
            since: time("00:00:00"),
            until: time("18:00:00"),
            complete_from: time("12:00:00"),
            kept: "memory".to_owned(),
            missing: 0,
            now: BTreeMap::new(),
            transitions: vec![
                transition(
                    1,
                    "12:00:00",
                    None,
                    "down",
                    &[("starting", "no look at the node has finished yet")],
                ),
                transition(2, "12:00:02", Some("down"), "up", &[]),
                down,
                transition(4, "14:03:30", Some("down"), "down", &[("refused", "nobody listens")]),
                transition(5, "14:04:10", Some("down"), "up", &[]),
                transition(
                    6,
                    "17:00:00",
                    None,
                    "down",
                    &[("starting", "no look at the node has finished yet")],
                ),
            ],
            minutes: vec![Dated { seq: 9, at: time("14:03:00"), what: minute }],
            gaps: vec![Gap {
                from: time("16:00:00"),
                until: time("17:00:00"),
                why: "hcf was not running".to_owned(),
            }],
            next: None,
        }
    }

    #[test]
    fn why_it_was_down_is_said_with_numbers_and_what_changed_just_before() {
        let text = explain(&history(), "write", time("14:03:00"));
        assert_eq!(
            text,
            "write at 2026-11-24T14:03:00Z: down, since 2026-11-24T14:02:51Z (9 s before).
The reasons were others from 2026-11-24T14:03:30Z on.
Before that it was up with weight 100.

Why:
  servers-few      4 of 7 storage servers usable, 6 refused
What each criterion had found:
  servers          down     4 of 7 storage servers usable, 6 refused
In the ten minutes before:
  2026-11-24T14:02:40Z  2 looks at the node failed, timeout: no answer within 1s
  2026-11-24T14:02:50Z  storage server store3 (v0-abcdefgh) was lost, refused
  and 2 more storage servers came or were lost

In the 1 min 0 s from 2026-11-24T14:03:00Z: 50 looks at the node went well, in 3.2 ms on average and 8.0 ms at most; those that failed: 2 timeout; 4 storage servers usable at least, 4 at last.
"
        );
    }

    #[test]
    fn a_state_that_lasts_is_told_from_its_beginning() {
        let text = explain(&history(), "write", time("14:04:00"));
        for words in [
            "down, since 2026-11-24T14:02:51Z (1 min 9 s before).\nIt was up with weight 100 from 2026-11-24T14:04:10Z on, 1 min 19 s later.",
            "It began with (servers-few: 4 of 7 storage servers usable, 6 refused).\nIn the ten minutes before:",
            "Since 2026-11-24T14:03:30Z it was so:\n\nWhy:\n  refused          nobody listens\n",
        ] {
            assert!(text.contains(words), "{words}\n{text}");
        }
    }

    #[test]
    fn nothing_is_guessed_of_times_without_hcf() {
        let text = explain(&history(), "write", time("16:30:00"));
        assert_eq!(
            text,
            "write at 2026-11-24T16:30:00Z: not known; hcf was not running from 2026-11-24T16:00:00Z to 2026-11-24T17:00:00Z.
Before that it was up with weight 100, since 2026-11-24T14:04:10Z.
After it, it was down (starting: no look at the node has finished yet).
"
        );
        let text = explain(&history(), "write", time("11:00:00"));
        assert!(
            text.ends_with("not known; what is kept begins at 2026-11-24T12:00:00Z.\n"),
            "{text}"
        );
        assert!(explain(&history(), "other", time("14:03:00")).contains("not known"));
        let text = explain(&history(), "write", time("17:00:01"));
        assert!(
            text.contains(", to this day.\nThat was the first verdict after hcf had started.\n"),
            "{text}"
        );
    }
}
