//! The way to a running sidecar.

use std::fmt::{self, Display, Formatter};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::Method;
use serde_json::Value;
use tokio::time;

use super::{Failure, load};
use crate::ask::{self, Answer, Proof, Unanswered};
use crate::cli::{LookArgs, SidecarArgs};
use crate::config::{Address, Config};

/// Where a sidecar is asked, and what that is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    place: ask::Place,
    name: String,
}

/// The largest answer: many times the status of the largest grid.
const ANSWER_LIMIT: usize = 64 << 20;

impl Place {
    /// The admin socket, found as the manual says.
    pub(super) fn admin(args: &SidecarArgs) -> Result<Self, Failure> {
        if let Some(path) = &args.socket {
            return Ok(Self::unix(path));
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
        socket.as_deref().map(Self::unix).ok_or_else(|| Failure::NoSidecar(none.to_owned()))
    }

    fn unix(path: &Path) -> Self {
        let name = format!("unix:{}", path.display());
        Self { place: ask::Place::unix(path.to_owned()), name }
    }

    /// The status listener of this configuration.
    pub(super) fn status(config: &Config) -> Result<Self, Failure> {
        if config.listen.status.tls.is_some() {
            let message = "listen.status speaks TLS; name it by --url https://HOST:PORT, with --ca";
            return Err(Failure::Usage(message.to_owned()));
        }
        match config.listen.status.at.first() {
            None => Err(Failure::Usage(
                "listen.status is off; name another listener by --url".to_owned(),
            )),
            Some(Address::Tcp { port: 0, .. }) => Err(Failure::Usage(
                "listen.status has port 0; name the real one by --url".to_owned(),
            )),
            Some(Address::Unix(path)) => Ok(Self::unix(path)),
            Some(Address::Tcp { host, port }) => {
                // What listens on every address is asked on the local one.
                let host = match host.as_str() {
                    "0.0.0.0" => "127.0.0.1",
                    "::" => "::1",
                    host => host,
                };
                let host = host.to_owned();
                Self::of_url(&format!("http://{}", Address::Tcp { host, port: *port }), None)
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
            return ask(Self::of_url(url, args.proof().as_ref())?).await;
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
    pub(super) fn of_url(url: &str, proof: Option<&Proof>) -> Result<Self, Failure> {
        let place = ask::Place::of_url(url, proof);
        let place = place.map_err(|why| Failure::Usage(format!("{url}: {why} (--ca)")))?;
        Ok(Self { place, name: url.trim_end_matches('/').to_owned() })
    }

    /// Asks, and returns the status and the JSON of the answer.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        timeout: Duration,
    ) -> Result<(u16, Value), Failure> {
        let asking = async {
            let body = body.map(Value::to_string).unwrap_or_default();
            let answer = self.place.ask(method, path, body.into()).await;
            let answer = answer.map_err(|e| self.unheard(&e))?;
            let (status, body) = (answer.response.status().as_u16(), answer.response.into_body());
            let body = Limited::new(body, ANSWER_LIMIT).collect().await;
            let body = body.map_err(|e| anyhow::anyhow!("the answer broke off: {e}"))?;
            Ok::<_, Failure>((status, body.to_bytes()))
        };
        let (status, body) = time::timeout(timeout, asking).await.map_err(|_| self.late())??;
        let value = serde_json::from_slice(&body);
        value.map(|value| (status, value)).map_err(|_| {
            Failure::NoSidecar(format!("what answers at {self} is not a sidecar (status {status})"))
        })
    }

    /// Asks for what goes on until one side ends it; the first of it must come in `most`.
    pub(super) async fn stream(&self, path: &str, most: Duration) -> Result<Answer, Failure> {
        let asking = self.place.ask(Method::GET, path, Bytes::new());
        let asked = time::timeout(most, asking).await.map_err(|_| self.late())?;
        let answer = asked.map_err(|e| self.unheard(&e))?;
        match answer.response.status().as_u16() {
            200 => Ok(answer),
            503 => Err(Failure::NoSidecar(format!("as many watch the sidecar at {self} as may"))),
            status => Err(Failure::NoSidecar(format!(
                "{self} answered with status {status}, so it is no sidecar's status listener"
            ))),
        }
    }

    /// Why there was no answer.
    fn unheard(&self, error: &Unanswered) -> Failure {
        self.nobody(match error {
            Unanswered::Unreached(e) if e.kind() == ErrorKind::PermissionDenied => {
                "permission denied; its file says whose group may connect (admin.group)"
            }
            Unanswered::Unsecured(why) => why,
            Unanswered::Broken if self.place.is_secured() => {
                "it broke off; does it want a certificate (--cert and --key)?"
            }
            Unanswered::Unreached(_) | Unanswered::Broken => {
                "nobody answers; is `hcf run` running there?"
            }
        })
    }

    fn late(&self) -> Failure {
        self.nobody("no answer in time; is `hcf run` running there?")
    }

    fn nobody(&self, why: &str) -> Failure {
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

impl Display for Place {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
