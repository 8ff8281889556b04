//! Metrics: what Prometheus scrapes, and the alerts and the dashboard that are made of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::reload::edit;
use crate::e2e::farm::shipped;
use crate::lab::eds::{Eds, FakeSidecar, word};
use crate::lab::fake::{Answer, FakeNode};
use crate::lab::hcf::{Hcf, ask};
use crate::lab::http::get;
use crate::lab::place;
use crate::lab::ports::free_port;
use crate::lab::process::{Process, Program};
use crate::lab::wait::{LONG, wait_for, wait_until};

/// One that shows as much as one can: a gate of each kind, three criteria, a weight of parts.
const CONFIG: &str = r#"
node: {every: 50ms, timeout: 1s}
services:
  write:
    criteria: {servers: {min: 4}, introducers: {min: 1, else: degrade}, latency: {max: 30s, else: warn}}
    weight: {servers: on}
gates:
  bytes: {listen: "127.0.0.1:0", service: read, when_bad: pass}
  requests: {listen: "127.0.0.1:0", service: write, when_bad: refuse_uri}
"#;

fn start(node: &FakeNode) -> Hcf {
    Hcf::configured(CONFIG, &["--node", &node.url()])
}

fn scrape(hcf: &Hcf) -> String {
    scrape_at(hcf.status())
}

fn scrape_at(status: &str) -> String {
    let answer = get(status, "/metrics").expect("a scrape");
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(kind)));
    let text = answer.text();
    assert!(text.ends_with("\n# EOF\n"), "{text}");
    text
}

/// The value of a sample, which is named by its labels, too.
fn value(scrape: &str, sample: &str) -> Option<f64> {
    let line = scrape.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '))?;
    Some(line.parse().unwrap_or_else(|error| panic!("{sample} {line}: {error}")))
}

fn wait_value(hcf: &Hcf, sample: &str, wanted: f64) {
    let what = format!("{sample} {wanted}");
    wait_until(&what, LONG, || {
        value(&scrape(hcf), sample).is_some_and(|v| (v - wanted).abs() < 1e-9)
    });
}

/// Runs promtool, which Debian packages with Prometheus; panics with its words when it finds fault.
fn promtool(args: &[&str], input: &str) {
    let mut promtool = Command::new("promtool")
        .args(args)
        .current_dir(place::root().join("deploy/prometheus"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("promtool: {error}: run deploy/parts"));
    promtool.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let run = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&run.stdout) + String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "promtool {args:?}: {said}");
    // It only warns of some things.
    assert!(args[0] != "check" || args[1] != "metrics" || said.is_empty(), "{said}\nin: {input}");
}

/// What a scrape says of its families: the name of their samples, with type, labels and help.
fn families(text: &str) -> BTreeMap<String, (String, BTreeSet<String>, String)> {
    let mut families = BTreeMap::new();
    for line in text.lines() {
        let word = |what: &str| line.strip_prefix(what)?.split_once(' ');
        if let Some((name, kind)) = word("# TYPE ") {
            let suffix = match kind {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            let family = (kind.to_owned(), BTreeSet::new(), String::new());
            assert!(families.insert(format!("{name}{suffix}"), family).is_none(), "twice: {name}");
        } else if let Some((name, help)) = word("# HELP ") {
            let of = [name.to_owned(), format!("{name}_total"), format!("{name}_info")];
            let family = of.iter().find(|name| families.contains_key(*name)).expect(line);
            families.get_mut(family).unwrap().2.push_str(help);
        } else if let Some((name, labels)) = line.split_once('{') {
            let name = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end).filter(|name| families.contains_key(*name)))
                .unwrap_or(name);
            let labels = labels.split("\",").filter_map(|label| Some(label.split_once("=\"")?.0));
            let family = families.get_mut(name).unwrap_or_else(|| panic!("no family: {line}"));
            family.1.extend(labels.filter(|label| *label != "le").map(str::to_owned));
        }
    }
    families
}

/// One that has answered every kind of question, carried bytes and refused requests, on a node that was lost.
fn experienced(node: &FakeNode) -> Hcf {
    node.serve_clients("node");
    let hcf = start(node);
    wait_value(&hcf, "hcf_service_state{service=\"write\",state=\"up\"}", 1.0);
    for _ in 0..2 {
        ask(hcf.agent(), "write hold=10ms\n");
        ask(hcf.agent(), "nothing\n");
        get(hcf.health(), "/health/read").unwrap();
    }
    get(hcf.address("gate/bytes"), "/uri/x").unwrap();
    node.set(Answer::Grid { connected: 3, refused: 7 });
    wait_value(&hcf, "hcf_service_state{service=\"write\",state=\"down\"}", 1.0);
    assert_eq!(get(hcf.address("gate/requests"), "/uri/x").unwrap().status, 503);
    hcf
}

