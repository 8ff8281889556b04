//! The status page: what a person sees, whatever comes from the network.

use crate::lab::fake::{Answer, FakeNode, page};
use crate::lab::hcf::{Hcf, ask};
use crate::lab::http::{Response, get};
use crate::lab::wait::{LONG, wait_until};

fn fetch(hcf: &Hcf) -> Response {
    let page = get(hcf.status(), "/").expect("a page");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    page
}

#[test]
fn the_page_says_in_its_first_lines_what_is_wrong() {
    let node = FakeNode::start(Answer::Grid { connected: 9, refused: 1 });
    let hcf = Hcf::configured("node: {every: 50ms}\n", &["--node", &node.url()]);
    for (answer, line, words) in [
        (
            Answer::Grid { connected: 9, refused: 1 },
            "up ready",
            "write: <strong>up</strong>, weight 100 %",
        ),
        (Answer::Grid { connected: 4, refused: 6 }, "down ready", "4 of 7 usable"),
        (Answer::Status(500), "down ready", "write: <strong>down</strong>"),
    ] {
        node.set(answer);
        wait_until(words, LONG, || {
            ask(hcf.agent(), "write\n").starts_with(line) && fetch(&hcf).text().contains(words)
        });
    }
    let text = fetch(&hcf).text();
    assert!(text.contains("<td>agent</td><td>write</td>"), "who asks: {text}");
    let style = get(hcf.status(), "/style.css").expect("a style sheet");
    assert_eq!(style.header("content-type"), Some("text/css; charset=utf-8"));
}

#[test]
fn what_comes_from_the_network_cannot_act_on_the_page() {
    let evil = "<script>alert(1)</script>\" onmouseover=\"x";
    let shown = String::from_utf8(page(8, 2)).unwrap();
    let shown = shown.replacen("\"store0\"", &serde_json::json!(evil).to_string(), 1);
    assert!(shown.contains("alert(1)"), "the fake page has nicknames: {shown}");
    let node = FakeNode::start(Answer::Page(shown.into_bytes()));
    let hcf = Hcf::configured("node: {every: 50ms}\n", &["--node", &node.url()]);
    wait_until("the servers", LONG, || fetch(&hcf).text().contains("alert(1)"));
    let answer = fetch(&hcf);
    let text = answer.text();
    assert!(!text.contains("<script") && !text.contains("\" onmouseover"), "{text}");
    let policy = answer.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'; style-src 'self';"), "{policy}");
}

#[test]
fn the_page_of_a_thousand_servers_is_short() {
    let node = FakeNode::start(Answer::Grid { connected: 600, refused: 400 });
    let hcf = Hcf::configured("node: {every: 50ms}\n", &["--node", &node.url()]);
    wait_until("the servers", LONG, || fetch(&hcf).text().contains("600 of 1000 known"));
    let size = fetch(&hcf).body.len();
    assert!(size < 50 << 10, "{size}");
}
