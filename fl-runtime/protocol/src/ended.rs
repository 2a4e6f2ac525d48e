//! The end of a run, as its clients are told of it.

use serde::{Deserialize, Serialize};

use crate::coordinator::digest;
use crate::{Digest, Refusal, wire};

/// The end of a run: its last round and its best model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ended {
    /// The last round. No attempt follows that isn't of a later one, in a run that was made longer.
    pub round: u32,
    /// The best model.
    pub model: Digest,
}

impl From<Ended> for wire::Ended {
    fn from(Ended { round, model }: Ended) -> Self {
        wire::Ended { round, model: model.0.to_vec() }
    }
}

impl TryFrom<&wire::Ended> for Ended {
    type Error = Refusal;

    fn try_from(wire: &wire::Ended) -> Result<Self, Refusal> {
        Ok(Ended { round: wire.round, model: digest(&wire.model)? })
    }
}
