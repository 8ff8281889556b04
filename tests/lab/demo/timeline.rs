//! Prints what happens when it happens, with the time since the last thing that was broken.

use std::sync::Mutex;
use std::time::Instant;

/// The one printer, shared by the threads that watch.
#[derive(Debug)]
pub struct Timeline {
    since: Mutex<Instant>,
}

impl Timeline {
    /// Counts from now.
    pub fn new() -> Self {
        Self { since: Mutex::new(Instant::now()) }
    }

    /// A new heading, from which times count.
    pub fn title(&self, text: &str) {
        let mut since = self.lock();
        *since = Instant::now();
        println!("\n{text}");
    }

    /// One thing that happened, by whom.
    pub fn event(&self, who: &str, what: &str) {
        // Printed under the lock, so that lines stand in the order of their times.
        let since = self.lock();
        println!("  {:+7.2} s  {who:<8} {what}", since.elapsed().as_secs_f64());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Instant> {
        self.since.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
