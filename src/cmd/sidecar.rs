//! The way to a running sidecar.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Method, Response};
use serde_json::Value;
use tokio::time::timeout;

use super::{Failure, load};
use crate::cli::{LookArgs, SidecarArgs};
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

    /// Asks where these say: at the listener that is named, else at the admin socket, else at the status listener, since
    /// who may not use the admin socket, or has none, may still look.
    pub(super) async fn first<T>(
        args: &LookArgs,
        ask: impl AsyncFn(Self) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        if let Some(url) = &args.url {
            return ask(Self::of_url(url)).await;
        }
        let admin = match Self::admin(&args.sidecar) {
            Ok(admin) => ask(admin).await,
            Err(failure) => Err(failure),
        };
        match admin {
            Err(Failure::NoSidecar(_)) if args.sidecar.socket.is_none() => {
                let config = load(&args.sidecar.config.sources())?;
                ask(Self::status(&config)?).await
            }
            said => said,
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
        let client = self.client(|builder| builder.timeout(timeout))?;
        let mut request = client.request(method, format!("{}{path}", self.base()));
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let response = request.send().await.map_err(|e| self.unheard(&e))?;
        let status = response.status().as_u16();
        let body = response.bytes().await.context("the answer broke off")?;
        let value = serde_json::from_slice(&body);
        value.map(|value| (status, value)).map_err(|_| {
            Failure::NoSidecar(format!("what answers at {self} is not a sidecar (status {status})"))
        })
    }

    /// Asks for what goes on until one side ends it; the first of it must come in `time`.
    pub(super) async fn stream(&self, path: &str, time: Duration) -> Result<Response, Failure> {
        let client = self.client(|builder| builder.connect_timeout(time))?;
        let asking = client.get(format!("{}{path}", self.base())).send();
        let late = || {
            let why = "no answer in time; is `hcf run` running there?";
            Failure::NoSidecar(format!("cannot ask the sidecar at {self}: {why}"))
        };
        let sent = timeout(time, asking).await.map_err(|_| late())?;
        let response = sent.map_err(|e| self.unheard(&e))?;
        match response.status().as_u16() {
            200 => Ok(response),
            503 => Err(Failure::NoSidecar(format!("as many watch the sidecar at {self} as may"))),
            status => Err(Failure::NoSidecar(format!(
                "{self} answered with status {status}, so it is no sidecar's status listener"
            ))),
        }
    }

    fn client(&self, set: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Result<Client, Failure> {
        let builder = Client::builder().no_proxy().redirect(Policy::none());
        let builder = match self {
            Self::Unix(path) => builder.unix_socket(path.clone()),
            Self::Url(_) => builder,
        };
        Ok(set(builder).build().context("cannot set up the request")?)
    }

    fn base(&self) -> &str {
        match self {
            Self::Unix(_) => "http://localhost",
            Self::Url(url) => url,
        }
    }

    /// Why there was no answer.
    fn unheard(&self, error: &reqwest::Error) -> Failure {
        let why = if error.is_timeout() {
            "no answer in time; is `hcf run` running there?"
        } else if is_denied(error) {
            "permission denied; its file says whose group may connect (admin.group)"
        } else {
            "nobody answers; is `hcf run` running there?"
        };
        Failure::NoSidecar(format!("cannot ask the sidecar at {self}: {why}"))
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
