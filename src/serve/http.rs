//! HTTP/1.x, as far as answering short questions goes: GET and HEAD, and short bodies where a site changes things.
//!
//! An answer is prepared down to its last byte but the date, so that asking costs next to nothing.
//! A kept connection may be idle for long, since an idle time near a balancer's interval makes its
//! checks fail; half a header may not.

use std::borrow::Cow;
use std::io::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use httpdate::HttpDate;
use schemars::JsonSchema;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::UCred;
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::accept::{Peer, Seat, Wire};
use super::watch::Watcher;

/// How long a kept connection may be idle.
const IDLE: Duration = Duration::from_mins(15);
/// How long a header may take from its first byte to its last.
const HEADER_TIME: Duration = Duration::from_secs(5);
/// How long a peer may take to read an answer.
const WRITE_TIME: Duration = Duration::from_secs(10);
/// The largest header that is read.
pub(super) const HEADER_LIMIT: usize = 8 << 10;
/// The most header lines that are read.
const HEADERS: usize = 64;

/// The largest body of a request that changes something.
const BODY_LIMIT: usize = 16 << 10;
/// How long such a body may take.
const BODY_TIME: Duration = Duration::from_secs(5);

/// What answers questions.
pub trait Site: Send + Sync {
    /// The answer to a GET (or, without its body, a HEAD) of this path, for whoever is there.
    fn get(&self, path: &str, query: &str, peer: Peer) -> Reply;

    /// Who answers a GET of this path for as long as it is read; `None` where an answer has an end.
    fn watch(&self, _path: &str) -> Option<Watcher> {
        None
    }

    /// The answer to a GET (or, without its body, a HEAD) of this path, where it takes its time; `None` elsewhere.
    fn later<'a>(&'a self, _path: &str, _query: &'a str) -> Option<Later<'a>> {
        None
    }

    /// The answer to any other method; `None` where nothing can be changed.
    fn change<'a>(&'a self, _change: Change<'a>) -> Option<Later<'a>> {
        None
    }
}

/// An answer on its way.
pub type Later<'a> = Pin<Box<dyn Future<Output = Reply> + Send + 'a>>;

/// A request that would change something.
#[derive(Debug)]
pub struct Change<'a> {
    /// The method, neither GET nor HEAD.
    pub method: &'a str,
    /// The path.
    pub path: &'a str,
    /// The query.
    pub query: &'a str,
    /// The body.
    pub body: &'a [u8],
    /// Who asks, over a Unix socket.
    pub peer: Option<UCred>,
}

/// An answer, prepared.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status line and the headers that do not change.
    head: Bytes,
    body: Bytes,
}

impl Reply {
    /// An answer with these headers beside the usual ones.
    #[must_use]
    pub fn new(
        status: u16,
        content_type: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Self {
        let body = body.into();
        let mut head = Vec::new();
        // Writing to a vector cannot fail.
        let _ = write!(
            head,
            "HTTP/1.1 {status} {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\
             Cache-Control: no-store\r\n",
            phrase(status),
            body.len(),
        );
        for (name, value) in headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        Self { head: head.into(), body }
    }

    /// A JSON answer.
    #[must_use]
    pub fn json(status: u16, value: &serde_json::Value) -> Self {
        Self::new(status, "application/json", &[], format!("{value}\n"))
    }

    /// There is nothing at this path.
    #[must_use]
    pub fn not_found(what: &str) -> Self {
        Self::json(404, &json!({"status": 404, "title": "not found", "detail": what}))
    }

    /// Appends the answer to `out`.
    pub(super) fn write(&self, out: &mut Vec<u8>, with_body: bool, close: bool) {
        out.extend_from_slice(&self.head);
        out.extend_from_slice(b"Date: ");
        // Writing to a vector cannot fail.
        let _ = write!(out, "{}", HttpDate::from(SystemTime::now()));
        out.extend_from_slice(if close { b"\r\nConnection: close\r\n\r\n" } else { b"\r\n\r\n" });
        if with_body {
            out.extend_from_slice(&self.body);
        }
    }
}

/// The reason phrases of the statuses that are used here.
#[must_use]
pub(super) const fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        422 => "Unprocessable Content",
        500 => "Internal Server Error",
        431 => "Request Header Fields Too Large",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        507 => "Insufficient Storage",
        _ => "Unknown",
    }
}

