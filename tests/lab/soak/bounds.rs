//! How long everybody may take, computed from the configuration that the soak gives them.

use std::time::Duration;

use crate::lab::cut::How;

/// hcf's own times.
pub const EVERY: Duration = Duration::from_millis(500);
/// How long a look may take.
pub const TIMEOUT: Duration = Duration::from_secs(1);
/// Good looks in a row, until it is up.
pub const RISE: u32 = 2;
/// Looks that fail in a doubtful way in a row, until it is down.
pub const FALL: u32 = 3;
/// What a busy machine adds to each.
pub const SLACK: Duration = Duration::from_millis(1500);

/// hcf's configuration: these times, and orders that outlive it.
pub fn config(dir: &str) -> String {
    format!(
        "node: {{dir: '{dir}', every: {}ms, timeout: {}ms}}\ndamping: {{rise: {RISE}, fall: {FALL}}}\nstate_dir: 'STATE'",
        EVERY.as_millis(),
        TIMEOUT.as_millis()
    )
}

/// From a certain failure to the verdict: the look under way, and the next one.
pub fn verdict() -> Duration {
    EVERY + TIMEOUT
}

/// From a good node to the verdict.
pub fn recovery() -> Duration {
    EVERY + TIMEOUT + EVERY * RISE
}

/// From a lost storage server to the gateway's own word: it asks each one every second and gives it five to answer.
pub fn noticed(how: How) -> Duration {
    match how {
        How::Reject => Duration::from_millis(1200),
        How::Drop => Duration::from_secs(6),
    }
}

/// A way to tell a balancer, by its shipped file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `haproxy/recommended.cfg`
    Poll,
    /// `haproxy/longpoll.cfg`
    Hold,
    /// `envoy/refuse-writes.yaml`
    Check,
    /// `envoy/eds.yaml` and `hcf eds`
    File,
}

impl Kind {
    /// All that are run at the same time.
    pub const ALL: [Self; 4] = [Self::Poll, Self::Hold, Self::Check, Self::File];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Poll => "HAProxy, poll",
            Self::Hold => "HAProxy, hold=",
            Self::Check => "Envoy, HTTP check",
            Self::File => "Envoy, file",
        }
    }

    /// From the verdict to the balancer's mind: the interval, and one question that takes as long as it may.
    pub fn hears(self) -> Duration {
        Duration::from_millis(match self {
            Self::Poll => 500 + 1000,
            Self::Check => 1000 + 1000,
            Self::Hold | Self::File => 200,
        })
    }

    /// From a dead or frozen hcf to a node that is out.
    pub fn misses(self) -> Duration {
        match self {
            // inter, timeout check, fastinter, timeout check
            Self::Poll | Self::Hold => Duration::from_millis(1000 + 1000 + 500 + 1000),
            // interval, timeout, unhealthy_edge_interval, timeout
            Self::Check => Duration::from_millis(1000 + 1000 + 250 + 1000),
            // Its last word counts for three looks and a timeout.
            Self::File => EVERY * 3 + TIMEOUT + self.hears(),
        }
    }

    /// From an hcf that answers again to a node that is in.
    pub fn finds(self) -> Duration {
        match self {
            // downinter, timeout check, agent-inter, timeout check
            Self::Poll | Self::Hold => Duration::from_millis(1000 + 1000 + 500 + 1000),
            Self::Check => self.hears(),
            // The longest pause between two tries.
            Self::File => Duration::from_millis(2100) + self.hears(),
        }
    }

    /// All of them, for people.
    pub fn lines() -> String {
        let line = |kind: Self| {
            format!(
                "  {:<18} hears a verdict in {:.1} s, misses a dead hcf in {:.1} s, finds it again in {:.1} s\n",
                kind.name(),
                kind.hears().as_secs_f64(),
                kind.misses().as_secs_f64(),
                kind.finds().as_secs_f64()
            )
        };
        format!(
            "  hcf looks every {:.1} s and waits {:.1} s: a verdict of bad in {:.1} s, of good in {:.1} s\n  \
             a gateway notices a refusing storage server in {:.1} s, a hanging one in {:.1} s\n{}  \
             each bound is the sum of its parts, and {:.1} s for a busy machine\n",
            EVERY.as_secs_f64(),
            TIMEOUT.as_secs_f64(),
            verdict().as_secs_f64(),
            recovery().as_secs_f64(),
            noticed(How::Reject).as_secs_f64(),
            noticed(How::Drop).as_secs_f64(),
            Self::ALL.map(line).concat(),
            SLACK.as_secs_f64()
        )
    }
}
