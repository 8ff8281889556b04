//! TLS on a listener, in the connection's own task and seat.
//!
//! A handshake is a question that is being read: it has little time, makes room like half a header, and writes no line.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

#[cfg(feature = "tls")]
use super::accept::Wire;
use super::accept::{Peer, Seat, Stream};
use super::grpc::GrpcSite;
use super::http::{self, Site};
use crate::tls::{Identity, Secured};

/// How long a handshake may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);

#[cfg(feature = "tls")]
impl Wire for Secured<Stream> {}

/// Serves one connection over HTTP, inside TLS where the listener has an identity.
pub async fn http(
    stream: Stream,
    peer: Peer,
    seat: Seat,
    site: Arc<dyn Site>,
    identity: Option<Arc<Identity>>,
) {
    let Some(identity) = identity else { return http::serve(stream, peer, seat, site).await };
    // Boxed, so that a plain connection needs no room for it.
    let serving = async move {
        if let Some(stream) = secured(stream, &seat, &identity).await {
            http::serve(stream, peer, seat, site).await;
        }
    };
    Box::pin(serving).await;
}

/// The same over gRPC.
pub async fn grpc(
    stream: Stream,
    peer: Peer,
    seat: Seat,
    site: Arc<GrpcSite>,
    identity: Option<Arc<Identity>>,
) {
    let Some(identity) = identity else { return site.serve(stream, peer, seat).await };
    let serving = async move {
        if let Some(stream) = secured(stream, &seat, &identity).await {
            site.serve(stream, peer, seat).await;
        }
    };
    Box::pin(serving).await;
}

/// The same connection, secured; `None` where that did not come about in time.
async fn secured(stream: Stream, seat: &Seat, identity: &Identity) -> Option<Secured<Stream>> {
    seat.reading();
    let secured = tokio::select! {
        // Who has begun is let in, whatever else has happened meanwhile.
        biased;
        secured = timeout(HANDSHAKE_TIME, identity.accept(stream)) => secured.ok().and_then(Result::ok),
        () = seat.leave_unheard() => return None,
    };
    if secured.is_none() {
        seat.not_secured();
    }
    secured
}