/// Serves one connection.
pub async fn serve(mut stream: impl Wire, peer: Peer, seat: Seat, site: Arc<dyn Site>) {
    let mut buffer = Vec::new();
    let mut out = Vec::new();
    let (timer, leave) = (std::pin::pin!(sleep(IDLE)), std::pin::pin!(seat.leave()));
    let mut patience = Patience { timer, leave, fresh: true, left: false };
    loop {
        let header = match patience.read_header(&mut stream, &seat, &mut buffer).await {
            Header::Complete(length) => length,
            Header::TooLarge => {
                return refuse(&mut stream, 431, "the header is larger than 8 KiB").await;
            }
            Header::Gone => return,
        };
        let (head, rest) = buffer.split_at_checked(header).unwrap_or_default();
        let kept = match Request::parse(head) {
            None => {
                problem(400, "not an HTTP request").write(&mut out, true, true);
                false
            }
            Some(request) => {
                if let Some(watcher) = site.watch(request.path).filter(|_| request.method == "GET")
                {
                    return watcher.serve(&mut stream, &seat).await;
                }
                if let Some(reply) = later(&request, &*site).await {
                    reply.write(&mut out, request.method == "GET", !request.keep);
                    request.keep && !seat.must_leave()
                } else if let Some(reply) = changed(&request, rest, &mut stream, &*site).await {
                    reply.write(&mut out, true, true);
                    false
                } else {
                    answer(&request, &*site, peer, &mut out) && !seat.must_leave()
                }
            }
        };
        if !written(&mut stream, &out, WRITE_TIME).await {
            return;
        }
        if !kept {
            return linger(&mut stream).await;
        }
        buffer.drain(..header);
        // A long answer's room is not kept for the next one.
        out.clear();
        out.shrink_to(HEADER_LIMIT);
    }
}

/// Sends it; says whether all of it went in time.
pub(super) async fn written(stream: &mut impl Wire, out: &[u8], time: Duration) -> bool {
    let writing = async {
        stream.write_all(out).await?;
        stream.flush().await
    };
    // Most answers fit into the socket, and then nobody waits, for the time neither.
    matches!(timeout(time, writing).await, Ok(Ok(())))
}

enum Header {
    /// The header ends at this byte.
    Complete(usize),
    TooLarge,
    Gone,
}

/// How long a connection is waited for. Its timer and its place among those who may be asked to leave are the same for
/// all of its requests, so that a request costs no entry in either's books.
struct Patience<'a, L> {
    timer: Pin<&'a mut Sleep>,
    leave: Pin<&'a mut L>,
    /// Nothing was asked yet, so whoever opened the connection is about to.
    fresh: bool,
    /// It was asked to leave.
    left: bool,
}

impl<L: Future<Output = ()>> Patience<'_, L> {
    async fn read_header(
        &mut self,
        stream: &mut impl Wire,
        seat: &Seat,
        buffer: &mut Vec<u8>,
    ) -> Header {
        let mut begun = !buffer.is_empty();
        let mut until = Instant::now() + if begun { HEADER_TIME } else { IDLE };
        loop {
            if let Some(end) = header_end(buffer) {
                seat.busy();
                self.fresh = false;
                return Header::Complete(end);
            }
            if buffer.len() > HEADER_LIMIT {
                return Header::TooLarge;
            }
            if !begun {
                seat.idle();
            }
            if self.timer.deadline() > until {
                self.timer.as_mut().reset(until);
            }
            buffer.reserve(1024);
            let read = tokio::select! {
                // What has come is answered, whatever else has happened meanwhile.
                biased;
                read = stream.read_buf(buffer) => read,
                () = self.leave.as_mut(), if !self.left => {
                    self.left = true;
                    let Some(moment) = seat.last_words().filter(|_| begun || self.fresh) else {
                        return Header::Gone;
                    };
                    until = until.min(Instant::now() + moment);
                    continue;
                }
                () = self.timer.as_mut() => {
                    if Instant::now() >= until {
                        return Header::Gone;
                    }
                    // It was set for an earlier request.
                    self.timer.as_mut().reset(until);
                    continue;
                }
            };
            match read {
                Ok(1..) if begun => {}
                Ok(1..) => {
                    seat.reading();
                    begun = true;
                    if !self.left {
                        until = Instant::now() + HEADER_TIME;
                    }
                }
                _ => return Header::Gone,
            }
        }
    }
}

/// Where the first header in `buffer` ends, its empty line included.
pub(super) fn header_end(buffer: &[u8]) -> Option<usize> {
    let within = buffer.get(..buffer.len().min(HEADER_LIMIT)).unwrap_or_default();
    // Lines may end in LF alone, also in the same header in which others do not.
    let mut ends = within.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(at, _)| at + 1);
    ends.find_map(|line| match within.get(line..) {
        Some([b'\n', ..]) => Some(line + 1),
        Some([b'\r', b'\n', ..]) => Some(line + 2),
        _ => None,
    })
}