#[test]
fn a_scrape_says_what_has_happened() {
    let node = FakeNode::healthy();
    let hcf = experienced(&node);
    let text = scrape(&hcf);
    let bytes = hcf.address("gate/bytes").to_owned();
    let requests = hcf.address("gate/requests").to_owned();
    for (sample, wanted) in [
        ("hcf_ready", 1.0),
        ("hcf_service_state{service=\"read\",state=\"up\"}", 1.0),
        ("hcf_service_state{service=\"write\",state=\"up\"}", 0.0),
        ("hcf_service_reason{service=\"write\",reason=\"servers-few\"}", 1.0),
        ("hcf_criterion_passed{service=\"write\",criterion=\"servers\",else=\"down\"}", 0.0),
        ("hcf_criterion_passed{service=\"write\",criterion=\"introducers\",else=\"degrade\"}", 1.0),
        ("hcf_criterion_observed{service=\"write\",criterion=\"servers\"}", 3.0),
        ("hcf_criterion_threshold{service=\"write\",criterion=\"servers\"}", 4.0),
        ("hcf_transitions_total{service=\"write\",to=\"up\",reason=\"none\"}", 1.0),
        ("hcf_transitions_total{service=\"write\",to=\"down\",reason=\"servers-few\"}", 1.0),
        ("hcf_servers_known", 10.0),
        ("hcf_servers_connected", 3.0),
        ("hcf_introducers_connected", 1.0),
        ("hcf_questions_total{listener=\"agent\",service=\"write\",answer=\"up\"}", 2.0),
        ("hcf_questions_total{listener=\"health\",service=\"read\",answer=\"up\"}", 2.0),
        ("hcf_unknown_service_questions_total{listener=\"agent\"}", 2.0),
        // The first question of a balancer is not held.
        ("hcf_held_questions_total{outcome=\"time\"}", 1.0),
        ("hcf_asker_questions_total{listener=\"agent\",peer=\"127.0.0.1\",service=\"write\"}", 2.0),
        ("hcf_listener_accepted_total{listener=\"agent\"}", 4.0),
        (&format!("hcf_gate_accepted_total{{gate=\"bytes\",address=\"{bytes}\"}}"), 1.0),
        (&format!("hcf_gate_refused_total{{gate=\"requests\",address=\"{requests}\"}}"), 1.0),
        ("hcf_overrides_lost", 0.0),
    ] {
        assert_eq!(value(&text, sample), Some(wanted), "{sample} in: {text}");
    }
    for sample in [
        format!("hcf_gate_received_bytes_total{{gate=\"bytes\",address=\"{bytes}\"}}"),
        format!("hcf_gate_sent_bytes_total{{gate=\"bytes\",address=\"{bytes}\"}}"),
        format!("hcf_gate_received_bytes_total{{gate=\"requests\",address=\"{requests}\"}}"),
        format!("hcf_gate_sent_bytes_total{{gate=\"requests\",address=\"{requests}\"}}"),
        "hcf_poll_duration_seconds_count{outcome=\"ok\"}".to_owned(),
        "hcf_listener_connections{listener=\"status\"}".to_owned(),
        "hcf_asker_interval_seconds{listener=\"agent\",peer=\"127.0.0.1\",service=\"write\"}"
            .to_owned(),
    ] {
        // An answer may be read before its bytes are counted.
        wait_until(&sample, LONG, || value(&scrape(&hcf), &sample).is_some_and(|v| v > 0.0));
    }
    // A node that breaks off is told from one that answers.
    node.set(Answer::Status(500));
    wait_value(&hcf, "hcf_node_reachable", 0.0);
    let failed = "hcf_poll_duration_seconds_count{outcome=\"http-status\"}";
    assert!(value(&scrape(&hcf), failed).is_some_and(|n| n >= 1.0));
}

