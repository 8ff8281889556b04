//! The listeners that answer questions: agent, health, grpc, status and admin, each at its addresses.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use arc_swap::ArcSwapOption;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::inherited::Inherited;
use super::parts::Parts;
use super::reload::{Outcome, Request};
use super::room::{self, Room};
use crate::board::Board;
use crate::config::{self, Address, Config};
use crate::health::Moment;
use crate::history::Archive;
use crate::overrides::{Desk, Ruling};
use crate::serve::HealthSite;
use crate::serve::accept::{self, Allow, Seats};
use crate::serve::admin::AdminSite;
use crate::serve::agent::Agent;
use crate::serve::bind::{Access, Listener, bind};
use crate::serve::greet;
use crate::serve::grpc::GrpcSite;
use crate::serve::http::Site;
use crate::serve::secured;
use crate::serve::status::{Gates, StatusSite};
use crate::tls::Identity;

/// What a listener answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Agent,
    Health,
    Grpc,
    Status,
    Admin,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Agent, Self::Health, Self::Grpc, Self::Status, Self::Admin];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Health => "health",
            Self::Grpc => "grpc",
            Self::Status => "status",
            Self::Admin => "admin",
        }
    }

    fn access(self, config: &Config) -> Access {
        match self {
            Self::Agent | Self::Health | Self::Grpc => Access::mode(0o666),
            // It shows the grid's topology.
            Self::Status => Access::mode(0o660),
            // Whoever can connect may change things.
            Self::Admin => Access { mode: 0o660, group: config.admin.group },
        }
    }

    fn addresses(self, config: &Config) -> Vec<Address> {
        match self.keys(config) {
            Some(listener) => listener.at.clone(),
            None => config.admin.socket.iter().cloned().map(Address::Unix).collect(),
        }
    }

    /// What the configuration says of it; `None` for the admin socket, which has keys of its own.
    const fn keys(self, config: &Config) -> Option<&config::Listener> {
        match self {
            Self::Agent => Some(&config.listen.agent),
            Self::Health => Some(&config.listen.health),
            Self::Grpc => Some(&config.listen.grpc),
            Self::Status => Some(&config.listen.status),
            Self::Admin => None,
        }
    }
}

/// What holds at a listener, as the configuration has it just now; whoever is in stays in.
#[derive(Clone, Default)]
struct Terms {
    allow: Arc<Allow>,
    identity: Arc<ArcSwapOption<Identity>>,
}

impl Terms {
    fn of(kind: Kind, config: &Config) -> Self {
        let terms = Self::default();
        terms.set(kind, config);
        terms
    }

    fn set(&self, kind: Kind, config: &Config) {
        let keys = kind.keys(config);
        self.allow.set(keys.and_then(|keys| keys.allow.as_ref()));
        let identity = keys.and_then(|keys| Some(keys.tls.as_ref()?.identity.clone()));
        self.identity.store(identity.map(Arc::new));
    }
}

/// A socket that is to be served.
pub(super) struct Socket {
    pub(super) kind: Kind,
    /// The address in the configuration; `None` for an inherited one, which is the service manager's to place.
    asked: Option<Address>,
    listener: Listener,
    terms: Terms,
    /// The address that it has.
    pub(super) bound: Address,
}

/// Opens every socket that `config` wants. Inherited ones take the place of all of their listener's addresses.
pub(super) fn bind_all(config: &Config, inherited: &mut Inherited) -> Result<Vec<Socket>> {
    let mut sockets = Vec::new();
    for kind in Kind::ALL {
        let addresses = kind.addresses(config);
        let claimed = inherited.claim(kind.name(), &addresses);
        if claimed.is_empty() {
            for address in addresses {
                sockets.push(bind_one(config, kind, &address, address.clone())?);
            }
        }
        for (listener, bound) in claimed {
            sockets.push(Socket {
                kind,
                asked: None,
                listener,
                terms: Terms::of(kind, config),
                bound,
            });
        }
    }
    Ok(sockets)
}

/// A socket that is to be opened.
pub(super) struct Missing {
    pub(super) kind: Kind,
    pub(super) asked: Address,
    /// Its port is one that runs already, with another host.
    ours: bool,
}

/// Opens these sockets, each at its address with the host resolved. Nothing that runs is touched.
pub(super) fn bind_missing(
    config: &Config,
    missing: impl Iterator<Item = (Missing, Address)>,
) -> Result<Vec<Socket>> {
    let open = |(Missing { kind, asked, ours }, at)| {
        let late = "hcf has this port already, and gives it another host only at a restart";
        let bound = bind_one(config, kind, &at, asked);
        if ours { bound.context(late) } else { bound }
    };
    missing.map(open).collect()
}

fn bind_one(config: &Config, kind: Kind, at: &Address, asked: Address) -> Result<Socket> {
    if let (Kind::Admin, Address::Unix(path)) = (kind, at)
        && let Some(dir) = path.parent()
        && !dir.exists()
    {
        // The default one under $XDG_RUNTIME_DIR is nobody else's to make.
        let _ = std::fs::create_dir(dir);
    }
    let (listener, bound) = bind(at, kind.name(), kind.access(config))?;
    Ok(Socket { kind, asked: Some(asked), listener, terms: Terms::of(kind, config), bound })
}

/// What listeners answer from.
pub(super) struct Sites {
    board: Arc<Board>,
    health: Arc<HealthSite>,
    grpc: Arc<GrpcSite>,
    status: Arc<StatusSite>,
    admin: Arc<AdminSite>,
}

