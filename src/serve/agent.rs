//! The agent listener: HAProxy's agent-check protocol, one line per connection.
//!
//! HAProxy opens a connection per check, may send a question (`agent-send`), reads to the first line
//! end and closes. An unknown service is answered `down`, so that a typo shows at its first check.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::warn;

use super::accept::{Peer, Seat, Stream};
use super::greet::Greeting;
use super::health::Found;
use super::hold::Holds;
use super::http::{self, HEADER_LIMIT, Request};
use super::question::Question;
use super::words::{AgentLine, printable};
use crate::board::{Board, ServiceBoard};
use crate::counts::Held;
use crate::health::State;
use crate::log::Seldom;

/// How long a question may be silent before it counts as whole.
const QUIET: Duration = Duration::from_millis(30);
/// How long a question may take in all.
const QUESTION_TIME: Duration = Duration::from_secs(1);
/// How long a question may be.
const QUESTION_LIMIT: usize = 512;
/// A held answer that comes this much after its time is late; balancers are to wait for a second more.
const LATE: Duration = Duration::from_millis(250);
/// For how long at most a question is held while the service is not up.
const REPEAT: Duration = Duration::from_secs(1);
/// How long a peer may take to read an answer.
const WRITE_TIME: Duration = Duration::from_secs(5);

/// Answers agent checks.
#[derive(Debug)]
pub struct Agent {
    board: Arc<Board>,
    holds: Arc<Holds>,
    unknown: Seldom,
    ignored: Seldom,
}

/// What was read of a question.
enum Asked {
    /// A line; the flag says that its end was seen and nothing came after it.
    Line(bool),
    /// The first line of an HTTP request.
    Http,
    TooLong,
    Gone,
}

impl Agent {
    /// An agent that answers from this board.
    #[must_use]
    pub fn new(board: Arc<Board>) -> Self {
        Self {
            board,
            holds: Arc::default(),
            unknown: Seldom::default(),
            ignored: Seldom::default(),
        }
    }

