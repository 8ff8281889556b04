//! Waiting: the only place of the lab that sleeps.

use std::time::{Duration, Instant};

/// Long enough for any start on a busy machine; a test that hits it has failed.
pub const LONG: Duration = Duration::from_secs(30);

/// Between two looks at a condition: short beside what is measured, cheap beside what is run.
const STEP: Duration = Duration::from_millis(20);

/// Looks until there is something to see, so that no test guesses how long a thing takes.
pub fn wait_for<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        let waited = start.elapsed();
        assert!(waited < deadline, "waited {:.1} s for {what}", waited.as_secs_f64());
        std::thread::sleep(STEP);
    }
}

/// [`wait_for`] for a plain condition.
pub fn wait_until(what: &str, deadline: Duration, mut look: impl FnMut() -> bool) {
    wait_for(what, deadline, || look().then_some(()));
}

/// Lets time pass where time itself is the point: a fault that lasts, the pace of a stream of requests.
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}
