//! Forward and backward pass apart, and activations that are kept in between.

use crate::device::{Buffer, Slot};
use crate::{Error, Plan, Result, memory};

impl Plan {
    /// Computes the forward pass alone, leaving activations for [`Plan::backward_async`].
    ///
    /// # Errors
    /// [`Error::Value`] if the replicas take several tiles, whose activations share memory.
    pub async fn forward_async(&mut self) -> Result<()> {
        self.apart("forward").await?;
        if self.ready().forward.is_none() {
            let ready = self.ready();
            let program = self.bind(&ready.blocks, &ready.chunks, 0..self.boundary).await?;
            if let Some(ready) = &mut self.ready {
                ready.forward = Some(program);
            }
        }
        match &self.ready().forward {
            Some(program) => self.arena.device().replay(program, 1).await,
            None => unreachable!("compiled above"),
        }
    }

    /// Computes the backward pass and the update from the activations that
    /// [`Plan::forward_async`] or [`Plan::restore_async`] left.
    ///
    /// # Errors
    /// As [`Plan::forward_async`].
    pub async fn backward_async(&mut self) -> Result<()> {
        self.apart("backward").await?;
        if self.ready().backward.is_none() {
            let ready = self.ready();
            let range = self.boundary..self.calls.len();
            let program = self.bind(&ready.blocks, &ready.chunks, range).await?;
            if let Some(ready) = &mut self.ready {
                ready.backward = Some(program);
            }
        }
        match &self.ready().backward {
            Some(program) => self.arena.device().replay(program, 1).await,
            None => unreachable!("compiled above"),
        }
    }

    async fn apart(&mut self, which: &str) -> Result<()> {
        self.prepare_async().await?;
        let chunks = self.ready().chunks.len();
        if chunks > 1 {
            let name = format!("tiles of a plan whose {which} pass runs apart");
            return Err(Error::value(name, chunks, "1"));
        }
        Ok(())
    }

    /// Blocks whose contents pass from the forward to the backward pass.
    fn crossing(&self) -> Vec<usize> {
        let lives = memory::lifetimes(&self.tensors, &self.calls);
        let crosses = |life: &(usize, usize)| life.0 < self.boundary && life.1 >= self.boundary;
        let mut blocks: Vec<usize> = lives
            .iter()
            .filter(|(_, life)| crosses(life))
            .map(|(root, _)| self.blocks.of[root])
            .collect();
        blocks.sort_unstable();
        blocks.dedup();
        blocks
    }

    /// Copies the activations that the backward pass reads, as the last forward pass left
    /// them, to memory of their own on the device.
    ///
    /// # Errors
    /// As [`Plan::forward_async`].
    pub async fn save_async(&mut self) -> Result<Activations> {
        self.apart("forward").await?;
        let device = self.arena.device().clone();
        let ready = self.ready();
        let mut kept = Vec::new();
        let crossing = self.crossing();
        let blocks = crossing.iter().map(|b| &ready.blocks[*b]);
        let chunk = &ready.chunks[0];
        for from in blocks.chain(chunk.persistent.values()).chain([&chunk.state]) {
            let to = device.allocate("activations", from.words, from.element).await?;
            device.copy(&whole(from), &whole(&to))?;
            kept.push(to);
        }
        Ok(Activations { kept })
    }

    /// Puts saved activations back, so that [`Plan::backward_async`] computes from them.
    ///
    /// # Errors
    /// [`Error::Value`] if they are another plan's.
    pub async fn restore_async(&mut self, activations: &Activations) -> Result<()> {
        self.apart("backward").await?;
        let ready = self.ready();
        let crossing = self.crossing();
        let blocks = crossing.iter().map(|b| &ready.blocks[*b]);
        let chunk = &ready.chunks[0];
        let to: Vec<_> = blocks.chain(chunk.persistent.values()).chain([&chunk.state]).collect();
        let fits = to.len() == activations.kept.len()
            && to.iter().zip(&activations.kept).all(|(a, b)| a.words == b.words);
        if !fits {
            return Err(Error::value("activations", "another plan's", "this plan's"));
        }
        for (from, to) in activations.kept.iter().zip(to) {
            self.arena.device().copy(&whole(from), &whole(to))?;
        }
        Ok(())
    }
}

fn whole(buffer: &Buffer) -> Slot {
    Slot { buffer: buffer.clone(), at: 0, words: buffer.words }
}

/// Activations of a forward pass, saved by [`Plan::save_async`]. They stay on the device.
pub struct Activations {
    kept: Vec<Buffer>,
}

impl Activations {
    /// Bytes they take.
    pub fn bytes(&self) -> u64 {
        self.kept.iter().map(|b| 4 * b.words as u64).sum()
    }
}
