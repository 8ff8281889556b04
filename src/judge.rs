//! The judge at work: the one task that turns looks into published verdicts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::board::{Answers, Board, NodeView, Place, Publisher};
use crate::clock::Clock;
use crate::config::{Config, Service};
use crate::health::{
    Code, Facts, Kept, Moment, Observation, Orders, Reason, Roll, ServiceJudge, State, Stop,
    Verdict, Weight,
};
use crate::history::{News, Tap};
use crate::overrides::Ruling;
use crate::serve::Words;
use crate::systemd::Systemd;

/// Judges every service.
#[derive(Debug)]
pub struct Judge {
    clock: Clock,
    seats: Vec<Seat>,
    publisher: Publisher,
    facts: Option<Facts>,
    /// When these were seen.
    seen: Option<Moment>,
    roll: Roll,
    failing: bool,
    /// Told once, when the first look has finished.
    first: Option<oneshot::Sender<()>>,
    systemd: Systemd,
    history: Tap,
}

/// One service and its judge.
#[derive(Debug)]
struct Seat {
    service: Service,
    judge: ServiceJudge,
}

/// What every judge knows, by its service's name.
pub type Memory = BTreeMap<String, Kept>;

/// What a judge goes by.
#[derive(Debug)]
pub struct Inbox {
    /// Finished looks at the node.
    pub looks: mpsc::Receiver<Observation>,
    /// Other configurations; each is told when it is in force.
    pub configs: mpsc::Receiver<(Arc<Config>, oneshot::Sender<()>)>,
    /// What operators have ordered.
    pub rulings: watch::Receiver<Arc<Ruling>>,
    /// What the sidecar says on its way out.
    pub stopping: watch::Receiver<Option<Stop>>,
    /// Ends the judge, which then says what it knew.
    pub stop: CancellationToken,
}

impl Inbox {
    fn orders(&self, service: &str) -> Orders {
        self.rulings.borrow().orders(service, *self.stopping.borrow())
    }
}

impl Judge {
    /// A judge that knows what is in `memory`, the board on which it publishes, and word of its first
    /// look.
    #[must_use]
    pub fn new(
        config: &Config,
        clock: Clock,
        mut memory: Memory,
        ruling: &Ruling,
        systemd: Systemd,
    ) -> (Self, Board, oneshot::Receiver<()>) {
        let now = clock.now();
        let (board, mut publisher) = Board::new(config, clock);
        let mut seats = Vec::new();
        let mut places = Vec::new();
        for service in &config.services {
            let rules = service.rules.clone();
            let mut judge = match memory.remove(&*service.name) {
                Some(kept) => ServiceJudge::resumed(rules, kept),
                None => ServiceJudge::new(rules, now),
            };
            let first = answers(service, judge.verdict(now, &ruling.orders(&service.name, None)));
            places
                .push((Place::New(Box::new(first)), answers(service, stale_verdict(service, now))));
            seats.push(Seat { service: service.clone(), judge });
        }
        publisher.replace(config, places);
        let (told, first) = oneshot::channel();
        let first_look = Some(told);
        let judge = Self {
            clock,
            seats,
            publisher,
            facts: None,
            seen: None,
            roll: Roll::default(),
            failing: false,
            first: first_look,
            systemd,
            history: Tap::default(),
        };
        judge.freshen();
        (judge, board, first)
    }

    /// The same judge, which also tells the history.
    #[must_use]
    pub fn telling(self, history: Tap) -> Self {
        Self { history, ..self }
    }

    /// Says that the sidecar is ready: the caller knows that every listener is bound.
    pub fn ready(&self) {
        self.publisher.ready();
    }

