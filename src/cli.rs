//! The command line: names and help, no behaviour. Man page and completions come from here.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::ask::Proof;
use crate::config::{Addresses, Sources};
use crate::tls::Pair;

/// Halt and catch fire: watches a Tahoe-LAFS gateway and tells HAProxy and Envoy whether to use it.
///
/// Exit codes: 0 success, 1 failure or not up, 2 usage or unknown service, 3 no sidecar there,
/// 78 a configuration that makes no sense.
#[derive(Debug, Parser)]
#[command(name = "hcf", version = crate::VERSION, propagate_version = true)]
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
    /// Wait until a service would be up, without a running sidecar.
    ///
    /// For `ExecStartPost=` of the node's own unit: a node that starts but cannot serve fails its start,
    /// with the reason in the journal. Criteria alone count, no overrides.
    Wait(Wait),
    /// Show what a running sidecar says, and why.
    Status(Status),
    /// Show what a running sidecar has said, and when: each change, and how the time was spent.
    ///
    /// Seven days are kept, in at most 4 MiB of the state directory, or 1 MiB of memory without one. When hcf did not run,
    /// nothing is known. Exits with 0 when every service is up now.
    History(History),
    /// Explain why a service was what it was: reasons, numbers, and what changed just before.
    ///
    /// Exits with 0 if it was up, 1 if it was not or nothing is known.
    Explain(Explain),
    /// Follow what a running sidecar says, as it changes.
    ///
    /// Draws anew in a terminal, and prints a line for each change into a pipe. Connects again when the sidecar went away.
    Watch(Watch),
    /// Let what runs finish, and send no new work.
    ///
    /// It stands until `hcf clear`, or until the end that it is given: `hcf drain write --reason "disk swap" --for 30m`.
    /// When the command returns, every answer has it.
    Drain(Order),
    /// Take the node out for maintenance; stands above everything else.
    Maint(Order),
    /// Send no work at all.
    Down(Order),
    /// Send work, whatever the criteria say. A dead node stays down all the same.
    Up(Order),
    /// Send no more than this share of work.
    Weight(WeightOrder),
    /// End what was ordered by drain, maint, down, up or weight.
    Clear(Clear),
    /// Have a running sidecar read its configuration again.
    ///
    /// Prints the keys that have changed. A bad one is refused with its message (exit code 78), and the old one stays.
    Reload(Reload),
    /// Write the file by which an Envoy on this machine knows a fleet's nodes (EDS).
    ///
    /// Follows the sidecars that FILE names, and replaces its `output` when anything changes. Prints
    /// `listening status ADDRESS`, and `ready` once the file is there. SIGTERM stops it, and leaves the file.
    Eds(Eds),
    /// Print a balancer's configuration for this one, or look for traps in an existing one.
    Snippet(Snippet),
    /// Files that prove what the node can do.
    #[command(subcommand)]
    Canary(Canary),
    /// Print the JSON Schema of the configuration file.
    Schema {
        /// Print what the status listener answers, as OpenAPI, instead.
        #[arg(long)]
        api: bool,
    },
    /// Print the manual page, or write all of them.
    #[command(hide = true)]
    Man {
        /// Writes a page for each command, and one for the configuration, into this folder.
        dir: Option<PathBuf>,
    },
    /// Print completions for a shell.
    #[command(hide = true)]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Which configuration file.
#[derive(Args, Clone, Debug, Default)]
pub struct FileArgs {
    /// The configuration file; none is read unless named.
    #[arg(short = 'c', long = "config", value_name = "FILE", env = "HCF_CONFIG")]
    pub config: Option<PathBuf>,
    /// Short for `-c /etc/hcf/NAME.yaml`, and beats it.
    #[arg(short = 'i', long, value_name = "NAME")]
    pub instance: Option<String>,
}

/// Where the configuration comes from.
#[derive(Args, Clone, Debug, Default)]
pub struct ConfigArgs {
    #[command(flatten)]
    file: FileArgs,
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
        let (node_dir, node) = (self.node_dir.clone(), self.node.clone());
        Sources { node_dir, node, ..self.file.sources() }
    }
}

