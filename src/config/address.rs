//! Where a listener is: an address as a configuration file has it, or several.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Unexpected, Visitor};
use serde::{Serialize, Serializer};

/// An address to listen on: `host:port`, `[v6]:port` or `unix:/path`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A host and a port; port 0 stands for any free one.
    Tcp {
        /// An address without brackets, or a name.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

impl Address {
    pub(super) const EXPECTED: &str =
        "an address such as `127.0.0.1:5290`, `\"[::1]:5290\"` or `unix:/path`";

    /// Reads an address.
    ///
    /// # Errors
    ///
    /// A sentence that says what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not {}", Self::EXPECTED);
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') { Ok(Self::Unix(path.into())) } else { Err(wrong()) };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port: u16 = port.parse().map_err(|_| wrong())?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(v6) if v6.parse::<std::net::Ipv6Addr>().is_ok() => v6,
            None if !host.is_empty() && !host.contains([':', '[', ']', ' ', '/']) => host,
            _ => return Err(wrong()),
        };
        Ok(Self::Tcp { host: host.to_owned(), port })
    }

    /// Whether only programs on this machine can connect.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp { host, .. } => {
                host == "localhost"
                    || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
            }
            Self::Unix(_) => true,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(addr: SocketAddr) -> Self {
        Self::Tcp { host: addr.ip().to_string(), port: addr.port() }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Where a listener listens: nowhere, or at one or more addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses(pub Vec<Address>);

impl Addresses {
    /// Reads what a command line or the environment says: addresses with commas between, or `off`.
    ///
    /// # Errors
    ///
    /// A sentence that says what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(Vec::new()));
        }
        text.split(',').map(|part| Address::parse(part.trim())).collect::<Result<_, _>>().map(Self)
    }
}

impl Serialize for Addresses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0[..] {
            [] => serializer.serialize_str("off"),
            [one] => serializer.collect_str(one),
            many => serializer.collect_seq(many.iter().map(ToString::to_string)),
        }
    }
}

impl<'de> Deserialize<'de> for Addresses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct One;
        impl Visitor<'_> for One {
            type Value = Address;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(Address::EXPECTED)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Address, E> {
                Address::parse(text).map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        struct OneOf(Address);
        impl<'de> Deserialize<'de> for OneOf {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(One).map(OneOf)
            }
        }
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Addresses;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}, a list of them, or `off`", Address::EXPECTED)
            }
            fn visit_bool<E: de::Error>(self, on: bool) -> Result<Addresses, E> {
                if on {
                    Err(E::invalid_value(Unexpected::Bool(on), &self))
                } else {
                    Ok(Addresses(Vec::new()))
                }
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Addresses, E> {
                if text == "off" {
                    return Ok(Addresses(Vec::new()));
                }
                One.visit_str(text).map(|address| Addresses(vec![address]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Addresses, A::Error> {
                let mut addresses = Vec::new();
                while let Some(OneOf(address)) = seq.next_element()? {
                    addresses.push(address);
                }
                Ok(Addresses(addresses))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

impl JsonSchema for Addresses {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Addresses".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}, {"const": false}],
            "description": "`host:port`, `[v6]:port` or `unix:/path`, a list of them, or `off`"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for text in ["127.0.0.1:5290", "[::1]:5290", "unix:/run/hcf/agent", "localhost:0"] {
            assert_eq!(Address::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "5290", ":5290", "::1:5290", "[::1]", "[nonsense]:1", "h:70000", "unix:x"]
        {
            assert!(Address::parse(text).is_err(), "{text}");
        }
        assert!(Address::parse("[::1]:1").unwrap().is_local());
        assert!(!Address::parse("0.0.0.0:1").unwrap().is_local());
    }
}
