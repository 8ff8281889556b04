//! What is broken, one after the other and several at a time, and how it is mended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::bounds::{Kind, config};
use crate::chance::Chance;
use crate::lab::cut::{Cut, How};
use crate::lab::process::Signal;
use crate::lab::wait::{LONG, pause};
use crate::shared::Shared;
use crate::stage::Stage;
use crate::world::{GATEWAYS, Order, Part, SERVICES, STORAGE, World};

/// At a time, at most.
const MOST: usize = 4;

/// One thing to break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    KillGateway(usize),
    FreezeGateway(usize),
    KillStorage(usize),
    FreezeStorage(usize),
    /// A gateway, from how many servers, and how.
    Cut(usize, usize, How),
    StopIntroducer,
    KillHcf(usize),
    FreezeHcf(usize),
    RestartHcf(usize),
    /// A gateway, one service or both, what, and whether it ends by itself.
    Order(usize, Option<usize>, &'static str, bool),
    Reload(usize),
    BadReload(usize),
    Hangup(usize),
    Renew(Kind),
    KillFleet,
}

impl Fault {
    /// Whether it lasts until it is mended.
    fn lasts(self) -> bool {
        !matches!(
            self,
            Self::RestartHcf(_)
                | Self::Reload(_)
                | Self::BadReload(_)
                | Self::Hangup(_)
                | Self::Renew(_)
        )
    }
}

/// One that is in effect.
#[derive(Debug)]
struct Active {
    fault: Fault,
    until: Instant,
    cut: Option<Cut>,
}

/// Breaks and mends.
#[derive(Debug)]
pub struct Breaker {
    pub stage: Stage,
    shared: Arc<Shared>,
    chance: Chance,
    active: Vec<Active>,
    /// How often what was broken.
    pub counts: BTreeMap<String, usize>,
    reloads: usize,
}

impl Breaker {
    pub fn new(stage: Stage, shared: Arc<Shared>, chance: Chance) -> Self {
        let (active, counts) = (Vec::new(), BTreeMap::new());
        let mut breaker = Self { stage, shared, chance, active, counts, reloads: 0 };
        breaker.tell_pids();
        breaker
    }

    /// Goes on for so long, and mends everything in the end.
    pub fn run(&mut self, time: Duration) {
        let end = Instant::now() + time;
        let mut next = Instant::now();
        while Instant::now() < end {
            self.mend(|active| active.until <= Instant::now());
            if Instant::now() >= next {
                if self.chance.below(8) == 0 {
                    // Quiet for as long as it takes until all must be in.
                    self.mend(|_| true);
                    next = Instant::now() + self.chance.time(10_000, 20_000);
                } else {
                    self.one_more();
                    next = Instant::now() + self.chance.time(500, 5_000);
                }
            }
            pause(Duration::from_millis(50));
        }
        self.mend(|_| true);
    }

    fn set(&self, change: impl FnOnce(&mut World)) {
        change(&mut self.shared.world());
    }

    fn tell_pids(&mut self) {
        let mut pids = BTreeMap::new();
        for sidecar in &mut self.stage.sidecars {
            if sidecar.is_running() {
                let pid = sidecar.hcf().process().pid();
                pids.insert(format!("hcf of {}", sidecar.place.name), pid);
            }
        }
        if let Some(eds) = &mut self.stage.fleet.running {
            pids.insert("hcf eds".to_owned(), eds.process().pid());
        }
        self.shared.tell_pids(pids);
    }

    fn one_more(&mut self) {
        if self.active.len() >= MOST {
            return;
        }
        let fault = self.choose();
        if !self.is_possible(fault) {
            return;
        }
        let until = Instant::now() + self.chance.time(1_500, 25_000);
        self.shared.event(&format!("break {fault:?}"));
        let name = format!("{fault:?}");
        let name = name.split('(').next().unwrap_or_default().to_owned();
        *self.counts.entry(name).or_default() += 1;
        let cut = self.break_it(fault, until);
        if fault.lasts() {
            self.active.push(Active { fault, until, cut });
        }
    }

