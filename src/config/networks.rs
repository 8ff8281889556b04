//! Networks from which connections are taken.

use std::fmt;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A network, or one address; an IPv4 address that is written as IPv6 is the IPv4 one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

impl Network {
    const EXPECTED: &str =
        "a network or an address such as `10.0.0.0/8`, `192.0.2.7` or `\"2001:db8::/32\"`";

    /// Reads a network or an address.
    ///
    /// # Errors
    ///
    /// A sentence that says what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let network = network.map_err(|_| format!("`{text}` is not {}", Self::EXPECTED))?;
        // Whoever writes bits behind the prefix has mistaken one for the other.
        if network != network.trunc() {
            let (whole, one) = (network.trunc(), network.addr());
            return Err(format!("`{text}` is neither the network {whole} nor the address {one}"));
        }
        Ok(Self(network).canonical())
    }

    fn canonical(self) -> Self {
        match self.0 {
            IpNet::V6(v6) => mapped(v6).map_or(self, |v4| Self(v4.into())),
            IpNet::V4(_) => self,
        }
    }

    /// Whether it holds every address of its kind.
    #[must_use]
    pub fn is_everybody(&self) -> bool {
        self.0.prefix_len() == 0
    }
}

fn mapped(v6: Ipv6Net) -> Option<Ipv4Net> {
    Ipv4Net::new(v6.addr().to_ipv4_mapped()?, v6.prefix_len().checked_sub(96)?).ok()
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() {
            self.0.addr().fmt(f)
        } else {
            self.0.fmt(f)
        }
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Network_;
        impl Visitor<'_> for Network_ {
            type Value = Network;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(Network::EXPECTED)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Network, E> {
                if text.parse::<IpNet>().is_err() && text.parse::<IpAddr>().is_err() {
                    return Err(E::invalid_value(Unexpected::Str(text), &self));
                }
                Network::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Network_)
    }
}

impl JsonSchema for Network {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Network".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "examples": ["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"],
            "description": "a network such as `10.0.0.0/8`, or an address"})
    }
}

/// Networks; an address is held by any of them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Networks(pub Vec<Network>);

impl Networks {
    /// Whether one of them holds this address; an IPv4 address that came over IPv6 is the IPv4 one.
    #[must_use]
    pub fn hold(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.0.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_and_written() {
        for (text, written) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("192.0.2.7", "192.0.2.7"),
            ("192.0.2.7/32", "192.0.2.7"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::1", "::1"),
            ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(Network::parse(text).unwrap().to_string(), written, "{text}");
        }
        for text in ["", "10", "10.0.0.0/33", "10.1.0.0/8", "2001:db8::1/32", "gw1", "10.0.0.0/-1"]
        {
            assert!(Network::parse(text).is_err(), "{text}");
        }
        let error = Network::parse("10.1.2.3/8").unwrap_err();
        assert_eq!(
            error,
            "`10.1.2.3/8` is neither the network 10.0.0.0/8 nor the address 10.1.2.3"
        );
    }

    #[test]
    fn an_address_is_held_whichever_way_it_came() {
        let networks = ["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"];
        let networks = Networks(networks.map(|text| Network::parse(text).unwrap()).to_vec());
        let holds = |text: &str| networks.hold(text.parse().unwrap());
        for address in ["10.255.0.1", "192.0.2.7", "::ffff:192.0.2.7", "2001:db8:1::1"] {
            assert!(holds(address), "{address}");
        }
        for address in
            ["11.0.0.1", "192.0.2.8", "::ffff:192.0.2.8", "::1", "2001:db9::", "::10.0.0.1"]
        {
            assert!(!holds(address), "{address}");
        }
    }
}
