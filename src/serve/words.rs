//! Where a verdict turns into each protocol's words.
//!
//! Every reply carries the full state, so that a balancer ends in the same one whatever it was in
//! before. Text is reduced to printable ASCII and cut, so that a line stays one line.

use std::fmt::Write as _;
use std::num::NonZeroU32;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::http::Reply;
use crate::health::{Finding, State, Verdict, Weight};

/// A verdict in the words of every protocol.
#[derive(Clone, Debug)]
pub struct Words {
    /// The agent's line, with an admin word.
    pub owning: AgentLine,
    /// The agent's line, without one.
    pub keep: AgentLine,
    /// The answer to a health check over HTTP.
    pub health: Health,
}

/// One line of HAProxy's agent-check protocol (HAProxy manual, 5.2, "agent-check").
#[derive(Clone, Debug)]
pub struct AgentLine {
    /// The line, ended by LF.
    pub line: Bytes,
    /// Whether it ends in a reason.
    explained: bool,
}

/// The most bytes of a reason: HAProxy keeps about 108, and cuts what is longer.
const REASON: usize = 100;

impl AgentLine {
    /// The line of an answer that no verdict gives.
    #[must_use]
    pub fn refusal(reason: &str) -> Self {
        Self::new("down 100%", Some(reason), "")
    }

    fn new(words: &str, reason: Option<&str>, maxconn: &str) -> Self {
        let mut line = format!("{words}{maxconn}");
        if let Some(reason) = reason {
            line.push_str(" #");
            line.push_str(&printable(reason, REASON));
        }
        line.push('\n');
        Self { line: line.into(), explained: reason.is_some() }
    }

    /// The same line with a remark at its end, as far as there is room.
    #[must_use]
    pub fn remark(&self, remark: &str) -> Bytes {
        let line = String::from_utf8_lossy(&self.line);
        let line = line.trim_end();
        let (words, reason) = match line.split_once(" #") {
            Some((words, reason)) if self.explained => {
                let room = REASON.saturating_sub(remark.len() + 2);
                (words, format!("{}; {remark}", printable(reason, room)))
            }
            _ => (line, remark.to_owned()),
        };
        Self::new(words, Some(&reason), "").line
    }

    /// The line without its end, for a status line's reason phrase.
    #[must_use]
    pub fn phrase(&self) -> &[u8] {
        self.line.strip_suffix(b"\n").unwrap_or(&self.line)
    }
}

/// The answers to a health check over HTTP.
#[derive(Clone, Debug)]
pub struct Health {
    /// The answer.
    pub reply: Reply,
    /// Its status.
    pub status: u16,
    /// The answer, and its status, for one who asked with `?drain=404`.
    pub drain_404: (Reply, u16),
    /// How many percent of its full work the service takes; none when it is not up.
    pub percent: Option<u8>,
    /// The header that Envoy understands, if the state has one.
    pub header: Option<(&'static str, &'static str)>,
}

/// Envoy sends less to a host whose check answers with this header, whatever its value.
const DEGRADED: (&str, &str) = ("x-envoy-degraded", "true");
/// Beside a failing status: Envoy takes the host out of the arithmetic of panic, too.
const IMMEDIATE_FAIL: (&str, &str) = ("x-envoy-immediate-health-check-fail", "true");

impl Words {
    /// The words for a service's verdict; `maxconn` is what HAProxy may open at full weight.
    #[must_use]
    pub fn of(service: &str, verdict: &Verdict, maxconn: Option<NonZeroU32>) -> Self {
        let why = why(verdict);
        Self {
            owning: agent(verdict, &why, maxconn, true),
            keep: agent(verdict, &why, maxconn, false),
            health: health(service, verdict, &why),
        }
    }
}

/// The reasons in one line. What is only warned of is no reason for a state, so it is left out, but
/// for the order that forces one.
fn why(verdict: &Verdict) -> String {
    let mut why = String::new();
    for reason in &verdict.reasons {
        let forces = verdict.forced && reason.code == crate::health::Code::Override;
        if reason.otherwise > crate::health::Else::Warn || forces {
            let _ = write!(why, "{}{reason}", if why.is_empty() { "" } else { "; " });
        }
    }
    why
}

