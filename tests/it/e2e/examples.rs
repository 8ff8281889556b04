//! Every file in `haproxy/` and `envoy/` starts with nothing but its ports changed, and does to clients' requests
//! what it says it does. A file that nobody asks anything here fails the last test.

use std::collections::BTreeSet;

use super::farm::{
    BAD, Fakes, Front, GOOD, READS_ONLY, ask, envoy, haproxies, haproxy, must_answer, wait_answers,
};
use super::relay::Relay;
use crate::lab::envoy::Envoy;
use crate::lab::fake::Answer;
use crate::lab::haproxy::{Haproxy, Stat, Version};
use crate::lab::place;
use crate::lab::wait::{LONG, wait_for, wait_until};

/// Paths under which the gateway serves files, as it will read them.
const URIS: [&str; 10] = [
    "/uri",
    "/uri/x",
    "/cap/x",
    "/file/x",
    "/named/x",
    "/%75ri",
    "/u%72i/x",
    "//uri",
    "/./uri/x",
    "/uri?t=json",
];
/// Paths that only look like it.
const PAGES: [&str; 6] =
    ["/", "/status", "/urix", "/statistics?t=json", "/static/uri", "/capx/uri"];
const WRITES: [&str; 4] = ["PUT", "POST", "DELETE", "PATCH"];

macro_rules! examples {
    ($list:ident: $($test:ident $file:literal $start:path, $walk:path;)*) => {
        const $list: &[&str] = &[$($file),*];
        $(
            #[test]
            fn $test() {
                let farm = Fakes::start();
                let fronts = $start($file, &farm.sides());
                $walk(&farm, &fronts);
            }
        )*
    };
}

examples! { HAPROXY:
    haproxy_no_traffic "no-traffic.cfg" haproxies, no_traffic;
    haproxy_refuse_uri "refuse-uri.cfg" haproxies, refuse_uri;
    haproxy_refuse_writes "refuse-writes.cfg" haproxies, refuse_writes;
    haproxy_recommended "recommended.cfg" haproxies, recommended;
    haproxy_status_only "status-only.cfg" haproxies, haproxy_status_only_walk;
    haproxy_last_resort "last-resort.cfg" haproxies, last_resort;
    haproxy_retry "retry.cfg" haproxies, haproxy_retry_walk;
    haproxy_retry_gone "retry-gone.cfg" haproxies, haproxy_retry_gone_walk;
    haproxy_longpoll "longpoll.cfg" haproxies, recommended;
}

examples! { ENVOY:
    envoy_no_traffic "no-traffic.yaml" envoys, no_traffic;
    envoy_refuse_uri "refuse-uri.yaml" envoys, refuse_uri;
    envoy_refuse_writes "refuse-writes.yaml" envoys, refuse_writes;
    envoy_status_only "status-only.yaml" envoys, envoy_status_only_walk;
    envoy_retry "retry.yaml" envoys, envoy_retry_walk;
}

fn envoys(name: &str, sides: &[super::farm::Side; 2]) -> Vec<Front<Envoy>> {
    vec![envoy(name, sides)]
}

const BOTH: [&str; 2] = ["gw1", "gw2"];
const NONE: [&str; 1] = ["503"];

/// Waits until every front answers so.
fn wait_all<B>(fronts: &[Front<B>], method: &str, path: &str, expected: &[&str]) {
    for front in fronts {
        wait_answers(&front.web, method, path, expected);
    }
}

/// Every front answers so now.
fn all_answer<B>(fronts: &[Front<B>], method: &str, path: &str, expected: &[&str]) {
    for front in fronts {
        must_answer(&front.web, method, path, expected);
    }
}

/// A refusal says when to come back, and why.
fn refusal_explains<B>(fronts: &[Front<B>], method: &str, path: &str) {
    for front in fronts {
        let answer = ask(&front.web, method, path);
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")), "{answer:?}");
        assert!(answer.text().starts_with("No gateway "), "{answer:?}");
    }
}

