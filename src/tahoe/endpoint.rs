//! Where a gateway's web port is: the forms of `web.port` in `tahoe.cfg`, and of a URL.
//!
//! `web.port` is a Twisted server endpoint: `kind:arg:key=value…`, with `\` before a colon, an equals
//! sign or a backslash that is meant literally. A bare number means `tcp:NUMBER`.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Where to connect, and whom to trust there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where the node listens.
    pub endpoint: Endpoint,
    /// For an https node: by what to know its certificate.
    pub trust: Option<Trust>,
}

/// A place that can be connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A TCP port; `host` is a name or an address without brackets.
    Tcp {
        /// The host.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix socket.
    Unix(PathBuf),
    /// A port that the node chooses at each start and writes into this file (`tcp:0`).
    Published(PathBuf),
}

/// By what a node's certificate is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It is signed by one of the authorities in this PEM file, for the host's name.
    Ca(PathBuf),
    /// It is exactly the first certificate in this PEM file.
    Pin(PathBuf),
}

impl Target {
    /// Reads `http://host:port`, `https://host:port` or `unix:/path`; the trust is left open.
    ///
    /// # Errors
    ///
    /// A sentence that says what is wrong, and what was expected.
    pub fn parse_url(url: &str) -> Result<(Endpoint, bool), String> {
        const EXPECTED: &str = "expected `http://HOST:PORT`, `https://HOST:PORT` or `unix:/PATH`";
        if let Some(path) = url.strip_prefix("unix:") {
            return if path.starts_with('/') {
                Ok((Endpoint::Unix(path.into()), false))
            } else {
                Err(format!("the path of a Unix socket must be absolute; {EXPECTED}"))
            };
        }
        let uri: hyper::Uri = url.parse().map_err(|_| format!("not a URL; {EXPECTED}"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(format!("neither http nor https; {EXPECTED}")),
        };
        let authority = uri.authority().map_or("", hyper::http::uri::Authority::as_str);
        if authority.contains('@') {
            return Err(format!("a user name has no place here; {EXPECTED}"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(format!("a path has no place here, a gateway serves at /; {EXPECTED}"));
        }
        let host = uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        if host.is_empty() || port == 0 {
            return Err(format!("no host, or port 0; {EXPECTED}"));
        }
        Ok((Endpoint::Tcp { host, port }, tls))
    }

    /// Reads the `web.port` of the node in `dir`.
    ///
    /// # Errors
    ///
    /// A sentence that says why no gateway can be asked there, and what to do.
    pub fn parse_web_port(value: &str, dir: &Path) -> Result<Self, String> {
        let fields = split(value.trim());
        let mut fields = fields.iter().map(String::as_str);
        let kind = fields.next().unwrap_or_default();
        let bare = !kind.is_empty() && kind.bytes().all(|b| b.is_ascii_digit());
        let mut positional = Vec::new();
        let mut named = Vec::new();
        for field in bare.then_some(kind).into_iter().chain(fields) {
            match field.split_once('=') {
                Some((key, value)) => named.push((key, value)),
                None => positional.push(field),
            }
        }
        let find = |key: &str| named.iter().find(|(k, _)| *k == key).map(|(_, value)| *value);
        let first = |key: &str| positional.first().copied().or_else(|| find(key));
        let kind = if bare { "tcp" } else { kind };
        match kind {
            "" | "none" => Err("the node has no web port".to_owned()),
            "tcp" | "tcp6" | "tcp4" | "ssl" => {
                let port = first("port").unwrap_or_default();
                let port: u16 =
                    port.parse().map_err(|_| format!("`{port}` is not a port number"))?;
                let trust = if kind == "ssl" {
                    let key = find("privateKey").unwrap_or("server.pem");
                    let certificate = find("certKey").unwrap_or(key);
                    Some(Trust::Pin(dir.join(certificate)))
                } else {
                    None
                };
                let endpoint = if port == 0 {
                    Endpoint::Published(dir.join("node.url"))
                } else {
                    let host = reachable(find("interface").unwrap_or_default(), kind == "tcp6");
                    Endpoint::Tcp { host, port }
                };
                Ok(Self { endpoint, trust })
            }
            "unix" => match first("address") {
                // A node runs in its own directory.
                Some(path) => Ok(Self { endpoint: Endpoint::Unix(dir.join(path)), trust: None }),
                None => Err("a unix endpoint without a path".to_owned()),
            },
            "haproxy" => Err(
                "the port wants the PROXY protocol; give the node a plain port and set node.url"
                    .to_owned(),
            ),
            other => Err(format!("the endpoint kind `{other}` is unknown; set node.url")),
        }
    }
}

/// The host at which something that listens on `interface` is reached from this machine.
fn reachable(interface: &str, v6: bool) -> String {
    match interface.parse::<IpAddr>() {
        Ok(IpAddr::V4(any)) if any.is_unspecified() => "127.0.0.1".to_owned(),
        Ok(IpAddr::V6(any)) if any.is_unspecified() => "::1".to_owned(),
        _ if interface.is_empty() && v6 => "::1".to_owned(),
        _ if interface.is_empty() => "127.0.0.1".to_owned(),
        _ => interface.to_owned(),
    }
}

/// Splits at colons, and takes backslashes away.
fn split(endpoint: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut chars = endpoint.chars();
    while let Some(c) = chars.next() {
        if c == ':' {
            fields.push(String::new());
        } else if let Some(last) = fields.last_mut() {
            last.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
        }
    }
    fields
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.endpoint {
            Endpoint::Tcp { host, port } => {
                let scheme = if self.trust.is_some() { "https" } else { "http" };
                if host.contains(':') {
                    write!(f, "{scheme}://[{host}]:{port}")
                } else {
                    write!(f, "{scheme}://{host}:{port}")
                }
            }
            Endpoint::Unix(path) => write!(f, "unix:{}", path.display()),
            Endpoint::Published(path) => write!(f, "the URL in {}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Endpoint {
        Endpoint::Tcp { host: host.to_owned(), port }
    }

    #[test]
    fn every_form_of_web_port_is_read() {
        let dir = Path::new("/node");
        let plain = |endpoint| Target { endpoint, trust: None };
        let pinned = |endpoint, pin: &str| Target { endpoint, trust: Some(Trust::Pin(pin.into())) };
        for (text, target) in [
            ("3456", plain(tcp("127.0.0.1", 3456))),
            ("tcp:3456", plain(tcp("127.0.0.1", 3456))),
            ("tcp:port=3456", plain(tcp("127.0.0.1", 3456))),
            ("tcp:3456:interface=127.0.0.1", plain(tcp("127.0.0.1", 3456))),
            ("tcp:3456:interface=0.0.0.0", plain(tcp("127.0.0.1", 3456))),
            ("tcp:interface=10.0.0.7:port=80", plain(tcp("10.0.0.7", 80))),
            (r"tcp6:3456:interface=\:\:1", plain(tcp("::1", 3456))),
            (r"tcp:3456:interface=\:\:", plain(tcp("::1", 3456))),
            ("tcp6:3456", plain(tcp("::1", 3456))),
            ("tcp:0", plain(Endpoint::Published("/node/node.url".into()))),
            ("unix:/run/web", plain(Endpoint::Unix("/run/web".into()))),
            ("unix:private/web.sock", plain(Endpoint::Unix("/node/private/web.sock".into()))),
            ("unix:address=/run/web:mode=600", plain(Endpoint::Unix("/run/web".into()))),
            (
                "ssl:3457:privateKey=private/key.pem:certKey=private/cert.pem:interface=127.0.0.1",
                pinned(tcp("127.0.0.1", 3457), "/node/private/cert.pem"),
            ),
            ("ssl:3457:privateKey=both.pem", pinned(tcp("127.0.0.1", 3457), "/node/both.pem")),
        ] {
            assert_eq!(Target::parse_web_port(text, dir), Ok(target), "{text}");
        }
        for (text, says) in [
            ("", "no web port"),
            ("none", "no web port"),
            ("tcp:", "not a port number"),
            ("tcp:70000", "not a port number"),
            ("tcp:http", "not a port number"),
            ("unix", "without a path"),
            ("haproxy:tcp:3456", "set node.url"),
            ("systemd:domain=INET:index=0", "set node.url"),
        ] {
            let error = Target::parse_web_port(text, dir).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn urls_are_read() {
        for (text, endpoint, tls) in [
            ("http://127.0.0.1:3456", tcp("127.0.0.1", 3456), false),
            ("http://127.0.0.1:3456/", tcp("127.0.0.1", 3456), false),
            ("http://[::1]:3456", tcp("::1", 3456), false),
            ("http://gw1", tcp("gw1", 80), false),
            ("https://gw1", tcp("gw1", 443), true),
            ("unix:/run/web", Endpoint::Unix("/run/web".into()), false),
        ] {
            assert_eq!(Target::parse_url(text), Ok((endpoint, tls)), "{text}");
        }
        for text in [
            "",
            "gw1:3456",
            "ftp://gw1",
            "http://",
            "http://gw1:0",
            "http://u:p@gw1",
            "http://gw1/x",
            "http://gw1/?a",
            "unix:web",
        ] {
            let error = Target::parse_url(text).unwrap_err();
            assert!(error.contains("expected `http://HOST:PORT`"), "{text}: {error}");
        }
    }
}
