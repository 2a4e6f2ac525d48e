//! Where numbers that are not finite come from.

use std::fmt;

use tern_shaders::{Access, Element};

use super::{Chunk, Plan};
use crate::device::{Data, Sequence};
use crate::graph::{Operand, Recorded, Storage, Tensor};
use crate::{Error, Flat, Result};

/// The first number of a step that is not finite.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct NotFinite {
    /// The parameter, or the tensor with its shape.
    pub tensor: String,
    /// The number's place in it.
    pub at: usize,
    /// The number: infinite or NaN.
    pub value: f32,
    /// The kernel that wrote it; `None` if the step was given it.
    pub kernel: Option<String>,
}

impl fmt::Display for NotFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {} at {}", self.tensor, self.value, self.at)?;
        match &self.kernel {
            Some(kernel) => write!(f, ", written by {kernel}"),
            None => write!(f, " before the step"),
        }
    }
}

/// The place and value of the first number that is not finite.
fn first(values: &[f32]) -> Option<(usize, f32)> {
    values.iter().copied().enumerate().find(|(_, x)| !x.is_finite())
}

impl Plan {
    /// Computes a replica's step again, kernel by kernel, up to the update, and returns the first
    /// number on the way that is not finite. Parameters and records stay. What a plan carries from
    /// step to step moves on as in a step, also in a replica that rests: where such a tensor is the
    /// first, its numbers may be those of a later step. Activations between
    /// [`Plan::forward_async`] and [`Plan::backward_async`] are lost.
    ///
    /// # Errors
    /// [`Error::Value`] for a replica that isn't there; device errors.
    pub async fn find_not_finite_async(&mut self, replica: usize) -> Result<Option<NotFinite>> {
        self.prepare_async().await?;
        let mut within = replica;
        let mut chunks = self.ready().chunks.iter();
        let chunk = chunks.find(|chunk| {
            let here = within < chunk.replicas;
            within -= if here { 0 } else { chunk.replicas };
            here
        });
        let Some(chunk) = chunk else {
            let expected = format!("below {}", self.arena.replicas());
            return Err(Error::value("replica", replica, expected));
        };
        if let Some(found) = self.given(chunk, within).await? {
            return Ok(Some(found));
        }
        self.clear(chunk).await?;
        let device = self.arena.device();
        let blocks = &self.ready().blocks[..1];
        for (at, call) in self.calls.iter().enumerate() {
            if writes_control(call) {
                break;
            }
            // Without records, by which a device would see that the replica rests.
            let calls = self.bind(&blocks[0], chunk, at..at + 1).await?.calls;
            let sequence = Sequence { calls, records: None };
            let program = device.compile(vec![sequence], blocks).await?;
            device.replay(&program, 1).await?;
            for (arg, binding) in call.args.iter().zip(call.kernel.bindings) {
                if binding.access == Access::ReadWrite && binding.element == Element::F32 {
                    let found = self.look(chunk, within, *arg, Some(&call.label)).await?;
                    if found.is_some() {
                        return Ok(found);
                    }
                }
            }
        }
        Ok(None)
    }

    /// The error of a run in which a replica failed; `None` if all went on.
    pub(crate) async fn failure(&mut self, failed: &[Option<u32>]) -> Result<Option<Error>> {
        let Some((replica, step)) =
            failed.iter().enumerate().find_map(|(r, step)| Some((r, (*step)?)))
        else {
            return Ok(None);
        };
        let found = self.find_not_finite_async(replica).await?;
        let what = match found {
            Some(found) => found.to_string(),
            None => "the loss is not a number, or the gradient's norm not finite".into(),
        };
        Ok(Some(Error::NotFinite { replica, step, what }))
    }

    /// Zero in activations and gradients: kernels that write a part of a tensor leave the rest as
    /// the step before had it.
    async fn clear(&self, chunk: &Chunk) -> Result<()> {
        let device = self.arena.device();
        for block in &self.ready().blocks[0] {
            device.write(block, 0, &Data::zeros(block.element, block.words))?;
        }
        if self.calls.iter().any(|call| call.args.contains(&Operand::Flat(Flat::Gradients))) {
            let blocks = &self.ready().blocks[0];
            let slot = self.slot(blocks, chunk, Operand::Flat(Flat::Gradients)).await?;
            device.write(&slot.buffer, slot.at, &Data::zeros(Element::F32, slot.words))?;
        }
        Ok(())
    }

    /// What is not finite before a step: in parameters, moments, inputs and data sets.
    async fn given(&self, chunk: &Chunk, within: usize) -> Result<Option<NotFinite>> {
        let flats = self.flats().into_iter().map(Operand::Flat);
        let inputs = self.tensors.iter().enumerate().filter(|(i, info)| {
            let given = match info.storage {
                Storage::Persistent => !self.writes(*i),
                Storage::Shared(_) => true,
                Storage::Transient | Storage::Constant(_) | Storage::Values(_) => false,
            };
            info.root == *i && given && info.element == Element::F32
        });
        let inputs = inputs.map(|(i, _)| Operand::Tensor(Tensor(i, self.id)));
        for operand in flats.chain(inputs) {
            let found = self.look(chunk, within, operand, None).await?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The first number of an operand that is not finite, of one replica.
    async fn look(
        &self,
        chunk: &Chunk,
        within: usize,
        operand: Operand,
        kernel: Option<&str>,
    ) -> Result<Option<NotFinite>> {
        let slot = self.slot(&self.ready().blocks[0], chunk, operand).await?;
        let (from, words) = match operand {
            Operand::Tensor(tensor) => {
                let info = &self.tensors[self.tensors[tensor.0].root];
                match info.storage {
                    Storage::Shared(_) => (0, slot.words),
                    _ => (within * info.len(), info.len()),
                }
            }
            _ => (within * (slot.words / chunk.replicas), slot.words / chunk.replicas),
        };
        let values = self.arena.device().read(&slot.buffer, slot.at + from, words).await?;
        let Some((at, value)) = first(&values.floats()?) else { return Ok(None) };
        let (tensor, at) = self.name(operand, at);
        Ok(Some(NotFinite { tensor, at, value, kernel: kernel.map(str::to_string) }))
    }

    /// What an operand's element is called, and its place there.
    fn name(&self, operand: Operand, at: usize) -> (String, usize) {
        match operand {
            Operand::Tensor(tensor) => {
                let info = &self.tensors[tensor.0];
                (format!("{} {:?}", info.label, info.shape), at)
            }
            Operand::Flat(flat) => {
                let of = match flat {
                    Flat::Parameters => "parameter",
                    Flat::Gradients => "gradient of",
                    Flat::Moment1 => "first moment of",
                    Flat::Moment2 => "second moment of",
                    Flat::LargestMoment2 => "largest second moment of",
                    Flat::Reference => "reference of",
                    Flat::Average => "average of",
                };
                let holds = |p: &&crate::Param| p.offset <= at && at < p.offset + p.padded();
                match self.arena.parameters().iter().find(holds) {
                    Some(param) => (format!("{of} {}", param.name), at - param.offset),
                    None => (of.into(), at),
                }
            }
            Operand::State | Operand::Ring => ("the state".into(), at),
        }
    }
}

/// Whether a call changes records or parameters: what comes before only computes.
fn writes_control(call: &Recorded) -> bool {
    call.args.iter().zip(call.kernel.bindings).any(|(arg, binding)| {
        let control =
            matches!(arg, Operand::State | Operand::Ring | Operand::Flat(Flat::Parameters));
        binding.access == Access::ReadWrite && control
    })
}
