//! Carrying bytes between two sockets as they are.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{tcp, unix};
use tokio::time::timeout;
use tokio_util::either::Either;

use super::super::accept::Stream;
use super::activity::Activity;
use super::buffer::Buffer;
use super::{STALL, View};
use crate::counts::Count;

/// Carries bytes both ways until both sides have ended, or one has broken.
pub(super) async fn carry(
    client: &mut Stream,
    node: &mut Stream,
    activity: &Activity,
    view: &View,
) {
    if both_ways(client, node, activity, view).await.is_err() {
        // What broke off on one side must not look like an end on the other.
        let _ = (abort(client), abort(node));
    }
}

async fn both_ways(
    client: &mut Stream,
    node: &mut Stream,
    activity: &Activity,
    view: &View,
) -> Result<(), Broken> {
    let ((from_client, to_client), (from_node, to_node)) = (split(client), split(node));
    let asked = (|bytes: &[u8]| activity.asked(bytes), |_: &[u8]| {});
    let answered = (|_: &[u8]| activity.answering(), |bytes: &[u8]| activity.answered(bytes));
    // A node may take as long as it likes, as it does without a gate.
    let mut there = pin!(pump(from_client, to_node, Duration::MAX, &view.received, asked));
    let mut back = pin!(pump(from_node, to_client, STALL, &view.sent, answered));
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

/// Carries bytes one way, and the end of them; notes them when they have come, and when they have gone on, as none at the
/// end. Whoever takes none of them for so long has broken.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    patience: Duration,
    carried: &Count,
    (come, gone): (impl Fn(&[u8]), impl Fn(&[u8])),
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
            let end = to.shutdown().await.map_err(|_| Broken::To);
            gone(bytes);
            return end;
        }
        come(bytes);
        let mut rest = bytes;
        while !rest.is_empty() {
            let Ok(Ok(taken @ 1..)) = timeout(patience, to.write(rest)).await else {
                return Err(Broken::To);
            };
            rest = rest.get(taken..).unwrap_or_default();
        }
        carried.add(bytes.len() as u64);
        gone(bytes);
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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::JoinSet;
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::clock::Clock;

    async fn pair() -> (TcpStream, Stream) {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(port.local_addr().unwrap()).await.unwrap();
        (near, Either::Left(port.accept().await.unwrap().0))
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_left_and_a_node_that_takes_nothing_is_not() {
        let ((mut client, mut to_client), (mut node, mut to_node)) = (pair().await, pair().await);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let (activity, view) = (Activity::new(Clock::start()), View::default());
            carry(&mut to_client, &mut to_node, &activity, &view).await;
        });
        let full = async { while client.write_all(&[b'x'; 1 << 12]).await.is_ok() {} };
        assert!(timeout(10 * STALL, full).await.is_err());
        assert!(tasks.try_join_next().is_none(), "it is the node that is waited for");
        let started = Instant::now();
        while node.write_all(&[b'y'; 1 << 12]).await.is_ok() {}
        tasks.join_next().await.unwrap().unwrap();
        assert!(started.elapsed() >= STALL);
        let mut heard = Vec::new();
        assert!(client.read_to_end(&mut heard).await.is_err(), "it does not look like an end");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_a_little_now_and_then_is_not_left() {
        let said = vec![b'x'; 1 << 16];
        let (mut client, to_client) = tokio::io::duplex(1 << 12);
        let read = async {
            let (mut taken, mut some) = (0, [0; 1 << 12]);
            while taken < 1 << 16 {
                sleep(STALL * 9 / 10).await;
                taken += client.read(&mut some).await.unwrap();
            }
        };
        let carried = Count::default();
        let pumped = tokio::join!(
            pump(&*said, to_client, STALL, &carried, (|_: &[u8]| {}, |_: &[u8]| {})),
            read
        )
        .0;
        assert_eq!((pumped, carried.get()), (Ok(()), 1 << 16));
    }
}