    /// Answers whoever has asked by the time it is accepted, which is how balancers ask: nothing but the kernel is to
    /// be left in the cost of that. What takes longer, or is no usual question, is served as a connection.
    pub fn greet(&self, stream: &OwnedFd, peer: Peer) -> Greeting {
        let mut heard = [MaybeUninit::uninit(); QUESTION_LIMIT + 2];
        let heard = match rustix::net::recv(stream, &mut heard, RecvFlags::DONTWAIT) {
            Ok(((heard, _), _)) => &*heard,
            Err(Errno::AGAIN | Errno::INTR) => return Greeting::Silent,
            // It has gone.
            Err(_) => return Greeting::Served,
        };
        let whole = heard.is_empty() || matches!(asked(heard), Some(Asked::Line(true)));
        let line = String::from_utf8_lossy(first_line(heard));
        let question = Question::parse(&line);
        if !whole || question.hold.is_some() {
            return Greeting::Serve(heard.to_vec());
        }
        let answer = match self.find(&question, peer) {
            Ok(service) => self.say(&question, &service, peer),
            Err(refusal) => refusal,
        };
        // So short an answer fits; where it cannot be sent, nobody is there to hear it.
        let _ = rustix::net::send(stream, &answer, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        Greeting::Served
    }

    /// Serves one connection, which has said `buffer` so far.
    pub async fn serve(
        self: Arc<Self>,
        mut stream: Stream,
        peer: Peer,
        seat: Seat,
        mut buffer: Vec<u8>,
    ) {
        buffer.reserve(QUESTION_LIMIT);
        seat.reading();
        let asked = tokio::select! {
            biased;
            asked = read_question(&mut stream, &mut buffer) => asked,
            () = seat.leave_unheard() => return,
        };
        let (answer, clean) = match asked {
            Asked::Line(clean) => {
                seat.busy();
                let line = String::from_utf8_lossy(first_line(&buffer));
                match self.answer(&line, &mut stream, peer, &seat).await {
                    Some(answer) => (answer, clean),
                    None => return,
                }
            }
            Asked::Http => tokio::select! {
                biased;
                answer = self.http(&mut stream, peer, &mut buffer) => (answer, false),
                () = seat.leave_unheard() => return,
            },
            Asked::TooLong => (AgentLine::refusal("question too long").line, false),
            Asked::Gone => return,
        };
        // One write: HAProxy before 2.6.13 reads beyond the bytes of a line that comes in parts.
        let written = timeout(WRITE_TIME, stream.write_all(&answer)).await;
        if matches!(written, Ok(Ok(()))) && !clean {
            http::linger(&mut stream).await;
        }
    }

    /// The line that answers a question; `None` when the balancer hung up while it was held.
    async fn answer(
        &self,
        line: &str,
        stream: &mut Stream,
        peer: Peer,
        seat: &Seat,
    ) -> Option<Bytes> {
        let question = Question::parse(line);
        let service = match self.find(&question, peer) {
            Ok(service) => service,
            Err(refusal) => return Some(refusal),
        };
        if let Some(time) = question.hold {
            self.hold(&service, time, (peer, line.into()), stream, seat).await?;
        }
        Some(self.say(&question, &service, peer))
    }

    /// The service that is asked for, or what to say where there is none.
    fn find(&self, question: &Question<'_>, peer: Peer) -> Result<Arc<ServiceBoard>, Bytes> {
        if let Some(service) = self.board.service(question.service) {
            return Ok(service);
        }
        self.board.counts.asked_for_nothing("agent");
        let name = printable(question.service, 60);
        if let Some(more) = self.unknown.pass(self.board.clock.now()) {
            let service = &*name;
            warn!(service, ?peer, more, "A balancer asks for a service that does not exist.");
        }
        Err(AgentLine::refusal(&format!("no such service: {name}")).line)
    }

    /// The line that holds now.
    fn say(&self, question: &Question<'_>, service: &ServiceBoard, peer: Peer) -> Bytes {
        let answers = service.answers();
        self.board.told("agent", peer, &answers);
        let words = &answers.words;
        let line = if question.keep_admin { &words.keep } else { &words.owning };
        let Some(option) = &question.ignored else { return line.line.clone() };
        if let Some(more) = self.ignored.pass(self.board.clock.now()) {
            warn!(option, ?peer, more, "A balancer asks with an option that is not known.");
        }
        line.remark(&format!("ignored option: {option}"))
    }

    /// Waits for as long as the last answer of `key` stays current, at most for `time`; `None` when
    /// the balancer hung up.
    async fn hold(
        &self,
        service: &ServiceBoard,
        time: Duration,
        key: super::hold::Key,
        stream: &mut Stream,
        seat: &Seat,
    ) -> Option<()> {
        let clock = self.board.clock;
        let tag = service.tag();
        let begun = clock.now();
        // One that hcf comes to late, after it was frozen, may have been given up: its asker hears nothing.
        if has_hung_up(stream) {
            return Some(());
        }
        let Some(waiting) = self.holds.wait(&key, tag, begun) else { return Some(()) };
        // HAProxy raises a server whose tracked check recovers whatever its agent has said, so a bad word is repeated.
        let is_up = service.answers().verdict.state == State::Up;
        let time = if is_up { time } else { time.min(REPEAT) };
        // Where the listener is full, the one that was held longest is answered to make room.
        seat.idle();
        let hang_up = async {
            // Whatever more is sent says nothing, but the end of it says that nobody waits; and who
            // sends more than a question is no balancer.
            let mut sink = [0; QUESTION_LIMIT];
            let mut more = 0;
            while more < QUESTION_LIMIT {
                match stream.read(&mut sink).await {
                    Ok(n @ 1..) => more += n,
                    _ => break,
                }
            }
        };
        let how = tokio::select! {
            () = service.changed(tag) => Held::Changed,
            () = waiting.in_doubt() => Held::Doubt,
            () = sleep(time) => Held::Time,
            () = seat.leave() => Held::Room,
            () = hang_up => Held::HungUp,
        };
        // Whatever else is the case: who has hung up is told nothing.
        let how = if has_hung_up(stream) { Held::HungUp } else { how };
        let late = clock.now().since(begun) > time + LATE && how != Held::HungUp;
        self.board.counts.held(if late { Held::Late } else { how });
        if how == Held::HungUp {
            waiting.given_up(clock.now());
            return None;
        }
        seat.busy();
        // Nobody may wait for a late answer any more, so the next question is answered at once.
        if !late {
            let heard = (how != Held::Doubt).then(|| service.tag());
            waiting.answered(heard, clock.now());
        }
        Some(())
    }

    /// The answer to an HTTP request: the health listener's paths and statuses, with the agent's
    /// line as the reason phrase, so that one port can serve both of HAProxy's checks.
    async fn http(&self, stream: &mut Stream, peer: Peer, buffer: &mut Vec<u8>) -> Bytes {
        let respond = |status: u16, phrase: &[u8], header: Option<(&str, &str)>| {
            let mut out = format!("HTTP/1.1 {status} ").into_bytes();
            out.extend_from_slice(phrase);
            if let Some((name, value)) = header {
                out.extend_from_slice(format!("\r\n{name}: {value}").as_bytes());
            }
            out.extend_from_slice(b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            Bytes::from(out)
        };
        let deadline = Instant::now() + QUESTION_TIME;
        let end = loop {
            if let Some(end) = http::header_end(buffer) {
                break end;
            }
            if buffer.len() > HEADER_LIMIT {
                return respond(431, http::phrase(431).as_bytes(), None);
            }
            match timeout_at(deadline, stream.read_buf(buffer)).await {
                Ok(Ok(1..)) => {}
                _ => return respond(408, http::phrase(408).as_bytes(), None),
            }
        };
        let Some(request) = Request::parse(buffer.get(..end).unwrap_or_default()) else {
            return respond(400, http::phrase(400).as_bytes(), None);
        };
        if !matches!(request.method, "GET" | "HEAD" | "OPTIONS") {
            return respond(
                405,
                http::phrase(405).as_bytes(),
                Some(("Allow", "GET, HEAD, OPTIONS")),
            );
        }
        let found = Found::at(&self.board, request.path, request.query);
        found.note(&self.board, "agent", peer);
        match &found {
            Found::Service(answers, _) => {
                let words = &answers.words;
                respond(found.status(), words.owning.phrase(), words.health.header)
            }
            _ => respond(found.status(), http::phrase(found.status()).as_bytes(), None),
        }
    }
}

/// Whether the peer's end has come already. The kernel is asked, since after a freeze it knows more than the runtime.
fn has_hung_up(stream: &Stream) -> bool {
    let stream = match stream {
        Stream::Left(tcp) => tcp.as_fd(),
        Stream::Right(unix) => unix.as_fd(),
    };
    let mut byte = [MaybeUninit::uninit()];
    match rustix::net::recv(stream, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((_, bytes)) => bytes == 0,
        Err(error) => !matches!(error, Errno::AGAIN | Errno::INTR),
    }
}

/// Reads to the end of a line, or to 30 ms of quiet.
async fn read_question(stream: &mut Stream, buffer: &mut Vec<u8>) -> Asked {
    let deadline = Instant::now() + QUESTION_TIME;
    loop {
        if let Some(asked) = asked(buffer) {
            return asked;
        }
        let quiet = (Instant::now() + QUIET).min(deadline);
        match timeout_at(quiet, stream.read_buf(buffer)).await {
            Ok(Ok(0)) => return Asked::Line(true),
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return Asked::Gone,
            Err(_) if Instant::now() >= deadline => return Asked::TooLong,
            Err(_) => return Asked::Line(false),
        }
    }
}

/// What was asked; `None` while more may belong to it.
fn asked(buffer: &[u8]) -> Option<Asked> {
    let line = first_line(buffer);
    if line.len() >= QUESTION_LIMIT {
        return Some(Asked::TooLong);
    }
    let end = buffer.get(line.len()..).filter(|end| !end.is_empty())?;
    if is_http(line) {
        return Some(Asked::Http);
    }
    // CR LF ends one line; anything beyond it is more than was asked for.
    Some(Asked::Line(matches!(end, b"\n" | b"\r\n" | b"\r")))
}

/// The bytes before the first CR or LF.
pub(super) fn first_line(buffer: &[u8]) -> &[u8] {
    let end = buffer.iter().position(|b| matches!(b, b'\n' | b'\r')).unwrap_or(buffer.len());
    buffer.get(..end).unwrap_or_default()
}

/// Whether a line is an HTTP request's: `METHOD TARGET HTTP/1.x`.
pub(super) fn is_http(line: &[u8]) -> bool {
    let mut words = line.split(|b| *b == b' ');
    let method = words.next().unwrap_or_default();
    let (target, version) = (words.next(), words.next());
    !method.is_empty()
        && method.iter().all(u8::is_ascii_uppercase)
        && target.is_some_and(|target| !target.is_empty())
        && version.is_some_and(|version| version.starts_with(b"HTTP/1."))
        && words.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_is_told_from_a_question() {
        assert!(is_http(b"GET /livez HTTP/1.0"));
        assert!(is_http(b"OPTIONS * HTTP/1.1"));
        for line in
            [&b"GET /livez"[..], b"write admin=keep", b"get /x HTTP/1.0", b"", b"GET  HTTP/1.0"]
        {
            assert!(!is_http(line));
        }
    }
}
