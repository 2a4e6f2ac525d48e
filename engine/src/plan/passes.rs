//! Forward and backward pass run separately, and activations that are kept in between.

use std::ops::Range;

use crate::device::{Buffer, Program, Slot};
use crate::{Error, Plan, Result, memory};

impl Plan {
    /// Computes the forward pass alone, leaving activations for [`Plan::backward_async`]. Every
    /// tile keeps its own from the first time on.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], device errors, [`Error::Interrupted`] once the plan's interrupt is
    /// set; the pass may be made of some replicas alone then.
    pub async fn forward_async(&mut self) -> Result<()> {
        self.separate().await?;
        if self.ready().forward.is_none() {
            let program = self.pass(0..self.boundary).await?;
            if let Some(ready) = &mut self.ready {
                ready.forward = Some(program);
            }
        }
        match &self.ready().forward {
            Some(program) => self.make(program).await,
            None => unreachable!("compiled above"),
        }
    }

    /// Computes the backward pass and the update from the activations that
    /// [`Plan::forward_async`] or [`Plan::restore_async`] left.
    ///
    /// # Errors
    /// As [`Plan::forward_async`].
    pub async fn backward_async(&mut self) -> Result<()> {
        self.separate().await?;
        if self.ready().backward.is_none() {
            let program = self.pass(self.boundary..self.calls.len()).await?;
            if let Some(ready) = &mut self.ready {
                ready.backward = Some(program);
            }
        }
        match &self.ready().backward {
            Some(program) => self.make(program).await,
            None => unreachable!("compiled above"),
        }
    }

    /// Makes a pass, unless the plan's interrupt is set.
    async fn make(&self, pass: &Program) -> Result<()> {
        self.arena.device().replay_until(pass, 1, &self.interrupt).await?;
        match self.interrupt.is_set() {
            true => Err(Error::Interrupted),
            false => Ok(()),
        }
    }

    /// Gets ready, with activation memory for every chunk.
    async fn separate(&mut self) -> Result<()> {
        self.prepare_async().await?;
        while self.ready().blocks.len() < self.ready().chunks.len() {
            let blocks = self.block_set().await?;
            if let Some(ready) = &mut self.ready {
                ready.blocks.push(blocks);
            }
        }
        Ok(())
    }

    /// A program of some of the calls, each chunk on activation memory of its own.
    async fn pass(&self, range: Range<usize>) -> Result<Program> {
        let ready = self.ready();
        let mut sequences = Vec::new();
        for (chunk, blocks) in ready.chunks.iter().zip(&ready.blocks) {
            sequences.push(self.bind(blocks, chunk, range.clone()).await?);
        }
        self.arena.device().compile(sequences, &[]).await
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

    /// Buffers of all chunks that a backward pass reads.
    fn kept(&self) -> Vec<&Buffer> {
        let (ready, crossing) = (self.ready(), self.crossing());
        let chunks = ready.chunks.iter().zip(&ready.blocks);
        chunks
            .flat_map(|(chunk, blocks)| {
                let blocks = crossing.iter().map(|b| &blocks[*b]);
                blocks.chain(chunk.persistent.values()).chain([&chunk.state])
            })
            .collect()
    }

    /// Copies the activations that the backward pass reads, as the last forward pass left
    /// them, to memory of their own on the device.
    ///
    /// # Errors
    /// As [`Plan::forward_async`].
    pub async fn save_async(&mut self) -> Result<Activations> {
        self.separate().await?;
        let device = self.arena.device().clone();
        let mut kept = Vec::new();
        for from in self.kept() {
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
        self.separate().await?;
        let to = self.kept();
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
