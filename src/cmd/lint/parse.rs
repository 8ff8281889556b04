//! Reads as much of a haproxy.cfg as the rules need: sections, what they inherit, and servers.

/// What a health check asks of the other side.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Probe {
    /// Only that a connection opens.
    #[default]
    Connect,
    /// An HTTP request to this path.
    Http(String),
    /// Some other exchange that wants an answer.
    Other,
}

/// The settings of a `server` or `default-server` line.
#[expect(clippy::struct_excessive_bools, reason = "each is a keyword that the line has or has not")]
#[derive(Debug, Clone, Default)]
pub(super) struct Server {
    pub(super) line: usize,
    pub(super) name: String,
    /// The port of the server's own address.
    pub(super) own_port: String,
    pub(super) agent: bool,
    /// `agent-check` stands on the `server` line itself.
    pub(super) inline: bool,
    pub(super) agent_port: Option<String>,
    pub(super) agent_send: Option<String>,
    /// Microseconds.
    pub(super) agent_inter: Option<u64>,
    pub(super) weight: Option<u32>,
    pub(super) check: bool,
    pub(super) port: Option<String>,
    pub(super) track: Option<String>,
    pub(super) disabled: bool,
    pub(super) init_state: bool,
}

/// A section that may hold servers, or the `defaults` that such a section starts from.
#[derive(Debug, Clone, Default)]
pub(super) struct Proxy {
    pub(super) line: usize,
    pub(super) name: String,
    is_defaults: bool,
    /// Where `balance` stands, and the algorithm without its argument.
    pub(super) balance: Option<(usize, String)>,
    pub(super) consistent: bool,
    /// Microseconds.
    pub(super) timeout_check: Option<u64>,
    pub(super) probe: Probe,
    pub(super) has_default_server: bool,
    defaults: Server,
    pub(super) servers: Vec<Server>,
}

/// The file as the rules see it.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) proxies: Vec<Proxy>,
    /// Each `srv_is_up(…)`: the line, the section it stands in, what is in the brackets.
    pub(super) is_up: Vec<(usize, String, String)>,
    /// Lines with `retry-on … 410`.
    pub(super) retry_gone: Vec<usize>,
}

impl File {
    /// The server that `be/srv`, or `srv` within `here`, names, and its section.
    pub(super) fn find(&self, path: &str, here: &str) -> Option<(&Proxy, &Server)> {
        let (proxy, server) = path.split_once('/').unwrap_or((here, path));
        let proxy = self.proxies.iter().find(|p| !p.is_defaults && p.name == proxy)?;
        Some((proxy, proxy.servers.iter().find(|s| s.name == server)?))
    }
}

/// Keywords of a server line whose next word is a value, which may itself look like a keyword.
const WITH_VALUE: &[&str] = &[
    "addr",
    "agent-addr",
    "alpn",
    "ca-file",
    "check-alpn",
    "check-proto",
    "check-sni",
    "ciphers",
    "cookie",
    "crl-file",
    "crt",
    "downinter",
    "error-limit",
    "fall",
    "fastinter",
    "guid",
    "hash-key",
    "id",
    "init-addr",
    "inter",
    "log-bufsize",
    "maxconn",
    "maxqueue",
    "minconn",
    "namespace",
    "observe",
    "on-error",
    "on-marked-down",
    "on-marked-up",
    "pool-low-conn",
    "pool-max-conn",
    "pool-purge-delay",
    "proto",
    "redir",
    "resolve-net",
    "resolve-opts",
    "resolve-prefer",
    "resolvers",
    "rise",
    "shard",
    "slowstart",
    "sni",
    "socks4",
    "source",
    "ssl-max-ver",
    "ssl-min-ver",
    "tcp-ut",
    "verify",
    "verifyhost",
    "ws",
];

/// Sections without servers that traffic goes to; `peers` and `ring` have `server` lines of another kind.
const OTHER_SECTIONS: &[&str] = &[
    "acme",
    "cache",
    "crt-store",
    "fcgi-app",
    "global",
    "http-errors",
    "log-forward",
    "log-profile",
    "mailers",
    "peers",
    "program",
    "resolvers",
    "ring",
    "traces",
    "userlist",
];

pub(super) fn parse(text: &str) -> File {
    let mut file = File::default();
    let mut current: Option<usize> = None;
    for (index, raw) in text.lines().enumerate() {
        let line = index + 1;
        let words = split(raw);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let Some(first) = words.first().copied() else { continue };
        if matches!(first, "defaults" | "frontend" | "backend" | "listen") {
            let proxy = open(&file.proxies, line, &words);
            current = Some(file.proxies.len());
            file.proxies.push(proxy);
            continue;
        }
        if OTHER_SECTIONS.contains(&first) {
            current = None;
        }
        let Some(proxy) = current.and_then(|at| file.proxies.get_mut(at)) else { continue };
        for word in &words {
            for rest in word.split("srv_is_up(").skip(1) {
                let inside = rest.split(')').next().unwrap_or_default();
                file.is_up.push((line, proxy.name.clone(), inside.trim().to_owned()));
            }
        }
        if first == "retry-on" && words.contains(&"410") {
            file.retry_gone.push(line);
        }
        proxy.setting(line, &words);
    }
    file
}

