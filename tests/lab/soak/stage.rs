//! The programs: a grid, an hcf beside each gateway, and four balancers at fixed ports, which can be started again.

use tempfile::TempDir;

use crate::bounds::{Kind, config};
use crate::lab::eds::Eds;
use crate::lab::envoy::Envoy;
use crate::lab::haproxy::{Haproxy, Version};
use crate::lab::ports::free_port;
use crate::lab::shipped::{self, Place};
use crate::lab::sidecar::Sidecar;
use crate::lab::tahoe::Grid;
use crate::world::{GATEWAYS, SERVICES, STORAGE};

/// Everything that runs.
#[derive(Debug)]
pub struct Stage {
    pub grid: Grid,
    pub sidecars: Vec<Sidecar>,
    pub fronts: Vec<Front>,
    pub fleet: Fleet,
}

/// One balancer.
#[derive(Debug)]
pub struct Front {
    pub kind: Kind,
    /// Where clients ask.
    pub web: String,
    /// Where it says what it thinks: HAProxy's socket, or Envoy's admin port.
    pub mind: String,
    balancer: Balancer,
}

#[derive(Debug)]
enum Balancer {
    Haproxy(Haproxy),
    /// And its configuration.
    Envoy(Option<Envoy>, String),
}

/// `hcf eds`, running or not.
#[derive(Debug)]
pub struct Fleet {
    pub running: Option<Eds>,
    folder: Option<TempDir>,
    config: String,
}

impl Stage {
    pub fn start() -> Self {
        let (needed, happy) = (u32::try_from(SERVICES[0].1), u32::try_from(SERVICES[1].1));
        let shares = (needed.expect("few"), happy.expect("few"), 5);
        let (needed, happy, total) = shares;
        let builder = Grid::builder().gateways(GATEWAYS).storage(STORAGE);
        let mut grid = builder.shares(needed, happy, total).apart().start();
        grid.wait_ready();
        let grpc = free_port();
        let sidecars: Vec<Sidecar> = grid
            .gateways
            .iter()
            .map(|gateway| {
                let config = config(&gateway.dir().display().to_string());
                Sidecar::start(&gateway.node.name, &gateway.web, grpc, &config)
            })
            .collect();
        let places: Vec<Place> = sidecars.iter().map(|sidecar| sidecar.place.clone()).collect();
        let nodes: Vec<_> = sidecars
            .iter()
            .map(|sidecar| {
                let Place { name, ip, node, .. } = sidecar.place.clone();
                (name, format!("{ip}:{node}"), format!("http://{}", sidecar.status))
            })
            .collect();
        let fleet = Fleet::start(Eds::config("service: read", &nodes));
        let fronts = Kind::ALL.map(|kind| Front::start(kind, &places, &fleet)).into();
        Self { grid, sidecars, fronts, fleet }
    }
}

impl Front {
    fn start(kind: Kind, places: &[Place], fleet: &Fleet) -> Self {
        let (web, admin) = (free_port(), free_port());
        let haproxy = |version, file| {
            let haproxy = Haproxy::start(version, &shipped::haproxy(file, web, places));
            (haproxy.socket().to_owned(), Balancer::Haproxy(haproxy))
        };
        let envoy = |file, places: &[Place]| {
            let config = shipped::envoy(file, web, places);
            let config = config.replacen("port_value: 0}", &format!("port_value: {admin}}}"), 1);
            let config = match &fleet.running {
                Some(eds) => {
                    config.replace("/run/hcf/webapi.eds.json", &eds.output().display().to_string())
                }
                None => config,
            };
            (format!("127.0.0.1:{admin}"), Balancer::Envoy(None, config))
        };
        let (mind, balancer) = match kind {
            Kind::Poll => haproxy(Version::V2_6, "recommended.cfg"),
            Kind::Hold => haproxy(Version::V2_8, "longpoll.cfg"),
            Kind::Check => envoy("refuse-writes.yaml", places),
            Kind::File => envoy("eds.yaml", &[]),
        };
        let mut front = Self { kind, web: format!("127.0.0.1:{web}"), mind, balancer };
        if matches!(front.balancer, Balancer::Envoy(..)) {
            front.renew();
        }
        front
    }

    /// Another process in the place of this one: HAProxy takes over from the old one, Envoy begins anew.
    pub fn renew(&mut self) {
        match &mut self.balancer {
            Balancer::Haproxy(haproxy) => haproxy.reload(),
            Balancer::Envoy(envoy, config) => {
                *envoy = None;
                envoy.insert(Envoy::start(config)).wait_live();
            }
        }
    }
}

impl Fleet {
    fn start(config: String) -> Self {
        Self { running: Some(Eds::start(&config)), folder: None, config }
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.folder = self.running.take().map(Eds::kill);
    }

    /// Starts it again, with the file that it has written.
    pub fn begin(&mut self) {
        if let Some(folder) = self.folder.take() {
            self.running = Some(Eds::start_in(folder, &self.config));
        }
    }
}