/// A request, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    /// The `Host` header, if there is one.
    pub(super) host: &'a str,
    /// The length of its body; `None` where that is not clear.
    pub(super) length: Option<usize>,
    /// Whether the connection can serve another request after this one.
    pub(super) keep: bool,
}

impl<'a> Request<'a> {
    /// Reads a whole header; `None` when it is none.
    pub(super) fn parse(header: &'a [u8]) -> Option<Self> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        if !matches!(request.parse(header), Ok(httparse::Status::Complete(_))) {
            return None;
        }
        let target = request.path?;
        // The absolute form, that proxies send, names the same path.
        let target = match target.split_once("://") {
            Some((_, rest)) if !target.starts_with('/') => {
                rest.find('/').and_then(|slash| rest.get(slash..)).unwrap_or("/")
            }
            _ => target,
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let http_1_1 = request.version == Some(1);
        // A header may stand more than once, and each counts.
        let values = |name: &'static str| {
            let named = request.headers.iter().filter(move |h| h.name.eq_ignore_ascii_case(name));
            named.map(|header| header.value)
        };
        let says = |word: &[u8]| {
            values("connection")
                .flat_map(|value| value.split(|b| *b == b','))
                .any(|token| token.trim_ascii().eq_ignore_ascii_case(word))
        };
        let mut lengths = values("content-length").map(|length| {
            let length = std::str::from_utf8(length).ok()?.trim_ascii();
            // No sign, which a number may have and a length may not.
            length.bytes().all(|b| b.is_ascii_digit()).then(|| length.parse().ok())?
        });
        let length = match (lengths.next(), lengths.next()) {
            _ if values("transfer-encoding").next().is_some() => None,
            (None, _) => Some(0),
            (Some(length), None) => length,
            (Some(_), Some(_)) => None,
        };
        // A body is not read, so what follows it cannot be told apart from it.
        let keep =
            length == Some(0) && if http_1_1 { !says(b"close") } else { says(b"keep-alive") };
        let host = request.headers.iter().find(|h| h.name.eq_ignore_ascii_case("host"));
        let host = host.and_then(|h| std::str::from_utf8(h.value).ok()).unwrap_or_default();
        Some(Self { method: request.method?, path, query, host, length, keep })
    }
}

/// An answer that takes its time; `None` where there is none.
async fn later(request: &Request<'_>, site: &dyn Site) -> Option<Reply> {
    let reading = matches!(request.method, "GET" | "HEAD");
    let answer = reading.then(|| site.later(request.path, request.query)).flatten()?;
    Some(answer.await)
}

/// The answer to a request that changes something; `None` where there is none, or nothing to change.
async fn changed(
    request: &Request<'_>,
    rest: &[u8],
    stream: &mut impl Wire,
    site: &dyn Site,
) -> Option<Reply> {
    let Request { method, path, query, length, .. } = *request;
    if matches!(method, "GET" | "HEAD") {
        return None;
    }
    let peer = stream.user();
    let mut body = rest.to_vec();
    // Asked without its body first: where nothing can be changed, none is read.
    drop(site.change(Change { method, path, query, body: b"", peer })?);
    let Some(length) = length else { return Some(problem(411, "a body needs a Content-Length")) };
    if length > BODY_LIMIT {
        return Some(problem(413, "the body is larger than 16 KiB"));
    }
    let reading = async {
        while body.len() < length && matches!(stream.read_buf(&mut body).await, Ok(1..)) {}
    };
    let _ = timeout(BODY_TIME, reading).await;
    let Some(body) = body.get(..length) else { return Some(problem(408, "the body did not come")) };
    Some(site.change(Change { method, path, query, body, peer })?.await)
}

/// Writes the answer to `out`, and says whether the connection goes on.
pub(super) fn answer(
    request: &Request<'_>,
    site: &dyn Site,
    peer: Peer,
    out: &mut Vec<u8>,
) -> bool {
    let path = slot(request.path, request.host);
    match request.method {
        "GET" => site.get(&path, request.query, peer).write(out, true, !request.keep),
        "HEAD" => site.get(&path, request.query, peer).write(out, false, !request.keep),
        _ => {
            let body = json!({"status": 405, "title": "this listener only answers GET and HEAD"});
            let allow = &[("Allow", "GET, HEAD")];
            Reply::new(405, "application/json", allow, format!("{body}\n")).write(
                out,
                true,
                !request.keep,
            );
        }
    }
    request.keep
}

/// The path of a slot that the host names, as `3.of.10` does: all copies of a node in one cluster of Envoy are asked for
/// the same path, and each by a host of its own.
fn slot<'a>(path: &'a str, host: &str) -> Cow<'a, str> {
    match host.split_once(".of.") {
        Some((slot, slots)) if path.ends_with("/slot") => {
            Cow::Owned(format!("{path}/{slot}/of/{slots}"))
        }
        _ => Cow::Borrowed(path),
    }
}

