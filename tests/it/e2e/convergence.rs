//! Every verdict is reached from every other one and from whatever an operator has set, and the balancers' own words
//! prove it: HAProxy's state, weight, admin flags and reason, and Envoy's flags. With `admin=keep` an operator's
//! maint and drain stay as they are.

use std::collections::BTreeMap;

use super::farm::shows;
use crate::lab::envoy::Envoy;
use crate::lab::fake::{Answer, FakeNode};
use crate::lab::haproxy::{Haproxy, Version};
use crate::lab::hcf::{Hcf, port};
use crate::lab::wait::{LONG, wait_until};

/// A service whose criteria fail one by one, each with its own `else`.
const SERVICE: &str = "services:
  all:
    criteria:
      servers: {min: 2, else: down}
      blessed: {ids: [v0-server4], else: drain}
      introducers: {min: 1, else: degrade}
damping: {rise: 1}
";

/// A verdict: what the node says to bring it about, and what must then be seen.
#[derive(Debug)]
struct Verdict {
    name: &'static str,
    node: Answer,
    /// How the server's status begins; one that is only checked by an agent shows as `no check` while up.
    status: [&'static str; 2],
    weight: u32,
    admin: u32,
    /// The status and weight where hcf says no admin word.
    kept: ([&'static str; 2], u32),
    /// What HAProxy keeps of the reason.
    reason: &'static str,
    /// Flags that Envoy must show, and those that it must not.
    envoy: &'static [&'static str],
    not_envoy: &'static [&'static str],
}

const UP: [&str; 2] = ["UP", "no check"];
const DOWN: [&str; 2] = ["DOWN"; 2];
const DRAIN: [&str; 2] = ["DRAIN"; 2];
const FORCED_MAINT: u32 = 0x01;
const FORCED_DRAIN: u32 = 0x08;

const FAILED: &str = "failed_active_health_check";
const DEGRADED: &str = "failed_active_degraded_check";
const EXCLUDED: &str = "excluded_via_immediate_hc_fail";

const VERDICTS: [Verdict; 4] = [
    Verdict {
        name: "up",
        node: Answer::Grid { connected: 5, refused: 0 },
        status: UP,
        weight: 100,
        admin: 0,
        kept: (UP, 100),
        reason: "via agent : up",
        envoy: &[],
        not_envoy: &[FAILED, DEGRADED, EXCLUDED],
    },
    Verdict {
        name: "degraded",
        node: Answer::NoIntroducer { connected: 5, refused: 0 },
        status: UP,
        weight: 50,
        admin: 0,
        kept: (UP, 50),
        reason: "degraded: introducers-few",
        envoy: &[DEGRADED],
        not_envoy: &[FAILED, EXCLUDED],
    },
    Verdict {
        name: "drain",
        node: Answer::Grid { connected: 4, refused: 1 },
        status: DRAIN,
        weight: 100,
        admin: FORCED_DRAIN,
        kept: (UP, 0),
        reason: "blessed-missing",
        envoy: &[FAILED, EXCLUDED],
        not_envoy: &[],
    },
    Verdict {
        name: "down",
        node: Answer::Grid { connected: 1, refused: 4 },
        status: DOWN,
        weight: 100,
        admin: 0,
        kept: (DOWN, 100),
        reason: "servers-few",
        envoy: &[FAILED],
        not_envoy: &[],
    },
];

/// What an operator does on the stats socket.
const ACTS: [&str; 4] = ["state maint", "state drain", "weight 7", "agent down"];

/// The backends whose replies hold an admin word.
const OWNING: [&str; 2] = ["checked", "agent_only"];

/// A node, its hcf, and every balancer that asks it.
struct Scene {
    node: FakeNode,
    _hcf: Hcf,
    haproxies: Vec<Haproxy>,
    envoy: Envoy,
}

impl Scene {
    fn start() -> Self {
        let node = FakeNode::start(VERDICTS[0].node.clone());
        let config = format!("node: {{url: \"{}\", every: 50ms}}\n{SERVICE}", node.url());
        let hcf = Hcf::configured(&config, &[]);
        let haproxy = haproxy_config(&node.addr, port(hcf.agent()));
        let haproxies = Version::ALL.map(|version| Haproxy::start(version, &haproxy)).into();
        let envoy = Envoy::start(&envoy_config(port(&node.addr), port(hcf.health())));
        Self { node, _hcf: hcf, haproxies, envoy }
    }

    /// The operator's act, on every server of the given backends.
    fn act(&self, act: &str, backends: &[&str]) {
        for haproxy in &self.haproxies {
            for backend in backends {
                let answer = haproxy.command(&format!("set server {backend}/s {act}"));
                assert_eq!(answer.trim(), "", "{act}");
            }
        }
    }

    /// Waits until every balancer shows this verdict as it must.
    fn wait(&self, verdict: &Verdict, how: &str) {
        for haproxy in &self.haproxies {
            for backend in OWNING {
                let expected = (verdict.status, verdict.weight, verdict.admin);
                wait_server(haproxy, backend, expected, verdict.reason, how);
            }
            let (status, weight) = verdict.kept;
            wait_server(haproxy, "kept", (status, weight, 0), verdict.reason, how);
        }
        self.wait_envoy(verdict, how);
    }

