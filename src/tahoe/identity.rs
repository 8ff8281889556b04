//! Whether what answers on the node's port is the node.
//!
//! The status page does not say whose it is: two gateways of one farm give the same. The welcome
//! page does, by the node's `TubID` and public key, and the kernel knows which process listens. A
//! node that could not open its port, while somebody else's server answers there, is found out here.

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::client::Connection;
use super::files::aside;
use super::{Endpoint, NodeDir, Target};
use crate::health::{FailureKind, ProbeFailure};

/// The way to the node, and how to know it there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    target: Target,
    identity: Option<Arc<Identity>>,
}

impl Way {
    /// The way to the node at `target`; with its directory it is also proven that it is that node.
    /// `overridden` says that the target does not come from the directory.
    #[must_use]
    pub fn new(target: Target, dir: Option<&NodeDir>, overridden: bool) -> Self {
        let identity = dir.map(|dir| Arc::new(Identity::new(&dir.path, &target, !overridden)));
        Self { target, identity }
    }

    pub(super) fn identity(&self) -> Option<&Arc<Identity>> {
        self.identity.as_ref()
    }

    /// The file that holds the node's id.
    pub(super) fn id_file(&self) -> Option<PathBuf> {
        self.identity.as_ref().map(|identity| identity.dir.join("my_nodeid"))
    }

    /// Connects, and proves that it is the node.
    pub(super) async fn open(&self) -> Result<Connection, ProbeFailure> {
        let mut connection = Connection::open(&self.target).await?;
        if let Some(identity) = &self.identity {
            let page = connection.get("/").await.map_err(|failed| failed.failure)?;
            let identity = Arc::clone(identity);
            let unread = || ProbeFailure::new(FailureKind::Reset, "cannot read the node's files");
            aside(move || identity.prove(&page)).await.ok_or_else(unread)??;
        }
        Ok(connection)
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.target.fmt(f)
    }
}

/// What is known of the node, from its directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Identity {
    dir: PathBuf,
    /// The port that the node's process must own; `None` where it cannot be told.
    port: Option<u16>,
}

impl Identity {
    /// The identity of the node in `dir`. Its process is held against the port only when `target`
    /// came from the directory: another URL may lead through a forwarder.
    pub(super) fn new(dir: &Path, target: &Target, from_dir: bool) -> Self {
        let port = match &target.endpoint {
            Endpoint::Tcp { port, .. } if from_dir => Some(*port),
            _ => None,
        };
        Self { dir: dir.to_owned(), port }
    }

    /// What the node wrote of its process when it started; changes with each start. What cannot be
    /// read just now is as it was `last`.
    pub(super) fn process(&self, last: Option<String>) -> Option<String> {
        match fs::read_to_string(self.dir.join("running.process")) {
            Ok(process) => Some(process),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(_) => last,
        }
    }

    /// Whether the process that `running` names is stopped (SIGSTOP, job control): it keeps its port
    /// and its connections, and answers nothing. False where that cannot be told.
    pub(super) fn is_frozen(running: &str) -> bool {
        Started::parse(running).is_some_and(|node| {
            node.stat().is_some_and(|stat| stat.state == 'T' && node.is(&stat) == Some(true))
        })
    }

    /// Whether the process that `running` names is there for certain.
    pub(super) fn runs(running: &str) -> bool {
        Started::parse(running).is_some_and(|node| {
            node.stat().is_some_and(|stat| stat.state != 'Z' && node.is(&stat) == Some(true))
        })
    }

    /// The number of the process that `running` names.
    pub(super) fn pid(running: &str) -> Option<u32> {
        Started::parse(running).map(|node| node.pid)
    }

    /// Proves that what sent this welcome page is the node.
    pub(super) fn prove(&self, page: &[u8]) -> Result<(), ProbeFailure> {
        let wrong = |text: &str| Err(ProbeFailure::new(FailureKind::WrongNode, text));
        // Where this cannot be told (another user's process, another namespace, an old node) the
        // page decides alone.
        let owns =
            self.port.zip(self.process(None)).and_then(|(port, process)| owns_port(&process, port));
        if owns == Some(false) {
            return wrong("the node's port belongs to another process than the node's");
        }
        let tub = match self.line("my_nodeid") {
            Ok(tub) => tub,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return wrong("something answers on the node's port, but the node has never run");
            }
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                return wrong("cannot read my_nodeid in the node's directory: permission denied");
            }
            // This says something of this machine, and nothing of the node.
            Err(e) => {
                let text = format!("cannot read my_nodeid in the node's directory: {e}");
                return Err(ProbeFailure::new(FailureKind::Reset, text));
            }
        };
        let key = self.line("node.pubkey").ok();
        match Shown::on(page) {
            Some(shown) if shown.is(&tub, key.as_deref()) => Ok(()),
            // A page of another form says nothing, and the kernel's word is proof enough.
            None if owns == Some(true) => Ok(()),
            _ => wrong("what answers on the node's port is another node, or no node at all"),
        }
    }

    fn line(&self, file: &str) -> io::Result<String> {
        let text = fs::read_to_string(self.dir.join(file))?;
        Ok(text.trim().to_owned())
    }
}

