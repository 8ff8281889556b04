//! TLS to the node: by authorities, or by exactly one certificate.
//!
//! Tahoe-LAFS's own documentation makes a self-signed certificate without a name, which no ordinary
//! verification accepts; such a node is known by its certificate alone.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use super::Trust;
use super::files::aside;
use crate::health::{FailureKind, ProbeFailure};

/// Speaks TLS over `stream`; the trust is read anew, since certificates are renewed.
pub(super) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    host: &str,
    trust: &Trust,
) -> Result<TlsStream<S>, ProbeFailure> {
    let unusable = |why: String| ProbeFailure::new(FailureKind::Reset, why);
    let trust = trust.clone();
    let config = aside(move || client_config(&trust)).await;
    let config = config.unwrap_or_else(|| Err("cannot read the certificates".to_owned()));
    let config = config.map_err(unusable)?;
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| unusable(format!("`{host}` cannot stand in a certificate")))?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|e| failure(&e))
}

fn client_config(trust: &Trust) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| format!("cannot set up TLS: {e}"))?;
    Ok(match trust {
        Trust::Ca(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|e| format!("{}: {e}", path.display()))?;
            }
            builder.with_root_certificates(roots).with_no_client_auth()
        }
        Trust::Pin(path) => {
            let pinned = certificates(path)?.into_iter().next();
            let pinned =
                pinned.ok_or_else(|| format!("{} holds no certificate", path.display()))?;
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Pinned { pinned, provider }))
                .with_no_client_auth()
        }
    })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    match read {
        Ok(certificates) => Ok(certificates),
        Err(e) => Err(format!("cannot read certificates from {}: {e}", path.display())),
    }
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

/// Accepts one certificate, whatever its names, dates and signatures say.
#[derive(Debug)]
struct Pinned {
    pinned: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *end_entity == self.pinned {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
