//! A packet filter rule against one gateway's packets, known by the group that the gateway runs under. Needs root.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::cut::How;
use super::place;

/// A rule that is in force until dropped.
#[derive(Debug)]
pub struct Rule {
    words: Vec<String>,
}

impl Rule {
    /// Against what `group` sends to the given ports (at most 15, the filter's limit for one rule); the error is what
    /// the packet filter said.
    pub fn new(group: u32, ports: &[u16], how: How) -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        // Each rule has a name of its own, since it is removed by its whole text.
        let name = format!("{}-{}", place::mark(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut rule = words("OUTPUT -p tcp -m owner --gid-owner");
        rule.push(group.to_string());
        rule.extend(words("-m multiport --dports"));
        rule.push(ports.join(","));
        rule.extend(words("-m comment --comment"));
        rule.push(name);
        rule.extend(words(match how {
            How::Reject => "-j REJECT --reject-with tcp-reset",
            How::Drop => "-j DROP",
        }));
        iptables("-I", &rule)?;
        Ok(Self { words: rule })
    }
}

impl Drop for Rule {
    fn drop(&mut self) {
        if let Err(message) = iptables("-D", &self.words) {
            // A panic inside of a drop that a panic caused would hide the first one.
            assert!(std::thread::panicking(), "{message}");
        }
    }
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn iptables(what: &str, rule: &[String]) -> Result<(), String> {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let result = Command::new("iptables").env("PATH", path).args(["-w", what]).args(rule).output();
    let message = match result {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    Err(format!("iptables {what}: {message}"))
}
