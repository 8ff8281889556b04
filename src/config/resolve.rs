//! From a file's keys to a configuration: defaults, the node's directory, and the sense of it all.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::file::{
    Blessed, Criteria, Damping, File, Introducers, Latency, LogFormat, LogLevel, Say, Servers, Tls,
};
use super::positions::Positions;
use super::problem::Problems;
use super::units::{Addresses, OrOff, Size, Span, Whole};
use super::{
    Address, Config, ConfigError, Gate, Listen, Log, Node, Service, Shutdown, Sources, WhenBad,
    file,
};
use crate::health::{self, Criterion, Else, Floor, Rule, Rules, Weight};
use crate::tahoe::{DEFAULT_SHARES, NodeDir, Shares, Target, Trust};

const DEFAULT_URL: &str = "http://127.0.0.1:3456";
const DAY: Duration = Duration::from_hours(24);

/// The services that exist without being named.
const READ: &str = "read";
const WRITE: &str = "write";

pub(super) fn resolve(
    name: &str,
    text: &str,
    positions: &Positions,
    file: File,
    sources: &Sources,
) -> Result<Config, ConfigError> {
    let mut overridden = Vec::new();
    let file = overlay(file, sources, &mut overridden);
    let mut resolver = Resolver {
        problems: Problems::new(positions, &overridden),
        warnings: Vec::new(),
        effective: file.clone(),
    };
    let config = resolver.config(&file);
    let Resolver { problems, warnings, effective } = resolver;
    match config {
        Some(config) if problems.is_empty() => Ok(Config { warnings, effective, ..config }),
        _ => Err(problems.into_error(name, text)),
    }
}

/// Lays what the command line and the environment say over the file.
fn overlay(
    mut file: File,
    sources: &Sources,
    overridden: &mut Vec<(&'static str, &'static str)>,
) -> File {
    fn set<T: Clone>(
        slot: &mut Option<T>,
        value: Option<&T>,
        names: (&'static str, &'static str),
        overridden: &mut Vec<(&'static str, &'static str)>,
    ) {
        if let Some(value) = value {
            *slot = Some(value.clone());
            overridden.push(names);
        }
    }
    let node = &mut file.node;
    set(&mut node.dir, sources.node_dir.as_ref(), ("node.dir", "--node-dir"), overridden);
    set(&mut node.url, sources.node.as_ref(), ("node.url", "--node"), overridden);
    let listen = &mut file.listen;
    set(&mut listen.agent, sources.agent.as_ref(), ("listen.agent", "--agent"), overridden);
    set(&mut listen.health, sources.health.as_ref(), ("listen.health", "--health"), overridden);
    set(&mut listen.status, sources.status.as_ref(), ("listen.status", "--status"), overridden);
    file
}

struct Resolver<'a> {
    problems: Problems<'a>,
    warnings: Vec<String>,
    effective: File,
}

