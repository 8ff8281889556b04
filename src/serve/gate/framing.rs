//! Where one request ends and the next begins, told apart before anybody else reads them.
//!
//! Whoever stands in front of the gate, the gate and the node must see the same requests. So only what
//! can be read in one way passes (RFC 9112, without what it lets a lenient reader take), and nothing
//! of a head, or of a line between chunks, passes before all of it was seen.

use std::mem::MaybeUninit;

use super::path;

/// Far beyond what the node takes, which is 16 KiB.
const HEAD_LIMIT: usize = 64 << 10;
/// Far more than any client sends.
pub(super) const HEADERS: usize = 100;
/// A chunk's size and what it may say beside it.
const LINE_LIMIT: usize = 1 << 10;

/// Why a request is refused, or an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    pub(super) status: u16,
    pub(super) title: &'static str,
}

const fn flaw(title: &'static str) -> Flaw {
    Flaw { status: 400, title }
}

const TOO_LARGE: Flaw = Flaw { status: 431, title: "a head that is too large" };

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// A head, of which so many bytes were seen to be in order.
    Head(usize),
    /// So many bytes of a body, one at least.
    Body(u64),
    ChunkSize,
    /// So many bytes of a chunk, one at least.
    Chunk(u64),
    ChunkEnd,
    /// The lines behind the last chunk, as with a head.
    Trailers(usize),
}

impl At {
    /// Follows requests through the bytes held. Says how many of them are clear, and what is wrong
    /// with the next one.
    #[cfg(any(test, feature = "fuzzing"))]
    fn follow(&mut self, held: &[u8]) -> (usize, Option<Flaw>) {
        let mut clear = 0;
        while let Some(bytes) = held.get(clear..).filter(|bytes| !bytes.is_empty()) {
            match self.step(bytes) {
                Ok(0) => break,
                Ok(n) => clear += n,
                Err(flaw) => return (clear, Some(flaw)),
            }
        }
        (clear, None)
    }

    /// The next step: so many bytes are clear, of some at least, and none where more are needed to tell.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub(super) fn step(&mut self, bytes: &[u8]) -> Result<usize, Flaw> {
        let (next, n) = match *self {
            // Half of an empty line is not yet the first of a head, nor of trailers.
            Self::Head(0) | Self::Trailers(0) if bytes == b"\r" => (*self, 0),
            Self::Head(0) if bytes.starts_with(b"\r\n") => (*self, 2),
            Self::Head(seen) => match lines(bytes, seen)? {
                Some(n) => (after_head(bytes.get(..n).unwrap_or_default())?, n),
                None => (Self::Head(bytes.len()), 0),
            },
            Self::Body(left) | Self::Chunk(left) => {
                let n = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                (self.after(n), n)
            }
            Self::ChunkSize => match bytes.iter().position(|b| *b == b'\n') {
                Some(end) if end < LINE_LIMIT => {
                    let size = chunk_size(bytes.get(..=end).unwrap_or_default())
                        .ok_or(flaw("a chunk without a clear size"))?;
                    (if size == 0 { Self::Trailers(0) } else { Self::Chunk(size) }, end + 1)
                }
                None if bytes.len() < LINE_LIMIT => (*self, 0),
                _ => return Err(flaw("a chunk without a clear size")),
            },
            Self::ChunkEnd => match bytes {
                [b'\r', b'\n', ..] => (Self::ChunkSize, 2),
                [b'\r'] => (*self, 0),
                _ => return Err(flaw("a chunk that is longer than its size")),
            },
            Self::Trailers(0) if bytes.starts_with(b"\r\n") => (Self::Head(0), 2),
            Self::Trailers(seen) => match lines(bytes, seen)? {
                Some(n) => (after_trailers(bytes.get(..n).unwrap_or_default())?, n),
                None => (Self::Trailers(bytes.len()), 0),
            },
        };
        *self = next;
        Ok(n)
    }

    /// So many bytes further in a body or a chunk.
    fn after(self, n: usize) -> Self {
        match self {
            Self::Body(left) => match left.saturating_sub(n as u64) {
                0 => Self::Head(0),
                left => Self::Body(left),
            },
            Self::Chunk(left) => match left.saturating_sub(n as u64) {
                0 => Self::ChunkEnd,
                left => Self::Chunk(left),
            },
            other => other,
        }
    }
}

