//! The way to a running sidecar.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use reqwest::Method;
use serde_json::Value;

use super::Failure;
use crate::cli::SidecarArgs;
use crate::config::{Address, Config};

/// Where a sidecar is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// At a Unix socket.
    Unix(PathBuf),
    /// At a URL without a path.
    Url(String),
}

impl Place {
    /// The admin socket, found as the manual says.
    pub(super) fn admin(args: &SidecarArgs) -> Result<Self, Failure> {
        if let Some(path) = &args.socket {
            return Ok(Self::Unix(path.clone()));
        }
        let sources = args.config.sources();
        let by_environment = || std::env::var_os("HCF_SOCKET").map(PathBuf::from);
        let file = sources.file.as_ref();
        let socket = if args.config.instance.is_some() && file.is_none_or(|file| !file.exists()) {
            sources.socket
        } else if file.is_some() {
            Config::socket(&sources)?
        } else {
            by_environment().or(sources.socket)
        };
        let none = "there is no admin socket; name one by --socket, or the configuration by -c";
        socket.map(Self::Unix).ok_or_else(|| Failure::NoSidecar(none.to_owned()))
    }

    /// The status listener of this configuration.
    pub(super) fn status(config: &Config) -> Result<Self, Failure> {
        match config.listen.status.at.first() {
            None => Err(Failure::Usage(
                "listen.status is off; name another listener by --url".to_owned(),
            )),
            Some(Address::Tcp { port: 0, .. }) => Err(Failure::Usage(
                "listen.status has port 0; name the real one by --url".to_owned(),
            )),
            Some(Address::Unix(path)) => Ok(Self::Unix(path.clone())),
            Some(Address::Tcp { host, port }) => {
                // What listens on every address is asked on the local one.
                let host = match host.as_str() {
                    "0.0.0.0" => "127.0.0.1",
                    "::" => "::1",
                    host => host,
                };
                Ok(Self::Url(format!(
                    "http://{}",
                    Address::Tcp { host: host.to_owned(), port: *port }
                )))
            }
        }
    }

    /// What `--url` names.
    pub(super) fn of_url(url: &str) -> Self {
        match url.strip_prefix("unix:") {
            Some(path) => Self::Unix(path.into()),
            None => Self::Url(url.trim_end_matches('/').to_owned()),
        }
    }

    /// Asks, and returns the status and the JSON of the answer.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        timeout: Duration,
    ) -> Result<(u16, Value), Failure> {
        let builder = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(timeout);
        let (builder, base) = match self {
            Self::Unix(path) => (builder.unix_socket(path.clone()), "http://localhost"),
            Self::Url(url) => (builder, url.as_str()),
        };
        let client = builder.build().context("cannot set up the request")?;
        let mut request = client.request(method, format!("{base}{path}"));
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let response = request.send().await.map_err(|e| {
            let why = if e.is_timeout() {
                "no answer in time; is `hcf run` running there?"
            } else if is_denied(&e) {
                "permission denied; its file says whose group may connect (admin.group)"
            } else {
                "nobody answers; is `hcf run` running there?"
            };
            Failure::NoSidecar(format!("cannot ask the sidecar at {self}: {why}"))
        })?;
        let status = response.status().as_u16();
        let body = response.bytes().await.context("the answer broke off")?;
        let value = serde_json::from_slice(&body);
        value.map(|value| (status, value)).map_err(|_| {
            Failure::NoSidecar(format!("what answers at {self} is not a sidecar (status {status})"))
        })
    }

    /// The whole status.
    pub(super) async fn fetch_status(&self, timeout: Duration) -> Result<Value, Failure> {
        let (status, value) = self.ask(Method::GET, "/v1/status", None, timeout).await?;
        if status == 200 {
            return Ok(value);
        }
        Err(Failure::NoSidecar(format!(
            "{self} answered with status {status}, so it is no sidecar's status listener"
        )))
    }
}

/// Whether the kernel did not let us connect.
fn is_denied(error: &reqwest::Error) -> bool {
    let first = std::error::Error::source(error);
    std::iter::successors(first, |error| error.source())
        .filter_map(|error| error.downcast_ref::<std::io::Error>())
        .any(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Url(url) => f.write_str(url),
        }
    }
}
