//! What server and clients derive from a plan for secure aggregation, each on its own: how
//! vectors become words, and which session an attempt is.

use sha2::{Digest as _, Sha256};
use tern_engine::kernels::masked::FixedPoint;

use crate::plan::{Encoding, Secure};
use crate::secagg::{Assumptions, Packing, Session};
use crate::{Error, Layout, Result, RunId, Turn};

/// Bits of a word in fixed point.
const FIXED_BITS: u32 = 32;

/// How vectors become words whose sum is what is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Fixed point.
    Fixed(FixedPoint),
    /// Ternary codes in lanes that hold the sum of so many clients.
    Lanes(u32),
}

/// Secure aggregation as a plan wants it.
#[derive(Clone, Debug, PartialEq)]
pub struct Masking {
    /// How vectors become words.
    pub code: Code,
    /// How words become bytes.
    pub packing: Packing,
    assumptions: Assumptions,
}

impl Masking {
    /// For cohorts of up to `cohort` clients.
    ///
    /// # Errors
    /// [`Error::Value`] if their sum doesn't fit a word.
    pub fn new(secure: &Secure, uplink: Encoding, cohort: u32, layout: &Layout) -> Result<Self> {
        let packed = |error| Error::value("masked vector", error, "one that can be packed");
        let (code, packing) = match uplink {
            Encoding::Ternary => {
                let packing = Packing::ternary(layout.elements(), cohort);
                (Code::Lanes(cohort), packing.map_err(packed)?)
            }
            Encoding::Full | Encoding::Half => {
                let code = FixedPoint::new(secure.limit, cohort, FIXED_BITS)?;
                let packing = Packing::new(layout.elements(), FIXED_BITS);
                (Code::Fixed(code), packing.map_err(packed)?)
            }
        };
        let assumptions = Assumptions {
            corrupt: secure.corrupt,
            dropout: secure.dropout,
            security_bits: secure.security,
            failure_bits: secure.failure,
        };
        Ok(Masking { code, packing, assumptions })
    }

    /// The session of an attempt.
    pub fn session(&self, run: &RunId, turn: Turn) -> Session {
        Session {
            run: Sha256::new_with_prefix(b"tern run").chain_update(run.0).finalize().into(),
            round: turn.round.into(),
            attempt: turn.attempt,
            assumptions: self.assumptions,
            packing: self.packing,
        }
    }
}
