//! A real browser: Chromium, driven by WebDriver as a person would use it, and axe, which judges what it shows.

use std::path::Path;
use std::time::Duration;

use data_encoding::BASE64;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::http::request;
use super::place;
use super::process::{Process, Program};
use super::wait::{LONG, wait_for};

/// A browser on a busy machine takes its time.
const PATIENCE: Duration = Duration::from_mins(1);

/// Without a window, and without what asks other machines for something.
pub const ALONE: [&str; 8] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

/// What a page is looked at with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Screen {
    /// Pixels.
    pub width: u32,
    /// Whether the person prefers dark colours.
    pub dark: bool,
}

impl Screen {
    /// Just wide enough for tables.
    pub const TABLET: Self = Self { width: 760, dark: false };

    /// A desk and a telephone, by day and by night.
    pub const ALL: [Self; 4] = [
        Self { width: 1280, dark: false },
        Self { width: 1280, dark: true },
        Self { width: 360, dark: false },
        Self { width: 360, dark: true },
    ];
}

/// A browser with one window.
#[derive(Debug)]
pub struct Browser {
    driver: String,
    session: String,
    _process: Process,
    _folder: TempDir,
}

impl Browser {
    /// With a profile of its own.
    pub fn start() -> Self {
        let folder = place::folder("browser");
        let program = Program::new("chromedriver", Path::new("/usr/bin/chromedriver"));
        let program = program.arg("--port=0");
        let mut process = Process::start(&program, folder.path());
        let driver = wait_for("chromedriver to listen", LONG, || {
            // The port that it was given for one protocol may be taken for the other.
            if process.ended().is_some() && process.log().contains("Address already in use") {
                process = Process::start(&program, folder.path());
            }
            process.must_run();
            let said = process.stdout();
            let port = said.split_once("started successfully on port ")?.1.split('.').next()?;
            Some(format!("127.0.0.1:{port}"))
        });
        let profile = format!("--user-data-dir={}", folder.path().join("profile").display());
        // By a pipe, so that it ends with the driver.
        let args = [&ALONE[..], &["--remote-debugging-pipe", &profile]].concat();
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": args, "binary": "/usr/bin/chromium"},
        }}});
        let answer = ask(&driver, "POST", "/session", &wanted);
        let session = answer["sessionId"].as_str().expect("a session").to_owned();
        Self { driver, session, _process: process, _folder: folder }
    }

    fn command(&self, name: &str, body: &Value) -> Value {
        ask(&self.driver, "POST", &format!("/session/{}/{name}", self.session), body)
    }

    /// A command of the DevTools protocol.
    fn devtools(&self, command: &str, parameters: &Value) -> Value {
        let body = json!({"cmd": command, "params": parameters});
        self.command("goog/cdp/execute", &body)
    }

    /// Shows the page of this listener.
    pub fn open(&self, address: &str) {
        self.command("url", &json!({"url": format!("http://{address}/")}));
    }

    /// Looks at what is shown with another screen.
    pub fn on(&self, screen: Screen) {
        let Screen { width, dark } = screen;
        let metrics =
            json!({"width": width, "height": 780, "deviceScaleFactor": 1, "mobile": width < 600});
        self.devtools("Emulation.setDeviceMetricsOverride", &metrics);
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.devtools("Emulation.setEmulatedMedia", &json!({"features": features}));
    }

    /// What this function's body returns there; a page's policy does not bind the driver.
    pub fn run(&self, script: &str) -> Value {
        self.command("execute/sync", &json!({"script": script, "args": []}))
    }

    /// What axe has against the page, a line for each place; nothing when all is well.
    pub fn violations(&self) -> Vec<String> {
        let axe = place::root().join(".parts/axe/axe_playwright_python/axe.min.js");
        let axe = std::fs::read_to_string(&axe)
            .unwrap_or_else(|e| panic!("{}: {e}: run deploy/parts", axe.display()));
        // The last argument is how the script says that it has ended.
        let run = "const done = arguments[arguments.length - 1];
            axe.run({resultTypes: ['violations']}).then(
              seen => done({passes: seen.passes.length, violations: seen.violations}),
              error => done({error: String(error)}));";
        let body = json!({"script": format!("{axe};window.axe = axe;{run}"), "args": []});
        let seen = self.command("execute/async", &body);
        let passes = seen["passes"].as_u64().unwrap_or_else(|| panic!("axe did not run: {seen}"));
        assert!(passes > 10, "axe has looked at next to nothing: {seen}");
        let mut said = Vec::new();
        for rule in seen["violations"].as_array().expect("a list") {
            for node in rule["nodes"].as_array().expect("a list") {
                let why = &node["failureSummary"];
                said.push(format!("{}: {}: {why}", rule["id"], node["html"]));
            }
        }
        said
    }

    /// Writes the whole page as a picture into `target/screenshots/`.
    pub fn picture(&self, name: &str) {
        let folder = place::root().join("target/screenshots");
        std::fs::create_dir_all(&folder).expect("a folder for pictures");
        let taken = self.devtools(
            "Page.captureScreenshot",
            &json!({"format": "png", "captureBeyondViewport": true}),
        );
        let data = taken["data"].as_str().expect("a picture");
        let data = BASE64.decode(data.as_bytes()).expect("base 64");
        std::fs::write(folder.join(format!("{name}.png")), data).expect("it can be written");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let path = format!("/session/{}", self.session);
        // The driver may have ended, and the browser with it.
        _ = request(&self.driver, "DELETE", &path, &[], None, PATIENCE);
    }
}

/// What the driver answers; panics with what it says went wrong.
fn ask(driver: &str, method: &str, path: &str, body: &Value) -> Value {
    let json = [("Content-Type", "application/json")];
    let body = body.to_string();
    let answer = request(driver, method, path, &json, Some(body.as_bytes()), PATIENCE)
        .unwrap_or_else(|error| panic!("{method} {path}: {error}"));
    assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text());
    answer.json()["value"].take()
}
