//! What `probe` and `status` print: a node and its services, as a table.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::Value;

use super::{Failure, exit};

/// The part of `/v1/status` that the table shows. Keys that it does not know are ignored, so that
/// it also reads the answer of a newer sidecar.
#[derive(Debug, Deserialize)]
pub(super) struct Report {
    #[serde(flatten)]
    sidecar: Sidecar,
    node: Node,
    services: BTreeMap<String, Service>,
    #[serde(default)]
    notes: Vec<String>,
    reload: Option<Reload>,
}

#[derive(Debug, Deserialize)]
struct Reload {
    at: String,
    error: Option<String>,
}

/// Which sidecar says it; nothing where no sidecar runs.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Sidecar {
    version: Option<String>,
    commit: Option<String>,
    config_hash: Option<String>,
    started: Option<String>,
}

impl std::fmt::Display for Sidecar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { version: Some(version), commit, config_hash, started } = self else {
            return Ok(());
        };
        write!(f, "\nhcf {version}")?;
        if let Some(commit) = commit {
            write!(f, " ({commit})")?;
        }
        if let Some(hash) = config_hash {
            write!(f, ", configuration {hash}")?;
        }
        if let Some(started) = started {
            write!(f, ", started {started}")?;
        }
        writeln!(f)
    }
}

#[derive(Debug, Deserialize)]
struct Node {
    url: String,
    #[serde(default)]
    nickname: String,
    answer_ms: Option<f64>,
    age_ms: Option<u64>,
    failure: Option<Failed>,
}

#[derive(Debug, Deserialize)]
struct Failed {
    code: String,
    text: String,
}

#[derive(Debug, Deserialize)]
struct Service {
    state: String,
    degraded: bool,
    #[serde(default)]
    forced: bool,
    weight: u8,
    since: Option<String>,
    reasons: Vec<Reason>,
    findings: Vec<Finding>,
}

#[derive(Debug, Deserialize)]
struct Reason {
    code: String,
    text: String,
}

#[derive(Debug, Deserialize)]
struct Finding {
    criterion: String,
    pass: bool,
    #[serde(rename = "else")]
    otherwise: String,
    text: String,
}

impl Report {
    /// Reads an answer, and keeps the one service that was asked for, if one was.
    pub(super) fn read(mut value: Value, service: Option<&str>) -> Result<(Self, Value), Failure> {
        if let Some(name) = service {
            let services = value.get_mut("services").and_then(Value::as_object_mut);
            let known = services.map_or_else(Vec::new, |services| {
                let known: Vec<String> = services.keys().cloned().collect();
                services.retain(|key, _| key == name);
                known
            });
            if !known.iter().any(|known| known == name) {
                let known = known.join(", ");
                return Err(Failure::Usage(format!(
                    "there is no service `{name}`; expected one of {known}"
                )));
            }
        }
        let report = serde_json::from_value(value.clone()).map_err(|_| {
            Failure::NoSidecar("what answers is not a sidecar's status listener".to_owned())
        })?;
        Ok((report, value))
    }

    /// 0 when every service is up, degraded or not.
    pub(super) fn exit(&self) -> u8 {
        let up = self.services.values().all(|service| service.state == "up");
        if up { exit::OK } else { exit::FAILED }
    }

    /// The report for people.
    pub(super) fn table(&self) -> String {
        let mut out = String::new();
        let name = if self.node.nickname.is_empty() { "node" } else { &self.node.nickname };
        let _ = write!(out, "{name} at {}", self.node.url);
        let _ = match (&self.node.failure, self.node.answer_ms) {
            (Some(failure), _) => write!(out, ": {}: {}", failure.code, failure.text),
            (None, Some(ms)) => write!(out, " answered in {ms:.1} ms"),
            (None, None) => write!(out, ": not looked at yet"),
        };
        if let Some(age) = self.node.age_ms {
            let _ =
                write!(out, ", {:.1} s ago", std::time::Duration::from_millis(age).as_secs_f64());
        }
        out.push('\n');
        for (name, service) in &self.services {
            let state = if service.degraded { "degraded" } else { &service.state };
            let _ = write!(out, "\n{name}: {state}");
            if service.forced {
                out.push_str(" (forced)");
            }
            if service.state == "up" {
                let _ = write!(out, ", weight {}", service.weight);
            }
            if let Some(since) = &service.since {
                let _ = write!(out, ", since {since}");
            }
            out.push('\n');
            let told = |reason: &&Reason| !service.findings.iter().any(|f| f.text == reason.text);
            for reason in service.reasons.iter().filter(told) {
                let _ = writeln!(out, "  {:<12}  {}", reason.code, reason.text);
            }
            for finding in &service.findings {
                let result = if finding.pass { "pass" } else { &finding.otherwise };
                let _ = writeln!(out, "  {:<12}  {result:<7}  {}", finding.criterion, finding.text);
            }
        }
        if !self.notes.is_empty() {
            out.push('\n');
        }
        for note in &self.notes {
            let _ = writeln!(out, "note: {note}");
        }
        if let Some(Reload { at, error: Some(error) }) = &self.reload {
            let _ = write!(out, "\nnot reloaded at {at}, the old configuration stays:\n{error}");
            if !error.ends_with('\n') {
                out.push('\n');
            }
        }
        let _ = write!(out, "{}", self.sidecar);
        out
    }
}