/// What a welcome page says of the node: `<td title="TubID: TUB">KEY</td>`. Other nodes' ids stand
/// elsewhere on the page, and never under such a title.
pub(super) struct Shown<'a> {
    pub(super) tub: &'a [u8],
    pub(super) key: &'a [u8],
}

impl<'a> Shown<'a> {
    pub(super) fn on(page: &'a [u8]) -> Option<Self> {
        const TITLE: &[u8] = b"title=\"TubID: ";
        let at = page.windows(TITLE.len()).position(|window| window == TITLE)?;
        let rest = page.get(at + TITLE.len()..)?;
        let (tub, rest) = rest.split_at_checked(rest.iter().position(|b| *b == b'"')?)?;
        let rest = rest.strip_prefix(b"\">")?;
        let key = rest.get(..rest.iter().position(|b| *b == b'<')?)?;
        Some(Self { tub, key })
    }

    /// Whether these are the ids; a node of an old version has no key.
    pub(super) fn is(&self, tub: &str, key: Option<&str>) -> bool {
        let key = key.map(|key| key.strip_prefix("pub-").unwrap_or(key));
        self.tub == tub.as_bytes() && key.is_none_or(|key| self.key == key.as_bytes())
    }
}

/// What a node writes of its process into `running.process`: `PID START`.
#[derive(Debug)]
pub(super) struct Started {
    pid: u32,
    /// Seconds since the Unix epoch.
    at: f64,
}

/// What the kernel says of a process.
#[derive(Debug)]
struct Stat {
    state: char,
    /// Hundredths of a second since the machine started.
    started: f64,
}

impl Started {
    pub(super) fn parse(running: &str) -> Option<Self> {
        let (pid, at) = running.trim().split_once(' ')?;
        Some(Self { pid: pid.parse().ok()?, at: at.trim().parse().ok()? })
    }

    fn stat(&self) -> Option<Stat> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        // The second field, the program's name, is in brackets and may hold anything.
        let (_, fields) = stat.rsplit_once(')')?;
        let mut fields = fields.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        Some(Stat { state, started: fields.nth(18)?.parse().ok()? })
    }

    /// Whether it is still that process: its number may have been given to another one since, or
    /// stand for one of another namespace.
    fn is(&self, stat: &Stat) -> Option<bool> {
        // Linux counts in hundredths of a second here on every architecture.
        const TICKS: f64 = 100.0;
        let machine = fs::read_to_string("/proc/stat").ok()?;
        let boot = machine.lines().find_map(|line| line.strip_prefix("btime "))?;
        let started = boot.trim().parse::<f64>().ok()? + stat.started / TICKS;
        Some((started - self.at).abs() <= 3.0)
    }
}

/// Whether the process of a `running.process` file listens on `port`; `None` when that cannot be
/// told for certain.
fn owns_port(running: &str, port: u16) -> Option<bool> {
    let node = Started::parse(running)?;
    if !node.is(&node.stat()?)? {
        return None;
    }
    let pid = node.pid;
    let namespace = |who: &str| fs::metadata(format!("/proc/{who}/ns/net")).ok().map(|m| m.ino());
    if namespace("self")? != namespace(&pid.to_string())? {
        return None;
    }
    let listening = listeners(port)?;
    let sockets = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let mut owned = sockets.filter_map(|entry| {
        let link = fs::read_link(entry.ok()?.path()).ok()?;
        let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
        inode.parse::<u64>().ok()
    });
    Some(owned.any(|inode| listening.contains(&inode)))
}

