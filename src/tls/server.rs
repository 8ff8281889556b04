//! TLS where hcf is asked: by what a listener proves itself, and whom it asks for proof.

use std::path::Path;
use std::sync::Arc;
use std::{fmt, io};

use ring::digest::{Context, Digest, SHA256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::sign::SingleCertAndKey;
use tokio_rustls::server::TlsStream;

use super::pem::{identity, read, roots};
use super::{Pair, Protocol};

/// What a handshake makes of a stream.
pub type Secured<S> = TlsStream<S>;

/// By what a listener proves itself, and whose certificates it asks for.
#[derive(Clone)]
pub struct Identity {
    config: Arc<ServerConfig>,
    /// Of all that was read: two with the same content are the same.
    digest: Digest,
}

impl Identity {
    /// Reads a certificate, its key, and the authorities that must have signed a client's certificate, if it needs one.
    ///
    /// # Errors
    ///
    /// The key of the file that is of no use, and a sentence that says why.
    pub fn read(
        own: &Pair,
        client_ca: Option<&Path>,
        protocol: Protocol,
    ) -> Result<Self, (&'static str, String)> {
        let cert = read(&own.cert).map_err(|e| ("cert", e))?;
        let key = read(&own.key).map_err(|e| ("key", e))?;
        let mut digest = Context::new(&SHA256);
        let mut note = |text: &[u8]| {
            digest.update(&text.len().to_le_bytes());
            digest.update(text);
        };
        note(&cert);
        note(&key);
        let identity = identity((&own.cert, &cert), (&own.key, &key))?;
        let provider = Arc::new(default_provider());
        let failed = |e: &dyn fmt::Display| ("cert", format!("cannot set up TLS: {e}"));
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| failed(&e))?;
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let text = read(path).map_err(|e| ("client_ca", e))?;
                note(&text);
                let roots = roots(path, &text).map_err(|e| ("client_ca", e))?;
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|e| failed(&e))?)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(Self { config: Arc::new(config), digest: digest.finish() })
    }

    /// Speaks TLS over `stream`, for as long as the handshake takes.
    ///
    /// # Errors
    ///
    /// When the other side does not, or proves nothing where it should.
    pub async fn accept<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        TlsAcceptor::from(Arc::clone(&self.config)).accept(stream).await
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.digest.as_ref() == other.digest.as_ref()
    }
}

impl Eq for Identity {}

/// Shows nothing of what was read.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}
