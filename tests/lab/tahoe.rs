//! A real Tahoe-LAFS grid: an introducer, storage servers and gateways, each a process of its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::forwarder::Forwarder;
use super::process::{Process, Program, Signal};
use super::wait::{LONG, wait_for, wait_until};
use super::{cut, detour, http, place, ports};

/// How gateways and storage servers talk; the status page speaks differently of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// The default between nodes of today.
    Http,
    /// The older one, forced on both sides.
    Foolscap,
}

/// The shape of a grid.
#[derive(Debug, Clone)]
pub struct Builder {
    storage: usize,
    gateways: usize,
    protocol: Protocol,
    shares: (u32, u32, u32),
    apart: bool,
    keepalive: Option<u32>,
    disconnect: Option<u32>,
}

impl Builder {
    /// So many storage servers (default 5).
    #[must_use]
    pub fn storage(mut self, count: usize) -> Self {
        self.storage = count;
        self
    }

    /// So many gateways (default 2).
    #[must_use]
    pub fn gateways(mut self, count: usize) -> Self {
        self.gateways = count;
        self
    }

    /// The storage protocol (default HTTP).
    #[must_use]
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// Tahoe's shares.needed, happy and total (default 2, 4, 5).
    #[must_use]
    pub fn shares(mut self, needed: u32, happy: u32, total: u32) -> Self {
        self.shares = (needed, happy, total);
        self
    }

    /// Each gateway at an address of its own (127.0.0.1, 127.0.0.2 and so on), as on machines of their own.
    #[must_use]
    pub fn apart(mut self) -> Self {
        self.apart = true;
        self
    }

    /// Tahoe's timeout.keepalive in seconds; foolscap notices a hung server by these two only.
    #[must_use]
    pub fn keepalive(mut self, seconds: u32) -> Self {
        self.keepalive = Some(seconds);
        self
    }

    /// Tahoe's timeout.disconnect in seconds.
    #[must_use]
    pub fn disconnect(mut self, seconds: u32) -> Self {
        self.disconnect = Some(seconds);
        self
    }

    /// Writes the nodes' folders and starts them all; [`Grid::wait_ready`] waits for the grid.
    pub fn start(&self) -> Grid {
        cut::sweep();
        let folder = place::folder("grid");
        let mut introducer = Node::new(folder.path(), "introducer", None);
        introducer.write("tahoe-introducer.tac", "");
        introducer
            .write("tahoe.cfg", &format!("[node]\nnickname = introducer\n{}", introducer.tub()));
        introducer.start();
        // Only a running introducer knows its own address: it holds a hash of the key made at its first start.
        let furl = introducer.dir.join("private/introducer.furl");
        let furl = wait_for("the introducer's address", LONG, || {
            introducer.must_run();
            let text = std::fs::read_to_string(&furl).ok()?;
            text.ends_with('\n').then(|| text.trim().to_owned())
        });
        let mut grid = Grid { introducer, storage: Vec::new(), gateways: Vec::new(), folder };
        for number in 1..=self.storage {
            grid.storage.push(self.storage_node(grid.folder.path(), number, &furl));
        }
        for number in 1..=self.gateways {
            grid.gateways.push(self.gateway(grid.folder.path(), number, &furl));
        }
        if !cut::allowed() {
            grid.lead_over_forwarders();
        }
        for node in grid.nodes() {
            if !node.is_started() {
                node.start();
            }
        }
        grid
    }

    fn storage_node(&self, folder: &Path, number: usize, furl: &str) -> Node {
        let node = Node::new(folder, &format!("store{number}"), None);
        let tub = node.tub();
        node.write_client(
            furl,
            &format!(
                "[node]\nnickname = {}\n{tub}{}\
             [client]\nforce_foolscap = {foolscap}\n\
             [storage]\nenabled = true\nreserved_space = 1M\nforce_foolscap = {foolscap}\n",
                node.name,
                self.timers(),
                foolscap = self.protocol == Protocol::Foolscap,
            ),
        );
        node
    }