fn agent(verdict: &Verdict, why: &str, maxconn: Option<NonZeroU32>, owning: bool) -> AgentLine {
    let weight = if verdict.state == State::Up { verdict.weight } else { Weight::FULL };
    let percent = weight.percent();
    let (words, reason) = match (verdict.state, owning) {
        (State::Up, true) => (format!("up ready {percent}%"), None),
        (State::Up, false) => (format!("up {percent}%"), None),
        (State::Drain, true) => ("up drain 100%".to_owned(), Some(why.to_owned())),
        (State::Drain, false) => ("up 0%".to_owned(), Some(format!("drain: {why}"))),
        (State::Down, true) => ("down ready 100%".to_owned(), Some(why.to_owned())),
        (State::Down, false) => ("down 100%".to_owned(), Some(why.to_owned())),
        (State::Maint, true) => ("up maint 100%".to_owned(), Some(why.to_owned())),
        (State::Maint, false) => ("down 100%".to_owned(), Some(format!("maint: {why}"))),
    };
    let reason = match verdict {
        Verdict { forced: true, .. } => Some(format!("forced: {why}")),
        Verdict { degraded: true, .. } => Some(format!("degraded: {why}")),
        _ => reason,
    };
    let maxconn = maxconn.map(|full| format!(" maxconn:{}", weight.share_of(full)));
    AgentLine::new(&words, reason.as_deref(), maxconn.as_deref().unwrap_or_default())
}

fn health(service: &str, verdict: &Verdict, why: &str) -> Health {
    let (status, word, header) = match verdict.state {
        State::Up if verdict.degraded => (200, "warn", Some(DEGRADED)),
        State::Up if verdict.forced => (200, "warn", None),
        State::Up => (200, "pass", None),
        State::Down => (503, "fail", None),
        State::Drain | State::Maint => (503, "fail", Some(IMMEDIATE_FAIL)),
    };
    let body = Body {
        status: word,
        service_id: service,
        state: verdict.state.as_str(),
        forced: verdict.forced,
        weight: verdict.weight.percent(),
        output: (!why.is_empty()).then_some(why),
        checks: checks(&verdict.findings),
    };
    let body: Bytes = serde_json::to_vec(&body).unwrap_or_default().into();
    let reply = |status| {
        let headers: &[_] = match &header {
            Some(header) => std::slice::from_ref(header),
            None => &[],
        };
        Reply::new(status, "application/health+json", headers, body.clone())
    };
    let drain = if verdict.state == State::Drain { 404 } else { status };
    Health {
        reply: reply(status),
        status,
        drain_404: (reply(drain), drain),
        percent: (verdict.state == State::Up).then(|| verdict.weight.percent()),
        header,
    }
}

/// A health response in the form of draft-inadarei-api-health-check.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Health")]
pub(super) struct Body<'a> {
    /// `pass`, `warn` or `fail`.
    status: &'static str,
    service_id: &'a str,
    #[schemars(with = "State")]
    state: &'static str,
    /// Up by an operator's order.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    forced: bool,
    #[schemars(with = "Weight")]
    weight: u8,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<&'a str>,
    checks: Map<String, Value>,
}

/// An answer of one word, `pass` or `fail`.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "its form alone is needed; it is written in place")]
pub(super) struct Plain {
    status: String,
    #[schemars(skip_serializing_if = "Option::is_none")]
    output: Option<String>,
}

fn checks(findings: &[Finding]) -> Map<String, Value> {
    let check = |finding: &Finding| {
        let status = match (finding.pass, finding.otherwise) {
            (true, _) => "pass",
            (false, crate::health::Else::Warn | crate::health::Else::Degrade) => "warn",
            (false, _) => "fail",
        };
        json!([{"observedValue": finding.observed, "status": status, "output": finding.text}])
    };
    findings.iter().map(|finding| (finding.criterion.to_owned(), check(finding))).collect()
}

