//! A real Envoy, and what it thinks.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::http;
use super::place;
use super::process::{Process, Program, Signal};
use super::wait::{LONG, wait_for};

/// Which Envoy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// 1.36, the oldest one that the shipped files are for.
    Oldest,
    /// The one that is meant unless one is named.
    Newest,
}

impl Version {
    fn program(self) -> PathBuf {
        place::part(match self {
            Self::Oldest => "envoy-1.36",
            Self::Newest => "envoy",
        })
    }
}

/// A running Envoy.
#[derive(Debug)]
pub struct Envoy {
    process: Process,
    admin: String,
    _folder: TempDir,
}

impl Envoy {
    /// Starts with this configuration (an `admin` on any free port is added when it has none) and waits until
    /// the admin port answers. Panics with Envoy's words when it refuses the configuration.
    pub fn start(config: &str) -> Self {
        Self::start_version(Version::Newest, config)
    }

    /// The same in a version.
    pub fn start_version(version: Version, config: &str) -> Self {
        let folder = place::folder("envoy");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let (file, told) = (path("envoy.yaml"), path("admin.address"));
        std::fs::write(&file, with_admin(config)).expect("the configuration can be written");
        // One worker is plenty; without hot restart two Envoys on a machine share nothing.
        let program = Program::new("envoy", &version.program())
            .args(["-c", &file, "--admin-address-path", &told])
            .args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]);
        let mut process = Process::start(&program, folder.path());
        let admin = wait_for("Envoy's admin port", LONG, || {
            process.must_run();
            let address =
                std::fs::read_to_string(&told).ok().filter(|address| !address.is_empty())?;
            http::get(&address, "/server_info").is_ok().then_some(address)
        });
        Self { process, admin, _folder: folder }
    }

    /// Where the admin port listens.
    pub fn admin(&self) -> &str {
        &self.admin
    }

    /// Waits until the listeners are open: not before every cluster's first round of checks has ended.
    pub fn wait_live(&self) {
        wait_for("Envoy to be live", LONG, || {
            http::get(&self.admin, "/ready").ok().filter(|answer| answer.status == 200)
        });
    }

    /// The admin port's view of all clusters.
    pub fn clusters(&self) -> Value {
        self.try_clusters().unwrap_or_else(|error| panic!("Envoy's admin port: {error}"))
    }

    fn try_clusters(&self) -> io::Result<Value> {
        clusters_at(&self.admin)
    }

    /// [`health`] of one host, asked now.
    pub fn health(&self, cluster: &str, address: &str) -> Option<Vec<String>> {
        health(&self.clusters(), cluster, address)
    }

    /// [`is_up`] of one host, asked now.
    pub fn is_up(&self, cluster: &str, address: &str) -> bool {
        is_up(&self.clusters(), cluster, address)
    }

    /// The weight of a host.
    pub fn weight(&self, cluster: &str, address: &str) -> Option<u64> {
        let clusters = self.clusters();
        hosts(&clusters, cluster).find(|host| host_address(host) == address)?["weight"].as_u64()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Freezes, continues or ends it.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }
}

/// Asks Envoy itself whether a configuration is good; the error is what it said.
pub fn validate(config: &str) -> Result<(), String> {
    let folder = place::folder("envoy");
    let file: PathBuf = folder.path().join("envoy.yaml");
    std::fs::write(&file, config).expect("the configuration can be written");
    let name = file.display().to_string();
    let program =
        Program::new("validate", &place::part("envoy")).args(["--mode", "validate", "-c", &name]);
    let mut process = Process::start(&program, folder.path());
    if process.wait_end(LONG).success() { Ok(()) } else { Err(process.log()) }
}

/// [`Envoy::clusters`] of whoever is behind this admin port now, if anybody is.
pub fn clusters_at(admin: &str) -> io::Result<Value> {
    let patience = Duration::from_secs(5);
    http::request(admin, "GET", "/clusters?format=json", &[], None, patience)
        .map(|answer| answer.json())
}

/// Whether the host takes requests as far as Envoy's checks and discovery go.
pub fn is_up(clusters: &Value, cluster: &str, address: &str) -> bool {
    let bad = |flag: &String| flag.starts_with("failed_active_health") || flag.starts_with("eds:");
    health(clusters, cluster, address).is_some_and(|flags| !flags.iter().any(bad))
}

/// What holds against the host at `address` (`host:port`) in a cluster, out of [`Envoy::clusters`]: the names of the
/// flags set, and `eds:WORD` where discovery says other than healthy. Empty: nothing. `None`: no such host.
pub fn health(clusters: &Value, cluster: &str, address: &str) -> Option<Vec<String>> {
    let host = hosts(clusters, cluster).find(|host| host_address(host) == address)?;
    let flags = host["health_status"].as_object()?;
    let said = flags.iter().filter_map(|(name, value)| match value {
        Value::Bool(true) => Some(name.clone()),
        Value::String(word) if word != "HEALTHY" => Some(format!("eds:{word}")),
        _ => None,
    });
    Some(said.collect())
}

fn hosts<'a>(clusters: &'a Value, cluster: &str) -> impl Iterator<Item = &'a Value> {
    let all = clusters["cluster_statuses"].as_array().map_or(&[][..], Vec::as_slice);
    let found = all.iter().find(|one| one["name"] == cluster);
    found.and_then(|one| one["host_statuses"].as_array()).map_or(&[][..], Vec::as_slice).iter()
}

fn host_address(host: &Value) -> String {
    let address = &host["address"]["socket_address"];
    format!("{}:{}", address["address"].as_str().unwrap_or_default(), address["port_value"])
}

fn with_admin(config: &str) -> String {
    if config.lines().any(|line| line.starts_with("admin:")) {
        return config.to_owned();
    }
    format!(
        "admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}\n{config}"
    )
}
