//! Cutting one gateway off from storage servers while the others stay well: the case that a farm exists for.
//! With root by a packet filter rule; without, by stopping the forwarders that lead that gateway to the servers.

use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};

use super::forwarder::Stopped;
use super::place;
use super::rule::Rule;
use super::tahoe::Gateway;

/// What the gateway notices of a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Connections are reset at once, as by a host that has lost the service.
    Reject,
    /// Packets vanish, as in a broken network.
    Drop,
}

/// Whether this process may set packet filter rules: it needs root, and in a container a bit more than that.
pub fn allowed() -> bool {
    static ALLOWED: OnceLock<bool> = OnceLock::new();
    *ALLOWED.get_or_init(|| {
        let root = std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
        // Only trying tells. The rule harms nobody: no lab's gateway runs under this group.
        root && Rule::new(u32::from(u16::MAX), &[1], How::Reject).is_ok()
    })
}

/// What cuts gateways off here, for people.
pub fn means() -> &'static str {
    if allowed() {
        "gateways are cut off by packet filter rules"
    } else {
        "gateways are cut off by forwarders between them and the storage servers: packet filter rules need root"
    }
}

/// A cut that lasts until dropped.
#[derive(Debug)]
pub struct Cut {
    _means: Means,
}

#[derive(Debug)]
enum Means {
    Rule(Rule),
    Forwarders(Vec<Stopped>),
}

impl Cut {
    /// Cuts `gateway` off from the given ports (at most 15, the limit of a packet filter rule).
    pub fn new(gateway: &Gateway, ports: &[u16], how: How) -> Self {
        let means = match gateway.node.group {
            Some(group) => {
                Means::Rule(Rule::new(group, ports, how).unwrap_or_else(|error| panic!("{error}")))
            }
            None => Means::Forwarders(stop(gateway, ports, how)),
        };
        Self { _means: means }
    }
}

fn stop(gateway: &Gateway, ports: &[u16], how: How) -> Vec<Stopped> {
    let one = |port: &u16| {
        let found = gateway.forwarders.iter().find(|forwarder| forwarder.target() == *port);
        let found = found.unwrap_or_else(|| panic!("no forwarder leads to port {port}"));
        Stopped::new(Arc::clone(found), how)
    };
    ports.iter().map(one).collect()
}

/// Removes what labs that were killed left behind; those that live are left alone.
pub fn sweep() {
    let program = place::root().join("deploy/sweep");
    let status = Command::new(&program).stdout(Stdio::null()).status();
    assert!(matches!(&status, Ok(status) if status.success()), "{}: {status:?}", program.display());
}
