//! An hcf beside a gateway at fixed ports, so that it can end and start again while balancers go on asking.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::hcf::{Hcf, hcf_binary, port};
use super::place;
use super::ports::free_port;
use super::shipped::Place;

/// An hcf that may be gone for the moment.
#[derive(Debug)]
pub struct Sidecar {
    /// Where it and its node are.
    pub place: Place,
    /// Where it listens for people.
    pub status: String,
    hcf: Option<Hcf>,
    own: String,
    folder: TempDir,
}

impl Sidecar {
    /// Starts one beside the node called `name` at `web`, with these lines of configuration, in which `STATE` is a folder
    /// for what it is to keep. All nodes' hcf have the same
    /// `grpc` port, hence each node an address of its own.
    pub fn start(name: &str, web: &str, grpc: u16, config: &str) -> Self {
        let ip = web.split(':').next().unwrap_or_default().to_owned();
        let (agent, health) = (free_port(), free_port());
        let status = format!("{ip}:{}", free_port());
        let place = Place { name: name.to_owned(), ip, node: port(web), agent, health, grpc };
        let folder = place::folder("sidecar");
        let own = config.to_owned();
        let mut sidecar = Self { place, status, hcf: None, own, folder };
        sidecar.begin();
        sidecar
    }

    fn config(&self) -> String {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let (own, admin) = (self.own.replace("STATE", &path("state")), path("admin"));
        format!("{own}\nadmin: {{socket: '{admin}'}}\n")
    }

    /// Writes another configuration into its file, which it then reads by itself.
    pub fn rewrite(&mut self, config: &str) {
        config.clone_into(&mut self.own);
        let (file, text) = (self.hcf().file(), self.config());
        std::fs::write(&file, text).expect("the configuration can be written");
    }

    /// Starts it again after [`Sidecar::end`].
    pub fn begin(&mut self) {
        let at = |port: u16| format!("{}:{port}", self.place.ip);
        let Place { agent, health, grpc, .. } = self.place;
        let (agent, health, grpc) = (at(agent), at(health), at(grpc));
        let told = [
            ["--agent", &agent],
            ["--health", &health],
            ["--status", &self.status],
            ["--grpc", &grpc],
        ];
        self.hcf = Some(Hcf::configured(&self.config(), &told.concat()));
    }

    /// It is gone, as after `kill -9`.
    pub fn end(&mut self) {
        self.hcf = None;
    }

    /// Whether it has been started and not ended since.
    pub fn is_running(&self) -> bool {
        self.hcf.is_some()
    }

    /// The running program.
    pub fn hcf(&mut self) -> &mut Hcf {
        self.hcf.as_mut().unwrap_or_else(|| panic!("hcf of {} is not running", self.place.name))
    }

    /// The socket for orders.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("admin")
    }

    /// What `hcf` says to such a command, such as `drain`; the error is its words.
    pub fn order(&self, words: &[&str]) -> Result<(), String> {
        let mut command = Command::new(hcf_binary());
        let output = command.args(words).arg("--socket").arg(self.socket()).output();
        let output = output.expect("hcf can be run");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(format!("{words:?}: {said}")) }
    }
}
