//! Telling systemd how it goes, where systemd asked to be told (`Type=notify`, `sd_notify(3)`).
//!
//! Nothing here ever fails: a service manager that cannot be reached must not harm the service.

use std::time::Duration;

use sd_notify::NotifyState;

/// The way to the service manager; where there is none, it does nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Systemd {
    told: bool,
    /// How often it wants to hear that the judge is alive.
    pulse: Option<Duration>,
}

impl Systemd {
    /// What the environment says (`NOTIFY_SOCKET`, `WATCHDOG_USEC`).
    #[must_use]
    pub fn of_environment() -> Self {
        Self {
            told: std::env::var_os("NOTIFY_SOCKET").is_some(),
            // Twice in that time, as `sd_watchdog_enabled(3)` advises.
            pulse: sd_notify::watchdog_enabled().map(|time| time / 2),
        }
    }

    /// How often [`Systemd::alive`] is due.
    #[must_use]
    pub const fn pulse(&self) -> Option<Duration> {
        self.pulse
    }

    /// The judge is alive.
    pub fn alive(&self) {
        if self.pulse.is_some() {
            self.say(&[NotifyState::Watchdog]);
        }
    }

    /// Every listener is bound, and the first look has finished.
    pub fn ready(&self) {
        self.say(&[NotifyState::Ready]);
    }

    /// The configuration is read again, until [`Systemd::ready`].
    pub fn reloading(&self) {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            self.say(&[NotifyState::Reloading, now]);
        }
    }

    /// The end has begun.
    pub fn stopping(&self) {
        self.say(&[NotifyState::Stopping]);
    }

    /// How it goes, in a line.
    pub fn status(&self, line: &str) {
        self.say(&[NotifyState::Status(line)]);
    }

    fn say(self, words: &[NotifyState<'_>]) {
        if self.told {
            let _ = sd_notify::notify(words);
        }
    }
}
