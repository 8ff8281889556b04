//! The gates that run, and how one configuration's become another's without a port closing.

use std::sync::Arc;

use anyhow::Result;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::inherited::Inherited;
use super::parts::Parts;
use super::{Shared, Unfit};
use crate::config::{self, Address, Config, WhenBad};
use crate::serve::accept::Allow;
use crate::serve::gate::{Gate, Handover, Port, View};
use crate::serve::status::Gates as Shown;
use crate::tahoe::Target;

/// The gates that run.
#[derive(Default)]
pub(super) struct Gates {
    running: Vec<Running>,
    shown: Shown,
}

struct Running {
    /// The address in the configuration; `None` for an inherited socket, which is the service manager's to place.
    asked: Option<Address>,
    target: Target,
    bound: Address,
    gate: Arc<Gate>,
    /// Asks it to hand over its port.
    end: CancellationToken,
    port: oneshot::Receiver<Handover>,
}

/// A gate and its port, bound.
pub(super) type Bound = (config::Gate, Handover);

/// Takes the port of every gate. An inherited socket takes the place of those at the gate's addresses.
pub(super) fn bind_all(config: &Config, inherited: &mut Inherited) -> Result<Vec<Bound>> {
    let mut gates = Vec::new();
    for gate in &config.gates {
        let claimed = inherited.claim(&format!("gate/{}", gate.name), &gate.listen);
        if !claimed.is_empty() {
            fits_given(gate)?;
        }
        if claimed.is_empty() {
            for address in &gate.listen {
                gates.push((gate.clone(), bind(gate, address)?));
            }
        }
        for (listener, address) in claimed {
            gates.push((gate.clone(), Handover::given(listener, address)));
        }
    }
    Ok(gates)
}

/// A gate whose port at this address is to be taken.
pub(super) type Missing = (config::Gate, Address);

/// Takes these ports, each at its address with the host resolved. Nothing that runs is touched.
pub(super) fn bind_missing(
    missing: impl Iterator<Item = (Missing, Address)>,
) -> Result<Vec<Bound>> {
    let take = |((gate, asked), at)| {
        let mut handover = bind(&gate, &at)?;
        handover.port.asked = Some(asked);
        Ok((gate, handover))
    };
    missing.map(take).collect()
}

/// Whether a gate can work on a socket that somebody else keeps listening.
fn fits_given(gate: &config::Gate) -> Result<(), Unfit> {
    if gate.when_bad != WhenBad::Close {
        return Ok(());
    }
    Err(Unfit(format!(
        "gates.{}: the service manager holds its socket and would keep it listening; leave it out of the socket unit, \
         or use another `when_bad` than `close`",
        gate.name
    )))
}

fn bind(gate: &config::Gate, address: &Address) -> Result<Handover> {
    Ok(Handover::of(Port::bind(address, &format!("gate/{}", gate.name))?))
}

impl Gates {
    pub(super) fn shown(&self) -> Shown {
        Arc::clone(&self.shown)
    }

    /// Runs these gates. It fails where the thread that they run on cannot be started.
    pub(super) fn open(
        &mut self,
        gates: Vec<Bound>,
        config: &Config,
        shared: &Shared,
        parts: &mut Parts,
    ) -> Result<()> {
        for (gate, mut handover) in gates {
            if gate.when_bad != WhenBad::Close {
                // Before anybody hears that the sidecar is ready; what waits there is carried as soon as the gate runs.
                handover.listen();
            }
            let gate = gate_of(gate, config, shared, Arc::default());
            self.run(gate, handover, shared, parts)?;
        }
        self.show();
        Ok(())
    }

    fn run(
        &mut self,
        gate: Gate,
        handover: Handover,
        shared: &Shared,
        parts: &mut Parts,
    ) -> Result<()> {
        let gate = Arc::new(gate);
        let end = shared.stop.child_token();
        let allow = Arc::new(Allow::of(gate.config.allow.as_ref()));
        let hall = shared.hall(&format!("gate/{}", gate.config.name), end.clone(), allow);
        let (given, port) = oneshot::channel();
        let (asked, bound) = (handover.port.asked.clone(), handover.port.address.clone());
        let running = Arc::clone(&gate).run(handover, hall, Arc::clone(&shared.pairs));
        let stop = shared.stop.clone();
        let task = async move {
            let handover = running.await;
            if !stop.is_cancelled() {
                // Nobody waits for the port of a gate that is gone for good.
                let _ = given.send(handover);
            }
        };
        let what = format!("the gate {}", gate.config.name);
        parts.spawn_on(&shared.carrying.start()?, &what, end.clone(), task);
        let target = gate.target.clone();
        self.running.push(Running { asked, target, bound, gate, end, port });
        Ok(())
    }

    /// What `config` wants and is not there yet.
    pub(super) fn missing(&self, config: &Config) -> Result<Vec<Missing>> {
        let mut missing = Vec::new();
        for gate in &config.gates {
            let same = self.running.iter().filter(|running| running.gate.config.name == gate.name);
            let here: Vec<_> = same.map(|running| running.asked.as_ref()).collect();
            if here.contains(&None) {
                fits_given(gate)?;
                continue;
            }
            let wanted = gate.listen.iter().filter(|asked| !here.contains(&Some(asked)));
            missing.extend(wanted.map(|asked| (gate.clone(), asked.clone())));
        }
        Ok(missing)
    }

    /// Goes over to the gates of `config`. One that changes keeps its port, its connections and its counts; one
    /// that is gone takes no new connection.
    pub(super) async fn go_over(
        &mut self,
        config: &Config,
        shared: &Shared,
        parts: &mut Parts,
    ) -> Result<()> {
        for running in std::mem::take(&mut self.running) {
            let name = Arc::clone(&running.gate.config.name);
            let wanted = config.gates.iter().find(|gate| gate.name == name);
            let stays = |gate: &&config::Gate| {
                running.asked.as_ref().is_none_or(|asked| gate.listen.contains(asked))
            };
            let Some(wanted) = wanted.filter(stays) else {
                running.end.cancel();
                continue;
            };
            if *wanted == running.gate.config && config.node.target == running.target {
                self.running.push(running);
                continue;
            }
            running.end.cancel();
            let Ok(handover) = running.port.await else { continue };
            let view = Arc::clone(&running.gate.view);
            let gate = gate_of(wanted.clone(), config, shared, view);
            self.run(gate, handover, shared, parts)?;
        }
        self.show();
        Ok(())
    }

    fn show(&self) {
        let shown = self.running.iter().map(|gate| (gate.bound.clone(), Arc::clone(&gate.gate)));
        self.shown.store(Arc::new(shown.collect()));
    }
}

fn gate_of(gate: config::Gate, config: &Config, shared: &Shared, view: Arc<View>) -> Gate {
    let (board, target) = (Arc::clone(&shared.board), config.node.target.clone());
    Gate::new(gate, board, target, shared.stop.clone(), view)
}
