//! A device's identity: its Ed25519 key.
//!
//! ```
//! use tern_protocol::{Millis, auth::Audience, identity::Identity};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let identity = Identity::generate()?;
//! // The same secret gives the same key: a device keeps it in a file.
//! let again = Identity::from_secret(identity.signing_key().as_bytes());
//! assert_eq!(again.client(), identity.client());
//!
//! let server = Audience { host: "federation.example:8443".into(), ..Default::default() };
//! let signed = identity.sign_request(server, ("POST", "/v1/poll", b"body"), Millis(5))?;
//! assert!(signed.verify("POST", "/v1/poll", b"body").is_ok());
//! assert!(signed.verify("POST", "/v1/poll", b"another").is_err());
//! # Ok(())
//! # }
//! ```

use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

use crate::auth::{Audience, Credentials, NONCE_BYTES};
use crate::{ClientId, Millis};

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
    /// What the system says when it has no randomness to give.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut secret = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *secret)?;
        Ok(Self::from_secret(&secret))
    }

    /// The key with this secret (RFC 8032, section 5.1.5).
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        Identity { key: SigningKey::from_bytes(secret) }
    }

    /// The public key, by which servers know this device.
    pub fn client(&self) -> ClientId {
        ClientId(self.key.verifying_key().to_bytes())
    }

    /// The key itself, for what else is signed with it.
    pub fn signing_key(&self) -> &SigningKey {
        &self.key
    }

    /// Signs a request (method, path with query, body) to a server at a time, with a fresh nonce.
    ///
    /// # Errors
    /// What the system says when it has no randomness to give.
    pub fn sign_request(
        &self,
        audience: Audience,
        request: (&str, &str, &[u8]),
        time: Millis,
    ) -> Result<Credentials, getrandom::Error> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce)?;
        Ok(Credentials::sign(&self.key, audience, request, time, nonce))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_requests_have_two_nonces() {
        let identity = Identity::from_secret(&[3; 32]);
        let request = ("POST", "/v1/poll", b"".as_slice());
        let server = Audience { host: "a.example".into(), ..Default::default() };
        let sign = |_| identity.sign_request(server.clone(), request, Millis(5)).unwrap();
        let [a, b] = [0, 1].map(sign);
        a.verify("POST", "/v1/poll", b"").unwrap();
        assert_ne!(a.nonce, b.nonce);
    }
}
