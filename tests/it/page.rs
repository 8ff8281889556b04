//! The status page: what a person sees, in a real browser and in one for text, whatever comes from the network.

use std::io::Read as _;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::canary::CapFile;
use super::failures::status;
use super::gate::{BAD, GOOD};
use super::operator::Desk;
use crate::lab::browser::{Browser, Screen};
use crate::lab::fake::{Answer, FakeNode, page};
use crate::lab::hcf::{Hcf, Launch, ask};
use crate::lab::http::{Response, get};
use crate::lab::past;
use crate::lab::process::Signal;
use crate::lab::wait::{LONG, pause, wait_until};

fn fetch(hcf: &Hcf) -> Response {
    let page = get(hcf.status(), "/").expect("a page");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    page
}

fn wait_shown(hcf: &Hcf, words: &str) {
    wait_until(words, LONG, || fetch(hcf).text().contains(words));
}

/// What the page consists of, and nothing else may ever be on it.
const PARTS: &str = "
    const tags = 'A ARTICLE B BODY CAPTION DETAILS FOOTER H1 H2 H3 HEAD HEADER HTML LI LINK MAIN META P SECTION SPAN \
        STRONG SUMMARY TABLE TBODY TD TH THEAD TIME TITLE TR UL svg rect path title'.split(' ');
    const names = 'aria-label aria-labelledby charset class content d datetime height href id lang name \
        preserveAspectRatio rel role scope viewBox width x y'.split(' ');
    const links = ['/', '/v1/status', '/metrics', '/style.css'];
    const linked = value => links.includes(value) || /^\\/v1\\/history\\?service=[a-z]+$/.test(value);
    const foreign = [];
    for (const element of document.querySelectorAll('*')) {
        if (!tags.includes(element.tagName)) foreign.push(element.outerHTML);
        for (const { name, value } of element.attributes) {
            if (!names.includes(name) || name === 'href' && !linked(value)) foreign.push(element.outerHTML);
        }
    }
    return foreign;";

/// Looks at the page, which is to say these words, on every screen.
fn look(browser: &Browser, hcf: &Hcf, name: &str, words: &[&str]) {
    browser.open(hcf.status());
    browser.on(Screen::ALL[0]);
    let text = browser.run("return document.body.innerText");
    let text = text.as_str().expect("a text");
    for words in words {
        assert!(text.contains(words), "{name}: no `{words}` in:\n{text}");
    }
    assert_eq!(browser.run(PARTS), json!([]), "{name}");
    for screen in Screen::ALL {
        browser.on(screen);
        let Screen { width, dark } = screen;
        let light = if dark { "dark" } else { "light" };
        browser.picture(&format!("{name}-{width}-{light}"));
        let found = browser.violations();
        assert!(found.is_empty(), "{name} {screen:?}:\n{}", found.join("\n"));
        stays_within(browser, screen, name);
    }
    browser.on(Screen::TABLET);
    stays_within(browser, Screen::TABLET, name);
}

/// Nobody has to scroll sideways.
fn stays_within(browser: &Browser, screen: Screen, name: &str) {
    let root = "document.documentElement";
    let sideways = format!("return [innerWidth, {root}.scrollWidth > {root}.clientWidth]");
    assert_eq!(browser.run(&sideways), json!([screen.width, false]), "{name} {screen:?}");
}

/// Where the state needs no more than what the node answers.
const CONFIG: &str = "node: {every: 50ms, timeout: 400ms}\n";

fn beside(node: &FakeNode) -> Hcf {
    Hcf::configured(CONFIG, &["--node", &node.url()])
}

#[test]
fn a_page_of_a_node_that_is_well_reads_well() {
    let browser = Browser::start();
    let (desk, node) = (Desk::new(), FakeNode::start(GOOD));
    let hcf = desk.sidecar(&node, "gates: {webapi: {listen: '127.0.0.1:0', when_bad: close}}\n");
    wait_shown(&hcf, "write: <strong>up</strong>, weight 100 %");
    assert!(fetch(&hcf).text().contains("Nobody has asked yet."));
    look(&browser, &hcf, "up", &["write: up, weight 100 %, since ", "All is well.", "9 of 9"]);
    ask(hcf.agent(), "write\n");
    desk.order(&["weight", "20", "read", "-m", "rebuilding an array", "--for", "1h"]);
    look(&browser, &hcf, "asked", &["agent\twrite\t", "\tonce so far\tup, which holds now"]);
    look(&browser, &hcf, "capped", &["read: up, weight 20 %", "rebuilding an array", "operator"]);
}

