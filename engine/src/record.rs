//! From a recorded graph to a plan.

use tern_shaders::state::{self, StateRecord};

use crate::backward::drain;
use crate::graph::{Graph, Tensor};
use crate::{Plan, Result};

/// Which parameters a plan trains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trainable {
    /// All of them.
    #[default]
    All,
    /// Those whose name starts with one of these.
    Prefixes(Vec<String>),
    /// None: gradients for inputs only.
    None,
}

impl Trainable {
    /// Whether the parameter of this name is trained.
    pub fn covers(&self, name: &str) -> bool {
        match self {
            Trainable::All => true,
            Trainable::Prefixes(prefixes) => prefixes.iter().any(|p| name.starts_with(p)),
            Trainable::None => false,
        }
    }
}

impl Graph {
    pub(crate) fn trained(&self, trainable: &Trainable) -> Vec<bool> {
        self.arena.parameters().iter().map(|p| trainable.covers(&p.name)).collect()
    }

    pub(crate) fn blank_records(&self) -> Vec<StateRecord> {
        (0..self.arena.replicas() as u32)
            .map(|replica| {
                let mut record = StateRecord::IDLE;
                record[state::ACTIVE] = 1;
                record[state::SEED] = replica;
                record
            })
            .collect()
    }

    /// A plan that computes what was recorded, without gradients.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory) if a tensor of one replica exceeds
    /// the device's binding limit.
    pub fn forward(self) -> Result<Plan> {
        let records = self.blank_records();
        let boundary = self.boundary();
        Plan::new(self, boundary, records, false)
    }

    /// A plan that computes forward and then gradients: `seeds` are outputs with the
    /// gradients to start from (their products are summed over all outputs), of the
    /// parameters in `trainable` and of the tensors in `sources`. Returns the sources'
    /// gradients, kept; `None` where the outputs don't depend on it.
    ///
    /// Parameters' gradients are in the arena's [`Flat::Gradients`](crate::Flat::Gradients);
    /// those the outputs don't depend on keep what an earlier plan left there.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if a seed's gradient has another size than its
    /// output; as [`Graph::forward`].
    pub fn gradients(
        mut self,
        seeds: &[(Tensor, Tensor)],
        trainable: &Trainable,
        sources: &[Tensor],
    ) -> Result<(Plan, Vec<Option<Tensor>>)> {
        let boundary = self.boundary();
        let trained = self.trained(trainable);
        let fresh = vec![false; trained.len()];
        let drained = drain(&mut self, seeds, (trained, fresh), sources)?;
        let gradients: Vec<_> = sources
            .iter()
            .map(|source| drained.gradients.get(&self.root(*source)).copied())
            .collect();
        for gradient in gradients.iter().flatten() {
            self.keep(*gradient);
        }
        let records = self.blank_records();
        Ok((Plan::new(self, boundary, records, false)?, gradients))
    }
}
