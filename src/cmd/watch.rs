//! `hcf watch`: what a running sidecar says, as it changes.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::sidecar::Place;
use super::{Failure, print, runtime};
use crate::ask::Answer;
use crate::cli;
use crate::events::Frames;
use crate::history::explain::stamp;

/// Between two tries.
const PAUSE: Duration = Duration::from_secs(1);
/// Heartbeats that may stay away.
const BEATS: u32 = 3;
/// The first event comes at once.
const FIRST: Duration = Duration::from_secs(5);
/// The changes under the table.
const CHANGES: usize = 12;

pub(super) fn run(args: &cli::Watch) -> Result<u8, Failure> {
    runtime()?.block_on(async {
        let open = async |place: Place| {
            let stream = place.stream("/v1/watch", args.look.timeout).await?;
            Ok((place, stream))
        };
        let (place, mut stream) = Place::first(&args.look, open).await?;
        let mut screen = Screen::new(args);
        loop {
            let why = listen(stream, &mut screen).await?;
            screen.lost(&place, &why)?;
            stream = loop {
                sleep(PAUSE).await;
                match place.stream("/v1/watch", args.look.timeout).await {
                    Ok(stream) => break stream,
                    Err(Failure::NoSidecar(_)) => {}
                    Err(failure) => return Err(failure),
                }
            };
            screen.found(&place)?;
        }
    })
}

/// Shows what comes, until it ends; says why that was.
async fn listen(mut stream: Answer, screen: &mut Screen<'_>) -> Result<String, Failure> {
    let (mut frames, mut patience) = (Frames::default(), FIRST);
    loop {
        let chunk = match timeout(patience, stream.chunk()).await {
            Ok(Ok(Some(chunk))) => chunk,
            Ok(_) => return Ok("it has ended the connection".to_owned()),
            Err(_) => return Ok("it has fallen silent".to_owned()),
        };
        frames.push(&chunk);
        while let Some((name, data)) = frames.next() {
            let Ok(data) = serde_json::from_str::<Value>(&data) else { continue };
            if let Some(beat) = data.get("heartbeat_ms").and_then(Value::as_u64) {
                patience = Duration::from_millis(beat).saturating_mul(BEATS).max(PAUSE);
            }
            screen.take(&name, &data)?;
        }
        if frames.is_too_long() {
            return Ok("it says too much at a time".to_owned());
        }
    }
}

/// What is said of one service.
#[derive(Clone, Debug, Deserialize)]
struct Line {
    state: String,
    degraded: bool,
    weight: u8,
    since: String,
    #[serde(default)]
    reasons: Vec<Reason>,
}

#[derive(Clone, Debug, Deserialize)]
struct Reason {
    code: String,
    text: String,
}

impl Line {
    fn word(&self) -> &str {
        if self.degraded { "degraded" } else { &self.state }
    }

    fn why(&self) -> String {
        let reasons: Vec<String> =
            self.reasons.iter().map(|reason| format!("{}: {}", reason.code, reason.text)).collect();
        if reasons.is_empty() { "all is well".to_owned() } else { reasons.join("; ") }
    }
}

impl cli::Watch {
    fn wants(&self, service: &str) -> bool {
        self.service.as_deref().is_none_or(|wanted| wanted == service)
    }
}

/// Where it is shown.
struct Screen<'a> {
    args: &'a cli::Watch,
    terminal: bool,
    colour: bool,
    node: String,
    lines: BTreeMap<String, Line>,
    changes: VecDeque<String>,
    /// What is wrong with the way to the sidecar.
    trouble: Option<String>,
}

impl<'a> Screen<'a> {
    fn new(args: &'a cli::Watch) -> Self {
        let terminal = std::io::stdout().is_terminal() && !args.json;
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let (node, lines, changes) = (String::new(), BTreeMap::new(), VecDeque::new());
        Self { args, terminal, colour, node, lines, changes, trouble: None }
    }

