//! The fleet file: its own small format, read as strictly as a sidecar's configuration.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::hash::Hash;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use crate::ask::Proof;
use crate::config::{
    Address, ConfigError, Listener, ListenerKeys, NOT_A_WORD, Problems, Whole, is_word, read_text,
    shape,
};
use crate::tahoe::{Endpoint, Target};
use crate::tls::{HTTP_1, Pair};

/// The most nodes of one fleet.
pub(super) const NODES: usize = 1000;
/// Where people ask about the fleet, unless set.
const STATUS: u16 = 5295;
/// The service, unless set.
const SERVICE: &str = "write";

/// A fleet that makes sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fleet {
    /// The name of the EDS resource.
    pub cluster: String,
    /// The service that decides.
    pub service: Arc<str>,
    /// The file that Envoy watches.
    pub output: PathBuf,
    /// Where people ask.
    pub status: Listener,
    /// By what https sidecars are known.
    pub proof: Option<Proof>,
    /// How many percent of the nodes are kept in at least; 0 to 100.
    pub min_available: u8,
    /// The nodes, in the order of their names; at least one.
    pub nodes: Vec<Node>,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: Arc<str>,
    /// Where Envoy sends requests.
    pub address: SocketAddr,
    /// The status listener of the sidecar beside it.
    pub sidecar: Sidecar,
}

