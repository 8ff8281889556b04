//! The last 24 hours for the page: a few bytes for each minute, and what people see of them, prepared.
//!
//! Of each minute the worst state counts, so that no outage is too short to be seen; each state has a height of its own,
//! so that colour is not the only sign; and whatever the picture shows is said in words, too.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::record::{Event, Minutes, Record, Standing, Transition};
use super::short;
use crate::counts::SAID;
use crate::overrides::rfc3339;

/// A day in minutes.
const DAY: usize = 24 * 60;
/// The most runs of one state in one picture, and in all of them together.
const RUNS: usize = 400;
const ALL_RUNS: usize = 800;
/// The parts of all pictures that say more.
const ZONES: usize = 48;
/// The most changes that one part tells.
const TOLD: usize = 2;
/// The most transitions that are remembered of a service, and those that are shown as text.
const MARKS: usize = 64;
const ROWS: usize = 5;
/// The heights of the states in [`SAID`], of 40.
const HEIGHTS: [u8; SAID.len()] = [10, 18, 26, 40, 34];
/// No known state.
const UNKNOWN: u8 = u8::MAX;

/// The last 24 hours of every service.
#[derive(Debug, Default)]
pub(super) struct Timelines(BTreeMap<String, Timeline>);

#[derive(Debug)]
struct Timeline {
    /// By the minute's number, modulo a day.
    slots: Box<[Slot]>,
    /// The number of the last minute that is known.
    newest: u64,
    marks: VecDeque<Mark>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    /// A place in [`SAID`].
    said: u8,
    weight: u8,
}

const EMPTY: Slot = Slot { said: UNKNOWN, weight: 0 };

impl Slot {
    /// The worse of two, with the least weight.
    fn with(self, other: Self) -> Self {
        match (self.said, other.said) {
            (UNKNOWN, _) => other,
            (_, UNKNOWN) => self,
            (a, b) => Self { said: a.max(b), weight: self.weight.min(other.weight) },
        }
    }
}

#[derive(Debug)]
struct Mark {
    at: SystemTime,
    from: &'static str,
    to: &'static str,
    why: String,
}

/// A service's last 24 hours, as the page shows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// An SVG picture.
    pub svg: String,
    /// The same in a sentence.
    pub summary: String,
    /// The hours under the picture.
    pub hours: Vec<String>,
    /// The last transitions, the last one first.
    pub rows: Vec<Row>,
}

/// A transition for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// When.
    pub at: String,
    /// From what.
    pub from: &'static str,
    /// To what.
    pub to: &'static str,
    /// How bad that is: `good`, `mild` or `bad`.
    pub class: &'static str,
    /// Why.
    pub why: String,
}

fn place(word: &str) -> Option<u8> {
    SAID.iter().position(|said| *said == word).and_then(|place| u8::try_from(place).ok())
}

fn name(said: u8) -> &'static str {
    SAID.get(usize::from(said)).copied().unwrap_or("not known")
}

fn minute_of(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 60
}

impl Timelines {
    pub(super) fn record(&mut self, record: &Record) {
        match &record.what {
            Event::Transition(transition) => self.transition(record.at, transition),
            Event::Minutes(minutes) => self.minutes(record.at, minutes),
            Event::Started { .. } | Event::Stopped {} => {}
        }
    }

    pub(super) fn minutes(&mut self, at: SystemTime, minutes: &Minutes) {
        // What is read from a file may say anything.
        let lasted = minutes.lasted().min(Duration::from_hours(24));
        let last = minute_of(at + lasted.saturating_sub(Duration::from_millis(1)));
        for (service, spent) in &minutes.services {
            let worst = spent.states_ms.keys().filter_map(|word| place(word)).max();
            let weight = u8::try_from(spent.weight.least).unwrap_or(100);
            let Some(said) = worst else { continue };
            let timeline = self.0.entry(service.clone()).or_default();
            for minute in minute_of(at)..=last {
                timeline.put(minute, Slot { said, weight });
            }
        }
    }

    pub(super) fn transition(&mut self, at: SystemTime, transition: &Transition) {
        let Transition { service, from, to, reasons, .. } = transition;
        let Some(said) = place(to.word()) else { return };
        let timeline = self.0.entry(service.clone()).or_default();
        let why = reasons.first().map_or_else(
            || "all is well".to_owned(),
            |reason| short(&format!("{}: {}", reason.code, reason.text), 120),
        );
        let from = from.as_ref().map_or("start", |from| place(from.word()).map_or("", name));
        timeline.marks.push_back(Mark { at, from, to: name(said), why });
        if timeline.marks.len() > MARKS {
            timeline.marks.pop_front();
        }
        timeline.put(minute_of(at), Slot { said, weight: to.weight });
    }