fn no_traffic<B>(farm: &Fakes, fronts: &[Front<B>]) {
    wait_all(fronts, "GET", "/uri/x", &BOTH);
    farm.say(&READS_ONLY, &GOOD);
    wait_all(fronts, "GET", "/uri/x", &["gw2"]);
    for path in PAGES {
        all_answer(fronts, "GET", path, &["gw2"]);
    }
    all_answer(fronts, "PUT", "/uri", &["gw2"]);
    farm.say(&READS_ONLY, &READS_ONLY);
    wait_all(fronts, "GET", "/", &NONE);
    refusal_explains(fronts, "PUT", "/uri");
    refusal_explains(fronts, "GET", "/status");
    farm.say(&GOOD, &READS_ONLY);
    wait_all(fronts, "GET", "/uri/x", &["gw1"]);
}

fn refuse_uri<B>(farm: &Fakes, fronts: &[Front<B>]) {
    wait_all(fronts, "GET", "/uri/x", &BOTH);
    wait_all(fronts, "GET", "/", &BOTH);
    farm.say(&READS_ONLY, &GOOD);
    wait_all(fronts, "GET", "/uri/x", &["gw2"]);
    for path in URIS {
        all_answer(fronts, "GET", path, &["gw2"]);
    }
    all_answer(fronts, "GET", "/", &BOTH);
    farm.say(&READS_ONLY, &READS_ONLY);
    wait_all(fronts, "GET", "/uri/x", &NONE);
    for path in URIS {
        all_answer(fronts, "GET", path, &NONE);
        all_answer(fronts, "PUT", path, &NONE);
    }
    refusal_explains(fronts, "GET", "/uri/x");
    for path in PAGES {
        all_answer(fronts, "GET", path, &BOTH);
    }
    by_name(fronts);
    farm.say(&GOOD, &GOOD);
    wait_all(fronts, "GET", "/uri/x", &BOTH);
}

/// One node's pages by its name, whatever hcf says of the node.
fn by_name<B>(fronts: &[Front<B>]) {
    for front in fronts {
        for name in BOTH {
            for _ in 0..3 {
                // The last Host counts for neither balancer, so this one goes out by hand.
                let request = format!(
                    "GET /status HTTP/1.1\r\nHost: {name}.example.org\r\nConnection: close\r\n\r\n"
                );
                let answer = crate::lab::net::ask(&front.web, request.as_bytes(), LONG)
                    .unwrap_or_else(|error| panic!("{name} at {}: {error}", front.web));
                assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(name), "{answer}");
            }
        }
    }
}

fn refuse_writes<B>(farm: &Fakes, fronts: &[Front<B>]) {
    wait_all(fronts, "GET", "/uri/x", &BOTH);
    wait_all(fronts, "PUT", "/uri", &BOTH);
    farm.say(&READS_ONLY, &GOOD);
    wait_all(fronts, "PUT", "/uri", &["gw2"]);
    for method in WRITES {
        all_answer(fronts, method, "/named/x", &["gw2"]);
    }
    all_answer(fronts, "GET", "/uri/x", &BOTH);
    farm.say(&READS_ONLY, &READS_ONLY);
    wait_all(fronts, "PUT", "/uri", &NONE);
    for path in URIS {
        for method in WRITES {
            all_answer(fronts, method, path, &NONE);
        }
        all_answer(fronts, "GET", path, &BOTH);
        all_answer(fronts, "OPTIONS", path, &BOTH);
        all_answer(fronts, "HEAD", path, &["200"]);
    }
    refusal_explains(fronts, "POST", "/uri");
    for path in PAGES {
        all_answer(fronts, "POST", path, &BOTH);
    }
    farm.say(&BAD, &READS_ONLY);
    wait_all(fronts, "GET", "/uri/x", &["gw2"]);
    farm.say(&BAD, &BAD);
    wait_all(fronts, "GET", "/uri/x", &NONE);
    farm.say(&GOOD, &GOOD);
    wait_all(fronts, "GET", "/uri/x", &BOTH);
    wait_all(fronts, "PUT", "/uri", &BOTH);
}

