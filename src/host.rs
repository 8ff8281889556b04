//! How busy this machine is, by what its kernel says.

use std::fs::File;
use std::io::Read as _;

use crate::health::Host;

/// Reads it; `None` where the kernel does not say. It blocks for as long as `/proc` does.
#[must_use]
pub fn read() -> Option<Host> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let run_queue = run_queue(&text("/proc/loadavg")?, cores)?;
    let pressure =
        ["cpu", "memory", "io"].map(|what| pressure(&text(&format!("/proc/pressure/{what}"))?));
    Some(Host { run_queue, pressure })
}

/// These files are short; none is read further.
fn text(path: &str) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(4096).read_to_string(&mut text).ok()?;
    Some(text)
}

/// The first figure of `/proc/loadavg` per core, in thousandths.
fn run_queue(loadavg: &str, cores: usize) -> Option<u32> {
    let average: f64 = loadavg.split_whitespace().next()?.parse().ok()?;
    thousandths(average / f64::from(u32::try_from(cores).ok()?))
}

/// `avg10` of the line `some` in a file of `/proc/pressure`, in thousandths.
fn pressure(text: &str) -> Option<u32> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let percent: f64 =
        line.split(' ').find_map(|word| word.strip_prefix("avg10="))?.parse().ok()?;
    thousandths(percent / 100.0)
}

/// A number from nothing to a million, in thousandths.
#[must_use]
pub fn thousandths(value: f64) -> Option<u32> {
    let thousandths = (value * 1000.0).round();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the bounds were checked"
    )]
    (0.0..=1e9).contains(&thousandths).then_some(thousandths as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_understood() {
        assert_eq!(run_queue("1.50 0.9 0.8 2/300 77\n", 2), Some(750));
        let psi = "some avg10=12.34 avg60=0.00 avg300=0.00 total=1\nfull avg10=1.00 avg60=0 avg300=0 total=0\n";
        assert_eq!(pressure(psi), Some(123));
        for nonsense in ["", "x", "NaN 1", "some avg10=-1", "some avg10=1e99"] {
            assert_eq!((run_queue(nonsense, 1), pressure(nonsense)), (None, None), "{nonsense}");
        }
        assert!(read().is_some(), "this machine has them");
    }
}
