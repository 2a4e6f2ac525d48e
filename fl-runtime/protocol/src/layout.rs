//! The layout of a model's flat vector: what the server needs to know of a model.
//!
//! ```
//! use tern_engine::nn::ModelSpec;
//! use tern_protocol::Layout;
//! use tern_protocol::layout::ModelKind;
//!
//! # fn main() -> tern_protocol::Result<()> {
//! // Six weights and two biases, each tensor padded to 64 elements.
//! let layout = Layout::of(&ModelKind::Layers(ModelSpec::mlp(3, &[], 2)))?;
//! let names: Vec<&str> = layout.parameters().iter().map(|p| &*p.name).collect();
//! assert_eq!(names, ["0.weight", "0.bias"]);
//! assert_eq!(layout.ranges().collect::<Vec<_>>(), [0..64, 64..128]);
//!
//! let mut flat = vec![1.0; layout.elements()];
//! layout.clear_padding(&mut flat);
//! assert_eq!(flat.iter().sum::<f32>(), 8.0);
//! # Ok(())
//! # }
//! ```

use std::ops::Range;

use serde::{Deserialize, Serialize};
use tern_engine::nn::ModelSpec;
use tern_engine::{Init, Parameters};

use crate::{Digest, Error, Result};

/// A tensor of a model, by name and shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSpec {
    /// Name as PyTorch would give it.
    pub name: String,
    /// Shape.
    pub shape: Vec<usize>,
}

/// What is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelKind {
    /// Layers that the engine builds.
    Layers(ModelSpec),
    /// Tensors alone, for trainers that know what to do with them.
    Tensors(Vec<TensorSpec>),
}

/// Tensors in a flat vector, each padded with zeros to a multiple of 64 elements.
#[derive(Clone, Debug)]
pub struct Layout {
    parameters: Parameters,
    /// First element of each tensor, then the vector's length.
    segments: Vec<u32>,
}

impl Layout {
    /// The layout of these parameters.
    ///
    /// # Errors
    /// [`Error::Value`] if there is none, or more elements than 32 bits count.
    pub fn new(parameters: Parameters) -> Result<Self> {
        if parameters.is_empty() {
            return Err(Error::value("model", "one without tensors", "at least one tensor"));
        }
        let words = u32::try_from(parameters.words())
            .map_err(|_| Error::value("model", parameters.words(), "less than 2^32 elements"))?;
        let starts = parameters.iter().map(|p| p.offset as u32);
        let segments = starts.chain([words]).collect();
        Ok(Layout { parameters, segments })
    }

    /// The layout of a model.
    ///
    /// # Errors
    /// As [`Layout::new`]; the engine's for a model that can't be built.
    pub fn of(model: &ModelKind) -> Result<Self> {
        match model {
            ModelKind::Layers(spec) => Self::new(spec.build()?.0),
            ModelKind::Tensors(tensors) => {
                let mut parameters = Parameters::new();
                for tensor in tensors {
                    parameters.add(&tensor.name, &tensor.shape, Init::Zeros)?;
                }
                Self::new(parameters)
            }
        }
    }

    /// The engine's view of it.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Elements of the flat vector, padding included.
    pub fn elements(&self) -> usize {
        self.parameters.words()
    }

    /// Number of tensors.
    pub fn tensors(&self) -> usize {
        self.parameters.len()
    }

    /// First element of each tensor, then the vector's length.
    pub fn segments(&self) -> &[u32] {
        &self.segments
    }

    /// The elements of each tensor with their padding, in order.
    pub fn ranges(&self) -> impl Iterator<Item = Range<usize>> {
        self.segments.windows(2).map(|pair| pair[0] as usize..pair[1] as usize)
    }

    /// Sets padding to zero.
    pub fn clear_padding(&self, flat: &mut [f32]) {
        for param in self.parameters.iter() {
            flat[param.offset + param.len()..param.offset + param.padded()].fill(0.0);
        }
    }

    /// SHA-256 of names and shapes: two parties with the same one mean the same vector.
    pub fn digest(&self) -> Digest {
        let lines = self.parameters.iter().map(|p| format!("{} {:?}\n", p.name, p.shape));
        Digest::of(lines.collect::<String>().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_padded_and_told_apart() {
        let layout = Layout::of(&ModelKind::Layers(ModelSpec::mlp(3, &[], 2))).unwrap();
        assert_eq!((layout.elements(), layout.tensors()), (128, 2));
        assert_eq!(layout.ranges().collect::<Vec<_>>(), [0..64, 64..128]);
        let mut flat = vec![1.0; 128];
        layout.clear_padding(&mut flat);
        assert_eq!(flat.iter().sum::<f32>(), 8.0);
        let tensors =
            ["0.weight", "0.bias"].map(String::from).into_iter().zip([vec![2, 3], vec![2]]);
        let tensors = tensors.map(|(name, shape)| TensorSpec { name, shape }).collect();
        let same = Layout::of(&ModelKind::Tensors(tensors)).unwrap();
        assert_eq!(same.digest(), layout.digest());
        let other = Layout::of(&ModelKind::Layers(ModelSpec::mlp(2, &[], 3))).unwrap();
        assert_ne!(other.digest(), layout.digest());
        assert!(Layout::of(&ModelKind::Tensors(Vec::new())).is_err());
    }
}
