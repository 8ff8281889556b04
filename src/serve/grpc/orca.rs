//! `xds.service.orca.v3.OpenRcaService`: a node's weight as a report of its load, for balancers that make weights of such
//! reports. They divide requests per second by utilization, so with a utilization of 1 the requests are the weight.

use std::time::Duration;

use futures_util::stream::{self, Stream};
use tokio::time::{Instant, sleep_until};

use super::Caller;
use super::proto::{OrcaLoadReport, OrcaLoadReportRequest};
use crate::board::ServiceBoard;

/// From one report to the next, where nobody asks for another time.
const USUAL: Duration = Duration::from_secs(10);
const LEAST: Duration = Duration::from_millis(100);
const MOST: Duration = Duration::from_hours(1);

/// The weight of the service that `authority` names, or else of the default one: as soon as it changes, and as often as
/// asked. While the service is not up its last weight stands, since that it is not up is for a check to say; so nothing
/// is said before it has been up.
pub(super) fn reports(
    caller: Caller,
    authority: String,
    asked: &OrcaLoadReportRequest,
) -> impl Stream<Item = OrcaLoadReport> + Send + use<> {
    let reports = Reports { caller, authority, every: interval(asked), last: None };
    stream::unfold(reports, |mut reports| async move {
        let weight = reports.next().await?;
        let report = OrcaLoadReport { rps_fractional: weight.into(), application_utilization: 1.0 };
        Some((report, reports))
    })
}

/// The time from one report to the next.
pub(super) fn interval(asked: &OrcaLoadReportRequest) -> Duration {
    let every = asked.report_interval.and_then(|every| Duration::try_from(every).ok());
    every.filter(|every| !every.is_zero()).unwrap_or(USUAL).clamp(LEAST, MOST)
}

struct Reports {
    caller: Caller,
    authority: String,
    every: Duration,
    /// What was reported, and when.
    last: Option<(u8, Instant)>,
}

impl Reports {
    /// The next weight to report; nothing when the judge has ended.
    async fn next(&mut self) -> Option<u8> {
        let board = &self.caller.board;
        let mut looks = board.node.clone();
        loop {
            looks.mark_unchanged();
            let service = board.service(&self.authority).or_else(|| board.service(""));
            let answers = service.as_deref().map(ServiceBoard::answers);
            let tag = answers.as_ref().map_or(0, |answers| answers.verdict.seq);
            let last = self.last.map(|(weight, _)| weight);
            let weight = answers.and_then(|answers| answers.words.health.percent).or(last);
            let due = self.last.map(|(_, at)| at + self.every);
            let now = Instant::now();
            if let Some(weight) = weight
                && (last != Some(weight) || due.is_some_and(|due| due <= now))
            {
                self.last = Some((weight, now));
                return Some(weight);
            }
            let due = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                waited = self.caller.wait(service.as_deref(), tag, &mut looks) => waited?,
                () = due => {}
            }
        }
    }
}
