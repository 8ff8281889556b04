//! `hcf eds`: follows the sidecars of a fleet, and writes the file by which Envoy knows its nodes.
//!
//! One task, the keeper, hears of everything and is the only writer. A change is one new file, and a
//! heartbeat is none. What is silent for too long is out by the clock, whatever the connection says.
//! The file stays as it is when this process stops: a restart is no outage.

mod config;
mod file;
mod follow;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod keeper;
mod metrics;
mod page;
mod rules;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::ask::Place;
use crate::clock::Clock;
use crate::daemon::{Parts, Signals, say};
use crate::serve::accept::{self, Allow, Hall, Seats};
use crate::serve::bind::{Access, bind};
use crate::serve::http::Site;
use crate::serve::secured;
use crate::systemd::Systemd;
pub use config::{Fleet, Node, Sidecar};
use keeper::Keeper;
use page::Page;

/// Connections that the fleet's page serves at a time.
const ROOM: usize = 256;
/// What followers have said and the keeper has not yet heard.
const INBOX: usize = 1024;
/// How long connections may take to end.
const LAST_TIME: Duration = Duration::from_secs(2);

/// Where a node's sidecar is asked. The configuration knows that its URL is one.
fn place(node: &Node, fleet: &Fleet) -> Result<Place> {
    let place = Place::of_url(&node.sidecar.to_string(), fleet.proof.as_ref());
    place.map_err(|why| anyhow::anyhow!("{}: {why}", node.name))
}

/// Follows the fleet until told to stop.
///
/// # Errors
///
/// When a port cannot be bound, when the file cannot be written at the start, or when a part ends by
/// itself.
pub async fn run(fleet: Fleet) -> Result<()> {
    let mut signals = Signals::register()?;
    let (clock, systemd) = (Clock::start(), Systemd::of_environment());
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let mut parts = Parts::default();
    let fleet = Arc::new(fleet);
    let (news, inbox) = mpsc::channel(INBOX);
    let (keeper, shown) = Keeper::new(Arc::clone(&fleet), clock, systemd);

    let started = clock.wall(clock.now());
    let page: Arc<dyn Site> = Arc::new(Page { shown, started });
    let allow = Arc::new(Allow::of(fleet.status.allow.as_ref()));
    let identity = fleet.status.tls.as_ref().map(|tls| Arc::new(tls.identity.clone()));
    for address in &fleet.status.at {
        if !address.is_local() && fleet.status.takes_everybody() {
            warn!(
                "listen.status: anybody who reaches {address} sees the whole fleet there; `allow` names who may."
            );
        }
        let (listener, bound) = bind(address, "status", Access::mode(0o660))?;
        say(&format!("listening status {bound}"));
        let (name, end, allow) = (Arc::from("status"), stop.clone(), Arc::clone(&allow));
        let (tasks, door) = (tasks.clone(), Arc::default());
        let hall = Hall { name, clock, stop: end.clone(), tasks, door, allow };
        let (page, identity) = (Arc::clone(&page), identity.clone());
        parts.spawn("the listener status", end, async move {
            accept::serve(listener, hall, Seats::new(ROOM), |stream, peer, seat| {
                secured::http(stream, peer, seat, Arc::clone(&page), identity.clone())
            })
            .await;
        });
    }
    for (at, node) in fleet.nodes.iter().enumerate() {
        let (what, end) = (format!("the follower of {}", node.name), stop.clone());
        let following = follow::follow(at, place(node, &fleet)?, news.clone());
        parts.spawn(&what, stop.clone(), async move {
            tokio::select! {
                () = following => {}
                () = end.cancelled() => {}
            }
        });
    }
    let (first, written) = oneshot::channel();
    let end = stop.clone();
    parts.spawn("the keeper of the file", stop.clone(), async move {
        tokio::select! {
            () = keeper.run(inbox, first) => {}
            () = end.cancelled() => {}
        }
    });
    tokio::select! {
        written = written => written.context("the keeper of the file has ended")??,
        () = signals.stop() => return Ok(()),
        ended = parts.ended() => bail!("{ended}"),
    }
    say("ready");
    systemd.ready();
    info!(output = %fleet.output.display(), nodes = fleet.nodes.len(), "Ready.");
    tokio::select! {
        () = signals.stop() => info!("Stopping; the file stays as it is."),
        ended = parts.ended() => bail!("{ended}"),
    }
    systemd.stopping();
    stop.cancel();
    tasks.close();
    let ended = async {
        parts.all_ended().await;
        tasks.wait().await;
    };
    let _ = timeout(LAST_TIME, ended).await;
    Ok(())
}
