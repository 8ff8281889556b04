//! A node's directory: what `tahoe.cfg` says of the web port, the shares and the name.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use configparser::ini::{Ini, IniDefault};

use super::endpoint::Target;
use super::gridmanager::ManagerKey;

/// A gateway's directory, read once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeDir {
    /// The directory.
    pub path: PathBuf,
    /// The name that the node gives itself; empty when it gives none.
    pub nickname: String,
    /// Where its web port is, or why it has none that can be asked.
    pub web: Result<Target, String>,
    /// How it splits files into shares.
    pub shares: Shares,
    /// After how much silence it pings a foolscap peer (`timeout.keepalive`).
    pub keepalive: Duration,
    /// Where it puts large bodies on their way.
    pub tempdir: PathBuf,
    /// The grid managers whose servers it uploads to; without any, to all servers. Or why they cannot be
    /// told.
    pub grid_managers: Result<Vec<ManagerKey>, String>,
}

/// How a node splits a file: `needed` of `total` shares restore it, and an upload wants `happy`
/// servers to hold some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// Shares that restore a file.
    pub needed: NonZeroU32,
    /// Servers that an upload must reach.
    pub happy: NonZeroU32,
    /// Shares in all.
    pub total: NonZeroU32,
}

impl Shares {
    /// What Tahoe-LAFS takes when nobody says otherwise: 3, 7 and 10.
    pub const DEFAULT: Self = {
        const fn count(n: u32) -> NonZeroU32 {
            match NonZeroU32::new(n) {
                Some(count) => count,
                None => NonZeroU32::MIN,
            }
        }
        Self { needed: count(3), happy: count(7), total: count(10) }
    };
}

/// Foolscap's own keepalive, when `timeout.keepalive` is not set.
pub(super) const KEEPALIVE: Duration = Duration::from_mins(4);

/// Why a directory cannot be taken for a gateway's.
#[derive(Debug, thiserror::Error)]
pub enum CfgError {
    /// There is no such thing as a node there.
    #[error("{0} is not a Tahoe-LAFS node's directory: it holds no tahoe.cfg")]
    NotANode(PathBuf),
    /// The node there is of another kind.
    #[error("{0} is an introducer's directory; name a gateway's")]
    Introducer(PathBuf),
    /// The file cannot be read.
    #[error("cannot read {0}: {1}; hcf must be able to read the node's configuration")]
    Unreadable(PathBuf, io::Error),
    /// The file makes no sense.
    #[error("{0}: {1}")]
    Senseless(PathBuf, String),
}

impl NodeDir {
    /// Reads the node's `tahoe.cfg`.
    ///
    /// # Errors
    ///
    /// When the directory is not a gateway's, or its `tahoe.cfg` cannot be read or makes no sense.
    pub fn read(path: &Path) -> Result<Self, CfgError> {
        let file = path.join("tahoe.cfg");
        let text = match read_bounded(&file) {
            Ok(text) => text,
            Err(e)
                if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
            {
                return Err(CfgError::NotANode(path.to_owned()));
            }
            Err(e) => return Err(CfgError::Unreadable(file, e)),
        };
        if path.join("tahoe-introducer.tac").exists() {
            return Err(CfgError::Introducer(path.to_owned()));
        }
        Self::parse(path, text).map_err(|message| CfgError::Senseless(file, message))
    }

    pub(super) fn parse(path: &Path, text: String) -> Result<Self, String> {
        let mut rules = IniDefault::default();
        // As Python's configparser reads it, which Tahoe-LAFS uses.
        rules.enable_inline_comments = false;
        rules.multiline = true;
        let mut ini = Ini::new_from_defaults(rules);
        ini.read(text)?;
        let shares = Shares {
            needed: count(&ini, "client", "shares.needed")?.unwrap_or(Shares::DEFAULT.needed),
            happy: count(&ini, "client", "shares.happy")?.unwrap_or(Shares::DEFAULT.happy),
            total: count(&ini, "client", "shares.total")?.unwrap_or(Shares::DEFAULT.total),
        };
        let keepalive = match ini.get("node", "timeout.keepalive").as_deref().map(str::trim) {
            // Tahoe-LAFS takes a zero; what follows is foolscap's own.
            Some("0") => KEEPALIVE,
            _ => count(&ini, "node", "timeout.keepalive")?
                .map_or(KEEPALIVE, |secs| Duration::from_secs(secs.get().into())),
        };
        let web = match ini.get("node", "web.port").as_deref().map(str::trim) {
            None | Some("") => {
                Err("web.port is not set, so the node serves no web page".to_owned())
            }
            Some(value) => Target::parse_web_port(value, path)
                .map_err(|why| format!("web.port = {value}: {why}")),
        };
        Ok(Self {
            path: path.to_owned(),
            nickname: ini.get("node", "nickname").unwrap_or_default().trim().to_owned(),
            web,
            shares,
            keepalive,
            tempdir: path.join(word(&ini, "node", "tempdir").as_deref().unwrap_or("tmp")),
            grid_managers: grid_managers(&ini),
        })
    }
}

