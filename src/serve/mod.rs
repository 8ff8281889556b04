//! The listeners: each says the same verdicts in its own protocol.
//!
//! `bind` opens sockets, `accept` and `greet` let connections in, `words` the one place where a verdict
//! becomes a protocol's words. A listener reads the board and its own socket, and nothing else.

pub mod accept;
pub mod admin;
pub mod agent;
pub mod askers;
pub mod bind;
pub(crate) mod families;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
pub mod gate;
pub mod greet;
pub mod grpc;
mod health;
mod hold;
pub mod http;
pub(crate) mod metrics;
mod openapi;
mod page;
mod question;
pub mod secured;
pub mod status;
pub mod watch;
mod words;

pub use health::HealthSite;
pub use openapi::openapi;
pub(crate) use openapi::time;
pub use words::Words;