    /// What the page shows of the services that there are now.
    pub(super) fn shown<'a>(
        &self,
        now: SystemTime,
        services: impl Iterator<Item = (&'a str, &'a Standing)> + Clone,
    ) -> BTreeMap<String, Shown> {
        let count = services.clone().count().max(1);
        let runs = (ALL_RUNS / count).clamp(8, RUNS);
        // A divisor of a day's hours.
        let zones = [24, 12, 6].into_iter().find(|zones| zones * count <= ZONES).unwrap_or(4);
        let shown = services.filter_map(|(name, standing)| {
            let timeline = self.0.get(name)?;
            Some((name.to_owned(), timeline.shown(name, now, standing, (runs, zones))))
        });
        shown.collect()
    }
}

impl Default for Timeline {
    fn default() -> Self {
        Self { slots: vec![EMPTY; DAY].into(), newest: 0, marks: VecDeque::new() }
    }
}

impl Timeline {
    fn slot(&mut self, minute: u64) -> Option<&mut Slot> {
        self.slots.get_mut(usize::try_from(minute % DAY as u64).unwrap_or_default())
    }

    fn put(&mut self, minute: u64, slot: Slot) {
        let day = DAY as u64;
        if minute >= self.newest + day || self.newest >= minute + day {
            // The first one, or the clock was set.
            self.slots.fill(EMPTY);
            self.newest = minute;
        }
        for between in self.newest + 1..=minute {
            if let Some(old) = self.slot(between) {
                *old = EMPTY;
            }
        }
        self.newest = self.newest.max(minute);
        if let Some(known) = self.slot(minute) {
            *known = known.with(slot);
        }
    }

    fn get(&self, minute: u64) -> Slot {
        if minute > self.newest || minute + DAY as u64 <= self.newest {
            return EMPTY;
        }
        let at = usize::try_from(minute % DAY as u64).unwrap_or_default();
        self.slots.get(at).copied().unwrap_or(EMPTY)
    }

    fn shown(
        &self,
        service: &str,
        now: SystemTime,
        standing: &Standing,
        (runs, zones): (usize, usize),
    ) -> Shown {
        let last = minute_of(now);
        let first = (last + 1).saturating_sub(DAY as u64);
        let mut day: Vec<Slot> = (first..=last).map(|minute| self.get(minute)).collect();
        // What holds now holds in the minute that has not ended.
        if let (Some(slot), Some(said)) = (day.last_mut(), place(standing.word())) {
            *slot = slot.with(Slot { said, weight: standing.weight });
        }
        let summary = summary(&day);
        let start = UNIX_EPOCH + Duration::from_secs(first * 60);
        let mut svg = format!(
            "<svg class=\"day\" role=\"img\" viewBox=\"0 0 {DAY} 66\" preserveAspectRatio=\"none\" \
             aria-label=\"{service}, the last 24 hours: {summary}\">"
        );
        bands(&mut svg, &day, runs);
        weights(&mut svg, &day, runs);
        self.zones(&mut svg, &day, start, zones);
        svg.push_str("</svg>");
        let hours = [0, 6, 12, 18].map(|hour| clock(start + Duration::from_hours(hour)));
        let hours = hours.into_iter().chain(["now".to_owned()]).collect();
        let rows = self.marks.iter().rev().take(ROWS).map(Row::of).collect();
        Shown { svg, summary, hours, rows }
    }

    /// Over the picture, parts of the same width that tell of themselves: a band of a minute is too narrow to be hit.
    fn zones(&self, svg: &mut String, day: &[Slot], start: SystemTime, zones: usize) {
        let width = DAY / zones;
        for (zone, slots) in day.chunks(width).enumerate() {
            let time = |minute: usize| start + Duration::from_secs(minute as u64 * 60);
            let (x, from, until) = (zone * width, time(zone * width), time((zone + 1) * width));
            let mut text = format!("{} to {}: {}", clock(from), clock(until), summary(slots));
            let within: Vec<&Mark> =
                self.marks.iter().filter(|mark| from <= mark.at && mark.at < until).collect();
            for mark in within.iter().take(TOLD) {
                let _ = write!(text, "; {} {}, {}", clock(mark.at), mark.to, mark.why);
            }
            if within.len() > TOLD {
                let _ = write!(text, "; and {} more changes", within.len() - TOLD);
            }
            // Writing to a string cannot fail, here and elsewhere.
            let _ = write!(
                svg,
                "<rect class=\"zone\" x=\"{x}\" width=\"{width}\" height=\"66\"><title>{}</title></rect>",
                escape(&text)
            );
        }
    }
}

