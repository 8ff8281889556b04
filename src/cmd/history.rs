//! `hcf history` and `hcf explain`: what a running sidecar keeps of what was, and what that means.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::Method;
use serde_json::Value;

use super::sidecar::Place;
use super::{Failure, exit, print, runtime};
use crate::cli;
use crate::config::is_word;
use crate::counts::SAID;
use crate::history::explain::{explain, length, stamp};
use crate::history::record::{Gap, History};
use crate::overrides::parse_rfc3339;

pub(super) fn run(args: &cli::History) -> Result<u8, Failure> {
    let history = runtime()?.block_on(fetch(&args.look, &args.since, args.service.as_deref()))?;
    let text = if args.json {
        let json = serde_json::to_string_pretty(&history);
        json.map_err(anyhow::Error::from)? + "\n"
    } else {
        table(&history)
    };
    print(&text)?;
    let up = history.now.values().all(|standing| standing.state == "up");
    Ok(if up { exit::OK } else { exit::FAILED })
}

pub(super) fn why(args: &cli::Explain) -> Result<u8, Failure> {
    let now = SystemTime::now();
    let at = args.at.as_deref().map_or(Ok(now), |text| time(text, now).map_err(Failure::Usage))?;
    let service = &args.service;
    // The last change may have been long before.
    let history = runtime()?.block_on(fetch(&args.look, "7d", Some(service)))?;
    print(&explain(&history, service, at))?;
    let was = history.transitions.iter().rev().find(|transition| transition.at <= at);
    let unknown = history.gaps.iter().any(|gap| gap.from < at && at < gap.until);
    let up = !unknown && was.is_some_and(|was| was.what.to.state == "up");
    Ok(if up { exit::OK } else { exit::FAILED })
}

/// The whole answer, which may come in parts.
async fn fetch(
    args: &cli::LookArgs,
    since: &str,
    service: Option<&str>,
) -> Result<History, Failure> {
    let mut path =
        format!("/v1/history?since={}", since.replace('+', "%2B").replace([' ', '&', '#'], ""));
    if let Some(service) = service {
        if !is_word(service) {
            return Err(Failure::Usage(format!("`{service}` is not the name of a service")));
        }
        let _ = write!(path, "&service={service}");
    }
    Place::first(args, async |place| {
        let mut whole = part(&place, &path, args.timeout).await?;
        while let Some(next) = whole.next.take() {
            let more = part(&place, &next, args.timeout).await?;
            whole.transitions.extend(more.transitions);
            whole.minutes.extend(more.minutes);
            whole.gaps.extend(more.gaps);
            whole.next = more.next;
        }
        Ok(whole)
    })
    .await
}

async fn part(place: &Place, path: &str, timeout: Duration) -> Result<History, Failure> {
    let (status, value) = place.ask(Method::GET, path, None, timeout).await?;
    let detail = || {
        let detail = value.get("detail").and_then(Value::as_str);
        detail.unwrap_or("it gave no reason").to_owned()
    };
    match status {
        200 => serde_json::from_value(value).map_err(|_| {
            Failure::NoSidecar(format!(
                "what answers at {place} is not a sidecar's status listener"
            ))
        }),
        400 => Err(Failure::Usage(detail())),
        404 if value
            .get("detail")
            .is_some_and(|detail| detail.as_str().is_some_and(|d| d.contains("no service"))) =>
        {
            Err(Failure::Usage(detail()))
        }
        503 => Err(anyhow::anyhow!("{}", detail()).into()),
        _ => Err(Failure::NoSidecar(format!(
            "{place} answered with status {status}, so it is no sidecar that keeps a history"
        ))),
    }
}

/// A line for each change and each gap, in their order, and what the time was spent with.
fn table(history: &History) -> String {
    let mut lines: Vec<(SystemTime, String)> = Vec::new();
    let width = history.now.keys().map(String::len).max().unwrap_or(0);
    for transition in &history.transitions {
        let what = &transition.what;
        let from = what.from.as_ref().map_or("start", |from| from.word());
        let why = what
            .reasons
            .first()
            .map_or_else(|| "all is well".to_owned(), |why| format!("{}: {}", why.code, why.text));
        let (at, to) = (stamp(transition.at), what.to.word());
        lines.push((
            transition.at,
            format!("{at}  {:<width$}  {from:>8} -> {to:<8}  {why}\n", what.service),
        ));
    }
    for Gap { from, until, why } in &history.gaps {
        lines
            .push((*from, format!("{}  not known until {}: {why}\n", stamp(*from), stamp(*until))));
    }
    // Without a clock that was set, this is their order already.
    lines.sort_by_key(|(at, _)| *at);
    let mut out: String = lines.into_iter().map(|(_, line)| line).collect();
    if !out.is_empty() {
        out.push('\n');
    }
    for name in history.now.keys() {
        let _ = writeln!(out, "{name}: {}", spent(history, name));
    }
    if history.complete_from > history.since {
        let _ = writeln!(out, "What is kept begins at {}.", stamp(history.complete_from));
    }
    if history.kept == "memory" {
        out.push_str("It is kept in memory only, and gone with a stop; state_dir names a place.\n");
    }
    if history.missing > 0 {
        let _ =
            writeln!(out, "{} records could not be kept or read since the start.", history.missing);
    }
    out
}

