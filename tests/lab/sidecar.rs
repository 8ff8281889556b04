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
    config: String,
    folder: TempDir,
}

impl Sidecar {
    /// Starts one beside the node called `name` at `web`, with these lines of configuration. All nodes' hcf have the same
    /// `grpc` port, hence each node an address of its own.
    pub fn start(name: &str, web: &str, grpc: u16, config: &str) -> Self {
        let ip = web.split(':').next().unwrap_or_default().to_owned();
        let (agent, health) = (free_port(), free_port());
        let status = format!("{ip}:{}", free_port());
        let place = Place { name: name.to_owned(), ip, node: port(web), agent, health, grpc };
        let folder = place::folder("sidecar");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let config = format!(
            "{config}\nadmin: {{socket: '{}'}}\nstate_dir: '{}'\n",
            path("admin"),
            path("state")
        );
        let mut sidecar = Self { place, status, hcf: None, config, folder };
        sidecar.begin();
        sidecar
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
        self.hcf = Some(Hcf::configured(&self.config, &told.concat()));
    }

    /// It is gone, as after `kill -9`.
    pub fn end(&mut self) {
        self.hcf = None;
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
