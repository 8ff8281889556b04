//! A listener as the file has it: its addresses alone, or a section with what else holds there.

use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, IntoDeserializer as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::address::{Address, Addresses};
use super::networks::{Network, Networks};
use super::problem::Problems;
use crate::tls::{Identity, Pair, Protocol};

/// Where a listener listens, and what else holds there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "ListenerSection")]
pub struct Section {
    /// Where it listens; where it does without this section unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Addresses>,
    /// The networks and addresses from which connections are taken; everybody's unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow: Option<Networks>,
    /// What is spoken there is TLS; not with HAProxy's agent checks, which speak none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ServerTls>,
}

/// By what a listener proves itself, and whom it asks for proof. A reload reads the files again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ServerTls {
    /// A PEM file with its certificate, and those that lead to its authority; must be set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// A PEM file with the certificate's private key, which nobody but hcf's user and group may read; must be set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// A PEM file with the authorities one of which must have signed a client's certificate; clients need none unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
}

/// A listener, in the short form or the long one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listener(pub Section);

impl From<Addresses> for Listener {
    fn from(at: Addresses) -> Self {
        Self(Section { at: Some(at), ..Section::default() })
    }
}

impl Listener {
    /// What it comes to, with `default` as its addresses unless it has some. `protocol` is what is spoken there inside
    /// TLS; `None` where whoever asks speaks none.
    pub(crate) fn resolve(
        &self,
        key: &str,
        default: Vec<Address>,
        protocol: Option<Protocol>,
        problems: &mut Problems<'_>,
    ) -> super::Listener {
        let Section { at, allow, tls } = &self.0;
        let at = at.clone().map_or(default, |at| at.0);
        check_allow(key, &at, allow.as_ref(), problems);
        let tls = tls.as_ref().and_then(|tls| {
            let key = format!("{key}.tls");
            let Some(protocol) = protocol else {
                problems.add(
                    &key,
                    "HAProxy's agent checks speak no TLS; name who may ask by `allow` instead",
                );
                return None;
            };
            tls.resolve(&key, protocol, problems)
        });
        super::Listener { at, allow: allow.clone(), tls }
    }

    /// The same with the addresses that it came to.
    pub(crate) fn shown(&self, resolved: &super::Listener) -> Self {
        Self(Section { at: Some(Addresses(resolved.at.clone())), ..self.0.clone() })
    }
}

impl ServerTls {
    fn resolve(
        &self,
        key: &str,
        protocol: Protocol,
        problems: &mut Problems<'_>,
    ) -> Option<super::ListenerTls> {
        let (Some(cert), Some(private)) = (self.cert.clone(), self.key.clone()) else {
            problems.add(key, "expected `cert` and `key`, each a PEM file");
            return None;
        };
        let open_key = is_open(&private).then(|| private.clone());
        let own = Pair { cert, key: private };
        match Identity::read(&own, self.client_ca.as_deref(), protocol) {
            Ok(identity) => {
                let asks_for_proof = self.client_ca.is_some();
                Some(super::ListenerTls { identity, asks_for_proof, open_key })
            }
            Err((file, why)) => {
                problems.add(&format!("{key}.{file}"), why);
                None
            }
        }
    }
}

/// Whether anybody on this machine may read this file.
fn is_open(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|file| file.mode() & 0o004 != 0)
}

/// Whether these networks can say who may ask at these addresses.
pub(super) fn check_allow(
    key: &str,
    at: &[Address],
    allow: Option<&Networks>,
    problems: &mut Problems<'_>,
) {
    let Some(Networks(networks)) = allow else { return };
    let key = format!("{key}.allow");
    if networks.is_empty() {
        problems.add(&key, "nobody could ask; name a network, or leave it out for everybody");
    }
    if let Some(socket) = at.iter().find(|address| matches!(address, Address::Unix(_))) {
        let message = format!(
            "who connects to {socket} comes from no network, its folder's permissions say who may; leave `allow` out there"
        );
        problems.add(&key, message);
    }
}

impl super::Listener {
    /// Whether anybody may ask who reaches it.
    #[must_use]
    pub fn takes_everybody(&self) -> bool {
        if self.tls.as_ref().is_some_and(|tls| tls.asks_for_proof) {
            return false;
        }
        self.allow.as_ref().is_none_or(|allow| allow.0.iter().any(Network::is_everybody))
    }
}

impl Serialize for Listener {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Section { at: Some(at), allow: None, tls: None } => at.serialize(serializer),
            section => section.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Listener {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Listener;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let address = Address::EXPECTED;
                write!(
                    f,
                    "{address}, a list of them, `off`, or a section such as `{{at: …, allow: …}}`"
                )
            }
            fn visit_bool<E: de::Error>(self, on: bool) -> Result<Listener, E> {
                Addresses::deserialize(on.into_deserializer()).map(Listener::from)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Listener, E> {
                Addresses::deserialize(text.into_deserializer()).map(Listener::from)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Listener, A::Error> {
                Addresses::deserialize(SeqAccessDeserializer::new(seq)).map(Listener::from)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Listener, A::Error> {
                Section::deserialize(MapAccessDeserializer::new(map)).map(Listener)
            }
        }
        deserializer.deserialize_any(Any)
    }
}

impl JsonSchema for Listener {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Listener".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (short, long) =
            (generator.subschema_for::<Addresses>(), generator.subschema_for::<Section>());
        json_schema!({"anyOf": [short, long]})
    }
}
