//! Where an answer of the node ends, told as strictly as with requests.
//!
//! Whoever is behind the gate must see the same answers as the gate does, or one of them would be
//! taken for the answer to another request. So what can be read in two ways passes nowhere.

use std::mem::MaybeUninit;

use super::asked::{Asked, Method};
use super::framing::{self, Flaw, HEADERS, keeps, lines};

const fn flaw(title: &'static str) -> Flaw {
    Flaw { status: 502, title }
}

/// The answer to one request.
#[derive(Debug)]
pub(super) struct Answer {
    asked: Asked,
    at: At,
    keep: bool,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// A head, of an interim answer or the final one; of it so many bytes were seen to be in order.
    Head(usize),
    Body(framing::At),
    /// A body that ends with the node's connection.
    UntilEnd,
    Over,
}

impl Answer {
    /// An answer that has not begun.
    pub(super) const fn to(asked: Asked) -> Self {
        Self { asked, at: At::Head(0), keep: true }
    }

    /// Whether the client may wait for a word of the node's before it goes on.
    pub(super) const fn is_expected(&self) -> bool {
        self.asked.expects
    }

    /// Whether the head of the final answer was read.
    pub(super) fn is_begun(&self) -> bool {
        !matches!(self.at, At::Head(_))
    }

    /// Whether all of it was read.
    pub(super) fn is_over(&self) -> bool {
        self.at == At::Over
    }

    /// Whether another one may follow over the same connections.
    pub(super) fn keeps(&self) -> bool {
        self.keep && self.asked.keep
    }

    /// The node's connection has ended, and says whether that is the answer's end.
    pub(super) fn end(&mut self) -> bool {
        if self.at == At::UntilEnd {
            self.at = At::Over;
        }
        self.is_over()
    }

    /// The next step: so many bytes are clear, and none where more are needed to tell, or it is over.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub(super) fn step(&mut self, bytes: &[u8]) -> Result<usize, Flaw> {
        let strict = |flaw: Flaw| Flaw { status: 502, ..flaw };
        let (next, n) = match self.at {
            At::Head(seen) => match lines(bytes, seen).map_err(strict)? {
                Some(n) => (self.after_head(bytes.get(..n).unwrap_or_default())?, n),
                None => (At::Head(bytes.len()), 0),
            },
            At::Body(mut body) => {
                let n = body.step(bytes).map_err(strict)?;
                (rest(body), n)
            }
            At::UntilEnd => (self.at, bytes.len()),
            At::Over => (self.at, 0),
        };
        self.at = next;
        Ok(n)
    }

    /// What follows a head.
    fn after_head(&mut self, head: &[u8]) -> Result<At, Flaw> {
        let mut headers = [const { MaybeUninit::uninit() }; HEADERS];
        let mut response = httparse::Response::new(&mut []);
        let parser = httparse::ParserConfig::default();
        match parser.parse_response_with_uninit_headers(&mut response, head, &mut headers) {
            // It would skip empty lines.
            Ok(httparse::Status::Complete(n)) if n == head.len() && head.starts_with(b"HTTP/") => {}
            _ => return Err(flaw("not an HTTP answer")),
        }
        let http_1_1 = response.version == Some(1);
        let strict = |flaw: Flaw| Flaw { status: 502, ..flaw };
        let body = framing::body(response.headers, http_1_1).map_err(strict)?;
        let none = matches!(body, None | Some(framing::At::Head(_)));
        self.keep = keeps(response.headers, http_1_1);
        match (response.code.unwrap_or_default(), body) {
            (101, _) => Err(flaw("another protocol, which nobody may ask for here")),
            (100..=199, None) if self.asked.http_1_1 => Ok(At::Head(0)),
            (0..=199, _) => Err(flaw("an interim answer that nobody could read")),
            (200..=299, _) if self.asked.method == Method::Connect => {
                Err(flaw("a tunnel, which nobody may ask for here"))
            }
            (_, Some(framing::At::ChunkSize)) if !self.asked.http_1_1 => {
                Err(flaw("chunks for a client that knows none"))
            }
            (204, _) if !none => Err(flaw("a body where there is none")),
            (204 | 304, _) => Ok(At::Over),
            _ if self.asked.is_bodiless() => Ok(At::Over),
            (_, Some(body)) => Ok(rest(body)),
            (_, None) => {
                self.keep = false;
                Ok(At::UntilEnd)
            }
        }
    }
}

