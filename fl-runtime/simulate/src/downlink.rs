//! What simulated clients would download.

use std::collections::BTreeSet;

use tern_protocol::plan::Encoding;
use tern_protocol::update::{Format, Kind};
use tern_protocol::{ClientId, Layout, Result, RunPlan};

/// Bytes of the models that a cohort would fetch: the whole model, or where differences are sent
/// the difference for those that had the model before.
#[derive(Clone, Debug)]
pub struct Downlink {
    full: u64,
    difference: Option<u64>,
    before: BTreeSet<ClientId>,
}

impl Downlink {
    /// Of a plan, before its first round.
    ///
    /// # Errors
    /// [`tern_protocol::Error::Value`] for a model that makes no sense.
    pub fn new(plan: &RunPlan) -> Result<Self> {
        let layout = Layout::of(&plan.model)?;
        let bytes = |kind| Format::new(kind, &layout, plan.updates.bound).bytes();
        let difference = plan.updates.downlink == Encoding::Ternary;
        Ok(Downlink {
            full: bytes(Kind::Full),
            difference: difference.then(|| bytes(Kind::Ternary)),
            before: BTreeSet::new(),
        })
    }

    /// Bytes of the next round, with this cohort.
    pub fn round(&mut self, cohort: BTreeSet<ClientId>) -> u64 {
        let bytes = |client| match self.difference {
            Some(difference) if self.before.contains(client) => difference,
            _ => self.full,
        };
        let sum = cohort.iter().map(bytes).sum();
        self.before = cohort;
        sum
    }
}
