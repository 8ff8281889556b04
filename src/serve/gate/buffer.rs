//! Bytes on their way through a gate, and the buffers that they lie in.
//!
//! A connection has a buffer only while bytes lie in it, so that thousands of idle ones cost little.

use std::io;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::accept::Stream;

/// Large enough that the kernel's own work outweighs the calls.
const SIZE: usize = 64 << 10;
/// What there is for each connection, however many there are: enough for the heads of most requests.
pub(super) const SMALL: usize = 2 << 10;
/// Large buffers that are kept for the next use.
const KEPT: usize = 32;
/// Large buffers in use at once, 4 MiB; whoever comes then carries bytes in smaller pieces. Peers that
/// take nothing keep what lies in theirs, and so cost a bounded amount of memory.
const MOST: usize = 64;
/// So many more are for heads that a small one does not hold.
const FOR_HEADS: usize = 32;

/// A large buffer on loan, or a small one of its own.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    bytes: Box<[u8]>,
    lent: bool,
}

#[derive(Debug)]
struct Pool {
    kept: Vec<Box<[u8]>>,
    lent: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { kept: Vec::new(), lent: 0 });

fn pool() -> MutexGuard<'static, Pool> {
    // It is whole after every statement, so a panic elsewhere did not harm it.
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Buffer {
    /// A large one while there are some, else a small one.
    pub(super) fn take() -> Self {
        Self::lend(MOST).unwrap_or_else(|| Self::own(SMALL))
    }

    /// A large one, unless so many are in use.
    fn lend(most: usize) -> Option<Self> {
        let kept = {
            let mut pool = pool();
            if pool.lent >= most {
                return None;
            }
            pool.lent += 1;
            pool.kept.pop()
        };
        Some(Self { bytes: kept.unwrap_or_else(|| zeroes(SIZE)), lent: true })
    }

    fn own(size: usize) -> Self {
        Self { bytes: zeroes(size), lent: false }
    }

    /// A larger one to hold so many bytes of this one and more, if there is any.
    fn larger(&self, held: usize) -> Option<Self> {
        if self.lent || self.len() >= SIZE {
            return None;
        }
        let most = if held < SMALL { MOST } else { MOST + FOR_HEADS };
        Self::lend(most).or_else(|| (self.len() < SMALL).then(|| Self::own(SMALL)))
    }
}

fn zeroes(size: usize) -> Box<[u8]> {
    vec![0; size].into_boxed_slice()
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if !self.lent {
            return;
        }
        let mut pool = pool();
        pool.lent -= 1;
        if self.bytes.len() == SIZE && pool.kept.len() < KEPT {
            pool.kept.push(std::mem::take(&mut self.bytes));
        }
    }
}

/// Bytes that were read from one side. The first of them are clear, and may go to the other.
#[derive(Debug, Default)]
pub(super) struct Lot {
    buffer: Buffer,
    /// `from..clear` may go on, and `clear..to` are still to be judged.
    from: usize,
    clear: usize,
    to: usize,
}

impl Lot {
    /// Bytes that were read elsewhere.
    pub(super) fn of(bytes: Vec<u8>) -> Self {
        let to = bytes.len();
        let buffer = Buffer { bytes: bytes.into_boxed_slice(), lent: false };
        Self { buffer, from: 0, clear: 0, to }
    }

    /// What may go on.
    pub(super) fn clear(&self) -> &[u8] {
        self.buffer.get(self.from..self.clear).unwrap_or_default()
    }

    /// What is still to be judged.
    pub(super) fn unjudged(&self) -> &[u8] {
        self.buffer.get(self.clear..self.to).unwrap_or_default()
    }

    /// The first so many of those to be judged are clear.
    pub(super) fn pass(&mut self, n: usize) {
        self.clear = self.to.min(self.clear + n);
    }

    /// What is clear goes nowhere.
    pub(super) fn discard(&mut self) {
        self.from = self.clear;
    }

    /// Puts `more` among those that are clear, before the byte `at` of them.
    pub(super) fn insert(&mut self, at: usize, more: &[u8]) {
        let place = self.clear.min(self.from + at);
        let end = self.to + more.len();
        if self.buffer.len() < end {
            // What is on loan stays so.
            let mut longer = zeroes(end);
            let bytes = self.buffer.get(..self.to).unwrap_or_default();
            if let Some(start) = longer.get_mut(..bytes.len()) {
                start.copy_from_slice(bytes);
            }
            self.buffer.bytes = longer;
        }
        self.buffer.copy_within(place..self.to, place + more.len());
        if let Some(room) = self.buffer.get_mut(place..place + more.len()) {
            room.copy_from_slice(more);
        }
        (self.clear, self.to) = (self.clear + more.len(), end);
    }

    /// Reads more, and says how much; nothing at the end of what comes from there.
    ///
    /// # Errors
    ///
    /// Those of reading, and [`io::ErrorKind::OutOfMemory`] where there is no buffer that holds more.
    pub(super) fn poll_read(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.make_room();
        let mut room = ReadBuf::new(self.buffer.get_mut(self.to..).unwrap_or_default());
        if room.remaining() == 0 {
            return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
        }
        match Pin::new(stream).poll_read(cx, &mut room) {
            Poll::Ready(read) => {
                let n = room.filled().len();
                self.to += n;
                Poll::Ready(read.map(|()| n))
            }
            Poll::Pending => {
                self.rest();
                Poll::Pending
            }
        }
    }

    /// Writes some of what is clear, and says how much.
    ///
    /// # Errors
    ///
    /// Those of writing.
    pub(super) fn poll_write(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        match Pin::new(stream).poll_write(cx, self.clear()) {
            Poll::Ready(Ok(n)) => {
                self.from = self.clear.min(self.from + n);
                Poll::Ready(Ok(n))
            }
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            Poll::Pending => {
                self.rest();
                Poll::Pending
            }
        }
    }

    fn make_room(&mut self) {
        let n = self.to - self.from;
        if let Some(mut larger) = self.buffer.larger(n) {
            let bytes = self.buffer.get(self.from..self.to).unwrap_or_default();
            if let Some(start) = larger.get_mut(..bytes.len()) {
                start.copy_from_slice(bytes);
            }
            self.buffer = larger;
        } else if n > 0 && self.to == self.buffer.len() {
            self.buffer.copy_within(self.from..self.to, 0);
        } else if n > 0 {
            return;
        }
        (self.from, self.clear, self.to) = (0, self.clear - self.from, n);
    }

    /// Gives the buffer back for as long as nothing moves, or all but a little of it.
    fn rest(&mut self) {
        let n = self.to - self.from;
        if n == 0 {
            *self = Self::default();
        } else if n <= SMALL && self.buffer.lent {
            let bytes = self.buffer.get(self.from..self.to).unwrap_or_default();
            *self = Self { clear: self.clear - self.from, ..Self::of(bytes.to_vec()) };
        }
    }
}
