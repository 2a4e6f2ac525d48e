//! Signed requests: who sent one, that nobody changed it, and that it is no replay.
//!
//! A request carries four headers: the client's public key, its time, a nonce, and an Ed25519
//! signature (RFC 8032) over
//!
//! ```text
//! tern/1 request
//! METHOD
//! PATH?QUERY
//! SHA-256 of the body, hex
//! TIME, Unix milliseconds
//! NONCE, 16 bytes, hex
//! ```
//!
//! The server takes a request whose time is within a window around its own and whose nonce it
//! has not seen within that window. It forgets nonces when it stops, so it takes nothing that
//! was signed before it started either. A client whose clock is off learns the server's time
//! from the refusal and signs again ([`AuthError::Stale`]).

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::hex;
use crate::{ClientId, Millis};

/// Header with the client's public key: 64 hex digits.
pub const KEY: &str = "tern-key";
/// Header with the time of signing: Unix milliseconds, decimal.
pub const TIME: &str = "tern-time";
/// Header with the nonce: 32 hex digits.
pub const NONCE: &str = "tern-nonce";
/// Header with the signature: 128 hex digits.
pub const SIGNATURE: &str = "tern-signature";

/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 16;

/// Why a request is not taken as its sender's.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum AuthError {
    /// A header is not there.
    #[error("header {0} is missing")]
    Missing(&'static str),
    /// A header is not what it should be.
    #[error("header {header} is not {expected}")]
    Malformed {
        /// Its name.
        header: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// The signature is not the key's over this request.
    #[error("the signature does not match the request and its key")]
    Signature,
    /// The time is too far from the server's, or before it started.
    #[error("signed at {time}, the server's time is {now}; sign again with a time near it")]
    Stale {
        /// Time of signing, Unix milliseconds.
        time: u64,
        /// The server's time, Unix milliseconds.
        now: u64,
    },
    /// The nonce was used before.
    #[error("a request with this nonce was taken before")]
    Replayed,
}

impl AuthError {
    /// A stable name, for metrics and for programs.
    pub fn name(&self) -> &'static str {
        match self {
            AuthError::Missing(_) => "header_missing",
            AuthError::Malformed { .. } => "header_malformed",
            AuthError::Signature => "signature",
            AuthError::Stale { .. } => "stale",
            AuthError::Replayed => "replayed",
        }
    }
}

/// What a request's headers say, not verified yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Who claims to have signed.
    pub key: ClientId,
    /// When.
    pub time: Millis,
    /// A number used once.
    pub nonce: [u8; NONCE_BYTES],
    /// Over the request and the above.
    pub signature: [u8; 64],
}

impl Credentials {
    /// Signs a request.
    pub fn sign(
        key: &SigningKey,
        (method, target, body): (&str, &str, &[u8]),
        time: Millis,
        nonce: [u8; NONCE_BYTES],
    ) -> Self {
        let text = signed_text(method, target, body, time, &nonce);
        let signature = key.sign(text.as_bytes()).to_bytes();
        Credentials { key: ClientId(key.verifying_key().to_bytes()), time, nonce, signature }
    }

    /// The headers to send.
    pub fn headers(&self) -> [(&'static str, String); 4] {
        [
            (KEY, self.key.to_string()),
            (TIME, self.time.0.to_string()),
            (NONCE, hex::encode(&self.nonce)),
            (SIGNATURE, hex::encode(&self.signature)),
        ]
    }

    /// Reads the headers; `header` looks one up by its name.
    ///
    /// # Errors
    /// [`AuthError::Missing`] and [`AuthError::Malformed`].
    pub fn parse<'a>(header: impl Fn(&'static str) -> Option<&'a str>) -> Result<Self, AuthError> {
        let get = |name| header(name).ok_or(AuthError::Missing(name));
        let malformed = |header, expected| AuthError::Malformed { header, expected };
        let digits = get(TIME)?;
        let number = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok());
        Ok(Credentials {
            key: ClientId(hex::decode(get(KEY)?).ok_or(malformed(KEY, "64 hex digits"))?),
            time: Millis(number.flatten().ok_or(malformed(TIME, "Unix milliseconds"))?),
            nonce: hex::decode(get(NONCE)?).ok_or(malformed(NONCE, "32 hex digits"))?,
            signature: hex::decode(get(SIGNATURE)?)
                .ok_or(malformed(SIGNATURE, "128 hex digits"))?,
        })
    }

    /// Whether the key signed this request, by the strict rules that leave one valid signature
    /// a message (no small-order keys, canonical encodings).
    ///
    /// # Errors
    /// [`AuthError::Signature`].
    pub fn verify(&self, method: &str, target: &str, body: &[u8]) -> Result<(), AuthError> {
        let text = signed_text(method, target, body, self.time, &self.nonce);
        let key = VerifyingKey::from_bytes(&self.key.0).map_err(|_| AuthError::Signature)?;
        key.verify_strict(text.as_bytes(), &Signature::from_bytes(&self.signature))
            .map_err(|_| AuthError::Signature)
    }
}

