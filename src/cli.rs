//! The command line: names and help, no behaviour. Man page and completions come from here.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{Addresses, Sources};

/// Halt and catch fire: watches a Tahoe-LAFS gateway and tells HAProxy and Envoy whether to use it.
///
/// Exit codes: 0 success, 1 failure or not up, 2 usage or unknown service, 3 no sidecar there,
/// 78 a configuration that makes no sense.
#[derive(Debug, Parser)]
#[command(name = "hcf", version, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the sidecar.
    ///
    /// Prints `listening NAME ADDRESS` for each address that it listens on, then `ready`, when the
    /// first look at the node has finished. SIGTERM announces the end to balancers, waits
    /// (shutdown.announce) and stops; a second one stops at once.
    Run(Run),
    /// Check a configuration, without running anything.
    Check(Check),
    /// Look at the node once, without a running sidecar.
    Probe(Probe),
    /// Show what a running sidecar says, and why.
    Status(Status),
    /// Print a balancer's configuration for this one, or look for traps in an existing one.
    Snippet(Snippet),
    /// Print the JSON Schema of the configuration file.
    Schema,
    /// Print the manual page.
    #[command(hide = true)]
    Man,
    /// Print completions for a shell.
    #[command(hide = true)]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Where the configuration comes from.
#[derive(Args, Clone, Debug, Default)]
pub struct ConfigArgs {
    /// The configuration file; none is read unless named.
    #[arg(short = 'c', long = "config", value_name = "FILE", env = "HCF_CONFIG")]
    pub config: Option<PathBuf>,
    /// Short for `-c /etc/hcf/NAME.yaml`, and beats it.
    #[arg(short = 'i', long, value_name = "NAME")]
    pub instance: Option<String>,
    /// The node's directory, as `node.dir`.
    #[arg(long, value_name = "DIR", env = "HCF_NODE_DIR")]
    pub node_dir: Option<PathBuf>,
    /// The node's URL, as `node.url`.
    #[arg(long, value_name = "URL", env = "HCF_NODE")]
    pub node: Option<String>,
}

impl ConfigArgs {
    /// Where the configuration comes from.
    #[must_use]
    pub fn sources(&self) -> Sources {
        let instance = self.instance.as_ref().map(|name| format!("/etc/hcf/{name}.yaml").into());
        Sources {
            file: instance.or_else(|| self.config.clone()),
            node_dir: self.node_dir.clone(),
            node: self.node.clone(),
            socket: self.socket(),
            state_dir: directory("STATE_DIRECTORY"),
            ..Sources::default()
        }
    }

    /// Where the admin socket is unless the configuration says so.
    fn socket(&self) -> Option<PathBuf> {
        if let Some(name) = &self.instance {
            return Some(PathBuf::from("/run/hcf").join(name).join("admin.sock"));
        }
        let runtime = directory("RUNTIME_DIRECTORY");
        let own = || directory("XDG_RUNTIME_DIR").map(|dir| dir.join("hcf"));
        runtime.or_else(own).map(|dir| dir.join("admin.sock"))
    }
}

/// The first directory that an environment variable names; systemd separates several by colons.
fn directory(variable: &str) -> Option<PathBuf> {
    let value = std::env::var(variable).ok()?;
    value.split(':').next().filter(|dir| dir.starts_with('/')).map(PathBuf::from)
}

/// Run the sidecar.
#[derive(Args, Debug)]
pub struct Run {
    #[command(flatten)]
    config: ConfigArgs,
    /// Where HAProxy asks, as `listen.agent`: addresses with commas between, or `off`.
    #[arg(long, value_name = "ADDRESS", env = "HCF_LISTEN_AGENT", value_parser = Addresses::parse)]
    agent: Option<Addresses>,
    /// Where HTTP health checks ask, as `listen.health`.
    #[arg(long, value_name = "ADDRESS", env = "HCF_LISTEN_HEALTH", value_parser = Addresses::parse)]
    health: Option<Addresses>,
    /// Where operators ask, as `listen.status`.
    #[arg(long, value_name = "ADDRESS", env = "HCF_LISTEN_STATUS", value_parser = Addresses::parse)]
    status: Option<Addresses>,
}

impl Run {
    /// Where the configuration comes from.
    #[must_use]
    pub fn sources(&self) -> Sources {
        Sources {
            agent: self.agent.clone(),
            health: self.health.clone(),
            status: self.status.clone(),
            ..self.config.sources()
        }
    }
}

/// Check a configuration.
#[derive(Args, Debug)]
pub struct Check {
    /// Where it comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Print the effective configuration, with every default written out.
    #[arg(long)]
    pub show: bool,
}

/// Look at the node once.
#[derive(Args, Debug)]
pub struct Probe {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The service to judge; all of them, and the worst one counts, unless named.
    pub service: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Show what a running sidecar says.
#[derive(Args, Debug)]
pub struct Status {
    /// Where the configuration comes from, which says where the sidecar listens.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The service; all of them, and the worst one counts, unless named.
    pub service: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// The status listener's URL, such as `http://127.0.0.1:5293` or `unix:/path`.
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// How long the answer may take.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
}

/// Print a balancer's configuration, or look for traps in one.
#[derive(Args, Debug)]
pub struct Snippet {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The balancer.
    #[arg(required_unless_present = "lint")]
    pub balancer: Option<Balancer>,
    /// Look for traps in this haproxy.cfg instead; exit code 1 if one breaks hcf's checks.
    #[arg(long, value_name = "FILE")]
    pub lint: Option<PathBuf>,
}

/// A balancer that a configuration can be printed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Balancer {
    /// HAProxy 2.6 and later.
    Haproxy,
    /// Envoy 1.36 and later.
    Envoy,
}
