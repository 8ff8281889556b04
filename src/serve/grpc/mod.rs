//! The grpc listener: health checks (`grpc.health.v1`), weights (ORCA, out of band), and reflection, so that general
//! clients find both.
//!
//! HTTP/2 is hyper's, and each connection's streams are bounded in number, in size, and in how long a question may take
//! to arrive. Answers that go on are ended when their connection must leave, so an open one never delays a stop.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod health;
mod orca;
mod proto;
mod reflection;

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream as Answers, StreamExt as _};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tonic::server::{Grpc, ServerStreamingService, UnaryService};
use tonic_prost::ProstCodec;

use super::accept::{Peer, Seat, Wire};
use crate::board::{Board, NodeView, ServiceBoard};
use reflection::Reflection;

/// Answers that go on which one connection may have at a time; a balancer has one or two.
const STREAMS: u32 = 64;
/// A question is a service's name or an interval.
const MESSAGE_LIMIT: usize = 4096;
const HEADER_LIMIT: u32 = 8 * 1024;
/// How much of questions is read ahead, on a connection.
const WINDOW: u32 = 64 * 1024;
/// How long the first question, and each one's message, may take to arrive.
const QUESTION_TIME: Duration = Duration::from_secs(5);
/// A peer that is away without a word is noticed by pings.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIME: Duration = Duration::from_secs(10);
/// How long the last frames may take on the way out.
const LEAVE_TIME: Duration = Duration::from_secs(1);

/// An answer under way.
type Answering = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// Answers questions over gRPC.
pub struct GrpcSite {
    board: Arc<Board>,
    reflection: Reflection,
}

/// Who asks, over a connection that lasts until `end`.
#[derive(Clone, Debug)]
struct Caller {
    board: Arc<Board>,
    peer: Peer,
    end: CancellationToken,
}

impl GrpcSite {
    /// A site that says what is on `board`.
    ///
    /// # Errors
    ///
    /// When the messages are described wrongly, which is a bug.
    pub fn new(board: &Arc<Board>) -> anyhow::Result<Self> {
        Ok(Self { board: Arc::clone(board), reflection: Reflection::new()? })
    }

    /// Serves a connection until the peer goes or the seat must be left.
    pub async fn serve(self: Arc<Self>, stream: impl Wire + 'static, peer: Peer, seat: Seat) {
        seat.reading();
        let seat = Arc::new(seat);
        let asked = Arc::new(Notify::new());
        let end = CancellationToken::new();
        let caller = Caller { board: Arc::clone(&self.board), peer, end: end.clone() };
        // However the connection ends, its answers do.
        let end = end.drop_guard();
        let service = {
            let (seat, asked) = (Arc::clone(&seat), Arc::clone(&asked));
            service_fn(move |request| {
                seat.idle();
                asked.notify_one();
                let (site, caller) = (Arc::clone(&self), caller.clone());
                async move { Ok::<_, Infallible>(site.answer(request, caller).await) }
            })
        };
        let mut connection = std::pin::pin!(http().serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            _ = connection.as_mut() => return,
            () = seat.leave() => {}
            () = silent(&asked) => {}
        }
        drop(end);
        connection.as_mut().graceful_shutdown();
        // A peer that does not take the last frames has lost them.
        let _ = timeout(LEAVE_TIME, connection).await;
    }

    async fn answer(&self, request: Request<Incoming>, caller: Caller) -> Response<Body> {
        let end = caller.end.clone();
        let answering: Answering = match request.uri().path() {
            "/grpc.health.v1.Health/Check" => {
                Box::pin(once(request, move |asked| health::check(&caller, &asked)))
            }
            "/grpc.health.v1.Health/List" => {
                Box::pin(once(request, move |proto::HealthListRequest {}| {
                    Ok(health::list(&caller))
                }))
            }
            "/grpc.health.v1.Health/Watch" => {
                Box::pin(on_and_on(request, end, move |asked| health::watch(caller, asked)))
            }
            "/xds.service.orca.v3.OpenRcaService/StreamCoreMetrics" => {
                let authority = request.uri().authority().map(|a| a.host().to_owned());
                Box::pin(on_and_on(request, end, move |asked| {
                    orca::reports(caller, authority.unwrap_or_default(), &asked)
                }))
            }
            path if path.starts_with("/grpc.reflection.v1.") => (self.reflection.v1)(request),
            path if path.starts_with("/grpc.reflection.v1alpha.") => {
                (self.reflection.v1alpha)(request)
            }
            _ => Box::pin(ready(Status::unimplemented("no such method").into_http())),
        };
        // Only a question takes time to arrive: the answer's head is ready at once.
        match timeout(QUESTION_TIME, answering).await {
            Ok(response) => response,
            Err(_) => Status::deadline_exceeded("the question took too long to arrive").into_http(),
        }
    }
}