#[test]
fn metrics_keep_to_the_rules_in_every_state() {
    let node = FakeNode::healthy();
    let hcf = experienced(&node);
    for (answer, sample, wanted) in [
        (Answer::Grid { connected: 10, refused: 0 }, "{service=\"write\",state=\"up\"}", 1.0),
        (
            Answer::NoIntroducer { connected: 10, refused: 0 },
            "{service=\"write\",state=\"degraded\"}",
            1.0,
        ),
        (Answer::Status(500), "{service=\"read\",state=\"down\"}", 1.0),
    ] {
        node.set(answer);
        wait_value(&hcf, &format!("hcf_service_state{sample}"), wanted);
        let text = get(hcf.status(), "/metrics?format=text").expect("a scrape");
        assert_eq!(text.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        promtool(&["check", "metrics"], &text.text());
    }
    // The words are there before the node was ever seen, too.
    let lost = start(&FakeNode::start(Answer::Close));
    let text = get(lost.status(), "/metrics?format=text").expect("a scrape").text();
    promtool(&["check", "metrics"], &text);
    assert_eq!(value(&text, "hcf_servers_known"), None, "{text}");
}

#[test]
fn prometheus_itself_understands_what_it_is_given() {
    let node = FakeNode::healthy();
    let hcf = experienced(&node);
    let folder = place::folder("prometheus");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let config = format!(
        "global: {{scrape_interval: 1s}}\n\
         scrape_configs: [{{job_name: hcf, static_configs: [{{targets: ['{}']}}]}}]\n",
        hcf.status()
    );
    std::fs::write(path("prometheus.yml"), config).unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let program = Program::new("prometheus", Path::new("prometheus"))
        .arg(format!("--config.file={}", path("prometheus.yml")))
        .arg(format!("--storage.tsdb.path={}", path("data")))
        .arg(format!("--web.listen-address={address}"));
    let mut prometheus = Process::start(&program, folder.path());
    let mut ask = |path: &str| {
        prometheus.must_run();
        let answer = get(&address, &format!("/api/v1/{path}")).ok()?;
        (answer.status == 200).then(|| answer.json()["data"].clone())
    };
    let target = wait_for("a scrape", LONG, || {
        let target = ask("targets")?["activeTargets"][0].clone();
        (target["health"] == "up" || target["health"] == "down").then_some(target)
    });
    assert_eq!((&target["health"], &target["lastError"]), (&"up".into(), &"".into()), "{target}");
    for (query, wanted) in [("up", "1"), ("hcf_servers_connected", "3"), ("hcf_build_info", "1")] {
        let what = format!("{query} {wanted}");
        wait_until(&what, LONG, || {
            ask(&format!("query?query={query}"))
                .is_some_and(|found| found["result"][0]["value"][1] == wanted)
        });
    }
    // Only OpenMetrics has units.
    let age = ask("metadata?metric=hcf_observation_age_seconds").expect("an answer");
    assert_eq!(age["hcf_observation_age_seconds"][0]["unit"], "seconds", "{age}");
}

#[test]
fn reloads_are_counted_by_what_came_of_them() {
    let node = FakeNode::healthy();
    let hcf = start(&node);
    let sample = |outcome: &str| format!("hcf_reloads_total{{outcome=\"{outcome}\"}}");
    // Each is noticed by itself, hence once.
    edit(&hcf, "min: 4", "min: 5");
    wait_value(&hcf, &sample("changed"), 1.0);
    edit(&hcf, "min: 5", "min: many");
    wait_value(&hcf, &sample("senseless"), 1.0);
    let text = scrape(&hcf);
    for (outcome, wanted) in
        [("unchanged", 0.0), ("changed", 1.0), ("senseless", 1.0), ("impossible", 0.0)]
    {
        assert_eq!(value(&text, &sample(outcome)), Some(wanted), "{outcome} in: {text}");
    }
}

#[test]
fn the_age_of_the_last_look_grows_while_the_node_hangs() {
    let node = FakeNode::healthy();
    let config = "node: {every: 50ms, timeout: 20s}\n";
    let hcf = Hcf::configured(config, &["--node", &node.url()]);
    let age = || value(&scrape(&hcf), "hcf_observation_age_seconds").expect("a look has finished");
    node.set(Answer::Hang);
    let first = age();
    wait_until("it to be older", LONG, || age() > first + 1.0);
}

#[test]
fn samples_are_unique_and_no_name_of_a_peer_makes_more_of_them() {
    let node = FakeNode::healthy();
    let hcf = experienced(&node);
    let series = || -> BTreeSet<String> {
        let text = scrape(&hcf);
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let names: Vec<String> =
            samples.map(|line| line.rsplit_once(' ').expect(line).0.to_owned()).collect();
        let unique: BTreeSet<String> = names.iter().cloned().collect();
        assert_eq!(names.len(), unique.len(), "{text}");
        unique
    };
    let before = series();
    for n in 0..50 {
        ask(hcf.agent(), &format!("nothing{n}\n"));
        ask(hcf.agent(), &format!("write as=x{n}\n"));
        get(hcf.health(), &format!("/health/nothing{n}")).unwrap();
        get(hcf.health(), &format!("/nothing{n}")).unwrap();
    }
    // Only the place where an answer came for the first time, or a service changed.
    let new: Vec<String> = series().difference(&before).cloned().collect();
    assert!(new.iter().all(|name| name.starts_with("hcf_transitions_total")), "{new:?}");
}

#[test]
fn every_metric_is_documented_and_has_help() {
    let node = FakeNode::healthy();
    let hcf = experienced(&node);
    let readme = shipped("deploy/prometheus", "README.md");
    let (sidecar, fleet) = readme.split_once("\n## ").expect("a part about fleets");
    let page = scrape(&hcf);
    must_be_documented(sidecar, &families(&page));
    let ends = page.lines().filter_map(|l| l.strip_prefix("hcf_held_questions_total{outcome=\""));
    let ends: Vec<&str> = ends.filter_map(|l| l.split('"').next()).collect();
    assert!(!ends.is_empty());
    for end in ends {
        assert!(sidecar.contains(&format!("`{end}`")), "a held question ends {end}");
    }
    let sidecars = [FakeSidecar::start(&word("up", 100, &[]))];
    let mut families = families(&scrape_at(fleet_of(&sidecars).status()));
    families.retain(|name, _| name.starts_with("hcf_fleet_"));
    must_be_documented(fleet, &families);
}

fn must_be_documented(text: &str, families: &BTreeMap<String, (String, BTreeSet<String>, String)>) {
    let mut documented = BTreeMap::new();
    for line in text.lines().filter(|l| l.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [name, kind, labels, help] = cells[..] else { panic!("{line}") };
        let labels = labels.split(", ").filter(|l| !l.is_empty()).map(str::to_owned).collect();
        let row: (_, BTreeSet<String>, _) = (kind.to_owned(), labels, help.to_owned());
        documented.insert(name.trim_matches('`').to_owned(), row);
    }
    let names = |of: &BTreeMap<String, _>| of.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&documented), names(families));
    for (name, (kind, labels, help)) in families {
        assert!(help.ends_with('.'), "{name}: {help}");
        let (said_kind, said_labels, said_help) = &documented[name];
        assert_eq!((said_kind, said_help), (kind, help), "{name}");
        assert!(labels.is_subset(said_labels), "{name}: {labels:?}");
        // Orders are of a test of their own; all else has samples here.
        assert!(labels == said_labels || name.starts_with("hcf_override"), "{name}: {labels:?}");
    }
}