#[test]
fn a_page_of_a_node_that_lost_servers_says_which_and_what_to_do() {
    let browser = Browser::start();
    let node = FakeNode::start(Answer::Grid { connected: 10, refused: 0 });
    let config = format!(
        "{CONFIG}services:\n  write: {{criteria: {{servers: {{min: 9}}}}}}\n  \
         soft: {{criteria: {{servers: {{min: 9, else: degrade}}, blessed: {{ids: [v0-server9], else: warn}}, \
         latency: {{max: 30s}}}}, weight: {{servers: on, load: {{full: 500, zero: 1000}}}}}}\n  \
         rest: {{criteria: {{servers: {{min: 9, else: drain}}}}}}\n"
    );
    let hcf = Hcf::configured(&config, &["--node", &node.url()]);
    wait_shown(&hcf, "soft: <strong>up</strong>");
    node.set(Answer::Grid { connected: 7, refused: 3 });
    wait_shown(&hcf, "write: <strong>down</strong>");
    wait_shown(&hcf, "lost store7, store8 and store9");
    look(
        &browser,
        &hcf,
        "lost",
        &[
            "write: down, since ",
            "soft: degraded, weight ",
            "rest: drain, since ",
            "7 of 9 storage servers usable, 3 refused; lost store7, store8 and store9 ",
            "What to do: Bring back the storage servers that are lost",
            "servers\tfails: down\t7\tat least 9",
            "latency\tpasses\t",
            "\tat most 30 s\t",
        ],
    );
    let said = status(&hcf);
    let server = |n: usize| said["node"]["servers"][n].clone();
    assert_eq!((&server(0)["usable"], &server(0)["since"]), (&true.into(), &Value::Null));
    assert_eq!((&server(9)["state"], &server(9)["usable"]), (&"refused".into(), &false.into()));
    assert!(server(9)["since"].as_str() > server(0)["since"].as_str(), "{said}");
}

#[test]
fn a_page_says_what_cannot_be_known() {
    let browser = Browser::start();
    let node = FakeNode::start(Answer::Hang);
    let args = [
        "--node",
        &node.url(),
        "--agent=127.0.0.1:0",
        "--health=127.0.0.1:0",
        "--status=127.0.0.1:0",
    ];
    let mut hcf = Hcf::launch(Launch { args: &args, ..Launch::default() });
    hcf.wait_listening("status");
    look(
        &browser,
        &hcf,
        "starting",
        &[
            "write: down, since ",
            "no look at it has finished yet.",
            "Nothing is known of its introducers yet.",
            "no storage server is known.",
        ],
    );
    let node = FakeNode::start(Answer::Page(
        json!({"introducers": {"statuses": []}, "servers": [
            {"nodeid": "v0-x", "connection_status": "connecting", "available_space": null,
             "nickname": "", "version": null, "last_received_data": null}]})
        .to_string()
        .into_bytes(),
    ));
    node.serve_by(|stream, _, _| stream.read_exact(&mut [0]).ok());
    let caps = CapFile::new();
    let canary = format!("canary_read: {{cap_file: {}, else: warn}}", caps.path().display());
    let config = format!("{CONFIG}services: {{write: {{criteria: {{{canary}}}}}}}\n");
    let hcf = Hcf::configured(&config, &["--node", &node.url()]);
    wait_shown(&hcf, "canary_read");
    look(
        &browser,
        &hcf,
        "unknown",
        &[
            "canary_read\tfails: only warned of\tnot known\tat most ",
            "no introducer configured",
            "no name\tin an unknown state\tbefore ",
            "\tnever\tnot said\tv0-x",
        ],
    );
}

#[test]
fn a_page_of_a_dead_node_shows_the_grid_as_it_was() {
    let browser = Browser::start();
    let node = FakeNode::start(GOOD);
    let hcf = beside(&node);
    wait_shown(&hcf, "write: <strong>up</strong>");
    node.set(Answer::Status(500));
    wait_shown(&hcf, "write: <strong>down</strong>");
    look(
        &browser,
        &hcf,
        "down",
        &[
            "status 500",
            "What to do: Read the node's twistd.log",
            "By the last look that succeeded, ",
        ],
    );
}

