//! TLS where hcf asks: by authorities, or by exactly one certificate.
//!
//! Tahoe-LAFS's own documentation makes a self-signed certificate without a name, which no ordinary
//! verification accepts; such a node is known by its certificate alone.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::spawn_blocking;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::sign::SingleCertAndKey;
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
};

use super::Pair;
use super::pem::{certificates, identity, read, roots};
use crate::tahoe::Trust;

/// Speaks TLS over `stream` with whom `trust` knows.
///
/// # Errors
///
/// A sentence that says why not.
pub(crate) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    host: &str,
    trust: Trust,
    own: Option<Pair>,
) -> Result<TlsStream<S>, String> {
    let config = spawn_blocking(move || client_config(&trust, own.as_ref())).await;
    let config = config.map_err(|_| "cannot read the certificates".to_owned())??;
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| format!("`{host}` cannot stand in a certificate"))?;
    let secured = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    secured.map_err(|e| match e.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidCertificate(_)) => {
            "its certificate is not one that the authority has signed for this name".to_owned()
        }
        _ => "no TLS came about".to_owned(),
    })
}

/// How to speak to whom `trust` knows, and by what to prove who asks.
///
/// # Errors
///
/// A sentence that names the file that is of no use.
pub(crate) fn client_config(trust: &Trust, own: Option<&Pair>) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| format!("cannot set up TLS: {e}"))?;
    let builder = match trust {
        Trust::Ca(path) => builder.with_root_certificates(roots(path, &read(path)?)?),
        Trust::Pin(path) => {
            let pinned = certificates(path, &read(path)?)?.into_iter().next();
            let pinned =
                pinned.ok_or_else(|| format!("{} holds no certificate", path.display()))?;
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Pinned { pinned, provider }))
        }
    };
    Ok(match own {
        None => builder.with_no_client_auth(),
        Some(Pair { cert, key }) => {
            let own = identity((cert, &read(cert)?), (key, &read(key)?)).map_err(|(_, e)| e)?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own)))
        }
    })
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