/// The length of lines up to an empty one, of which so many bytes were seen before.
pub(super) fn lines(bytes: &[u8], seen: usize) -> Result<Option<usize>, Flaw> {
    let all = bytes.get(..HEAD_LIMIT).unwrap_or(bytes);
    let is_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
    // What followed the last byte was not seen.
    let mut from = seen.saturating_sub(1);
    while let Some(n) = all.get(from..).and_then(|rest| rest.iter().position(is_end)) {
        let (line, rest) = all.split_at(from + n);
        match rest {
            [b'\r'] | [b'\r', b'\n', ..] => {}
            [b'\n', ..] if line.ends_with(b"\r\n\r") => return Ok(Some(line.len() + 1)),
            [b'\n', next @ ..] if line.ends_with(b"\r") => {
                if let [b' ' | b'\t', ..] = next {
                    return Err(flaw("a header that goes on in a new line"));
                }
            }
            _ => return Err(flaw("a line that does not end in CR LF")),
        }
        from = line.len() + 1;
    }
    if bytes.len() < HEAD_LIMIT { Ok(None) } else { Err(TOO_LARGE) }
}

/// What follows a head.
fn after_head(head: &[u8]) -> Result<At, Flaw> {
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(head, &mut headers) {
        Ok(httparse::Status::Complete(n)) if n == head.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(TOO_LARGE),
        _ => return Err(flaw("not an HTTP request")),
    }
    if !request.path.is_some_and(path::is_target) {
        return Err(flaw("a request target that is no path"));
    }
    once(request.headers, "host")?;
    Ok(body(request.headers, request.version == Some(1))?.unwrap_or(At::Head(0)))
}

/// The value of a header that may be there once.
fn once<'a>(headers: &[httparse::Header<'a>], name: &str) -> Result<Option<&'a [u8]>, Flaw> {
    let mut values = headers.iter().filter(|h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value);
    let first = values.next();
    if values.next().is_none() { Ok(first) } else { Err(flaw("a header twice that may be once")) }
}

/// What a message's headers say of its body; `None` where they say nothing.
pub(super) fn body(headers: &[httparse::Header<'_>], http_1_1: bool) -> Result<Option<At>, Flaw> {
    match (once(headers, "content-length")?, once(headers, "transfer-encoding")?) {
        (None, None) => Ok(None),
        (Some(length), None) => {
            match number(length, 10).ok_or(flaw("a length that is no number"))? {
                0 => Ok(Some(At::Head(0))),
                length => Ok(Some(At::Body(length))),
            }
        }
        (None, Some(coding)) if http_1_1 && coding.eq_ignore_ascii_case(b"chunked") => {
            Ok(Some(At::ChunkSize))
        }
        (None, Some(_)) => Err(flaw("a transfer encoding other than chunked")),
        (Some(_), Some(_)) => Err(flaw("a message with two lengths")),
    }
}

/// Whether a message leaves its connection open. Of older versions none does: the node keeps none.
pub(super) fn keeps(headers: &[httparse::Header<'_>], http_1_1: bool) -> bool {
    let named = headers.iter().filter(|h| h.name.eq_ignore_ascii_case("connection"));
    let mut words = named.flat_map(|h| h.value.split(|b| *b == b','));
    http_1_1 && !words.any(|word| word.trim_ascii().eq_ignore_ascii_case(b"close"))
}

/// What follows the last chunk's lines.
fn after_trailers(lines: &[u8]) -> Result<At, Flaw> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    match httparse::parse_headers(lines, &mut headers) {
        Ok(httparse::Status::Complete((n, _))) if n == lines.len() => Ok(At::Head(0)),
        _ => Err(flaw("a body with senseless lines behind it")),
    }
}

/// The size that stands in the line before a chunk.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let line = line.strip_suffix(b"\r\n")?;
    let (size, rest) = line.split_at(line.iter().position(|b| *b == b';').unwrap_or(line.len()));
    let plain = rest.iter().all(|b| *b == b'\t' || !b.is_ascii_control());
    number(size, 16).filter(|_| plain)
}

