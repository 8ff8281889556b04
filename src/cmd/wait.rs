//! `hcf wait`: looks at the node itself until a service would be up, by the criteria alone.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{Failure, exit, load, print, runtime};
use crate::cli;
use crate::clock::Clock;
use crate::config::Config;
use crate::health::{Orders, ServiceJudge, State, Verdict};
use crate::lookout;
use crate::tahoe::Canaries;

pub(super) fn run(args: &cli::Wait) -> Result<u8, Failure> {
    let config = load(&args.config.sources())?;
    let name = args.service.as_deref().unwrap_or(&config.default_service).to_owned();
    let Some(service) = config.service(&name) else {
        let known: Vec<&str> = config.services.iter().map(|service| &*service.name).collect();
        let known = known.join(", ");
        return Err(Failure::Usage(format!(
            "there is no service `{name}`; expected one of {known}"
        )));
    };
    let clock = Clock::start();
    let judge = ServiceJudge::new(service.rules.clone(), clock.now());
    let verdict = runtime()?.block_on(watch(&config, clock, judge, args.timeout));
    if verdict.state == State::Up {
        print(&format!("{name} is up\n"))?;
        return Ok(exit::OK);
    }
    let reasons: Vec<String> = verdict.reasons.iter().map(ToString::to_string).collect();
    let waited = humantime::format_duration(args.timeout);
    Err(anyhow::anyhow!("{name} is not up after {waited}: {}", reasons.join("; ")).into())
}

/// Looks until the service is up or the time is over, and returns the last verdict.
async fn watch(config: &Config, clock: Clock, mut judge: ServiceJudge, time: Duration) -> Verdict {
    let node = &config.node;
    let (_plan, planned) = watch::channel(lookout::plan(config));
    let (canaries, results) = Canaries::new(clock, planned);
    let mut tasks = JoinSet::new();
    tasks.spawn(canaries.run(CancellationToken::new()));
    let mut prober = lookout::prober(config, clock, results);
    let deadline = Instant::now() + time;
    let none = Orders::default();
    loop {
        let started = Instant::now();
        let Ok(look) = timeout_at(deadline, prober.look()).await else { break };
        judge.look(&look);
        if judge.verdict(clock.now(), &none).state == State::Up {
            break;
        }
        let next = started + node.every;
        if next >= deadline {
            // The last look's word, while it counts.
            break;
        }
        sleep_until(next).await;
    }
    judge.verdict(clock.now(), &none)
}
