//! When a connection rests: between requests it holds its sockets, and nothing else.
//!
//! hyper keeps some 8 KiB for each direction of each side as long as it has a connection. So it is
//! given one when a client says something, and gives it back once nothing of a request or of an
//! answer is left in it.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use hyper::body::{Body, Frame, SizeHint};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio_util::either::Either;

use super::super::accept::Stream;
use super::View;
use super::framing::Checked;

/// What is under way on one connection. One task writes and reads it.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// Requests so far.
    requests: AtomicU64,
    /// One of them has not been answered to its end.
    answering: AtomicBool,
    /// A part of a request was read, or of an answer not written.
    unread: AtomicBool,
    unsent: AtomicBool,
}

impl Pulse {
    /// A request has come.
    pub(super) fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.answering.store(true, Ordering::Relaxed);
    }

    /// How many have come, if nothing is under way.
    pub(super) fn quiet(&self) -> Option<u64> {
        let under_way = [&self.answering, &self.unread, &self.unsent];
        let quiet = !under_way.iter().any(|what| what.load(Ordering::Relaxed));
        quiet.then(|| self.requests.load(Ordering::Relaxed))
    }
}

/// Waits until the other side has said something, or has gone. Leaves it to be read.
pub(super) async fn heard(stream: &Stream) {
    let mut byte = [MaybeUninit::uninit()];
    // Readiness alone may be a guess of the runtime's. An error is to be met by whoever reads.
    let _ = match stream {
        Either::Left(tcp) => {
            tcp.async_io(Interest::READABLE, || SockRef::from(tcp).peek(&mut byte)).await
        }
        Either::Right(unix) => {
            unix.async_io(Interest::READABLE, || SockRef::from(unix).peek(&mut byte)).await
        }
    };
}

/// A client's connection whose pulse is taken.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) checked: Checked,
    pub(super) pulse: Arc<Pulse>,
    /// Counts the bytes.
    pub(super) view: Arc<View>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let poll = Pin::new(&mut self.checked).poll_read(cx, buf);
        self.view.received.add(buf.filled().len().saturating_sub(before) as u64);
        self.pulse.unread.store(self.checked.owes(), Ordering::Relaxed);
        poll
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.pulse.unsent.store(true, Ordering::Relaxed);
        let poll = Pin::new(&mut self.checked).poll_write(cx, bytes);
        if let Poll::Ready(Ok(written)) = poll {
            self.view.sent.add(written as u64);
        }
        poll
    }

    /// hyper asks for this when it has nothing left to write.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pulse.unsent.store(false, Ordering::Relaxed);
        Pin::new(&mut self.checked).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.checked).poll_shutdown(cx)
    }
}

/// The body of an answer, which is given to its end when hyper drops it.
#[derive(Debug)]
pub(super) struct Answer<B> {
    pub(super) body: B,
    pub(super) pulse: Arc<Pulse>,
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Answer<B> {
    fn drop(&mut self) {
        self.pulse.answering.store(false, Ordering::Relaxed);
    }
}
