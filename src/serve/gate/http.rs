//! A gate that reads HTTP: it refuses what the node must not get, and forwards the rest as it is.
//!
//! Each client connection has a node connection of its own, and hyper parses and writes both sides,
//! so that what a request is to this gate is what it is to the node. Bodies stream both ways, and
//! an end that is not the end of a body on one side is none on the other.

use std::convert::Infallible;
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1 as client;
use hyper::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::super::accept::Stream;
use super::super::http::{Reply, linger};
use super::framing::{Checked, Found};
use super::proxy::Opening;
use super::rest::{Answer, Pulse, Watched, heard};
use super::{Gate, forwarded, path};
use crate::config::WhenBad;
use crate::health::State;

type Body = BoxBody<Bytes, hyper::Error>;

/// How long a header may take, and a kept connection be idle: longer than the 60 s after which the
/// node itself would close it, so that a balancer meets no end that it would not meet there.
const HEADER_TIME: Duration = Duration::from_secs(75);

/// How long a connection is quiet before it rests, at least; at most twice as long. A few that
/// talk now and then may stay awake, many must not.
fn quiet_time(gate: &Gate) -> Duration {
    const FEW: usize = 128;
    let many = Arc::strong_count(&gate.awake) > FEW;
    Duration::from_millis(if many { 20 } else { 1000 })
}

/// Serves one client connection.
pub(super) async fn serve(gate: &Arc<Gate>, mut stream: Stream, opening: Opening) {
    let Opening { peer, mut early } = opening;
    let node = Arc::new(Mutex::new(Node::default()));
    loop {
        // Who has said something already is not waited for.
        if early.is_empty() {
            let rest = async { node.lock().await.rest(&stream).await };
            tokio::select! {
                rested = timeout(HEADER_TIME, rest) => if rested.is_err() { return },
                () = gate.stop.cancelled() => return Box::pin(linger(&mut stream)).await,
            }
        }
        let said = std::mem::take(&mut early);
        // Boxed, so that one that rests needs no room for it.
        match Box::pin(talk(gate, &node, stream, Opening { peer, early: said })).await {
            Some(quiet) => stream = quiet,
            None => return,
        }
    }
}

/// Answers requests until the client is quiet, and returns its connection, or to its end.
async fn talk(
    gate: &Arc<Gate>,
    node: &Arc<Mutex<Node>>,
    stream: Stream,
    opening: Opening,
) -> Option<Stream> {
    let Opening { peer, early } = opening;
    let _awake = Arc::clone(&gate.awake);
    let pulse = Arc::new(Pulse::default());
    let service = service_fn(|mut request: Request<Incoming>| {
        forwarded::add(request.headers_mut(), gate.config.forwarded, peer);
        let (gate, node, pulse) = (Arc::clone(gate), Arc::clone(node), Arc::clone(&pulse));
        Box::pin(async move {
            pulse.request();
            let response = answer(&gate, &node, request).await;
            Ok::<_, Infallible>(response.map(|body| Answer { body, pulse }))
        })
    });
    let found = Found::default();
    let checked = Checked::new(stream, early, Arc::clone(&found));
    let (pulsed, view) = (Arc::clone(&pulse), Arc::clone(&gate.view));
    let watched = Watched { checked, pulse: pulsed, view };
    let mut connection = server::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .preserve_header_case(true)
        .serve_connection(TokioIo::new(watched), service);
    let mut stopping = std::pin::pin!(gate.stop.cancelled());
    let mut last = false;
    let mut look = std::pin::pin!(sleep(quiet_time(gate)));
    let mut seen = None;
    let ended = poll_fn(|cx| {
        loop {
            if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
                return Poll::Ready(Some(ended));
            }
            if !last && (found.get().is_some() || stopping.as_mut().poll(cx).is_ready()) {
                // What is under way is answered, and then it ends.
                last = true;
                Pin::new(&mut connection).graceful_shutdown();
                continue;
            }
            while look.as_mut().poll(cx).is_ready() {
                let quiet = pulse.quiet();
                if !last && quiet.is_some() && quiet == seen {
                    return Poll::Ready(None);
                }
                seen = quiet;
                look.as_mut().reset(Instant::now() + quiet_time(gate));
            }
            return Poll::Pending;
        }
    })
    .await;
    let Some(ended) = ended else {
        let parts = connection.into_parts();
        // Nothing can be left; if it is, the client hears no answer that is not its own.
        return parts.read_buf.is_empty().then(|| parts.io.into_inner().checked.stream);
    };
    if ended.is_err_and(|e| !e.is_parse()) {
        // An answer that broke off must not look like one that ended.
        return None;
    }
    let mut checked = connection.into_parts().io.into_inner().checked;
    if let Some(flaw) = checked.unanswered() {
        let body = format!("{}\n", json!({"status": flaw.status, "title": flaw.title}));
        let mut out = Vec::new();
        Reply::new(flaw.status, "application/problem+json", &[], body).write(&mut out, true, true);
        checked.stream.write_all(&out).await.ok()?;
    }
    if checked.owes() {
        hear_out(&mut checked.stream).await;
    } else {
        linger(&mut checked.stream).await;
    }
    None
}

