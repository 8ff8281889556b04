//! The judge at work: the one task that turns looks into published verdicts.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::board::{Answers, Board, NodeView, Publisher};
use crate::clock::Clock;
use crate::config::{Config, Service};
use crate::health::{
    Code, Facts, Moment, Observation, Order, Reason, ServiceJudge, State, Verdict, Weight,
};
use crate::serve::Words;

/// Judges every service.
#[derive(Debug)]
pub struct Judge {
    clock: Clock,
    seats: Vec<Seat>,
    publisher: Publisher,
    facts: Option<Facts>,
    failing: bool,
    /// Told once, when the first look has finished.
    first: Option<oneshot::Sender<()>>,
}

/// One service and its judge.
#[derive(Debug)]
struct Seat {
    service: Service,
    judge: ServiceJudge,
}

impl Judge {
    /// A judge that has seen nothing, the board on which it publishes, and word of its first look.
    #[must_use]
    pub fn new(config: &Config, clock: Clock) -> (Self, Board, oneshot::Receiver<()>) {
        let now = clock.now();
        let mut seats = Vec::new();
        let mut first = Vec::new();
        let mut stale = Vec::new();
        for service in &config.services {
            let mut judge = ServiceJudge::new(service.rules.clone(), now);
            first.push(answers(service, judge.verdict(now, None)));
            stale.push(answers(service, stale_verdict(service, now)));
            seats.push(Seat { service: service.clone(), judge });
        }
        let (board, publisher) = Board::new(config, clock, first, stale);
        let (told, first) = oneshot::channel();
        let judge =
            Self { clock, seats, publisher, facts: None, failing: false, first: Some(told) };
        (judge, board, first)
    }

    /// Says that the sidecar is ready: the caller knows that every listener is bound.
    pub fn ready(&self) {
        self.publisher.ready();
    }

    /// Judges until it is stopped, or nobody looks any more.
    pub async fn run(
        mut self,
        mut looks: mpsc::Receiver<Observation>,
        mut orders: watch::Receiver<Option<Order>>,
        stop: CancellationToken,
    ) {
        loop {
            // A verdict goes stale by time alone, so time alone must be able to publish one.
            let until = self.seats.iter().filter_map(|seat| seat.judge.fresh_until()).min();
            let now = self.clock.now();
            let stale = until.filter(|until| *until >= now).map(|until| self.clock.instant(until));
            let going_stale = async {
                match stale {
                    Some(at) => sleep_until(at + std::time::Duration::from_millis(1)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                look = looks.recv() => match look {
                    Some(look) => self.take(look, *orders.borrow()),
                    None => return,
                },
                changed = orders.changed() => match changed {
                    Ok(()) => {
                        let order = *orders.borrow_and_update();
                        self.publish(order);
                    }
                    Err(_) => return,
                },
                () = going_stale => {
                    let order = *orders.borrow();
                    self.publish(order);
                }
                () = stop.cancelled() => return,
            }
        }
    }

    fn take(&mut self, look: Observation, order: Option<Order>) {
        for seat in &mut self.seats {
            seat.judge.look(&look);
        }
        self.publish(order);
        if let Some(until) = self.seats.iter().filter_map(|seat| seat.judge.fresh_until()).max() {
            self.publisher.fresh_until(until);
        }
        self.note(look);
        if let Some(first) = self.first.take() {
            // Whoever waits for the first look may have gone meanwhile.
            let _ = first.send(());
            self.ready();
        }
    }

    fn publish(&mut self, order: Option<Order>) {
        let now = self.clock.now();
        for (seat, sender) in self.seats.iter_mut().zip(&self.publisher.services) {
            let verdict = seat.judge.verdict(now, order);
            let last = Arc::clone(&sender.borrow());
            if last.verdict == verdict {
                continue;
            }
            transition(&seat.service.name, &last.verdict, &verdict);
            sender.send_replace(Arc::new(answers(&seat.service, verdict)));
        }
    }

    /// Keeps the look for showing, and logs where looks begin to fail.
    fn note(&mut self, look: Observation) {
        let failure = match look.outcome {
            Ok(facts) => {
                self.facts = Some(facts);
                None
            }
            Err(failure) => Some((failure.kind.code().as_str(), failure.text)),
        };
        if let Some((code, text)) = &failure {
            if self.failing {
                debug!(code, "A look at the node failed: {text}.");
            } else {
                warn!(code, "A look at the node failed: {text}.");
            }
        }
        self.failing = failure.is_some();
        let finished = Some(look.finished);
        let view = NodeView { finished, took: look.took, failure, facts: self.facts.clone() };
        self.publisher.node.send_replace(Arc::new(view));
    }
}

fn answers(service: &Service, verdict: Verdict) -> Answers {
    let words = Words::of(&service.name, &verdict, service.maxconn);
    Answers { verdict, words }
}

/// What listeners say when the judge itself has fallen silent.
fn stale_verdict(service: &Service, now: Moment) -> Verdict {
    Verdict {
        state: State::Down,
        degraded: false,
        weight: Weight::FULL,
        reasons: vec![Reason::stale(service.rules.freshness)],
        findings: Vec::new(),
        since: now,
        seq: 0,
    }
}

/// One line per transition, with all reasons; a changed figure or weight is none.
fn transition(service: &str, from: &Verdict, to: &Verdict) {
    let codes = |verdict: &Verdict| -> Vec<Code> {
        verdict.reasons.iter().map(|reason| reason.code).collect()
    };
    if (from.state, from.degraded, codes(from)) == (to.state, to.degraded, codes(to)) {
        return;
    }
    let name = |verdict: &Verdict| {
        if verdict.degraded { "degraded" } else { verdict.state.as_str() }
    };
    let reasons: Vec<String> = to.reasons.iter().map(ToString::to_string).collect();
    info!(
        service,
        from = name(from),
        to = name(to),
        weight = to.weight.percent(),
        reasons = reasons.join("; "),
        "The verdict changed."
    );
}
