//! A device's identity: its Ed25519 key and the file that holds it.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::auth::{Credentials, NONCE_BYTES};
use crate::hex;
use crate::{ClientId, Millis};

/// Why there is no identity.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// The file can't be read or written.
    #[error("key {}: {source}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file holds something else.
    #[error("key {}: expected one line of 64 hex digits (an Ed25519 secret key)", .0.display())]
    Format(PathBuf),
    /// The system gives no random numbers.
    #[error("no random numbers from the system: {0}")]
    Random(getrandom::Error),
}

/// An Ed25519 key pair. The secret is wiped from memory when it is dropped.
#[derive(Clone)]
pub struct Identity {
    key: SigningKey,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", self.client())
    }
}

impl Identity {
    /// A new key from the system's random numbers.
    ///
    /// # Errors
    /// [`IdentityError::Random`].
    pub fn generate() -> Result<Self, IdentityError> {
        let mut secret = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *secret).map_err(IdentityError::Random)?;
        Ok(Self::from_secret(&secret))
    }

    /// The key with this secret (RFC 8032, section 5.1.5).
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        Identity { key: SigningKey::from_bytes(secret) }
    }

    /// The key in a file; where there is no such file, a new key is made and written to it.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn load_or_create(path: &Path) -> Result<Self, IdentityError> {
        match Self::create(path) {
            Err(IdentityError::File { source, .. })
                if source.kind() == std::io::ErrorKind::AlreadyExists =>
            {
                Self::load(path)
            }
            other => other,
        }
    }

    /// Writes a new key to a file that must not exist; only its owner may read it.
    ///
    /// # Errors
    /// [`IdentityError`]; `AlreadyExists` if there is such a file.
    pub fn create(path: &Path) -> Result<Self, IdentityError> {
        let failed = |source| IdentityError::File { path: path.into(), source };
        let identity = Self::generate()?;
        let digits = Zeroizing::new(hex::encode(identity.key.as_bytes()));
        write_new_private(path, format!("{}\n", *digits).as_bytes()).map_err(failed)?;
        Ok(identity)
    }

    /// The key in a file.
    ///
    /// # Errors
    /// [`IdentityError::File`], [`IdentityError::Format`].
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        let failed = |source| IdentityError::File { path: path.into(), source };
        let text = Zeroizing::new(std::fs::read_to_string(path).map_err(failed)?);
        let secret = hex::decode(text.trim_end()).map(Zeroizing::new);
        let secret = secret.ok_or_else(|| IdentityError::Format(path.into()))?;
        Ok(Self::from_secret(&secret))
    }

    /// The public key, by which servers know this device.
    pub fn client(&self) -> ClientId {
        ClientId(self.key.verifying_key().to_bytes())
    }

    /// The key itself, for what else is signed with it.
    pub fn signing_key(&self) -> &SigningKey {
        &self.key
    }

    /// Signs a request (method, path with query, body) at a time, with a fresh nonce.
    ///
    /// # Errors
    /// [`IdentityError::Random`].
    pub fn sign_request(
        &self,
        request: (&str, &str, &[u8]),
        time: Millis,
    ) -> Result<Credentials, IdentityError> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(IdentityError::Random)?;
        Ok(Credentials::sign(&self.key, request, time, nonce))
    }
}

/// Writes a file that must not exist yet and that only its owner may read.
pub fn write_new_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = create_private(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes a file that only its owner may read, and that isn't there yet.
pub(crate) fn create_private(path: &Path) -> std::io::Result<File> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client.key");
        let made = Identity::load_or_create(&path).unwrap();
        let loaded = Identity::load_or_create(&path).unwrap();
        assert_eq!(made.client(), loaded.client());
        assert!(Identity::create(&path).is_err(), "a key is never overwritten");
        assert!(!format!("{made:?}").contains(&hex::encode(made.key.as_bytes())));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        std::fs::write(&path, "not a key\n").unwrap();
        let error = Identity::load(&path).unwrap_err().to_string();
        assert!(error.contains("client.key") && error.contains("64 hex"), "{error}");
    }

    #[test]
    fn two_requests_have_two_nonces() {
        let identity = Identity::from_secret(&[3; 32]);
        let request = ("POST", "/v1/poll", b"".as_slice());
        let [a, b] = [0, 1].map(|_| identity.sign_request(request, Millis(5)).unwrap());
        a.verify("POST", "/v1/poll", b"").unwrap();
        assert_ne!(a.nonce, b.nonce);
    }
}
