//! What becomes of each node: pure, and the same for the same input.
//!
//! A node is in by its own sidecar's word alone. When fewer are in than `min_available` wants, the least
//! bad of the others are kept in as degraded; but never one that is certainly down, or that would lose
//! data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::health::{Else, State, Weight};

/// What a sidecar last said of one service.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Word {
    /// What to do with the node.
    pub(super) state: State,
    /// Up, but not as it should be.
    #[serde(default)]
    pub(super) degraded: bool,
    /// The share of full work, meant only when it is up.
    pub(super) weight: Weight,
    /// Since when, as the sidecar's clock has it.
    #[serde(default)]
    pub(super) since: String,
    /// Why, worst first.
    #[serde(default)]
    pub(super) reasons: Vec<Why>,
}

/// One reason.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Why {
    /// The stable code; a newer sidecar may know more of them.
    pub(super) code: String,
    /// The criterion that failed; none when no criterion was asked.
    #[serde(default)]
    pub(super) criterion: Option<String>,
    /// What the failure does to the service.
    #[serde(rename = "else")]
    pub(super) otherwise: Else,
    /// A sentence.
    #[serde(default)]
    pub(super) text: String,
}

/// What is known of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// The last word on each service; empty before the first.
    pub(super) words: BTreeMap<String, Word>,
    /// The sidecar has been silent for longer than its last word counts.
    pub(super) silent: bool,
}

/// Envoy's health of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum Health {
    /// Up.
    Healthy,
    /// Up, but not as it should be; or kept in.
    Degraded,
    /// No new requests.
    Draining,
    /// No requests.
    Unhealthy,
}

impl Health {
    /// Whether the node gets requests.
    pub(super) const fn is_in(self) -> bool {
        matches!(self, Self::Healthy | Self::Degraded)
    }
}

/// What Envoy is told of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Ruling {
    /// Its health.
    pub(super) health: Health,
    /// Its share.
    pub(super) weight: Weight,
    /// Whether it can be read from.
    pub(super) read: bool,
    /// Whether it can be written to.
    pub(super) write: bool,
    /// It is in only because too few are.
    pub(super) kept: bool,
}

/// How bad a node is that might be kept in; the least comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Bad {
    /// A working node that should get no new work.
    Draining,
    /// Nobody knows; it was up.
    Silent,
    /// It answers, and fails a criterion.
    Failing,
}

/// What becomes of each node, in the order of `nodes`. `service` decides, and at least `min_available`
/// percent of them (rounded up) are kept in as far as that is harmless.
pub(super) fn rule(nodes: &[Known], service: &str, min_available: u8) -> Vec<Ruling> {
    let mut rulings: Vec<Ruling> = nodes.iter().map(|node| by_word(node, service)).collect();
    let wanted = (nodes.len() * usize::from(min_available.min(100))).div_ceil(100);
    let lacking = wanted.saturating_sub(rulings.iter().filter(|r| r.health.is_in()).count());
    let bad = |(at, node)| Some((badness(node, service)?, at));
    let mut candidates: Vec<(Bad, usize)> = nodes
        .iter()
        .enumerate()
        .zip(&rulings)
        .filter(|(_, ruling)| !ruling.health.is_in())
        .filter_map(|(node, _)| bad(node))
        .collect();
    candidates.sort_unstable();
    for (_, at) in candidates.into_iter().take(lacking) {
        if let (Some(ruling), Some(node)) = (rulings.get_mut(at), nodes.get(at)) {
            *ruling = kept(*ruling, node, service);
        }
    }
    rulings
}

/// What the node's own sidecar wants.
fn by_word(node: &Known, service: &str) -> Ruling {
    let word = |name: &str| node.words.get(name).filter(|_| !node.silent);
    let is_up = |name: &str| word(name).is_some_and(|word| word.state == State::Up);
    let (health, weight) = match word(service) {
        Some(Word { state: State::Up, degraded: false, weight, .. }) => (Health::Healthy, *weight),
        Some(Word { state: State::Up, weight, .. }) => (Health::Degraded, *weight),
        Some(Word { state: State::Drain | State::Maint, .. }) => (Health::Draining, Weight::FULL),
        Some(Word { state: State::Down, .. }) | None => (Health::Unhealthy, Weight::FULL),
    };
    Ruling { health, weight, read: is_up("read"), write: is_up("write"), kept: false }
}

