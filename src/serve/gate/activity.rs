//! Whether a connection whose bytes are carried as they are serves anybody just now.
//!
//! What is seen of its bytes decides when it may be cut, and nothing else. What cannot be read as HTTP, TLS for one,
//! passes as all else does, and is judged by who spoke last; so are requests that a client sends before it has the
//! answer to the last one.

use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::answer::Answer;
use super::asked::{Asked, Method};
use super::buffer::SMALL;
use crate::clock::Clock;
use crate::health::Moment;

/// What has moved on a connection.
#[derive(Debug)]
pub(super) struct Activity {
    clock: Clock,
    /// Locked for no longer than it takes to look at a few bytes, and by its connection alone.
    talk: Mutex<Talk>,
}

impl Activity {
    /// Of a new connection.
    pub(super) fn new(clock: Clock) -> Self {
        let talk = Talk { answered: clock.now(), due: Due::Nothing, held: Vec::new() };
        Self { clock, talk: Mutex::new(talk) }
    }

    /// The client has said this.
    pub(super) fn asked(&self, bytes: &[u8]) {
        self.talk().asked(bytes);
    }

    /// The node has said something that is on its way to the client.
    pub(super) fn answering(&self) {
        self.talk().answering();
    }

    /// The client has taken this of what the node has said; nothing, if it is the node's end.
    pub(super) fn answered(&self, bytes: &[u8]) {
        self.talk().answered(bytes, self.clock);
    }

    /// How long no byte has moved and no answer was due. A gateway is silent between the last byte of an upload and its
    /// answer, and in the middle of a download while it asks other servers for the rest; a slow client takes nothing for
    /// seconds, until what the kernel holds for it has become less.
    pub(super) fn idle(&self) -> Duration {
        let talk = self.talk();
        if talk.is_due() { Duration::ZERO } else { self.clock.now().since(talk.answered) }
    }

    fn talk(&self) -> MutexGuard<'_, Talk> {
        // It is whole after every statement, so a panic elsewhere did not harm it.
        self.talk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Requests and answers, as far as they can be told apart from outside.
#[derive(Debug)]
struct Talk {
    /// When the client took something last: while other bytes move, something is due.
    answered: Moment,
    due: Due,
    /// The beginning of what cannot be understood before more of it is there; at most [`SMALL`].
    held: Vec<u8>,
}

#[derive(Debug)]
enum Due {
    Nothing,
    /// The rest of an answer.
    Answer(Answer),
    /// Perhaps something: it is not HTTP, and either the client spoke last, or it has not taken all that the node said.
    Unclear(bool),
    /// The node has said its last.
    Never,
}

impl Talk {
    const fn is_due(&self) -> bool {
        matches!(self.due, Due::Answer(_) | Due::Unclear(true))
    }

    fn asked(&mut self, bytes: &[u8]) {
        match &mut self.due {
            Due::Nothing => self.due = Due::Answer(answer(bytes.starts_with(b"HEAD "))),
            // More of the request.
            Due::Answer(_) | Due::Never => {}
            Due::Unclear(due) => *due = true,
        }
    }

    const fn answering(&mut self) {
        match &mut self.due {
            // The answer to a request that came before the last answer's end.
            Due::Nothing => self.due = Due::Answer(answer(false)),
            Due::Answer(_) | Due::Never => {}
            Due::Unclear(due) => *due = true,
        }
    }

    fn answered(&mut self, bytes: &[u8], clock: Clock) {
        self.answered = clock.now();
        let mut held = mem::take(&mut self.held);
        if bytes.is_empty() {
            self.due = Due::Never;
        } else if held.is_empty() {
            let n = self.follow(bytes);
            self.held = bytes.get(n..).unwrap_or_default().to_vec();
        } else {
            held.extend_from_slice(bytes);
            // In a piece of its own size, since it may lie for long.
            self.held = held.split_off(self.follow(&held));
        }
        if self.held.len() > SMALL {
            // No node of ours begins so.
            self.held = Vec::new();
            self.due = Due::Unclear(false);
        }
    }

