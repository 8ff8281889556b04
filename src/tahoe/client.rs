//! One owned HTTP/1.1 connection to the node, kept open between looks.
//!
//! Every read is bounded in bytes here, and in time by the caller. No proxy, no redirects: the
//! answer counts only when it comes from the port that was meant.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::http::request::Builder;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio_util::either::Either;

use super::files::aside;
use super::{Endpoint, Target};
use crate::health::{FailureKind, ProbeFailure};

/// The largest answer that is read: room for 4,000 servers that each fail with a traceback.
pub(super) const PAGE_LIMIT: usize = 8 << 20;

/// A connection to the node.
#[derive(Debug)]
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
    heard: Arc<AtomicUsize>,
    /// Drives the connection; ends with it.
    driver: JoinSet<()>,
}

/// A request that failed.
#[derive(Debug)]
pub(super) struct Failed {
    /// How it counts.
    pub(super) failure: ProbeFailure,
    /// Whether no byte of an answer came: on a kept connection that proves nothing, for the node
    /// may have closed it just then.
    pub(super) unheard: bool,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Connection {
    /// Connects to the node.
    pub(super) async fn open(target: &Target) -> Result<Self, ProbeFailure> {
        let endpoint = published(&target.endpoint).await?;
        let stream = connect(&endpoint).await.map_err(|e| connect_failure(&e))?;
        let stream: Box<dyn Stream> = Box::new(stream);
        let host = match endpoint {
            Endpoint::Tcp { host, .. } => host,
            Endpoint::Unix(_) | Endpoint::Published(_) => "localhost".to_owned(),
        };
        let stream = secured(stream, &host, target).await?;
        let heard = Arc::new(AtomicUsize::new(0));
        let io = TokioIo::new(Listening { stream, heard: Arc::clone(&heard), unbroken: 0 });
        let (sender, driver) = handshake(io).await.map_err(|e| broken(&e))?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // The request that meets the error reports it.
            let _ = driver.await;
        });
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        Ok(Self { sender, host, heard, driver: tasks })
    }

    /// Whether the connection can take a request.
    pub(super) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Ends when the node has closed the connection.
    pub(super) async fn ended(&mut self) {
        self.driver.join_next().await;
    }

    /// Fetches a page.
    pub(super) async fn get(&mut self, path: &'static str) -> Result<Bytes, Failed> {
        self.heard.store(0, Ordering::Relaxed);
        let result = self.exchange(path).await;
        result
            .map_err(|failure| Failed { failure, unheard: self.heard.load(Ordering::Relaxed) == 0 })
    }

    async fn exchange(&mut self, path: &'static str) -> Result<Bytes, ProbeFailure> {
        let request = self.request(Method::GET, path).body(Full::default());
        let (status, answer) = self.send(request).await?;
        if status != StatusCode::OK {
            let text = format!("the node answered with status {}", status.as_u16());
            return Err(ProbeFailure::new(FailureKind::HttpStatus, text));
        }
        body(answer, PAGE_LIMIT).await
    }

    /// Asks for anything, and returns the status and body of whatever comes, up to `limit` bytes.
    pub(super) async fn ask(
        &mut self,
        method: Method,
        path: &str,
        sent: Bytes,
        limit: usize,
    ) -> Result<(StatusCode, Bytes), ProbeFailure> {
        self.heard.store(0, Ordering::Relaxed);
        // An error is then a traceback whose last line names its class.
        let request = self.request(method, path).header(header::ACCEPT, "text/plain");
        let (status, answer) = self.send(request.body(Full::new(sent))).await?;
        Ok((status, body(answer, limit).await?))
    }

    fn request(&self, method: Method, path: &str) -> Builder {
        Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.host)
            .header(header::USER_AGENT, concat!("hcf/", env!("CARGO_PKG_VERSION")))
    }

    async fn send(
        &mut self,
        request: hyper::http::Result<Request<Full<Bytes>>>,
    ) -> Result<(StatusCode, Incoming), ProbeFailure> {
        let request = request
            .map_err(|_| ProbeFailure::new(FailureKind::Reset, "the request cannot be made"))?;
        self.sender.ready().await.map_err(|e| broken(&e))?;
        let response = self.sender.send_request(request).await.map_err(|e| broken(&e))?;
        Ok((response.status(), response.into_body()))
    }
}

/// How large an answer of unknown length may grow by doubling.
const SMALL: usize = 256 << 10;

