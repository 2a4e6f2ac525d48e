//! The file that holds a device's key.
//!
//! ```
//! use tern_host::key_file;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("device.key");
//! // The first start makes the key, later ones read it.
//! let made = key_file::load_or_create(&path)?;
//! let read = key_file::load_or_create(&path)?;
//! assert_eq!(read.client(), made.client());
//! // A key is never overwritten.
//! assert!(key_file::create(&path).is_err());
//! # Ok(())
//! # }
//! ```

use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

use crate::files;
use tern_protocol::hex;
use tern_protocol::identity::Identity;

/// Why there is no key.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyFileError {
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

/// The key in a file; where there is no such file, a new key is made and written to it.
///
/// # Errors
/// [`KeyFileError`].
pub fn load_or_create(path: &Path) -> Result<Identity, KeyFileError> {
    match create(path) {
        Err(KeyFileError::File { source, .. })
            if source.kind() == std::io::ErrorKind::AlreadyExists =>
        {
            load(path)
        }
        other => other,
    }
}

/// Writes a new key to a file that must not exist; only its owner may read it.
///
/// # Errors
/// [`KeyFileError`]; `AlreadyExists` if there is such a file.
pub fn create(path: &Path) -> Result<Identity, KeyFileError> {
    let failed = |source| KeyFileError::File { path: path.into(), source };
    let identity = Identity::generate().map_err(KeyFileError::Random)?;
    let digits = Zeroizing::new(hex::encode(identity.signing_key().as_bytes()));
    files::write_new_private(path, format!("{}\n", *digits).as_bytes()).map_err(failed)?;
    Ok(identity)
}

/// The key in a file.
///
/// # Errors
/// [`KeyFileError::File`], [`KeyFileError::Format`].
pub fn load(path: &Path) -> Result<Identity, KeyFileError> {
    let failed = |source| KeyFileError::File { path: path.into(), source };
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(failed)?);
    let secret = hex::decode(text.trim_end()).map(Zeroizing::new);
    let secret = secret.ok_or_else(|| KeyFileError::Format(path.into()))?;
    Ok(Identity::from_secret(&secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client.key");
        let made = load_or_create(&path).unwrap();
        let loaded = load_or_create(&path).unwrap();
        assert_eq!(made.client(), loaded.client());
        assert!(create(&path).is_err(), "a key is never overwritten");
        assert!(!format!("{made:?}").contains(&hex::encode(made.signing_key().as_bytes())));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        std::fs::write(&path, "not a key\n").unwrap();
        let error = load(&path).unwrap_err().to_string();
        assert!(error.contains("client.key") && error.contains("64 hex"), "{error}");
    }
}
