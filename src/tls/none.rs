//! In place of TLS, in an hcf that is built without it.

use std::io;
use std::path::Path;

use super::{Pair, Protocol};
use crate::tahoe::Trust;

/// There is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {}

/// What a handshake would make of a stream.
pub type Secured<S> = S;

impl Identity {
    /// Never comes to one.
    ///
    /// # Errors
    ///
    /// Always.
    pub fn read(_: &Pair, _: Option<&Path>, _: Protocol) -> Result<Self, (&'static str, String)> {
        Err(("cert", "needs an hcf built with its feature `tls`".to_owned()))
    }

    /// Never asked.
    ///
    /// # Errors
    ///
    /// None.
    #[expect(clippy::unused_async, reason = "stands in for the one that speaks TLS")]
    pub async fn accept<S>(&self, _: S) -> io::Result<S> {
        match *self {}
    }
}

/// Never comes about.
pub(crate) async fn connect<S>(_: S, _: &str, _: Trust, _: Option<Pair>) -> Result<S, String> {
    Err("this hcf was built without TLS".to_owned())
}
