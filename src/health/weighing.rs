//! How much work a node can take: what was measured, turned into a share of full work.
//!
//! Each part is a straight line from all of the work to the least of it, and the worst part counts. A share that is
//! published moves only when it has moved far enough, or for long enough, so that noise does not make a balancer
//! rebalance.

use std::fmt::Write as _;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Facts, Finding, Moment, Weight};

/// What a service's weight is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weighing {
    /// The usable storage servers, from as many as the criterion `servers` needs to this many; to all that the node knows
    /// for `Some(None)`.
    pub servers: Option<Option<usize>>,
    /// The moving average of the status page's answer time, in milliseconds.
    pub latency: Option<Scale>,
    /// The machine's run queue per core, in thousandths.
    pub load: Option<Scale>,
    /// The share of a core that the node uses, in thousandths.
    pub node: Option<Scale>,
    /// The least share: what is worse is for criteria.
    pub min: Weight,
    /// A share that moves by at least this much is published at once.
    pub step: u8,
    /// One that moves by less is published after this time.
    pub settle: Duration,
}

/// A measure: at `full` or better a node takes all work, at `zero` or worse the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// All of the work, up to here.
    pub full: u32,
    /// The least of it, from here on. More than `full`.
    pub zero: u32,
}

/// The share of the last ten seconds in which something waited for the processor, memory or the disk.
const PRESSURE: Scale = Scale { full: 200, zero: 800 };

/// One part of a weight, for showing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Part {
    /// Its name, as in the configuration.
    pub name: String,
    /// The share that it allows, in percent.
    pub percent: u8,
    /// The measure, in a sentence.
    pub text: String,
}

impl Scale {
    /// The share at `value`, from 100 down to `min`.
    fn share(self, value: u32, min: Weight) -> u8 {
        let (min, span) = (u32::from(min.percent()), self.zero.saturating_sub(self.full).max(1));
        let beyond = value.saturating_sub(self.full).min(span);
        let lost = u64::from(100 - min) * u64::from(beyond) / u64::from(span);
        u8::try_from(100 - lost).unwrap_or(100)
    }
}

impl Weighing {
    /// The parts, by what a good look saw. What was not measured is no part.
    pub(super) fn parts(
        &self,
        facts: &Facts,
        findings: &[Finding],
        latency: Duration,
    ) -> Vec<Part> {
        let mut parts = Vec::new();
        let mut add = |name: &str, percent, text: String| {
            parts.push(Part { name: name.to_owned(), percent, text });
        };
        let servers = findings.iter().find(|finding| finding.criterion == "servers");
        if let (Some(full), Some(servers)) = (self.servers, servers) {
            let all = count(full.unwrap_or(facts.servers.len()));
            let (usable, needed) = (whole(servers.observed), whole(servers.threshold));
            // Counted from the good end, as the other measures are.
            let scale = Scale { full: 0, zero: all.saturating_sub(needed) };
            // With no more than needed there is nothing between all and nothing.
            let percent =
                if all <= needed { 100 } else { scale.share(all.saturating_sub(usable), self.min) };
            add("servers", percent, format!("{usable} of {all} storage servers, {needed} needed"));
        }
        if let Some(scale) = self.latency {
            let ms = u32::try_from(latency.as_millis()).unwrap_or(u32::MAX);
            add("latency", scale.share(ms, self.min), format!("the node answers in {ms} ms"));
        }
        if let (Some(scale), Some(host)) = (self.load, &facts.host) {
            let mut percent = scale.share(host.run_queue, self.min);
            let mut text = format!("{} runnable per core", thousandths(host.run_queue));
            for (what, pressure) in ["processor", "memory", "disk"].iter().zip(host.pressure) {
                if let Some(pressure) = pressure {
                    percent = percent.min(PRESSURE.share(pressure, self.min));
                    let _ = write!(text, ", {} % waiting for the {what}", pressure / 10);
                }
            }
            add("load", percent, text);
        }
        if let (Some(scale), Some(busy)) = (self.node, facts.node_busy) {
            let text = format!("the node uses {} of a core", thousandths(busy));
            add("node", scale.share(busy, self.min), text);
        }
        parts
    }
}

fn thousandths(value: u32) -> String {
    format!("{}.{:02}", value / 1000, value % 1000 / 10)
}

fn count(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count, kept as a number that is shown"
)]
fn whole(value: f64) -> u32 {
    value as u32
}

/// A share that does not follow noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Smoothed {
    published: Option<Weight>,
    /// Since when what was measured is another one.
    differs: Option<Moment>,
}

impl Smoothed {
    /// Nothing was measured yet.
    pub(super) const NEW: Self = Self { published: None, differs: None };

    /// What is published.
    pub(super) fn share(self) -> Weight {
        self.published.unwrap_or(Weight::FULL)
    }

