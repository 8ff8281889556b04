//! A real nginx.

use tempfile::TempDir;

use super::place;
use super::process::{Process, Program};
use super::wait::{LONG, wait_until};

/// A running nginx, in one process: a worker would outlive a master that is killed.
#[derive(Debug)]
pub struct Nginx {
    process: Process,
    _folder: TempDir,
}

impl Nginx {
    /// Starts with this configuration and waits until it listens. Panics with nginx's words when it refuses the
    /// configuration.
    pub fn start(config: &str) -> Self {
        let folder = place::folder("nginx");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let (file, pid) = (path("nginx.conf"), path("nginx.pid"));
        std::fs::write(&file, with_folders(config, &folder.path().display().to_string()))
            .expect("the configuration can be written");
        let globals = format!("daemon off; master_process off; pid {pid};");
        let program = Program::new("nginx", &place::part("nginx")).args([
            "-p",
            &path(""),
            "-c",
            &file,
            "-e",
            "stderr",
            "-g",
            &globals,
        ]);
        let mut process = Process::start(&program, folder.path());
        // It writes its id down when it listens.
        wait_until("nginx to listen", LONG, || {
            process.must_run();
            std::fs::read_to_string(&pid).is_ok_and(|id| id.ends_with('\n'))
        });
        Self { process, _folder: folder }
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

/// Has it keep its files in the lab's folder: its own are for root alone.
fn with_folders(config: &str, folder: &str) -> String {
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let lines = kinds.map(|kind| format!("    {kind}_temp_path {folder}/{kind};\n")).concat();
    let (before, after) = config.split_once("http {\n").expect("nginx is to speak HTTP");
    format!("{before}http {{\n{lines}{after}")
}