/// What is left of a body; a request's head would follow its end.
fn rest(body: framing::At) -> At {
    if let framing::At::Head(_) = body { At::Over } else { At::Body(body) }
}

#[cfg(any(test, feature = "fuzzing"))]
const GET: Asked = Asked { method: Method::Repeatable, http_1_1: true, keep: true, expects: false };
/// What may have been asked, as far as it matters.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) const ASKED: [Asked; 4] = [
    GET,
    Asked { method: Method::Head, ..GET },
    Asked { method: Method::Connect, ..GET },
    Asked { method: Method::Other, http_1_1: false, keep: false, expects: false },
];

/// How an answer was read.
#[cfg(any(test, feature = "fuzzing"))]
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// So many bytes, and whether the connections go on.
    Whole(usize, bool),
    /// As long as the connection is open.
    UntilEnd,
    /// It is not all there.
    Part,
    Flawed,
}

/// What comes of all this, cut into pieces of this size, and what has passed of it.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn read(asked: Asked, all: &[u8], size: usize) -> (Read, Vec<u8>, Option<Flaw>) {
    let (mut answer, mut held, mut passed) = (Answer::to(asked), Vec::new(), Vec::new());
    for piece in all.chunks(size) {
        held.extend_from_slice(piece);
        while !held.is_empty() {
            match answer.step(&held) {
                Ok(0) => break,
                Ok(n) => passed.extend(held.drain(..n)),
                Err(flaw) => return (Read::Flawed, passed, Some(flaw)),
            }
        }
    }
    let read = if answer.is_over() {
        Read::Whole(passed.len(), answer.keeps())
    } else if answer.end() {
        Read::UntilEnd
    } else {
        Read::Part
    };
    (read, passed, None)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same question, answered slowly: it reads all at once, with nothing but splitting.
    fn reference(asked: Asked, text: &str) -> Read {
        let mut start = 0;
        loop {
            let rest = &text[start..];
            let Some((head, after)) = rest.split_once("\r\n\r\n") else {
                let ended = rest.replace("\r\n", "");
                let half = ended.strip_suffix('\r').unwrap_or(&ended);
                let folded = rest.contains("\n ") || rest.contains("\n\t");
                return if half.contains(['\r', '\n']) || folded {
                    Read::Flawed
                } else {
                    Read::Part
                };
            };
            let end = text.len() - after.len();
            if head.replace("\r\n", "").contains(['\r', '\n']) {
                return Read::Flawed;
            }
            let mut lines = head.split("\r\n");
            let first = lines.next().unwrap_or_default();
            let (version, code) = first.split_once(' ').unwrap_or_default();
            let http_1_1 = match version {
                "HTTP/1.1" => true,
                "HTTP/1.0" => false,
                _ => return Read::Flawed,
            };
            let (code, space) = code.split_at_checked(3).unwrap_or_default();
            let code: u16 = match code.parse() {
                Ok(code) if space.is_empty() || space.starts_with(' ') => code,
                _ => return Read::Flawed,
            };
            let mut fields = Vec::new();
            for line in lines {
                match line.split_once(':') {
                    Some((name, value)) if !name.is_empty() && !name.contains([' ', '\t']) => {
                        fields.push((name.to_ascii_lowercase(), value.trim_matches([' ', '\t'])));
                    }
                    _ => return Read::Flawed,
                }
            }
            let all = |wanted: &str| -> Vec<&str> {
                fields.iter().filter(|(name, _)| name == wanted).map(|(_, value)| *value).collect()
            };
            let length = match (&all("content-length")[..], &all("transfer-encoding")[..]) {
                ([], []) => None,
                ([n], []) if !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()) => {
                    Some(n.parse::<usize>().ok())
                }
                ([], [coding]) if coding.eq_ignore_ascii_case("chunked") && http_1_1 => Some(None),
                _ => return Read::Flawed,
            };
            match code {
                101 => return Read::Flawed,
                100..=199 if asked.http_1_1 && length.is_none() => {
                    start = end;
                    continue;
                }
                ..200 => return Read::Flawed,
                200..=299 if asked.method == Method::Connect => return Read::Flawed,
                _ => {}
            }
            if length == Some(None) && !asked.http_1_1
                || code == 204 && !matches!(length, None | Some(Some(0)))
            {
                return Read::Flawed;
            }
            let closes = all("connection").concat().to_ascii_lowercase().contains("close");
            let keep = asked.keep && http_1_1 && !closes;
            if matches!(code, 204 | 304) || asked.method == Method::Head {
                return Read::Whole(end, keep);
            }
            return match length {
                None => Read::UntilEnd,
                Some(Some(n)) if after.len() < n => Read::Part,
                Some(Some(n)) => Read::Whole(end + n, keep),
                Some(None) => match chunks(after) {
                    Ok(n) => Read::Whole(end + n, keep),
                    Err(read) => read,
                },
            };
        }
    }

    /// The length of a body in chunks.
    fn chunks(text: &str) -> Result<usize, Read> {
        let mut rest = text;
        loop {
            let (line, after) = rest.split_once('\n').ok_or(Read::Part)?;
            let line = line.strip_suffix('\r').ok_or(Read::Flawed)?;
            let (size, more) = line.split_once(';').unwrap_or((line, ""));
            if !size.bytes().all(|b| b.is_ascii_hexdigit()) || more.contains('\r') {
                return Err(Read::Flawed);
            }
            let size = usize::from_str_radix(size, 16).map_err(|_| Read::Flawed)?;
            if size > 0 {
                rest = after.get(size..).ok_or(Read::Part)?;
                rest = match rest.strip_prefix("\r\n") {
                    Some(rest) => rest,
                    None if rest.is_empty() || rest == "\r" => return Err(Read::Part),
                    None => return Err(Read::Flawed),
                };
                continue;
            }
            if after.starts_with("\r\n") {
                return Ok(text.len() - after.len() + 2);
            }
            let lines = after.find("\r\n\r\n").map_or(after, |end| &after[..end]);
            let whole = lines.len() < after.len();
            let plain = lines.replace("\r\n", "\n");
            let plain = if whole { &plain } else { plain.strip_suffix('\r').unwrap_or(&plain) };
            let lone = lines.replace("\r\n", "");
            let lone = if whole { &lone } else { lone.strip_suffix('\r').unwrap_or(&lone) };
            if lone.contains(['\r', '\n']) || plain.contains("\n ") || plain.contains("\n\t") {
                return Err(Read::Flawed);
            }
            if !whole {
                return Err(Read::Part);
            }
            let is_field = |line: &str| {
                line.split_once(':')
                    .is_some_and(|(name, _)| !name.is_empty() && !name.contains([' ', '\t']))
            };
            return if plain.split('\n').all(is_field) {
                Ok(text.len() - after.len() + lines.len() + 4)
            } else {
                Err(Read::Flawed)
            };
        }
    }

    /// Answers and their parts, whole and spoilt.
    fn parts() -> impl Strategy<Value = String> {
        const PARTS: &[&str] = &[
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.0 200 OK\r\n",
            "HTTP/1.1 100 Continue\r\n",
            "HTTP/1.1 101 Switching\r\n",
            "HTTP/1.1 204 No Content\r\n",
            "HTTP/1.1 304\r\n",
            "HTTP/1.1 503 \r\n",
            "HTTP/2 200\r\n",
            "Content-Length: 5\r\n",
            "Content-Length: 0\r\n",
            "content-length:3 \r\n",
            "Content-Length: +3\r\n",
            "Content-Length: 3,3\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding : chunked\r\n",
            "Connection: close\r\n",
            "Connection: keep-alive\r\n",
            " folded\r\n",
            "A: b\r\n",
            "A: b\n",
            "\r\n",
            "\r\n",
            "\r\n",
            "\r\n",
            "\n",
            "\r",
            "0\r\n",
            "3\r\nabc\r\n",
            "5;x=y\r\nHTTP/\r\n",
            "3\nabc\r\n",
            "abc",
            "12345",
            "T: z\r\n",
        ];
        const WHOLE: &[&str] = &[
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHTTP/",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nHTTP/\r\n0\r\nT: z\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n",
        ];
        let one = prop_oneof![prop::sample::select(PARTS), prop::sample::select(WHOLE)];
        prop::collection::vec(one, 0..8).prop_map(|parts| parts.concat())
    }

    #[test]
    fn an_answer_ends_where_its_head_says() {
        let whole = |text: &str| read(GET, text.as_bytes(), 1).0;
        let long = [b"HTTP/1.1 200 OK\r\nA: ".as_slice(), &vec![b'b'; 70_000]].concat();
        assert_eq!(read(GET, &long, 5000).0, Read::Flawed, "a head without end");
        for (text, wanted) in [
            ("HTTP/1.1 204 X\r\nContent-Length: 0\r\n\r\n", Read::Whole(37, true)),
            ("HTTP/1.1 304 X\r\nContent-Length: 9\r\n\r\n", Read::Whole(37, true)),
            ("HTTP/1.1 204 X\r\nContent-Length: 9\r\n\r\n", Read::Flawed),
            ("\r\nHTTP/1.1 204 X\r\n\r\n", Read::Flawed),
            ("HTTP/1.1 099 X\r\n\r\n", Read::Flawed),
            ("HTTP/1.1 103 X\r\nContent-Length: 0\r\n\r\n", Read::Flawed),
            ("HTTP/1.1 200 OK\nContent-Length: 0\n\n", Read::Flawed),
        ] {
            assert_eq!(whole(text), wanted, "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// An answer ends where the reference sees its end, wherever the bytes are cut.
        #[test]
        fn answers_end_where_a_strict_reader_sees_them_end(
            all in parts(),
            asked in prop::sample::select(&ASKED[..]),
            size in 1_usize..200,
        ) {
            let (seen, passed, flaw) = read(asked, all.as_bytes(), size);
            prop_assert_eq!(&passed[..], &all.as_bytes()[..passed.len()], "as it came");
            let at_once = read(asked, all.as_bytes(), usize::MAX);
            prop_assert_eq!((&seen, &passed, flaw), (&at_once.0, &at_once.1, at_once.2), "cuts");
            let wanted = reference(asked, &all);
            // What is not all there may be seen to be flawed early or late.
            if (&seen, &wanted) != (&Read::Flawed, &Read::Part) && (&seen, &wanted) != (&Read::Part, &Read::Flawed) {
                prop_assert_eq!(seen, wanted, "{:?} {:?}", all, flaw);
            }
        }

        #[test]
        fn nothing_panics_and_the_cuts_do_not_matter(
            start in prop_oneof![Just(""), Just("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")],
            bytes in prop::collection::vec(any::<u8>(), 0..600),
            asked in prop::sample::select(&ASKED[..]),
            size in 1_usize..50,
        ) {
            let all = [start.as_bytes(), &bytes].concat();
            prop_assert_eq!(read(asked, &all, size), read(asked, &all, 1000));
        }
    }
}
