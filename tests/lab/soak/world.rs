//! What is true, by what was broken: never by what hcf says.
//!
//! Each part is well, broken, or being changed, since a moment. From these follows, for each gateway, service and balancer,
//! since when it must be out, or may be expected in. Where that cannot be said for sure, nothing is demanded.

use std::time::{Duration, Instant};

use crate::bounds::{Kind, SLACK, noticed, recovery, verdict};
use crate::lab::cut::How;

pub const GATEWAYS: usize = 3;
pub const STORAGE: usize = 5;
/// Services, each with the storage servers that it needs: shares.needed and shares.happy.
pub const SERVICES: [(&str, usize); 2] = [("read", 2), ("write", 4)];

/// How one part is.
#[derive(Debug, Clone, Copy)]
pub enum Part {
    /// Well.
    Well(Instant),
    /// Being broken or mended: anything may be seen.
    Changing,
    /// Broken; storage servers and ways to them refuse or hang.
    Broken(Instant, How),
}

impl Part {
    fn well(self) -> Option<Instant> {
        match self {
            Self::Well(since) => Some(since),
            _ => None,
        }
    }
}

/// What an operator has ordered for a service of one gateway.
#[derive(Debug, Clone, Copy)]
pub enum Order {
    /// Nothing that matters here.
    None(Instant),
    /// Being given or taken back.
    Changing,
    /// Out: drain, down or maint; until it ends by itself.
    Out(Instant, Option<Instant>),
    /// In, whatever the criteria say.
    Up(Instant),
}

/// Everything.
#[derive(Debug, Clone)]
pub struct World {
    pub gateways: [Part; GATEWAYS],
    pub hcf: [Part; GATEWAYS],
    pub storage: [Part; STORAGE],
    pub links: [[Part; STORAGE]; GATEWAYS],
    pub orders: [[Order; SERVICES.len()]; GATEWAYS],
    /// Since when the criteria count, whatever was ordered before: the end of the last order to be in.
    pub judged: [[Instant; SERVICES.len()]; GATEWAYS],
    pub fronts: [Part; Kind::ALL.len()],
    /// Since when the gateway's own page shows the server as connected, and the page itself.
    pub seen: [[Option<Instant>; STORAGE]; GATEWAYS],
    pub page: [Option<Instant>; GATEWAYS],
    /// When this machine last stood still for longer than any bound allows for.
    pub stall: Instant,
}

/// Why a gateway must be out, or in, and since when that is so.
#[derive(Debug, Clone, Copy)]
pub struct Demand {
    pub why: Why,
    pub since: Instant,
    pub bound: Duration,
}

/// What there is to be noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// The gateway is dead or frozen.
    Gateway,
    /// Its hcf is.
    Hcf,
    /// Too few storage servers.
    Servers,
    /// An order.
    Order,
    /// All is well.
    Well,
}

impl Demand {
    /// Whether the bound is over.
    pub fn holds(&self, now: Instant) -> bool {
        now >= self.since + self.bound
    }
}

impl World {
    /// All well, from now on.
    pub fn new() -> Self {
        let now = Instant::now();
        Self {
            gateways: [Part::Well(now); GATEWAYS],
            hcf: [Part::Well(now); GATEWAYS],
            storage: [Part::Well(now); STORAGE],
            links: [[Part::Well(now); STORAGE]; GATEWAYS],
            orders: [[Order::None(now); SERVICES.len()]; GATEWAYS],
            judged: [[now; SERVICES.len()]; GATEWAYS],
            fronts: [Part::Well(now); Kind::ALL.len()],
            seen: [[None; STORAGE]; GATEWAYS],
            page: [None; GATEWAYS],
            stall: now,
        }
    }

    /// Each reason for which this gateway is, or will have to be, out of this service at this balancer.
    pub fn out(&self, gateway: usize, service: usize, kind: Kind) -> Vec<Demand> {
        deciding(service, kind).flat_map(|service| self.out_of(gateway, service, kind)).collect()
    }

    fn out_of(&self, gateway: usize, service: usize, kind: Kind) -> Vec<Demand> {
        let mut demands = Vec::new();
        let Some(front) = self.fronts[kind as usize].well() else { return demands };
        let base = front.max(self.stall);
        let hears = kind.hears() + SLACK;
        let hcf = match self.hcf[gateway] {
            Part::Broken(since, _) => {
                let (since, bound) = (since.max(base), kind.misses() + SLACK);
                return vec![Demand { why: Why::Hcf, since, bound }];
            }
            Part::Changing => return demands,
            Part::Well(since) => since.max(base),
        };
        let mut demand = |why, since: Instant, bound| {
            demands.push(Demand { why, since: since.max(hcf), bound });
        };
        let forced = match self.orders[gateway][service] {
            Order::Out(since, ends) => {
                // An order that is about to end demands nothing any more.
                if ends.is_none_or(|ends| ends > Instant::now() + SLACK) {
                    demand(Why::Order, since, hears);
                }
                false
            }
            Order::Up(_) | Order::Changing => true,
            Order::None(_) => false,
        };
        match self.gateways[gateway] {
            Part::Broken(since, _) => demand(Why::Gateway, since, verdict() + hears),
            Part::Changing => {}
            Part::Well(running) => {
                let mut lost: Vec<Instant> = (0..STORAGE)
                    .filter_map(|server| self.lost(gateway, server, running.max(self.stall)))
                    .collect();
                lost.sort_unstable();
                let spare = STORAGE - SERVICES[service].1;
                if let Some(since) = lost.get(spare).filter(|_| !forced) {
                    let since = self.judged[gateway][service].max(*since);
                    demand(Why::Servers, since, verdict() + hears);
                }
            }
        }
        demands
    }