fn problem(status: u16, title: &str) -> Reply {
    Reply::json(status, &json!({"status": status, "title": title}))
}

/// An answer that says what is wrong with a question.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "its form alone is needed; it is written in place")]
pub(super) struct Problem {
    /// The status of the answer.
    status: u16,
    /// What is wrong.
    title: String,
    /// More of it.
    #[schemars(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

async fn refuse(stream: &mut impl Wire, status: u16, title: &str) {
    let mut out = Vec::new();
    problem(status, title).write(&mut out, true, true);
    if written(stream, &out, WRITE_TIME).await {
        linger(stream).await;
    }
}

/// Ends a connection without losing the answer: closing with unread bytes makes the kernel send a
/// reset, which may overtake it. So the write side is shut, and what comes is read for a moment.
pub(super) async fn linger(stream: &mut impl Wire) {
    const TIME: Duration = Duration::from_secs(1);
    const BYTES: usize = 4 << 20;
    let drain = async {
        let _ = stream.shutdown().await;
        let mut sink = [0; 4096];
        let mut total = 0;
        while let Ok(n @ 1..) = stream.read(&mut sink).await {
            total += n;
            if total > BYTES {
                break;
            }
        }
    };
    let _ = timeout(TIME, drain).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo;
    impl Site for Echo {
        fn get(&self, path: &str, query: &str, _: Peer) -> Reply {
            Reply::new(200, "text/plain", &[("X", "y")], format!("{path}|{query}"))
        }
    }

    fn ask(header: &str) -> (bool, String) {
        let mut out = Vec::new();
        let request = Request::parse(header.as_bytes()).unwrap();
        let kept = answer(&request, &Echo, None, &mut out);
        (kept, String::from_utf8(out).unwrap())
    }

    #[test]
    fn questions_are_answered() {
        let (kept, answer) = ask("GET /a/b?c=d HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(kept);
        assert!(
            answer.starts_with(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 8\r\n"
            )
        );
        assert!(
            answer.contains("\r\nX: y\r\n") && answer.ends_with("\r\n\r\n/a/b|c=d"),
            "{answer}"
        );
        let (_, head) = ask("HEAD /a/b?c=d HTTP/1.1\r\n\r\n");
        assert!(head.contains("Content-Length: 8\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        assert!(ask("GET http://h:1/a HTTP/1.1\r\n\r\n").1.ends_with("/a|"));
        let (kept, answer) = ask("POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\n");
        assert!(
            !kept && answer.starts_with("HTTP/1.1 405 ") && answer.contains("Allow: GET, HEAD\r\n")
        );
        assert_eq!(Request::parse(b"nonsense\r\n\r\n"), None);
    }

    #[test]
    fn connections_are_kept_as_the_version_and_the_header_say() {
        for (header, kept) in [
            ("GET / HTTP/1.1\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nConnection: Close\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nconnection: x, close\r\n\r\n", false),
            ("GET / HTTP/1.0\r\n\r\n", false),
            ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nConnection: x\r\nConnection: close\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nContent-Length: +0\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", false),
        ] {
            let (went_on, answer) = ask(header);
            assert_eq!(went_on, kept, "{header}");
            assert_eq!(answer.contains("Connection: close"), !kept, "{header}");
        }
    }

    #[test]
    fn a_length_is_digits_and_stands_once() {
        for (said, length) in [
            ("Content-Length: 3", Some(3)),
            ("A: b", Some(0)),
            ("Content-Length: +3", None),
            ("Content-Length: 3 3", None),
            ("Content-Length:", None),
            ("Content-Length: 3\r\nContent-Length: 3", None),
            ("Transfer-Encoding: chunked", None),
        ] {
            let header = format!("PUT / HTTP/1.1\r\n{said}\r\n\r\n");
            assert_eq!(Request::parse(header.as_bytes()).unwrap().length, length, "{said}");
        }
    }

    #[test]
    fn a_header_ends_at_its_empty_line() {
        assert_eq!(header_end(b"GET / HTTP/1.1\r\n\r\nmore"), Some(18));
        assert_eq!(header_end(b"GET / HTTP/1.1\n\nmore"), Some(16));
        assert_eq!(header_end(b"GET / HTTP/1.1\n\r\nmore"), Some(17));
        assert_eq!(header_end(b"GET / HTTP/1.1\r\n"), None);
        let late = [&[b'x'; HEADER_LIMIT][..], b"\r\n\r\n"].concat();
        assert_eq!(header_end(&late), None);
    }
}
