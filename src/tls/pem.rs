//! Certificates and keys from PEM files.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::crypto::ring::sign::any_supported_type;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

/// No certificate, chain or list of authorities is larger.
const LIMIT: usize = 4 << 20;

/// A file's content, which is wiped from memory when it goes: it may hold a key, also where none belongs.
pub(super) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let unreadable = |e| format!("cannot read {}: {e}", path.display());
    let file = File::open(path).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    // Room for all of it from the start, since a vector that grows leaves copies behind.
    let room = usize::try_from(length).unwrap_or(LIMIT).min(LIMIT) + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    file.take(room as u64).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() >= room {
        return Err(format!("{} is larger than 4 MiB, or grows", path.display()));
    }
    Ok(bytes)
}

pub(super) fn certificates(
    path: &Path,
    text: &[u8],
) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
    read.map_err(|e| format!("cannot read certificates from {}: {}", path.display(), why(&e)))
}

/// The authorities in a file, at least one.
pub(super) fn roots(path: &Path, text: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, text)? {
        roots.add(certificate).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    if roots.is_empty() {
        return Err(format!("{} holds no certificate", path.display()));
    }
    Ok(roots)
}

/// A certificate and its key; an error says which of the two files is of no use.
pub(super) fn identity(
    cert: (&Path, &[u8]),
    key: (&Path, &[u8]),
) -> Result<CertifiedKey, (&'static str, String)> {
    let chain = certificates(cert.0, cert.1).map_err(|e| ("cert", e))?;
    if chain.is_empty() {
        return Err(("cert", format!("{} holds no certificate", cert.0.display())));
    }
    let file = key.0.display();
    let der = PrivateKeyDer::from_pem_slice(key.1);
    let der = der.map_err(|e| match e {
        pem::Error::NoItemsFound => ("key", format!("{file} holds no private key")),
        e => ("key", format!("cannot read a private key from {file}: {}", why(&e))),
    })?;
    let der = Zeroizing::new(der);
    // What the library would say of a key stays unsaid.
    let unusable = |_| ("key", format!("the private key in {file} is of no kind that can be used"));
    let identity = CertifiedKey::new(chain, any_supported_type(&der).map_err(unusable)?);
    identity.keys_match().map_err(|_| {
        ("key", format!("the private key in {file} is not that of {}", cert.0.display()))
    })?;
    Ok(identity)
}

/// What is wrong with a text, without any of it.
const fn why(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no end",
        pem::Error::IllegalSectionStart { .. } => "a section begins wrongly",
        pem::Error::NoItemsFound => "there are none",
        _ => "it is not PEM",
    }
}
