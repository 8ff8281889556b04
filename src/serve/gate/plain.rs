//! Carrying bytes between two sockets without looking at them.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{tcp, unix};
use tokio_util::either::Either;

use super::super::accept::Stream;
use super::View;
use super::buffer::Buffer;
use crate::clock::Clock;
use crate::counts::Count;

/// What moved last on a connection.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// When, in nanoseconds after the clock's epoch.
    at: AtomicU64,
    /// Whether it came from the client, who then waits for an answer.
    asked: AtomicBool,
}

impl Activity {
    pub(super) fn note(&self, asked: bool, clock: Clock) {
        let now = u64::try_from(clock.now().since_epoch().as_nanos()).unwrap_or(u64::MAX);
        self.at.store(now, Ordering::Relaxed);
        self.asked.store(asked, Ordering::Relaxed);
    }

    /// How long no byte has moved and no answer was due. A gateway is silent between the last byte of
    /// an upload and its answer.
    pub(super) fn idle(&self, clock: Clock) -> Duration {
        if self.asked.load(Ordering::Relaxed) {
            return Duration::ZERO;
        }
        let last = Duration::from_nanos(self.at.load(Ordering::Relaxed));
        clock.now().since_epoch().saturating_sub(last)
    }
}

/// Carries bytes both ways until both sides have ended, or one has broken.
pub(super) async fn carry(
    client: &mut Stream,
    node: &mut Stream,
    activity: &Activity,
    view: &View,
    clock: Clock,
) {
    if both_ways(client, node, activity, view, clock).await.is_err() {
        // What broke off on one side must not look like an end on the other.
        let _ = (abort(client), abort(node));
    }
}

async fn both_ways(
    client: &mut Stream,
    node: &mut Stream,
    activity: &Activity,
    view: &View,
    clock: Clock,
) -> Result<(), Broken> {
    let ((from_client, to_client), (from_node, to_node)) = (split(client), split(node));
    let mut there = pin!(pump(from_client, to_node, &view.received, || activity.note(true, clock)));
    let mut back = pin!(pump(from_node, to_client, &view.sent, || activity.note(false, clock)));
    tokio::select! {
        sent = &mut there => match sent {
            // A node that takes no more has said why, or is about to.
            Ok(()) | Err(Broken::To) => back.await,
            broken => broken,
        },
        answered = &mut back => match answered {
            Ok(()) => there.await,
            broken => broken,
        },
    }
}

/// Has the peer see a reset when the connection is closed.
pub(super) fn abort(stream: &Stream) -> io::Result<()> {
    match stream {
        Either::Left(tcp) => SockRef::from(tcp).set_linger(Some(Duration::ZERO)),
        // Closing one with unread bytes does that by itself.
        Either::Right(_) => Ok(()),
    }
}

/// Which end of a direction has broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    From,
    To,
}

/// Carries bytes one way, and the end of them; notes each that moves.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    carried: &Count,
    note: impl Fn(),
) -> Result<(), Broken> {
    loop {
        let (buffer, n) = poll_fn(|cx| {
            let mut buffer = Buffer::take();
            let mut bytes = ReadBuf::new(&mut buffer);
            ready!(Pin::new(&mut from).poll_read(cx, &mut bytes)).map_err(|_| Broken::From)?;
            let n = bytes.filled().len();
            Poll::Ready(Ok((buffer, n)))
        })
        .await?;
        let bytes = buffer.get(..n).unwrap_or_default();
        if bytes.is_empty() {
            return to.shutdown().await.map_err(|_| Broken::To);
        }
        note();
        to.write_all(bytes).await.map_err(|_| Broken::To)?;
        carried.add(bytes.len() as u64);
        note();
    }
}

/// Both directions of a connection.
fn split(
    stream: &mut Stream,
) -> (Either<tcp::ReadHalf<'_>, unix::ReadHalf<'_>>, Either<tcp::WriteHalf<'_>, unix::WriteHalf<'_>>)
{
    match stream {
        Either::Left(tcp) => {
            let (read, write) = tcp.split();
            (Either::Left(read), Either::Left(write))
        }
        Either::Right(unix) => {
            let (read, write) = unix.split();
            (Either::Right(read), Either::Right(write))
        }
    }
}
