//! The admin socket: what the status listener shows, and the only place where anything can be changed.
//!
//! It is a Unix socket, and whoever can connect may change things; who did is asked of the kernel, not of the client.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::json;
use tokio::net::unix::UCred;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::accept::Peer;
use super::http::{Change, Changing, Reply, Site};
use super::status::StatusSite;
use super::watch::Watcher;
use crate::board::Board;
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

    /// The services that a path names; all of them for an empty name.
    fn services(&self, name: &str) -> Result<Vec<Arc<str>>, Reply> {
        let table = self.board().table();
        let known: Vec<Arc<str>> = table.services.iter().map(|s| Arc::clone(&s.name)).collect();
        if name.is_empty() {
            return Ok(known);
        }
        let found: Vec<_> = known.iter().filter(|known| &***known == name).cloned().collect();
        if found.is_empty() {
            let known = known.join(", ");
            let detail = format!("there is no service `{name}`; expected one of {known}");
            return Err(problem(404, &detail));
        }
        Ok(found)
    }

    async fn put(&self, name: &str, body: &[u8], peer: Option<UCred>) -> Reply {
        let services = match self.services(name) {
            Ok(services) => services,
            Err(reply) => return reply,
        };
        let put = match Put::parse(body, SystemTime::now()) {
            Ok(put) => put,
            Err(why) => return problem(400, &why),
        };
        self.settled(self.desk.set(put.request(services, by(peer))).await).await
    }

    async fn delete(&self, name: &str, query: &str, peer: Option<UCred>) -> Reply {
        let services = match self.services(name) {
            Ok(services) => (!name.is_empty()).then_some(services),
            Err(reply) => return reply,
        };
        let owner = query.split('&').find_map(|pair| pair.strip_prefix("owner="));
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

    async fn reload(&self) -> Reply {
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

    fn change<'a>(&'a self, change: Change<'a>) -> Option<Changing<'a>> {
        let Change { method, path, query, body, peer } = change;
        let name =
            path.strip_prefix("/v1/overrides/").or_else(|| (path == "/v1/overrides").then_some(""));
        match (method, name) {
            ("PUT", Some(name)) => Some(Box::pin(self.put(name, body, peer))),
            ("DELETE", Some(name)) => Some(Box::pin(self.delete(name, query, peer))),
            ("POST", None) if path == "/v1/reload" => Some(Box::pin(self.reload())),
            _ => None,
        }
    }
}

/// Who it is, as the kernel says.
fn by(peer: Option<UCred>) -> Arc<str> {
    let Some(peer) = peer else { return "unknown".into() };
    let name = uzers::get_user_by_uid(peer.uid());
    let name = name.map_or_else(|| "?".to_owned(), |user| user.name().to_string_lossy().into());
    let pid = peer.pid().map(|pid| format!(", pid {pid}")).unwrap_or_default();
    format!("{name} (uid {}{pid})", peer.uid()).into()
}

fn problem(status: u16, detail: &str) -> Reply {
    Reply::json(status, &json!({"status": status, "detail": detail}))
}
