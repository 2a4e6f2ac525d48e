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
//! assert_eq!(server.config.alpn_protocols, [b"http/1.1"]);
//! assert!(server.is_for("localhost") && !server.is_for("example.org"));
//! // A client trusts what is in the file; a file without certificates is an error.
//! assert!(tls::client(&certificate).is_ok());
//! let error = tls::client(&key).unwrap_err().to_string();
//! assert!(error.contains("server.key: expected one or more certificates"), "{error}");
//! # Ok(())
//! # }
//! ```

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use httpdate::HttpDate;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, RootCertStore, ServerConfig};
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
    /// A certificate that isn't valid now: no client would take it.
    #[error("{}: the certificate {state} {date}, expected one that is valid now", .path.display())]
    Validity {
        /// File of the certificate.
        path: PathBuf,
        /// Whether it is too late or too early, in words.
        state: &'static str,
        /// When it ended, or begins.
        date: HttpDate,
    },
    /// The key is not the one that the certificate is of.
    #[error("{}: is not the key of {}, expected the one it was made with", .key.display(), .path.display())]
    Key {
        /// File of the certificate.
        path: PathBuf,
        /// File of the key.
        key: PathBuf,
    },
    /// Certificate or key can't be used.
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

/// A server's side.
#[derive(Clone, Debug)]
pub struct ServerSide {
    /// What connections are accepted by.
    pub config: Arc<ServerConfig>,
    /// The certificate that clients are shown, without those between it and the authority's.
    pub certificate: CertificateDer<'static>,
}

impl ServerSide {
    /// Whether the certificate is for this name, or this IP address.
    pub fn is_for(&self, name: &str) -> bool {
        let parsed = ParsedCertificate::try_from(&self.certificate);
        match (parsed, ServerName::try_from(name)) {
            (Ok(parsed), Ok(name)) => verify_server_name(&parsed, &name).is_ok(),
            _ => false,
        }
    }
}

/// A server's side, from its certificate chain and its private key (PEM files). HTTP/1.1 only:
/// a client has one request at a time under way, and a poll that waits costs one connection.
///
/// # Errors
/// [`TlsError`].
pub fn server(certificate: &Path, key: &Path) -> Result<ServerSide, TlsError> {
    let chain = certificates(certificate)?;
    let shown = chain[0].clone();
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| TlsError::Pem {
        path: key.into(),
        expected: "a private key",
        reason: e.to_string(),
    })?;
    check_validity(certificate, &chain, UnixTime::now())?;
    let unusable = |source| match source {
        rustls::Error::InconsistentKeys(_) => {
            TlsError::Key { path: certificate.into(), key: key.into() }
        }
        source => TlsError::Certificate { path: certificate.into(), source },
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(ServerSide { config: Arc::new(config), certificate: shown })
}

/// Refuses a chain of which a certificate isn't valid at this time.
///
/// # Errors
/// [`TlsError::Validity`]; [`TlsError::Certificate`] for one that can't be read.
fn check_validity(
    path: &Path,
    chain: &[CertificateDer<'static>],
    now: UnixTime,
) -> Result<(), TlsError> {
    let unusable = |source| TlsError::Certificate { path: path.into(), source };
    for certificate in chain {
        // A verifier looks at the time before anything else. What else it finds is not asked:
        // it trusts the certificate itself, and knows no name.
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).map_err(unusable)?;
        let provider = Arc::new(ring::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let verifier = verifier.map_err(|e| unusable(rustls::Error::General(e.to_string())))?;
        let name = ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into());
        let found = verifier.verify_server_cert(certificate, &[], &name, &[], now);
        let (state, date) = match found {
            Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext {
                not_after,
                ..
            })) => ("expired on", not_after),
            Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext {
                not_before,
                ..
            })) => ("isn't valid before", not_before),
            _ => continue,
        };
        let date = HttpDate::from(SystemTime::UNIX_EPOCH + Duration::from_secs(date.as_secs()));
        return Err(TlsError::Validity { path: path.into(), state, date });
    }
    Ok(())
}