/// Ends a connection on which the rest of a request may still come. Closing would make the kernel
/// send a reset, which takes the answer back, and many programs look for one only when they have
/// sent all of a body; so it is read as long as it comes.
async fn hear_out(stream: &mut Stream) {
    const QUIET: Duration = Duration::from_secs(5);
    const TIME: Duration = Duration::from_mins(5);
    let heard = async {
        let _ = stream.shutdown().await;
        let mut sink = vec![0; 64 << 10];
        while let Ok(Ok(1..)) = timeout(QUIET, stream.read(&mut sink)).await {}
    };
    let _ = timeout(TIME, heard).await;
}

async fn answer(gate: &Gate, node: &Mutex<Node>, request: Request<Incoming>) -> Response<Body> {
    let whole = request.body().is_end_stream();
    let own = if gate.refuses(&request) {
        gate.view.refused.fetch_add(1, Ordering::Relaxed);
        gate.refusal()
    } else {
        // Requests of one connection come one after the other, so nobody waits for this lock.
        match node.lock().await.send(gate, request).await {
            Ok(response) => return response.map(BodyExt::boxed),
            Err(problem) => problem,
        }
    };
    closing_unless(whole, own)
}

/// An answer of the gate's own ends the connection when a body may still come: it was meant for a
/// node that will not get it.
fn closing_unless(whole: bool, mut response: Response<Body>) -> Response<Body> {
    if !whole {
        let close = header::HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    response
}

impl Gate {
    fn refuses(&self, request: &Request<Incoming>) -> bool {
        if matches!(self.state(), State::Up) || !path::is_of_files(&request.uri().to_string()) {
            return false;
        }
        match self.config.when_bad {
            WhenBad::RefuseUri => true,
            WhenBad::RefuseWrites => !path::is_reading(request.method().as_str()),
            WhenBad::Close | WhenBad::Pass => false,
        }
    }

    fn refusal(&self) -> Response<Body> {
        let verdict = self.service().map(|service| service.answers().verdict.clone());
        let reasons = verdict.as_ref().map(|verdict| &verdict.reasons);
        let mut response = problem(
            StatusCode::SERVICE_UNAVAILABLE,
            &json!({
                "title": format!("the service {} is not available on this node", self.config.service),
                "service": *self.config.service,
                "state": verdict.as_ref().map(|verdict| verdict.state),
                "reasons": reasons,
                "see": "the status listener of hcf beside this node",
            }),
        );
        let after = self.config.retry_after.as_secs().max(1);
        response.headers_mut().insert(RETRY_AFTER, after.into());
        response
    }
}

fn problem(status: StatusCode, what: &serde_json::Value) -> Response<Body> {
    let mut what = what.clone();
    what["status"] = status.as_u16().into();
    let body = Full::new(Bytes::from(format!("{what}\n"))).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// The node's side of one client connection: opened with the first request that goes there.
#[derive(Default)]
struct Node {
    sender: Option<client::SendRequest<Body>>,
    /// Gives the connection back when no more is to be sent, if it can be used again.
    driver: JoinSet<Option<Stream>>,
    /// The connection, while it rests.
    resting: Option<Stream>,
}

impl Node {
    /// Sends a request over the kept connection, or a new one. The node closes a kept one when it
    /// likes, so a request that met that end is sent once more, where that cannot do a thing twice.
    async fn send(
        &mut self,
        gate: &Gate,
        request: Request<Incoming>,
    ) -> Result<Response<Incoming>, Response<Body>> {
        let copy = repeatable(&request);
        let mut request = request.map(BodyExt::boxed);
        if let Some(mut sender) = self.kept().await
            && sender.ready().await.is_ok()
        {
            match sender.try_send_request(request).await {
                Ok(response) => {
                    self.sender = Some(sender);
                    return Ok(response);
                }
                Err(mut e) => match e.take_message().or(copy) {
                    Some(again) => request = again,
                    None => return Err(broken(&e.into_error())),
                },
            }
        }
        let mut sender = self.open(gate).await.ok_or_else(|| {
            problem(StatusCode::BAD_GATEWAY, &json!({"title": "the node does not answer"}))
        })?;
        let response = sender.send_request(request).await.map_err(|e| broken(&e))?;
        self.sender = Some(sender);
        Ok(response)
    }

    /// What is left of the last request: where the next one can be sent.
    async fn kept(&mut self) -> Option<client::SendRequest<Body>> {
        match self.resting.take() {
            Some(stream) => self.drive(stream).await,
            None => self.sender.take(),
        }
    }

    async fn open(&mut self, gate: &Gate) -> Option<client::SendRequest<Body>> {
        let stream = gate.connect().await?;
        self.drive(stream).await
    }

    async fn drive(&mut self, stream: Stream) -> Option<client::SendRequest<Body>> {
        let stream = TokioIo::new(Listening { stream, deaf: false });
        let handshake = client::Builder::new().preserve_header_case(true).handshake(stream).await;
        let (sender, driver) = handshake.ok()?;
        self.driver = JoinSet::new();
        self.driver.spawn(async move {
            // The request that meets an error reports it.
            let parts = driver.without_shutdown().await.ok()?;
            let Listening { stream, deaf } = parts.io.into_inner();
            (parts.read_buf.is_empty() && !deaf).then_some(stream)
        });
        Some(sender)
    }

    /// Rests until the client says something.
    async fn rest(&mut self, client: &Stream) {
        // One that has no use for another request is in the middle of something.
        if let Some(sender) = self.sender.take().filter(client::SendRequest::is_ready) {
            drop(sender);
            self.resting = self.driver.join_next().await.and_then(|driver| driver.ok()?);
        }
        self.driver = JoinSet::new();
        if let Some(node) = &self.resting {
            tokio::select! {
                biased;
                // Its end, since nobody has asked it anything.
                () = heard(node) => self.resting = None,
                () = heard(client) => return,
            }
        }
        heard(client).await;
    }
}

/// A second copy of a request that has no body, and whose effect is the same when done twice.
fn repeatable(request: &Request<Incoming>) -> Option<Request<Body>> {
    let same = [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE];
    if !request.body().is_end_stream() || !same.contains(request.method()) {
        return None;
    }
    let mut copy = Request::new(Empty::new().map_err(|never| match never {}).boxed());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    Some(copy)
}

/// What a client hears when there is no answer from the node.
fn broken(error: &hyper::Error) -> Response<Body> {
    if error.is_user() {
        return problem(StatusCode::BAD_REQUEST, &json!({"title": "the request broke off"}));
    }
    problem(StatusCode::BAD_GATEWAY, &json!({"title": "the node broke off the answer"}))
}

/// The node's connection. A node may answer before it has read a whole body, and close; then the
/// failure to write must not hide the answer, so only reading tells how the connection ended.
struct Listening {
    stream: Stream,
    deaf: bool,
}

impl AsyncRead for Listening {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Listening {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.deaf {
            match Pin::new(&mut self.stream).poll_write(cx, bytes) {
                Poll::Ready(Err(_)) => self.deaf = true,
                other => return other,
            }
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