/// The shares of the time up to the last full minute.
fn spent(history: &History, service: &str) -> String {
    let mut shares = BTreeMap::<&str, f64>::new();
    let (mut known, mut least, mut end) = (0.0, u64::MAX, history.since);
    for minutes in &history.minutes {
        let (begin, lasted) = (minutes.at, minutes.what.lasted());
        end = end.max(begin + lasted);
        let Some(spent) = minutes.what.services.get(service) else { continue };
        // The first ones may have begun before.
        let before = history.since.duration_since(begin).unwrap_or_default();
        let share = lasted.saturating_sub(before).as_secs_f64() / lasted.as_secs_f64().max(1e-9);
        least = least.min(spent.weight.least);
        for (word, millis) in &spent.states_ms {
            let time = Duration::from_millis(*millis).as_secs_f64() * share;
            *shares.entry(word.as_str()).or_default() += time;
            known += time;
        }
    }
    let all = end.duration_since(history.since).unwrap_or_default().as_secs_f64();
    if known <= 0.0 {
        return "no full minute yet".to_owned();
    }
    let percent = |time: f64| format!("{:.2} %", 100.0 * time / all.max(known));
    // In the order in which they get worse.
    let share = |word: &&str| Some(format!("{word} {}", percent(*shares.get(word)?)));
    let mut words: Vec<String> = SAID.iter().filter_map(share).collect();
    if all - known > 1.0 {
        words.push(format!("not known {}", percent(all - known)));
    }
    format!(
        "{} of {}, least weight {least}",
        words.join(", "),
        length(Duration::from_secs_f64(all))
    )
}

/// A time that somebody means: RFC 3339, a time of day in UTC, or a length back.
fn time(text: &str, now: SystemTime) -> Result<SystemTime, String> {
    const DAY: Duration = Duration::from_hours(24);
    let back = || humantime::parse_duration(text).ok().and_then(|length| now.checked_sub(length));
    let of_day = || {
        let mut parts = text.split(':').map(|part| {
            let digits = part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
            part.parse::<u64>().ok().filter(|_| digits)
        });
        let (hour, minute) = (parts.next()??, parts.next()??);
        let second = parts.next().unwrap_or(Some(0))?;
        if parts.next().is_some() || hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let since = now.duration_since(UNIX_EPOCH).ok()?.as_secs();
        let midnight = UNIX_EPOCH + Duration::from_secs(since - since % DAY.as_secs());
        let today = midnight + Duration::from_secs(hour * 3600 + minute * 60 + second);
        if today <= now { Some(today) } else { today.checked_sub(DAY) }
    };
    let Some(time) = parse_rfc3339(text).or_else(of_day).or_else(back) else {
        return Err(format!(
            "`{text}` is no time; expected one such as 2026-11-24T14:03:00Z, 14:03 (in UTC), or 10m for ten minutes ago"
        ));
    };
    if time > now {
        return Err(format!("{} lies in the future", stamp(time)));
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let now = parse_rfc3339("2026-11-24T14:03:10Z").unwrap();
        let read = |text| time(text, now).map(stamp);
        for (text, expected) in [
            ("2026-11-24T15:00:00+02:00", "2026-11-24T13:00:00Z"),
            ("14:03", "2026-11-24T14:03:00Z"),
            ("14:03:05", "2026-11-24T14:03:05Z"),
            ("14:04", "2026-11-23T14:04:00Z"),
            ("00:00", "2026-11-24T00:00:00Z"),
            ("10m", "2026-11-24T13:53:10Z"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(expected), "{text}");
        }
        for text in [
            "",
            "24:00",
            "14:60",
            "1:2",
            "+1:02",
            "14:03:05:06",
            "yesterday",
            "99999999999999999999d",
        ] {
            assert!(read(text).unwrap_err().starts_with(&format!("`{text}` is no time")), "{text}");
        }
        assert!(read("2026-11-24T14:03:11Z").unwrap_err().contains("future"));
    }
}
