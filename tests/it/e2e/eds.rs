//! A real Envoy sends clients' requests by the file that `hcf eds` writes.

use std::collections::BTreeMap;

use super::farm::{
    BAD, Fakes, GOOD, READS_ONLY, ask, config, must_answer, shipped, wait_answers, with_ports,
};
use crate::lab::eds::Eds;
use crate::lab::envoy::Envoy;
use crate::lab::hcf::{Hcf, port};
use crate::lab::place;
use crate::lab::ports::free_port;
use crate::lab::process::Signal;
use crate::lab::wait::{LONG, wait_until};
use crate::program;

/// The file of `envoy/` that is asked here.
pub(super) const FILE: &str = "eds.yaml";

/// Who answered how many of these requests: a name, or a status.
fn counts(web: &str, method: &str, requests: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..requests {
        let answer = ask(web, method, "/uri/x");
        let who = if answer.status == 200 { answer.text() } else { answer.status.to_string() };
        *counts.entry(who).or_default() += 1;
    }
    counts
}

#[test]
fn envoy_sends_requests_by_the_fleets_file() {
    let nodes = Fakes::nodes();
    let folder = place::folder("eds-sockets");
    let socket = folder.path().join("admin").display().to_string();
    let hcf = [0, 1].map(|at: usize| {
        let admin =
            if at == 0 { format!("admin: {{socket: '{socket}'}}\n") } else { String::new() };
        Hcf::configured(&format!("{}{admin}", config(&nodes[at].url())), &[])
    });
    let farm = Fakes { nodes, hcf };
    let order = |args: &[&str]| {
        let run = program::hcf(&[args, &["--socket", &socket]].concat());
        assert_eq!(run.exit, 0, "{run:?}");
    };

    // The shipped files as they stand, but for ports and the place of the file between them.
    let (web, status) = (free_port(), free_port());
    let fleet = with_ports(
        &shipped("deploy", "fleet.yaml"),
        &[
            (5295, status),
            (3456, port(&farm.nodes[0].addr)),
            (3457, port(&farm.nodes[1].addr)),
            (5293, port(farm.hcf[0].status())),
            (5393, port(farm.hcf[1].status())),
        ],
    );
    let output = "/run/hcf/webapi.eds.json";
    let eds = Eds::start(&fleet.replace(output, "OUTPUT"));
    let envoy = with_ports(&shipped("envoy", FILE), &[(8080, web), (9901, 0)]);
    let envoy = Envoy::start(&envoy.replace(output, &eds.output().display().to_string()));
    envoy.wait_live();
    let web = format!("127.0.0.1:{web}");
    let both = ["gw1", "gw2"];
    wait_answers(&web, "GET", "/uri/x", &both);
    wait_answers(&web, "PUT", "/uri", &both);

    // Too few servers for writes: reads still reach both.
    farm.say(&READS_ONLY, &GOOD);
    wait_answers(&web, "PUT", "/uri", &["gw2"]);
    must_answer(&web, "GET", "/uri/x", &both);
    farm.say(&READS_ONLY, &READS_ONLY);
    wait_answers(&web, "PUT", "/uri", &["503"]);
    must_answer(&web, "GET", "/uri/x", &both);
    let refused = ask(&web, "PUT", "/uri");
    assert_eq!(refused.header("retry-after"), Some("5"), "{refused:?}");
    farm.say(&BAD, &READS_ONLY);
    wait_answers(&web, "GET", "/uri/x", &["gw2"]);
    farm.say(&BAD, &BAD);
    wait_answers(&web, "GET", "/uri/x", &["503"]);
    farm.say(&GOOD, &GOOD);
    wait_answers(&web, "GET", "/uri/x", &both);
    wait_answers(&web, "PUT", "/uri", &both);

    // A weight is a share of requests: 25 of 125, exactly so in a round robin.
    order(&["weight", "25", "-m", "slow disk"]);
    let node = farm.nodes[0].addr.clone();
    wait_until("Envoy to know the weight", LONG, || envoy.weight("webapi", &node) == Some(25));
    wait_until("a fifth of the requests", LONG, || {
        let seen = counts(&web, "GET", 100);
        println!("at weight 25 beside 100: {seen:?}");
        seen.get("gw1").is_some_and(|share| (18..=22).contains(share))
            && seen.keys().eq(both.iter())
    });
    order(&["clear"]);
    wait_answers(&web, "GET", "/uri/x", &both);

    // Drained: Envoy knows it as that, and sends it nothing.
    order(&["drain", "-m", "update"]);
    wait_answers(&web, "GET", "/uri/x", &["gw2"]);
    let flags = envoy.health("webapi", &node);
    assert_eq!(flags, Some(vec!["eds:DRAINING".to_owned()]));
    assert_eq!(counts(&web, "PUT", 20), [("gw2".to_owned(), 20)].into());
    order(&["clear"]);
    wait_answers(&web, "GET", "/uri/x", &both);
    order(&["drain", "write", "-m", "read only for a while"]);
    wait_answers(&web, "PUT", "/uri", &["gw2"]);
    must_answer(&web, "GET", "/uri/x", &both);
    order(&["clear"]);
    wait_answers(&web, "PUT", "/uri", &both);

    // Killed: silent, and out.
    farm.hcf[1].signal(Signal::Kill);
    wait_answers(&web, "GET", "/uri/x", &["gw1"]);
    must_answer(&web, "PUT", "/uri", &["gw1"]);
}