fn fleet_of(sidecars: &[FakeSidecar]) -> Eds {
    let node = |(at, sidecar): (usize, &FakeSidecar)| {
        (format!("gw{at}"), format!("127.0.1.{}:3456", at + 1), sidecar.url.clone())
    };
    let nodes: Vec<_> = sidecars.iter().enumerate().map(node).collect();
    let eds = Eds::start(&Eds::config("min_available: 50", &nodes));
    let told =
        || (0..nodes.len()).all(|at| eds.fleet()["nodes"][format!("gw{at}")]["connected"] == true);
    wait_until("every sidecar to be heard", LONG, told);
    eds
}

#[test]
fn a_fleets_scrape_says_what_becomes_of_each_node() {
    let sidecars = [0; 4].map(|_| FakeSidecar::start(&word("up", 100, &[])));
    let mut eds = fleet_of(&sidecars);
    eds.wait_health(&["HEALTHY"; 4]);
    sidecars[0].say("write", &word("up", 25, &[]));
    for sidecar in &sidecars[1..3] {
        sidecar.say("write", &word("drain", 100, &[]));
    }
    sidecars[3].say("write", &word("down", 100, &[Some("servers")]));
    eds.wait_health(&["HEALTHY", "DEGRADED", "DRAINING", "UNHEALTHY"]);
    let written = "hcf_fleet_file_writes_total";
    wait_until("the page to say so, too", LONG, || {
        value(&scrape_at(eds.status()), written).is_some_and(|n| n >= 2.0)
            && eds.fleet()["nodes"]["gw3"]["health"] == "UNHEALTHY"
            && eds.fleet()["nodes"]["gw1"]["kept"] == true
    });
    let text = scrape_at(eds.status());
    for (sample, wanted) in [
        ("hcf_fleet_nodes", 4.0),
        ("hcf_fleet_nodes_in", 2.0),
        ("hcf_fleet_nodes_kept", 1.0),
        ("hcf_fleet_min_available_ratio", 0.5),
        ("hcf_fleet_node_health{node=\"gw0\",health=\"healthy\"}", 1.0),
        ("hcf_fleet_node_health{node=\"gw1\",health=\"healthy\"}", 0.0),
        ("hcf_fleet_node_health{node=\"gw1\",health=\"degraded\"}", 1.0),
        ("hcf_fleet_node_health{node=\"gw2\",health=\"draining\"}", 1.0),
        ("hcf_fleet_node_health{node=\"gw3\",health=\"unhealthy\"}", 1.0),
        ("hcf_fleet_node_weight_ratio{node=\"gw0\"}", 0.25),
        ("hcf_fleet_node_allowed{node=\"gw1\",service=\"write\"}", 1.0),
        ("hcf_fleet_node_allowed{node=\"gw2\",service=\"write\"}", 0.0),
        ("hcf_fleet_node_allowed{node=\"gw2\",service=\"read\"}", 1.0),
        ("hcf_fleet_node_kept{node=\"gw1\"}", 1.0),
        ("hcf_fleet_node_kept{node=\"gw2\"}", 0.0),
        ("hcf_fleet_sidecar_connected{node=\"gw3\"}", 1.0),
        ("hcf_fleet_sidecar_silent{node=\"gw3\"}", 0.0),
        ("hcf_fleet_file_failed", 0.0),
    ] {
        assert_eq!(value(&text, sample), Some(wanted), "{sample} in: {text}");
    }
    let text = get(eds.status(), "/metrics?format=text").expect("a scrape").text();
    promtool(&["check", "metrics"], &text);

    // A folder that is gone cannot be written to, and Envoy goes on by what it has read.
    let folder = eds.output().parent().expect("a folder").to_owned();
    let aside = folder.with_extension("aside");
    std::fs::rename(&folder, &aside).unwrap();
    sidecars[0].say("write", &word("up", 75, &[]));
    wait_until("the failure to be told", LONG, || {
        eds.process().must_run();
        value(&scrape_at(eds.status()), "hcf_fleet_file_failed") == Some(1.0)
    });
    std::fs::rename(&aside, &folder).unwrap();
    wait_until("the file to be written again", LONG, || {
        value(&scrape_at(eds.status()), "hcf_fleet_file_failed") == Some(0.0)
    });
}

