//! What server and clients derive from a plan for secure aggregation, each on its own: how
//! vectors become words, and which session an attempt is.

use sha2::{Digest as _, Sha256};
use tern_engine::ops::masked::FixedPoint;
use tern_secagg::{Assumptions, Packing, Session};

use crate::measured::Measured;
use crate::plan::{Encoding, Secure};
use crate::{Digest, Error, Layout, Result, RunId, Turn};

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
    /// What follows the vector's words: sums of metrics.
    pub measured: Measured,
    /// How all words become bytes.
    pub packing: Packing,
    assumptions: Assumptions,
}

impl Masking {
    /// For cohorts of up to `cohort` clients.
    ///
    /// # Errors
    /// [`Error::Value`] if their sum doesn't fit a word.
    pub fn new(secure: &Secure, uplink: Encoding, cohort: u32, layout: &Layout) -> Result<Self> {
        let packed = |error| {
            let expected = format!("one that can be masked: {error}");
            Error::value("model", format!("{} elements", layout.elements()), expected)
        };
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
        let measured = Measured::new(&secure.metrics, packing, cohort);
        let words = packing.words() + measured.words();
        let packing = Packing::new(words, packing.bits()).map_err(packed)?;
        Ok(Masking { code, measured, packing, assumptions: secure.assumptions() })
    }

    /// Words of the vector, behind which are those of the metrics.
    pub fn vector_words(&self) -> usize {
        self.packing.words() - self.measured.words()
    }

    /// What sessions withstand.
    pub fn assumptions(&self) -> &Assumptions {
        &self.assumptions
    }

    /// The session of an attempt at a task whose digest is `task`.
    pub fn session(&self, run: &RunId, task: &Digest, turn: Turn) -> Session {
        Session {
            run: Sha256::new_with_prefix(b"tern run").chain_update(run.0).finalize().into(),
            task: task.0,
            round: turn.round.into(),
            attempt: turn.attempt,
            assumptions: self.assumptions,
            packing: self.packing,
        }
    }
}

/// What a session's vectors are made by beside its task: the model that is trained, and what makes
/// words of its changes. Equal for all of them, or they don't belong into one sum. Weights follow
/// from the samples in the roster.
pub fn job(model: &Digest, scales: &[f32]) -> [u8; 32] {
    let mut hash = Sha256::new_with_prefix(b"tern job").chain_update(model.0);
    scales.iter().for_each(|scale| hash.update(scale.to_bits().to_le_bytes()));
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_made_otherwise_are_of_another_job() {
        let [model, other] = ["a model", "another"].map(|text| Digest::of(text.as_bytes()));
        let jobs = [
            job(&model, &[]),
            job(&other, &[]),
            job(&model, &[0.5, 0.25]),
            job(&model, &[0.25, 0.5]),
            job(&model, &[0.5, 0.25, 0.0]),
            job(&model, &[-0.0]),
            job(&model, &[0.0]),
        ];
        for (at, one) in jobs.iter().enumerate() {
            assert!(!jobs[..at].contains(one), "{at}");
        }
        assert_eq!(jobs[2], job(&model, &[0.5, 0.25]));
    }
}
