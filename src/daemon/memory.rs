//! What judges knew at the last stop, for a start that follows soon: a restart is no reason to take a node out.
//!
//! It counts on the same machine start, for the same configuration, and for as long as the last look does.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::health::Moment;
use crate::judge::Memory;

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    /// Moments of another start of the machine mean nothing.
    boot_id: String,
    config_hash: String,
    fresh_until: Moment,
    services: Memory,
}

fn path(dir: &Path) -> PathBuf {
    dir.join("verdicts.json")
}

/// The largest file that is read.
const LIMIT: u64 = 16 << 20;

/// What is still worth knowing at `now`; nothing, for whatever reason.
pub(super) fn read(dir: &Path, boot_id: &str, config_hash: &str, now: Moment) -> Memory {
    let path = path(dir);
    let short = std::fs::metadata(&path).is_ok_and(|file| file.len() <= LIMIT);
    let bytes = if short { std::fs::read(&path).unwrap_or_default() } else { Vec::new() };
    // One start goes on from it, and no second one.
    let _ = std::fs::remove_file(&path);
    parse(&bytes, boot_id, config_hash, now)
}

/// The same for what stands in the file.
pub(super) fn parse(bytes: &[u8], boot_id: &str, config_hash: &str, now: Moment) -> Memory {
    match serde_json::from_slice::<Kept>(bytes) {
        Ok(kept)
            if kept.boot_id == boot_id
                && kept.config_hash == config_hash
                && now <= kept.fresh_until =>
        {
            kept.services.into_iter().filter(|(_, kept)| kept.is_known_at(now)).collect()
        }
        _ => Memory::new(),
    }
}

/// Keeps it. That it cannot be kept costs the next start a moment, so it is only said.
pub(super) fn write(
    dir: &Path,
    boot_id: &str,
    config_hash: &str,
    fresh_until: Moment,
    services: Memory,
) {
    let kept = Kept {
        boot_id: boot_id.to_owned(),
        config_hash: config_hash.to_owned(),
        fresh_until,
        services,
    };
    let temporary = dir.join("verdicts.json.new");
    let written = serde_json::to_vec(&kept).map_err(std::io::Error::other).and_then(|bytes| {
        File::create(&temporary)?.write_all(&bytes)?;
        std::fs::rename(&temporary, path(dir))
    });
    if let Err(e) = written {
        warn!("Cannot keep the last verdicts in {}: {e}.", dir.display());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{Config, Sources};
    use crate::health::{Facts, Observation, ServiceJudge};

    #[test]
    fn what_was_known_counts_here_and_now_or_not_at_all() {
        let at = |secs| Moment::after_epoch(Duration::from_secs(secs));
        let rules = Config::load(&Sources::default()).unwrap().services[0].rules.clone();
        let mut judge = ServiceJudge::new(rules, at(1));
        let took = Duration::from_millis(5);
        judge.look(&Observation { finished: at(10), took, outcome: Ok(Facts::default()) });
        let kept = Kept {
            boot_id: "boot".to_owned(),
            config_hash: "hash".to_owned(),
            fresh_until: at(15),
            services: [("read".to_owned(), judge.kept())].into(),
        };
        let bytes = serde_json::to_vec(&kept).unwrap();
        let known = |boot_id, hash, now| parse(&bytes, boot_id, hash, at(now)).len();
        assert_eq!((known("boot", "hash", 10), known("boot", "hash", 15)), (1, 1));
        assert_eq!(known("boot", "hash", 16), 0, "too late");
        assert_eq!(known("boot", "hash", 9), 0, "a look in the future");
        assert_eq!((known("other", "hash", 10), known("boot", "other", 10)), (0, 0));
        assert_eq!(parse(b"{", "boot", "hash", at(10)).len(), 0);
    }
}