    fn gateway(&self, folder: &Path, number: usize, furl: &str) -> Gateway {
        let port = ports::free_port();
        let ip = format!("127.0.0.{}", if self.apart { number } else { 1 });
        // The port is this lab's alone while it runs, so as a group id it is, too.
        let group = cut::allowed().then_some(u32::from(port));
        let node = Node::new(folder, &format!("gw{number}"), group);
        let (needed, happy, total) = self.shares;
        node.write_client(
            furl,
            &format!(
                "[node]\nnickname = {}\nweb.port = tcp:{port}:interface={ip}\n\
             tub.port = disabled\ntub.location = disabled\n{}\
             [client]\nshares.needed = {needed}\nshares.happy = {happy}\nshares.total = {total}\n\
             force_foolscap = {}\n\
             [storage]\nenabled = false\n",
                node.name,
                self.timers(),
                self.protocol == Protocol::Foolscap,
            ),
        );
        Gateway { node, web: format!("{ip}:{port}"), forwarders: Vec::new() }
    }

    fn timers(&self) -> String {
        let line = |name: &str, value: Option<u32>| {
            value.map(|seconds| format!("timeout.{name} = {seconds}\n")).unwrap_or_default()
        };
        line("keepalive", self.keepalive) + &line("disconnect", self.disconnect)
    }
}

/// A running grid; gone with all its processes when dropped.
#[derive(Debug)]
pub struct Grid {
    /// The introducer.
    pub introducer: Node,
    /// The storage servers.
    pub storage: Vec<Node>,
    /// The gateways, each cut off by itself with [`cut::Cut`].
    pub gateways: Vec<Gateway>,
    folder: TempDir,
}

impl Grid {
    /// The shape to change before [`Builder::start`].
    pub fn builder() -> Builder {
        Builder {
            storage: 5,
            gateways: 2,
            protocol: Protocol::Http,
            shares: (2, 4, 5),
            apart: false,
            keepalive: None,
            disconnect: None,
        }
    }

    /// The default grid, ready.
    pub fn ready() -> Self {
        let mut grid = Self::builder().start();
        grid.wait_ready();
        grid
    }

    /// Waits until every gateway is connected to every running storage server.
    pub fn wait_ready(&mut self) {
        let count = self.storage.iter().filter(|node| node.is_started()).count();
        for gateway in &mut self.gateways {
            gateway.wait_connected(count);
        }
    }

    /// The ports of the first `count` storage servers: what a cut is aimed at.
    pub fn storage_ports(&self, count: usize) -> Vec<u16> {
        self.storage.iter().take(count).map(|node| node.port).collect()
    }

    /// Starts the storage servers and leads every gateway to them over forwarders. Only a gateway that runs is told of
    /// the servers, so one of them runs for a moment.
    fn lead_over_forwarders(&mut self) {
        self.storage.iter_mut().for_each(Node::start);
        let Some(first) = self.gateways.first_mut() else { return };
        if self.storage.is_empty() {
            return;
        }
        first.node.start();
        let announced = wait_for("the storage servers' announcements", LONG, || {
            first.node.must_run();
            detour::announced(first.dir(), self.storage.len())
        });
        first.node.kill();
        for gateway in &mut self.gateways {
            gateway.forwarders = detour::lead(&gateway.node, &self.storage, &announced);
        }
    }

    fn nodes(&mut self) -> impl Iterator<Item = &mut Node> {
        self.storage.iter_mut().chain(self.gateways.iter_mut().map(|gateway| &mut gateway.node))
    }
}

/// A gateway: the node that hcf watches.
#[derive(Debug)]
pub struct Gateway {
    /// Its process and folder.
    pub node: Node,
    /// Where its web port listens, `host:port`.
    pub web: String,
    /// How it reaches the storage servers where the lab may not set packet filter rules; else empty.
    pub forwarders: Vec<Arc<Forwarder>>,
}

impl Gateway {
    /// Its folder, for `--node-dir`.
    pub fn dir(&self) -> &Path {
        &self.node.dir
    }

    /// Its web port's number, for balancer configurations.
    pub fn port(&self) -> u16 {
        self.web.rsplit(':').next().and_then(|port| port.parse().ok()).expect("web ends in a port")
    }

    /// Its status page as JSON, if it answers.
    pub fn status(&self) -> Option<Value> {
        let patience = Duration::from_secs(2);
        let answer = http::request(&self.web, "GET", "/?t=json", &[], None, patience).ok()?;
        serde_json::from_slice(&answer.body).ok()
    }

