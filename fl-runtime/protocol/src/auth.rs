//! Signed requests: who sent one, for whom, that nobody changed it, and that it is no replay.
//!
//! A request carries headers with the client's public key, the server and the run that it is for
//! ([`Audience`]), its time, a nonce, and an Ed25519 signature (RFC 8032) over
//!
//! ```text
//! tern/2 request
//! HOST, as in the server's address, with its port unless that is the scheme's
//! RUN, hex; empty in a request that enrolls
//! START, hex; empty in a client's first request
//! METHOD
//! PATH?QUERY
//! SHA-256 of the body, hex
//! TIME, Unix milliseconds
//! NONCE, 16 bytes, hex
//! ```
//!
//! A server takes only what is for it, so that what was signed for another one, or for another run,
//! is of no use to whoever has it. It takes a request whose time is within a window around its own
//! and whose nonce it has not seen within that window. It forgets nonces when it stops, so what was
//! signed for an earlier start is of no use either, whatever the clocks say. A client whose clock is
//! off, or that doesn't know of a start, learns both from the refusal and signs again
//! ([`AuthError::Stale`], [`AuthError::Start`]).

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::hex;
use crate::{ClientId, Millis, RunId, StartId};

/// Header with the client's public key: 64 hex digits.
pub const KEY: &str = "tern-key";
/// Header with the server that the request is for: [`Audience::host`].
pub const HOST: &str = "tern-host";
/// Header with the run that the request is for: 32 hex digits; not there in one that enrolls. A
/// server answers that with the header of its run.
pub const RUN: &str = "tern-run";
/// Header with the server's start that the request is for: 32 hex digits; not there in a client's
/// first one. A server answers one that is for another start with the header of its own.
pub const START: &str = "tern-start";
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audience {
    /// The server, as the client's address of it names it: a name in lower case or an IP address,
    /// and the port unless it is the one of the scheme. `federation.example:8443`.
    pub host: String,
    /// The run; `None` for a client that enrolls, and knows none yet.
    pub run: Option<RunId>,
    /// The start of the server's process; `None` for a client that it hasn't told yet.
    pub start: Option<StartId>,
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
    /// The time is too far from the server's.
    #[error("signed at {time}, the server's time is {now}; sign again with a time near it")]
    Stale {
        /// Time of signing, Unix milliseconds.
        time: u64,
        /// The server's time, Unix milliseconds.
        now: u64,
        /// The server's start.
        start: StartId,
    },
    /// Signed for another start of the server's process, or for none.
    #[error("signed for another start of the server, or for none; sign again for {start}")]
    Start {
        /// The server's time, Unix milliseconds.
        now: u64,
        /// The server's start.
        start: StartId,
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
            AuthError::Start { .. } => "start",
            AuthError::Replayed => "replayed",
        }
    }

    /// The server's time and start, for who was off.
    pub fn told(&self) -> Option<(u64, StartId)> {
        match *self {
            AuthError::Stale { now, start, .. } | AuthError::Start { now, start } => {
                Some((now, start))
            }
            _ => None,
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
        let Audience { host, run, start } = &self.audience;
        let run = run.map(|run| (RUN, run.to_string()));
        let start = start.map(|start| (START, start.to_string()));
        let all = [
            (KEY, self.key.to_string()),
            (HOST, host.clone()),
            (TIME, self.time.0.to_string()),
            (NONCE, hex::encode(&self.nonce)),
            (SIGNATURE, hex::encode(&self.signature)),
        ];
        all.into_iter().chain(run).chain(start).collect()
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
        let start = header(START).map(|start| hex::decode(start).map(StartId));
        let start =
            start.map(|start| start.ok_or(malformed(START, "32 hex digits"))).transpose()?;
        Ok(Credentials {
            key: ClientId(hex::decode(get(KEY)?).ok_or(malformed(KEY, "64 hex digits"))?),
            audience: Audience { host: host.to_owned(), run, start },
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
    Audience { host, run, start }: &Audience,
    (method, target, body): (&str, &str, &[u8]),
    Millis(time): Millis,
    nonce: &[u8],
) -> String {
    let run = run.map_or(String::new(), |run| run.to_string());
    let start = start.map_or(String::new(), |start| start.to_string());
    let (body, nonce) = (hex::encode(&Sha256::digest(body)), hex::encode(nonce));
    format!("tern/2 request\n{host}\n{run}\n{start}\n{method}\n{target}\n{body}\n{time}\n{nonce}")
}

/// The server's judgment on times, starts and nonces. Its time must come from a clock that is never
/// set back: nonces are forgotten by it.
///
/// Nonces are remembered as 64-bit hashes under a random key: two that differ collide with a
/// probability of n / 2^64, and the client that is hit signs again.
#[derive(Debug)]
pub struct Window {
    /// Milliseconds that a request's time may be off.
    width: u64,
    start: StartId,
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
    pub fn new(width: u64, now: Millis) -> Self {
        let hasher = RandomState::new();
        // SipHash, by keys from the system's entropy: nobody can have it signed before.
        let halves = [0u8, 1].map(|half| hasher.hash_one(half).to_le_bytes());
        let mut start = StartId([0; 16]);
        start.0.copy_from_slice(halves.as_flattened());
        Window::for_start(start, width, now)
    }

    /// [`Window::new`] for a start that several processes share: who has nonces that outlive them.
    pub fn for_start(start: StartId, width: u64, now: Millis) -> Self {
        let seen = Seen { since: now.0, ..Seen::default() };
        Window { width, start, hasher: RandomState::new(), seen: Mutex::new(seen) }
    }

    /// This start, for which requests are to be signed.
    pub fn start(&self) -> StartId {
        self.start
    }

    fn check_time(&self, time: Millis, now: Millis) -> Result<(), AuthError> {
        if time.0.abs_diff(now.0) > self.width {
            return Err(AuthError::Stale { time: time.0, now: now.0, start: self.start });
        }
        Ok(())
    }

    /// Judges whether a request is for this start.
    ///
    /// # Errors
    /// [`AuthError::Start`].
    pub fn check_start(&self, credentials: &Credentials, now: Millis) -> Result<(), AuthError> {
        match credentials.audience.start == Some(self.start) {
            true => Ok(()),
            false => Err(AuthError::Start { now: now.0, start: self.start }),
        }
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
    /// [`AuthError::Stale`], [`AuthError::Start`], [`AuthError::Replayed`].
    pub fn admit(&self, credentials: &Credentials, now: Millis) -> Result<(), AuthError> {
        self.check_time(credentials.time, now)?;
        self.check_start(credentials, now)?;
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
mod tests;
