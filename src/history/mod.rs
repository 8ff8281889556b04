//! What was, and why: transitions and one-minute aggregates of seven days, in at most 4 MiB.
//!
//! The judge tells, and never waits: what does not fit is counted. One task keeps; it writes aside, so that a disk that
//! hangs or is full ends nothing but the history. What is kept on disk is read there when somebody asks; in memory is only
//! what the page's 24 hours need. When the sidecar did not run, nothing is known, and nothing is guessed.
//!
//! ```text
//! judge --News--> Tap --> Keeper --lines--> state_dir/history/*.log --> Archive --History--> /v1/history, hcf history
//!                           +-- minute, lately (pure)                    timeline --> the page
//! ```

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

mod archive;
pub mod explain;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod gather;
mod keeper;
mod lately;
mod minute;
pub mod record;
mod segments;
mod shelf;
mod timeline;

pub use archive::{Archive, Query, Summary, Unread};
pub use keeper::{Keeper, News, Tap};
pub use timeline::Shown;

/// How long something is kept.
pub const KEEP: Duration = Duration::from_hours(7 * 24);
/// The most bytes in a state directory.
pub const BYTES: u64 = 4 << 20;
/// The most bytes in memory, where there is no state directory: memory is dearer than a disk.
pub const MEMORY: usize = 1 << 20;
/// The longest line, in bytes.
const LINE: u64 = 64 << 10;

/// A history that is kept in this state directory, or in memory only.
#[must_use]
pub fn open(state_dir: Option<&PathBuf>, board: Arc<crate::board::Board>) -> (Keeper, Tap) {
    Keeper::new(state_dir.map(|dir| dir.join("history")), board)
}

/// The first so many characters of a text that comes from outside.
fn short(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}
