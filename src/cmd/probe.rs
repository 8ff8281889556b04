//! `hcf probe`: one look at the node, judged by the criteria alone.

use std::num::NonZeroU32;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::report::Report;
use super::{Failure, load, print, runtime};
use crate::cli;
use crate::clock::Clock;
use crate::config::Config;
use crate::health::{Damping, Observation, Orders, Rules, ServiceJudge};
use crate::lookout;
use crate::tahoe::Canaries;

pub(super) fn run(args: &cli::Probe) -> Result<u8, Failure> {
    let config = load(&args.config.sources())?;
    let (clock, look) = runtime()?.block_on(async {
        let clock = Clock::start();
        let (_plan, planned) = watch::channel(lookout::plan(&config));
        let (mut canaries, results) = Canaries::new(clock, planned);
        canaries.round().await;
        // Nothing else is waited for.
        drop(canaries);
        (clock, lookout::prober(&config, clock, results).look().await)
    });
    let answer = judge(&config, clock, &look);
    let (report, value) = Report::read(answer, args.service.as_deref())?;
    print(&if args.json { format!("{value:#}\n") } else { report.table() })?;
    Ok(report.exit())
}

/// The look as `/v1/status` would show it, were one good look enough.
fn judge(config: &Config, clock: Clock, look: &Observation) -> Value {
    let mut services = Map::new();
    for service in &config.services {
        let at_once =
            Damping { rise: NonZeroU32::MIN, fall: NonZeroU32::MIN, hold: Duration::ZERO };
        let rules = Rules { damping: at_once, ramp: Duration::ZERO, ..service.rules.clone() };
        let mut judge = ServiceJudge::new(rules, clock.now());
        judge.look(look);
        let verdict = judge.verdict(look.finished, &Orders::default());
        let shown = json!({
            "state": verdict.state,
            "degraded": verdict.degraded,
            "weight": verdict.weight,
            "reasons": verdict.reasons,
            "findings": verdict.findings,
        });
        services.insert(service.name.to_string(), shown);
    }
    let failure = look.outcome.as_ref().err();
    let nickname = config.node.dir.as_ref().map_or("", |dir| &dir.nickname);
    json!({
        "node": {
            "url": config.node.target.to_string(),
            "nickname": nickname,
            "answer_ms": look.took.as_secs_f64() * 1e3,
            "failure": failure.map(|f| json!({"code": f.kind.code(), "text": f.text})),
        },
        "services": services,
    })
}
