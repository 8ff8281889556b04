//! What a configuration may hold, and what is said of one that may not: place, key, message, caret.

use std::path::Path;

use crate::lab::hcf::hcf_binary;
use crate::program::{Run, hcf};

/// Runs `hcf check` on a file with this content, called `hcf.yaml` in a folder of its own.
fn check(content: impl AsRef<[u8]>) -> Run {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hcf.yaml");
    std::fs::write(&file, content).unwrap();
    let mut run = hcf(&["check", "-c", &file.display().to_string()]);
    // The folder's name differs from run to run.
    run.stderr = run.stderr.replace(&format!("{}/", folder.path().display()), "");
    run
}

/// A file, and what must be said of it.
const MISTAKES: &[(&str, &str)] = &[
    (
        "node:\n  every: soon\n",
        "hcf.yaml:2:10: node.every: invalid value: string \"soon\", expected a duration such as `500ms` or `10s`\n  \
             2 |   every: soon\n    |          ^\n",
    ),
    (
        "node:\n  evrey: 1s\n",
        "hcf.yaml:2:3: node.evrey: unknown key; expected one of dir, url, tls, every, timeout\n  \
             2 |   evrey: 1s\n    |   ^\n",
    ),
    (
        "services:\n  write:\n    criteria:\n      servers: {min: many}\n",
        "hcf.yaml:4:22: services.write.criteria.servers.min: invalid type: string \"many\", expected a whole number\n  \
             4 |       servers: {min: many}\n    |                      ^\n",
    ),
    (
        "services:\n  write:\n    criteria:\n      servers: {min: 3, minimum: 4}\n",
        "hcf.yaml:4:25: services.write.criteria.servers.minimum: unknown key; expected one of min, min_space, last_heard_max, else\n  \
             4 |       servers: {min: 3, minimum: 4}\n    |                         ^\n",
    ),
    (
        "services:\n  write:\n    criteria:\n      servers: {else: crash}\n",
        "hcf.yaml:4:23: services.write.criteria.servers.else: unknown variant `crash`, expected one of `warn`, `degrade`, `drain`, `down`\n  \
             4 |       servers: {else: crash}\n    |                       ^\n",
    ),
    (
        "node:\n  every: 1s\n  every: 2s\n",
        "hcf.yaml:3:3: node.every: the key stands here a second time\n  3 |   every: 2s\n    |   ^\n",
    ),
    // A line may end in CR alone.
    (
        "log:\r  level: info\rnode:\r  every: soon\r",
        "hcf.yaml:4:10: node.every: invalid value: string \"soon\", expected a duration such as `500ms` or `10s`\n  \
             4 |   every: soon\n    |          ^\n",
    ),
    ("listen:\n  agent: [::1]:5290\n", "an IPv6 address must be quoted: \"[::1]:5290\""),
    (
        "listen:\n  agent: [127.0.0.1:1, nowhere]\n",
        "hcf.yaml:2:24: listen.agent[1]: invalid value: string \"nowhere\", expected an address such as `127.0.0.1:5290`, `\"[::1]:5290\"` or `unix:/path`\n",
    ),
    (
        "listen:\n  agent: 5290\n",
        "hcf.yaml:2:10: listen.agent: invalid type: integer `5290`, expected an address such as `127.0.0.1:5290`, `\"[::1]:5290\"` or `unix:/path`, a list of them, `off`, or a section such as `{at: …, allow: …}`\n",
    ),
    (
        "services:\n  write:\n    criteria:\n      servers: yes\n",
        "hcf.yaml:4:16: services.write.criteria.servers: invalid value: string \"yes\", expected a section such as `{min: 3}`, or `off`\n",
    ),
    (
        "node: 5\n",
        "hcf.yaml:1:7: node: invalid type: integer `5`, expected a section of keys and values\n",
    ),
    (
        "nodes: {}\n",
        "hcf.yaml:1:1: nodes: unknown key; expected one of node, services, default_service,",
    ),
    ("- a\n- b\n", "hcf.yaml:1:1: invalid type: sequence, expected a section of keys and values\n"),
    (
        "services: {write: {criteria: {servers: {min_space: 1 parsec}}}}\n",
        "expected a size such as `1GiB` or `500MB`\n",
    ),
    (
        "node: {url: 'ftp://h'}\n",
        "hcf.yaml:1:13: node.url: `ftp://h`: neither http nor https; expected `http://HOST:PORT`,",
    ),
    (
        "node: {url: 'https://h:1'}\n",
        "hcf.yaml:1:13: node.url: an https node must be known by its certificate: set node.tls.ca or node.tls.pin",
    ),
    (
        "node: {url: 'http://h:1', tls: {pin: /nonexistent}}\n",
        "node.tls.pin: cannot read /nonexistent: ",
    ),
    (
        "node: {url: 'http://h:1', tls: {pin: /nonexistent}}\n",
        "node.tls: the node's URL is not https\n",
    ),
    ("node: {tls: {}}\n", "node.tls: expected either `ca` or `pin`, with a PEM file\n"),
    (
        "node: {dir: /nonexistent}\n",
        "hcf.yaml:1:13: node.dir: /nonexistent is not a Tahoe-LAFS node's directory: it holds no tahoe.cfg\n",
    ),
    (
        "default_service: none\n",
        "hcf.yaml:1:18: default_service: there is no service `none`; expected one of read, write\n",
    ),
    (
        "services: {write: off}\n",
        "default_service: there is no service `write`; expected one of read\n",
    ),
    (
        "services: {read: off, write: false}\n",
        "services: every service is off; leave at least one\n",
    ),
    ("services: {'a b': {}}\n", "a name has letters, digits, `-`, `_` and `.`, at most 64\n"),
    (
        "services: {x: {criteria: {blessed: {}}}}\n",
        "services.x.criteria.blessed: expected one of `ids`, `file` and `grid_manager: true`\n",
    ),
    (
        "services: {x: {criteria: {blessed: {ids: []}}}}\n",
        "services.x.criteria.blessed.ids: no id; expected at least one\n",
    ),
    (
        "services: {x: {criteria: {blessed: {ids: [v0-a, 'b c']}}}}\n",
        "hcf.yaml:1:49: services.x.criteria.blessed.ids[1]: a server's id is one word",
    ),
    (
        "services: {x: {criteria: {blessed: {ids: [v0-a], min: 2}}}}\n",
        "services.x.criteria.blessed.min: 2 is out of range, expected 1 to 1\n",
    ),
    (
        "services: {x: {criteria: {blessed: {file: /nonexistent}}}}\n",
        "services.x.criteria.blessed.file: /nonexistent: cannot read it: ",
    ),
    (
        "services: {x: {criteria: {latency: {}}}}\n",
        "services.x.criteria.latency: expected `max`, such as `{max: 1s}`\n",
    ),
    (
        "services: {x: {criteria: {introducers: {min: 1, all: true}}}}\n",
        "expected either `min` or `all`, not both\n",
    ),
    (
        "listen: {agent: '127.0.0.1:1', health: '127.0.0.1:1'}\n",
        "listen.health: 127.0.0.1:1 is taken by listen.agent already\n",
    ),
];

