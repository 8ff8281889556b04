//! `hcf drain`, `maint`, `down`, `up`, `weight` and `clear`: what an operator orders, taken to the running sidecar.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::time::Duration;

use hyper::Method;
use serde_json::{Map, Value};

use super::sidecar::Place;
use super::{Failure, exit, print, runtime, settle};
use crate::cli;
use crate::config::is_word;

/// What is ordered.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    /// A state.
    State(&'static str),
    /// A cap on the weight.
    Weight(u8),
}

/// Longer than the sidecar itself allows.
const TIME: Duration = Duration::from_secs(40);

pub(super) fn run(args: &cli::Order, what: What) -> Result<u8, Failure> {
    let mut body = Map::new();
    match what {
        What::State(state) => body.insert("state".to_owned(), state.into()),
        What::Weight(weight) => body.insert("weight".to_owned(), weight.into()),
    };
    body.insert("reason".to_owned(), reason(args.reason.as_deref())?.into());
    body.insert("owner".to_owned(), args.owner.as_str().into());
    if let Some(length) = args.length {
        body.insert("for".to_owned(), humantime::format_duration(length).to_string().into());
    }
    if let Some(until) = &args.until {
        body.insert("until".to_owned(), until.as_str().into());
    }
    let body = Value::Object(body);
    let done = runtime()?.block_on(async {
        let place = Place::admin(&args.sidecar)?;
        change(&place, &Method::PUT, &args.services, "", Some(&body)).await?;
        match args.settle {
            Some(time) => print(&settle::settle(&place, time, args.finish).await?),
            None => Ok(()),
        }
    });
    match done {
        // A unit's stop must not fail because its sidecar is gone.
        Err(Failure::NoSidecar(why)) if args.settle.is_some() => {
            let _ = writeln!(std::io::stderr().lock(), "hcf: {why}");
        }
        other => other?,
    }
    Ok(exit::OK)
}

pub(super) fn clear(args: &cli::Clear) -> Result<u8, Failure> {
    if let Some(owner) = args.owner.as_ref().filter(|owner| !is_word(owner)) {
        return Err(Failure::Usage(format!("the owner `{owner}` is no name")));
    }
    let query = args.owner.as_ref().map_or_else(String::new, |owner| format!("?owner={owner}"));
    let cleared = Place::admin(&args.sidecar).and_then(|place| {
        runtime()?.block_on(change(&place, &Method::DELETE, &args.services, &query, None))
    });
    match cleared {
        // A unit's start must not fail because its sidecar is gone.
        Err(Failure::NoSidecar(why)) if args.owner.is_some() => {
            let _ = writeln!(std::io::stderr().lock(), "hcf: {why}");
        }
        other => other?,
    }
    Ok(exit::OK)
}

/// Asks for one change, of the services named or of all: all of them take it, or none.
async fn change(
    place: &Place,
    method: &Method,
    services: &[String],
    query: &str,
    body: Option<&Value>,
) -> Result<(), Failure> {
    // An empty name, from a variable that is not set, must not turn into all services.
    if let Some(service) = services.iter().find(|service| !is_word(service)) {
        return Err(Failure::Usage(format!("`{service}` is not the name of a service")));
    }
    let path = match services {
        [] => format!("/v1/overrides{query}"),
        services => format!("/v1/overrides/{}{query}", services.join(",")),
    };
    let (status, value) = place.ask(method.clone(), &path, body, TIME).await?;
    let detail = value["detail"].as_str().or_else(|| value["title"].as_str());
    let detail = detail.unwrap_or("it gave no reason").to_owned();
    match status {
        200 => Ok(()),
        400 | 404 => Err(Failure::Usage(detail)),
        _ => Err(anyhow::anyhow!("the sidecar refused: {detail}").into()),
    }
}

/// The reason that was given, or that is given now.
fn reason(given: Option<&str>) -> Result<String, Failure> {
    if let Some(reason) = given {
        return Ok(reason.to_owned());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage("say why, by --reason".to_owned()));
    }
    let mut err = std::io::stderr().lock();
    let _ = write!(err, "Reason: ").and_then(|()| err.flush());
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    match (read, line.trim()) {
        (Ok(1..), reason) if !reason.is_empty() => Ok(reason.to_owned()),
        _ => Err(Failure::Usage("a reason is required".to_owned())),
    }
}
