//! Capabilities: whoever has one may use what it names, so one is never shown.
//!
//! A [`Cap`] has no way into a log, an error or a page: it tells its text to this folder alone, for a
//! request's path. Its memory is wiped when it goes.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use zeroize::Zeroizing;

/// A capability.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Cap(Zeroizing<String>);

impl Cap {
    /// Takes a word for a capability if it is one whose file is kept on servers; a literal one proves
    /// nothing, since it is in the capability itself.
    pub(super) fn parse(word: &str) -> Option<Self> {
        const KINDS: [&str; 5] =
            ["URI:CHK:", "URI:SSK:", "URI:SSK-RO:", "URI:MDMF:", "URI:MDMF-RO:"];
        let known = KINDS.iter().any(|kind| word.starts_with(kind));
        let plain = word.bytes().all(|b| b.is_ascii_alphanumeric() || b":-".contains(&b));
        (known && plain && word.len() <= 512).then(|| Self(Zeroizing::new(word.to_owned())))
    }

    /// Whether it allows to overwrite its file.
    fn writes(&self) -> bool {
        self.0.starts_with("URI:SSK:") || self.0.starts_with("URI:MDMF:")
    }

    /// The path under which the node serves it.
    pub(super) fn path(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("/uri/{}", *self.0))
    }
}

impl fmt::Debug for Cap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cap(…)")
    }
}

/// What a file of capabilities holds: the first one to read, and the first one to write.
#[derive(Debug, PartialEq, Eq)]
pub struct Caps {
    /// Read only if there is one.
    pub(super) read: Cap,
    /// For overwriting.
    pub(super) write: Option<Cap>,
}

impl Caps {
    /// Reads a file of capabilities, one a line; `#` starts a comment.
    ///
    /// # Errors
    ///
    /// A sentence that says what is wrong, and what to do; it holds the path, and nothing of the file.
    pub fn read(path: &Path) -> Result<Self, String> {
        let at = path.display();
        let text = read_private(path).map_err(|why| match why {
            Unread::Io(e) if e.kind() == io::ErrorKind::NotFound => {
                format!("{at} is not there; `hcf canary create --out {at}` makes it")
            }
            Unread::Io(e) => format!("cannot read {at}: {e}"),
            Unread::Open(mode) => {
                format!("others may read {at} (mode {mode:04o}); run `chmod 600 {at}`")
            }
            Unread::Large => format!("{at} is larger than 64 KiB; no file of capabilities is"),
        })?;
        Self::parse(&at.to_string(), &text)
    }

    /// The same for a text that stands `at` a path.
    pub(super) fn parse(at: &str, text: &str) -> Result<Self, String> {
        let words = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        let mut caps = Vec::new();
        for (n, word) in words.enumerate().filter(|(_, word)| !word.is_empty()) {
            let cap = Cap::parse(word).ok_or_else(|| {
                format!("{at}, line {}: not the capability of a file that servers keep", n + 1)
            })?;
            caps.push(cap);
        }
        let write = caps.iter().find(|cap| cap.writes()).cloned();
        let read = caps.iter().find(|cap| !cap.writes()).or(write.as_ref()).cloned();
        let read = read.ok_or_else(|| format!("{at} holds no capability"))?;
        Ok(Self { read, write })
    }

    /// Whether there is one to write.
    #[must_use]
    pub fn can_write(&self) -> bool {
        self.write.is_some()
    }

    /// The text of a file that holds them.
    pub(super) fn text(read: &Cap, write: &Cap) -> Zeroizing<String> {
        Zeroizing::new(format!(
            "# Canaries of one gateway, for hcf's canary_read and canary_write. Keep them secret, and\n\
             # give each gateway its own: two that overwrite one file disturb each other.\n{}\n{}\n",
            *read.0, *write.0
        ))
    }
}

enum Unread {
    Io(io::Error),
    Open(u32),
    Large,
}

/// Reads a small file that nobody but its owner may touch.
fn read_private(path: &Path) -> Result<Zeroizing<String>, Unread> {
    const LIMIT: u64 = 64 << 10;
    const ROOM: usize = 65 << 10;
    // A pipe in its place must not hold whoever opens it.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path).map_err(Unread::Io)?;
    let mode = file.metadata().map_err(Unread::Io)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Unread::Open(mode));
    }
    // Room for all of it from the start, since a text that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(ROOM));
    let read = file.take(LIMIT + 1).read_to_string(&mut text).map_err(Unread::Io)?;
    if read as u64 > LIMIT { Err(Unread::Large) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const READ: &str = "URI:CHK:aaaa:bbbb:2:5:1024";
    const WRITE: &str = "URI:SSK:cccc:dddd";

    fn file(text: &str, mode: u32) -> Result<Caps, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("caps");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        Caps::read(&path)
    }

    #[test]
    fn the_first_ones_to_read_and_to_write_are_found() {
        let (read, write) = (Cap::parse(READ).unwrap(), Cap::parse(WRITE).unwrap());
        for text in [format!("{WRITE}\n{READ}"), Caps::text(&read, &write).to_string()] {
            let caps = file(&text, 0o600).unwrap();
            assert_eq!((&caps.read, caps.write.as_ref()), (&read, Some(&write)));
        }
        assert_eq!(file(WRITE, 0o400).unwrap().read, write);
        assert!(!file(READ, 0o600).unwrap().can_write());
    }

    #[test]
    fn what_is_wrong_is_said_without_what_is_secret() {
        for (text, mode, says) in [
            (READ, 0o640, "run `chmod 600 "),
            (READ, 0o604, "(mode 0604)"),
            ("", 0o600, "holds no capability"),
            ("URI:LIT:krugkidfnzsc4", 0o600, "line 1: not the capability of a file"),
            ("# ours\n\nURI:CHK:aaaa/../b", 0o600, "line 3: not the capability"),
            ("URI:DIR2:cccc:dddd", 0o600, "line 1: not the capability"),
        ] {
            let error = file(text, mode).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
            assert!(!error.contains("URI:"), "{error}");
        }
        assert!(Caps::read(Path::new("/nowhere")).unwrap_err().contains("hcf canary create --out"));
        let shown = format!("{:?}", file(READ, 0o600).unwrap());
        assert!(!shown.contains("aaaa"), "{shown}");
    }
}
