//! The node: where it is, by what it is known, and what its directory says.

use std::time::Duration;

use super::super::Node;
use super::super::file::{self, Tls};
use super::super::units::Span;
use super::Resolver;
use crate::tahoe::{NodeDir, Target, Trust};

const DEFAULT_URL: &str = "http://127.0.0.1:3456";

impl Resolver<'_> {
    pub(super) fn node(&mut self, file: &file::Node) -> Option<Node> {
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
}