#[test]
fn orders_are_counted_by_their_word() {
    let node = FakeNode::healthy();
    let folder = place::folder("state");
    let state = folder.path().display();
    let hcf = Hcf::configured(
        &format!("{{node: {{every: 50ms}}, state_dir: {state}}}\n"),
        &["--node", &node.url()],
    );
    let orders = folder.path().join("override.d");
    std::fs::create_dir_all(&orders).unwrap();
    std::fs::write(orders.join("write"), "drain disk swap\n").unwrap();
    wait_value(&hcf, "hcf_overrides{service=\"write\",word=\"drain\",ends=\"no\"}", 1.0);
    let text = scrape(&hcf);
    let oldest =
        "hcf_override_oldest_timestamp_seconds{service=\"write\",word=\"drain\",ends=\"no\"}";
    assert!(value(&text, oldest).is_some_and(|at| at > 1.7e9), "{text}");
    std::fs::write(orders.join("write"), "drain 30m disk swap\n").unwrap();
    wait_value(&hcf, "hcf_overrides{service=\"write\",word=\"drain\",ends=\"yes\"}", 1.0);
}

#[test]
fn rules_fire_when_they_must_and_only_then() {
    promtool(&["check", "rules", "rules.yml"], "");
    promtool(&["test", "rules", "rules_test.yml"], "");
    // Each alert has a case in which it fires.
    let rules = shipped("deploy/prometheus", "rules.yml");
    let cases = shipped("deploy/prometheus", "rules_test.yml");
    let alerts: Vec<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 9, "{alerts:?}");
    for alert in alerts {
        assert!(cases.contains(&format!("    alertname: {alert}\n    exp_alerts:")), "{alert}");
    }
}

#[test]
fn rules_and_the_dashboard_use_metrics_that_exist() {
    let node = FakeNode::healthy();
    let hcf = experienced(&node);
    let families = families(&scrape(&hcf));
    let dashboard = shipped("deploy/grafana", "hcf.json");
    let parsed: serde_json::Value = serde_json::from_str(&dashboard).expect("JSON");
    assert!(parsed["panels"].as_array().is_some_and(|panels| panels.len() > 10));
    for text in [dashboard, shipped("deploy/prometheus", "rules.yml")] {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let used: BTreeSet<&str> = words.filter(|word| word.starts_with("hcf_")).collect();
        assert!(used.len() > 5, "{used:?}");
        for name in used {
            let base = ["_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end));
            let known = families.contains_key(name)
                || base.is_some_and(|base| {
                    families.get(base).is_some_and(|(kind, ..)| kind == "histogram")
                });
            assert!(known, "{name} is not scraped");
        }
    }
}