fn http() -> http2::Builder<TokioExecutor> {
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADER_LIMIT)
        .initial_stream_window_size(16 * 1024)
        .initial_connection_window_size(WINDOW)
        .max_send_buf_size(16 * 1024)
        .max_pending_accept_reset_streams(20)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIME);
    http
}

impl Caller {
    /// Ends when `service` may say something other than what `tag` told apart, or when another service may be meant, as
    /// after a reload; nothing when the judge has ended.
    async fn wait(
        &self,
        service: Option<&ServiceBoard>,
        tag: u64,
        looks: &mut watch::Receiver<Arc<NodeView>>,
    ) -> Option<()> {
        let changed = async {
            match service {
                Some(service) => service.changed(tag).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // Each look: a reload begins with one.
            looked = looks.changed() => looked.ok(),
            () = changed => Some(()),
        }
    }
}

/// Ends when nothing has been asked in time.
async fn silent(asked: &Notify) {
    if timeout(QUESTION_TIME, asked.notified()).await.is_ok() {
        std::future::pending::<()>().await;
    }
}

/// Reads a question and gives the one answer.
async fn once<Q, A>(
    request: Request<Incoming>,
    answer: impl Fn(Q) -> Result<A, Status>,
) -> Response<Body>
where
    Q: Message + Default + 'static,
    A: Message + 'static,
{
    grpc().unary(Once(answer), request).await
}

/// Reads a question and gives answers until `end`.
async fn on_and_on<Q, A, S>(
    request: Request<Incoming>,
    end: CancellationToken,
    answer: impl FnOnce(Q) -> S,
) -> Response<Body>
where
    Q: Message + Default + 'static,
    A: Message + 'static,
    S: Answers<Item = A> + Send + 'static,
{
    grpc().server_streaming(OnAndOn(Some(answer), end), request).await
}

fn grpc<A: Message + 'static, Q: Message + Default + 'static>() -> Grpc<ProstCodec<A, Q>> {
    Grpc::new(ProstCodec::default()).apply_max_message_size_config(Some(MESSAGE_LIMIT), None)
}

struct Once<F>(F);

impl<F, Q, A> UnaryService<Q> for Once<F>
where
    F: Fn(Q) -> Result<A, Status>,
{
    type Response = A;
    type Future = Ready<Result<tonic::Response<A>, Status>>;

    fn call(&mut self, question: tonic::Request<Q>) -> Self::Future {
        ready((self.0)(question.into_inner()).map(tonic::Response::new))
    }
}

struct OnAndOn<F>(Option<F>, CancellationToken);

impl<F, Q, A, S> ServerStreamingService<Q> for OnAndOn<F>
where
    F: FnOnce(Q) -> S,
    A: Send + Sync + 'static,
    S: Answers<Item = A> + Send + 'static,
{
    type Response = A;
    type ResponseStream = Pin<Box<dyn Answers<Item = Result<A, Status>> + Send>>;
    type Future = Ready<Result<tonic::Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, question: tonic::Request<Q>) -> Self::Future {
        let Some(answer) = self.0.take() else {
            return ready(Err(Status::internal("asked twice")));
        };
        let ended = ready(Err(Status::unavailable("hcf is going, or needs the room")));
        let answers = answer(question.into_inner())
            .map(Ok)
            .take_until(self.1.clone().cancelled_owned())
            .chain(stream::once(ended));
        ready(Ok(tonic::Response::new(Box::pin(answers))))
    }
}
