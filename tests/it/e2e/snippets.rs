//! What `hcf snippet` prints, the real balancers accept, and they follow the sidecar by it; and what `--lint` says of
//! good and of bad files.

use super::farm::{self, BAD, Fakes, READS_ONLY, with_clusters};
use crate::lab::envoy::Envoy;
use crate::lab::fake::FakeNode;
use crate::lab::haproxy::{Haproxy, Version};
use crate::lab::hcf::Hcf;
use crate::lab::place;
use crate::lab::ports::free_port;
use crate::lab::wait::{LONG, wait_until};
use crate::program::hcf;

/// A configuration with fixed ports, as a snippet needs them, and a service of the user's own.
fn fixed(node: &FakeNode) -> String {
    let ports = [free_port(), free_port()];
    format!(
        "{}  bulk: {{criteria: {{servers: {{min: 1}}}}, maxconn: 30}}\n\
         listen: {{agent: '127.0.0.1:{}', health: '127.0.0.1:{}', status: '127.0.0.1:0'}}\n",
        farm::config(&node.url()).replace("shutdown: {announce: 2s}\n", ""),
        ports[0],
        ports[1]
    )
}

/// What `hcf snippet` prints for this configuration.
fn snippet(balancer: &str, config: &str) -> String {
    let folder = place::folder("snippet");
    let file = folder.path().join("hcf.yaml");
    std::fs::write(&file, config).expect("it can be written");
    let run = hcf(&["snippet", balancer, "-c", &file.display().to_string()]);
    assert_eq!(run.exit, 0, "{run:?}");
    run.stdout
}

/// `hcf snippet --lint` on a file with this content.
fn lint(content: &str) -> (i32, String) {
    let folder = place::folder("lint");
    let file = folder.path().join("haproxy.cfg");
    std::fs::write(&file, content).expect("it can be written");
    let run = hcf(&["snippet", "--lint", &file.display().to_string()]);
    (run.exit, run.stdout.replace(&format!("{}/", folder.path().display()), ""))
}

#[test]
fn haproxy_accepts_the_snippet_and_follows_the_sidecar_by_it() {
    let [node, _] = Fakes::nodes();
    let config = fixed(&node);
    let text = snippet("haproxy", &config);
    assert_eq!(lint(&text), (0, "haproxy.cfg: no traps found\n".to_owned()));
    let _hcf = Hcf::configured(&config, &[]);
    for version in Version::ALL {
        let web = free_port();
        let haproxy =
            Haproxy::start(version, &text.replace("127.0.0.1:8080", &format!("127.0.0.1:{web}")));
        let web = format!("127.0.0.1:{web}");
        node.set(farm::GOOD);
        farm::wait_answers(&web, "PUT", "/uri", &["gw1"]);
        haproxy.wait_stat("hcf_bulk", "node1", "up, with its connections", |stat| {
            stat.is_up() && stat.field("slim") == "30"
        });
        node.set(READS_ONLY);
        farm::wait_answers(&web, "PUT", "/uri", &["503"]);
        farm::wait_answers(&web, "GET", "/uri/x", &["gw1"]);
        node.set(BAD);
        haproxy.wait_stat("hcf_read", "node1", "down", |stat| {
            stat.last_agent().contains("servers-few")
        });
        assert!(haproxy.stat("hcf_bulk", "node1").is_up());
    }
}

#[test]
fn envoy_accepts_the_snippet_and_follows_the_sidecar_by_it() {
    let [node, _] = Fakes::nodes();
    let config = fixed(&node);
    let envoy = Envoy::start(&with_clusters(&snippet("envoy", &config)));
    let _hcf = Hcf::configured(&config, &[]);
    let follows = |read: bool, write: bool, bulk: bool| {
        for (cluster, up) in [("hcf_read", read), ("hcf_write", write), ("hcf_bulk", bulk)] {
            wait_until(&format!("{cluster} to be up: {up}"), LONG, || {
                envoy.is_up(cluster, &node.addr) == up
            });
        }
    };
    follows(true, true, true);
    node.set(READS_ONLY);
    follows(true, false, true);
    node.set(BAD);
    follows(false, false, true);
}

#[test]
fn every_shipped_file_is_free_of_errors() {
    for file in std::fs::read_dir(place::root().join("haproxy")).expect("the folder is there") {
        let path = file.expect("it can be read").path();
        if path.extension().is_some_and(|ending| ending == "cfg") {
            let run = hcf(&["snippet", "--lint", &path.display().to_string()]);
            assert_eq!(run.exit, 0, "{run:?}");
            assert!(!run.stdout.contains("error:"), "{}", run.stdout);
        }
    }
}

#[test]
fn traps_are_found_with_their_lines() {
    let bad = "defaults\n    mode http\n    timeout check 5s\nbackend be\n    balance source\n    \
               server a 10.0.0.1:1 check agent-check agent-port 5290\n    \
               server b 10.0.0.2:1 weight 100 check agent-check agent-port 5290 agent-send \"write hold=9s\\n\"\n    \
               retry-on 410\n";
    let (exit, said) = lint(bad);
    assert_eq!(exit, 1, "{said}");
    for (line, code) in [
        (6, "no-agent-send"),
        (6, "weight-low"),
        (5, "static-balance"),
        (7, "timeout-check-hold"),
        (8, "retry-on-410"),
    ] {
        let found = said.lines().any(|l| {
            l.starts_with(&format!("haproxy.cfg:{line}: ")) && l.ends_with(&format!("[{code}]"))
        });
        assert!(found, "{code} at line {line}:\n{said}");
    }
    let run = hcf(&["snippet", "--lint", "/nonexistent.cfg"]);
    assert_eq!(run.exit, 2, "{run:?}");
}
