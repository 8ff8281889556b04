//! Gates: each with an address, and a service that exists.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::address::Addresses;
use super::super::file;
use super::super::listener::check_allow;
use super::super::units::{Span, Switch, Whole};
use super::super::{Forwarded, Gate, Service, WhenBad};
use super::{NOT_A_WORD, Resolver, is_word};

impl Resolver<'_> {
    pub(super) fn gates(
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
            check_allow(&key, &listen.0, gate.allow.as_ref(), &mut self.problems);
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
            let proxy_protocol = gate.proxy_protocol.unwrap_or(Switch(false));
            let forwarded = gate.forwarded.unwrap_or(Forwarded::Off);
            if matches!(when_bad, WhenBad::Close | WhenBad::Pass) && forwarded != Forwarded::Off {
                self.problems.add(
                    &format!("{key}.forwarded"),
                    "a gate of this kind reads no requests; expected `when_bad: refuse_uri` or `refuse_writes`",
                );
            }
            let shown = file::Gate {
                listen: Some(listen.clone()),
                allow: gate.allow.clone(),
                service: Some(service.to_string()),
                when_bad: Some(when_bad),
                drain: Some(Span(drain)),
                max_connections: Some(Whole(most)),
                retry_after: Some(Span(retry)),
                proxy_protocol: Some(proxy_protocol),
                forwarded: Some(forwarded),
            };
            self.effective.gates.insert(name.clone(), shown);
            gates.push(Gate {
                name: name.as_str().into(),
                listen: listen.0,
                allow: gate.allow.clone(),
                service,
                when_bad,
                drain,
                max_connections: usize::try_from(most).unwrap_or(4096),
                retry_after: retry,
                proxy_protocol: proxy_protocol.0,
                forwarded,
            });
        }
        gates
    }

    /// A gate that reads requests cannot read what is encrypted for the node.
    pub(super) fn gates_to_tls(&mut self, gates: &[Gate]) {
        for gate in gates {
            if matches!(gate.when_bad, WhenBad::RefuseUri | WhenBad::RefuseWrites) {
                self.problems.add(
                    &format!("gates.{}.when_bad", gate.name),
                    "the node speaks TLS, so its requests cannot be read; expected `close` or `pass`",
                );
            }
        }
    }
}