#[test]
fn each_mistake_is_named_with_its_place() {
    for (content, says) in MISTAKES {
        let run = check(content);
        assert_eq!((run.exit, run.stdout.as_str()), (78, ""), "{content}{run:?}");
        assert!(run.stderr.contains(says), "{content}{}\n--- expected\n{says}", run.stderr);
    }
}

#[test]
fn all_senseless_values_are_reported_together_in_their_order() {
    let run = check(
        "node: {every: 1ms, timeout: 1h}\n\
         services:\n  write:\n    degraded_weight: 0\n    maxconn: 0\n    criteria: {servers: {min: 0}}\n\
         damping: {rise: 0, fall: 9999, hold: 30h}\nramp: 30h\nshutdown: {announce: 2h}\n",
    );
    let places: Vec<&str> =
        run.stderr.lines().filter(|line| line.starts_with("hcf.yaml:")).collect();
    assert_eq!(
        places,
        [
            "hcf.yaml:1:15: node.every: 1ms is out of range, expected 20ms to 1h",
            "hcf.yaml:1:29: node.timeout: 1h is out of range, expected 10ms to 5m",
            "hcf.yaml:4:22: services.write.degraded_weight: 0 is out of range, expected 1 to 100",
            "hcf.yaml:5:14: services.write.maxconn: 0 is out of range, expected 1 to 10000000",
            "hcf.yaml:6:31: services.write.criteria.servers.min: 0 is out of range, expected 1 to 1000000",
            "hcf.yaml:7:17: damping.rise: 0 is out of range, expected 1 to 1000",
            "hcf.yaml:7:26: damping.fall: 9999 is out of range, expected 1 to 1000",
            "hcf.yaml:7:38: damping.hold: 1day 6h is out of range, expected 0s to 1day",
            "hcf.yaml:8:7: ramp: 1day 6h is out of range, expected 0s to 1day",
            "hcf.yaml:9:22: shutdown.announce: 2h is out of range, expected 0s to 1h",
        ],
        "{}",
        run.stderr
    );
}

