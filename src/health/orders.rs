//! What stands above the criteria: operators' orders, and the sidecar's own on its way out.

use super::{Code, Else, Reason, Weight};

/// What an operator orders for one service, strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Word {
    /// Nobody may use it; stands above everything.
    Maint,
    /// No work at all.
    Down,
    /// No new work.
    Drain,
    /// Work, whatever the criteria say. A dead node stays down all the same.
    Up,
    /// No more than this weight, in any state that is up.
    Weight(Weight),
}

impl Word {
    /// What the order does, in the words of criteria.
    const fn otherwise(self) -> Else {
        match self {
            Self::Maint | Self::Down => Else::Down,
            Self::Drain => Else::Drain,
            Self::Up | Self::Weight(_) => Else::Warn,
        }
    }
}

/// One order that is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// What was ordered.
    pub word: Word,
    /// Why, by whom and until when, in one sentence.
    pub text: String,
}

/// What the sidecar says on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// No new work.
    Drain,
    /// No work.
    Down,
}

/// Everything that is ordered for one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// Operators' orders, in any order.
    pub overrides: Vec<Override>,
    /// What operators had ordered cannot be read any more, so nobody knows whether the service may be
    /// used.
    pub lost: bool,
    /// The sidecar stops.
    pub stop: Option<Stop>,
}

impl Orders {
    /// The strongest word, apart from weights.
    pub(super) fn word(&self) -> Option<Word> {
        let words = self.overrides.iter().map(|order| order.word);
        let given = words.filter(|word| !matches!(word, Word::Weight(_))).min();
        if self.lost { Some(given.unwrap_or(Word::Drain).min(Word::Drain)) } else { given }
    }

    /// The most weight that is allowed.
    pub(super) fn cap(&self) -> Weight {
        let caps = self.overrides.iter().filter_map(|order| match order.word {
            Word::Weight(weight) => Some(weight),
            _ => None,
        });
        caps.min().unwrap_or(Weight::FULL)
    }

    /// The reasons that the orders give, strongest first.
    pub(super) fn reasons(&self) -> Vec<Reason> {
        let mut orders: Vec<&Override> = self.overrides.iter().collect();
        orders.sort_by_key(|order| order.word);
        let mut reasons: Vec<Reason> = orders
            .into_iter()
            .map(|order| Reason {
                code: Code::Override,
                criterion: None,
                otherwise: order.word.otherwise(),
                text: order.text.clone(),
            })
            .collect();
        if self.lost {
            let text = "what operators had ordered cannot be read any more; `hcf clear` ends this";
            reasons.push(Reason {
                code: Code::OverridesLost,
                criterion: None,
                otherwise: Else::Drain,
                text: text.to_owned(),
            });
        }
        reasons.sort_by_key(|reason| std::cmp::Reverse(reason.otherwise));
        reasons
    }
}