    fn choose(&mut self) -> Fault {
        let gateway = self.chance.below(GATEWAYS);
        // The last one's lives for as long as the soak, so that its memory can be looked at.
        let mortal = self.chance.below(GATEWAYS - 1);
        let server = self.chance.below(STORAGE);
        let how = self.chance.one(&[How::Reject, How::Drop]);
        match self.chance.below(20) {
            0 => Fault::KillGateway(gateway),
            1 | 2 => Fault::FreezeGateway(gateway),
            3 => Fault::KillStorage(server),
            4 | 5 => Fault::FreezeStorage(server),
            6..=8 => Fault::Cut(gateway, self.chance.below(STORAGE) + 1, how),
            9 => Fault::StopIntroducer,
            10 => Fault::KillHcf(mortal),
            11 => Fault::FreezeHcf(gateway),
            12 => Fault::RestartHcf(mortal),
            13..=15 => {
                let words = ["drain", "maint", "down", "up", "weight"];
                let service = self.chance.one(&[None, Some(0), Some(1)]);
                Fault::Order(gateway, service, self.chance.one(&words), self.chance.below(2) == 0)
            }
            16 => self.chance.one(&[Fault::Reload(gateway), Fault::BadReload(gateway)]),
            17 => Fault::Hangup(gateway),
            18 => Fault::Renew(self.chance.one(&Kind::ALL)),
            _ => Fault::KillFleet,
        }
    }

    /// Whether nothing that is in effect touches the same.
    fn is_possible(&self, fault: Fault) -> bool {
        let active = |other: &dyn Fn(Fault) -> bool| self.active.iter().any(|a| other(a.fault));
        let world = self.shared.world();
        let hcf = |at: usize| matches!(world.hcf[at], Part::Well(_));
        match fault {
            Fault::KillGateway(at) | Fault::FreezeGateway(at) => {
                matches!(world.gateways[at], Part::Well(_))
            }
            Fault::KillStorage(at) | Fault::FreezeStorage(at) => {
                matches!(world.storage[at], Part::Well(_))
            }
            Fault::Cut(at, ..) => !active(&|f| matches!(f, Fault::Cut(other, ..) if other == at)),
            Fault::StopIntroducer | Fault::KillFleet => !active(&|other| other == fault),
            Fault::KillHcf(at)
            | Fault::FreezeHcf(at)
            | Fault::RestartHcf(at)
            | Fault::Reload(at)
            | Fault::BadReload(at)
            | Fault::Hangup(at) => hcf(at),
            Fault::Order(at, ..) => {
                hcf(at) && !active(&|f| matches!(f, Fault::Order(other, ..) if other == at))
            }
            Fault::Renew(kind) => matches!(world.fronts[kind as usize], Part::Well(_)),
        }
    }