/// The inodes of the sockets that listen on `port`; `None` when that cannot be read.
fn listeners(port: u16) -> Option<HashSet<u64>> {
    let mut inodes = HashSet::new();
    let mut read = false;
    for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        let Ok(table) = File::open(table) else { continue };
        inodes.extend(listening(BufReader::new(table), port).ok()?);
        read = true;
    }
    read.then_some(inodes)
}

/// The same of one table of the kernel's. It has a line for each connection of the machine, be it thousands, so one at a
/// time is held.
fn listening(table: impl BufRead, port: u16) -> io::Result<Vec<u64>> {
    let mut inodes = Vec::new();
    for line in table.lines().skip(1) {
        let line = line?;
        let mut fields = line.split_ascii_whitespace();
        let (local, state, inode) = (fields.nth(1), fields.nth(1), fields.nth(5));
        let (Some(local), Some("0A"), Some(inode)) = (local, state, inode) else { continue };
        let local_port = local.rsplit_once(':').map(|(_, port)| u16::from_str_radix(port, 16));
        if local_port == Some(Ok(port)) {
            inodes.extend(inode.parse::<u64>());
        }
    }
    Ok(inodes)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn identity(dir: &Path) -> Identity {
        Identity { dir: dir.to_owned(), port: None }
    }

    #[test]
    fn the_welcome_page_must_carry_the_nodes_own_ids() {
        let dir = tempfile::tempdir().unwrap();
        let page = br#"<td title="TubID: sbzw">v0-jkgr</td> <div class="nodeid">v0-other</div>"#;
        let kind = |identity: &Identity| identity.prove(page).map_err(|failure| failure.kind);
        assert_eq!(kind(&identity(dir.path())), Err(FailureKind::WrongNode), "never ran");
        fs::write(dir.path().join("my_nodeid"), "sbzw\n").unwrap();
        assert_eq!(kind(&identity(dir.path())), Ok(()));
        fs::write(dir.path().join("node.pubkey"), "pub-v0-jkgr\n").unwrap();
        assert_eq!(kind(&identity(dir.path())), Ok(()));
        fs::write(dir.path().join("node.pubkey"), "pub-v0-other\n").unwrap();
        assert_eq!(kind(&identity(dir.path())), Err(FailureKind::WrongNode));
        fs::write(dir.path().join("my_nodeid"), "sbz\n").unwrap();
        assert_eq!(kind(&identity(dir.path())), Err(FailureKind::WrongNode));
        // A page of another form proves nothing by itself.
        fs::write(dir.path().join("my_nodeid"), "sbzw\n").unwrap();
        for page in
            [&b""[..], b"TubID: sbzw", b"title=\"TubID: sbzw", b"title=\"TubID: sbzw\">v0-jkgr"]
        {
            assert!(identity(dir.path()).prove(page).is_err());
        }
    }

    #[test]
    fn of_the_kernels_table_those_lines_count_that_say_so() {
        // Linux's Documentation/networking/proc_net_tcp: number, local address, remote one, state, ..., inode.
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0D80 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0 100 0 0 10 0
   1: 0100007F:0D81 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4712 1 0 100 0 0 10 0
   2: 0100007F:0D80 0100007F:C350 01 00000000:00000000 00:00000000 00000000  1000        0 4713 1 0 20 4 30 10 -1
   3: 0100007F:0D80
   4: 00000000000000000000000001000000:0D80 00000000000000000000000000000000:0000 0A 0:0 0:0 0 1000 0 4714 1
";
        assert_eq!(listening(table.as_bytes(), 3456).unwrap(), [4711, 4714]);
    }

    #[test]
    fn the_kernel_knows_who_listens() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let own = std::process::id();
        let stat = Started { pid: own, at: 0.0 }.stat().unwrap();
        let machine = fs::read_to_string("/proc/stat").unwrap();
        let boot = machine.lines().find_map(|line| line.strip_prefix("btime ")).unwrap();
        let start = boot.trim().parse::<f64>().unwrap() + stat.started / 100.0;
        assert_eq!(owns_port(&format!("{own} {start}\n"), port), Some(true));
        drop(socket);
        assert_eq!(owns_port(&format!("{own} {start}"), port), Some(false));
        assert_eq!(owns_port(&format!("{own} {}", start - 60.0), port), None, "a reused pid");
        for nonsense in ["", "x", "1 x", "99999999 1"] {
            assert_eq!(owns_port(nonsense, port), None);
            assert!(!Identity::is_frozen(nonsense));
        }
        assert!(!Identity::is_frozen(&format!("{own} {start}")));
    }
}
