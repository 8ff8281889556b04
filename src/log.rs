//! Logging: to stderr, as text or JSON, and never one line per thing that a peer does.

use std::io::IsTerminal as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::config::{Log, LogFormat, LogLevel};
use crate::health::Moment;

/// Sets up the log of this process. `RUST_LOG` beats the configured level.
pub fn init(log: Log) {
    let (filter, handle) = reload::Layer::new(filter(log.level));
    let terminal = std::io::stderr().is_terminal();
    let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let text = match log.format {
        LogFormat::Auto => terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let lines = tracing_subscriber::fmt::layer().with_target(false).with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    // Set up twice in one process, the first one stays.
    let set = if text {
        registry.with(lines.with_ansi(colour)).try_init()
    } else {
        registry.with(lines.json().flatten_event(true)).try_init()
    };
    if set.is_ok() {
        let _ = LEVEL.set(handle);
    }
}

static LEVEL: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Logs from this level on. `RUST_LOG` beats it.
pub fn set_level(level: LogLevel) {
    if let Some(handle) = LEVEL.get() {
        // It fails when nothing is logged any more.
        let _ = handle.reload(filter(level));
    }
}

fn filter(level: LogLevel) -> EnvFilter {
    let level = match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level))
}

/// Lets a message pass at most once a minute.
#[derive(Debug, Default)]
pub struct Seldom {
    /// Nanoseconds after the clock's epoch of the last message, plus one; zero for none yet.
    last: AtomicU64,
    withheld: AtomicU64,
}

impl Seldom {
    const EVERY: Duration = Duration::from_mins(1);

    /// Whether a message may pass at `now`; if so, how many were withheld since the last one.
    pub fn pass(&self, now: Moment) -> Option<u64> {
        let now = u64::try_from(now.since_epoch().as_nanos()).unwrap_or(u64::MAX - 1) + 1;
        let last = self.last.load(Ordering::Relaxed);
        let every = u64::try_from(Self::EVERY.as_nanos()).unwrap_or(u64::MAX);
        let due = last == 0 || now.saturating_sub(last) >= every;
        // Of those who come at once, one passes.
        let passed = due
            && self.last.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if passed {
            Some(self.withheld.swap(0, Ordering::Relaxed))
        } else {
            self.withheld.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_passes_once_a_minute() {
        let seldom = Seldom::default();
        let at = |secs| Moment::after_epoch(Duration::from_secs(secs));
        assert_eq!(seldom.pass(at(0)), Some(0));
        assert_eq!((seldom.pass(at(1)), seldom.pass(at(59))), (None, None));
        assert_eq!(seldom.pass(at(60)), Some(2));
        assert_eq!(seldom.pass(at(61)), None);
    }
}