/// Where a sidecar says its verdicts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Sidecar {
    /// `http://HOST:PORT` or `https://HOST:PORT`
    Url(String),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Display for Sidecar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Url(url) => f.write_str(url),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The file's own shape.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    cluster: Option<String>,
    service: Option<String>,
    output: Option<PathBuf>,
    listen: ListenKeys,
    tls: Option<TlsKeys>,
    min_available: Option<Whole>,
    nodes: BTreeMap<String, NodeKeys>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ListenKeys {
    status: Option<ListenerKeys>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TlsKeys {
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct NodeKeys {
    address: Option<String>,
    sidecar: Option<String>,
}

impl Fleet {
    /// Reads and checks a fleet file.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it, each with its place.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let (name, text) = read_text(path)?;
        Self::parse(&name, &text)
    }

    /// The same for a text that is called `name`.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it, each with its place.
    pub fn parse(name: &str, text: &str) -> Result<Self, ConfigError> {
        let (positions, file) = shape(name, text)?;
        let mut problems = Problems::new(&positions, &[]);
        let fleet = Self::of(file, &mut problems);
        if problems.is_empty() { Ok(fleet) } else { Err(problems.into_error(name, text)) }
    }

    fn of(file: File, problems: &mut Problems<'_>) -> Self {
        let cluster = file.cluster.unwrap_or_default();
        if cluster.is_empty() {
            problems
                .add("cluster", "must be set: the `service_name` of Envoy's eds_cluster_config");
        }
        let service = file.service.unwrap_or_else(|| SERVICE.to_owned());
        if !is_word(&service) {
            problems.add("service", NOT_A_WORD);
        }
        let output = file.output.unwrap_or_default();
        if !output.is_absolute() || output.file_name().is_none() {
            problems.add("output", "must be set: the absolute path of the file that Envoy watches");
        }
        let min_available = match file.min_available.map_or(0, |Whole(percent)| percent) {
            percent @ 0..=100 => u8::try_from(percent).unwrap_or(100),
            other => {
                problems
                    .add("min_available", format!("{other} is out of range, expected 0 to 100"));
                0
            }
        };
        let local = Address::Tcp { host: "127.0.0.1".to_owned(), port: STATUS };
        let status = file.listen.status.unwrap_or_default();
        let status = status.resolve("listen.status", vec![local], Some(HTTP_1), problems);
        if file.nodes.is_empty() {
            problems.add("nodes", "must be set: at least one, each under a name of its own");
        }
        let proof = file.tls.and_then(|keys| proof(keys, problems));
        let mut nodes = Vec::new();
        for (name, keys) in file.nodes {
            nodes.extend(node(&name, keys, proof.is_some(), problems));
        }
        if nodes.len() > NODES {
            problems.add("nodes", format!("{} nodes, at most {NODES} are followed", nodes.len()));
        }
        // Envoy takes only one of two that share an address; and of two that share a sidecar, one would
        // be judged by what is said of the other.
        unique(&nodes, "address", |node| node.address, problems);
        unique(&nodes, "sidecar", |node| node.sidecar.clone(), problems);
        let service = service.into();
        Self { cluster, service, output, status, proof, min_available, nodes }
    }
}

/// Read at each connect, so only their sense is asked here.
fn proof(keys: TlsKeys, problems: &mut Problems<'_>) -> Option<Proof> {
    if keys.cert.is_some() != keys.key.is_some() {
        problems.add("tls", "expected `cert` and `key` together, each a PEM file");
    }
    let own = keys.cert.zip(keys.key).map(|(cert, key)| Pair { cert, key });
    let Some(ca) = keys.ca else {
        problems.add(
            "tls",
            "expected `ca`, a PEM file with the authority of the sidecars' certificates",
        );
        return None;
    };
    Some(Proof { ca, own })
}

fn node(name: &str, keys: NodeKeys, tls: bool, problems: &mut Problems<'_>) -> Option<Node> {
    let key = format!("nodes.{name}");
    if !is_word(name) {
        problems.add(&key, NOT_A_WORD);
    }
    let address = keys.address.unwrap_or_default().parse::<SocketAddr>().ok();
    let address = address.filter(|address| address.port() != 0 && !address.ip().is_unspecified());
    if address.is_none() {
        let message =
            "expected an IP address and a port such as 10.0.0.1:3456; Envoy takes no names here";
        problems.add(&format!("{key}.address"), message);
    }
    let sidecar = sidecar(&keys.sidecar.unwrap_or_default());
    if sidecar.as_ref().is_some_and(|sidecar| sidecar.to_string().starts_with("https:")) && !tls {
        let message = "an https sidecar must be known by its certificate: set tls.ca";
        problems.add(&format!("{key}.sidecar"), message);
    }
    if sidecar.is_none() {
        let message = "expected the sidecar's status listener: `http://HOST:PORT`, `https://HOST:PORT` or `unix:/PATH`";
        problems.add(&format!("{key}.sidecar"), message);
    }
    Some(Node { name: name.into(), address: address?, sidecar: sidecar? })
}

fn sidecar(url: &str) -> Option<Sidecar> {
    match Target::parse_url(url).ok()? {
        (Endpoint::Unix(path), _) => Some(Sidecar::Unix(path)),
        (Endpoint::Tcp { host, port }, tls) => {
            let scheme = if tls { "https" } else { "http" };
            Some(Sidecar::Url(format!("{scheme}://{}", Address::Tcp { host, port })))
        }
        (Endpoint::Published(_), _) => None,
    }
}

fn unique<T: Eq + Hash>(
    nodes: &[Node],
    what: &str,
    value: impl Fn(&Node) -> T,
    problems: &mut Problems<'_>,
) {
    let mut seen: HashMap<T, &str> = HashMap::new();
    for node in nodes {
        if let Some(other) = seen.insert(value(node), &node.name) {
            let key = format!("nodes.{}.{what}", node.name);
            problems.add(&key, format!("is that of `{other}` already"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "cluster: webapi\noutput: /run/hcf/webapi.eds.json\nnodes:\n  gw1: {address: 10.0.0.1:3456, sidecar: http://10.0.0.1:5293}\n  gw2: {address: '[::1]:3456', sidecar: unix:/run/hcf/status}\n";

    #[test]
    fn a_fleet_file_is_completed_with_defaults() {
        let fleet = Fleet::parse("f", GOOD).unwrap();
        assert_eq!((&*fleet.service, fleet.min_available), ("write", 0));
        assert_eq!(fleet.status.at, [Address::parse("127.0.0.1:5295").unwrap()]);
        let names: Vec<&str> = fleet.nodes.iter().map(|node| &*node.name).collect();
        assert_eq!(names, ["gw1", "gw2"]);
        assert_eq!(fleet.nodes[1].sidecar, Sidecar::Unix("/run/hcf/status".into()));
    }

    #[test]
    fn everything_wrong_is_named_with_its_place() {
        for (from, to, said) in [
            ("cluster: webapi\n", "", "f: cluster: must be set"),
            ("cluster: webapi", "cluster: ''", "f:1:10: cluster: must be set"),
            ("output: /", "output: ", "f:2:9: output: must be set: the absolute path"),
            ("nodes:", "min_available: 101\nnodes:", "f:3:16: min_available: 101 is out of range"),
            ("nodes:", "min_availible: 1\nnodes:", "f:3:1: min_availible: unknown key"),
            ("10.0.0.1:3456", "gw1:3456", "f:4:18: nodes.gw1.address: expected an IP address"),
            ("10.0.0.1:3456", "10.0.0.1:0", "nodes.gw1.address: expected an IP address"),
            ("'[::1]:3456'", "10.0.0.1:3456", "nodes.gw2.address: is that of `gw1` already"),
            ("unix:/run/hcf/status", "http://10.0.0.1:5293", "is that of `gw1` already"),
            ("http://10.0.0.1:5293", "https://10.0.0.1:5293", "set tls.ca"),
            ("nodes:", "tls: {cert: /c}\nnodes:", "f:3:6: tls: expected `cert` and `key` together"),
            ("nodes:", "tls: {cert: /c, key: /k}\nnodes:", "f:3:6: tls: expected `ca`"),
            ("http://10.0.0.1:5293", "http://10.0.0.1:5293/v1", "nodes.gw1.sidecar: expected"),
            ("  gw1:", "  g w1:", "nodes.g w1: a name has letters"),
            ("address: 10", "adress: 10", "nodes.gw1.adress: unknown key"),
            ("cluster", "service: 'a b'\ncluster", "f:1:10: service: a name has letters"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let error = Fleet::parse("f", &GOOD.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains(said), "{said}:\n{error}");
        }
        let error = Fleet::parse("f", "cluster: a\noutput: /b\nnodes: {}\n").unwrap_err();
        assert!(error.to_string().contains("f:3:8: nodes: must be set"), "{error}");
        let error = Fleet::parse("f", "cluster: a\noutput: /b\n").unwrap_err();
        assert!(error.to_string().contains("nodes: must be set"), "{error}");
    }
}