#[test]
fn files_that_are_no_configuration_are_told_apart() {
    for (content, says) in [
        (b"".to_vec(), "hcf.yaml: the file is empty; expected at least one section"),
        (b"# nothing\n---\n".to_vec(), "hcf.yaml: the file is empty"),
        (vec![b'#'; 10 << 20], "hcf.yaml: larger than 1 MiB"),
        (
            b"node: {url: '\xff'}\n".to_vec(),
            "hcf.yaml:1:14: not UTF-8 from here on; save the file as UTF-8",
        ),
        (b"a: 1\n  b: 2\n".to_vec(), "hcf.yaml:2:"),
        (b"[".repeat(200_000), "hcf.yaml:1:"),
        (b"a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n".to_vec(), "hcf.yaml:1:1: a: unknown key"),
        (vec![0; 4096], "hcf.yaml:1:1: "),
    ] {
        let run = check(&content);
        assert_eq!((run.exit, run.stdout.as_str()), (78, ""), "{says}: {run:?}");
        assert!(run.stderr.contains(says), "{}\n--- expected\n{says}", run.stderr);
        assert!(run.stderr.len() < 4096, "a short message");
    }
}

#[test]
fn the_effective_configuration_says_everything_and_is_one_itself() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hcf.yaml");
    let name = file.display().to_string();
    let content = "
node: {url: 'http://h:1', every: 500ms}
services:
  read: off
  write: {criteria: {introducers: off, servers: {min_space: 1GiB, last_heard_max: 1m}, latency: {max: 1s}}, maxconn: 9}
  bulk: {criteria: {blessed: {ids: [v0-b, v0-a], min: 1, else: degrade}, introducers: {all: true, else: drain}}, damping: {rise: 5}, ramp: 1m}
listen: {agent: ['127.0.0.1:1', '[::1]:1', 'unix:/a'], health: off}
";
    std::fs::write(&file, content).unwrap();
    let shown = hcf(&["check", "--show", "-c", &name]);
    assert_eq!(shown.exit, 0, "{shown:?}");
    std::fs::write(&file, &shown.stdout).unwrap();
    let again = hcf(&["check", "--show", "-c", &name]);
    assert_eq!(again.stdout, shown.stdout);
    for line in [
        "    min_space: 1GiB",
        "  read: off",
        "  health: off",
        "      rise: 5",
        "    hold: 0s",
        "  every: 500ms",
    ] {
        let found = shown.stdout.lines().any(|l| l.trim() == line.trim());
        assert!(found, "{line}\n{}", shown.stdout);
    }
}

#[test]
fn the_file_that_is_shipped_holds_the_defaults() {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/hcf.yaml");
    let with = hcf(&["check", "--show", "-c", shipped]);
    assert_eq!(with.exit, 0, "{with:?}");
    assert_eq!(with.stdout, hcf(&["check", "--show"]).stdout);
    // What stands in comments is right, too.
    let text = std::fs::read_to_string(shipped).unwrap();
    let gates = text.split("# gates:").nth(1).unwrap();
    let lines = gates.lines().skip(1).take_while(|line| line.starts_with('#'));
    let gates: Vec<String> = lines.map(|line| line.replacen('#', " ", 1)).collect();
    let run = check(format!("gates:\n{}\n", gates.join("\n")));
    assert_eq!(run.exit, 0, "{run:?}");
}

#[test]
fn gates_are_checked_too() {
    for (content, says) in [
        ("gates: {web: {}}\n", "gates.web: expected `listen`, such as `{listen: 0.0.0.0:3455}`\n"),
        (
            "gates: {web: {listen: 'h:1', service: none}}\n",
            "gates.web.service: there is no service `none`\n",
        ),
        ("gates: {'a/b': {listen: 'h:1'}}\n", "a name has letters, digits"),
        (
            "gates: {web: {listen: 'h:1', when_bad: explode}}\n",
            "unknown variant `explode`, expected one of `close`, `refuse_uri`, `refuse_writes`, `pass`",
        ),
        (
            "gates: {web: {listen: 'h:1', max_connections: 0}}\n",
            "gates.web.max_connections: 0 is out of range, expected 1 to 1000000\n",
        ),
    ] {
        let run = check(content);
        assert_eq!(run.exit, 78, "{content}{run:?}");
        assert!(run.stderr.contains(says), "{content}{}", run.stderr);
    }
}

