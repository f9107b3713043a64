//! Who may answer: TLS by rustls on ring.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;

use crate::file;

/// Octets of a file of certificates: what a whole system trusts has a quarter.
const FILE_MAX: u64 = 1 << 20;

/// What certificates have to stand up to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trust<'a> {
    /// Nothing: no TLS is spoken.
    Unused,
    /// What the system trusts.
    System,
    /// The certificates of one file alone.
    File(&'a Path),
}

/// A configuration for HTTP over TLS.
///
/// # Errors
/// There is nothing that could be trusted.
pub(crate) fn config(trust: Trust<'_>) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let mut config = match trust {
        Trust::Unused => builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth(),
        Trust::File(path) => builder.with_root_certificates(roots(path)?).with_no_client_auth(),
        Trust::System => builder.dangerous().with_custom_certificate_verifier(system(provider)?).with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn system(provider: Arc<CryptoProvider>) -> Result<Arc<Verifier>, String> {
    Verifier::new(provider).map(Arc::new).map_err(|error| {
        format!("the system names no certificates that could be trusted ({error}): install its ca-certificates, or set ca_file")
    })
}

/// The certificates of a PEM file.
///
/// # Errors
/// It cannot be read, or holds none.
pub(crate) fn roots(path: &Path) -> Result<RootCertStore, String> {
    let wrong = |what: String| format!("{} cannot be used: {what}", path.display());
    let mut roots = RootCertStore::empty();
    let pem = file::read(path, FILE_MAX)?;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong("holds no certificate".into()));
    }
    Ok(roots)
}
