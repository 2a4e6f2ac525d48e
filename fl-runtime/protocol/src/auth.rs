//! Signed requests: who sent one, for whom, that nobody changed it, and that it is no replay.
//!
//! A request carries headers with the client's public key, the server and the run that it is for
//! ([`Audience`]), its time, a nonce, and an Ed25519 signature (RFC 8032) over
//!
//! ```text
//! tern/2 request
//! HOST, as in the server's address, with its port unless that is the scheme's
//! RUN, hex; empty in a request that enrolls
//! METHOD
//! PATH?QUERY
//! SHA-256 of the body, hex
//! TIME, Unix milliseconds
//! NONCE, 16 bytes, hex
//! ```
//!
//! A server takes only what is for it, so that what was signed for another one, or for another run,
//! is of no use to whoever has it. It takes a request whose time is within a window around its own
//! and whose nonce it has not seen within that window. It forgets nonces when it stops, so it takes
//! nothing that was signed before it started either. A client whose clock is off learns the server's
//! time from the refusal and signs again ([`AuthError::Stale`]).

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::hex;
use crate::{ClientId, Millis, RunId};

/// Header with the client's public key: 64 hex digits.
pub const KEY: &str = "tern-key";
/// Header with the server that the request is for: [`Audience::host`].
pub const HOST: &str = "tern-host";
/// Header with the run that the request is for: 32 hex digits; not there in one that enrolls. A
/// server answers that with the header of its run.
pub const RUN: &str = "tern-run";
/// Header with the time of signing: Unix milliseconds, decimal.
pub const TIME: &str = "tern-time";
/// Header with the nonce: 32 hex digits.
pub const NONCE: &str = "tern-nonce";
/// Header with the signature: 128 hex digits.
pub const SIGNATURE: &str = "tern-signature";

/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 16;

/// Longest host: a DNS name (RFC 1035, section 2.3.4) and a port.
const MAX_HOST: usize = 255 + 6;

/// Whom a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audience {
    /// The server, as the client's address of it names it: a name in lower case or an IP address,
    /// and the port unless it is the one of the scheme. `federation.example:8443`.
    pub host: String,
    /// The run; `None` for a client that enrolls, and knows none yet.
    pub run: Option<RunId>,
}

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
    /// For whom.
    pub audience: Audience,
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
        audience: Audience,
        request: (&str, &str, &[u8]),
        time: Millis,
        nonce: [u8; NONCE_BYTES],
    ) -> Self {
        let text = signed_text(&audience, request, time, &nonce);
        let signature = key.sign(text.as_bytes()).to_bytes();
        let key = ClientId(key.verifying_key().to_bytes());
        Credentials { key, audience, time, nonce, signature }
    }

    /// The headers to send.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let run = self.audience.run.map(|run| (RUN, run.to_string()));
        let all = [
            (KEY, self.key.to_string()),
            (HOST, self.audience.host.clone()),
            (TIME, self.time.0.to_string()),
            (NONCE, hex::encode(&self.nonce)),
            (SIGNATURE, hex::encode(&self.signature)),
        ];
        all.into_iter().chain(run).collect()
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
        let host = get(HOST)?;
        // Nothing by which a line of the signed text could be two.
        if !(1..=MAX_HOST).contains(&host.len()) || !host.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(malformed(HOST, "a host and its port"));
        }
        let run = header(RUN).map(|run| hex::decode(run).map(RunId));
        let run = run.map(|run| run.ok_or(malformed(RUN, "32 hex digits"))).transpose()?;
        Ok(Credentials {
            key: ClientId(hex::decode(get(KEY)?).ok_or(malformed(KEY, "64 hex digits"))?),
            audience: Audience { host: host.to_owned(), run },
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
        let request = (method, target, body);
        let text = signed_text(&self.audience, request, self.time, &self.nonce);
        let key = VerifyingKey::from_bytes(&self.key.0).map_err(|_| AuthError::Signature)?;
        key.verify_strict(text.as_bytes(), &Signature::from_bytes(&self.signature))
            .map_err(|_| AuthError::Signature)
    }
}

fn signed_text(
    Audience { host, run }: &Audience,
    (method, target, body): (&str, &str, &[u8]),
    Millis(time): Millis,
    nonce: &[u8],
) -> String {
    let run = run.map_or(String::new(), |run| run.to_string());
    let (body, nonce) = (hex::encode(&Sha256::digest(body)), hex::encode(nonce));
    format!("tern/2 request\n{host}\n{run}\n{method}\n{target}\n{body}\n{time}\n{nonce}")
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

    fn check_time(&self, time: Millis, now: Millis) -> Result<(), AuthError> {
        if time.0.abs_diff(now.0) > self.width || time < self.started {
            return Err(AuthError::Stale { time: time.0, now: now.0 });
        }
        Ok(())
    }

    /// Judges what costs nothing, before anything is computed for the request: its time, and
    /// whether a request with its nonce was taken.
    ///
    /// # Errors
    /// [`AuthError::Stale`], [`AuthError::Replayed`].
    pub fn check(&self, credentials: &Credentials, now: Millis) -> Result<(), AuthError> {
        self.check_time(credentials.time, now)?;
        let nonce = self.hash(credentials);
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match seen.previous.contains(&nonce) || seen.current.contains(&nonce) {
            true => Err(AuthError::Replayed),
            false => Ok(()),
        }
    }

    fn hash(&self, credentials: &Credentials) -> u64 {
        self.hasher.hash_one((credentials.key.0, credentials.nonce))
    }

    /// Takes a verified request's nonce. Only what was verified may come here, else anybody
    /// could use up a client's nonces.
    ///
    /// # Errors
    /// [`AuthError::Stale`], [`AuthError::Replayed`].
    pub fn admit(&self, credentials: &Credentials, now: Millis) -> Result<(), AuthError> {
        self.check_time(credentials.time, now)?;
        let nonce = self.hash(credentials);
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
        let audience = Audience { host: "a.example:8443".into(), run: Some(RunId([9; 16])) };
        let key = SigningKey::from_bytes(&[7; 32]);
        Credentials::sign(&key, audience, REQUEST, Millis(time), [nonce; 16])
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
        for (host, run) in [("b.example:8443", Some(RunId([9; 16]))), ("a.example:8443", None)] {
            let audience = Audience { host: host.into(), run };
            let elsewhere = Credentials { audience, ..credentials.clone() };
            assert_eq!(elsewhere.verify(method, target, body), wrong);
        }
        let other = Credentials { nonce: [2; 16], ..credentials.clone() };
        assert_eq!(other.verify(method, target, body), wrong);
        let key = ClientId(SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes());
        assert_eq!(Credentials { key, ..credentials }.verify(method, target, body), wrong);
    }

    #[test]
    fn malformed_headers_are_named() {
        let headers = signed(5, 1).headers();
        for (name, expected) in [
            (KEY, "64 hex"),
            (HOST, "a host"),
            (RUN, "32 hex"),
            (TIME, "Unix"),
            (NONCE, "32 hex"),
            (SIGNATURE, "128 hex"),
        ] {
            for bad in ["", "+5", "zz", "-1", "99999999999999999999999", "a\nb", "a b"] {
                // A host may be any word.
                if name == HOST && !bad.is_empty() && bad.bytes().all(|b| b.is_ascii_graphic()) {
                    continue;
                }
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
        let first = signed(20_000, 1);
        window.check(&first, now).unwrap();
        window.admit(&first, now).unwrap();
        assert_eq!(window.check(&first, now), Err(AuthError::Replayed));
        assert_eq!(window.admit(&first, now), Err(AuthError::Replayed));
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