#[test]
fn the_command_line_beats_the_environment_which_beats_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hcf.yaml");
    std::fs::write(&file, "node: {url: 'http://file:1'}\n").unwrap();
    let run = |environment: &[(&str, &str)], args: &[&str]| {
        let mut command = std::process::Command::new(hcf_binary());
        command.arg("check").args(args).env("HCF_CONFIG", Path::new(&file));
        for (name, value) in environment {
            command.env(name, value);
        }
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    assert!(run(&[], &[]).contains("watches http://file:1,"));
    assert!(run(&[("HCF_NODE", "http://env:1")], &[]).contains("watches http://env:1,"));
    assert!(
        run(&[("HCF_NODE", "http://env:1")], &["--node", "http://arg:1"])
            .contains("watches http://arg:1,")
    );
}

#[test]
fn what_is_guessed_or_open_is_warned_of() {
    let run = check("listen: {status: '0.0.0.0:5293'}\n");
    assert_eq!(run.exit, 0);
    for says in [
        "warning: services.write.criteria.servers.min: 7 is a guess, Tahoe-LAFS's own default; set it, or node.dir\n",
        "warning: listen.status: anybody who reaches 0.0.0.0:5293 may ask there, and it shows the grid's topology; `allow` names who may\n",
    ] {
        assert!(run.stderr.contains(says), "{}", run.stderr);
    }
    for (allow, warned) in [("0.0.0.0/0", true), ("10.0.0.0/8", false)] {
        let run = check(format!("listen: {{agent: {{at: '0.0.0.0:5290', allow: [{allow}]}}}}\n"));
        assert_eq!((run.exit, run.stderr.contains("anybody")), (0, warned), "{}", run.stderr);
    }
}

#[test]
fn who_may_ask_is_checked_too() {
    for (content, says) in [
        (
            "listen:\n  agent: {at: '0.0.0.0:1', allow: [10.0.0.0/8, gw1]}\n",
            "hcf.yaml:2:48: listen.agent.allow[1]: invalid value: string \"gw1\", expected a network or an address such as",
        ),
        (
            "listen:\n  agent: {allow: [10.1.0.0/8]}\n",
            "hcf.yaml:2:19: listen.agent.allow[0]: `10.1.0.0/8` is neither the network 10.0.0.0/8 nor the address 10.1.0.0\n",
        ),
        (
            "listen:\n  status: {allow: []}\n",
            "hcf.yaml:2:19: listen.status.allow: nobody could ask; name a network, or leave it out for everybody\n",
        ),
        (
            "listen:\n  health: {at: ['h:1', 'unix:/s'], allow: [192.0.2.7]}\n",
            "hcf.yaml:2:43: listen.health.allow: who connects to unix:/s comes from no network, its folder's permissions say who may; leave `allow` out there\n",
        ),
        (
            "gates: {web: {listen: 'unix:/s', allow: [192.0.2.7]}}\n",
            "hcf.yaml:1:41: gates.web.allow: who connects to unix:/s comes from no network",
        ),
        (
            "listen:\n  agent: {at: 'h:1', alow: [::1]}\n",
            "hcf.yaml:2:22: listen.agent.alow: unknown key; expected ",
        ),
    ] {
        let run = check(content);
        assert_eq!(run.exit, 78, "{content}{run:?}");
        assert!(run.stderr.contains(says), "{content}{}", run.stderr);
    }
    // Whoever names addresses on the command line opens them to nobody else.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hcf.yaml");
    std::fs::write(&file, "listen: {agent: {allow: [192.0.2.7]}, health: {at: 'h:1'}}\n").unwrap();
    let run = hcf(&["check", "--show", "-c", &file.display().to_string()]);
    let shown = "agent:\n    at: 127.0.0.1:5290\n    allow:\n    - 192.0.2.7\n  health: h:1\n";
    assert!(run.stdout.contains(shown), "{}", run.stdout);
}