/// Whether a certificate can be for this name: a DNS name, with `*.` before it or not, or an IP
/// address.
///
/// ```
/// use tern_host::tls::is_server_name;
///
/// assert!(["localhost", "a.example", "*.a.example", "::1"].into_iter().all(is_server_name));
/// assert!(!["", "my host", "https://a.example", "a.example:443"].into_iter().any(is_server_name));
/// ```
pub fn is_server_name(name: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(domain) => matches!(ServerName::try_from(domain), Ok(ServerName::DnsName(_))),
        None => ServerName::try_from(name).is_ok(),
    }
}

/// What is there in place of a server that a client can trust.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stranger {
    /// Its certificate is of another name, or of an authority that the client doesn't trust.
    Certificate,
    /// It doesn't speak TLS.
    Plain,
}

impl Stranger {
    /// What a connection that failed found, if it will find the same again. A certificate that
    /// has expired may be renewed, and a network may break at any time.
    pub fn of(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(tls) = held(error) {
                return Self::of_tls(tls);
            }
            next = error.source();
        }
        None
    }

    fn of_tls(error: &rustls::Error) -> Option<Self> {
        use CertificateError as E;
        match error {
            rustls::Error::InvalidCertificate(
                E::Expired
                | E::ExpiredContext { .. }
                | E::NotValidYet
                | E::NotValidYetContext { .. }
                | E::Revoked,
            ) => None,
            rustls::Error::InvalidCertificate(_) => Some(Stranger::Certificate),
            rustls::Error::InvalidMessage(_) => Some(Stranger::Plain),
            _ => None,
        }
    }
}

/// The error of TLS in an error: the system's hold it, one in another, and don't name it as their
/// cause.
fn held<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let inner = || held(error.downcast_ref::<std::io::Error>()?.get_ref()?);
    error.downcast_ref().or_else(inner)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_is_not_is_told_from_what_may_pass() {
        use rustls::{CertificateError as E, Error, InvalidMessage};
        use std::io;
        let twice =
            |error: Error| io::Error::other(io::Error::new(io::ErrorKind::InvalidData, error));
        for (error, found) in [
            (Error::InvalidCertificate(E::UnknownIssuer), Some(Stranger::Certificate)),
            (Error::InvalidCertificate(E::NotValidForName), Some(Stranger::Certificate)),
            (Error::InvalidMessage(InvalidMessage::InvalidContentType), Some(Stranger::Plain)),
            (Error::InvalidCertificate(E::Expired), None),
            (Error::HandshakeNotComplete, None),
        ] {
            assert_eq!(Stranger::of(&error), found, "{error}");
            assert_eq!(Stranger::of(&twice(error)), found);
        }
        assert_eq!(Stranger::of(&io::Error::other("the network is down")), None);
    }

    /// Files of a certificate for these years, and of its key.
    fn made(folder: &Path, name: &str, years: [i32; 2]) -> [PathBuf; 2] {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
        let [begin, end] = years.map(|year| rcgen::date_time_ymd(year, 3, 1));
        (parameters.not_before, parameters.not_after) = (begin, end);
        let files = ["pem", "key"].map(|ending| folder.join(format!("{name}.{ending}")));
        std::fs::write(&files[0], parameters.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(&files[1], key.serialize_pem()).unwrap();
        files
    }

    #[test]
    fn a_certificate_that_is_not_valid_now_is_refused_with_its_date() {
        let folder = tempfile::tempdir().unwrap();
        let [good, key] = made(folder.path(), "good", [2020, 2900]);
        server(&good, &key).unwrap();
        for (name, years, expected) in [
            ("old", [2001, 2002], "old.pem: the certificate expired on Fri, 01 Mar 2002"),
            ("new", [2800, 2900], "new.pem: the certificate isn't valid before Wed, 01 Mar 2800"),
        ] {
            let [certificate, key] = made(folder.path(), name, years);
            let error = server(&certificate, &key).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("valid now"), "{error}");
            // One that is between it and the authority, too.
            let chain = [&good, &certificate].map(|path| std::fs::read_to_string(path).unwrap());
            let path = folder.path().join("chain.pem");
            std::fs::write(&path, chain.concat()).unwrap();
            let error = server(&path, &folder.path().join("good.key")).unwrap_err().to_string();
            assert!(error.contains("chain.pem: the certificate"), "{error}");
        }
        let [_, other] = made(folder.path(), "other", [2020, 2900]);
        let error = server(&good, &other).unwrap_err().to_string();
        assert!(error.contains("other.key: is not the key of"), "{error}");
    }
}