impl Resolver<'_> {
    fn config(&mut self, file: &File) -> Option<Config> {
        let node = self.node(&file.node);
        let listen = self.listen(&file.listen);
        let log = Log {
            level: file.log.level.unwrap_or(LogLevel::Info),
            format: file.log.format.unwrap_or(LogFormat::Auto),
        };
        self.effective.log = file::Log { level: Some(log.level), format: Some(log.format) };
        let shutdown = self.shutdown(&file.shutdown);
        let damping = self.damping("damping", &file.damping, DEFAULT_DAMPING);
        let ramp = self.span("ramp", file.ramp, Span::secs(0), Duration::ZERO..=DAY);
        self.effective.damping = show_damping(damping);
        self.effective.ramp = Some(Span(ramp));
        let (dir, freshness) = match &node {
            Some(node) => (node.dir.as_ref(), node.freshness()),
            None => (None, Duration::ZERO),
        };
        let shares = dir.map(|dir| dir.shares);
        let base = Base { shares, damping, ramp, freshness };
        let services = self.services(&file.services, &base);
        let default_service: Arc<str> = file.default_service.as_deref().unwrap_or(WRITE).into();
        self.effective.default_service = Some(default_service.to_string());
        if services.is_empty() {
            self.problems.add("services", "every service is off; leave at least one");
        } else if !services.iter().any(|service| service.name == default_service) {
            let names: Vec<&str> = services.iter().map(|service| &*service.name).collect();
            self.problems.add(
                "default_service",
                format!(
                    "there is no service `{default_service}`; expected one of {}",
                    names.join(", ")
                ),
            );
        }
        let gates = self.gates(&file.gates, &services, &default_service);
        if let Some(node) = &node
            && node.target.trust.is_some()
        {
            self.gates_to_tls(&gates);
        }
        Some(Config {
            node: node?,
            services,
            default_service,
            listen,
            gates,
            log,
            shutdown,
            warnings: Vec::new(),
            effective: File::default(),
        })
    }

    fn node(&mut self, file: &file::Node) -> Option<Node> {
        let every = Duration::from_millis(20)..=Duration::from_hours(1);
        let every = self.span("node.every", file.every, Span::secs(1), every);
        let timeout = Duration::from_millis(10)..=Duration::from_mins(5);
        let timeout = self.span("node.timeout", file.timeout, Span::secs(2), timeout);
        self.effective.node.every = Some(Span(every));
        self.effective.node.timeout = Some(Span(timeout));
        let dir = match file.dir.as_deref().map(NodeDir::read) {
            Some(Err(e)) => {
                self.problems.add("node.dir", e.to_string());
                return None;
            }
            Some(Ok(dir)) => Some(dir),
            None => None,
        };
        let trust = file.tls.as_ref().and_then(|tls| self.trust(tls));
        let from_dir = dir.as_ref().filter(|_| file.url.is_none());
        let target = match from_dir.map(|dir| (dir, &dir.web)) {
            Some((dir, Err(why))) => {
                let dir = dir.path.display();
                self.problems.add("node.dir", format!("{dir}: {why}; or set node.url"));
                return None;
            }
            Some((_, Ok(target))) => {
                if target.trust.is_none() && file.tls.is_some() {
                    self.problems.add("node.tls", "the node's web.port is not an ssl one");
                }
                let trust = if target.trust.is_some() {
                    trust.or_else(|| target.trust.clone())
                } else {
                    None
                };
                Target { trust, ..target.clone() }
            }
            None => {
                let url = file.url.as_deref().unwrap_or(DEFAULT_URL);
                let own = dir.as_ref().and_then(|dir| dir.web.as_ref().ok());
                self.target(url, file, trust, own.and_then(|own| own.trust.clone()))?
            }
        };
        if target.trust.is_some() && cfg!(not(feature = "tls")) {
            self.problems
                .add("node.url", "an https node needs an hcf built with its feature `tls`");
        }
        // Written out, a URL would beat what the directory says later.
        if from_dir.is_none() {
            self.effective.node.url = Some(target.to_string());
        }
        Some(Node { overridden: from_dir.is_none(), target, dir, every, timeout })
    }

    fn target(
        &mut self,
        url: &str,
        file: &file::Node,
        trust: Option<Trust>,
        own: Option<Trust>,
    ) -> Option<Target> {
        match Target::parse_url(url) {
            Err(why) => {
                self.problems.add("node.url", format!("`{url}`: {why}"));
                None
            }
            Ok((endpoint, true)) => {
                let trust = trust.or(own);
                if trust.is_none() && file.tls.is_none() {
                    self.problems.add(
                        "node.url",
                        "an https node must be known by its certificate: set node.tls.ca or \
                         node.tls.pin to a PEM file",
                    );
                }
                Some(Target { endpoint, trust })
            }
            Ok((endpoint, false)) => {
                if file.tls.is_some() {
                    self.problems.add("node.tls", "the node's URL is not https");
                }
                Some(Target { endpoint, trust: None })
            }
        }
    }

    fn trust(&mut self, tls: &Tls) -> Option<Trust> {
        let (key, path, trust) = match (&tls.ca, &tls.pin) {
            (Some(ca), None) => ("node.tls.ca", ca, Trust::Ca(ca.clone())),
            (None, Some(pin)) => ("node.tls.pin", pin, Trust::Pin(pin.clone())),
            _ => {
                self.problems.add("node.tls", "expected either `ca` or `pin`, with a PEM file");
                return None;
            }
        };
        if let Err(e) = std::fs::File::open(path) {
            self.problems.add(key, format!("cannot read {}: {e}", path.display()));
        }
        Some(trust)
    }

    fn listen(&mut self, file: &file::Listen) -> Listen {
        let resolve = |addresses: &Option<Addresses>, port| {
            let local = Address::Tcp { host: "127.0.0.1".to_owned(), port };
            addresses.clone().unwrap_or_else(|| Addresses(vec![local]))
        };
        let agent = resolve(&file.agent, 5290);
        let health = resolve(&file.health, 5291);
        let status = resolve(&file.status, 5293);
        self.effective.listen = file::Listen {
            agent: Some(agent.clone()),
            health: Some(health.clone()),
            status: Some(status.clone()),
        };
        let mut seen: BTreeMap<String, &str> = BTreeMap::new();
        let listeners = [("agent", &agent), ("health", &health), ("status", &status)];
        for (name, addresses) in listeners {
            for address in &addresses.0 {
                let key = format!("listen.{name}");
                let any_port = matches!(address, Address::Tcp { port: 0, .. });
                if let Some(other) = seen.insert(address.to_string(), name)
                    && !any_port
                {
                    let message = format!("{address} is taken by listen.{other} already");
                    self.problems.add(&key, message);
                }
                if !address.is_local() {
                    let who = if name == "status" {
                        "and it shows the grid's topology"
                    } else {
                        "see that only balancers can reach it"
                    };
                    self.warnings
                        .push(format!("{key}: anybody who reaches {address} may ask there, {who}"));
                }
            }
        }
        Listen { agent: agent.0, health: health.0, status: status.0 }
    }

    fn gates(
        &mut self,
        file: &BTreeMap<String, file::Gate>,
        services: &[Service],
        default_service: &Arc<str>,
    ) -> Vec<Gate> {
        let mut gates = Vec::new();
        for (name, gate) in file {
            let key = format!("gates.{name}");
            if !is_word(name) {
                self.problems.add(&key, NOT_A_WORD);
            }
            let listen = gate.listen.clone().unwrap_or(Addresses(Vec::new()));
            if listen.0.is_empty() {
                self.problems.add(&key, "expected `listen`, such as `{listen: 0.0.0.0:3455}`");
            }
            let service: Arc<str> = match &gate.service {
                Some(service) => service.as_str().into(),
                None => Arc::clone(default_service),
            };
            if !services.iter().any(|known| known.name == service) {
                let message = format!("there is no service `{service}`");
                self.problems.add(&format!("{key}.service"), message);
            }
            let when_bad = gate.when_bad.unwrap_or(WhenBad::Close);
            let hour = Duration::ZERO..=Duration::from_hours(1);
            let drain =
                self.span(&format!("{key}.drain"), gate.drain, Span::secs(10), hour.clone());
            let wait = Duration::from_secs(1)..=Duration::from_hours(1);
            let retry =
                self.span(&format!("{key}.retry_after"), gate.retry_after, Span::secs(5), wait);
            let most = format!("{key}.max_connections");
            let most = self.whole(&most, gate.max_connections, 4096, 1..=1_000_000);
            let shown = file::Gate {
                listen: Some(listen.clone()),
                service: Some(service.to_string()),
                when_bad: Some(when_bad),
                drain: Some(Span(drain)),
                max_connections: Some(Whole(most)),
                retry_after: Some(Span(retry)),
            };
            self.effective.gates.insert(name.clone(), shown);
            gates.push(Gate {
                name: name.as_str().into(),
                listen: listen.0,
                service,
                when_bad,
                drain,
                max_connections: usize::try_from(most).unwrap_or(4096),
                retry_after: retry,
            });
        }
        gates
    }

    /// A gate that reads requests cannot read what is encrypted for the node.
    fn gates_to_tls(&mut self, gates: &[Gate]) {
        for gate in gates {
            if matches!(gate.when_bad, WhenBad::RefuseUri | WhenBad::RefuseWrites) {
                self.problems.add(
                    &format!("gates.{}.when_bad", gate.name),
                    "the node speaks TLS, so its requests cannot be read; expected `close` or `pass`",
                );
            }
        }
    }

    fn shutdown(&mut self, file: &file::Shutdown) -> Shutdown {
        let hour = Duration::ZERO..=Duration::from_hours(1);
        let say = file.say.unwrap_or(Say::Drain);
        let announce = self.span("shutdown.announce", file.announce, Span::secs(3), hour.clone());
        let timeout = self.span("shutdown.timeout", file.timeout, Span::secs(10), hour);
        self.effective.shutdown = file::Shutdown {
            say: Some(say),
            announce: Some(Span(announce)),
            timeout: Some(Span(timeout)),
        };
        Shutdown { say, announce, timeout }
    }

    fn services(
        &mut self,
        file: &BTreeMap<String, OrOff<file::Service>>,
        base: &Base,
    ) -> Vec<Service> {
        let mut named = file.clone();
        for builtin in [READ, WRITE] {
            named.entry(builtin.to_owned()).or_insert_with(|| OrOff::On(file::Service::default()));
        }
        let mut services = Vec::new();
        for (name, service) in named {
            if !is_word(&name) {
                self.problems.add(&format!("services.{name}"), NOT_A_WORD);
                continue;
            }
            match service {
                OrOff::Off => {
                    self.effective.services.insert(name, OrOff::Off);
                }
                OrOff::On(service) => services.push(self.service(&name, &service, base)),
            }
        }
        services
    }

    fn service(&mut self, name: &str, file: &file::Service, base: &Base) -> Service {
        let key = format!("services.{name}");
        let mut shown = file.clone();
        let criteria = self.criteria(name, &file.criteria, base, &mut shown.criteria);
        let degraded =
            self.whole(&format!("{key}.degraded_weight"), file.degraded_weight, 50, 1..=100);
        let maxconn = file.maxconn.and_then(|maxconn| {
            let maxconn = self.whole(&format!("{key}.maxconn"), Some(maxconn), 1, 1..=10_000_000);
            NonZeroU32::new(u32::try_from(maxconn).ok()?)
        });
        let damping = match &file.damping {
            Some(damping) => self.damping(&format!("{key}.damping"), damping, base.damping),
            None => base.damping,
        };
        let ramp =
            self.span(&format!("{key}.ramp"), file.ramp, Span(base.ramp), Duration::ZERO..=DAY);
        shown.degraded_weight = Some(Whole(degraded));
        shown.damping = file.damping.as_ref().map(|_| show_damping(damping));
        shown.ramp = file.ramp.map(|_| Span(ramp));
        self.effective.services.insert(name.to_owned(), OrOff::On(shown));
        Service {
            name: name.into(),
            rules: Rules {
                criteria,
                damping,
                ramp,
                degraded_weight: Weight::clamped(degraded),
                freshness: base.freshness,
            },
            maxconn,
        }
    }

    fn criteria(
        &mut self,
        name: &str,
        file: &Criteria,
        base: &Base,
        shown: &mut Criteria,
    ) -> Vec<Criterion> {
        let key = format!("services.{name}.criteria");
        let builtin = matches!(name, READ | WRITE);
        let mut criteria = Vec::new();
        if let Some(servers) = section(file.servers.as_ref(), builtin) {
            let (criterion, filled) = self.servers(&key, name, &servers, base);
            criteria.push(criterion);
            shown.servers = Some(OrOff::On(filled));
        }
        if let Some(introducers) = section(file.introducers.as_ref(), builtin) {
            let (criterion, filled) = self.introducers(&key, &introducers);
            criteria.push(criterion);
            shown.introducers = Some(OrOff::On(filled));
        }
        if let Some(blessed) = section(file.blessed.as_ref(), false) {
            let found = self.blessed(&key, &blessed);
            if let Some(Criterion { rule: Rule::Blessed { min, .. }, otherwise }) = &found {
                let (min, otherwise) = (Some(Whole(min.get() as u64)), Some(*otherwise));
                shown.blessed = Some(OrOff::On(Blessed { min, otherwise, ..blessed }));
            }
            criteria.extend(found);
        }
        if let Some(latency) = section(file.latency.as_ref(), false) {
            let found = self.latency(&key, &latency);
            let otherwise = found.as_ref().map(|found| found.otherwise);
            shown.latency = Some(OrOff::On(Latency { otherwise, ..latency }));
            criteria.extend(found);
        }
        criteria
    }

    fn servers(
        &mut self,
        key: &str,
        name: &str,
        file: &Servers,
        base: &Base,
    ) -> (Criterion, Servers) {
        let min_key = format!("{key}.servers.min");
        let shares = base.shares.unwrap_or(DEFAULT_SHARES);
        let default = if name == READ { shares.needed } else { shares.happy };
        let min = self.whole(&min_key, file.min, default.get().into(), 1..=1_000_000);
        let guessed = (file.min.is_none() && base.shares.is_none()).then(|| min_key.clone());
        if guessed.is_some() {
            self.warnings.push(format!(
                "{min_key}: {min} is a guess, Tahoe-LAFS's own default; set it, or node.dir"
            ));
        }
        let min_space = file.min_space.unwrap_or_else(|| Size(u64::from(name == WRITE)));
        let silence = file.last_heard_max.map(|silence| {
            let bounds = Duration::from_secs(1)..=DAY;
            self.span(&format!("{key}.servers.last_heard_max"), Some(silence), silence, bounds)
        });
        let otherwise = file.otherwise.unwrap_or(Else::Down);
        let count =
            usize::try_from(min).ok().and_then(NonZeroUsize::new).unwrap_or(NonZeroUsize::MIN);
        let shown = Servers {
            min: Some(Whole(min)),
            min_space: Some(min_space),
            last_heard_max: file.last_heard_max,
            otherwise: Some(otherwise),
        };
        let rule = Rule::Servers { min: Floor { count, guessed }, min_space: min_space.0, silence };
        (Criterion { rule, otherwise }, shown)
    }

    fn introducers(&mut self, key: &str, file: &Introducers) -> (Criterion, Introducers) {
        if file.min.is_some() && file.all.is_some() {
            let message = "expected either `min` or `all`, not both";
            self.problems.add(&format!("{key}.introducers"), message);
        }
        let min = self.whole(&format!("{key}.introducers.min"), file.min, 1, 1..=1000);
        let min = usize::try_from(min).ok().and_then(NonZeroUsize::new);
        let all = file.all == Some(true);
        let otherwise = file.otherwise.unwrap_or(Else::Warn);
        let shown = Introducers {
            min: min.filter(|_| !all).map(|min| Whole(min.get() as u64)),
            all: all.then_some(true),
            otherwise: Some(otherwise),
        };
        let rule = Rule::Introducers { min: min.filter(|_| !all) };
        (Criterion { rule, otherwise }, shown)
    }

    fn blessed(&mut self, key: &str, file: &Blessed) -> Option<Criterion> {
        let key = format!("{key}.blessed");
        let (mut ids, source) = match (&file.ids, &file.file) {
            (Some(ids), None) => (ids.clone(), format!("{key}.ids")),
            (None, Some(path)) => {
                let source = format!("{key}.file");
                match read_ids(path) {
                    Ok(ids) => (ids, source),
                    Err(why) => {
                        self.problems.add(&source, why);
                        return None;
                    }
                }
            }
            _ => {
                self.problems.add(&key, "expected either `ids` or `file`");
                return None;
            }
        };
        for (n, id) in ids.iter().enumerate() {
            if id.is_empty() || id.contains(|c: char| !c.is_ascii_graphic()) {
                let message = "a server's id is one word, such as `v0-…` of the status page";
                let at = if file.ids.is_some() { format!("{source}[{n}]") } else { source.clone() };
                self.problems.add(&at, message);
            }
        }
        ids.sort_unstable();
        ids.dedup();
        if ids.is_empty() {
            self.problems.add(&source, "no id; expected at least one");
            return None;
        }
        let all = ids.len() as u64;
        let min = self.whole(&format!("{key}.min"), file.min, all, 1..=all);
        let min = usize::try_from(min).ok().and_then(NonZeroUsize::new)?;
        let ids = ids.into_iter().map(String::into_boxed_str).collect();
        let otherwise = file.otherwise.unwrap_or(Else::Down);
        Some(Criterion { rule: Rule::Blessed { ids, min }, otherwise })
    }

    fn latency(&mut self, key: &str, file: &Latency) -> Option<Criterion> {
        let key = format!("{key}.latency");
        let Some(max) = file.max else {
            self.problems.add(&key, "expected `max`, such as `{max: 1s}`");
            return None;
        };
        let bounds = Duration::from_millis(1)..=Duration::from_mins(5);
        let max = self.span(&format!("{key}.max"), Some(max), max, bounds);
        let otherwise = file.otherwise.unwrap_or(Else::Down);
        Some(Criterion { rule: Rule::Latency { max }, otherwise })
    }

    fn damping(&mut self, key: &str, file: &Damping, default: health::Damping) -> health::Damping {
        let mut count = |name: &str, value, default: NonZeroU32| {
            let n = self.whole(&format!("{key}.{name}"), value, default.get().into(), 1..=1000);
            u32::try_from(n).ok().and_then(NonZeroU32::new).unwrap_or(default)
        };
        let rise = count("rise", file.rise, default.rise);
        let fall = count("fall", file.fall, default.fall);
        let hold = Span(default.hold);
        let hold = self.span(&format!("{key}.hold"), file.hold, hold, Duration::ZERO..=DAY);
        health::Damping { rise, fall, hold }
    }

    /// A duration within bounds, or a problem and the default.
    fn span(
        &mut self,
        key: &str,
        value: Option<Span>,
        default: Span,
        bounds: std::ops::RangeInclusive<Duration>,
    ) -> Duration {
        let span = value.unwrap_or(default);
        if !bounds.contains(&span.0) {
            let (least, most) = (Span(*bounds.start()), Span(*bounds.end()));
            self.problems.add(key, format!("{span} is out of range, expected {least} to {most}"));
            return *bounds.start();
        }
        span.0
    }

    /// A number within bounds, or a problem and the least one.
    fn whole(
        &mut self,
        key: &str,
        value: Option<Whole>,
        default: u64,
        bounds: std::ops::RangeInclusive<u64>,
    ) -> u64 {
        let n = value.map_or(default, |Whole(n)| n);
        if bounds.contains(&n) {
            return n;
        }
        let (least, most) = (bounds.start(), bounds.end());
        self.problems.add(key, format!("{n} is out of range, expected {least} to {most}"));
        *least
    }
}

