//! The admin socket: what the status listener shows, and the only place where anything can be changed.
//!
//! It is a Unix socket, and whoever can connect may change things; who did is asked of the kernel, not of the client.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::json;
use tokio::net::unix::UCred;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::info;

use super::accept::Peer;
use super::http::{Change, Later, Reply, Site};
use super::status::StatusSite;
use super::watch::Watcher;
use crate::board::Board;
use crate::config::is_word;
use crate::daemon::{Outcome, ReloadRequest};
use crate::overrides::{Clear, Desk, Put, Refused};

/// Answers, and changes things.
#[derive(Debug)]
pub struct AdminSite {
    status: Arc<StatusSite>,
    desk: Desk,
    reload: mpsc::Sender<ReloadRequest>,
}

/// How long a change may take to be in every answer, or a reload to be through.
const TIME: Duration = Duration::from_secs(30);

impl AdminSite {
    /// A site that shows what `status` shows, takes overrides to `desk`, and asks for reloads.
    #[must_use]
    pub const fn new(
        status: Arc<StatusSite>,
        desk: Desk,
        reload: mpsc::Sender<ReloadRequest>,
    ) -> Self {
        Self { status, desk, reload }
    }

    fn board(&self) -> &Board {
        self.status.board()
    }

    /// The services that a path names, with commas between; `None` for none, which means all.
    fn services(&self, names: Option<&str>) -> Result<Option<Vec<Arc<str>>>, Reply> {
        let Some(names) = names else { return Ok(None) };
        let board = self.board();
        let find = |name: &str| {
            let service = (!name.is_empty()).then(|| board.service(name)).flatten();
            service.map(|service| Arc::clone(&service.name)).ok_or_else(|| {
                let known = self.all().join(", ");
                let detail = format!("there is no service `{name}`; expected one of {known}");
                problem(404, &detail)
            })
        };
        names.split(',').map(find).collect::<Result<_, _>>().map(Some)
    }

    fn all(&self) -> Vec<Arc<str>> {
        self.board().table().services.iter().map(|s| Arc::clone(&s.name)).collect()
    }

    async fn put(&self, names: Option<&str>, body: &[u8], peer: Option<UCred>) -> Reply {
        let services = match self.services(names) {
            Ok(services) => services.unwrap_or_else(|| self.all()),
            Err(reply) => return reply,
        };
        let put = match Put::parse(body, SystemTime::now()) {
            Ok(put) => put,
            Err(why) => return problem(400, &why),
        };
        self.settled(self.desk.set(put.request(services, by(peer))).await).await
    }

    async fn delete(&self, names: Option<&str>, query: &str, peer: Option<UCred>) -> Reply {
        let services = match self.services(names) {
            Ok(services) => services,
            Err(reply) => return reply,
        };
        let owner = query.split('&').find_map(|pair| pair.strip_prefix("owner="));
        if let Some(owner) = owner.filter(|owner| !is_word(owner)) {
            return problem(400, &format!("the owner `{owner}` is no name"));
        }
        let clear = Clear { services, owner: owner.map(Into::into), by: by(peer) };
        self.settled(self.desk.clear(clear).await).await
    }

    /// The answer, once what was ordered is in everybody else's.
    async fn settled(&self, done: Result<u64, Refused>) -> Reply {
        match done {
            Ok(generation) => {
                let mut applied = self.board().applied.clone();
                let waiting = applied.wait_for(|applied| *applied >= generation);
                if timeout(TIME, waiting).await.is_err() {
                    return problem(500, "it is kept, but the judge does not take it up");
                }
                self.status.get("/v1/overrides", "", None)
            }
            Err(refused) => {
                let status = match refused {
                    Refused::Senseless(_) => 400,
                    Refused::Full(_) => 409,
                    Refused::NotKept(_) => 507,
                    Refused::Unknown(_) => 503,
                };
                problem(status, &refused.to_string())
            }
        }
    }

    async fn reload(&self, peer: Option<UCred>) -> Reply {
        info!(by = &*by(peer), "A reload is asked for.");
        let (answer, outcome) = oneshot::channel();
        let asked = self.reload.send(answer).await.is_ok();
        match timeout(TIME, outcome).await {
            Ok(Ok(outcome)) if asked => {
                let status = match outcome {
                    Outcome::Unchanged | Outcome::Changed { .. } => 200,
                    Outcome::Senseless { .. } => 422,
                    Outcome::Impossible { .. } => 409,
                };
                Reply::json(status, &json!(outcome))
            }
            _ => problem(503, "the sidecar is starting or stopping, so it does not reload"),
        }
    }
}

impl Site for AdminSite {
    fn get(&self, path: &str, query: &str, peer: Peer) -> Reply {
        self.status.get(path, query, peer)
    }

    fn watch(&self, path: &str) -> Option<Watcher> {
        self.status.watch(path)
    }

    fn later<'a>(&'a self, path: &str, query: &'a str) -> Option<Later<'a>> {
        self.status.later(path, query)
    }

    fn change<'a>(&'a self, change: Change<'a>) -> Option<Later<'a>> {
        let Change { method, path, query, body, peer } = change;
        let names = path.strip_prefix("/v1/overrides/");
        let overrides = names.is_some() || path == "/v1/overrides";
        match method {
            "PUT" if overrides => Some(Box::pin(self.put(names, body, peer))),
            "DELETE" if overrides => Some(Box::pin(self.delete(names, query, peer))),
            "POST" if path == "/v1/reload" => Some(Box::pin(self.reload(peer))),
            _ => None,
        }
    }
}

/// Who it is, as the kernel says, and the way that was taken.
fn by(peer: Option<UCred>) -> Arc<str> {
    let Some(peer) = peer else { return "unknown, admin socket".into() };
    let name = uzers::get_user_by_uid(peer.uid());
    let name = name.map_or_else(|| "?".to_owned(), |user| user.name().to_string_lossy().into());
    let pid = peer.pid().map(|pid| format!(", pid {pid}")).unwrap_or_default();
    format!("{name} (uid {}{pid}), admin socket", peer.uid()).into()
}

fn problem(status: u16, detail: &str) -> Reply {
    Reply::json(status, &json!({"status": status, "detail": detail}))
}
