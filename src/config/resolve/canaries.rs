//! Canaries: what must be so before the first one flies.

use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::HEXLOWER_PERMISSIVE;

use super::super::file::{CanaryRead, CanaryWrite};
use super::super::units::Span;
use super::{Base, DAY, Resolver};
use crate::health::{Canary, Criterion, Else, Proof, Rule};
use crate::tahoe::Caps;

impl Resolver<'_> {
    pub(super) fn canary_read(
        &mut self,
        key: &str,
        file: CanaryRead,
        base: &Base<'_>,
    ) -> (Option<Criterion>, CanaryRead) {
        let key = format!("{key}.canary_read");
        let hash = file.sha256.as_ref().and_then(|text| {
            let bytes = HEXLOWER_PERMISSIVE.decode(text.trim().as_bytes()).ok();
            let hash = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
            if hash.is_none() {
                let message = "expected 64 hexadecimal digits, as `sha256sum` prints them";
                self.problems.add(&format!("{key}.sha256"), message);
            }
            hash
        });
        let kind = Proof::Read { sha256: hash };
        let every = self.beat(&key, file.every, Span::secs(30));
        let timeout = self.end(&key, file.timeout, Span::secs(10));
        let otherwise = file.otherwise.unwrap_or(Else::Down);
        let path = self.cap_file(&key, file.cap_file.as_deref(), false, base);
        let criterion = path.map(|cap_file| {
            let canary = Canary { kind, cap_file, every, timeout };
            Criterion { rule: Rule::Canary(canary), otherwise }
        });
        let (every, timeout) = (Some(Span(every)), Some(Span(timeout)));
        (criterion, CanaryRead { every, timeout, otherwise: Some(otherwise), ..file })
    }

    pub(super) fn canary_write(
        &mut self,
        key: &str,
        file: CanaryWrite,
        base: &Base<'_>,
    ) -> (Option<Criterion>, CanaryWrite) {
        let key = format!("{key}.canary_write");
        let every = self.beat(&key, file.every, Span::secs(60));
        let timeout = self.end(&key, file.timeout, Span::secs(20));
        let otherwise = file.otherwise.unwrap_or(Else::Down);
        let path = self.cap_file(&key, file.cap_file.as_deref(), true, base);
        let criterion = path.map(|cap_file| {
            let canary = Canary { kind: Proof::Write, cap_file, every, timeout };
            Criterion { rule: Rule::Canary(canary), otherwise }
        });
        let (every, timeout) = (Some(Span(every)), Some(Span(timeout)));
        (criterion, CanaryWrite { every, timeout, otherwise: Some(otherwise), ..file })
    }

    fn beat(&mut self, key: &str, every: Option<Span>, default: Span) -> Duration {
        self.span(&format!("{key}.every"), every, default, Duration::from_secs(1)..=DAY)
    }

    fn end(&mut self, key: &str, timeout: Option<Span>, default: Span) -> Duration {
        let bounds = Duration::from_millis(100)..=Duration::from_hours(1);
        self.span(&format!("{key}.timeout"), timeout, default, bounds)
    }

    /// A file of capabilities that can be used; what it holds is read again for each canary.
    fn cap_file(
        &mut self,
        key: &str,
        path: Option<&Path>,
        write: bool,
        base: &Base<'_>,
    ) -> Option<PathBuf> {
        let Some(path) = path else {
            let message = "expected `cap_file`, a file such as `hcf canary create` makes";
            self.problems.add(key, message);
            return None;
        };
        let key = format!("{key}.cap_file");
        // Before anything that names it: what is meant may have been put here itself.
        if !path.is_absolute() {
            self.problems.add(&key, "expected an absolute path");
            return None;
        }
        if base.new_caps == Some(path) {
            return Some(path.to_owned());
        }
        match Caps::read(path) {
            Err(why) => self.problems.add(&key, why),
            Ok(caps) if write && !caps.can_write() => {
                let message = format!("{} holds no capability to write", path.display());
                self.problems.add(&key, message);
            }
            Ok(_) => {}
        }
        Some(path.to_owned())
    }
}
