//! What a running process takes, by the kernel's own books.

use std::process::Command;
use std::time::Duration;

/// User and system time of a process so far.
pub fn cpu_time(pid: u32) -> Duration {
    // Nanoseconds on a run queue's CPU, of each thread: finer than the ticks of /proc/PID/stat.
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let spent = tasks.flatten().filter_map(|task| {
        let stat = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        stat.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(spent.sum())
}

/// Memory of a process in KiB, by its name in `/proc/PID/status` (proc(5)): `VmRSS` for what is resident, `VmHWM` for the
/// most that was, `RssAnon` for what it has allocated of it. `None` for a process that is gone.
pub fn memory(pid: u32, name: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Resident memory of a process, in MiB.
pub fn resident(pid: u32) -> f64 {
    let kib = memory(pid, "VmRSS").and_then(|kib| u32::try_from(kib).ok());
    f64::from(kib.expect("it runs")) / 1024.0
}

/// Keeps a process, all its threads, on one processor.
pub fn pin(pid: u32, processor: &str) {
    let pid = pid.to_string();
    let pinned = Command::new("taskset").args(["-a", "-c", "-p", processor, &pid]).output();
    assert!(pinned.expect("util-linux has taskset").status.success(), "taskset");
}

/// The middle one of the values, of which there is one at least.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