impl Sites {
    pub(super) fn new(
        board: &Arc<Board>,
        gates: Gates,
        rulings: watch::Receiver<Arc<Ruling>>,
        history: Arc<Archive>,
        desk: Desk,
        reload: mpsc::Sender<Request>,
    ) -> Result<Self> {
        let health = Arc::new(HealthSite { board: Arc::clone(board), listener: "health" });
        let status = Arc::new(StatusSite::new(Arc::clone(board), gates, rulings, history));
        let admin = Arc::new(AdminSite::new(Arc::clone(&status), desk, reload));
        let grpc = Arc::new(GrpcSite::new(board)?);
        Ok(Self { board: Arc::clone(board), health, grpc, status, admin })
    }
}

/// The listeners that run.
pub(super) struct Listeners {
    sites: Sites,
    running: Vec<Running>,
}

struct Running {
    kind: Kind,
    asked: Option<Address>,
    terms: Terms,
    end: CancellationToken,
}

impl Running {
    fn has_port_of(&self, other: &Address) -> bool {
        let port = |address: &Address| match address {
            Address::Tcp { port, .. } => Some(*port),
            Address::Unix(_) => None,
        };
        port(other).is_some() && self.asked.as_ref().is_some_and(|asked| port(asked) == port(other))
    }
}

impl Listeners {
    pub(super) const fn new(sites: Sites) -> Self {
        Self { sites, running: Vec::new() }
    }

    /// Serves these sockets. It fails where the thread that answers balancers cannot be started.
    pub(super) fn open(
        &mut self,
        sockets: Vec<Socket>,
        room: Room,
        shared: &Shared,
        parts: &mut Parts,
    ) -> Result<()> {
        for Socket { kind, asked, listener, terms, .. } in sockets {
            let end = shared.stop.child_token();
            let Terms { allow, identity } = terms.clone();
            self.running.push(Running { kind, asked, terms, end: end.clone() });
            let hall = shared.hall(kind.name(), end.clone(), allow);
            let what = format!("the listener {}", kind.name());
            let runtime = match kind {
                Kind::Agent | Kind::Health | Kind::Grpc => shared.answering.start()?,
                // Operators may ask for much at once.
                Kind::Status | Kind::Admin => Handle::current(),
            };
            let site: Arc<dyn Site> = match kind {
                Kind::Agent => {
                    let agent = Arc::new(Agent::new(Arc::clone(&self.sites.board)));
                    let seats = Seats::new(room::AGENT.min(room.listener));
                    parts.spawn_thread("agent", &what, end, move || {
                        let greet = |stream: &OwnedFd, peer| agent.greet(stream, peer);
                        let serve = |stream, peer, seat, said| {
                            Arc::clone(&agent).serve(stream, peer, seat, said)
                        };
                        greet::serve(&runtime, &listener, &hall, &seats, greet, serve);
                    })?;
                    continue;
                }
                Kind::Grpc => {
                    let grpc = Arc::clone(&self.sites.grpc);
                    let seats = Seats::new(room::GRPC.min(room.listener));
                    parts.spawn_on(&runtime, &what, end, async move {
                        accept::serve(listener, hall, seats, |stream, peer, seat| {
                            secured::grpc(
                                stream,
                                peer,
                                seat,
                                Arc::clone(&grpc),
                                identity.load_full(),
                            )
                        })
                        .await;
                    });
                    continue;
                }
                Kind::Health => Arc::clone(&self.sites.health) as _,
                Kind::Status => Arc::clone(&self.sites.status) as _,
                Kind::Admin => Arc::clone(&self.sites.admin) as _,
            };
            let seats = Seats::new(room::HTTP.min(room.listener));
            parts.spawn_on(&runtime, &what, end, async move {
                accept::serve(listener, hall, seats, |stream, peer, seat| {
                    secured::http(stream, peer, seat, Arc::clone(&site), identity.load_full())
                })
                .await;
            });
        }
        Ok(())
    }

    /// What `config` wants and is not there yet.
    pub(super) fn missing(&self, config: &Config) -> Vec<Missing> {
        let mut missing = Vec::new();
        for kind in Kind::ALL.into_iter().filter(|kind| !self.stays(*kind)) {
            for asked in kind.addresses(config) {
                let here = |running: &Running| {
                    running.kind == kind && running.asked.as_ref() == Some(&asked)
                };
                if !self.running.iter().any(here) {
                    let ours = self.running.iter().any(|running| running.has_port_of(&asked));
                    missing.push(Missing { kind, asked, ours });
                }
            }
        }
        missing
    }

    /// Whether a listener stays where it is until a restart: the admin socket, and one with inherited sockets.
    fn stays(&self, kind: Kind) -> bool {
        let given = |running: &Running| running.kind == kind && running.asked.is_none();
        kind == Kind::Admin || self.running.iter().any(given)
    }

    /// Ends the listeners that `config` does not want any more, and tells the others what holds there.
    pub(super) fn go_over(&mut self, config: &Config) {
        self.running.retain(|running| {
            let asked = running.asked.as_ref();
            let wanted = running.kind == Kind::Admin
                || asked.is_none_or(|asked| running.kind.addresses(config).contains(asked));
            if wanted {
                running.terms.set(running.kind, config);
            } else {
                running.end.cancel();
            }
            wanted
        });
    }

    /// Shows what came of a reload.
    pub(super) fn reloaded(&self, outcome: Outcome, at: Moment) {
        self.sites.status.reloaded(at, outcome);
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.running.len()
    }
}
