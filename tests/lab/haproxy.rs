//! A real HAProxy, and what it thinks.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::process::{Process, Program, Signal};
use super::wait::{LONG, wait_for, wait_until};
use super::{net, place};

/// Which HAProxy: the two whose reading of the agent protocol differs at the edges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Debian's, 2.6 on Debian 12.
    V2_6,
    /// 2.8, from PyPI.
    V2_8,
}

impl Version {
    /// Both, to run a test against each.
    pub const ALL: [Self; 2] = [Self::V2_6, Self::V2_8];

    fn program(self) -> PathBuf {
        place::part(match self {
            Self::V2_6 => "haproxy",
            Self::V2_8 => "haproxy-2.8",
        })
    }
}

/// A running HAProxy.
#[derive(Debug)]
pub struct Haproxy {
    process: Process,
    version: Version,
    /// Those that a reload has replaced; each ends with its last connection.
    leaving: Vec<Process>,
    socket: String,
    config: PathBuf,
    folder: TempDir,
}

impl Haproxy {
    /// Starts with this configuration and a stats socket of the lab's own. Panics with HAProxy's words when it
    /// refuses the configuration.
    pub fn start(version: Version, config: &str) -> Self {
        Self::start_in(place::folder("haproxy"), version, config)
    }

    fn start_in(folder: TempDir, version: Version, config: &str) -> Self {
        let path = folder.path().join("haproxy.cfg");
        let socket = folder.path().join("stats.sock").display().to_string();
        std::fs::write(&path, with_socket(config, &socket))
            .expect("the configuration can be written");
        let name = path.display().to_string();
        check(version, &name);
        let program = Program::new("haproxy", &version.program()).args(["-db", "-f", &name]);
        let mut haproxy = Self {
            process: Process::start(&program, folder.path()),
            version,
            leaving: Vec::new(),
            socket: format!("unix:{socket}"),
            config: path,
            folder,
        };
        wait_until("HAProxy's stats socket", LONG, || {
            haproxy.process.must_run();
            haproxy.try_command("show info").is_ok_and(|answer| answer.contains("Pid:"))
        });
        haproxy
    }

    /// Starts another process in the place of this one, as `systemctl reload` does, and waits until it answers.
    pub fn reload(&mut self) {
        let old = self.process.pid().to_string();
        let name = self.config.display().to_string();
        let program = Program::new("haproxy", &self.version.program());
        let program = program.args(["-db", "-f", &name, "-sf", &old]);
        let next = Process::start(&program, self.folder.path());
        let pid = format!("Pid: {}\n", next.pid());
        self.leaving.push(std::mem::replace(&mut self.process, next));
        wait_until("HAProxy's next process to answer", LONG, || {
            self.process.must_run();
            self.try_command("show info").is_ok_and(|answer| answer.contains(&pid))
        });
        self.leaving.retain_mut(|process| process.ended().is_none());
    }

    /// The address of its stats socket, for [`stats_at`].
    pub fn socket(&self) -> &str {
        &self.socket
    }

    /// One command on the stats socket.
    pub fn command(&self, line: &str) -> String {
        self.try_command(line).unwrap_or_else(|error| panic!("HAProxy, {line}: {error}"))
    }

    fn try_command(&self, line: &str) -> io::Result<String> {
        net::ask(&self.socket, format!("{line}\n").as_bytes(), Duration::from_secs(5))
    }

    /// Everything `show stat` says, of frontends and backends too, from one question.
    pub fn stats(&self) -> Vec<Stat> {
        stats_of(&self.command("show stat"))
    }

    /// Everything `show stat` says of one server; panics when there is no such server.
    pub fn stat(&self, backend: &str, server: &str) -> Stat {
        self.stats()
            .into_iter()
            .find(|stat| stat.is(backend, server))
            .unwrap_or_else(|| panic!("no {backend}/{server} in:\n{}", self.command("show stat")))
    }

    /// Waits until `show stat` says what is looked for, and returns it.
    pub fn wait_stat(
        &self,
        backend: &str,
        server: &str,
        what: &str,
        good: impl Fn(&Stat) -> bool,
    ) -> Stat {
        let mut last = self.stat(backend, server);
        let what = format!(
            "{backend}/{server} {what} (at first: {} {})",
            last.status(),
            last.last_agent()
        );
        wait_for(&what, LONG, || {
            last = self.stat(backend, server);
            good(&last).then(|| last.clone())
        })
    }

    /// `show servers state`, which holds the administrative flags one by one.
    pub fn servers_state(&self) -> String {
        self.command("show servers state")
    }