#[test]
fn a_page_shows_orders_by_whom_why_and_until_when() {
    let browser = Browser::start();
    let (desk, node) = (Desk::new(), FakeNode::start(GOOD));
    let hcf = desk.sidecar(&node, "");
    wait_shown(&hcf, "write: <strong>up</strong>");
    desk.order(&["maint", "write", "-m", "new kernel", "--owner", "night-shift"]);
    desk.order(&["drain", "read", "-m", "disk swap", "--until", "2099-01-02T03:04:05Z"]);
    look(
        &browser,
        &hcf,
        "ordered",
        &[
            "write: maint, since ",
            "read: drain, since ",
            "write\tmaint\tnew kernel\tnight-shift\t",
            "\tno end set",
            "read\tdrain\tdisk swap\toperator\t",
            "\t2099-01-02 03:04:05 UTC",
        ],
    );
    std::fs::write(desk.path("state/overrides.json"), "{torn").expect("it can be written");
    node.set(BAD);
    desk.order(&["up", "write", "-m", "the criterion is wrong", "--owner", "night-shift"]);
    look(&browser, &hcf, "forced", &["write: up, forced, weight 100 %", "the criterion is wrong"]);
}

#[test]
fn a_page_of_a_sidecar_that_was_stopped_is_stale() {
    let browser = Browser::start();
    let node = FakeNode::start(GOOD);
    // Long enough to look at the page while the look that follows is under way.
    let config = "node: {every: 100ms, timeout: 4s}\n";
    let hcf = Hcf::configured(config, &["--node", &node.url()]);
    wait_until("a page that is stale", LONG * 2, || {
        node.set(GOOD);
        wait_shown(&hcf, "write: <strong>up</strong>");
        hcf.signal(Signal::Stop);
        // One that had begun may still end well.
        node.set(Answer::Hang);
        pause(Duration::from_millis(4400));
        hcf.signal(Signal::Cont);
        fetch(&hcf).text().contains("no look at the node has finished for")
    });
    look(
        &browser,
        &hcf,
        "stale",
        &["write: down, since ", "What to do: Restart hcf; the node itself may be well."],
    );
}

#[test]
fn a_page_of_a_thousand_servers_and_a_day_that_flapped_is_short_and_reads_well() {
    let browser = Browser::start();
    let (desk, node) =
        (Desk::new(), FakeNode::start(Answer::Grid { connected: 600, refused: 400 }));
    past::write(&desk.path("state"));
    let hcf = desk.sidecar(&node, "");
    wait_shown(&hcf, "600 of 1000 known");
    wait_shown(&hcf, "<path class=\"down\"");
    let size = fetch(&hcf).body.len();
    // Real ids are longer than those of a fake node, by 40 characters for each server that is shown.
    assert!(size + 100 * 40 < 50 << 10, "{size}");
    look(&browser, &hcf, "thousand", &["And 900 more, all of them better than these"]);
    let every = status(&hcf)["node"]["servers"].as_array().map(Vec::len);
    assert_eq!(every, Some(1000), "where the page sends for the others");
}

#[test]
fn a_balancer_that_stopped_asking_is_shown_first() {
    let browser = Browser::start();
    let node = FakeNode::start(GOOD);
    let hcf = beside(&node);
    wait_shown(&hcf, "write: <strong>up</strong>");
    ask(hcf.agent(), "write\n");
    ask(hcf.agent(), "write\n");
    // Nobody is missed before 10 s have passed.
    wait_until("the balancer to be missed", LONG, || {
        _ = get(hcf.health(), "/health/read");
        fetch(&hcf).text().contains("it has stopped asking")
    });
    look(&browser, &hcf, "silent", &["ago: it has stopped asking"]);
    let first = "return document.querySelector('.askers tbody tr').innerText";
    let first = browser.run(first);
    assert!(first.as_str().expect("a row").contains("stopped asking"), "{first}");
}

