//! Names of things: clients, bodies, runs, moments.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};

/// Text that is no hexadecimal number of the expected length.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no {what}, expected {digits} hexadecimal digits")]
pub struct ParseIdError {
    text: String,
    what: &'static str,
    digits: usize,
}

macro_rules! hexadecimal {
    ($(#[$meta:meta])* $name:ident, $bytes:literal, $what:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $bytes]);

        impl $name {
            /// From its bytes; `None` for another number of them.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            /// The first digits, which tell two apart in a log.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let error = || ParseIdError { text: text.into(), what: $what, digits: 2 * $bytes };
                crate::hex::decode(text).map(Self).ok_or_else(error)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

hexadecimal! {
    /// A client: the Ed25519 public key of its device.
    ClientId, 32, "client key"
}

impl ClientId {
    /// The name of a simulated client: its number, so that keys are in the order of numbers.
    pub fn numbered(number: usize) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
        ClientId(bytes)
    }
}

hexadecimal! {
    /// SHA-256 of a body.
    Digest, 32, "SHA-256 digest"
}

hexadecimal! {
    /// A run: drawn when the server creates it.
    RunId, 16, "run identifier"
}

hexadecimal! {
    /// A start of a server's process: drawn at it.
    StartId, 16, "start of a server"
}

hexadecimal! {
    /// What the draw of a cohort follows from, beside the clients' keys: nobody knows it before.
    #[derive(Default)]
    Salt, 32, "salt"
}

impl Salt {
    /// A new one, from the system's entropy.
    ///
    /// # Errors
    /// The system's, if it has no entropy to give.
    pub fn draw() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        Ok(Salt(bytes))
    }

    /// Of a simulation, all of which follows from its seed. Who knows the seed knows who is drawn.
    pub fn simulated(seed: u32, turn: Turn) -> Self {
        let numbers = [seed, turn.round, turn.attempt].map(u32::to_le_bytes);
        Salt(Digest::of(numbers.as_flattened()).0)
    }
}

impl Digest {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Digest(Sha256::digest(bytes).into())
    }
}

impl RunId {
    /// A new one, from the system's entropy.
    ///
    /// # Errors
    /// The system's, if it has no entropy to give.
    pub fn draw() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(RunId(bytes))
    }
}

/// Milliseconds since the start of 1970 (UTC).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Millis(pub u64);

impl Millis {
    /// This much later.
    pub fn after(self, milliseconds: u64) -> Self {
        Millis(self.0.saturating_add(milliseconds))
    }

    /// Milliseconds since an earlier moment; 0 if it is later.
    pub fn since(self, earlier: Millis) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Which attempt at which round; rounds and attempts count from 1. Later ones are larger.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Turn {
    /// The round.
    pub round: u32,
    /// The attempt at it.
    pub attempt: u32,
}

impl Turn {
    /// An attempt at a round.
    pub fn new(round: u32, attempt: u32) -> Self {
        Turn { round, attempt }
    }
}

impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "round {} attempt {}", self.round, self.attempt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn digests_are_sha_256() {
        // FIPS 180-2, appendix B.1.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::of(b"abc").to_string(), expected);
        assert_eq!(format!("{:?}", Digest::of(b"abc")), "ba7816bf");
    }

    #[test]
    fn salts_are_drawn_or_follow_from_a_seed_and_a_turn() {
        assert_ne!(Salt::draw().unwrap(), Salt::draw().unwrap());
        let (seed, turn) = (7, Turn::new(2, 3));
        let salt = Salt::simulated(seed, turn);
        assert_eq!(Salt::simulated(seed, turn), salt);
        for (seed, turn) in [(8, turn), (7, Turn::new(3, 2)), (7, Turn::new(2, 4))] {
            assert_ne!(Salt::simulated(seed, turn), salt, "{seed} {turn}");
        }
    }

    #[test]
    fn times_differ_by_what_passed() {
        let [now, later] = [5, 12].map(Millis);
        assert_eq!((later.since(now), now.since(later), now.after(7)), (7, 0, later));
        assert_eq!(later.after(u64::MAX), Millis(u64::MAX));
        assert_eq!(Turn::new(3, 2).to_string(), "round 3 attempt 2");
    }

    #[test]
    fn what_is_no_identifier_is_named() {
        for text in ["", "00", "zz".repeat(32).as_str(), "é".repeat(32).as_str()] {
            let error = text.parse::<ClientId>().unwrap_err().to_string();
            assert!(error.contains("client key") && error.contains("64"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn text_and_json_come_back(bytes: [u8; 32]) {
            let id = ClientId(bytes);
            prop_assert_eq!(id.to_string().parse::<ClientId>().unwrap(), id);
            let json = serde_json::to_string(&id).unwrap();
            prop_assert_eq!(serde_json::from_str::<ClientId>(&json).unwrap(), id);
            prop_assert_eq!(ClientId::from_slice(&bytes), Some(id));
            prop_assert_eq!(ClientId::from_slice(&bytes[1..]), None);
        }
    }
}
