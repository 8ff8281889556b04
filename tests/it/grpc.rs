//! The grpc listener, asked by grpcurl, which knows only what reflection tells it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::lab::fake::{Answer, FakeNode};
use crate::lab::grpc::{Call, call, reflect};
use crate::lab::hcf::Hcf;
use crate::lab::http::get;
use crate::lab::place;
use crate::lab::ports::free_port;
use crate::lab::process::Signal;
use crate::lab::wait::{LONG, wait_for, wait_until};
use crate::program::hcf;

const CHECK: &str = "grpc.health.v1.Health/Check";
const WATCH: &str = "grpc.health.v1.Health/Watch";
const REPORTS: &str = "xds.service.orca.v3.OpenRcaService/StreamCoreMetrics";

const SERVICES: &str = "
services:
  read: {criteria: {servers: {min: 2}}}
  write: {criteria: {servers: {min: 6}}}
  soft: {criteria: {servers: {min: 5, else: degrade}}, degraded_weight: 30}
  rest: {criteria: {servers: {min: 6, else: drain}}}
default_service: read
shutdown: {announce: 0s}
";

/// A node with four servers, and its sidecar, whose configuration can be changed.
struct Pair {
    node: FakeNode,
    hcf: Hcf,
    files: Files,
    address: String,
}

/// Where the sidecar's files are.
struct Files(tempfile::TempDir);

impl Files {
    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn configure(&self, node: &FakeNode, grpc: &str, services: &str) {
        let (url, socket) = (node.url(), self.path("admin.sock"));
        let config = format!(
            "node: {{url: \"{url}\", every: 50ms, timeout: 400ms}}\nadmin: {{socket: \"{socket}\"}}\n\
             listen: {{grpc: {grpc}}}\n{services}"
        );
        std::fs::write(self.path("hcf.yaml"), config).unwrap();
    }
}

impl Pair {
    fn start() -> Self {
        let node = FakeNode::start(Answer::Grid { connected: 4, refused: 0 });
        let files = Files(place::folder("grpc"));
        let address = format!("127.0.0.1:{}", free_port());
        files.configure(&node, &address, SERVICES);
        let mut hcf = Hcf::spawn(&["-c", &files.path("hcf.yaml")]);
        hcf.wait_ready();
        assert_eq!(hcf.address("grpc"), address);
        wait_until("up", LONG, || get(hcf.health(), "/health/read").unwrap().status == 200);
        Self { node, hcf, files, address }
    }

    fn configure(&self, grpc: &str, services: &str) {
        self.files.configure(&self.node, grpc, services);
        self.order(&["reload"]);
    }

    fn order(&self, words: &[&str]) {
        let run = hcf(&[words, &["--socket", &self.files.path("admin.sock")]].concat());
        assert_eq!(run.exit, 0, "{run:?}");
    }

    fn grpc(&self) -> &str {
        &self.address
    }

    fn watch(&self, service: &str) -> Call {
        Call::start(self.grpc(), &[], WATCH, &json!({"service": service}).to_string())
    }
}

fn status(word: &str) -> Value {
    json!({"status": word})
}

/// Waits until so many messages have come, and gives all of them.
fn wait_messages(call: &Call, count: usize) -> Vec<Value> {
    wait_for(&format!("{count} messages"), LONG, || {
        let messages = call.messages();
        (messages.len() >= count).then_some(messages)
    })
}

#[test]
fn every_state_is_serving_or_not() {
    let pair = Pair::start();
    let check = |service: &str| call(pair.grpc(), CHECK, &json!({"service": service}).to_string());
    for (service, word) in [
        ("", "SERVING"),
        ("read", "SERVING"),
        ("soft", "SERVING"),
        ("write", "NOT_SERVING"),
        ("rest", "NOT_SERVING"),
    ] {
        assert_eq!(check(service), Ok(status(word)), "{service}");
    }
    assert_eq!(check("nosuch"), Err("NotFound".to_owned()));
    let list = call(pair.grpc(), "grpc.health.v1.Health/List", "{}").unwrap();
    let words: Vec<_> = list["statuses"].as_object().unwrap().iter().collect();
    let of = |name: &str| list["statuses"][name]["status"].as_str().unwrap_or_default();
    assert_eq!(words.len(), 5, "{list}");
    assert_eq!((of(""), of("soft"), of("rest")), ("SERVING", "SERVING", "NOT_SERVING"));
    let askers = get(pair.hcf.status(), "/v1/status").unwrap().json();
    let asked = |service: &str| {
        let askers = askers["askers"].as_array().unwrap();
        askers.iter().any(|a| a["listener"] == "grpc" && a["service"] == service)
    };
    assert!(asked("soft") && asked("read") && !asked("nosuch"), "{askers}");
}

#[test]
fn reflection_tells_what_there_is() {
    let pair = Pair::start();
    let list = reflect(pair.grpc(), &["list"]);
    for service in ["grpc.health.v1.Health", "xds.service.orca.v3.OpenRcaService"] {
        assert!(list.lines().any(|line| line == service), "{list}");
    }
    let report = reflect(pair.grpc(), &["describe", "xds.data.orca.v3.OrcaLoadReport"]);
    assert!(report.contains("double rps_fractional = 6"), "{report}");
    let answer = call(pair.grpc(), "grpc.health.v1.Health/No", "{}");
    assert!(answer.is_err(), "{answer:?}");
}