/// Digits and nothing else: no sign, no space. Far less than what would overflow a length anywhere.
fn number(digits: &[u8], radix: u32) -> Option<u64> {
    let plain = !digits.is_empty() && digits.iter().all(|b| char::from(*b).is_digit(radix));
    let text = std::str::from_utf8(digits).ok().filter(|_| plain)?;
    u64::from_str_radix(text, radix).ok().filter(|number| *number <= u64::MAX >> 2)
}

/// What passes of all this, however it is cut up, and what is wrong with the rest.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn pass(all: &[u8], size: usize) -> (Vec<u8>, At, Option<Flaw>) {
    let (mut at, mut held, mut passed) = (At::Head(0), Vec::new(), Vec::new());
    for piece in all.chunks(size) {
        held.extend_from_slice(piece);
        let (clear, flaw) = at.follow(&held);
        passed.extend(held.drain(..clear));
        if flaw.is_some() {
            return (passed, at, flaw);
        }
    }
    (passed, at, None)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::reference;
    use super::*;

    #[test]
    fn an_empty_line_is_one_however_it_is_cut() {
        for all in [
            "\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ] {
            let whole = (all.as_bytes().to_vec(), At::Head(0), None);
            assert_eq!(pass(all.as_bytes(), 1), whole, "{all}");
        }
        // What follows a body is a request, and not the body's last lines.
        let two =
            "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET x HTTP/1.1\r\n\r\n";
        assert!(pass(two.as_bytes(), 1).2.is_some());
    }

    /// Requests and their parts, whole and spoilt.
    fn parts() -> impl Strategy<Value = String> {
        const PARTS: &[&str] = &[
            "GET /a HTTP/1.1\r\n",
            "PUT /uri HTTP/1.1\r\n",
            "PUT /b HTTP/1.0\r\n",
            "GET x HTTP/1.1\r\n",
            "Host: x\r\n",
            "Content-Length: 5\r\n",
            "Content-Length: 0\r\n",
            "content-length:3 \r\n",
            "Content-Length: +3\r\n",
            "Content-Length: 3,3\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Transfer-Encoding: Chunked\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding : chunked\r\n",
            " folded\r\n",
            "A: b\r\n",
            "A: b\n",
            "A: b\rc\r\n",
            "\r\n",
            "\r\n",
            "\r\n",
            "\n",
            "\r",
            "0\r\n",
            "3\r\nabc\r\n",
            "5;x=y\r\nGET /\r\n",
            "3\nabc\r\n",
            "abc",
            "12345",
            "GET /",
            "T: z\r\n",
        ];
        const WHOLE: &[&str] = &[
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "PUT /uri HTTP/1.1\r\nContent-Length: 5\r\n\r\nGET /",
            "POST /uri HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nGET /\r\n0\r\nT: z\r\n\r\n",
            "POST /uri HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "PUT /uri HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n\r\n",
            "PUT /uri HTTP/1.1\r\nHost: x\r\n",
        ];
        let one = prop_oneof![prop::sample::select(PARTS), prop::sample::select(WHOLE)];
        prop::collection::vec(one, 0..12).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// Whole requests are those of the reference, wherever the bytes are cut.
        #[test]
        fn requests_end_where_a_strict_reader_sees_them_end(all in parts(), size in 1_usize..200) {
            let (passed, at, flaw) = pass(all.as_bytes(), size);
            prop_assert_eq!(&passed[..], &all.as_bytes()[..passed.len()], "as it came");
            let whole = reference::strict(all.as_bytes()).last().copied().unwrap_or_default();
            prop_assert!(passed.len() >= whole, "whole requests pass: {passed:?} {at:?} {flaw:?}");
            if let At::Head(_) = at {
                let blank = all[whole..].len() - all[whole..].trim_start_matches("\r\n").len();
                prop_assert!(passed.len() <= whole + blank, "nothing of the next one: {all:?} {whole}");
            }
        }

        #[test]
        fn nothing_panics_and_the_cuts_do_not_matter(
            bytes in prop::collection::vec(any::<u8>(), 0..600),
            size in 1_usize..50,
        ) {
            let ((passed, _, flaw), (at_once, _, same)) = (pass(&bytes, size), pass(&bytes, 1000));
            prop_assert_eq!((passed, flaw), (at_once, same));
        }
    }
}
