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
    Code, Facts, Moment, Observation, Reason, ServiceJudge, State, Stop, Verdict, Weight,
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
        forced: false,
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::task::JoinSet;
    use tokio::time::advance;

    use super::*;
    use crate::config::Sources;
    use crate::health::{FailureKind, Link, ProbeFailure, Server};

    /// A judge of the default configuration: write wants 7 servers, and freshness is 5 s.
    fn judge() -> (Judge, Board, oneshot::Receiver<()>, Clock) {
        let config = Config::load(&Sources::default()).unwrap();
        let clock = Clock::start();
        let (judge, board, first) = Judge::new(&config, clock);
        (judge, board, first, clock)
    }

    fn good(clock: Clock) -> Observation {
        let server = |n| Server {
            id: format!("v0-{n}").into(),
            nickname: "".into(),
            link: Link::Connected,
            versioned: true,
            space: Some(1),
            silent: Some(Duration::ZERO),
            silence_limit: Duration::from_secs(10),
        };
        let facts = Facts { servers: (0..7).map(server).collect(), ..Facts::default() };
        Observation { finished: clock.now(), took: Duration::from_millis(1), outcome: Ok(facts) }
    }

    fn said(board: &Board) -> (State, Vec<&'static str>) {
        let answers = board.service("write").unwrap().answers();
        let codes = answers.verdict.reasons.iter().map(|reason| reason.code.as_str()).collect();
        (answers.verdict.state, codes)
    }

    #[tokio::test(start_paused = true)]
    async fn verdicts_are_published_and_go_stale_by_time_alone() {
        let (judge, board, first, clock) = judge();
        assert_eq!(said(&board), (State::Down, vec!["starting"]));
        let (looks, seen) = mpsc::channel(1);
        let (_order, orders) = watch::channel(None);
        let mut tasks = JoinSet::new();
        tasks.spawn(judge.run(seen, orders, CancellationToken::new()));
        looks.send(good(clock)).await.unwrap();
        first.await.unwrap();
        assert!(board.is_ready());
        let write = board.service("write").unwrap();
        let tag = write.tag();
        looks.send(good(clock)).await.unwrap();
        write.changed(tag).await;
        // No introducer is known, which is only warned of.
        assert_eq!(said(&board), (State::Up, vec!["no-introducers"]));
        // Nothing more is seen; time passes by itself while all tasks wait.
        let tag = write.tag();
        write.changed(tag).await;
        assert_eq!(said(&board), (State::Down, vec!["stale"]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stuck_judge_cannot_leave_an_old_up_standing() {
        let (mut judge, board, _first, clock) = judge();
        judge.take(good(clock), None);
        judge.take(good(clock), None);
        assert_eq!(said(&board).0, State::Up);
        advance(Duration::from_secs(5)).await;
        assert_eq!(said(&board).0, State::Up);
        advance(Duration::from_millis(1)).await;
        // The judge has not run since.
        assert_eq!(said(&board), (State::Down, vec!["stale"]));
        // A look after that does not bring the old word back for a moment.
        judge.take(good(clock), None);
        assert_eq!(said(&board), (State::Down, vec!["stale"]));
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_is_published_at_once() {
        let (mut judge, board, _first, clock) = judge();
        judge.take(good(clock), None);
        judge.take(good(clock), None);
        let (_looks, seen) = mpsc::channel(1);
        let (order, orders) = watch::channel(None);
        let mut tasks = JoinSet::new();
        let write = board.service("write").unwrap();
        let tag = write.tag();
        tasks.spawn(judge.run(seen, orders, CancellationToken::new()));
        order.send_replace(Some(Order::ShutdownDrain));
        write.changed(tag).await;
        assert_eq!(said(&board), (State::Drain, vec!["shutdown", "no-introducers"]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_that_counts_is_shown_with_its_text() {
        let (mut judge, board, _first, clock) = judge();
        let failure = ProbeFailure::new(FailureKind::Refused, "nobody listens");
        let finished = clock.now();
        judge.take(Observation { finished, took: Duration::ZERO, outcome: Err(failure) }, None);
        assert_eq!(said(&board), (State::Down, vec!["refused"]));
        let view = Arc::clone(&board.node.borrow());
        assert_eq!(view.failure, Some(("refused", "nobody listens".to_owned())));
    }
}
