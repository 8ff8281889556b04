//! Memory and descriptors of each hcf over time.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::lab::measure::memory;
use crate::lab::wait::pause;
use crate::shared::Shared;

const EVERY: Duration = Duration::from_secs(5);
/// Of a younger process nothing is said.
const OLD: Duration = Duration::from_mins(10);
/// What a process may need more of in the end than in the beginning.
const MORE_KIB: u64 = 1024;
const MORE_FILES: u64 = 8;

/// One look at a process.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    at: Instant,
    kib: u64,
    files: u64,
}

/// By process.
pub type Samples = BTreeMap<(String, u32), Vec<Sample>>;

/// Looks until the soak is over.
pub fn watch(shared: &Shared) -> Samples {
    let mut samples = Samples::new();
    while shared.goes_on() {
        for (name, pid) in shared.pids() {
            if let Some(sample) = look(pid) {
                samples.entry((name, pid)).or_default().push(sample);
            }
        }
        pause(EVERY);
    }
    samples
}

fn look(pid: u32) -> Option<Sample> {
    // What it has allocated: pages of the program itself come and go as the kernel likes.
    let kib = memory(pid, "RssAnon")?;
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64;
    Some(Sample { at: Instant::now(), kib, files })
}

/// A table, and whether all is flat.
pub fn report(samples: &Samples) -> (String, bool) {
    let mut text =
        String::from("\nmemory and descriptors, as medians of each tenth of a process's life:\n");
    let mut flat = true;
    for ((name, pid), looks) in samples {
        let (Some(first), Some(last)) = (looks.first(), looks.last()) else { continue };
        let age = last.at - first.at;
        if age < OLD {
            continue;
        }
        let tenth = looks.len().div_ceil(10);
        let tenths: Vec<(u64, u64)> = looks
            .chunks(tenth)
            .map(|looks| {
                let median = |of: fn(&Sample) -> u64| {
                    let mut values: Vec<u64> = looks.iter().map(of).collect();
                    values.sort_unstable();
                    values[values.len() / 2]
                };
                (median(|sample| sample.kib), median(|sample| sample.files))
            })
            .collect();
        let said: Vec<String> =
            tenths.iter().map(|(kib, files)| format!("{kib} KiB/{files}")).collect();
        let _ = writeln!(
            text,
            "  {name} (pid {pid}, {:.0} min): {}",
            age.as_secs_f64() / 60.0,
            said.join(", ")
        );
        // The first tenth is that of caches which fill.
        if let (Some(early), Some(late)) = (tenths.get(1), tenths.last())
            && (late.0 > early.0 + MORE_KIB || late.1 > early.1 + MORE_FILES)
        {
            let _ = writeln!(text, "  VIOLATION: {name} needs more and more");
            flat = false;
        }
    }
    let young = samples.len() - text.lines().filter(|line| line.contains("(pid ")).count();
    let _ = writeln!(
        text,
        "  and {young} processes that lived for less than {} minutes",
        OLD.as_secs() / 60
    );
    (text, flat)
}
