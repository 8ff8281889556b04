//! The listeners: each says the same verdicts in its own protocol.
//!
//! `bind` opens sockets, `accept` is the one accept loop, `words` the one place where a verdict
//! becomes a protocol's words. A listener reads the board and its own socket, and nothing else.

pub mod accept;
pub mod admin;
pub mod agent;
pub mod askers;
pub mod bind;
pub mod gate;
pub mod grpc;
mod health;
mod hold;
pub mod http;
mod metrics;
mod page;
mod question;
pub mod secured;
pub mod status;
pub mod watch;
mod words;

pub use health::HealthSite;
pub use words::Words;
