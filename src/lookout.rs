//! From a configuration to what looks at its node: only what a criterion asks for is looked at.

use tokio::sync::watch;

use crate::clock::Clock;
use crate::config::Config;
use crate::health::{Canary, Chosen, Rule};
use crate::tahoe::{Extras, Measures, Plan, Prober, Results, Way};

/// The way to the node.
#[must_use]
pub fn way(config: &Config) -> Way {
    let node = &config.node;
    Way::new(node.target.clone(), node.dir.as_ref(), node.overridden)
}

/// The canaries that criteria ask for, and where they fly.
#[must_use]
pub fn plan(config: &Config) -> Plan {
    Plan { way: way(config), canaries: canaries(config) }
}

/// What looks at the node; canaries' results come from `results`.
#[must_use]
pub fn prober(config: &Config, clock: Clock, results: watch::Receiver<Results>) -> Prober {
    let node = &config.node;
    let mut extras = Extras::default();
    if let Some(dir) = &node.dir {
        if rules(config).any(|rule| matches!(rule, Rule::Spool { .. })) {
            extras = extras.spool(dir);
        }
        let certified = |rule: &Rule| matches!(rule, Rule::Blessed { who: Chosen::Certified, .. });
        if let (true, Ok(keys)) = (rules(config).any(certified), &dir.grid_managers) {
            extras = extras.certificates(dir, keys.clone());
        }
    }
    let canaries = canaries(config);
    if !canaries.is_empty() {
        extras = extras.canaries(results, canaries);
    }
    Prober::new(way(config), node.dir.as_ref(), node.timeout, clock)
        .with(extras)
        .measuring(measures(config))
}

/// What any service's weight is made of.
fn measures(config: &Config) -> Measures {
    let mut measures = Measures::default();
    for weighing in config.services.iter().filter_map(|service| service.rules.weighing.as_ref()) {
        measures.host |= weighing.load.is_some();
        measures.node |= weighing.node.is_some();
    }
    measures
}

/// Each once.
fn canaries(config: &Config) -> Vec<Canary> {
    let canary = |rule: &Rule| match rule {
        Rule::Canary(canary) => Some(canary.clone()),
        _ => None,
    };
    let mut canaries: Vec<Canary> = rules(config).filter_map(canary).collect();
    canaries.sort();
    canaries.dedup();
    canaries
}

fn rules(config: &Config) -> impl Iterator<Item = &Rule> {
    let criteria = config.services.iter().flat_map(|service| &service.rules.criteria);
    criteria.map(|criterion| &criterion.rule)
}
