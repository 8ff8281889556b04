//! Where a history is kept: in a directory, or in memory only, which says so.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::MEMORY;
use super::record::{Event, Minutes, Record};
use super::segments::{Segments, lines};

/// For the one who writes.
#[derive(Debug)]
pub(super) enum Shelf {
    Disk(Segments),
    Memory { lines: Lines, seq: u64, bytes: usize },
}

/// Where it is read.
#[derive(Clone, Debug)]
pub(super) enum Place {
    Disk(PathBuf),
    Memory(Lines),
}

/// The lines that are kept in memory. Nobody holds the lock across work.
pub(super) type Lines = Arc<Mutex<VecDeque<Arc<str>>>>;

impl Shelf {
    /// Opens it, and hands on each record that is there; says how many lines cannot be read. This blocks.
    pub(super) fn open(place: Place, each: impl FnMut(&Record)) -> (Self, io::Result<u64>) {
        match place {
            Place::Memory(lines) => (Self::Memory { lines, seq: 0, bytes: 0 }, Ok(0)),
            Place::Disk(dir) => {
                let (segments, read) = Segments::open(dir, each);
                (Self::Disk(segments), read)
            }
        }
    }

    /// Keeps events, in this order. This blocks.
    pub(super) fn append(&mut self, events: &[(SystemTime, Event)]) -> io::Result<()> {
        match self {
            Self::Disk(segments) => segments.append(events),
            Self::Memory { lines: kept, seq, bytes } => {
                let text = lines(*seq, events)?;
                *seq += events.len() as u64;
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                for line in text.split_inclusive('\n') {
                    *bytes += line.len();
                    kept.push_back(line.into());
                }
                while *bytes > MEMORY {
                    let Some(oldest) = kept.pop_front() else { break };
                    *bytes -= oldest.len();
                }
                Ok(())
            }
        }
    }

    /// Keeps minutes that have not ended. This blocks.
    pub(super) fn keep_open(&self, at: SystemTime, minutes: Minutes) -> io::Result<()> {
        match self {
            Self::Disk(segments) => segments.keep_open(at, minutes),
            Self::Memory { .. } => Ok(()),
        }
    }

    /// How many records there are, and their bytes.
    pub(super) fn size(&self) -> (u64, u64) {
        match self {
            Self::Disk(segments) => (segments.records(), segments.bytes()),
            Self::Memory { lines, bytes, .. } => {
                let kept = lines.lock().unwrap_or_else(PoisonError::into_inner);
                (kept.len() as u64, *bytes as u64)
            }
        }
    }
}