fn signed_text(method: &str, target: &str, body: &[u8], time: Millis, nonce: &[u8]) -> String {
    let body = hex::encode(&Sha256::digest(body));
    format!("tern/1 request\n{method}\n{target}\n{body}\n{}\n{}", time.0, hex::encode(nonce))
}

/// The server's judgment on times and nonces. Its time must come from a clock that is never set
/// back: what was signed before the start would be refused for as long as the clock was ahead.
///
/// Nonces are remembered as 64-bit hashes under a random key: two that differ collide with a
/// probability of n / 2^64, and the client that is hit signs again.
#[derive(Debug)]
pub struct Window {
    /// Milliseconds that a request's time may be off.
    width: u64,
    started: Millis,
    hasher: RandomState,
    seen: Mutex<Seen>,
}

/// Two generations of nonces; a generation lasts as long as a request stays acceptable.
#[derive(Debug, Default)]
struct Seen {
    since: u64,
    current: HashSet<u64>,
    previous: HashSet<u64>,
}

impl Window {
    /// For a server that starts now and takes times that are at most `width` milliseconds off.
    pub fn new(width: u64, started: Millis) -> Self {
        let seen = Seen { since: started.0, ..Seen::default() };
        Window { width, started, hasher: RandomState::new(), seen: Mutex::new(seen) }
    }

    /// Judges the time alone, before anything is computed for the request.
    ///
    /// # Errors
    /// [`AuthError::Stale`].
    pub fn check_time(&self, time: Millis, now: Millis) -> Result<(), AuthError> {
        if time.0.abs_diff(now.0) > self.width || time < self.started {
            return Err(AuthError::Stale { time: time.0, now: now.0 });
        }
        Ok(())
    }

