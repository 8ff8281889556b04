//! What judges knew at the last stop.

use std::time::Duration;

use super::memory::parse;
use crate::config::{Config, Sources};
use crate::health::{Facts, Moment, Observation, Orders, ServiceJudge, State};

/// The file of verdicts: whatever it says, judges go on, and no word in it outlasts the last look.
pub(crate) fn verdict_memory(data: &[u8]) {
    let Ok(config) = Config::load(&Sources::default()) else { return };
    let now = Moment::after_epoch(Duration::from_secs(1000));
    for (_, kept) in parse(data, "boot", "hash", now) {
        for service in &config.services {
            let rules = service.rules.clone();
            let later = now + rules.freshness + Duration::from_nanos(1);
            let mut judge = ServiceJudge::resumed(rules, kept.clone());
            let _ = judge.verdict(now, &Orders::default());
            let stale = judge.verdict(later, &Orders::default());
            assert!(stale.state != State::Up, "it is up, and nobody has looked: {stale:?}");
            let took = Duration::from_millis(5);
            judge.look(&Observation { finished: later, took, outcome: Ok(Facts::default()) });
            let seen = judge.verdict(later, &Orders::default());
            assert!(seen.seq >= stale.seq && seen.weight.percent() <= 100);
            let kept = serde_json::to_vec(&judge.kept());
            assert!(
                kept.is_ok_and(|kept| serde_json::from_slice::<crate::health::Kept>(&kept).is_ok())
            );
        }
    }
}
