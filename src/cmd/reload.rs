//! `hcf reload`

use std::fmt::Write as _;
use std::time::Duration;

use hyper::Method;
use serde_json::Value;

use super::sidecar::Place;
use super::{Failure, exit, print, runtime};
use crate::cli;

/// Longer than the sidecar itself allows.
const TIME: Duration = Duration::from_secs(40);

pub(super) fn run(args: &cli::Reload) -> Result<u8, Failure> {
    let place = Place::admin(&args.sidecar)?;
    let asked = place.ask(Method::POST, "/v1/reload", None, TIME);
    let (status, value) = runtime()?.block_on(asked)?;
    let list = |key: &str| -> Vec<String> {
        let values = value[key].as_array().map(Vec::as_slice).unwrap_or_default();
        values.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let error = || {
        let text = value["error"].as_str().or_else(|| value["detail"].as_str());
        text.unwrap_or("it gave no reason").trim_end().to_owned()
    };
    match status {
        200 if value["outcome"] == "unchanged" => print("nothing has changed\n")?,
        200 => {
            let mut text = String::new();
            for key in list("keys") {
                let late =
                    if list("restart").contains(&key) { " (from the next start on)" } else { "" };
                let _ = writeln!(text, "changed: {key}{late}");
            }
            for warning in list("warnings") {
                let _ = writeln!(text, "warning: {warning}");
            }
            print(&text)?;
        }
        // Its message begins with its place, for editors.
        422 => return Err(Failure::Refused(error())),
        _ => {
            return Err(
                anyhow::anyhow!("not reloaded, the old configuration stays: {}", error()).into()
            );
        }
    }
    Ok(exit::OK)
}
