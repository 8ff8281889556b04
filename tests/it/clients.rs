//! Real clients at a gate that refuses: each hears why, however large its upload is.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use crate::gate::{BAD, start};
use crate::lab::browser::ALONE;
use crate::lab::fake::FakeNode;
use crate::lab::http::request;
use crate::lab::place;
use crate::lab::wait::LONG;

/// Runs a client, and ends it when it takes too long.
fn run(program: &str, args: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.args(["-k", "5", "90", program]).args(args);
    command.output().expect("coreutils are there")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn curl_hears_that_a_large_upload_is_refused() {
    let node = FakeNode::start(BAD);
    node.serve_clients("here");
    let (_hcf, gate) = start(&node, "when_bad: refuse_writes");
    let folder = place::folder("upload");
    let file = folder.path().join("file");
    std::fs::File::create(&file).unwrap().set_len(100 << 20).unwrap();
    let file = file.display().to_string();
    let url = format!("http://{gate}/uri");
    for how in [
        // With `Expect: 100-continue`, so that nothing is sent in vain; without it; and in chunks.
        &["-T", &file][..],
        &["-T", &file, "-H", "Expect:"],
        &["-T", &file, "-H", "Transfer-Encoding: chunked"],
        &["-T", &file, "-H", "Transfer-Encoding: chunked", "-H", "Expect:"],
        &["-T", &file, "--http1.0"],
    ] {
        let mark = "|%{http_code} %{size_upload}";
        let curl = run("curl", &[&["-sS", "-w", mark], how, &[&url]].concat());
        let said = said(&curl);
        let (body, mark) = said.rsplit_once('|').unwrap_or_else(|| panic!("{curl:?}"));
        let problem: serde_json::Value =
            serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {curl:?}"));
        assert_eq!(problem["reasons"][0]["code"], "servers-few", "{how:?}");
        assert!(mark.starts_with("503 "), "{how:?}: {mark}");
        if !how.contains(&"Expect:") && !how.contains(&"--http1.0") {
            assert_eq!(mark, "503 0", "{how:?}: nothing is sent in vain");
        }
    }
    assert!(node.asked().is_empty(), "{:?}", node.asked());
}

#[test]
fn python_requests_hears_that_a_large_upload_is_refused() {
    const SCRIPT: &str = r#"
import io, sys, requests
for body in (b"x" * (100 << 20), io.BytesIO(b"x" * (100 << 20)), (b"x" * (1 << 20) for _ in range(100))):
    answer = requests.put(sys.argv[1], data=body)
    print(answer.status_code, answer.json()["reasons"][0]["code"])
"#;
    let node = FakeNode::start(BAD);
    node.serve_clients("here");
    let (_hcf, gate) = start(&node, "when_bad: refuse_writes");
    let python = place::root().join(".parts/venv/bin/python").display().to_string();
    let python = run(&python, &["-c", SCRIPT, &format!("http://{gate}/uri")]);
    assert_eq!(said(&python), "503 servers-few\n".repeat(3), "{python:?}");
    assert!(node.asked().is_empty(), "{:?}", node.asked());
}

#[test]
fn a_browser_hears_that_a_large_upload_is_refused() {
    const PAGE: &str = r#"<!DOCTYPE html><pre id="said">nothing</pre><script>
(async () => {
  const said = document.getElementById("said");
  try {
    const answer = await fetch("/uri", {method: "PUT", body: new Blob([new Uint8Array(100 << 20)])});
    const problem = await answer.json();
    said.textContent = answer.status + " " + problem.reasons[0].code;
  } catch (error) { said.textContent = "" + error; }
  await fetch("/said", {method: "POST", body: said.textContent});
})();
</script>"#;
    let node = FakeNode::start(BAD);
    let heard = Arc::new(Mutex::new(String::new()));
    let note = Arc::clone(&heard);
    node.serve_by(move |stream, head, body| {
        let _ = writeln!(note.lock().unwrap(), "{}", head.lines().next()?);
        let _ = write!(note.lock().unwrap(), "{}", String::from_utf8_lossy(body));
        let length = PAGE.len();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{PAGE}"
        )
        .ok()?;
        None
    });
    let (_hcf, gate) = start(&node, "when_bad: refuse_writes");
    // The page itself passes the gate.
    assert_eq!(request(&gate, "GET", "/page", &[], None, LONG).unwrap().status, 200);
    let folder = place::folder("browser");
    let data = format!("--user-data-dir={}", folder.path().display());
    let browser = run(
        "chromium",
        &[
            &ALONE[..],
            &[
                "--disable-dev-shm-usage",
                "--no-proxy-server",
                "--timeout=60000",
                "--virtual-time-budget=60000",
                &data,
                "--dump-dom",
                &format!("http://{gate}/page"),
            ],
        ]
        .concat(),
    );
    let dom = said(&browser);
    assert!(
        dom.contains(">503 servers-few<"),
        "{}\n{}",
        heard.lock().unwrap(),
        String::from_utf8_lossy(&browser.stderr)
    );
    assert!(!heard.lock().unwrap().contains("PUT"), "{}", heard.lock().unwrap());
}