/// Printable ASCII, at most `limit` bytes of it.
pub(super) fn printable(text: &str, limit: usize) -> String {
    text.chars().take(limit).map(|c| if matches!(c, ' '..='~') { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{Code, Else, Moment, Reason};

    fn verdict(state: State, degraded: bool, weight: u64, codes: &[(Code, Else)]) -> Verdict {
        let reason = |(code, otherwise): &(Code, Else)| Reason {
            code: *code,
            criterion: None,
            otherwise: *otherwise,
            text: "so it is".to_owned(),
        };
        Verdict {
            state,
            degraded,
            forced: false,
            weight: Weight::clamped(weight),
            reasons: codes.iter().map(reason).collect(),
            findings: Vec::new(),
            parts: Vec::new(),
            since: Moment::default(),
            seq: 1,
        }
    }

    fn lines(verdict: &Verdict, maxconn: Option<u32>) -> (String, String) {
        let words = Words::of("write", verdict, maxconn.and_then(NonZeroU32::new));
        let text = |line: &AgentLine| String::from_utf8(line.line.to_vec()).unwrap();
        (text(&words.owning), text(&words.keep))
    }

    #[test]
    fn every_state_has_its_agent_line() {
        let few = [(Code::ServersFew, Else::Down)];
        for (verdict, owning, keep) in [
            (verdict(State::Up, false, 73, &[]), "up ready 73%\n", "up 73%\n"),
            (
                verdict(State::Up, false, 100, &[(Code::IntroducersFew, Else::Warn)]),
                "up ready 100%\n",
                "up 100%\n",
            ),
            (
                verdict(State::Up, true, 50, &[(Code::Slow, Else::Degrade)]),
                "up ready 50% #degraded: slow: so it is\n",
                "up 50% #degraded: slow: so it is\n",
            ),
            (
                verdict(State::Drain, false, 30, &[(Code::Slow, Else::Drain)]),
                "up drain 100% #slow: so it is\n",
                "up 0% #drain: slow: so it is\n",
            ),
            (
                verdict(State::Down, false, 30, &few),
                "down ready 100% #servers-few: so it is\n",
                "down 100% #servers-few: so it is\n",
            ),
            (
                verdict(State::Maint, false, 30, &few),
                "up maint 100% #servers-few: so it is\n",
                "down 100% #maint: servers-few: so it is\n",
            ),
        ] {
            assert_eq!(lines(&verdict, None), (owning.to_owned(), keep.to_owned()));
        }
    }

    #[test]
    fn a_forced_state_says_so() {
        let reasons = [(Code::Override, Else::Warn), (Code::ServersFew, Else::Down)];
        let verdict = Verdict { forced: true, ..verdict(State::Up, false, 100, &reasons) };
        let why = "override: so it is; servers-few: so it is";
        assert_eq!(lines(&verdict, None).0, format!("up ready 100% #forced: {why}\n"));
        let health = Words::of("x", &verdict, None).health;
        assert_eq!((health.status, health.header), (200, None));
    }

    #[test]
    fn maxconn_follows_the_weight_and_is_never_zero() {
        assert_eq!(
            lines(&verdict(State::Up, false, 50, &[]), Some(200)).0,
            "up ready 50% maxconn:100\n"
        );
        assert_eq!(lines(&verdict(State::Up, false, 1, &[]), Some(3)).0, "up ready 1% maxconn:1\n");
        let down = verdict(State::Down, false, 1, &[(Code::Stale, Else::Down)]);
        assert_eq!(lines(&down, Some(9)).0, "down ready 100% maxconn:9 #stale: so it is\n");
    }

    #[test]
    fn a_line_is_short_and_printable_whatever_the_reason() {
        let mut verdict = verdict(State::Down, false, 1, &[(Code::Stale, Else::Down)]);
        verdict.reasons[0].text = "grün\r\nup ready 100%\0".repeat(100);
        let (owning, keep) = lines(&verdict, Some(u32::MAX));
        for line in [owning, keep] {
            assert!(line.len() < 256);
            assert_eq!(line.find('\n'), Some(line.len() - 1));
            assert!(line.trim_end().bytes().all(|b| (b' '..=b'~').contains(&b)));
        }
    }

    #[test]
    fn remarks_join_the_reason() {
        let words = Words::of("x", &verdict(State::Up, false, 100, &[]), None);
        assert_eq!(
            &words.owning.remark("ignored option: x")[..],
            b"up ready 100% #ignored option: x\n"
        );
        let down = verdict(State::Down, false, 100, &[(Code::Stale, Else::Down)]);
        let line = Words::of("x", &down, None).owning.remark("ignored option: x");
        assert_eq!(&line[..], b"down ready 100% #stale: so it is; ignored option: x\n");
        let mut down = down;
        down.reasons[0].text = "so it is ".repeat(50);
        let line = Words::of("x", &down, None).owning.remark("ignored option: x");
        assert!(line.ends_with(b"; ignored option: x\n") && line.len() < 120, "{line:?}");
    }

    #[test]
    fn health_checks_hear_the_state_by_status_and_header() {
        let of = |verdict: &Verdict| Words::of("x", verdict, None).health;
        let up = of(&verdict(State::Up, false, 40, &[]));
        assert_eq!((up.status, up.drain_404.1, up.header, up.percent), (200, 200, None, Some(40)));
        let degraded = of(&verdict(State::Up, true, 40, &[(Code::Slow, Else::Degrade)]));
        assert_eq!((degraded.status, degraded.header), (200, Some(DEGRADED)));
        let drain = of(&verdict(State::Drain, false, 40, &[]));
        assert_eq!((drain.status, drain.drain_404.1), (503, 404));
        assert_eq!((drain.header, drain.percent), (Some(IMMEDIATE_FAIL), None));
        let down = of(&verdict(State::Down, false, 40, &[]));
        assert_eq!((down.status, down.drain_404.1, down.header), (503, 503, None));
        let maint = of(&verdict(State::Maint, false, 40, &[]));
        assert_eq!((maint.status, maint.drain_404.1), (503, 503));
    }
}
