//! Asking another process over HTTP/1.1, a sidecar or a node: one connection for one question.
//!
//! No proxy and no redirects: the answer counts only when it comes from where it was asked for. The caller bounds the time.

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

use crate::config::Address;
use crate::tahoe::{Endpoint, Target, Trust};
use crate::tls::{self, Pair};

/// By what an https sidecar is known, and what it may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// A PEM file with the authorities that may have signed its certificate, for the host's name.
    pub ca: PathBuf,
    /// A certificate of ours.
    pub own: Option<Pair>,
}

/// Where to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    endpoint: Endpoint,
    proof: Option<Proof>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// Nobody could be reached.
    #[error("nobody listens there")]
    Unreached(#[source] io::Error),
    /// They speak no TLS, or are not whom we may trust.
    #[error("{0}")]
    Unsecured(String),
    /// The connection ended before there was an answer.
    #[error("the connection broke")]
    Broken,
}

/// An answer, whose body is still to be read.
#[derive(Debug)]
pub struct Answer {
    /// The answer.
    pub response: Response<Incoming>,
    /// With these the connection ends.
    _sender: SendRequest<Full<Bytes>>,
    _driver: JoinSet<()>,
}

impl Answer {
    /// More of the body; `None` at its end.
    ///
    /// # Errors
    ///
    /// When the connection ends before.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Unanswered> {
        while let Some(frame) = self.response.frame().await {
            if let Ok(data) = frame.map_err(|_| Unanswered::Broken)?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Place {
    /// A Unix socket.
    #[must_use]
    pub const fn unix(path: PathBuf) -> Self {
        Self { endpoint: Endpoint::Unix(path), proof: None }
    }

    /// Reads `http://HOST:PORT`, `unix:/PATH`, or, where there is a `proof`, `https://HOST:PORT`.
    ///
    /// # Errors
    ///
    /// A sentence that says what is wrong.
    pub fn of_url(url: &str, proof: Option<&Proof>) -> Result<Self, String> {
        let (endpoint, tls) = Target::parse_url(url)?;
        if tls && proof.is_none() {
            return Err("https needs the authority that has signed the certificate".to_owned());
        }
        Ok(Self { endpoint, proof: proof.filter(|_| tls).cloned() })
    }

    /// Whether what is asked is encrypted.
    #[must_use]
    pub const fn is_secured(&self) -> bool {
        self.proof.is_some()
    }

    /// Asks, and returns the head of the answer.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<Answer, Unanswered> {
        let target = Target { endpoint: self.endpoint.clone(), trust: None };
        let stream = target.connect().await.map_err(Unanswered::Unreached)?;
        let (host, authority) = match &self.endpoint {
            Endpoint::Tcp { host, port } => {
                let (host, port) = (host.clone(), *port);
                (host.clone(), Address::Tcp { host, port }.to_string())
            }
            Endpoint::Unix(_) | Endpoint::Published(_) => {
                ("localhost".to_owned(), "localhost".to_owned())
            }
        };
        let stream: Box<dyn Stream> = match &self.proof {
            None => Box::new(stream),
            Some(Proof { ca, own }) => {
                let trust = Trust::Ca(ca.clone());
                let secured = tls::connect(stream, &host, trust, own.clone()).await;
                Box::new(secured.map_err(Unanswered::Unsecured)?)
            }
        };
        let broken = |_| Unanswered::Broken;
        let (mut sender, driver) = handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // Whoever reads the answer meets the error.
            let _ = driver.await;
        });
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, authority)
            .header(header::USER_AGENT, concat!("hcf/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body))
            .map_err(|_| Unanswered::Broken)?;
        let response = sender.send_request(request).await.map_err(broken)?;
        Ok(Answer { response, _sender: sender, _driver: tasks })
    }
}