/// As `refuse_writes`, and a read that no node can serve is refused with words, too.
fn recommended<B>(farm: &Fakes, fronts: &[Front<B>]) {
    refuse_writes(farm, fronts);
    farm.say(&BAD, &BAD);
    wait_all(fronts, "GET", "/uri/x", &NONE);
    wait_all(fronts, "DELETE", "/uri/x", &NONE);
    refusal_explains(fronts, "GET", "/uri/x");
    refusal_explains(fronts, "GET", "/");
    refusal_explains(fronts, "DELETE", "/uri/x");
}

fn haproxy_status_only_walk(farm: &Fakes, fronts: &[Front<Haproxy>]) {
    let nodes = |lines: &str| {
        for front in fronts {
            wait_until(&format!("/hcf/nodes to be {lines:?}"), LONG, || {
                ask(&front.web, "GET", "/hcf/nodes").text() == lines
            });
        }
    };
    nodes("gw1 read=1 write=1 weight=100\ngw2 read=1 write=1 weight=100\n");
    status_pages(fronts, ["200"; 5]);
    farm.say(&READS_ONLY, &GOOD);
    nodes("gw1 read=1 write=0 weight=100\ngw2 read=1 write=1 weight=100\n");
    status_pages(fronts, ["200", "200", "503", "200", "200"]);
    farm.say(&BAD, &READS_ONLY);
    nodes("gw1 read=0 write=0 weight=100\ngw2 read=1 write=0 weight=100\n");
    status_pages(fronts, ["503", "503", "503", "200", "503"]);
    all_answer(fronts, "GET", "/uri/x", &BOTH);
    all_answer(fronts, "PUT", "/uri", &BOTH);
}

/// What the pages about all, and about each node's reads and writes, answer.
fn status_pages<B>(fronts: &[Front<B>], expected: [&str; 5]) {
    let pages = ["/hcf", "/hcf/gw1/read", "/hcf/gw1/write", "/hcf/gw2/read", "/hcf/gw2/write"];
    for front in fronts {
        for (page, status) in pages.iter().zip(expected) {
            wait_until(&format!("{page} to be {status}"), LONG, || {
                ask(&front.web, "GET", page).status.to_string() == status
            });
        }
    }
}

fn envoy_status_only_walk(farm: &Fakes, fronts: &[Front<Envoy>]) {
    status_pages(fronts, ["200"; 5]);
    farm.say(&READS_ONLY, &GOOD);
    status_pages(fronts, ["200", "200", "503", "200", "200"]);
    farm.say(&BAD, &READS_ONLY);
    status_pages(fronts, ["503", "503", "503", "200", "503"]);
    all_answer(fronts, "GET", "/uri/x", &BOTH);
    all_answer(fronts, "PUT", "/uri", &BOTH);
    let answer = ask(&fronts[0].web, "GET", "/hcf/gw1/write");
    assert!(answer.text().contains("servers-few"), "hcf's own answer: {answer:?}");
    let degraded = Answer::NoIntroducer { connected: 5, refused: 0 };
    farm.say(&degraded, &GOOD);
    let answer = wait_for("hcf to say that gw1 is degraded", LONG, || {
        let answer = ask(&fronts[0].web, "GET", "/hcf/gw1/write");
        answer.text().contains("introducers-few").then_some(answer)
    });
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-envoy-degraded"), None, "it is meant for checks: {answer:?}");
    farm.hcf[0].signal(crate::lab::process::Signal::Kill);
    wait_until("the page of a sidecar that is away to be 503", LONG, || {
        let answer = ask(&fronts[0].web, "GET", "/hcf/gw1/write");
        answer.status == 503 && !answer.text().contains("servers-few")
    });
    all_answer(fronts, "GET", "/uri/x", &BOTH);
}

