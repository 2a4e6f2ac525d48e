//! What a run logs.

use tern_shaders::kernels::state::RING_CHANNELS;
use tern_shaders::state::{RATE, ROWS, StateRecord};

use super::RING_STEPS;

/// Losses of the steps of a [`Plan::run`](crate::Plan::run), and what is logged beside them.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Losses {
    /// Loss by replica, then by step. That of a step in which the replica failed is NaN.
    pub by_replica: Vec<Vec<f32>>,
    /// Rows of each step's batch, by replica.
    pub rows: Vec<Vec<f32>>,
    /// Learning rate of each step, by replica.
    pub rates: Vec<Vec<f32>>,
    /// Norm of each step's gradient before it was clipped, by replica; 0 in plans that neither clip nor
    /// scale the loss. Infinite or NaN for a step that was skipped.
    pub norms: Vec<Vec<f32>>,
    /// By replica, the step in which its loss was not a number or its gradient's norm not finite,
    /// counted from 1 since the plan's start. The replica rests since, with the parameters from
    /// before that step. [`Plan::rewind`](crate::Plan::rewind) and
    /// [`Plan::set_states`](crate::Plan::set_states) wake it.
    pub failed: Vec<Option<u32>>,
}

impl Losses {
    /// Without steps.
    pub(super) fn new(replicas: usize) -> Self {
        let none = vec![Vec::new(); replicas];
        Losses {
            by_replica: none.clone(),
            rows: none.clone(),
            rates: none.clone(),
            norms: none,
            failed: vec![None; replicas],
        }
    }

    /// Adds the steps that a replica's ring holds.
    pub(super) fn extend(&mut self, replica: usize, steps: std::ops::Range<u32>, ring: &[f32]) {
        for step in steps {
            let slot = step as usize % RING_STEPS * RING_CHANNELS;
            self.push(replica, [ring[slot], ring[slot + 1], ring[slot + 2], ring[slot + 3]]);
        }
    }

    /// Adds the step in which a replica failed, if it did.
    pub(super) fn end(&mut self, replica: usize, record: &StateRecord) {
        if record.has_failed() {
            self.failed[replica] = Some(record.steps() + 1);
            let rate = f32::from_bits(record[RATE]);
            self.push(replica, [f32::NAN, record[ROWS] as f32, rate, f32::NAN]);
        }
    }

    fn push(&mut self, replica: usize, [loss, rows, rate, norm]: [f32; RING_CHANNELS]) {
        self.by_replica[replica].push(loss);
        self.rows[replica].push(rows);
        self.rates[replica].push(rate);
        self.norms[replica].push(norm);
    }

    /// Loss of the last step, averaged over replicas; `None` if the plan has no loss.
    pub fn last(&self) -> Option<f32> {
        let last: Option<Vec<f32>> = self.by_replica.iter().map(|l| l.last().copied()).collect();
        last.filter(|l| !l.is_empty()).map(|l| l.iter().sum::<f32>() / l.len() as f32)
    }

    /// Mean over all steps and replicas, weighted by the rows of the batches; `None` if
    /// there are none.
    pub fn mean(&self) -> Option<f32> {
        mean(self.by_replica.iter().flatten(), self.rows.iter().flatten())
    }

    /// Mean over the steps of one replica, weighted likewise; `None` if it made none.
    pub fn mean_of(&self, replica: usize) -> Option<f32> {
        mean(self.by_replica.get(replica)?, self.rows.get(replica)?)
    }
}

fn mean<'a>(
    losses: impl IntoIterator<Item = &'a f32>,
    rows: impl IntoIterator<Item = &'a f32>,
) -> Option<f32> {
    let pairs = losses.into_iter().zip(rows);
    let pairs = pairs.map(|(l, r)| (f64::from(*l) * f64::from(*r), f64::from(*r)));
    let (sum, weight) = pairs.fold((0.0, 0.0), |(s, w), (l, r)| (s + l, w + r));
    (weight > 0.0).then(|| (sum / weight) as f32)
}
