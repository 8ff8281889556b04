//! Grid managers: whom the node lets store its uploads, which its status page does not say.
//!
//! A server holds certificates, in its announcement, that a grid manager has signed. The node uploads
//! only to servers with one that is signed by a key in its `tahoe.cfg` and has not expired. What was
//! announced is in the node's own cache, so the same is worked out here.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use data_encoding::{Encoding, Specification};
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::Deserialize;
use serde_yaml::Value;

/// A grid manager's public key, as `tahoe.cfg` has it: `pub-v0-…`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManagerKey([u8; 32]);

impl ManagerKey {
    /// Reads a key; `None` when it is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        base32(text.strip_prefix("pub-v0-")?)?.try_into().ok().map(Self)
    }
}

/// RFC 4648's base 32 in small letters, without padding, as Tahoe-LAFS writes it.
fn base32(text: &str) -> Option<Vec<u8>> {
    let mut rules = Specification::new();
    rules.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    // Old encoders left bits of the last letter set; Tahoe-LAFS does not look at them.
    rules.check_trailing_bits = false;
    let encoding: Encoding = rules.encoding().ok()?;
    encoding.decode(text.as_bytes()).ok()
}

/// Until when each server is certified; read again only when the node's files have changed.
#[derive(Debug)]
pub(super) struct Certificates {
    dir: PathBuf,
    keys: Vec<ManagerKey>,
    marks: Vec<(PathBuf, Mark)>,
    until: BTreeMap<Box<str>, SystemTime>,
}

/// What tells one state of a file from another.
type Mark = (u64, u64, i64, i64);

/// The most that is read of one cache: some ten thousand announcements.
const LIMIT: u64 = 16 << 20;

impl Certificates {
    /// Certificates of the servers that the node in `dir` knows, by these keys.
    pub(super) fn new(dir: &Path, keys: Vec<ManagerKey>) -> Self {
        Self { dir: dir.join("private"), keys, marks: Vec::new(), until: BTreeMap::new() }
    }

    /// The ids of the servers that are certified at this time, in order; `None` when the node's files
    /// cannot be read.
    pub(super) fn valid(&mut self, now: SystemTime) -> Option<Vec<Box<str>>> {
        let marks = self.marks()?;
        if marks != self.marks {
            let mut until = BTreeMap::new();
            for (file, _) in &marks {
                let mut text = String::new();
                fs::File::open(file).ok()?.take(LIMIT).read_to_string(&mut text).ok()?;
                read(&text, &self.keys, &mut until)?;
            }
            (self.marks, self.until) = (marks, until);
        }
        let valid = self.until.iter().filter(|(_, until)| **until > now);
        Some(valid.map(|(id, _)| id.clone()).collect())
    }

    /// The files in which announcements stand, as they are now.
    fn marks(&self) -> Option<Vec<(PathBuf, Mark)>> {
        let mut marks = Vec::new();
        for entry in fs::read_dir(&self.dir).ok()? {
            let entry = entry.ok()?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let cache = name.starts_with("introducer_") && name.ends_with("_cache.yaml");
            if cache || name == "servers.yaml" {
                let file = entry.path();
                let stat = fs::metadata(&file).ok()?;
                marks.push((file, (stat.ino(), stat.size(), stat.mtime(), stat.mtime_nsec())));
            }
        }
        marks.sort();
        Some(marks)
    }
}

/// Takes a file's text into account: until when each server is certified by one of these keys.
pub(super) fn read(
    text: &str,
    keys: &[ManagerKey],
    until: &mut BTreeMap<Box<str>, SystemTime>,
) -> Option<()> {
    let announced: Announced = serde_yaml::from_str(text).ok()?;
    // What one server announces must not hide the others, so each is read by itself.
    let entry = |value: Value| serde_yaml::from_value::<Entry>(value).ok();
    let announcements: Vec<(String, Announcement)> = match announced {
        Announced::Cache(None) => Vec::new(),
        Announced::Cache(Some(list)) => {
            let entries = list.into_iter().filter_map(entry);
            entries.filter_map(|entry| Some((entry.key_s?, entry.ann))).collect()
        }
        Announced::Static(file) => {
            let entries = file.storage.into_iter();
            entries.filter_map(|(id, value)| Some((id, entry(value)?.ann))).collect()
        }
    };
    for (id, announcement) in announcements {
        let id = id.strip_prefix("pub-").unwrap_or(&id);
        for value in announcement.certificates {
            let certificate = serde_yaml::from_value::<Certificate>(value).ok();
            if let Some(end) = certificate.and_then(|one| one.end(keys, id)) {
                let last = until.entry(id.into()).or_insert(end);
                *last = end.max(*last);
            }
        }
    }
    Some(())
}

/// An introducer's announcements as the node keeps them, or servers that its owner wrote down.
#[derive(Deserialize)]
#[serde(untagged)]
enum Announced {
    Cache(Option<Vec<Value>>),
    Static(Written),
}

#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    storage: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct Entry {
    key_s: Option<String>,
    ann: Announcement,
}