impl FileArgs {
    /// Where the configuration comes from.
    #[must_use]
    pub fn sources(&self) -> Sources {
        let instance = self.instance.as_ref().map(|name| format!("/etc/hcf/{name}.yaml").into());
        Sources {
            file: instance.or_else(|| self.config.clone()),
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
    /// Where health checks and weights are asked for over gRPC, as `listen.grpc`; `off` unless set.
    #[arg(long, value_name = "ADDRESS", env = "HCF_LISTEN_GRPC", value_parser = Addresses::parse)]
    grpc: Option<Addresses>,
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
            grpc: self.grpc.clone(),
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

/// Where the running sidecar is: `--socket`, else `-i NAME`'s socket, else the one that `-c FILE` names, else
/// `HCF_SOCKET`, else the default one.
#[derive(Args, Clone, Debug)]
pub struct SidecarArgs {
    /// The configuration, which says where the sidecar is.
    #[command(flatten)]
    pub config: FileArgs,
    /// The sidecar's admin socket; beats all other ways to find it, the last of which is `HCF_SOCKET`.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

/// An order.
#[derive(Args, Debug)]
pub struct Order {
    /// Where the sidecar is.
    #[command(flatten)]
    pub sidecar: SidecarArgs,
    /// The services; all of them unless named.
    pub services: Vec<String>,
    /// Why; asked for on a terminal.
    #[arg(long, short = 'm', value_name = "TEXT")]
    pub reason: Option<String>,
    /// Ends it by itself after this time, such as `30m`.
    #[arg(long = "for", value_name = "TIME", conflicts_with = "until", value_parser = humantime::parse_duration)]
    pub length: Option<Duration>,
    /// Ends it by itself at this time, such as `2026-11-24T14:03:00Z`.
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// On whose behalf. Each owner has one order for each service, and the strongest of them counts.
    #[arg(long, value_name = "NAME", default_value = "operator")]
    pub owner: String,
    /// Waits, at most for this time, until every balancer has heard of it; then, at most for `--finish`,
    /// until the node has finished what it is doing. Exits with 0 where no sidecar runs.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub settle: Option<Duration>,
    /// How long `--settle` waits for the node's operations to end.
    #[arg(long, value_name = "TIME", default_value = "1m", requires = "settle", value_parser = humantime::parse_duration)]
    pub finish: Duration,
}

/// A cap on the weight.
#[derive(Args, Debug)]
pub struct WeightOrder {
    /// The most weight, in percent.
    #[arg(value_name = "N", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub weight: u8,
    /// The rest.
    #[command(flatten)]
    pub order: Order,
}

/// End what was ordered.
#[derive(Args, Debug)]
pub struct Clear {
    /// Where the sidecar is.
    #[command(flatten)]
    pub sidecar: SidecarArgs,
    /// The services; all of them unless named.
    pub services: Vec<String>,
    /// Ends only what stands on this one's behalf. Exits with 0 where no sidecar runs.
    #[arg(long, value_name = "NAME")]
    pub owner: Option<String>,
}

/// Read the configuration again.
#[derive(Args, Debug)]
pub struct Reload {
    /// Where the sidecar is.
    #[command(flatten)]
    pub sidecar: SidecarArgs,
}

/// Write Envoy's file of nodes.
#[derive(Args, Debug)]
pub struct Eds {
    /// The fleet file: the nodes, their sidecars, and where the output goes.
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    pub config: PathBuf,
}

/// Wait until a service would be up.
#[derive(Args, Debug)]
pub struct Wait {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The service; `default_service` unless named.
    pub service: Option<String>,
    /// How long to wait.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
}

/// How a running sidecar is asked.
#[derive(Args, Clone, Debug)]
pub struct LookArgs {
    /// Where the sidecar is.
    #[command(flatten)]
    pub sidecar: SidecarArgs,
    /// Ask this listener instead of the admin socket: `http://127.0.0.1:5293`, `https://HOST:PORT` or `unix:/path`.
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// A PEM file with the authority that has signed the listener's certificate.
    #[arg(long, value_name = "FILE", requires = "url")]
    ca: Option<PathBuf>,
    /// A PEM file with our own certificate, where the listener asks for one.
    #[arg(long, value_name = "FILE", requires = "ca", requires = "key")]
    cert: Option<PathBuf>,
    /// A PEM file with its private key.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// How long the answer may take.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
}

impl LookArgs {
    /// By what an https listener is known.
    #[must_use]
    pub fn proof(&self) -> Option<Proof> {
        let own = self.cert.clone().zip(self.key.clone());
        let own = own.map(|(cert, key)| Pair { cert, key });
        Some(Proof { ca: self.ca.clone()?, own })
    }
}

/// Show what a running sidecar says.
#[derive(Args, Debug)]
pub struct Status {
    /// Where the sidecar is.
    #[command(flatten)]
    pub look: LookArgs,
    /// The service; all of them, and the worst one counts, unless named.
    pub service: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Show what a running sidecar has said.
#[derive(Args, Debug)]
pub struct History {
    /// Where the sidecar is.
    #[command(flatten)]
    pub look: LookArgs,
    /// The service; all of them unless named.
    pub service: Option<String>,
    /// From when on: a length back such as `2h`, or a time such as `2026-11-24T14:03:00Z`.
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub since: String,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Explain why a service was what it was.
#[derive(Args, Debug)]
pub struct Explain {
    /// Where the sidecar is.
    #[command(flatten)]
    pub look: LookArgs,
    /// The service.
    pub service: String,
    /// When: `2026-11-24T14:03:00Z`, `14:03` or `14:03:05` in UTC (the last time that it was), or `10m` for ten minutes
    /// ago; now unless said.
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
}

/// Follow what a running sidecar says.
#[derive(Args, Debug)]
pub struct Watch {
    /// Where the sidecar is.
    #[command(flatten)]
    pub look: LookArgs,
    /// The service; all of them unless named.
    pub service: Option<String>,
    /// Print JSON, one line for each event.
    #[arg(long)]
    pub json: bool,
}

/// Files that prove what the node can do.
#[derive(Debug, Subcommand)]
pub enum Canary {
    /// Make a file to read and one to write, through the node.
    ///
    /// Their capabilities go into a new file that only its owner may read, for `cap_file` of the criteria
    /// `canary_read` and `canary_write`. Run it as the user that hcf runs as, once for each gateway: two
    /// that overwrite one file disturb each other.
    Create(CanaryCreate),
}

/// Make a file to read and one to write.
#[derive(Args, Debug)]
pub struct CanaryCreate {
    /// Where the configuration comes from, which says where the node is.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The new file for the capabilities.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
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