#[test]
fn a_watch_hears_of_changes_and_of_nothing_else() {
    let pair = Pair::start();
    let watch = pair.watch("read");
    wait_messages(&watch, 1);
    // Neither a weight nor a reason is a change of this kind.
    pair.order(&["weight", "50", "read", "--reason", "test"]);
    pair.order(&["drain", "read", "--reason", "test"]);
    wait_messages(&watch, 2);
    pair.order(&["clear", "read"]);
    pair.node.set(Answer::Close);
    let expected = ["SERVING", "NOT_SERVING", "SERVING", "NOT_SERVING"].map(status);
    assert_eq!(wait_messages(&watch, 4), expected);
    // Whoever watches has heard of everything that is so.
    wait_until("the watch to be up to date", LONG, || {
        let status = get(pair.hcf.status(), "/v1/status").unwrap().json();
        let askers = status["askers"].as_array().unwrap();
        askers.iter().any(|a| {
            a["listener"] == "grpc" && a["current"] == true && a["count"].as_u64() > Some(4)
        })
    });
    assert_eq!(watch.messages(), expected);
}

#[test]
fn a_watch_follows_services_that_come_and_go() {
    let pair = Pair::start();
    let (known, unknown, default) = (pair.watch("read"), pair.watch("later"), pair.watch(""));
    assert_eq!(wait_messages(&unknown, 1), ["SERVICE_UNKNOWN"].map(status));
    wait_messages(&known, 1);
    wait_messages(&default, 1);
    pair.configure(
        pair.grpc(),
        "services:\n  read: off\n  write: {criteria: {servers: {min: 6}}}\n  \
         later: {criteria: {servers: {min: 2}}}\nshutdown: {announce: 0s}\n",
    );
    assert_eq!(wait_messages(&known, 2), ["SERVING", "SERVICE_UNKNOWN"].map(status));
    assert_eq!(wait_messages(&default, 2), ["SERVING", "NOT_SERVING"].map(status));
    wait_until("the new service to be up", LONG, || {
        unknown.messages().last() == Some(&status("SERVING"))
    });
}

#[test]
fn open_streams_do_not_delay_a_stop() {
    let mut pair = Pair::start();
    let mut streams = [pair.watch("read"), Call::start(pair.grpc(), &[], REPORTS, "{}")];
    for stream in &streams {
        drop(wait_messages(stream, 1));
    }
    pair.hcf.signal(Signal::Term);
    for stream in &mut streams {
        assert_eq!(stream.end().1.as_deref(), Some("Unavailable"));
        assert!(stream.log().contains("hcf is going"), "{}", stream.log());
    }
    assert!(pair.hcf.process().wait_end(LONG).success());
    let log = pair.hcf.log();
    assert!(!log.contains("connections still open"), "{log}");
}

#[test]
fn a_reload_closes_and_opens_the_port() {
    let pair = Pair::start();
    let mut watch = pair.watch("read");
    wait_messages(&watch, 1);
    pair.configure("off", SERVICES);
    assert_eq!(watch.end().1.as_deref(), Some("Unavailable"));
    wait_until("the port to be closed", LONG, || TcpStream::connect(pair.grpc()).is_err());
    pair.configure(pair.grpc(), SERVICES);
    assert_eq!(call(pair.grpc(), CHECK, "{}"), Ok(status("SERVING")));
}

#[test]
fn a_weight_is_reported_when_it_changes_and_as_often_as_asked() {
    let pair = Pair::start();
    let weight = |message: &Value| message["rps_fractional"].as_f64();
    // An hour: whatever comes after the first report comes for a change.
    let reports = |authority: &[&str]| {
        Call::start(pair.grpc(), authority, REPORTS, r#"{"report_interval": "3600s"}"#)
    };
    let (default, soft) = (reports(&[]), reports(&["-authority", "soft"]));
    let down = reports(&["-authority", "write"]);
    assert_eq!(
        wait_messages(&default, 1),
        [json!({"rps_fractional": 100, "application_utilization": 1})]
    );
    assert_eq!(weight(&wait_messages(&soft, 1)[0]), Some(30.0));
    pair.order(&["weight", "40", "--reason", "test"]);
    assert_eq!(weight(&wait_messages(&default, 2)[1]), Some(40.0));
    // While it is not up the last weight stands.
    let often = Call::start(pair.grpc(), &[], REPORTS, r#"{"report_interval": "0.1s"}"#);
    wait_messages(&often, 1);
    pair.order(&["drain", "--reason", "test", "--owner", "other"]);
    pair.order(&["weight", "20", "--reason", "test"]);
    assert_eq!(call(pair.grpc(), CHECK, "{}"), Ok(status("NOT_SERVING")));
    let so_far = often.messages().len();
    let repeated = wait_messages(&often, so_far + 3);
    assert!(repeated.iter().all(|message| weight(message) == Some(40.0)), "{repeated:?}");
    pair.order(&["clear"]);
    assert_eq!(weight(&wait_messages(&default, 3)[2]), Some(100.0));
    assert_eq!((default.messages().len(), soft.messages().len()), (3, 1));
    assert_eq!(down.messages(), Vec::<Value>::new(), "it has never been up");
}

/// Whoever says nothing, or no HTTP/2, is shown out, and the others are answered.
#[test]
fn what_is_no_question_is_refused() {
    let pair = Pair::start();
    let gone = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(pair.grpc()).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.write_all(bytes).unwrap();
        // Frames may come first; what counts is that it ends.
        let mut heard = Vec::new();
        match stream.read_to_end(&mut heard) {
            Ok(_) => {}
            Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset, "{e}"),
        }
    };
    gone(b"");
    gone(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    gone(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff");
    let long = "x".repeat(5000);
    let answer = call(pair.grpc(), CHECK, &json!({"service": long}).to_string());
    assert_eq!(answer, Err("OutOfRange".to_owned()));
    assert_eq!(call(pair.grpc(), CHECK, "{}"), Ok(status("SERVING")));
}