#[derive(Deserialize)]
struct Announcement {
    #[serde(rename = "grid-manager-certificates", default)]
    certificates: Vec<Value>,
}

#[derive(Deserialize)]
struct Certificate {
    certificate: String,
    signature: String,
}

/// What is signed.
#[derive(Deserialize)]
struct Signed {
    expires: String,
    public_key: String,
}

impl Certificate {
    /// When it ends, if one of these keys has signed it for this server.
    fn end(&self, keys: &[ManagerKey], id: &str) -> Option<SystemTime> {
        let signature = base32(&self.signature)?;
        let text = self.certificate.as_bytes();
        let signed =
            |key: &ManagerKey| UnparsedPublicKey::new(&ED25519, key.0).verify(text, &signature);
        if !keys.iter().any(|key| signed(key).is_ok()) {
            return None;
        }
        let signed: Signed = serde_json::from_slice(text).ok()?;
        if signed.public_key.strip_prefix("pub-") != Some(id) {
            return None;
        }
        // `grid-manager` writes times in UTC; what it does not write, the node may not take either.
        let time =
            signed.expires.strip_suffix("+00:00").or_else(|| signed.expires.strip_suffix('Z'));
        humantime::parse_rfc3339(&format!("{}Z", time?)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a gateway of a real grid kept of three servers that a grid manager had certified.
    const CACHE: &str = include_str!("../../tests/data/tahoe/grid-manager-cache.yaml");
    const KEY: &str = "pub-v0-6s6sm4c65bnnlefpbfdquvy4wpgdsp73dvhz47rwunjrwd4ipeha";
    const ONE: &str = "v0-ophmyvmumu7ifsiks527u3ribp2divzjcwulpgkdgc3zpvlgj6ja";
    const TWO: &str = "v0-nakpopu3qfnfkowgfnt5ciozswuafhbd2d2nvciemvuqgzkd2m6q";

    fn valid(file: &str, text: &str, key: &str, now: &str) -> Option<Vec<Box<str>>> {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("private")).unwrap();
        fs::write(dir.path().join("private").join(file), text).unwrap();
        let keys = vec![ManagerKey::parse(key).unwrap()];
        let now = humantime::parse_rfc3339(now).unwrap();
        Certificates::new(dir.path(), keys).valid(now)
    }

    fn count(text: &str, key: &str, now: &str) -> Option<usize> {
        valid("introducer_lab_cache.yaml", text, key, now).map(|ids| ids.len())
    }

    #[test]
    fn certificates_count_until_they_expire() {
        assert_eq!(count(CACHE, KEY, "2026-12-24T13:22:28Z"), Some(3));
        assert_eq!(count(CACHE, KEY, "2026-12-24T13:22:29Z"), Some(2));
        assert_eq!(count(CACHE, KEY, "2026-12-24T13:22:45Z"), Some(0));
    }

    #[test]
    fn certificates_count_only_as_they_were_signed_and_for_whom() {
        let now = "2026-12-01T00:00:00Z";
        let count = |text: &str, key: &str| count(text, key, now);
        let longer = CACHE.replacen("2026-12-24", "2036-12-24", 1);
        assert_eq!(count(&longer, KEY), Some(2), "a date was changed");
        assert_eq!(count(CACHE, &KEY.replace("6s6sm", "6s6sn")), Some(0), "another manager's");
        let taken = CACHE.replace(&format!("key_s: {ONE}"), "key_s: v0-somebodyelse");
        assert_eq!(count(&taken, KEY), Some(2), "a certificate of another server's");
        assert_ne!(longer, CACHE);
        assert_ne!(taken, CACHE);
    }

    #[test]
    fn what_one_server_announces_does_not_hide_the_others() {
        let now = "2026-12-01T00:00:00Z";
        for senseless in [
            "- 7\n",
            "- {key_s: v0-x, ann: {grid-manager-certificates: 7}}\n",
            "- {key_s: v0-x, ann: {grid-manager-certificates: [7, {certificate: 7}]}}\n",
            "- {key_s: v0-x, ann: {grid-manager-certificates: [{certificate: '{}', signature: '!'}]}}\n",
            "- {ann: {}}\n",
        ] {
            assert_eq!(count(&format!("{senseless}{CACHE}"), KEY, now), Some(3), "{senseless}");
        }
        assert_eq!(count("", KEY, now), Some(0));
        assert_eq!(count("{", KEY, now), None);
    }

    #[test]
    fn servers_that_are_written_down_count_too() {
        let now = "2026-12-01T00:00:00Z";
        let second = CACHE.split("- ann:").nth(3).unwrap();
        let second = second.split("  key_s:").next().unwrap();
        let text = format!("storage:\n  {TWO}:\n    ann:\n{}", second.replace("\n  ", "\n    "));
        assert_eq!(valid("servers.yaml", &text, KEY, now), Some(vec![TWO.into()]), "{text}");
        assert_eq!(valid("other.yaml", &text, KEY, now), Some(Vec::new()));
        assert!(
            Certificates::new(Path::new("/nowhere"), Vec::new()).valid(SystemTime::now()).is_none()
        );
    }
}
