//! `--settle`: waiting until balancers have heard of an order, and until the node has finished what it is doing.

use std::fmt::Write as _;
use std::time::Duration;

use hyper::Method;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::Failure;
use super::sidecar::Place;

/// How often the sidecar and the node are asked.
const EVERY: Duration = Duration::from_millis(200);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// Waits at most `told` for balancers and then at most `finish` for the node, and says how it went.
pub(super) async fn settle(
    place: &Place,
    told: Duration,
    finish: Duration,
) -> Result<String, Failure> {
    let mut said = String::new();
    let deadline = Instant::now() + told;
    let status = loop {
        let status = place.fetch_status(ANSWER).await?;
        let waiting = uninformed(&status);
        if waiting.is_empty() || Instant::now() >= deadline {
            for asker in waiting {
                let _ = writeln!(said, "not heard of it yet: {asker}");
            }
            break status;
        }
        sleep(EVERY).await;
    };
    let url = status["node"]["url"].as_str().unwrap_or_default();
    if !url.starts_with("http:") && !url.starts_with("unix:") {
        // The command knows neither the certificate nor a port that changes.
        let _ = writeln!(
            said,
            "did not wait for the node's operations, which cannot be asked of {url}"
        );
        return Ok(said);
    }
    let node = Place::of_url(url, None)?;
    let deadline = Instant::now() + finish;
    loop {
        // A node that does not answer has nothing that one could wait for.
        let Some(active) = operations(&node).await.filter(|active| *active > 0) else { break };
        if Instant::now() >= deadline {
            let _ = writeln!(said, "the node still has {active} operations under way");
            break;
        }
        sleep(EVERY).await;
    }
    Ok(said)
}

/// The balancers that have asked lately, but not since the order.
fn uninformed(status: &Value) -> Vec<String> {
    let askers = status["askers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let late = askers.iter().filter(|asker| asker["lost"] == false && asker["current"] == false);
    late.map(|asker| {
        let text = |key: &str| asker[key].as_str().unwrap_or("?").to_owned();
        format!("{} at {} for {}", text("peer"), text("listener"), text("service"))
    })
    .collect()
}

/// How many operations the node has under way, by its own page.
async fn operations(node: &Place) -> Option<usize> {
    let (status, value) = node.ask(Method::GET, "/status/?t=json", None, ANSWER).await.ok()?;
    (status == 200).then(|| value["active"].as_array().map_or(0, Vec::len))
}
