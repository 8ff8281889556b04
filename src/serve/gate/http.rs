//! A gate that reads HTTP: it refuses what the node must not get, and forwards the rest as it is.
//!
//! Each client connection has a node connection of its own, and hyper parses and writes both sides,
//! so that what a request is to this gate is what it is to the node. Bodies stream both ways.

use std::convert::Infallible;
use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1 as client;
use hyper::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::super::accept::Stream;
use super::super::http::{Reply, linger};
use super::framing::Checked;
use super::proxy::Opening;
use super::{Gate, forwarded, path};
use crate::config::WhenBad;
use crate::health::State;

type Body = BoxBody<Bytes, hyper::Error>;

/// How long a header may take, and a kept connection be idle: longer than the 60 s after which the
/// node itself would close it, so that a balancer meets no end that it would not meet there.
const HEADER_TIME: Duration = Duration::from_secs(75);

/// The node's side of one client connection: opened with the first request that goes there.
#[derive(Default)]
struct Node {
    sender: Option<client::SendRequest<Incoming>>,
    driver: JoinSet<()>,
}

/// Serves one client connection.
pub(super) async fn serve(gate: &Arc<Gate>, stream: Stream, opening: Opening) {
    let Opening { peer, early } = opening;
    let node = Arc::new(Mutex::new(Node::default()));
    let busy = Arc::new(AtomicBool::new(false));
    let service = service_fn(|mut request: Request<Incoming>| {
        forwarded::add(request.headers_mut(), gate.config.forwarded, peer);
        let (gate, node, busy) = (Arc::clone(gate), Arc::clone(&node), Arc::clone(&busy));
        Box::pin(async move {
            busy.store(true, Ordering::Relaxed);
            let response = answer(&gate, &node, request).await;
            busy.store(false, Ordering::Relaxed);
            Ok::<_, Infallible>(response)
        })
    });
    let mut connection = server::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .half_close(true)
        .preserve_header_case(true)
        .serve_connection(TokioIo::new(Checked::new(stream, early.into())), service);
    let mut stopping = std::pin::pin!(gate.stop.cancelled());
    let mut stopped = false;
    let ended = poll_fn(|cx| {
        if !stopped && stopping.as_mut().poll(cx).is_ready() {
            stopped = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        connection.poll_without_shutdown(cx)
    })
    .await;
    let Checked { mut stream, unclear, .. } = connection.into_parts().io.into_inner();
    // In the middle of another request's answer there is no place for this one's.
    if unclear && !busy.load(Ordering::Relaxed) {
        let mut out = Vec::new();
        let body = "{\"status\":400,\"title\":\"a request with two lengths\"}\n";
        Reply::new(400, "application/problem+json", &[], body).write(&mut out, true, true);
        if stream.write_all(&out).await.is_err() {
            return;
        }
    } else if ended.is_err() {
        return;
    }
    // After a refusal the rest of the request is still on its way: closing now could take the
    // answer back.
    linger(&mut stream).await;
}

async fn answer(gate: &Gate, node: &Mutex<Node>, request: Request<Incoming>) -> Response<Body> {
    if gate.refuses(&request) {
        gate.view.refused.fetch_add(1, Ordering::Relaxed);
        return gate.refusal();
    }
    forward(gate, node, request).await
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

/// An answer of the gate's own. It ends the connection: what else is on its way was meant for a
/// node that will not get it.
fn problem(status: StatusCode, what: &serde_json::Value) -> Response<Body> {
    let mut what = what.clone();
    what["status"] = status.as_u16().into();
    let body = Full::new(Bytes::from(format!("{what}\n"))).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, header::HeaderValue::from_static("application/problem+json"));
    headers.insert(CONNECTION, header::HeaderValue::from_static("close"));
    response
}

async fn forward(gate: &Gate, node: &Mutex<Node>, request: Request<Incoming>) -> Response<Body> {
    let bad = |title: &str| problem(StatusCode::BAD_GATEWAY, &json!({"title": title}));
    // Requests of one connection come one after the other, so nobody waits for this lock.
    let mut node = node.lock().await;
    if node.sender.as_ref().is_none_or(client::SendRequest::is_closed) {
        let Some(stream) = gate.connect().await else { return bad("the node does not answer") };
        let handshake =
            client::Builder::new().preserve_header_case(true).handshake(TokioIo::new(stream)).await;
        let Ok((sender, driver)) = handshake else { return bad("the node does not answer") };
        node.driver.abort_all();
        node.driver.spawn(async move {
            // The request that meets the error reports it.
            let _ = driver.await;
        });
        node.sender = Some(sender);
    }
    let Some(sender) = node.sender.as_mut() else { return bad("the node does not answer") };
    if sender.ready().await.is_err() {
        node.sender = None;
        return bad("the node closed the connection");
    }
    if let Ok(response) = sender.send_request(request).await {
        return response.map(BodyExt::boxed);
    }
    node.sender = None;
    bad("the node broke off the answer")
}