    /// When the gateway must have noticed that it has lost this server.
    fn lost(&self, gateway: usize, server: usize, running: Instant) -> Option<Instant> {
        let parts = [self.storage[server], self.links[gateway][server]];
        let noticed = |part: Part| match part {
            Part::Broken(since, how) => Some(since.max(running) + noticed(how)),
            _ => None,
        };
        parts.into_iter().filter_map(noticed).min()
    }

    /// Since when everything has been so that this gateway is to be in; nothing while anything is in doubt.
    pub fn well(&self, gateway: usize, service: usize, kind: Kind) -> Option<Demand> {
        let each = deciding(service, kind).map(|service| self.well_for(gateway, service, kind));
        let all: Option<Vec<Demand>> = each.collect();
        all?.into_iter().max_by_key(|demand| demand.since)
    }

    fn well_for(&self, gateway: usize, service: usize, kind: Kind) -> Option<Demand> {
        let parts = [self.fronts[kind as usize], self.hcf[gateway], self.gateways[gateway]];
        let mut since = self.stall.max(self.page[gateway]?);
        for part in parts {
            since = since.max(part.well()?);
        }
        let mut usable: Vec<Instant> =
            (0..STORAGE).filter_map(|server| self.usable(gateway, server)).collect();
        usable.sort_unstable();
        let enough = usable.get(SERVICES[service].1 - 1);
        since = since.max(match self.orders[gateway][service] {
            Order::None(given) => given.max(*enough?),
            Order::Up(given) => given,
            Order::Out(..) | Order::Changing => return None,
        });
        Some(Demand { why: Why::Well, since, bound: recovery() + kind.finds() + SLACK })
    }

    /// Whether an order keeps this gateway in, whatever it can do.
    pub fn is_forced(&self, gateway: usize, service: usize) -> bool {
        matches!(self.orders[gateway][service], Order::Up(_))
    }

    fn usable(&self, gateway: usize, server: usize) -> Option<Instant> {
        let storage = self.storage[server].well()?;
        let link = self.links[gateway][server].well()?;
        Some(self.seen[gateway][server]?.max(storage).max(link))
    }

    /// What is not well, for people.
    pub fn story(&self) -> String {
        let mut said = String::new();
        let mut part = |name: String, part: Part| match part {
            Part::Well(_) => {}
            Part::Changing => said.push_str(&format!("  {name}: being changed\n")),
            Part::Broken(since, how) => said.push_str(&format!(
                "  {name}: broken for {:.1} s ({how:?})\n",
                since.elapsed().as_secs_f64()
            )),
        };
        for at in 0..GATEWAYS {
            part(format!("gw{}", at + 1), self.gateways[at]);
            part(format!("hcf of gw{}", at + 1), self.hcf[at]);
            for server in 0..STORAGE {
                part(format!("gw{} to store{}", at + 1, server + 1), self.links[at][server]);
            }
        }
        for (at, storage) in self.storage.iter().enumerate() {
            part(format!("store{}", at + 1), *storage);
        }
        for (kind, front) in Kind::ALL.iter().zip(self.fronts) {
            part(kind.name().to_owned(), front);
        }
        for (at, orders) in self.orders.iter().enumerate() {
            for (order, (service, _)) in orders.iter().zip(SERVICES) {
                if !matches!(order, Order::None(_)) {
                    said.push_str(&format!("  order for {service} of gw{}: {order:?}\n", at + 1));
                }
            }
        }
        for (at, seen) in self.seen.iter().enumerate() {
            let servers: Vec<String> = seen
                .iter()
                .zip(1..)
                .filter_map(|(seen, n)| {
                    Some(format!("store{n} for {:.1} s", (*seen)?.elapsed().as_secs_f64()))
                })
                .collect();
            said.push_str(&format!("  gw{}'s own page shows {}\n", at + 1, servers.join(", ")));
        }
        said
    }
}

/// The services that decide whether a request for this one comes to a gateway: in the fleet file `read` decides on everything.
fn deciding(service: usize, kind: Kind) -> std::ops::RangeInclusive<usize> {
    if kind == Kind::File { 0..=service } else { service..=service }
}