const NOT_A_WORD: &str = "a name has letters, digits, `-`, `_` and `.`, at most 64";

/// Whether a name can stand in a question, a path and a metric's label.
fn is_word(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
}

/// What services share.
struct Base {
    shares: Option<Shares>,
    damping: health::Damping,
    ramp: Duration,
    freshness: Duration,
}

const DEFAULT_DAMPING: health::Damping = {
    const fn count(n: u32) -> NonZeroU32 {
        match NonZeroU32::new(n) {
            Some(count) => count,
            None => NonZeroU32::MIN,
        }
    }
    health::Damping { rise: count(2), fall: count(3), hold: Duration::ZERO }
};

/// The section of a criterion: what the file says, or an empty one for a criterion that is built in.
fn section<T: Clone + Default>(file: Option<&OrOff<T>>, builtin: bool) -> Option<T> {
    match file {
        Some(OrOff::On(section)) => Some(section.clone()),
        Some(OrOff::Off) => None,
        None => builtin.then(T::default),
    }
}

fn show_damping(damping: health::Damping) -> Damping {
    Damping {
        rise: Some(Whole(damping.rise.get().into())),
        fall: Some(Whole(damping.fall.get().into())),
        hold: Some(Span(damping.hold)),
    }
}

/// One id a line; `#` starts a comment.
fn read_ids(path: &Path) -> Result<Vec<String>, String> {
    let bytes = super::read(path).map_err(|why| format!("{}: {why}", path.display()))?;
    if bytes.len() as u64 > super::FILE_LIMIT {
        return Err(format!("{} is larger than 1 MiB", path.display()));
    }
    let text = String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8", path.display()))?;
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    Ok(lines.filter(|line| !line.is_empty()).map(str::to_owned).collect())
}