    /// Takes into account what was measured at `now`.
    pub(super) fn take(&mut self, now: Moment, parts: &[Part], weighing: &Weighing) {
        let measured = parts.iter().map(|part| part.percent).min().unwrap_or(100);
        let measured = Weight::from(measured);
        let far = match self.published {
            None => true,
            Some(published) => {
                published.percent().abs_diff(measured.percent()) >= weighing.step.max(1)
            }
        };
        if self.published == Some(measured) {
            self.differs = None;
        } else if far || now.since(*self.differs.get_or_insert(now)) >= weighing.settle {
            *self = Self { published: Some(measured), differs: None };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Code, Else, Host};
    use super::*;

    fn weighing() -> Weighing {
        Weighing {
            servers: Some(None),
            latency: Some(Scale { full: 50, zero: 2000 }),
            load: Some(Scale { full: 700, zero: 2000 }),
            node: Some(Scale { full: 500, zero: 950 }),
            min: Weight::clamped(10),
            step: 5,
            settle: Duration::from_secs(5),
        }
    }

    fn found(usable: u32, needed: u32) -> Vec<Finding> {
        vec![Finding {
            criterion: "servers",
            pass: usable >= needed,
            code: Code::ServersFew,
            otherwise: Else::Down,
            observed: usable.into(),
            threshold: needed.into(),
            text: String::new(),
        }]
    }

    fn percent(weighing: &Weighing, facts: &Facts, usable: u32, ms: u64) -> Vec<(String, u8)> {
        let parts = weighing.parts(facts, &found(usable, 7), Duration::from_millis(ms));
        parts.into_iter().map(|part| (part.name, part.percent)).collect()
    }

    #[test]
    fn each_part_is_a_line_from_all_to_the_least() {
        let ten = Weighing { servers: Some(Some(10)), ..weighing() };
        let host = |run_queue, pressure| Some(Host { run_queue, pressure });
        for (usable, ms, queue, busy, shares) in [
            (10, 1, 100, 100, [100, 100, 100, 100]),
            (9, 50, 700, 500, [70, 100, 100, 100]),
            (8, 1025, 1350, 725, [40, 55, 55, 55]),
            (7, 2000, 2000, 950, [10, 10, 10, 10]),
            (3, 60_000, 90_000, 1000, [10, 10, 10, 10]),
        ] {
            let facts =
                Facts { host: host(queue, [None; 3]), node_busy: Some(busy), ..Facts::default() };
            let said = percent(&ten, &facts, usable, ms);
            let names = ["servers", "latency", "load", "node"];
            let wanted: Vec<_> = names.iter().map(|n| (*n).to_owned()).zip(shares).collect();
            assert_eq!(said, wanted, "{usable} {ms} {queue} {busy}");
        }
        let waits = Facts { host: host(0, [Some(0), Some(500), None]), ..Facts::default() };
        assert_eq!(percent(&ten, &waits, 10, 1)[2], ("load".to_owned(), 55));
        assert_eq!(percent(&ten, &Facts::default(), 10, 1).len(), 2, "what is unknown is no part");
    }

    #[test]
    fn a_share_moves_by_steps_or_when_it_has_settled() {
        let mut share = Smoothed::NEW;
        let mut take = |second, percent| {
            let part = Part { name: String::new(), percent, text: String::new() };
            share.take(Moment::after_epoch(Duration::from_secs(second)), &[part], &weighing());
            share.share().percent()
        };
        assert_eq!((take(0, 80), take(1, 84), take(2, 76)), (80, 80, 80));
        assert_eq!((take(3, 80), take(4, 83), take(8, 83)), (80, 80, 80), "it was back meanwhile");
        assert_eq!(take(9, 82), 82, "off for five seconds");
        assert_eq!((take(10, 87), take(11, 82)), (87, 82), "by a step at once");
    }

    proptest! {
        #[test]
        fn worse_never_weighs_more(full in 0_u32..1000, span in 1_u32..5000, least in 1_u64..101,
                                   value in 0_u32..9000, more in 0_u32..9000) {
            let (scale, min) = (Scale { full, zero: full + span }, Weight::clamped(least));
            let (one, two) = (scale.share(value, min), scale.share(value + more, min));
            prop_assert!(two <= one && one <= 100 && two >= min.percent());
        }

        #[test]
        fn what_is_published_is_near_what_was_measured(history in proptest::collection::vec((1_u64..4, 1_u8..=100), 1..50)) {
            let (mut share, mut now, mut off) = (Smoothed::NEW, 0, 0);
            for (passed, percent) in history {
                now += passed;
                let part = Part { name: String::new(), percent, text: String::new() };
                share.take(Moment::after_epoch(Duration::from_secs(now)), &[part], &weighing());
                let error = share.share().percent().abs_diff(percent);
                prop_assert!(error < 5, "{error}");
                off = if error == 0 { 0 } else if off == 0 { now } else { off };
                prop_assert!(off == 0 || now - off < 5, "{off} {now}");
            }
        }
    }
}
