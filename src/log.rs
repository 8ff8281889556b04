//! Logging: to stderr, as text or JSON, and never one line per thing that a peer does.
//!
//! Where stderr is systemd's journal, each line begins with its priority, as sd-daemon(3) has it.

use std::io::{IsTerminal as _, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::fstat;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, reload};

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
    let lines = tracing_subscriber::fmt::layer().with_target(false).with_writer(Stderr::find());
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

/// Says on stderr why this process ends.
pub fn complain(text: &str) {
    // There is nowhere else to say it.
    let _ = Stderr::find().at(Level::ERROR).write_all(format!("{text}\n").as_bytes());
}

/// This process's stderr, and whether the journal reads it.
#[derive(Clone, Copy, Debug)]
struct Stderr {
    journal: bool,
}

impl Stderr {
    /// The service manager names the journal's stream by its device and inode, so that a stderr that was sent
    /// elsewhere is told apart.
    fn find() -> Self {
        let named = std::env::var("JOURNAL_STREAM").ok();
        let own = fstat(std::io::stderr()).ok().map(|s| format!("{}:{}", s.st_dev, s.st_ino));
        Self { journal: named.is_some() && named == own }
    }

    /// Lines of this level; syslog(3) numbers the priorities.
    fn at(self, level: Level) -> Lines {
        let priority = match level {
            Level::ERROR => "<3>",
            Level::WARN => "<4>",
            Level::INFO => "<6>",
            Level::DEBUG | Level::TRACE => "<7>",
        };
        Lines { priority: if self.journal { priority } else { "" } }
    }
}

impl MakeWriter<'_> for Stderr {
    type Writer = Lines;

    fn make_writer(&self) -> Lines {
        self.at(Level::INFO)
    }

    fn make_writer_for(&self, meta: &Metadata<'_>) -> Lines {
        self.at(*meta.level())
    }
}

/// Writes whole lines, each with its priority.
#[derive(Clone, Copy, Debug)]
struct Lines {
    priority: &'static str,
}

impl Lines {
    fn prefixed(self, text: &[u8]) -> Vec<u8> {
        let lines = text.split_inclusive(|byte| *byte == b'\n');
        lines.flat_map(|line| [self.priority.as_bytes(), line].concat()).collect()
    }
}

impl Write for Lines {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        // In one piece, so that lines of other threads do not come between.
        std::io::stderr().write_all(&self.prefixed(text))?;
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

static LEVEL: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// Logs from this level on. `RUST_LOG` beats it.
pub fn set_level(level: LogLevel) {
    if let Some(handle) = LEVEL.get() {
        // It fails when nothing is logged any more.
        let _ = handle.reload(filter(level));
    }
}

fn filter(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Trace => Level::TRACE,
    };
    let said = std::env::var("RUST_LOG").ok().and_then(|said| asked_for(&said));
    said.unwrap_or_else(|| Targets::new().with_default(level))
}

/// What `RUST_LOG` asks for: levels, also of single modules, with commas between; `None` where it makes no sense. There
/// are no spans to be named.
fn asked_for(said: &str) -> Option<Targets> {
    let parts: Vec<&str> = said.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    if parts.is_empty() || said.contains('[') {
        return None;
    }
    parts.join(",").parse().ok()
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
    fn each_line_has_its_priority() {
        let said = |journal, level| {
            let lines = Stderr { journal }.at(level);
            String::from_utf8(lines.prefixed(b"one\ntwo\n")).unwrap()
        };
        assert_eq!(said(true, Level::WARN), "<4>one\n<4>two\n");
        assert_eq!(said(true, Level::DEBUG), "<7>one\n<7>two\n");
        assert_eq!(said(false, Level::ERROR), "one\ntwo\n");
    }

    #[test]
    fn the_environment_asks_for_levels_or_for_nothing() {
        let enables = |said: &str, of: &str, level| {
            asked_for(said).map(|targets| targets.would_enable(of, &level))
        };
        assert_eq!(enables("debug, ", "hcf::judge", Level::DEBUG), Some(true));
        assert_eq!(enables("warn,hcf::judge=debug", "hcf::judge", Level::DEBUG), Some(true));
        assert_eq!(enables("warn,hcf::judge=debug", "hcf::serve", Level::INFO), Some(false));
        for senseless in ["", " , ", "[span]=debug", "hcf=loudly"] {
            assert_eq!(enables(senseless, "hcf", Level::ERROR), None, "{senseless}");
        }
    }

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
