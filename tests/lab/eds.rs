//! `hcf eds` as a user starts it, and sidecars that say what a test wants them to.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::hcf::hcf_binary;
use super::process::{Process, Program, Signal};
use super::wait::{LONG, wait_until};
use super::{http, place};

/// A running `hcf eds`.
#[derive(Debug)]
pub struct Eds {
    process: Process,
    status: String,
    folder: TempDir,
}

impl Eds {
    /// Starts with this fleet file, whose `OUTPUT` is the file that it writes, and waits for `ready`.
    pub fn start(config: &str) -> Self {
        Self::start_in(place::folder("eds"), config)
    }

    /// The same in a folder that another one may have written to.
    pub fn start_in(folder: TempDir, config: &str) -> Self {
        let file = folder.path().join("fleet.yaml");
        let output = output(folder.path()).display().to_string();
        let config = config.replace("OUTPUT", &output);
        std::fs::write(&file, config).expect("the fleet file can be written");
        let program = Program::new("eds", &hcf_binary());
        let program = program.args(["eds", "-c", &file.display().to_string()]);
        let mut process = Process::start(&program, folder.path());
        wait_until("hcf eds to be ready", LONG, || {
            process.must_run();
            process.stdout().lines().any(|line| line == "ready")
        });
        let said = process.stdout();
        let status = said.lines().find_map(|line| line.strip_prefix("listening status "));
        let status = status.unwrap_or_default().to_owned();
        Self { process, status, folder }
    }

    /// A fleet file for these nodes, each its name, its address and its sidecar's URL; `more` are further lines.
    pub fn config(more: &str, nodes: &[(String, String, String)]) -> String {
        let mut text = format!(
            "cluster: webapi\noutput: OUTPUT\nlisten: {{status: '127.0.0.1:0'}}\n{more}\nnodes:\n"
        );
        for (name, address, sidecar) in nodes {
            let _ = writeln!(text, "  {name}: {{address: '{address}', sidecar: '{sidecar}'}}");
        }
        text
    }

    /// Where people ask.
    pub fn status(&self) -> &str {
        &self.status
    }

    /// The file.
    pub fn output(&self) -> PathBuf {
        output(self.folder.path())
    }

    /// What Envoy is told of each node, in the order of their names.
    pub fn endpoints(&self) -> Vec<Value> {
        endpoints(&self.output())
    }

    /// The health of each node, in the order of their names.
    pub fn health(&self) -> Vec<String> {
        let word = |endpoint: &Value| endpoint["health_status"].as_str().unwrap_or("?").to_owned();
        self.endpoints().iter().map(word).collect()
    }

    /// Waits until the nodes have this health.
    pub fn wait_health(&self, expected: &[&str]) {
        wait_until(&format!("the file to say {expected:?}"), LONG, || self.health() == expected);
    }

    /// Which file it is: each version is another one.
    pub fn inode(&self) -> u64 {
        std::fs::metadata(self.output()).expect("it is there").ino()
    }

    /// What `/v1/fleet` says.
    pub fn fleet(&self) -> Value {
        http::get(&self.status, "/v1/fleet").expect("an answer").json()
    }

    /// How often the file was written.
    pub fn writes(&self) -> u64 {
        self.fleet()["writes"].as_u64().expect("a number")
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The process, to signal it or to wait for its end.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Stops it, and returns the folder with what it has written.
    pub fn stop(mut self) -> TempDir {
        self.process.signal(Signal::Term);
        assert!(self.process.wait_end(LONG).success(), "{}", self.process.log());
        self.folder
    }
}

impl Eds {
    /// Ends it at once, as a crash does, and returns the folder with what it has written.
    pub fn kill(mut self) -> TempDir {
        self.process.signal(Signal::Kill);
        self.process.wait_end(LONG);
        self.folder
    }
}

fn output(folder: &Path) -> PathBuf {
    folder.join("webapi.eds.json")
}

/// The endpoints in a file for Envoy.
pub fn endpoints(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).expect("the file is there");
    let value: Value = serde_json::from_str(&text).expect("it is whole, whenever it is read");
    let found = &value["resources"][0]["endpoints"][0]["lb_endpoints"];
    found.as_array().expect("a list").clone()
}

/// A sidecar on a port of 127.0.0.1 that serves `/v1/watch` alone.
#[derive(Debug)]
pub struct FakeSidecar {
    /// `http://127.0.0.1:PORT`
    pub url: String,
    words: Arc<Mutex<Value>>,
    orders: mpsc::Sender<String>,
    beats: Arc<AtomicUsize>,
}

/// So long that no test meets it by being slow.
const TIMES: [(&str, u64); 2] = [("fresh_ms", 600_000), ("heartbeat_ms", 200_000)];
/// Far more often than it says, since heartbeats must change nothing.
const BEAT: Duration = Duration::from_millis(200);

impl FakeSidecar {
    /// One that says this of both services.
    pub fn start(word: &Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("its number"));
        let words = Arc::new(Mutex::new(json!({"read": word, "write": word})));
        let beats = Arc::new(AtomicUsize::new(0));
        let (orders, inbox) = mpsc::channel();
        let (kept, counted) = (Arc::clone(&words), Arc::clone(&beats));
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let _ = serve(stream, &kept, &inbox, &counted);
            }
        });
        Self { url, words, orders, beats }
    }

    /// Says this of one service from now on.
    pub fn say(&self, service: &str, word: &Value) {
        self.words.lock().expect("no panic")[service] = word.clone();
        let mut data = with_times(word.clone());
        data["service"] = service.into();
        self.orders.send(format!("event: verdict\ndata: {data}\n\n")).expect("it lives");
    }

    /// How many heartbeats it has sent.
    pub fn beats(&self) -> usize {
        self.beats.load(Ordering::SeqCst)
    }
}

fn with_times(mut data: Value) -> Value {
    for (name, time) in TIMES {
        data[name] = time.into();
    }
    data
}

fn serve(
    mut stream: TcpStream,
    words: &Mutex<Value>,
    orders: &mpsc::Receiver<String>,
    beats: &AtomicUsize,
) -> std::io::Result<()> {
    let mut question = [0; 1024];
    let n = stream.read(&mut question)?;
    assert!(question[..n].starts_with(b"GET /v1/watch HTTP/1.1\r\n"), "what is asked");
    stream.set_nodelay(true)?;
    while orders.try_recv().is_ok() {}
    let all = with_times(json!({"services": *words.lock().expect("no panic")}));
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
    stream.write_all(format!("{head}event: verdicts\ndata: {all}\n\n").as_bytes())?;
    loop {
        let event = match orders.recv_timeout(BEAT) {
            Ok(event) => event,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                beats.fetch_add(1, Ordering::SeqCst);
                format!("event: fresh\ndata: {}\n\n", with_times(json!({})))
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
        };
        stream.write_all(event.as_bytes())?;
    }
}

/// A word of a sidecar; each reason is a criterion, or none for what no criterion found.
pub fn word(state: &str, weight: u8, reasons: &[Option<&str>]) -> Value {
    let reason = |criterion: Option<&str>| json!({"code": criterion.unwrap_or("refused"), "criterion": criterion, "else": "down", "text": "<b>why</b>"});
    let reasons: Vec<Value> = reasons.iter().copied().map(reason).collect();
    json!({"state": state, "degraded": false, "weight": weight, "reasons": reasons})
}
