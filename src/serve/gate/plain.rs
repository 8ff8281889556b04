//! Carrying bytes between two sockets without looking at them.
//!
//! A connection holds a buffer only while bytes move, so that thousands of idle ones cost little.

use std::io;
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use socket2::SockRef;
use tokio_util::either::Either;

use super::super::accept::Stream;
use crate::clock::Clock;

/// Large enough that the kernel's own work outweighs the calls.
const BUFFER: usize = 64 << 10;
/// Buffers that are kept for the next use; a burst beyond that allocates its own.
const KEPT: usize = 32;

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
    pub(super) fn idle(&self, clock: Clock) -> std::time::Duration {
        if self.asked.load(Ordering::Relaxed) {
            return std::time::Duration::ZERO;
        }
        let last = std::time::Duration::from_nanos(self.at.load(Ordering::Relaxed));
        clock.now().since_epoch().saturating_sub(last)
    }
}

/// Carries bytes both ways until both sides have ended, or one has broken.
pub(super) async fn carry(client: &Stream, node: &Stream, activity: &Activity, clock: Clock) {
    let (there, back) = tokio::join!(
        pump(client, node, || activity.note(true, clock)),
        pump(node, client, || activity.note(false, clock)),
    );
    // Whichever broke, both ends close with this; there is nobody to tell.
    let _ = (there, back);
}

/// Carries bytes one way, and the end of them; notes each that moves.
async fn pump(from: &Stream, to: &Stream, note: impl Fn()) -> io::Result<()> {
    let moved = async {
        loop {
            readable(from).await?;
            let mut buffer = Buffer::take();
            match try_read(from, buffer.bytes()) {
                Ok(0) => return Ok(()),
                Ok(n) => {
                    note();
                    write_all(to, buffer.bytes().get(..n).unwrap_or_default()).await?;
                    note();
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
    };
    let result: io::Result<()> = moved.await;
    match result {
        Ok(()) => shutdown(to, Shutdown::Write),
        Err(e) => {
            // The other direction ends with it: half a broken connection serves nobody.
            let _ = shutdown(from, Shutdown::Both);
            let _ = shutdown(to, Shutdown::Both);
            Err(e)
        }
    }
}

async fn write_all(to: &Stream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match try_write(to, bytes) {
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => writable(to).await?,
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

async fn readable(stream: &Stream) -> io::Result<()> {
    match stream {
        Either::Left(tcp) => tcp.readable().await,
        Either::Right(unix) => unix.readable().await,
    }
}

async fn writable(stream: &Stream) -> io::Result<()> {
    match stream {
        Either::Left(tcp) => tcp.writable().await,
        Either::Right(unix) => unix.writable().await,
    }
}

fn try_read(stream: &Stream, buffer: &mut [u8]) -> io::Result<usize> {
    match stream {
        Either::Left(tcp) => tcp.try_read(buffer),
        Either::Right(unix) => unix.try_read(buffer),
    }
}

fn try_write(stream: &Stream, bytes: &[u8]) -> io::Result<usize> {
    match stream {
        Either::Left(tcp) => tcp.try_write(bytes),
        Either::Right(unix) => unix.try_write(bytes),
    }
}

fn shutdown(stream: &Stream, how: Shutdown) -> io::Result<()> {
    match stream {
        Either::Left(tcp) => SockRef::from(tcp).shutdown(how),
        Either::Right(unix) => SockRef::from(unix).shutdown(how),
    }
}

/// A buffer on loan.
struct Buffer(Box<[u8]>);

static POOL: Mutex<Vec<Box<[u8]>>> = Mutex::new(Vec::new());

impl Buffer {
    fn take() -> Self {
        // The list is whole after every statement, so a panic elsewhere did not harm it.
        let kept = POOL.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Self(kept.unwrap_or_else(|| vec![0; BUFFER].into_boxed_slice()))
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.len() < KEPT {
            pool.push(std::mem::take(&mut self.0));
        }
    }
}
