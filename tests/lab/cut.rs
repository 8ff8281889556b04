//! Cutting one gateway off from storage servers while the others stay well: the case that a farm exists for.

use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::place;
use super::tahoe::Gateway;

/// What the gateway notices of a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Connections are reset at once, as by a host that has lost the service.
    Reject,
    /// Packets vanish, as in a broken network.
    Drop,
}

/// Whether this process may cut at all: packet filter rules need root.
pub fn allowed() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// A cut that lasts until dropped.
#[derive(Debug)]
pub struct Cut {
    rule: Vec<String>,
}

impl Cut {
    /// Cuts `gateway` off from the given ports (at most 15, the filter's limit for one rule).
    pub fn new(gateway: &Gateway, ports: &[u16], how: How) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let Some(group) = gateway.node.group else {
            panic!("cutting a gateway off needs root (iptables); run this as root");
        };
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        let group = group.to_string();
        // Each rule has a name of its own, since it is removed by its whole text.
        let name = format!("{}-{}", place::mark(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut rule = words("OUTPUT -p tcp -m owner --gid-owner");
        rule.push(group);
        rule.extend(words("-m multiport --dports"));
        rule.push(ports.join(","));
        rule.extend(words("-m comment --comment"));
        rule.push(name);
        rule.extend(words(match how {
            How::Reject => "-j REJECT --reject-with tcp-reset",
            How::Drop => "-j DROP",
        }));
        iptables("-I", &rule);
        Self { rule }
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        iptables("-D", &self.rule);
    }
}

/// Removes what labs that were killed left behind; those that live are left alone.
pub fn sweep() {
    let program = place::root().join("deploy/sweep");
    let status = Command::new(&program).status();
    assert!(matches!(&status, Ok(status) if status.success()), "{}: {status:?}", program.display());
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn iptables(what: &str, rule: &[String]) {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let result = Command::new("iptables").env("PATH", path).args(["-w", what]).args(rule).output();
    match result {
        Ok(output) if output.status.success() => {}
        Ok(output) => complain(what, &String::from_utf8_lossy(&output.stderr)),
        Err(error) => complain(what, &error.to_string()),
    }
}

/// A panic inside of a drop that a panic caused would hide the first one.
fn complain(what: &str, message: &str) {
    assert!(std::thread::panicking(), "iptables {what}: {message}");
}
