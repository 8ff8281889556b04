//! TLS: where hcf asks (`client`), and where it is asked (`server`).
//!
//! A private key is wiped from memory once the library has taken it up, and no message shows any of it. Without the
//! feature `tls` there is only the word for an identity, and no way to have one.

#[cfg(feature = "tls")]
mod client;
#[cfg(not(feature = "tls"))]
mod none;
#[cfg(feature = "tls")]
mod pem;
#[cfg(feature = "tls")]
mod server;

use std::path::PathBuf;

#[cfg(feature = "tls")]
pub(crate) use client::{client_config, connect};
#[cfg(not(feature = "tls"))]
pub(crate) use none::connect;
#[cfg(not(feature = "tls"))]
pub use none::{Identity, Secured};
#[cfg(feature = "tls")]
pub use server::{Identity, Secured};

/// A certificate and its key, each a PEM file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The certificate, and those that lead to its authority.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// What a protocol is called in a handshake.
pub type Protocol = &'static [u8];

/// HTTP/1.1.
pub const HTTP_1: Protocol = b"http/1.1";
/// HTTP/2.
pub const HTTP_2: Protocol = b"h2";
