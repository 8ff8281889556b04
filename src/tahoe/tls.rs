//! TLS to the node: by authorities, or by exactly one certificate.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::Error;
use tokio_rustls::rustls::pki_types::ServerName;

use super::Trust;
use super::files::aside;
use crate::health::{FailureKind, ProbeFailure};
use crate::tls::client_config;

/// Speaks TLS over `stream`; the trust is read anew, since certificates are renewed.
pub(super) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    host: &str,
    trust: &Trust,
) -> Result<TlsStream<S>, ProbeFailure> {
    let unusable = |why: String| ProbeFailure::new(FailureKind::Reset, why);
    let trust = trust.clone();
    let config = aside(move || client_config(&trust, None)).await;
    let config = config.unwrap_or_else(|| Err("cannot read the certificates".to_owned()));
    let config = config.map_err(unusable)?;
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| unusable(format!("`{host}` cannot stand in a certificate")))?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|e| failure(&e))
}

/// Certificates that are not accepted mean another node; all else may pass.
fn failure(error: &io::Error) -> ProbeFailure {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidCertificate(_)) => ProbeFailure::new(
            FailureKind::WrongNode,
            "the certificate on the node's port is not the one that node.tls allows",
        ),
        Some(_) => ProbeFailure::new(FailureKind::Reset, "the TLS handshake failed"),
        None => ProbeFailure::new(FailureKind::Reset, "the connection broke in the TLS handshake"),
    }
}