    /// What it has logged (the configuration must say `log stdout`).
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The configuration as it runs.
    pub fn config(&self) -> String {
        std::fs::read_to_string(&self.config).expect("the configuration is there")
    }

    /// Freezes, continues or ends it.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }
}

/// [`Haproxy::stats`] of whoever is behind this socket now, if anybody is.
pub fn stats_at(socket: &str) -> io::Result<Vec<Stat>> {
    net::ask(socket, b"show stat\n", Duration::from_secs(5)).map(|text| stats_of(&text))
}

fn stats_of(text: &str) -> Vec<Stat> {
    let mut lines = text.lines().filter(|line| !line.is_empty());
    let names = fields(lines.next().unwrap_or_default().trim_start_matches("# "));
    lines.map(|line| Stat { fields: names.iter().cloned().zip(fields(line)).collect() }).collect()
}

/// One server's row of `show stat`.
#[derive(Debug, Clone)]
pub struct Stat {
    fields: BTreeMap<String, String>,
}

impl Stat {
    /// A field by HAProxy's own name; empty when this version has none.
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    /// Whether it is of this server.
    pub fn is(&self, backend: &str, server: &str) -> bool {
        self.field("pxname") == backend && self.field("svname") == server
    }

    /// `UP`, `DOWN`, `DRAIN`, `MAINT`, `no check`, with what HAProxy adds to it.
    pub fn status(&self) -> &str {
        self.field("status")
    }

    /// Whether it takes new requests. A server that only an agent checks shows as `no check` while it is up.
    pub fn is_up(&self) -> bool {
        self.status().starts_with("UP") || self.status() == "no check"
    }

    /// The effective weight.
    pub fn weight(&self) -> u32 {
        self.field("weight").parse().unwrap_or_default()
    }

    /// How the last agent check ended, such as `L7OK`.
    pub fn agent_status(&self) -> &str {
        self.field("agent_status")
    }

    /// The agent's last words as HAProxy took them.
    pub fn last_agent(&self) -> &str {
        self.field("last_agt")
    }

    /// How the last health check ended.
    pub fn check_status(&self) -> &str {
        self.field("check_status")
    }
}

/// A shipped configuration made fit for this machine: each `from` must be there, so that a test cannot go on with
/// a replacement that no longer replaces anything.
pub fn replace(config: &str, changes: &[(&str, &str)]) -> String {
    changes.iter().fold(config.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "the configuration has no {from:?} to replace");
        text.replace(from, to)
    })
}

/// Asks HAProxy itself whether a configuration file is good.
fn check(version: Version, file: &str) {
    let output =
        Command::new(version.program()).args(["-c", "-f", file]).output().expect("haproxy runs");
    assert!(
        output.status.success(),
        "haproxy refuses the configuration:\n{}{}",
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout),
    );
}

/// The lab's stats socket in place of the configuration's.
fn with_socket(config: &str, socket: &str) -> String {
    let line = format!("  stats socket {socket} mode 600 level admin\n");
    let mut text = String::new();
    let mut placed = false;
    for old in config.lines().filter(|old| !old.trim_start().starts_with("stats socket")) {
        text.push_str(old);
        text.push('\n');
        if !placed && old.split_whitespace().next() == Some("global") {
            text.push_str(&line);
            placed = true;
        }
    }
    if placed { text } else { format!("global\n{line}{text}") }
}

/// One CSV line; HAProxy quotes what holds a comma or a quote.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        let field = fields.last_mut().expect("there is always one");
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => field.extend(letters.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            other => field.push(other),
        }
    }
    fields
}

#[cfg(test)]
#[allow(unused_imports, reason = "a bench is built for tests, but without them")]
mod tests {
    use super::{fields, replace, with_socket};

    #[test]
    fn quoted_fields_keep_their_commas() {
        assert_eq!(
            fields("be,gw1,\"via agent : down (a, \"\"b\"\")\",,7"),
            ["be", "gw1", "via agent : down (a, \"b\")", "", "7"]
        );
    }

    #[test]
    fn the_stats_socket_is_replaced() {
        let config = "global\n    stats socket ipv4@127.0.0.1:8404 level admin\ndefaults\n";
        let expected = "global\n  stats socket /s mode 600 level admin\ndefaults\n";
        assert_eq!(with_socket(config, "/s"), expected);
        assert!(with_socket("defaults\n", "/s").starts_with("global\n"));
    }

    #[test]
    #[should_panic(expected = "has no \"8081\"")]
    fn a_replacement_that_replaces_nothing_is_an_error() {
        replace("bind :8080", &[("8081", "1")]);
    }
}