/// A path for each state: what it was, to the minute.
fn bands(svg: &mut String, day: &[Slot], most: usize) {
    let runs = runs(day, most, |slot| slot.said);
    for said in states() {
        let height = HEIGHTS.get(usize::from(said)).copied().unwrap_or(2);
        let mut path = String::new();
        for (from, until, _) in runs.iter().filter(|(.., of)| *of == said) {
            let _ = write!(path, "M{from} 66V{}H{until}V66", 66 - height);
        }
        let class = if said == UNKNOWN { "none" } else { name(said) };
        if !path.is_empty() {
            let _ = write!(svg, "<path class=\"{class}\" d=\"{path}\"/>");
        }
    }
}

/// Every state by its place in [`SAID`], and what is not known.
fn states() -> impl Iterator<Item = u8> {
    (0..SAID.len()).filter_map(|said| u8::try_from(said).ok()).chain([UNKNOWN])
}

/// Runs of slots that are alike. When there are too many, slots are put together until there are not, the worst of each.
fn runs<T: PartialEq>(day: &[Slot], most: usize, of: impl Fn(Slot) -> T) -> Vec<(usize, usize, T)> {
    let mut width = 1;
    loop {
        let mut runs: Vec<(usize, usize, T)> = Vec::new();
        for (place, slots) in day.chunks(width).enumerate() {
            let slot = slots.iter().fold(EMPTY, |worst, slot| worst.with(*slot));
            let (from, until) = (place * width, place * width + slots.len());
            let value = of(slot);
            match runs.last_mut() {
                Some((_, end, last)) if *last == value => *end = until,
                _ => runs.push((from, until, value)),
            }
        }
        if runs.len() <= most || width >= day.len() {
            return runs;
        }
        width *= 2;
    }
}

/// The weight while the service was up, as steps of a line.
fn weights(svg: &mut String, day: &[Slot], most: usize) {
    let up = |slot: Slot| (slot.said <= 1).then_some(slot.weight);
    let mut line = String::new();
    for (from, until, weight) in runs(day, most, up) {
        let Some(weight) = weight else { continue };
        // A fifth of the weight: a line above the bands, 20 high.
        let y = 21 - u32::from(weight) / 5;
        let _ = write!(line, "M{from} {y}H{until}");
    }
    if !line.is_empty() {
        let _ = write!(svg, "<path class=\"weight\" d=\"{line}\"/>");
    }
}

/// The shares of the day, in words.
fn summary(day: &[Slot]) -> String {
    let mut words = Vec::new();
    for said in states() {
        let count = day.iter().filter(|slot| slot.said == said).count();
        if count > 0 {
            words.push(format!("{} {}", name(said), span(count)));
        }
    }
    let least = day.iter().filter(|slot| slot.said <= 1).map(|slot| slot.weight).min();
    if let Some(least) = least.filter(|least| *least < 100) {
        words.push(format!("least weight {least} %"));
    }
    words.join(", ")
}

