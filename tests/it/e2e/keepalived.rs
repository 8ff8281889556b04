//! keepalived's file: it is accepted as it is, and its checks say what hcf says. What it then does with an address or
//! with LVS needs a kernel that has them.

use std::process::Command;

use super::farm::{BAD, Fakes, GOOD, READS_ONLY, shipped, with_ports};
use crate::lab::haproxy::replace;
use crate::lab::keepalived;
use crate::lab::process::Signal;
use crate::lab::wait::{LONG, wait_until};

/// The shipped file for this machine, whose network may have another name.
fn file() -> String {
    let here = std::fs::read_dir("/sys/class/net").expect("Linux has it");
    let names = here.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let name = names.filter(|name| name != "lo").min().expect("a network besides loopback");
    replace(
        &shipped("deploy", "keepalived.conf"),
        &[("interface eth0", &format!("interface {name}"))],
    )
}

#[test]
fn keepalived_accepts_its_file() {
    keepalived::validate(&file()).unwrap();
    let wrong = replace(&file(), &[("misc_path", "mics_path")]);
    let said = keepalived::validate(&wrong).unwrap_err();
    assert!(said.contains("mics_path"), "{said}");
}

#[test]
fn keepalived_hears_by_its_scripts_whether_a_node_is_good() {
    let farm = Fakes::start();
    let [one, two] = farm.sides();
    let text = with_ports(&file(), &[(5291, one.health), (5391, two.health)]);
    let asks = |port: u16| -> Vec<String> {
        let quoted = text.lines().filter_map(|line| {
            let line = line.trim();
            let line = line.strip_prefix("script ").or_else(|| line.strip_prefix("misc_path "))?;
            Some(line.trim_matches('"').to_owned())
        });
        quoted.filter(|command| command.contains(&port.to_string())).collect()
    };
    // As keepalived does it: the words as they stand, no shell.
    let passes = |command: &String| {
        let words: Vec<&str> = command.split(' ').collect();
        let output = Command::new(words[0]).args(&words[1..]).output().expect("it can be run");
        output.status.success()
    };
    let hear = |port: u16, good: bool| {
        let commands = asks(port);
        assert_eq!(commands.len(), 1, "a script for {port}: {commands:?}");
        wait_until(&format!("{commands:?} to pass: {good}"), LONG, || {
            commands.iter().all(|command| passes(command) == good)
        });
    };
    for (answers, good) in [
        ([&GOOD, &GOOD], [true, true]),
        ([&READS_ONLY, &GOOD], [false, true]),
        ([&GOOD, &BAD], [true, false]),
    ] {
        farm.say(answers[0], answers[1]);
        hear(one.health, good[0]);
        hear(two.health, good[1]);
    }
    farm.say(&GOOD, &GOOD);
    hear(two.health, true);
    farm.hcf[1].signal(Signal::Kill);
    hear(two.health, false);
    hear(one.health, true);
}