fn last_resort(farm: &Fakes, fronts: &[Front<Haproxy>]) {
    let marked = |front: &Front<Haproxy>| {
        ask(&front.web, "GET", "/uri/x").header("x-hcf-last-resort").map(str::to_owned)
    };
    // Before one is, the last resort answers, by both.
    let wait_readers = || {
        for (front, server) in fronts.iter().flat_map(|front| BOTH.map(|server| (front, server))) {
            front.balancer.wait_stat("be_read", server, "up", Stat::is_up);
        }
    };
    wait_readers();
    wait_all(fronts, "GET", "/uri/x", &BOTH);
    wait_all(fronts, "PUT", "/uri", &BOTH);
    farm.say(&BAD, &GOOD);
    wait_all(fronts, "GET", "/uri/x", &["gw2"]);
    assert!(fronts.iter().all(|front| marked(front).is_none()));
    farm.say(&BAD, &BAD);
    for front in fronts {
        wait_until("reads to be the last resort's", LONG, || marked(front).as_deref() == Some("1"));
    }
    wait_all(fronts, "GET", "/uri/x", &BOTH);
    wait_all(fronts, "PUT", "/uri", &NONE);
    refusal_explains(fronts, "PUT", "/uri");
    // A node that does not answer at all is of no use even then.
    farm.nodes[0].set(Answer::Close);
    wait_all(fronts, "GET", "/uri/x", &["gw2"]);
    refusal_explains(fronts, "DELETE", "/uri/x");
    farm.say(&GOOD, &GOOD);
    wait_readers();
    wait_all(fronts, "PUT", "/uri", &BOTH);
    wait_all(fronts, "GET", "/uri/x", &BOTH);
    assert!(fronts.iter().all(|front| marked(front).is_none()));
}

/// The next request for gw1 fails so; requests are made until one has met it. Whatever the others are, they are 200.
fn statuses_until_met(farm: &Fakes, web: &str, method: &str, failure: &Answer) -> BTreeSet<u16> {
    farm.nodes[0].fail_clients(1, failure);
    let mut statuses = BTreeSet::new();
    wait_until("a request to meet the failure", LONG, || {
        statuses.insert(ask(web, method, "/uri/x").status);
        farm.nodes[0].failures_left() == 0
    });
    statuses
}

const fn only(status: u16) -> [u16; 1] {
    [status]
}

fn haproxy_retry_walk(farm: &Fakes, fronts: &[Front<Haproxy>]) {
    wait_all(fronts, "GET", "/uri/x", &BOTH);
    wait_all(fronts, "PUT", "/uri/x", &BOTH);
    for front in fronts {
        for method in ["GET", "HEAD"] {
            for failure in [Answer::Status(500), Answer::Close] {
                let seen = statuses_until_met(farm, &front.web, method, &failure);
                assert_eq!(seen, only(200).into(), "{method}, {failure:?}");
            }
        }
        for method in WRITES {
            let seen = statuses_until_met(farm, &front.web, method, &Answer::Status(500));
            assert!(seen.contains(&500), "a {method} is not tried twice: {seen:?}");
            let seen = statuses_until_met(farm, &front.web, method, &Answer::Close);
            assert!(seen.contains(&502), "a {method} is not tried twice: {seen:?}");
        }
    }
}

fn haproxy_retry_gone_walk(farm: &Fakes, fronts: &[Front<Haproxy>]) {
    haproxy_retry_walk(farm, fronts);
    for front in fronts {
        let seen = statuses_until_met(farm, &front.web, "GET", &Answer::Status(410));
        assert_eq!(seen, only(200).into(), "a read answered 410 is tried again");
        let seen = statuses_until_met(farm, &front.web, "PUT", &Answer::Status(410));
        assert!(seen.contains(&410), "a write is not: {seen:?}");
        // What is truly gone is 410 to the client as well, after all tries.
        let before = asked(farm, "GET /uri/gone");
        farm.nodes.iter().for_each(|node| node.fail_clients(3, &Answer::Status(410)));
        let answer = ask(&front.web, "GET", "/uri/gone");
        assert_eq!((answer.status, answer.reason.as_str()), (410, "Gone"));
        assert_eq!(asked(farm, "GET /uri/gone") - before, 3);
        farm.nodes.iter().for_each(|node| node.fail_clients(0, &GOOD));
    }
}

