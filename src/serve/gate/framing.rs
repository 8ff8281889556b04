//! Where one request ends and the next begins, told apart before anybody else reads them.
//!
//! hyper settles a request with two lengths by itself and forwards a clear one; but whoever stands in
//! front of the gate may have settled it the other way, so such a request is refused (RFC 9112, 6.3).
//! What is wrong in any other way passes here, and hyper refuses it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::accept::Stream;

/// A client's connection, whose requests are checked as they pass.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) stream: Stream,
    /// A request with two lengths came, and nothing passes any more.
    pub(super) unclear: bool,
    /// What the client had said before; it passes first.
    early: Bytes,
    framing: Framing,
}

impl Checked {
    pub(super) const fn new(stream: Stream, early: Bytes) -> Self {
        Self { stream, unclear: false, early, framing: Framing { at: At::Head, line: Vec::new() } }
    }
}

impl AsyncRead for Checked {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let poll = if self.early.is_empty() {
            Pin::new(&mut self.stream).poll_read(cx, buf)
        } else {
            let n = self.early.len().min(buf.remaining());
            buf.put_slice(&self.early.split_to(n));
            Poll::Ready(Ok(()))
        };
        let new = buf.filled().get(before..).unwrap_or_default();
        if self.framing.feed(new).is_none() {
            buf.set_filled(before);
            self.unclear = true;
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        poll
    }
}

impl AsyncWrite for Checked {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Follows requests through the bytes of a connection.
#[derive(Debug)]
struct Framing {
    at: At,
    /// The head or line so far.
    line: Vec<u8>,
}

#[derive(Debug)]
enum At {
    Head,
    /// So many bytes of a body are still to come.
    Body(u64),
    ChunkSize,
    /// So many bytes of a chunk, its line end included.
    Chunk(u64),
    Trailer,
    /// Past something that hyper will refuse.
    Astray,
}

/// Far beyond what any client or node takes.
const HEAD_LIMIT: usize = 256 << 10;
const LINE_LIMIT: usize = 8 << 10;

impl Framing {
    /// Takes the next bytes; `None` when a request has two lengths.
    fn feed(&mut self, mut bytes: &[u8]) -> Option<()> {
        while !bytes.is_empty() {
            match &mut self.at {
                At::Astray => return Some(()),
                At::Body(left) | At::Chunk(left) => {
                    let n = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    bytes = bytes.get(n..)?;
                    *left -= n as u64;
                    if *left == 0 {
                        self.at =
                            if matches!(self.at, At::Body(_)) { At::Head } else { At::ChunkSize };
                    }
                }
                At::Head | At::ChunkSize | At::Trailer => {
                    let end =
                        bytes.iter().position(|b| *b == b'\n').map_or(bytes.len(), |at| at + 1);
                    let (line, rest) = bytes.split_at_checked(end)?;
                    self.line.extend_from_slice(line);
                    bytes = rest;
                    if self.line.ends_with(b"\n") {
                        self.line_ended()?;
                    } else if self.line.len() > HEAD_LIMIT {
                        self.at = At::Astray;
                    }
                }
            }
        }
        Some(())
    }

    fn line_ended(&mut self) -> Option<()> {
        let next = match self.at {
            At::Head if matches!(&self.line[..], b"\r\n" | b"\n") => At::Head,
            At::Head if !ends_a_head(&self.line) => {
                if self.line.len() > HEAD_LIMIT {
                    self.at = At::Astray;
                }
                return Some(());
            }
            At::Head => body(&self.line)?,
            At::ChunkSize => match chunk_size(&self.line) {
                Some(0) => At::Trailer,
                Some(size) => At::Chunk(size.saturating_add(2)),
                None => At::Astray,
            },
            At::Trailer if matches!(&self.line[..], b"\r\n" | b"\n") => At::Head,
            At::Trailer if self.line.len() <= LINE_LIMIT => At::Trailer,
            _ => At::Astray,
        };
        self.line.clear();
        self.at = next;
        Some(())
    }
}

fn ends_a_head(head: &[u8]) -> bool {
    head.ends_with(b"\n\r\n") || head.ends_with(b"\n\n")
}

/// What follows a head; `None` when it says so twice.
fn body(head: &[u8]) -> Option<At> {
    let mut headers = [httparse::EMPTY_HEADER; 256];
    let mut request = httparse::Request::new(&mut headers);
    if !matches!(request.parse(head), Ok(httparse::Status::Complete(_))) {
        return Some(At::Astray);
    }
    let mut lengths = Vec::new();
    let mut encoded = false;
    for header in request.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            lengths.push(header.value);
        }
        encoded |= header.name.eq_ignore_ascii_case("transfer-encoding");
    }
    match (&lengths[..], encoded) {
        ([], true) => Some(At::ChunkSize),
        ([], false) => Some(At::Head),
        ([first, others @ ..], false) if others.iter().all(|other| other == first) => {
            let length = std::str::from_utf8(first).ok().and_then(|text| text.trim().parse().ok());
            Some(match length {
                Some(0) => At::Head,
                Some(length) => At::Body(length),
                None => At::Astray,
            })
        }
        ([_, ..], _) => None,
    }
}

fn chunk_size(line: &[u8]) -> Option<u64> {
    let size = line.split(|b| matches!(b, b';' | b'\r' | b'\n')).next()?;
    let digits = std::str::from_utf8(size).ok()?.trim();
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
    u64::from_str_radix(digits, 16).ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLEAR: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n\
        PUT /uri HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nGET /\
        \r\nPOST /uri HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nGET /\r\n0\r\nT: z\r\n\r\n\
        HEAD / HTTP/1.1\r\nContent-Length: 0\r\n\r\n";
    const TWICE: [&str; 3] = [
        "POST /uri HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST /uri HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n",
        "POST /uri HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
    ];

    fn framing() -> Framing {
        Framing { at: At::Head, line: Vec::new() }
    }

    proptest! {
        /// However the bytes are cut up, clear requests pass and the unclear one is found, alone
        /// or behind others.
        #[test]
        fn two_lengths_are_found_wherever_they_stand(size in 1_usize..200) {
            for twice in TWICE {
                for before in ["", CLEAR] {
                    let all = format!("{before}{twice}");
                    let mut framing = framing();
                    let mut passed = 0;
                    for chunk in all.as_bytes().chunks(size) {
                        if framing.feed(chunk).is_none() {
                            break;
                        }
                        passed += chunk.len();
                    }
                    prop_assert!(passed >= before.len().saturating_sub(size) && passed < all.len());
                }
            }
        }

        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..600), size in 1_usize..50) {
            let mut framing = framing();
            for chunk in bytes.chunks(size) {
                if framing.feed(chunk).is_none() {
                    break;
                }
            }
        }
    }

    #[test]
    fn clear_requests_pass_one_after_the_other() {
        let mut framing = framing();
        framing.feed(CLEAR.as_bytes()).unwrap();
        assert!(matches!(framing.at, At::Head) && framing.line.is_empty(), "{framing:?}");
    }

    #[test]
    fn what_hyper_will_refuse_is_left_to_it() {
        for text in [
            "nonsense\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        ] {
            let mut framing = framing();
            framing.feed(text.as_bytes()).unwrap();
            assert!(matches!(framing.at, At::Astray), "{text:?}: {framing:?}");
        }
    }
}