async fn body(mut body: Incoming, limit: usize) -> Result<Bytes, ProbeFailure> {
    let too_large = || {
        let text = format!("the node's answer is larger than {} MiB", limit >> 20);
        ProbeFailure::new(FailureKind::TooLarge, text)
    };
    let told = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if told > limit {
        return Err(too_large());
    }
    let mut page = BytesMut::with_capacity(told);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|e| broken(&e))?.into_data() else { continue };
        if page.len() + data.len() > limit {
            return Err(too_large());
        }
        let len = page.len() + data.len();
        if page.capacity() < len && len > SMALL {
            // At once, since growing by doubling would take thrice the room.
            page.reserve(limit - page.len());
        }
        page.extend_from_slice(&data);
    }
    Ok(page.freeze())
}

impl Target {
    /// Connects to the node's port, and says nothing there.
    ///
    /// # Errors
    ///
    /// When the node cannot be reached.
    pub async fn connect(&self) -> io::Result<Either<TcpStream, UnixStream>> {
        let endpoint = published(&self.endpoint).await;
        let endpoint = endpoint.map_err(|failure| io::Error::other(failure.text))?;
        connect(&endpoint).await
    }
}

async fn connect(endpoint: &Endpoint) -> io::Result<Either<TcpStream, UnixStream>> {
    match endpoint {
        Endpoint::Tcp { host, port } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            // What is sent is whole, so waiting to fill a segment could only delay it.
            let _ = stream.set_nodelay(true);
            Ok(Either::Left(stream))
        }
        Endpoint::Unix(path) | Endpoint::Published(path) => {
            UnixStream::connect(path).await.map(Either::Right)
        }
    }
}

/// Looks up the port of a node that chooses one at each start.
async fn published(endpoint: &Endpoint) -> Result<Endpoint, ProbeFailure> {
    let Endpoint::Published(file) = endpoint else { return Ok(endpoint.clone()) };
    let unknown = |why: &str| {
        let text = format!("cannot tell the node's port from its node.url: {why}");
        ProbeFailure::new(FailureKind::Refused, text)
    };
    let path = file.clone();
    let read = aside(move || std::fs::read_to_string(path)).await;
    let url = read.ok_or_else(|| unknown("not read"))?.map_err(|e| unknown(&e.to_string()))?;
    let (endpoint, _) = Target::parse_url(url.trim()).map_err(|e| unknown(&e))?;
    Ok(endpoint)
}

#[cfg(feature = "tls")]
async fn secured(
    stream: Box<dyn Stream>,
    host: &str,
    target: &Target,
) -> Result<Box<dyn Stream>, ProbeFailure> {
    Ok(match &target.trust {
        Some(trust) => Box::new(super::tls::connect(stream, host, trust).await?),
        None => stream,
    })
}

#[cfg(not(feature = "tls"))]
#[expect(clippy::unused_async, reason = "stands in for the one that speaks TLS")]
async fn secured(
    stream: Box<dyn Stream>,
    _: &str,
    target: &Target,
) -> Result<Box<dyn Stream>, ProbeFailure> {
    match &target.trust {
        Some(_) => Err(ProbeFailure::new(FailureKind::Reset, "this hcf was built without TLS")),
        None => Ok(stream),
    }
}

fn connect_failure(error: &io::Error) -> ProbeFailure {
    match error.kind() {
        // A Unix socket that is not there is a port on which nobody listens.
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
            ProbeFailure::new(FailureKind::Refused, "nobody listens on the node's port")
        }
        _ => ProbeFailure::new(FailureKind::Reset, format!("cannot connect to the node: {error}")),
    }
}

/// What a broken exchange counts as; hyper's own words may quote the answer, so they stay inside.
fn broken(error: &hyper::Error) -> ProbeFailure {
    if error.is_parse() {
        ProbeFailure::new(FailureKind::BadShape, "the node's answer is not HTTP")
    } else if error.is_incomplete_message() {
        ProbeFailure::new(
            FailureKind::Reset,
            "the node closed the connection before its answer ended",
        )
    } else {
        ProbeFailure::new(FailureKind::Reset, "the connection to the node broke")
    }
}

/// A stream that counts what was heard for a request, and bounds it: hyper bounds no interim
/// answers, nor does it let others have a turn while there are more of them.
struct Listening {
    stream: Box<dyn Stream>,
    heard: Arc<AtomicUsize>,
    /// Bytes since others last had a turn.
    unbroken: usize,
}

/// The most bytes for one answer, whatever they are.
const ANSWER_LIMIT: usize = 2 * PAGE_LIMIT;
/// Others have a turn after so many.
const TURN: usize = 64 << 10;

impl AsyncRead for Listening {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unbroken > TURN {
            self.unbroken = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(cx, buf);
        let new = buf.filled().len() - before;
        self.unbroken += new;
        if self.heard.fetch_add(new, Ordering::Relaxed) + new > ANSWER_LIMIT {
            return Poll::Ready(Err(io::Error::other("too much for one answer")));
        }
        poll
    }
}

impl AsyncWrite for Listening {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