    /// Breaks it; a cut lasts as long as what comes back.
    fn break_it(&mut self, fault: Fault, until: Instant) -> Option<Cut> {
        let broken = |how| Part::Broken(Instant::now(), how);
        let now = || Part::Well(Instant::now());
        let mut cut = None;
        match fault {
            Fault::KillGateway(at) => {
                self.set(|world| world.gateways[at] = Part::Changing);
                self.stage.grid.gateways[at].node.kill();
                self.set(|world| world.gateways[at] = broken(How::Reject));
            }
            Fault::FreezeGateway(at) => {
                self.set(|world| world.gateways[at] = Part::Changing);
                self.stage.grid.gateways[at].node.stop();
                self.set(|world| world.gateways[at] = broken(How::Drop));
            }
            Fault::KillStorage(at) => {
                self.set(|world| world.storage[at] = Part::Changing);
                self.stage.grid.storage[at].kill();
                self.set(|world| world.storage[at] = broken(How::Reject));
            }
            Fault::FreezeStorage(at) => {
                self.set(|world| world.storage[at] = Part::Changing);
                self.stage.grid.storage[at].stop();
                self.set(|world| world.storage[at] = broken(How::Drop));
            }
            Fault::Cut(at, count, how) => {
                self.set(|world| world.links[at][..count].fill(Part::Changing));
                let ports = self.stage.grid.storage_ports(count);
                cut = Some(Cut::new(&self.stage.grid.gateways[at], &ports, how));
                self.set(|world| world.links[at][..count].fill(broken(how)));
            }
            Fault::StopIntroducer => self.stage.grid.introducer.kill(),
            Fault::KillHcf(at) => {
                self.set(|world| world.hcf[at] = Part::Changing);
                self.stage.sidecars[at].end();
                self.set(|world| world.hcf[at] = broken(How::Reject));
                self.tell_pids();
            }
            Fault::FreezeHcf(at) => {
                self.set(|world| world.hcf[at] = Part::Changing);
                self.stage.sidecars[at].hcf().signal(Signal::Stop);
                self.set(|world| world.hcf[at] = broken(How::Drop));
            }
            Fault::RestartHcf(at) => {
                self.set(|world| world.hcf[at] = Part::Changing);
                let process = self.stage.sidecars[at].hcf().process();
                process.signal(Signal::Term);
                process.wait_end(LONG);
                self.stage.sidecars[at].begin();
                self.set(|world| world.hcf[at] = now());
                self.tell_pids();
            }
            Fault::Order(at, service, word, ends) => {
                self.order(at, service, word, ends.then_some(until));
            }
            Fault::Reload(at) => self.reload(at, true),
            Fault::BadReload(at) => self.reload(at, false),
            Fault::Hangup(at) => self.stage.sidecars[at].hcf().signal(Signal::Hup),
            Fault::Renew(kind) => {
                self.set(|world| world.fronts[kind as usize] = Part::Changing);
                self.stage.fronts[kind as usize].renew();
                self.set(|world| world.fronts[kind as usize] = now());
            }
            Fault::KillFleet => {
                self.set(|world| world.fronts[Kind::File as usize] = Part::Changing);
                self.stage.fleet.kill();
                self.tell_pids();
            }
        }
        cut
    }

    fn order(&mut self, at: usize, service: Option<usize>, word: &str, ends: Option<Instant>) {
        let services = services(service);
        let each = |order: Order| {
            let services = services.clone();
            move |world: &mut World| services.for_each(|service| world.orders[at][service] = order)
        };
        self.set(each(Order::Changing));
        let left = ends.map(|ends| ends.saturating_duration_since(Instant::now()).as_millis());
        let left = left.map(|left| format!("{left}ms"));
        let mut words = vec![word];
        if word == "weight" {
            words.push("30");
        }
        words.extend(service.map(|service| SERVICES[service].0));
        words.extend(["-m", "soak"]);
        if let Some(left) = &left {
            words.extend(["--for", left]);
        }
        self.must(at, &words);
        let given = Instant::now();
        self.set(each(match word {
            // Whether it still holds is not known to the moment.
            "up" if ends.is_some() => Order::Changing,
            "up" => Order::Up(given),
            "weight" => Order::None(given),
            _ => Order::Out(given, ends),
        }));
    }

    /// An order that hcf must obey.
    fn must(&self, at: usize, words: &[&str]) {
        if let Err(said) = self.stage.sidecars[at].order(words) {
            let what = format!("hcf of gw{} has refused an order: {said}", at + 1);
            self.shared.violation(&what, Some(at), "");
        }
    }

