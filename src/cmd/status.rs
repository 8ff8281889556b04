//! `hcf status`: what a running sidecar says, read from its status listener.

use anyhow::Context as _;
use serde_json::Value;

use super::report::Report;
use super::{Failure, load, print, runtime};
use crate::cli;
use crate::config::{Address, Config};

pub(super) fn run(args: &cli::Status) -> Result<u8, Failure> {
    let url = match &args.url {
        Some(url) => url.clone(),
        None => listener(&load(&args.config.sources())?)?,
    };
    let value = runtime()?.block_on(fetch(&url, args.timeout))?;
    let (report, value) = Report::read(value, args.service.as_deref())?;
    print(&if args.json { format!("{value:#}\n") } else { report.table() })?;
    Ok(report.exit())
}

/// Where the sidecar of this configuration can be asked.
fn listener(config: &Config) -> Result<String, Failure> {
    match config.listen.status.first() {
        None => {
            Err(Failure::Usage("listen.status is off; name another listener by --url".to_owned()))
        }
        Some(Address::Tcp { port: 0, .. }) => {
            Err(Failure::Usage("listen.status has port 0; name the real one by --url".to_owned()))
        }
        Some(Address::Unix(path)) => Ok(format!("unix:{}", path.display())),
        Some(Address::Tcp { host, port }) => {
            // What listens on every address is asked on the local one.
            let host = match host.as_str() {
                "0.0.0.0" => "127.0.0.1",
                "::" => "::1",
                host => host,
            };
            Ok(format!("http://{}", Address::Tcp { host: host.to_owned(), port: *port }))
        }
    }
}

async fn fetch(url: &str, timeout: std::time::Duration) -> Result<Value, Failure> {
    let builder = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(timeout);
    let (builder, page) = match url.strip_prefix("unix:") {
        Some(path) => (builder.unix_socket(path), "http://localhost/v1/status".to_owned()),
        None => (builder, format!("{}/v1/status", url.trim_end_matches('/'))),
    };
    let client = builder.build().context("cannot set up the request")?;
    let response = client.get(page).send().await.map_err(|e| {
        let why = if e.is_timeout() { "no answer in time" } else { "nobody answers" };
        Failure::NoSidecar(format!(
            "cannot ask the sidecar at {url}: {why}; is `hcf run` running there?"
        ))
    })?;
    let status = response.status();
    if !status.is_success() {
        let message =
            format!("{url} answered with status {status}, so it is no sidecar's status listener");
        return Err(Failure::NoSidecar(message));
    }
    let body = response.bytes().await.context("the answer broke off")?;
    serde_json::from_slice(&body)
        .map_err(|_| Failure::NoSidecar(format!("what answers at {url} is not a sidecar")))
}
