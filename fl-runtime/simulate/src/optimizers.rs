//! Optimizers of clients, where they go on from round to round.

use std::collections::BTreeMap;

use tern_engine::Vector;
use tern_protocol::Result;

use super::vectors::ClientVectors;

/// Moments and steps a client. What is stored counts once it is committed.
pub(super) struct Optimizers {
    /// By moment.
    moments: Vec<ClientVectors>,
    /// Steps of a client so far, if it has made any.
    steps: BTreeMap<usize, u32>,
    /// Likewise, not committed.
    pending: BTreeMap<usize, u32>,
}

impl Optimizers {
    /// With memory for each moment.
    pub fn new(moments: Vec<ClientVectors>) -> Self {
        Optimizers { moments, steps: BTreeMap::new(), pending: BTreeMap::new() }
    }

    /// Vectors that are in files and not on the device.
    pub fn spilled(&self) -> usize {
        self.moments.iter().map(ClientVectors::spilled).sum()
    }

    /// Moments of an optimizer.
    pub fn moments(&self) -> usize {
        self.moments.len()
    }

    /// A client's moments, one after the other.
    ///
    /// # Errors
    /// As [`ClientVectors::load`].
    pub fn values(&mut self, client: usize) -> Result<Vec<f32>> {
        let mut values = Vec::new();
        for moment in &mut self.moments {
            values.extend(moment.values(client)?);
        }
        Ok(values)
    }

    /// Goes on from these moments of a client, after so many steps.
    ///
    /// # Errors
    /// As [`ClientVectors::store`].
    pub fn restore<'a>(
        &mut self,
        client: usize,
        steps: u32,
        moments: impl Iterator<Item = &'a [f32]>,
    ) -> Result<()> {
        self.steps.insert(client, steps);
        let mut pairs = self.moments.iter_mut().zip(moments);
        pairs.try_for_each(|(moment, values)| moment.restore(client, values))
    }

    /// Steps that a client's optimizer has made.
    pub fn steps(&self, client: usize) -> u32 {
        self.steps.get(&client).copied().unwrap_or(0)
    }

    /// Copies a client's moments to `to`.
    ///
    /// # Errors
    /// As [`ClientVectors::load`].
    pub fn load(&mut self, client: usize, to: &[Vector]) -> Result<()> {
        self.moments.iter_mut().zip(to).try_for_each(|(moment, to)| moment.load(client, to))
    }

    /// Stores a client's moments after so many steps, to be committed.
    ///
    /// # Errors
    /// As [`ClientVectors::store`].
    pub fn store(&mut self, client: usize, steps: u32, from: &[Vector]) -> Result<()> {
        self.pending.insert(client, steps);
        self.moments.iter_mut().zip(from).try_for_each(|(moment, from)| moment.store(client, from))
    }

    /// What was stored counts now.
    pub fn commit(&mut self) {
        self.steps.append(&mut self.pending);
        self.moments.iter_mut().for_each(ClientVectors::commit);
    }

    /// What was stored and not committed is nothing.
    pub fn abandon(&mut self) {
        self.pending.clear();
        self.moments.iter_mut().for_each(ClientVectors::abandon);
    }
}