    /// Says how many of the bytes were understood; the others need more behind them.
    fn follow(&mut self, bytes: &[u8]) -> usize {
        let mut seen = 0;
        while let Some(rest) = bytes.get(seen..).filter(|rest| !rest.is_empty()) {
            match &mut self.due {
                Due::Nothing => self.due = Due::Answer(answer(false)),
                Due::Answer(answer) if !answer.is_begun() && !is_head(rest) => {
                    self.due = Due::Unclear(false);
                }
                Due::Answer(answer) => match answer.step(rest) {
                    Ok(n) => {
                        seen += n;
                        if answer.is_over() {
                            self.due = Due::Nothing;
                        } else if n == 0 {
                            return seen;
                        }
                    }
                    Err(_) => self.due = Due::Unclear(false),
                },
                Due::Unclear(due) => {
                    *due = false;
                    return bytes.len();
                }
                Due::Never => return bytes.len(),
            }
        }
        seen
    }
}

/// Whether an answer may begin so.
fn is_head(bytes: &[u8]) -> bool {
    const BEGINS: &[u8] = b"HTTP/";
    bytes.starts_with(BEGINS) || BEGINS.starts_with(bytes)
}

/// An answer to come. Of its request only the method matters here.
const fn answer(to_head: bool) -> Answer {
    let method = if to_head { Method::Head } else { Method::Other };
    Answer::to(Asked { method, http_1_1: true, keep: true, expects: false })
}

/// Whether an answer is still due after a request, and this as the answer, in pieces of this size.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn is_due(request: &str, answer: &[u8], size: usize) -> bool {
    let activity = Activity::new(Clock::start());
    activity.asked(request.as_bytes());
    for piece in answer.chunks(size) {
        activity.answering();
        activity.answered(piece);
    }
    activity.talk().is_due()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &str = "GET / HTTP/1.1\r\n\r\n";
    const HEAD: &str = "HEAD / HTTP/1.1\r\n\r\n";

    #[test]
    fn an_answer_is_due_until_its_last_byte() {
        for (request, answer) in [
            (GET, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n12345"),
            (HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
            (GET, "HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n"),
            (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
            (
                "PUT",
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n",
            ),
        ] {
            for size in [1, 7, 1000] {
                for end in 0..answer.len() {
                    assert!(is_due(request, &answer.as_bytes()[..end], size), "{answer} {end}");
                }
                assert!(!is_due(request, answer.as_bytes(), size), "{answer}");
            }
        }
        // It ends with its connection.
        assert!(is_due(GET, b"HTTP/1.0 200 OK\r\n\r\nabc", 1000));
    }

    #[test]
    fn what_the_client_has_not_taken_is_due() {
        for said in [&b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"[..], b"\x16\x03\x01"] {
            let activity = Activity::new(Clock::start());
            let is_due = || activity.talk().is_due();
            assert!(!is_due());
            activity.asked(b"x");
            activity.answering();
            assert!(is_due());
            activity.answered(said);
            assert!(!is_due());
            activity.answering();
            assert!(is_due());
        }
    }

    #[test]
    fn nothing_is_due_of_a_node_that_has_gone() {
        for said in ["", "HTTP/1.0 200 OK\r\n\r\nabc", "HTTP/1.1 200 OK\r\nContent-", "\x16"] {
            let activity = Activity::new(Clock::start());
            activity.asked(GET.as_bytes());
            activity.answered(said.as_bytes());
            activity.answered(b"");
            activity.asked(GET.as_bytes());
            assert!(!activity.talk().is_due() && activity.talk().held.is_empty(), "{said:?}");
        }
    }

    #[test]
    fn answers_follow_one_another() {
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        let two = answer.repeat(2);
        for end in answer.len() + 1..two.len() {
            assert!(is_due(GET, &two.as_bytes()[..end], 1000), "{end}");
        }
        assert!(!is_due(GET, two.as_bytes(), 1000));
        assert!(!is_due(GET, two.as_bytes(), 1));
    }

    #[test]
    fn what_is_not_http_is_judged_by_who_spoke_last() {
        let activity = Activity::new(Clock::start());
        let is_due = || activity.talk().is_due();
        activity.asked(b"\x16\x03\x01\x02");
        assert!(is_due());
        for _ in 0..3 {
            activity.answered(b"\x16\x03\x03\n\n");
            assert!(!is_due() && activity.talk().held.is_empty());
            activity.asked(b"\x17");
            assert!(is_due());
        }
    }

    #[test]
    fn half_of_what_is_there_lies_in_its_own_size() {
        let activity = Activity::new(Clock::start());
        activity.asked(GET.as_bytes());
        activity.answered(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1000");
        activity.answered(format!("0\r\n{}\r\n1234", "x".repeat(0x10000)).as_bytes());
        let talk = activity.talk();
        assert_eq!(talk.held, b"1234");
        assert!(talk.held.capacity() < 64, "{}", talk.held.capacity());
        drop(talk);
        let activity = Activity::new(Clock::start());
        activity.answered(format!("HTTP/1.1 200 OK\r\nA: {}", "x".repeat(SMALL)).as_bytes());
        assert!(activity.talk().held.is_empty() && !activity.talk().is_due());
    }
}