fn span(minutes: usize) -> String {
    match (minutes / 60, minutes % 60) {
        (0, minutes) => format!("{minutes} min"),
        (hours, 0) => format!("{hours} h"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}

/// The time of day, in UTC.
fn clock(time: SystemTime) -> String {
    rfc3339(time).get(11..16).unwrap_or_default().to_owned()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

impl Row {
    fn of(mark: &Mark) -> Self {
        let class = match mark.to {
            "up" => "good",
            "down" => "bad",
            _ => "mild",
        };
        let at = rfc3339(mark.at).get(..19).unwrap_or_default().to_owned() + "Z";
        Self { at, from: mark.from, to: mark.to, class, why: mark.why.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::{Before, Range, Spent, Why};
    use super::*;
    use crate::health::Else;

    const NOW: u64 = 1_700_000_040;

    fn at(secs: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(secs)
    }

    fn minutes(words: &[&str], least: u64, count: u64) -> Minutes {
        let states_ms = words.iter().map(|word| ((*word).to_owned(), 1)).collect();
        let spent = Spent { states_ms, weight: Range { least, last: least } };
        Minutes {
            lasted_ms: count * 60_000,
            services: BTreeMap::from([("write".to_owned(), spent)]),
            ..Minutes::default()
        }
    }

    fn up() -> Standing {
        Standing { state: "up".to_owned(), degraded: false, forced: false, weight: 100 }
    }

    fn shown(timelines: &Timelines, now: u64) -> Shown {
        let standing = up();
        timelines.shown(at(now), [("write", &standing)].into_iter()).remove("write").unwrap()
    }

    fn down(at: SystemTime, text: &str) -> Record {
        let why = Why {
            code: "servers-few".to_owned(),
            criterion: None,
            otherwise: Else::Down,
            text: text.to_owned(),
        };
        let what = Event::Transition(Transition {
            service: "write".to_owned(),
            from: Some(up()),
            to: Standing { state: "down".to_owned(), ..up() },
            reasons: vec![why],
            findings: Vec::new(),
            before: Before::default(),
        });
        Record { seq: 1, at, what }
    }

    #[test]
    fn an_outage_of_a_second_is_seen_with_its_reason_and_unknown_time_is_not_guessed() {
        let mut timelines = Timelines::default();
        timelines.minutes(at(NOW - 7200), &minutes(&["up"], 100, 60));
        timelines.minutes(at(NOW - 3600), &minutes(&["up", "down"], 40, 1));
        timelines.record(&down(at(NOW - 3570), "<b>4</b> of 7 & more"));
        timelines.minutes(at(NOW - 3540), &minutes(&["up"], 100, 59));
        let Shown { svg, summary, hours, rows } = shown(&timelines, NOW);
        assert_eq!(summary, "up 2 h, down 1 min, not known 21 h 59 min");
        assert_eq!(hours.last().map(String::as_str), Some("now"));
        assert_eq!((rows.len(), rows[0].from, rows[0].to, rows[0].class), (1, "up", "down", "bad"));
        assert!(svg.contains("<path class=\"down\" d=\"M1379 66V26H1380V66\"/>"), "{svg}");
        assert!(svg.contains("<path class=\"none\" d=\"M0 66V64H1319V66\"/>"), "{svg}");
        assert!(svg.contains("M1319 1H1379M1380 1H1440"), "{svg}");
        let zone = "<title>20:15 to 21:15: up 59 min, down 1 min; 21:14 down, servers-few: \
                    &lt;b&gt;4&lt;/b&gt; of 7 &amp; more</title>";
        assert!(svg.contains("<title>00:15 to 01:15: not known 1 h</title>"), "{svg}");
        assert!(svg.contains(zone), "{svg}");
        assert!(!svg.contains("<b>") && svg.ends_with("</svg>"), "{svg}");
    }

    #[test]
    fn a_day_of_flapping_is_still_a_short_picture() {
        let mut timelines = Timelines::default();
        for minute in 0..1440 {
            let word = ["up", "down", "drain", "degraded"][usize::try_from(minute % 4).unwrap()];
            timelines
                .minutes(at(NOW - 86_400 + minute * 60), &minutes(&[word], 1 + minute % 100, 1));
            timelines.record(&down(at(NOW - 86_400 + minute * 60), &"x".repeat(1000)));
        }
        let svg = shown(&timelines, NOW).svg;
        assert!(svg.len() < 20 << 10, "{}", svg.len());
        assert!(svg.contains("class=\"down\""), "the worst of each");
        assert_eq!(timelines.0["write"].marks.len(), MARKS);
    }

    #[test]
    fn a_clock_that_is_set_leaves_nothing_of_another_day() {
        let mut timelines = Timelines::default();
        timelines.minutes(at(NOW), &minutes(&["down"], 100, 1));
        // Two days ahead, and back again.
        timelines.minutes(at(NOW + 2 * 86_400), &minutes(&["up"], 100, 1));
        assert_eq!(shown(&timelines, NOW + 2 * 86_400).summary, "up 1 min, not known 23 h 59 min");
        timelines.minutes(at(NOW), &minutes(&["up"], 50, 1));
        assert_eq!(
            shown(&timelines, NOW).summary,
            "up 1 min, not known 23 h 59 min, least weight 50 %"
        );
        // An hour back: what was known of that hour stays, the worse counts.
        timelines.minutes(at(NOW - 3600), &minutes(&["drain"], 100, 1));
        timelines.minutes(at(NOW - 3600), &minutes(&["up"], 100, 1));
        assert!(shown(&timelines, NOW).summary.starts_with("up 1 min, drain 1 min"));
    }
}