#[test]
fn what_comes_from_the_network_cannot_act_on_the_page() {
    let browser = Browser::start();
    let evil = [
        "<script>document.title = 'taken'</script>",
        "\"><img src=x onerror=\"document.title='taken'\">",
        "' onmouseover='x' x='",
        "</td></tr></table></section><h1 id=taken>All is well</h1><form action=//x><button>",
        "javascript:alert(1)",
        "&lt;b&gt;&#x3c;i&#x3e; {{ 7*7 }} {% raw %}",
        "<!-- <style>*{display:none}</style>",
        "\u{202e}\u{2066}backwards\u{0}\u{7}\u{1b}[31m",
        &"long".repeat(100_000),
    ];
    let mut shown: Value = serde_json::from_slice(&page(10, 2)).expect("a page");
    for (n, evil) in evil.iter().enumerate() {
        shown["servers"][n]["nickname"] = (*evil).into();
        shown["servers"][n]["nodeid"] = format!("{n}{evil}").into();
    }
    let (desk, node) = (Desk::new(), FakeNode::start(Answer::Page(shown.to_string().into_bytes())));
    let hcf = desk.sidecar(&node, "");
    wait_shown(&hcf, "document.title");
    // Each of them is lost, and so named in a sentence.
    shown["servers"].as_array_mut().expect("a list").iter_mut().for_each(|server| {
        server["connection_status"] = "failure: <b>Traceback</b>".into();
    });
    node.set(Answer::Page(shown.to_string().into_bytes()));
    let reason = "<b id=taken>disk</b> \"swap\" & 'more' <script>document.title='taken'</script>";
    desk.order(&["weight", "20", "write", "-m", reason]);
    std::fs::write(desk.path("state/override.d/wirte"), "drain <i>a typo</i>").expect("a file");
    std::fs::write(desk.path("state/override.d/<img src=x>"), "drain x").expect("a file");
    wait_shown(&hcf, "there is no service");
    wait_shown(&hcf, "its name is not the name of a service");
    wait_shown(&hcf, "lost ");
    look(
        &browser,
        &hcf,
        "hostile",
        &["<b id=taken>disk</b> \"swap\" & 'more'", "<script>document."],
    );
    let title = browser.run("return document.title");
    assert!(!title.as_str().expect("a title").contains("taken"), "{title}");
    let answer = fetch(&hcf);
    assert!(!answer.text().contains("Traceback"), "the node's own words stay inside");
    let policy = answer.header("content-security-policy").expect("a policy");
    assert_eq!(
        policy,
        "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
}

#[test]
fn on_a_phone_each_cell_says_what_it_is() {
    let browser = Browser::start();
    let (desk, node) = (Desk::new(), FakeNode::start(GOOD));
    let config = desk.config("gates: {webapi: {listen: '127.0.0.1:0', when_bad: close}}\n");
    let config = config.replace(
        "}}, write: {",
        "}}, odd: {criteria: {servers: {min: 1}}, weight: {servers: on}}, write: {",
    );
    let hcf = Hcf::configured(&config, &["--node", &node.url()]);
    wait_shown(&hcf, "odd: <strong>up</strong>");
    desk.order(&["weight", "50", "-m", "a test"]);
    ask(hcf.agent(), "write\n");
    browser.open(hcf.status());
    browser.on(Screen { width: 360, dark: false });
    // Beside each table's heads, what the style sheet says before its cells.
    let labels = browser.run(
        "return [...document.querySelectorAll('table')].map(table => [
            table.className,
            [...table.querySelectorAll('thead th')].slice(1).map(head => head.textContent + ': '),
            [...table.querySelectorAll('tbody tr:first-child td')].map(
                cell => JSON.parse(getComputedStyle(cell, '::before').content)),
        ]);",
    );
    let tables = labels.as_array().expect("tables");
    let names: Vec<&str> = tables.iter().filter_map(|table| table[0].as_str()).collect();
    for name in ["changes", "criteria", "parts", "orders", "askers", "gates", "servers"] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    for table in tables {
        assert_eq!(table[1], table[2], "templates/style.css names the cells of {} so", table[0]);
    }
}

#[test]
fn a_browser_for_text_shows_services_reasons_and_what_to_do() {
    let node = FakeNode::start(BAD);
    let hcf = beside(&node);
    wait_shown(&hcf, "3 of 7");
    let url = format!("http://{}/", hcf.status());
    let output = Command::new("w3m").args(["-dump", "-cols", "100", &url]).output();
    let output = output.expect("w3m is there: run deploy/parts");
    let text = String::from_utf8_lossy(&output.stdout);
    for words in [
        "write: down, since 20",
        "read: up, weight 100 %, since 20",
        "3 of 7 usable (default; set node.dir or services.write.criteria.servers.min), 6 refused",
        "What to do: Bring back the storage servers that are lost",
        "3 of 9 known storage servers can be used, worst first",
        "store8",
    ] {
        assert!(text.contains(words), "no `{words}` in:\n{text}");
    }
}