    fn wait_envoy(&self, verdict: &Verdict, how: &str) {
        wait_until(&format!("Envoy to show {:?}: {how}", verdict.envoy), LONG, || {
            let flags = self.envoy.health("all", &self.node.addr).expect("the host is there");
            let has = |flag: &&str| flags.iter().any(|seen| seen == *flag);
            verdict.envoy.iter().all(&has) && !verdict.not_envoy.iter().any(has)
        });
    }
}

/// Waits for `(status, weight, admin flags)` and the reason.
fn wait_server(
    haproxy: &Haproxy,
    backend: &str,
    (status, weight, admin): ([&str; 2], u32, u32),
    reason: &str,
    how: &str,
) {
    let mut seen = String::new();
    let what = format!("{backend} to be {status:?} {weight} {reason:?} ({how})");
    wait_until(&what, LONG, || {
        let stat = haproxy.stat(backend, "s");
        let state = server_state(haproxy, backend);
        let now = format!("{}, {state:?}", shows(&stat));
        if now != seen {
            println!("{how}, {backend}: {now}");
            seen = now;
        }
        status.iter().any(|word| stat.status().starts_with(word))
            && stat.weight() == weight
            && stat.last_agent().contains(reason)
            && state == (admin, weight)
    });
}

/// The forced admin flags and the weight in `show servers state`.
fn server_state(haproxy: &Haproxy, backend: &str) -> (u32, u32) {
    let text = haproxy.servers_state();
    let names: Vec<&str> = text
        .lines()
        .find_map(|line| line.strip_prefix("# "))
        .expect("a line of names")
        .split(' ')
        .collect();
    let row: BTreeMap<&str, &str> = text
        .lines()
        .map(|line| names.iter().copied().zip(line.split(' ')).collect::<BTreeMap<_, _>>())
        .find(|row| row.get("be_name") == Some(&backend))
        .unwrap_or_else(|| panic!("no {backend} in:\n{text}"));
    let number = |name: &str| row[name].parse().expect("a number");
    (number("srv_admin_state") & (FORCED_MAINT | FORCED_DRAIN), number("srv_uweight"))
}

fn haproxy_config(node: &str, agent: u16) -> String {
    format!(
        r#"global
    log stdout format raw local0
defaults
    mode http
    log global
    timeout connect 2s
    timeout client 1m
    timeout server 1m
    timeout check 2s
    balance roundrobin
    default-server weight 100 agent-check agent-inter 50ms agent-port {agent}
backend checked
    option httpchk GET /livez
    http-check expect status 200
    server s {node} check inter 500ms port {agent} agent-send "all\n"
backend agent_only
    server s {node} agent-send "all\n"
backend kept
    server s {node} agent-send "all admin=keep\n"
"#
    )
}

fn envoy_config(node: u16, health: u16) -> String {
    format!(
        "static_resources:
  clusters:
  - name: all
    type: STATIC
    connect_timeout: 2s
    common_lb_config: {{healthy_panic_threshold: {{value: 0}}, update_merge_window: 0s}}
    health_checks:
    - {{timeout: 2s, interval: 0.1s, no_traffic_interval: 0.1s, unhealthy_threshold: 2, healthy_threshold: 1, http_health_check: {{path: /health/all}}}}
    load_assignment:
      cluster_name: all
      endpoints:
      - lb_endpoints:
        - endpoint:
            address: {{socket_address: {{address: 127.0.0.1, port_value: {node}}}}}
            health_check_config: {{port_value: {health}}}
"
    )
}

#[test]
fn every_verdict_is_reached_from_every_other_and_from_what_operators_set() {
    let scene = Scene::start();
    for to in &VERDICTS {
        for from in VERDICTS.iter().filter(|from| from.name != to.name) {
            for act in [None].into_iter().chain(ACTS.map(Some)) {
                let how = format!("from {} and {act:?} to {}", from.name, to.name);
                scene.node.set(from.node.clone());
                scene.wait(from, &format!("first {}", from.name));
                if let Some(act) = act {
                    scene.act(act, &OWNING);
                }
                scene.node.set(to.node.clone());
                scene.wait(to, &how);
            }
        }
        // The node says the same as before: only the operator has changed something.
        for act in ACTS {
            scene.act(act, &OWNING);
            scene.wait(to, &format!("{act} undone while {}", to.name));
        }
    }
}

#[test]
fn without_an_admin_word_the_operators_state_stays() {
    let scene = Scene::start();
    for (act, flag) in [("state maint", FORCED_MAINT), ("state drain", FORCED_DRAIN)] {
        for verdict in VERDICTS.iter().cycle().take(VERDICTS.len() + 1) {
            scene.act(act, &["kept"]);
            scene.node.set(verdict.node.clone());
            for haproxy in &scene.haproxies {
                let how = format!("{act} while {}", verdict.name);
                wait_until(&format!("hcf's word to be heard: {how}"), LONG, || {
                    haproxy.stat("kept", "s").last_agent().contains(verdict.reason)
                });
                let (admin, weight) = server_state(haproxy, "kept");
                assert_eq!((admin, weight), (flag, verdict.kept.1), "{how}");
                let stat = haproxy.stat("kept", "s");
                let down = verdict.kept.0 == DOWN && flag == FORCED_DRAIN;
                let word = if flag == FORCED_MAINT { "MAINT" } else { "DRAIN" };
                let expected = if down { "DOWN" } else { word };
                assert!(stat.status().starts_with(expected), "{how}: {}", stat.status());
            }
        }
        scene.act("state ready", &["kept"]);
        scene.wait(&VERDICTS[0], &format!("ready after {act}"));
    }
}