/// Starts a section from the `defaults` that it names, else from the last ones.
fn open(proxies: &[Proxy], line: usize, words: &[&str]) -> Proxy {
    let is_defaults = words.first() == Some(&"defaults");
    let from = words.iter().position(|w| *w == "from").and_then(|at| words.get(at + 1));
    let base = match from {
        Some(name) => proxies.iter().rev().find(|p| p.is_defaults && p.name == *name),
        None if is_defaults => None,
        None => proxies.iter().rev().find(|p| p.is_defaults),
    };
    let name = words.get(1).filter(|w| **w != "from").copied().unwrap_or_default().to_owned();
    Proxy { line, name, is_defaults, servers: Vec::new(), ..base.cloned().unwrap_or_default() }
}

impl Proxy {
    fn setting(&mut self, line: usize, words: &[&str]) {
        match words {
            ["balance", algorithm, ..] => {
                let name = algorithm.split('(').next().unwrap_or_default();
                self.balance = Some((line, name.to_owned()));
            }
            ["hash-type", kind, ..] => self.consistent = *kind == "consistent",
            ["timeout", "check", time, ..] => {
                // A time out of the environment cannot be judged, and is taken to be long enough.
                self.timeout_check = micros(time).or(Some(u64::MAX));
            }
            ["option", "httpchk", rest @ ..] => {
                // One word is the path; with more, the first is the method.
                let path = if rest.len() > 1 { rest.get(1) } else { rest.first() };
                self.probe = Probe::Http((*path.unwrap_or(&"/")).to_owned());
            }
            // Its own exchange, if it has one, stands on the tcp-check lines.
            ["option", "tcp-check", ..] | ["no", "option", "httpchk", ..] => {
                self.probe = Probe::Connect;
            }
            ["option", name, ..] if name.ends_with("-check") || *name == "smtpchk" => {
                if matches!(
                    *name,
                    "ldap-check"
                        | "mysql-check"
                        | "pgsql-check"
                        | "redis-check"
                        | "smtpchk"
                        | "ssl-hello-chk"
                        | "spop-check"
                        | "external-check"
                ) {
                    self.probe = Probe::Other;
                }
            }
            ["tcp-check", "expect", ..] => self.probe = Probe::Other,
            ["http-check", "send", rest @ ..] => {
                let uri = rest.iter().position(|w| *w == "uri").and_then(|at| rest.get(at + 1));
                if let (Probe::Http(path), Some(uri)) = (&mut self.probe, uri) {
                    (*uri).clone_into(path);
                }
            }
            ["default-server", rest @ ..] => {
                self.has_default_server = true;
                self.defaults.keywords(rest);
            }
            ["server", name, address, rest @ ..]
            | ["server-template", name, _, address, rest @ ..] => {
                let mut server = Server {
                    line,
                    name: (*name).to_owned(),
                    own_port: address.rsplit(':').next().unwrap_or_default().to_owned(),
                    ..self.defaults.clone()
                };
                server.keywords(rest);
                server.inline = rest.contains(&"agent-check");
                self.servers.push(server);
            }
            _ => {}
        }
    }
}

impl Server {
    fn keywords(&mut self, words: &[&str]) {
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().map(|w| (*w).to_owned());
            match *word {
                "agent-check" => self.agent = true,
                "no-agent-check" => self.agent = false,
                "agent-port" => self.agent_port = value(),
                "agent-send" => self.agent_send = value(),
                "agent-inter" => self.agent_inter = value().and_then(|w| micros(&w)),
                // Likewise one out of the environment.
                "weight" => self.weight = value().map(|w| w.parse().unwrap_or(100)),
                "check" => self.check = true,
                "no-check" => self.check = false,
                "port" => self.port = value(),
                "track" => self.track = value(),
                "disabled" => self.disabled = true,
                "enabled" => self.disabled = false,
                "init-state" => {
                    self.init_state = value().is_some_and(|w| w.ends_with("down"));
                }
                other if WITH_VALUE.contains(&other) => {
                    value();
                }
                _ => {}
            }
        }
    }

    /// The port that the health check connects to.
    pub(super) fn check_port(&self) -> &str {
        self.port.as_deref().unwrap_or(&self.own_port)
    }

    /// An option of the question in `agent-send`: its words after the first are `key=value`.
    pub(super) fn option(&self, key: &str) -> Option<&str> {
        let question = self.agent_send.as_deref()?;
        let mut options = question.split_ascii_whitespace().skip(1);
        options.find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }
}

/// `HAProxy`'s times: a number with a unit, milliseconds without one. Microseconds, or nothing for no time.
pub(super) fn micros(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "us" => 1,
        "" | "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok().map(|n| n.saturating_mul(factor))
}

/// Splits a line into words as `HAProxy` does: quotes, backslashes, and `#` for the rest of the line.
fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (_, Some(open)) if c == open => quote = None,
            (_, Some('\'')) => word.get_or_insert_default().push(c),
            ('\\', _) => {
                let escaped = match chars.next() {
                    // The end of a question and the space between its words mean the same to the rules.
                    Some('n' | 'r' | 't') => ' ',
                    Some(other) => other,
                    None => '\\',
                };
                word.get_or_insert_default().push(escaped);
            }
            ('#', None) => break,
            (' ' | '\t', None) => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}