    fn take(&mut self, name: &str, data: &Value) -> Result<(), Failure> {
        let said: BTreeMap<String, Line> = match name {
            "verdicts" => {
                let services = data.get("services").cloned().unwrap_or_default();
                serde_json::from_value(services).unwrap_or_default()
            }
            "verdict" => {
                let service = data.get("service").and_then(Value::as_str).unwrap_or_default();
                let line = Line::deserialize(data).ok();
                line.map(|line| (service.to_owned(), line)).into_iter().collect()
            }
            _ => return Ok(()),
        };
        if name == "verdicts" {
            if let Some(wanted) =
                self.args.service.as_ref().filter(|wanted| !said.contains_key(*wanted))
            {
                let known: Vec<&str> = said.keys().map(String::as_str).collect();
                let known = known.join(", ");
                return Err(Failure::Usage(format!(
                    "there is no service `{wanted}`; expected one of {known}"
                )));
            }
            let node =
                |key: &str| data.get("node").and_then(|node| node.get(key)).and_then(Value::as_str);
            let nickname = node("nickname").filter(|name| !name.is_empty()).unwrap_or("node");
            self.node = format!("{nickname} at {}", node("url").unwrap_or_default());
            self.lines.retain(|service, _| said.contains_key(service));
        }
        for (service, line) in said.iter().filter(|(service, _)| self.args.wants(service)) {
            self.change(service, line, name == "verdicts")?;
        }
        self.draw()
    }

    fn change(&mut self, service: &str, line: &Line, all: bool) -> Result<(), Failure> {
        let last = self.lines.insert(service.to_owned(), line.clone());
        let said = |line: &Line| (line.word().to_owned(), line.weight, line.why());
        // After a new connection everything is said again.
        if all && last.as_ref().is_some_and(|last| said(last) == said(line)) {
            return Ok(());
        }
        let now = stamp(SystemTime::now());
        let from = last.as_ref().map_or("start", Line::word);
        let (to, weight, why) = (line.word(), line.weight, line.why());
        let text = format!("{now}  {service}  {from} -> {to}, weight {weight}  {why}");
        if self.args.json {
            let reasons: Vec<Value> = line
                .reasons
                .iter()
                .map(|reason| json!({"code": reason.code, "text": reason.text}))
                .collect();
            let event = json!({
                "at": now, "service": service, "state": line.state, "degraded": line.degraded,
                "weight": weight, "since": line.since, "reasons": reasons,
            });
            return print(&format!("{event}\n"));
        }
        if !self.terminal {
            return print(&(text + "\n"));
        }
        if last.is_some() {
            self.changes.push_front(text);
            self.changes.truncate(CHANGES);
        }
        Ok(())
    }

    /// The way to the sidecar is gone. In a pipe that is no answer, so it goes where messages go.
    fn lost(&mut self, place: &Place, why: &str) -> Result<(), Failure> {
        self.say(format!("the sidecar at {place} is gone, {why}; trying again"))
    }

    fn found(&mut self, place: &Place) -> Result<(), Failure> {
        self.say(format!("the sidecar at {place} is back"))?;
        self.trouble = None;
        Ok(())
    }

    fn say(&mut self, text: String) -> Result<(), Failure> {
        if !self.terminal {
            super::note(&text);
        }
        self.trouble = Some(text);
        self.draw()
    }

    fn draw(&self) -> Result<(), Failure> {
        if !self.terminal {
            return Ok(());
        }
        let paint = |word: &str, code: &str| {
            if self.colour { format!("\x1b[{code}m{word}\x1b[0m") } else { word.to_owned() }
        };
        // Home; each line is cleared to its end, and the rest of the screen at last.
        let mut out = format!("\x1b[H{}\x1b[K\n", self.node);
        if let Some(trouble) = &self.trouble {
            let _ = writeln!(out, "{}\x1b[K", paint(trouble, "33"));
        }
        for (service, line) in &self.lines {
            let colour = match line.word() {
                "up" => "32",
                "down" => "31",
                _ => "33",
            };
            let word = paint(line.word(), colour);
            let _ = writeln!(
                out,
                "\x1b[K\n{service}: {word}, weight {}, since {}\x1b[K\n  {}\x1b[K",
                line.weight,
                line.since,
                line.why()
            );
        }
        if !self.changes.is_empty() {
            out.push_str("\x1b[K\n");
        }
        for change in &self.changes {
            let _ = writeln!(out, "{change}\x1b[K");
        }
        out.push_str("\x1b[J");
        print(&out)
    }
}