    /// How many storage servers it says it is connected to; none when it does not answer.
    pub fn connected(&self) -> usize {
        let status = self.status().unwrap_or_default();
        let servers = status["servers"].as_array().map_or(&[][..], Vec::as_slice);
        let connected = |server: &&Value| {
            let words = server["connection_status"].as_str().unwrap_or_default();
            let good = words == "connected" || words.starts_with("Connected ");
            good && server["version"].is_string()
        };
        servers.iter().filter(connected).count()
    }

    /// Waits for exactly so many connected storage servers.
    pub fn wait_connected(&mut self, count: usize) {
        let what = format!("{} connected to {count} storage servers", self.node.name);
        wait_until(&what, LONG, || {
            self.node.must_run();
            self.connected() == count
        });
    }

    /// Uploads a file and returns its capability; panics unless the upload is accepted.
    pub fn upload(&self, body: &[u8]) -> String {
        self.put("/uri", body)
    }

    /// Makes a small mutable file and returns its write capability.
    pub fn upload_mutable(&self, body: &[u8]) -> String {
        self.put("/uri?format=SDMF", body)
    }

    fn put(&self, path: &str, body: &[u8]) -> String {
        let answer = http::put(&self.web, path, body).expect("the gateway answers");
        assert!(matches!(answer.status, 200 | 201), "{}: {}", answer.status, answer.text());
        answer.text().trim().to_owned()
    }
}

/// One node of any kind.
#[derive(Debug)]
pub struct Node {
    /// Its nickname, also in messages.
    pub name: String,
    /// Its folder.
    pub dir: PathBuf,
    /// Where other nodes reach it; unused for a gateway.
    pub port: u16,
    /// The group id it runs under, if it has one of its own.
    pub group: Option<u32>,
    process: Option<Process>,
}

impl Node {
    fn new(folder: &Path, name: &str, group: Option<u32>) -> Self {
        let dir = folder.join(name);
        std::fs::create_dir_all(dir.join("private")).expect("a node's folder can be made");
        Self { name: name.to_owned(), dir, port: ports::free_port(), group, process: None }
    }

    /// Writes one file of the node's folder.
    pub fn write(&self, file: &str, text: &str) {
        std::fs::write(self.dir.join(file), text).expect("a node's file can be written");
    }

    fn write_client(&self, furl: &str, config: &str) {
        self.write("tahoe-client.tac", "");
        self.write("tahoe.cfg", config);
        self.write(
            "private/introducers.yaml",
            &format!("introducers:\n  lab:\n    furl: \"{furl}\"\n"),
        );
    }

    fn tub(&self) -> String {
        let port = self.port;
        format!("tub.port = tcp:{port}:interface=127.0.0.1\ntub.location = tcp:127.0.0.1:{port}\n")
    }

    /// Starts it, for the first time or again; does not wait for it to be of use.
    pub fn start(&mut self) {
        self.process = None;
        // Without its option the node ends when its standard input does, and the lab gives it none.
        let program = Program::new("run", &place::part("tahoe"))
            .args(["run", "--allow-stdin-close"])
            .arg(self.dir.display().to_string())
            .group(self.group);
        self.process = Some(Process::start(&program, &self.dir));
    }

    /// Whether it has been started and not ended by the lab since.
    pub fn is_started(&self) -> bool {
        self.process.is_some()
    }

    /// Ends it at once, as a crash does.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Ends it as an init system does, and waits for the end.
    pub fn term(&mut self) {
        if let Some(process) = &mut self.process {
            process.signal(Signal::Term);
            process.wait_end(LONG);
        }
        self.process = None;
    }

    /// Freezes it.
    pub fn stop(&self) {
        self.running().signal(Signal::Stop);
    }

    /// Lets it go on.
    pub fn cont(&self) {
        self.running().signal(Signal::Cont);
    }

    /// Its process id while it runs.
    pub fn pid(&self) -> u32 {
        self.running().pid()
    }

    /// What it has written since its last start.
    pub fn log(&self) -> String {
        self.running().log()
    }

    /// Panics with its log when it has ended by itself.
    pub fn must_run(&mut self) {
        if let Some(process) = &mut self.process {
            process.must_run();
        }
    }

    fn running(&self) -> &Process {
        self.process.as_ref().unwrap_or_else(|| panic!("{} is not running", self.name))
    }
}