/// A value that is not empty.
fn word(ini: &Ini, section: &str, key: &str) -> Option<String> {
    let value = ini.get(section, key)?;
    Some(value.trim().to_owned()).filter(|value| !value.is_empty())
}

fn grid_managers(ini: &Ini) -> Result<Vec<ManagerKey>, String> {
    let section = ini.get_map_ref().get("grid_managers").into_iter().flatten();
    // In one order each time, so that the same file says the same.
    let section: BTreeMap<_, _> = section.collect();
    section
        .into_iter()
        .map(|(name, key)| {
            let key = key.as_deref().unwrap_or_default().trim();
            ManagerKey::parse(key)
                .ok_or_else(|| format!("[grid_managers] {name}: expected a key such as `pub-v0-…`"))
        })
        .collect()
}

/// A positive whole number.
fn count(ini: &Ini, section: &str, key: &str) -> Result<Option<NonZeroU32>, String> {
    let Some(value) = ini.get(section, key) else { return Ok(None) };
    match value.trim() {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| {
            format!("[{section}] {key} = {text}: expected a whole number of at least 1")
        }),
    }
}

/// Reads a small file; larger than 1 MiB is an error, not a surprise.
fn read_bounded(path: &Path) -> io::Result<String> {
    use io::Read as _;

    const LIMIT: u64 = 1 << 20;
    let mut text = String::new();
    let read = fs::File::open(path)?.take(LIMIT + 1).read_to_string(&mut text)?;
    if read as u64 > LIMIT {
        return Err(io::Error::other("larger than 1 MiB"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::super::Endpoint;
    use super::*;

    fn parse(text: &str) -> Result<NodeDir, String> {
        NodeDir::parse(Path::new("/node"), text.to_owned())
    }

    #[test]
    fn a_full_file_is_read() {
        let dir = parse(
            "# a comment\n[node]\nnickname = gw1 # not a comment\n\
             web.port = tcp:3456:interface=127.0.0.1\ntimeout.keepalive = 20\n\n\
             [client]\nshares.needed = 2\nshares.happy: 4\nshares.total = 5\n",
        )
        .unwrap();
        assert_eq!(dir.nickname, "gw1 # not a comment");
        let host = "127.0.0.1".to_owned();
        assert_eq!(dir.web.unwrap().endpoint, Endpoint::Tcp { host, port: 3456 });
        let shares = [dir.shares.needed, dir.shares.happy, dir.shares.total].map(NonZeroU32::get);
        assert_eq!(shares, [2, 4, 5]);
        assert_eq!(dir.keepalive, Duration::from_secs(20));
    }

    #[test]
    fn what_is_not_said_is_as_tahoe_takes_it() {
        let dir = parse("[node]\n").unwrap();
        assert_eq!(dir.shares, Shares::DEFAULT);
        assert_eq!(dir.keepalive, KEEPALIVE);
        assert_eq!(dir.tempdir, Path::new("/node/tmp"));
        assert_eq!(dir.grid_managers, Ok(Vec::new()));
        assert!(dir.web.unwrap_err().contains("web.port is not set"));
    }

    #[test]
    fn a_temporary_directory_and_grid_managers_are_read() {
        let dir = parse("[node]\ntempdir = /big/tmp\n[grid_managers]\nours = none\n").unwrap();
        assert_eq!(dir.tempdir, Path::new("/big/tmp"));
        assert!(dir.grid_managers.unwrap_err().starts_with("[grid_managers] ours: expected a key"));
        let key = "a".repeat(52);
        let dir = parse(&format!("[grid_managers]\nours = pub-v0-{key}\n")).unwrap();
        assert_eq!(dir.grid_managers.unwrap().len(), 1);
    }

    #[test]
    fn the_same_file_says_the_same_each_time() {
        let managers: Vec<_> =
            ('a'..='h').map(|c| format!("{c} = pub-v0-{}\n", String::from(c).repeat(52))).collect();
        let text = format!("[grid_managers]\n{}", managers.concat());
        let first = parse(&text).unwrap();
        for _ in 0..20 {
            assert_eq!(parse(&text).unwrap(), first);
        }
    }

    #[test]
    fn senseless_numbers_are_named() {
        let error = parse("[client]\nshares.happy = many\n").unwrap_err();
        assert_eq!(error, "[client] shares.happy = many: expected a whole number of at least 1");
        assert!(parse("[client]\nshares.needed = 0\n").is_err());
        assert!(parse("[node\n").is_err());
    }

    #[test]
    fn other_directories_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(NodeDir::read(dir.path()), Err(CfgError::NotANode(_))));
        fs::write(dir.path().join("tahoe.cfg"), "[node]\n").unwrap();
        assert!(NodeDir::read(dir.path()).is_ok());
        fs::write(dir.path().join("tahoe-introducer.tac"), "").unwrap();
        assert!(matches!(NodeDir::read(dir.path()), Err(CfgError::Introducer(_))));
        fs::remove_file(dir.path().join("tahoe-introducer.tac")).unwrap();
        fs::write(dir.path().join("tahoe.cfg"), vec![b'#'; 2 << 20]).unwrap();
        assert!(matches!(NodeDir::read(dir.path()), Err(CfgError::Unreadable(..))));
    }
}
