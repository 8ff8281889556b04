//! Accepting on a thread of its own, for a listener whose usual question is answered where it is accepted.
//!
//! The thread waits in `accept` itself, so a usual question costs four calls of the kernel, and nothing that runs
//! elsewhere delays it. Whatever takes longer is served by the runtime, in a seat, as what [`super::accept`] accepts.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::runtime::Handle;

use super::accept::{Entrance, Hall, Peer, Seat, Seats, Stream, accept, is_of_one_connection};
use super::bind::Listener;
use crate::log::Seldom;

/// What came of greeting a connection.
#[derive(Debug)]
pub enum Greeting {
    /// It is over.
    Served,
    /// It takes longer, and has said this so far.
    Serve(Vec<u8>),
    /// It has said nothing yet.
    Silent,
}

/// So long the thread waits at most before it looks whether it is to stop.
const WAIT: Duration = Duration::from_millis(100);

/// Accepts connections until stopped; waits, so it needs a thread. `greet` answers who has asked by the time it is
/// accepted, on a socket that never waits; the others are served by `handle` on `runtime`.
pub fn serve<G, H, F>(
    runtime: &Handle,
    listener: &Listener,
    hall: &Hall,
    seats: &Seats,
    greet: G,
    handle: H,
) where
    G: Fn(&OwnedFd, Peer) -> Greeting,
    H: Fn(Stream, Peer, Seat, Vec<u8>) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let entrance = Entrance { socket: listener.socket(), hall, seats };
    let trouble = Seldom::default();
    let mut waits = false;
    while !hall.stop.is_cancelled() {
        if !waits {
            // Now and then anew: who else has an inherited socket may have told it otherwise.
            waits = listener.waits(WAIT).is_ok();
        }
        let (stream, peer) = match accept(entrance.socket) {
            Ok(connection) => connection,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                waits = false;
                continue;
            }
            Err(e) if is_of_one_connection(&e) => continue,
            Err(e) => {
                runtime.block_on(entrance.short_of(&e, &trouble));
                continue;
            }
        };
        if !hall.admits(peer) {
            continue;
        }
        let mut greeting = greet(&stream, peer);
        if matches!(greeting, Greeting::Silent) {
            // Whoever is about to ask has asked when others have had their turn.
            std::thread::yield_now();
            greeting = greet(&stream, peer);
        }
        let said = match greeting {
            Greeting::Served => {
                hall.door.accepted.add(1);
                continue;
            }
            Greeting::Serve(said) => said,
            Greeting::Silent => Vec::new(),
        };
        let serve = |stream, peer, seat| handle(stream, peer, seat, said);
        // One that waited for a seat until the end is not served any more.
        runtime.block_on(entrance.seat(stream, peer, serve));
    }
}
