//! What balancers ask the agent and the health listener, and what they hear.

use std::sync::LazyLock;

use super::agent::{first_line, is_http};
use super::http::{self, Reply, Request, Site};
use super::question::Question;
use super::words::{AgentLine, Words};
use super::{HealthSite, accept::Peer};
use crate::clock::Clock;
use crate::config::{Config, Sources};
use crate::health::{Code, Else, Moment, Reason, State, Verdict, Weight};
use crate::judge::{Judge, Memory};
use crate::overrides::Ruling;
use crate::systemd::Systemd;

/// A question, and in the lines behind it what a verdict may have for a reason.
pub(crate) fn agent_question(data: &[u8]) {
    let asked = first_line(data);
    let reason = String::from_utf8_lossy(data.get(asked.len()..).unwrap_or_default());
    let line = String::from_utf8_lossy(asked);
    let question = Question::parse(&line);
    assert!(question.hold.is_none_or(|time| time.as_secs() <= 60 && !time.is_zero()));
    assert!(!is_http(asked) || line.contains(" HTTP/1."));
    short(&AgentLine::refusal(&format!("no such service: {}", question.service)).line);
    for state in [State::Up, State::Drain, State::Down, State::Maint] {
        for (degraded, forced) in [(false, false), (true, false), (false, true)] {
            let verdict = verdict(state, degraded, forced, &reason);
            let words = Words::of(question.service, &verdict, std::num::NonZeroU32::new(u32::MAX));
            for line in [words.owning, words.keep] {
                short(&line.line);
                if let Some(option) = &question.ignored {
                    let remarked = line.remark(&format!("ignored option: {option}"));
                    short(&remarked);
                    // HAProxy does the same with both, but for what it shows.
                    assert_eq!(words_of(&remarked), words_of(&line.line));
                }
            }
        }
    }
}

/// What stands before the reason.
fn words_of(line: &[u8]) -> &[u8] {
    line.split(|b| *b == b'#').next().unwrap_or_default().trim_ascii_end()
}

fn verdict(state: State, degraded: bool, forced: bool, text: &str) -> Verdict {
    let reason =
        Reason { code: Code::Stale, criterion: None, otherwise: Else::Down, text: text.to_owned() };
    Verdict {
        state,
        degraded,
        forced,
        weight: Weight::FULL,
        reasons: vec![reason],
        findings: Vec::new(),
        parts: Vec::new(),
        since: Moment::default(),
        seq: 1,
    }
}

/// HAProxy reads one line into a small buffer.
fn short(line: &[u8]) {
    assert!(line.len() < 256, "{line:?}");
    let (end, text) = line.split_last().unwrap_or((&0, &[]));
    assert!(*end == b'\n' && text.iter().all(|b| (b' '..=b'~').contains(b)), "{line:?}");
}

/// The health listener of the default configuration, before the first look.
static SITE: LazyLock<Option<HealthSite>> = LazyLock::new(|| {
    let config = Config::load(&Sources::default()).ok()?;
    let (ruling, systemd) = (Ruling::default(), Systemd::default());
    let (_, board, _) = Judge::new(&config, Clock::start(), Memory::new(), &ruling, systemd);
    Some(HealthSite { board: board.into(), listener: "health" })
});

/// A request to any listener of ours that answers HTTP.
pub(crate) fn http_request(data: &[u8]) {
    let Some(end) = http::header_end(data) else { return };
    assert!(end <= data.len());
    let (head, rest) = data.split_at(end);
    assert_eq!(http::header_end(head), Some(end), "what follows a head does not move its end");
    let Some(request) = Request::parse(head) else { return };
    // What follows is taken for the next request only where nobody can take it for a body.
    let plain = request.length == Some(0);
    assert!(plain || !request.keep, "a body is left unread: {request:?}");
    assert!(request.path.len() + request.query.len() <= head.len());
    for site in [SITE.as_ref().map(|site| site as &dyn Site), Some(&Echo)].into_iter().flatten() {
        let mut out = Vec::new();
        let kept = http::answer(&request, site, None, &mut out);
        assert_eq!(kept, request.keep);
        is_answer(&out, kept, request.method == "HEAD");
    }
    drop(rest.to_vec());
}

/// Whoever reads an answer sees where it ends, and that it is one.
fn is_answer(out: &[u8], kept: bool, headless: bool) {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut answer = httparse::Response::new(&mut headers);
    let Ok(httparse::Status::Complete(head)) = answer.parse(out) else {
        panic!("no answer: {}", out.escape_ascii())
    };
    let values = |name: &str| -> Vec<&[u8]> {
        let named = answer.headers.iter().filter(|h| h.name.eq_ignore_ascii_case(name));
        named.map(|header| header.value).collect()
    };
    let length = values("content-length");
    let length = length.first().and_then(|length| std::str::from_utf8(length).ok()?.parse().ok());
    let body = out.len() - head;
    assert!(if headless { body == 0 } else { length == Some(body) }, "{}", out.escape_ascii());
    assert_eq!(values("connection") == [b"close"], !kept, "{}", out.escape_ascii());
}

struct Echo;

impl Site for Echo {
    fn get(&self, path: &str, query: &str, _: Peer) -> Reply {
        Reply::new(200, "text/plain", &[], format!("{path}?{query}"))
    }
}
