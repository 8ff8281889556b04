//! Bytes on their way through a gate, and the buffers that they lie in.
//!
//! A connection has a buffer only while bytes lie in it, so that thousands of idle ones cost little.

use std::io;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::accept::Stream;

/// Large enough that the kernel's own work outweighs the calls.
const SIZE: usize = 64 << 10;
/// Buffers that are kept for the next use; a burst beyond that allocates its own.
const KEPT: usize = 32;

/// A buffer on loan, or a small one of its own.
#[derive(Debug, Default)]
pub(super) struct Buffer(Box<[u8]>);

static POOL: Mutex<Vec<Box<[u8]>>> = Mutex::new(Vec::new());

impl Buffer {
    pub(super) fn take() -> Self {
        // The list is whole after every statement, so a panic elsewhere did not harm it.
        let kept = POOL.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Self(kept.unwrap_or_else(|| vec![0; SIZE].into_boxed_slice()))
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.0.len() != SIZE {
            return;
        }
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.len() < KEPT {
            pool.push(std::mem::take(&mut self.0));
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
        Self { buffer: Buffer(bytes.into_boxed_slice()), from: 0, clear: 0, to }
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
        let (before, after) = self.clear().split_at_checked(at).unwrap_or_default();
        let all = [before, more, after, self.unjudged()].concat();
        let clear = self.clear().len() + more.len();
        *self = Self { clear, ..Self::of(all) };
    }

    /// Reads more, and says how much; nothing at the end of what comes from there.
    ///
    /// # Errors
    ///
    /// Those of reading, and more unjudged bytes than a buffer holds.
    pub(super) fn poll_read(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.make_room();
        let mut room = ReadBuf::new(self.buffer.get_mut(self.to..).unwrap_or_default());
        if room.remaining() == 0 {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
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
        if self.buffer.len() < SIZE {
            let mut larger = Buffer::take();
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
        } else if n <= SIZE / 4 && self.buffer.len() >= SIZE {
            let bytes = self.buffer.get(self.from..self.to).unwrap_or_default();
            *self = Self { clear: self.clear - self.from, ..Self::of(bytes.to_vec()) };
        }
    }
}