    fn reload(&mut self, at: usize, good: bool) {
        self.reloads += 1;
        let dir = self.stage.grid.gateways[at].dir().display().to_string();
        let mut text = config(&dir);
        let before = text.clone();
        if good {
            let number = self.reloads;
            text.push_str(&format!(
                "\nservices: {{extra{number}: {{criteria: {{servers: {{min: 1}}}}}}}}"
            ));
        } else {
            text.push_str("\nservices: {write: {criterions: off}}");
        }
        self.stage.sidecars[at].rewrite(&text);
        let done = self.stage.sidecars[at].order(&["reload"]);
        if done.is_ok() != good {
            let what = format!("a reload that was to end with success {good} ended with {done:?}");
            self.shared.violation(&what, Some(at), &text);
        }
        if !good {
            self.stage.sidecars[at].rewrite(&before);
        }
    }

    /// Mends those.
    fn mend(&mut self, which: impl Fn(&Active) -> bool) {
        let (due, kept): (Vec<Active>, Vec<Active>) =
            std::mem::take(&mut self.active).into_iter().partition(which);
        self.active = kept;
        // An hcf comes before the orders that it is to take back.
        let (orders, rest): (Vec<Active>, Vec<Active>) =
            due.into_iter().partition(|active| matches!(active.fault, Fault::Order(..)));
        for active in rest.into_iter().chain(orders) {
            self.mend_one(active);
        }
    }

    fn mend_one(&mut self, active: Active) {
        let now = || Part::Well(Instant::now());
        match active.fault {
            Fault::KillGateway(at) => {
                self.stage.grid.gateways[at].node.start();
                self.set(|world| world.gateways[at] = now());
            }
            Fault::FreezeGateway(at) => {
                self.set(|world| world.gateways[at] = Part::Changing);
                self.stage.grid.gateways[at].node.cont();
                self.set(|world| world.gateways[at] = now());
            }
            Fault::KillStorage(at) => {
                self.set(|world| world.storage[at] = Part::Changing);
                self.stage.grid.storage[at].start();
                self.set(|world| world.storage[at] = now());
            }
            Fault::FreezeStorage(at) => {
                self.set(|world| world.storage[at] = Part::Changing);
                self.stage.grid.storage[at].cont();
                self.set(|world| world.storage[at] = now());
            }
            Fault::Cut(at, count, _) => {
                self.set(|world| world.links[at][..count].fill(Part::Changing));
                drop(active.cut);
                self.set(|world| world.links[at][..count].fill(now()));
            }
            Fault::StopIntroducer => self.stage.grid.introducer.start(),
            Fault::KillHcf(at) => {
                self.set(|world| world.hcf[at] = Part::Changing);
                self.stage.sidecars[at].begin();
                self.set(|world| world.hcf[at] = now());
                self.tell_pids();
            }
            Fault::FreezeHcf(at) => {
                self.set(|world| world.hcf[at] = Part::Changing);
                self.stage.sidecars[at].hcf().signal(Signal::Cont);
                self.set(|world| world.hcf[at] = now());
            }
            Fault::Order(at, service, word, ends) => {
                if !matches!(self.shared.world().hcf[at], Part::Well(_)) {
                    let until = Instant::now() + Duration::from_millis(500);
                    self.active.push(Active { until, ..active });
                    return;
                }
                let services = services(service);
                if ends && Instant::now() >= active.until {
                    // It has ended by itself.
                    pause(Duration::from_millis(200));
                } else {
                    let each = services.clone();
                    self.set(|world| each.for_each(|s| world.orders[at][s] = Order::Changing));
                    self.must(at, &["clear"]);
                }
                let given = Instant::now();
                self.set(|world| {
                    for s in services {
                        world.orders[at][s] = Order::None(given);
                        if word == "up" {
                            world.judged[at][s] = given;
                        }
                    }
                });
            }
            Fault::KillFleet => {
                self.stage.fleet.begin();
                self.set(|world| world.fronts[Kind::File as usize] = now());
                self.tell_pids();
            }
            other => debug_assert!(!other.lasts(), "{other:?}"),
        }
        self.shared.event(&format!("mended {:?}", active.fault));
    }
}

/// The numbers of one service, or of all.
fn services(service: Option<usize>) -> std::ops::Range<usize> {
    service.map_or(0..SERVICES.len(), |service| service..service + 1)
}