/// How bad a node is that its sidecar does not want in; `None` for one that is never kept.
fn badness(node: &Known, service: &str) -> Option<Bad> {
    let word = node.words.get(service)?;
    // Without its servers a node accepts changes, and they vanish when the servers come back. Every
    // service but the built-in `read` may be one that writes.
    let writes = service != "read";
    let loses = |why: &Why| why.criterion.as_deref() == Some("servers");
    if writes && word.reasons.iter().any(loses) {
        return None;
    }
    let bad = match word.state {
        State::Up => node.silent.then_some(Bad::Silent)?,
        _ if node.silent => return None,
        State::Drain => Bad::Draining,
        // Only a node that answered fails a criterion; whatever else takes one down is certain, or may be.
        State::Down => {
            let mut heavy = word.reasons.iter().filter(|why| why.otherwise > Else::Warn).peekable();
            heavy.peek()?;
            heavy.all(|why| why.criterion.is_some()).then_some(Bad::Failing)?
        }
        State::Maint => return None,
    };
    Some(bad)
}

fn kept(ruling: Ruling, node: &Known, service: &str) -> Ruling {
    let last = node.words.get(service).filter(|word| word.state == State::Up);
    Ruling {
        health: Health::Degraded,
        weight: last.map_or(Weight::FULL, |word| word.weight),
        // It is kept for this service, and for no other.
        read: ruling.read || service == "read",
        write: ruling.write || service == "write",
        kept: true,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn why(criterion: Option<&str>, otherwise: Else) -> Why {
        let code = criterion.unwrap_or("timeout").to_owned();
        Why { code, criterion: criterion.map(str::to_owned), otherwise, text: String::new() }
    }

    fn word(state: State, reasons: Vec<Why>) -> Word {
        Word { state, degraded: false, weight: Weight::from(40), since: String::new(), reasons }
    }

    fn says(service: &str, word: Word) -> Known {
        Known { words: [(service.to_owned(), word)].into(), silent: false }
    }

    fn silent(known: Known) -> Known {
        Known { silent: true, ..known }
    }

    #[test]
    fn each_word_becomes_one_health() {
        let degraded = Word { degraded: true, ..word(State::Up, vec![]) };
        for (known, health, weight) in [
            (says("write", word(State::Up, vec![])), Health::Healthy, 40),
            (says("write", degraded), Health::Degraded, 40),
            (says("write", word(State::Drain, vec![])), Health::Draining, 100),
            (says("write", word(State::Maint, vec![])), Health::Draining, 100),
            (says("write", word(State::Down, vec![])), Health::Unhealthy, 100),
            (silent(says("write", word(State::Up, vec![]))), Health::Unhealthy, 100),
            (says("read", word(State::Up, vec![])), Health::Unhealthy, 100),
            (Known::default(), Health::Unhealthy, 100),
        ] {
            let [ruling] = rule(std::slice::from_ref(&known), "write", 0)[..] else { panic!() };
            assert_eq!((ruling.health, ruling.weight.percent()), (health, weight), "{known:?}");
        }
    }

    #[test]
    fn the_least_bad_are_kept_and_no_more_than_wanted() {
        let failing = says("write", word(State::Down, vec![why(Some("latency"), Else::Down)]));
        let draining = says("write", word(State::Drain, vec![]));
        let gone = silent(says("write", word(State::Up, vec![])));
        let up = says("write", word(State::Up, vec![]));
        let nodes = [failing, gone, draining, up];
        let kept = |percent| {
            let rulings = rule(&nodes, "write", percent);
            rulings.iter().map(|ruling| ruling.kept).collect::<Vec<_>>()
        };
        assert_eq!(kept(0), [false; 4]);
        assert_eq!(kept(25), [false; 4]);
        assert_eq!(kept(26), [false, false, true, false], "rounded up");
        assert_eq!(kept(50), [false, false, true, false]);
        assert_eq!(kept(75), [false, true, true, false]);
        assert_eq!(kept(100), [true, true, true, false]);
    }

    #[test]
    fn a_kept_node_is_kept_for_this_service_only() {
        let mut node = says("read", word(State::Drain, vec![]));
        node.words.insert("write".to_owned(), word(State::Down, vec![]));
        let [ruling] = rule(&[node], "read", 100)[..] else { panic!() };
        assert_eq!((ruling.health, ruling.read, ruling.write), (Health::Degraded, true, false));
    }

    fn any_word() -> impl Strategy<Value = Word> {
        let state =
            prop_oneof![Just(State::Up), Just(State::Drain), Just(State::Down), Just(State::Maint)];
        let otherwise =
            prop_oneof![Just(Else::Warn), Just(Else::Degrade), Just(Else::Drain), Just(Else::Down)];
        let criterion = prop_oneof![Just(None), Just(Some("servers")), Just(Some("latency"))];
        let reason = (criterion, otherwise).prop_map(|(c, o)| why(c, o));
        (state, any::<bool>(), any::<u8>(), prop::collection::vec(reason, 0..3)).prop_map(
            |(state, degraded, weight, reasons)| Word {
                degraded: degraded && state == State::Up,
                weight: Weight::from(weight),
                ..word(state, reasons)
            },
        )
    }

    fn any_known() -> impl Strategy<Value = Known> {
        let name = prop_oneof![Just("read"), Just("write")].prop_map(str::to_owned);
        (prop::collection::btree_map(name, any_word(), 0..3), any::<bool>())
            .prop_map(|(words, silent)| Known { words, silent })
    }

    proptest! {
        #[test]
        fn the_rules_hold(
            nodes in prop::collection::vec(any_known(), 0..12),
            service in prop_oneof![Just("read"), Just("write")],
            percent in 0..=100_u8,
        ) {
            let rulings = rule(&nodes, service, percent);
            prop_assert_eq!(&rulings, &rule(&nodes, service, percent));
            prop_assert_eq!(rulings.len(), nodes.len());
            let wanted = (nodes.len() * usize::from(percent)).div_ceil(100);
            let within = rulings.iter().filter(|ruling| ruling.health.is_in()).count();
            for (node, ruling) in nodes.iter().zip(&rulings) {
                prop_assert!((1..=100).contains(&ruling.weight.percent()));
                let last = node.words.get(service);
                let is_up = last.is_some_and(|word| word.state == State::Up) && !node.silent;
                prop_assert_eq!(ruling.health.is_in(), is_up || ruling.kept);
                if ruling.kept {
                    prop_assert!(!is_up && ruling.health == Health::Degraded);
                    prop_assert!(within <= wanted, "more are kept than are wanted");
                    let word = last.expect("a node that has said nothing is never kept");
                    prop_assert!(word.state != State::Maint);
                    prop_assert!(!node.silent || word.state == State::Up);
                    let certain = |why: &Why| why.otherwise > Else::Warn && why.criterion.is_none();
                    prop_assert!(word.state != State::Down || !word.reasons.iter().any(certain));
                    let servers = |why: &Why| why.criterion.as_deref() == Some("servers");
                    prop_assert!(service == "read" || !word.reasons.iter().any(servers));
                }
                if node.silent && !ruling.kept {
                    prop_assert!(!ruling.read && !ruling.write);
                }
                for (name, says) in [("read", ruling.read), ("write", ruling.write)] {
                    let up = node.words.get(name).is_some_and(|word| word.state == State::Up);
                    let for_it = ruling.kept && name == service;
                    prop_assert_eq!(says, (up && !node.silent) || for_it);
                }
            }
        }
    }
}