    /// Takes a verified request's nonce. Only what was verified may come here, else anybody
    /// could use up a client's nonces.
    ///
    /// # Errors
    /// [`AuthError::Stale`], [`AuthError::Replayed`].
    pub fn admit(&self, credentials: &Credentials, now: Millis) -> Result<(), AuthError> {
        self.check_time(credentials.time, now)?;
        let nonce = self.hasher.hash_one((credentials.key.0, credentials.nonce));
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // A request is acceptable from `width` before its time to `width` after it.
        let age = now.0.saturating_sub(seen.since);
        if age > 2 * self.width {
            seen.previous = std::mem::take(&mut seen.current);
            if age > 4 * self.width {
                seen.previous.clear();
            }
            seen.since = now.0;
        }
        if seen.previous.contains(&nonce) || !seen.current.insert(nonce) {
            return Err(AuthError::Replayed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: (&str, &str, &[u8]) = ("POST", "/v1/upload?round=1&offset=0", b"body");

    fn signed(time: u64, nonce: u8) -> Credentials {
        Credentials::sign(&SigningKey::from_bytes(&[7; 32]), REQUEST, Millis(time), [nonce; 16])
    }

    #[test]
    fn headers_carry_a_signature_over_every_part() {
        let credentials = signed(1_000, 1);
        let headers = credentials.headers();
        let get = |name| headers.iter().find(|h| h.0 == name).map(|h| h.1.as_str());
        assert_eq!(Credentials::parse(get).unwrap(), credentials);
        let (method, target, body) = REQUEST;
        credentials.verify(method, target, body).unwrap();
        let wrong = Err(AuthError::Signature);
        assert_eq!(credentials.verify("PUT", target, body), wrong);
        assert_eq!(credentials.verify(method, "/v1/upload?round=2&offset=0", body), wrong);
        assert_eq!(credentials.verify(method, target, b"bodz"), wrong);
        let later = Credentials { time: Millis(1_001), ..credentials.clone() };
        assert_eq!(later.verify(method, target, body), wrong);
        let other = Credentials { nonce: [2; 16], ..credentials.clone() };
        assert_eq!(other.verify(method, target, body), wrong);
        let key = ClientId(SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes());
        assert_eq!(Credentials { key, ..credentials }.verify(method, target, body), wrong);
    }

    #[test]
    fn malformed_headers_are_named() {
        let headers = signed(5, 1).headers();
        for (name, expected) in
            [(KEY, "64 hex"), (TIME, "Unix"), (NONCE, "32 hex"), (SIGNATURE, "128 hex")]
        {
            for bad in ["", "+5", "zz", "-1", "99999999999999999999999"] {
                let get = |wanted| match wanted == name {
                    true => Some(bad),
                    false => headers.iter().find(|h| h.0 == wanted).map(|h| h.1.as_str()),
                };
                let error = Credentials::parse(get).unwrap_err().to_string();
                assert!(error.contains(name) && error.contains(expected), "{error}");
            }
        }
        assert_eq!(Credentials::parse(|_| None), Err(AuthError::Missing(TIME)));
    }

    #[test]
    fn a_key_of_small_order_signs_nothing() {
        // The neutral element verifies (R = identity, s = 0) over any message unless refused.
        let mut identity = [0; 32];
        identity[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        let forged = Credentials { key: ClientId(identity), signature, ..signed(1, 1) };
        assert_eq!(forged.verify("POST", "/", b""), Err(AuthError::Signature));
    }

    #[test]
    fn times_out_of_the_window_and_nonces_seen_are_refused() {
        let window = Window::new(100, Millis(10_000));
        let now = Millis(20_000);
        window.admit(&signed(20_000, 1), now).unwrap();
        assert_eq!(window.admit(&signed(20_000, 1), now), Err(AuthError::Replayed));
        window.admit(&signed(20_100, 2), now).unwrap();
        window.admit(&signed(19_900, 3), now).unwrap();
        for time in [19_899, 20_101, 0, u64::MAX] {
            let refusal = AuthError::Stale { time, now: 20_000 };
            assert_eq!(window.admit(&signed(time, 4), now), Err(refusal));
        }
        let early = Window::new(100, Millis(20_000)).admit(&signed(19_990, 5), now);
        assert_eq!(early, Err(AuthError::Stale { time: 19_990, now: 20_000 }));
    }

    #[test]
    fn a_nonce_is_remembered_for_as_long_as_its_time_is_acceptable() {
        // Signed ahead of the server's time, so that it stays acceptable for two widths.
        for first in [1_000, 1_150, 1_201, 1_399] {
            let window = Window::new(100, Millis(1_000));
            let early = signed(first + 100, 1);
            window.admit(&early, Millis(first)).unwrap();
            for (i, now) in (first..=first + 200).step_by(20).enumerate() {
                // Other requests move the generations on.
                window.admit(&signed(now, 10 + i as u8), Millis(now)).unwrap();
                let again = window.admit(&early, Millis(now));
                assert_eq!(again, Err(AuthError::Replayed), "first {first}, again {now}");
            }
        }
    }

    /// However long a server runs, it remembers the nonces of four widths at most, and takes as
    /// much memory for them as for those of the first ones.
    #[test]
    fn nonces_of_a_bounded_time_are_remembered() {
        let (width, window) = (50, Window::new(50, Millis(0)));
        let signed = signed(0, 0);
        let mut nonces = 0u32..;
        let mut most = |until: std::ops::Range<u64>| {
            let mut most = (0, 0);
            for now in until {
                // Ten requests a millisecond.
                for nonce in nonces.by_ref().take(10) {
                    let mut credentials = Credentials { time: Millis(now), ..signed.clone() };
                    credentials.nonce[..4].copy_from_slice(&nonce.to_le_bytes());
                    window.admit(&credentials, Millis(now)).unwrap();
                }
                let Seen { current, previous, .. } = &*window.seen.lock().unwrap();
                most.0 = most.0.max(current.len() + previous.len());
                most.1 = most.1.max(current.capacity() + previous.capacity());
            }
            most
        };
        let (first, room) = most(0..8 * width);
        assert!((2 * 10 * width..=10 * (4 * width + 2)).contains(&(first as u64)), "{first}");
        assert_eq!(most(8 * width..100 * width), (first, room));
    }
}