/// How often clients' requests of this kind came to either node.
fn asked(farm: &Fakes, request: &str) -> usize {
    farm.nodes
        .iter()
        .flat_map(super::super::lab::fake::FakeNode::asked)
        .filter(|asked| asked == request)
        .count()
}

fn envoy_retry_walk(farm: &Fakes, fronts: &[Front<Envoy>]) {
    wait_all(fronts, "GET", "/uri/x", &BOTH);
    wait_all(fronts, "PUT", "/uri/x", &BOTH);
    let web = &fronts[0].web;
    for failure in [Answer::Status(500), Answer::Status(410), Answer::Close] {
        for method in ["GET", "HEAD"] {
            let seen = statuses_until_met(farm, web, method, &failure);
            assert_eq!(seen, only(200).into(), "{method}, {failure:?}");
        }
        for method in WRITES {
            let seen = statuses_until_met(farm, web, method, &failure);
            assert_ne!(seen, only(200).into(), "a {method} is not tried twice, {failure:?}");
        }
    }
    // What is truly gone is asked of both nodes, once each, and is 410 to the client as well.
    farm.nodes.iter().for_each(|node| node.fail_clients(1, &Answer::Status(410)));
    assert_eq!(ask(web, "GET", "/uri/gone").status, 410);
    for node in &farm.nodes {
        assert_eq!(node.asked().iter().filter(|asked| *asked == "GET /uri/gone").count(), 1);
    }
}

/// HAProxy hears of a change as the answer to a question that it had asked before the change.
#[test]
fn haproxy_longpoll_is_told_of_a_change() {
    let farm = Fakes::start();
    for version in Version::ALL {
        let relays = [0, 1].map(|at: usize| Relay::start(farm.hcf[at].agent()));
        let mut sides = farm.sides();
        for (side, relay) in sides.iter_mut().zip(&relays) {
            side.agent = relay.port;
        }
        let front = haproxy(version, "longpoll.cfg", &sides);
        wait_answers(&front.web, "PUT", "/uri", &BOTH);
        for (answer, status, words) in
            [(READS_ONLY, "DOWN", "down ready"), (GOOD, "UP", "up ready 100%\n")]
        {
            let questions = || relays[0].questions("write hold=9s as=be_write/gw1");
            let held = wait_for("a question to be held", LONG, || {
                let questions = questions();
                questions.last().is_some_and(|q| q.answer.is_empty()).then(|| questions.len() - 1)
            });
            farm.say(&answer, &GOOD);
            front
                .balancer
                .wait_stat("be_write", "gw1", status, |stat| stat.status().starts_with(status));
            let told = &questions()[held];
            assert!(told.answer.starts_with(words), "the held question's answer: {told:?}");
        }
    }
}

#[test]
fn every_shipped_file_is_asked_something() {
    for (folder, ending, tested) in [("haproxy", "cfg", HAPROXY), ("envoy", "yaml", ENVOY)] {
        let files = std::fs::read_dir(place::root().join(folder)).expect("the folder is there");
        let names: BTreeSet<String> = files
            .map(|file| file.expect("it can be read").path())
            .filter(|path| path.extension().is_some_and(|found| found == ending))
            .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
            .collect();
        let mut tested: BTreeSet<&str> = tested.iter().copied().collect();
        tested.insert(super::fronts::file(folder));
        if folder == "envoy" {
            tested.insert(super::eds::FILE);
            tested.extend(super::weights::FILES);
        }
        assert!(names.iter().eq(&tested), "{folder}: {names:?}");
    }
}
