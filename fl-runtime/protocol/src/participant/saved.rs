//! What a client keeps from one start to the next.

use std::sync::Arc;

use tern_secagg::History;

use super::sums::KnownSum;
use crate::metrics::Metrics;
use crate::trainer::OptimizerState;
use crate::{Digest, Ended, Turn, wire};

/// What must survive the process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SavedState {
    /// What ternary codes have left so far (error feedback); empty for zeros.
    pub residual: Vec<f32>,
    /// What the optimizer goes on from, where the task keeps it.
    pub optimizer: Arc<OptimizerState>,
    /// Secure sessions that were joined.
    pub history: History,
    /// The last sums that it revealed shares for.
    pub sums: Vec<KnownSum>,
    /// The end of the run, as it was told.
    pub ended: Option<Ended>,
    /// The update on its way, until the server has told what became of it.
    pub pending: Option<Pending>,
}

/// Bytes of a body that goes with the message that ends its upload, at most.
pub const SMALL_BODY: usize = 4096;

/// An encoded update.
#[derive(Clone, Debug, PartialEq)]
pub struct Pending {
    /// The attempt it is for.
    pub turn: Turn,
    /// SHA-256 of the body.
    pub digest: Digest,
    /// The body.
    pub body: Vec<u8>,
    /// Samples: its weight.
    pub samples: u32,
    /// What training measured; nothing in secure rounds, where it is in the body.
    pub metrics: Metrics,
    /// The residual if it is counted; empty if it has none.
    pub residual: Vec<f32>,
    /// What the optimizer goes on from if it is counted.
    pub optimizer: Arc<OptimizerState>,
    /// In secure rounds: [`tern_secagg::Included`](tern_secagg::Included), encoded.
    pub included: Vec<u8>,
}

impl Pending {
    /// What ends the upload.
    pub fn finish(&self) -> wire::Finish {
        wire::Finish {
            round: self.turn.round,
            attempt: self.turn.attempt,
            digest: self.digest.0.to_vec(),
            samples: self.samples,
            metrics: self.metrics.clone(),
            included: self.included.clone(),
            body: Vec::new(),
        }
    }

    /// All of the upload in one message, where its body is small.
    pub fn whole(&self) -> Option<wire::Finish> {
        let small = self.body.len() <= SMALL_BODY;
        small.then(|| wire::Finish { body: self.body.clone(), ..self.finish() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_body_goes_with_the_message_that_ends_its_upload() {
        let mut pending = Pending {
            turn: Turn::new(2, 3),
            digest: Digest([4; 32]),
            body: vec![7; SMALL_BODY],
            samples: 5,
            metrics: Metrics::from([("loss".to_string(), 0.5)]),
            residual: Vec::new(),
            optimizer: Arc::default(),
            included: vec![9],
        };
        let whole = pending.whole().unwrap();
        assert_eq!(whole.body, pending.body);
        assert_eq!(wire::Finish { body: Vec::new(), ..whole }, pending.finish());
        pending.body.push(7);
        assert_eq!(pending.whole(), None);
    }
}
