//! TLS by rustls with ring: a server's certificate, and whom a client trusts.
//!
//! ```
//! use tern_host::tls;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let [certificate, key] = ["server.pem", "server.key"].map(|name| folder.path().join(name));
//! let made = rcgen::generate_simple_self_signed(["localhost".to_string()])?;
//! std::fs::write(&certificate, made.cert.pem())?;
//! std::fs::write(&key, made.signing_key.serialize_pem())?;
//!
//! let server = tls::server(&certificate, &key)?;
//! assert_eq!(server.alpn_protocols, [b"http/1.1"]);
//! // A client trusts what is in the file; a file without certificates is an error.
//! assert!(tls::client(&certificate).is_ok());
//! let error = tls::client(&key).unwrap_err().to_string();
//! assert!(error.contains("server.key: expected one or more certificates"), "{error}");
//! # Ok(())
//! # }
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use thiserror::Error;

/// Why there is no TLS.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A PEM file can't be read, or has no such part.
    #[error("{}: expected {expected} in PEM: {reason}", .path.display())]
    Pem {
        /// Which.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
        /// Why not.
        reason: String,
    },
    /// Certificate and key don't fit each other, or can't be used.
    #[error("{}: {source}", .path.display())]
    Certificate {
        /// File of the certificate.
        path: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |reason: String| TlsError::Pem {
        path: path.into(),
        expected: "one or more certificates",
        reason,
    };
    let list = CertificateDer::pem_file_iter(path).map_err(|e| failed(e.to_string()))?;
    let list: Vec<_> = list.collect::<Result<_, _>>().map_err(|e| failed(e.to_string()))?;
    match list.is_empty() {
        true => Err(failed("there is none".into())),
        false => Ok(list),
    }
}

/// A server's side, from its certificate chain and its private key (PEM files). HTTP/1.1 only:
/// a client has one request at a time under way, and a poll that waits costs one connection.
///
/// # Errors
/// [`TlsError`].
pub fn server(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = certificates(certificate)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| TlsError::Pem {
        path: key.into(),
        expected: "a private key",
        reason: e.to_string(),
    })?;
    let unusable = |source| TlsError::Certificate { path: certificate.into(), source };
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A client's side that trusts the authorities in a PEM file and nobody else.
///
/// # Errors
/// [`TlsError`].
pub fn client(authorities: &Path) -> Result<ClientConfig, TlsError> {
    let unusable = |source| TlsError::Certificate { path: authorities.into(), source };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(authorities)? {
        roots.add(certificate).map_err(unusable)?;
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Makes ring the process's provider where none is set: what trusts the system's authorities
/// asks for it.
pub fn install_provider() {
    // Err: another one is set, which is as good.
    let _ = ring::default_provider().install_default();
}
