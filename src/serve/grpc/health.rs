//! `grpc.health.v1.Health`: a service of that protocol is a service of hcf, and the empty name the default one.

use futures_util::stream::{self, Stream};
use tonic::Status;

use super::Caller;
use super::proto::{HealthCheckRequest, HealthCheckResponse, HealthListResponse, ServingStatus};
use crate::board::{Answers, ServiceBoard};

/// The health of the service that was asked for.
pub(super) fn check(
    caller: &Caller,
    asked: &HealthCheckRequest,
) -> Result<HealthCheckResponse, Status> {
    let service = caller.board.service(&asked.service);
    let service = service.ok_or_else(|| Status::not_found("no such service"))?;
    Ok(answer(caller.hears(&service.answers())))
}

/// The health of all services.
pub(super) fn list(caller: &Caller) -> HealthListResponse {
    let of = |name: &str| caller.board.service(name).map(|s| status(&s.answers()));
    let table = caller.board.table();
    let names = table.services.iter().map(|service| &*service.name).chain([""]);
    let statuses = names.filter_map(|name| Some((name.to_owned(), answer(of(name)?))));
    HealthListResponse { statuses: statuses.collect() }
}

/// The health of the service that was asked for, now and whenever it is another one.
pub(super) fn watch(
    caller: Caller,
    asked: HealthCheckRequest,
) -> impl Stream<Item = HealthCheckResponse> + Send {
    let watch = Watch { caller, name: asked.service, told: None };
    stream::unfold(watch, |mut watch| async move {
        let status = watch.next().await?;
        Some((answer(status), watch))
    })
}

struct Watch {
    caller: Caller,
    name: String,
    told: Option<ServingStatus>,
}

impl Watch {
    /// The next status that differs from what was told; nothing when the judge has ended.
    async fn next(&mut self) -> Option<ServingStatus> {
        let board = &self.caller.board;
        let mut looks = board.node.clone();
        loop {
            looks.mark_unchanged();
            let service = board.service(&self.name);
            let answers = service.as_deref().map(ServiceBoard::answers);
            let tag = answers.as_ref().map_or(0, |answers| answers.verdict.seq);
            let status = answers.map_or(ServingStatus::ServiceUnknown, |a| self.caller.hears(&a));
            if self.told != Some(status) {
                self.told = Some(status);
                return self.told;
            }
            self.caller.wait(service.as_deref(), tag, &mut looks).await?;
        }
    }
}

impl Caller {
    /// The status that these answers come to, noted as told: whoever is told of changes only has heard of what is so.
    fn hears(&self, answers: &Answers) -> ServingStatus {
        let (told, now) = ((answers.verdict.seq, answers.verdict.state), self.board.clock.now());
        self.board.askers.told("grpc", self.peer, &answers.service, told, now);
        status(answers)
    }
}

fn status(answers: &Answers) -> ServingStatus {
    match answers.words.health.percent {
        Some(_) => ServingStatus::Serving,
        None => ServingStatus::NotServing,
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use futures_util::StreamExt as _;

    use super::*;
    use crate::board::{Board, Place};
    use crate::clock::Clock;
    use crate::config::{Config, Sources};
    use crate::health::{State, Verdict, Weight};
    use crate::serve::Words;

    fn answers(config: &Config, state: State, seq: u64) -> Answers {
        let verdict = Verdict {
            state,
            degraded: false,
            forced: false,
            weight: Weight::FULL,
            reasons: Vec::new(),
            findings: Vec::new(),
            since: crate::health::Moment::default(),
            parts: Vec::new(),
            seq,
        };
        let service = Arc::clone(&config.default_service);
        Answers { words: Words::of(&service, &verdict, None), service, verdict }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stuck_judge_is_not_serving_by_time_alone() {
        let mut config = Config::load(&Sources::default()).unwrap();
        config.services.retain(|service| service.name == config.default_service);
        let clock = Clock::start();
        let (board, mut publisher) = Board::new(&config, clock);
        let up = Place::New(Box::new(answers(&config, State::Up, 1)));
        publisher.replace(&config, vec![(up, answers(&config, State::Down, 0))]);
        publisher.fresh_until(clock.now() + Duration::from_secs(5));
        let caller = Caller {
            board: Arc::new(board),
            peer: None,
            end: tokio_util::sync::CancellationToken::new(),
        };
        let mut watch = std::pin::pin!(watch(caller.clone(), HealthCheckRequest::default()));
        assert_eq!(watch.next().await, Some(answer(ServingStatus::Serving)));
        // Nobody says anything any more; time passes by itself.
        assert_eq!(watch.next().await, Some(answer(ServingStatus::NotServing)));
        let check = check(&caller, &HealthCheckRequest::default());
        assert_eq!(check.unwrap(), answer(ServingStatus::NotServing));
        publisher.fresh_until(clock.now() + Duration::from_secs(5));
        publisher.node.send_replace(Arc::default());
        assert_eq!(watch.next().await, Some(answer(ServingStatus::Serving)));
    }
}