    /// Judges until it is stopped, or nobody looks any more; returns what it knows.
    pub async fn run(mut self, mut inbox: Inbox) -> Memory {
        self.publish(&inbox, false);
        self.systemd.status(&self.summary());
        loop {
            // A verdict goes stale by time alone, so time alone must be able to publish one.
            let until = self.seats.iter().filter_map(|seat| seat.judge.fresh_until()).min();
            let now = self.clock.now();
            let stale = until.filter(|until| *until >= now).map(|until| self.clock.instant(until));
            let going_stale = async {
                match stale {
                    Some(at) => sleep_until(at + Duration::from_millis(1)).await,
                    None => std::future::pending().await,
                }
            };
            let pulse = async {
                match self.systemd.pulse() {
                    Some(time) => sleep(time).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                look = inbox.looks.recv() => match look {
                    Some(look) => self.take(look, &inbox),
                    None => break,
                },
                Some((config, done)) = inbox.configs.recv() => {
                    self.rule_by(&config, &inbox);
                    // Whoever asked may have gone meanwhile.
                    let _ = done.send(());
                }
                Ok(()) = inbox.rulings.changed() => self.publish(&inbox, false),
                Ok(()) = inbox.stopping.changed() => self.publish(&inbox, false),
                () = going_stale => self.publish(&inbox, false),
                () = pulse => {}
                () = inbox.stop.cancelled() => break,
            }
            self.systemd.alive();
        }
        self.seats.iter().map(|seat| (seat.service.name.to_string(), seat.judge.kept())).collect()
    }

    fn take(&mut self, look: Observation, inbox: &Inbox) {
        for seat in &mut self.seats {
            seat.judge.look(&look);
        }
        let view = self.note(look);
        self.history.tell(self.clock.now(), News::Looked(Arc::clone(&view)));
        self.publish(inbox, false);
        self.freshen();
        self.publisher.node.send_replace(view);
        if let Some(first) = self.first.take() {
            // Whoever waits for the first look may have gone meanwhile.
            let _ = first.send(());
            self.ready();
        }
    }

    fn freshen(&self) {
        if let Some(until) = self.seats.iter().filter_map(|seat| seat.judge.fresh_until()).max() {
            self.publisher.fresh_until(until);
        }
    }

    /// Goes over to another configuration. A service that stays keeps what it knows and has said.
    fn rule_by(&mut self, config: &Config, inbox: &Inbox) {
        let now = self.clock.now();
        let senders = std::mem::take(&mut self.publisher.services);
        let mut old: BTreeMap<Arc<str>, _> = std::mem::take(&mut self.seats)
            .into_iter()
            .zip(senders)
            .map(|(seat, sender)| (Arc::clone(&seat.service.name), (seat.judge, sender)))
            .collect();
        let mut places = Vec::new();
        for service in &config.services {
            let rules = service.rules.clone();
            let (judge, place) = if let Some((mut judge, sender)) = old.remove(&service.name) {
                judge.rule_by(rules);
                (judge, Place::Kept(sender))
            } else {
                let mut judge = ServiceJudge::new(rules, now);
                let first = judge.verdict(now, &inbox.orders(&service.name));
                (judge, Place::New(Box::new(answers(service, first))))
            };
            places.push((place, answers(service, stale_verdict(service, now))));
            self.seats.push(Seat { service: service.clone(), judge });
        }
        self.publisher.replace(config, places);
        // The words may be others, although the verdicts are not.
        self.publish(inbox, true);
        self.freshen();
    }

    /// Publishes every verdict that is another one now, or `all` of them.
    fn publish(&mut self, inbox: &Inbox, all: bool) {
        let now = self.clock.now();
        let generation = inbox.rulings.borrow().generation;
        let mut changed = Vec::new();
        for (place, (seat, sender)) in
            self.seats.iter_mut().zip(&self.publisher.services).enumerate()
        {
            let verdict = seat.judge.verdict(now, &inbox.orders(&seat.service.name));
            let last = Arc::clone(&sender.borrow());
            if last.verdict == verdict && !all {
                continue;
            }
            if let Some(counts) = self.publisher.counts_of(place) {
                counts.turned(&last.verdict, &verdict);
            }
            transition(&seat.service.name, &last.verdict, &verdict);
            let answers = Arc::new(answers(&seat.service, verdict));
            changed.push(Arc::clone(&answers));
            sender.send_replace(answers);
        }
        self.publisher.applied(generation);
        if !changed.is_empty() {
            self.history.tell(now, News::Said(changed));
            self.systemd.status(&self.summary());
        }
    }

    /// The verdicts in a line.
    fn summary(&self) -> String {
        let mut words = Vec::new();
        for (seat, sender) in self.seats.iter().zip(&self.publisher.services) {
            let answers = sender.borrow();
            let line = String::from_utf8_lossy(&answers.words.owning.line).trim_end().to_owned();
            words.push(format!("{}: {line}", seat.service.name));
        }
        words.join("; ")
    }

    /// Keeps the look for showing, and logs where looks begin to fail.
    fn note(&mut self, look: Observation) -> Arc<NodeView> {
        let code = look.outcome.as_ref().err().map(|failure| failure.kind.code());
        self.publisher.counts.polled(code, look.took);
        let failure = match look.outcome {
            Ok(facts) => {
                self.roll.take(&facts.servers, look.finished);
                self.facts = Some(facts);
                self.seen = Some(look.finished);
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
        Arc::new(NodeView {
            finished: Some(look.finished),
            took: look.took,
            failure,
            facts: self.facts.clone(),
            seen: self.seen,
            since: self.roll.since().collect(),
        })
    }
}

fn answers(service: &Service, verdict: Verdict) -> Answers {
    let words = Words::of(&service.name, &verdict, service.maxconn);
    Answers { service: Arc::clone(&service.name), verdict, words }
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
        parts: Vec::new(),
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
    use tokio::task::JoinSet;
    use tokio::time::advance;

    use super::*;
    use crate::config::Sources;
    use crate::health::{FailureKind, Link, Override, ProbeFailure, Server, Word};

    /// A judge of the default configuration: write wants 7 servers, and freshness is 5 s.
    fn judge() -> (Judge, Board, oneshot::Receiver<()>, Clock) {
        let config = Config::load(&Sources::default()).unwrap();
        let clock = Clock::start();
        let (judge, board, first) =
            Judge::new(&config, clock, Memory::new(), &Ruling::default(), Systemd::default());
        (judge, board, first, clock)
    }

    /// The ends of an inbox that a test holds.
    struct Outbox {
        looks: mpsc::Sender<Observation>,
        _configs: mpsc::Sender<(Arc<Config>, oneshot::Sender<()>)>,
        rulings: watch::Sender<Arc<Ruling>>,
        stopping: watch::Sender<Option<Stop>>,
    }

    fn inbox() -> (Outbox, Inbox) {
        let (look_tx, looks) = mpsc::channel(1);
        let (config_tx, configs) = mpsc::channel(1);
        let (ruling_tx, rulings) = watch::channel(Arc::new(Ruling::default()));
        let (stopping_tx, stopping) = watch::channel(None);
        let outbox = Outbox {
            looks: look_tx,
            _configs: config_tx,
            rulings: ruling_tx,
            stopping: stopping_tx,
        };
        let stop = CancellationToken::new();
        (outbox, Inbox { looks, configs, rulings, stopping, stop })
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
        let (outbox, inbox) = inbox();
        let mut tasks = JoinSet::new();
        tasks.spawn(judge.run(inbox));
        outbox.looks.send(good(clock)).await.unwrap();
        first.await.unwrap();
        assert!(board.is_ready());
        let write = board.service("write").unwrap();
        let tag = write.tag();
        outbox.looks.send(good(clock)).await.unwrap();
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
        let (_outbox, inbox) = inbox();
        let (mut judge, board, _first, clock) = judge();
        judge.take(good(clock), &inbox);
        judge.take(good(clock), &inbox);
        assert_eq!(said(&board).0, State::Up);
        advance(Duration::from_secs(5)).await;
        assert_eq!(said(&board).0, State::Up);
        advance(Duration::from_millis(1)).await;
        // The judge has not run since.
        assert_eq!(said(&board), (State::Down, vec!["stale"]));
        // A look after that does not bring the old word back for a moment.
        judge.take(good(clock), &inbox);
        assert_eq!(said(&board), (State::Down, vec!["stale"]));
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_is_published_at_once() {
        let (outbox, inbox) = inbox();
        let (mut judge, board, _first, clock) = judge();
        judge.take(good(clock), &inbox);
        judge.take(good(clock), &inbox);
        let mut tasks = JoinSet::new();
        let write = board.service("write").unwrap();
        let tag = write.tag();
        tasks.spawn(judge.run(inbox));
        outbox.stopping.send_replace(Some(Stop::Drain));
        write.changed(tag).await;
        assert_eq!(said(&board), (State::Drain, vec!["shutdown", "no-introducers"]));
        let order = Override { word: Word::Maint, text: "disk swap".to_owned() };
        let services = [("write".into(), vec![order])].into();
        let ruling = Ruling { generation: 7, services, ..Ruling::default() };
        outbox.rulings.send_replace(Arc::new(ruling));
        board.applied.clone().wait_for(|generation| *generation == 7).await.unwrap();
        assert_eq!(said(&board).0, State::Maint);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_that_counts_is_shown_with_its_text() {
        let (_outbox, inbox) = inbox();
        let (mut judge, board, _first, clock) = judge();
        let failure = ProbeFailure::new(FailureKind::Refused, "nobody listens");
        let finished = clock.now();
        judge.take(Observation { finished, took: Duration::ZERO, outcome: Err(failure) }, &inbox);
        assert_eq!(said(&board), (State::Down, vec!["refused"]));
        let view = Arc::clone(&board.node.borrow());
        assert_eq!(view.failure, Some(("refused", "nobody listens".to_owned())));
    }
}
