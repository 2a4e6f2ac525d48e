//! The layout of a model's parameters: named views into one flat vector.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tern_shaders::kernels::random::{pcg4d, uniform};

use crate::{Error, Result};

/// Tensors in the flat vector start at multiples of this many words (256 bytes).
pub const ALIGNMENT: usize = 64;

/// Words of a flat vector, at most: kernels count them in 32 bits.
const MAX_WORDS: usize = u32::MAX as usize / ALIGNMENT * ALIGNMENT;

/// How a parameter starts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Init {
    /// All zero.
    Zeros,
    /// All the same.
    Constant(f32),
    /// Uniform in [−bound, bound).
    Uniform(f32),
    /// Normal with mean 0 and this standard deviation.
    Normal(f32),
}

/// A named parameter: a view of `len` words at `offset` of the flat vector.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// Place in the order of registration.
    pub index: usize,
    /// Name as PyTorch would give it.
    pub name: Arc<str>,
    /// Shape.
    pub shape: Vec<usize>,
    /// First word in the flat vector.
    pub offset: usize,
    /// Starting values.
    pub init: Init,
}

impl Param {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it holds no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Words it takes in the flat vector, padding included. Padding stays zero.
    pub fn padded(&self) -> usize {
        self.len().next_multiple_of(ALIGNMENT)
    }
}

/// The parameters of a model, registered by its layers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parameters {
    list: Vec<Param>,
    words: usize,
}

impl Parameters {
    /// No parameters yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a parameter.
    ///
    /// # Errors
    /// [`Error::Value`] if the name is taken; [`Error::Shape`] if a dimension is zero or the
    /// flat vector would have more than 2^32 − 64 words.
    pub fn add(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Param> {
        if self.list.iter().any(|p| *p.name == *name) {
            return Err(Error::value("parameter name", name, "a name used once"));
        }
        if shape.contains(&0) {
            return Err(Error::shape("parameter", format!("{name} {shape:?} has no values")));
        }
        let values = shape.iter().try_fold(1usize, |values, size| values.checked_mul(*size));
        let end = values
            .and_then(|values| values.checked_next_multiple_of(ALIGNMENT))
            .and_then(|padded| padded.checked_add(self.words))
            .filter(|end| *end <= MAX_WORDS);
        let Some(end) = end else {
            let what = format!("{name} {shape:?}: a model has at most {MAX_WORDS} values");
            return Err(Error::shape("parameter", what));
        };
        let param = Param {
            index: self.list.len(),
            name: name.into(),
            shape: shape.to_vec(),
            offset: self.words,
            init,
        };
        self.words = end;
        self.list.push(param.clone());
        Ok(param)
    }

    /// The parameters in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Param> {
        self.list.iter()
    }

    /// Number of parameters (tensors).
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Values in all, padding not counted.
    pub fn count(&self) -> usize {
        self.list.iter().map(Param::len).sum()
    }

    /// Words of the flat vector, padding included.
    pub fn words(&self) -> usize {
        self.words
    }

    /// A parameter by name.
    ///
    /// # Errors
    /// [`Error::UnknownParameter`].
    pub fn get(&self, name: &str) -> Result<&Param> {
        self.list.iter().find(|p| *p.name == *name).ok_or_else(|| Error::UnknownParameter {
            name: name.into(),
            known: self.list.iter().map(|p| &*p.name).collect::<Vec<_>>().join(", "),
        })
    }

    /// Starting values of the whole flat vector; the same on every device.
    pub fn initial(&self, seed: u32) -> Vec<f32> {
        let mut flat = vec![0.0; self.words];
        for param in &self.list {
            let values = &mut flat[param.offset..][..param.len()];
            let bits = |i: usize| pcg4d([i as u32, param.index as u32, 0x1217, seed]);
            for (i, value) in values.iter_mut().enumerate() {
                *value = match param.init {
                    Init::Zeros => 0.0,
                    Init::Constant(c) => c,
                    Init::Uniform(bound) => bound * (2.0 * uniform(bits(i)[0]) - 1.0),
                    Init::Normal(deviation) => {
                        // Box and Muller; 1 − u is in (0, 1].
                        let [a, b, ..] = bits(i);
                        let radius = (-2.0 * (1.0 - f64::from(uniform(a))).ln()).sqrt();
                        let angle = std::f64::consts::TAU * f64::from(uniform(b));
                        deviation * (radius * angle.cos()) as f32
                    }
                };
            }
        }
        flat
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_is_padded_and_names_are_unique() {
        let mut p = Parameters::new();
        let a = p.add("a", &[3, 5], Init::Normal(1.0)).unwrap();
        let b = p.add("b", &[65], Init::Uniform(0.5)).unwrap();
        assert_eq!((a.offset, b.offset, p.words(), p.count()), (0, 64, 192, 80));
        assert!(p.add("a", &[1], Init::Zeros).is_err());
        assert!(p.add("c", &[usize::MAX, 2], Init::Zeros).is_err());
        assert!(p.add("c", &[usize::MAX / 4], Init::Zeros).is_err());
        let left = u32::MAX as usize + 1 - 64 - p.words();
        assert!(p.clone().add("c", &[left], Init::Zeros).is_ok());
        let error = p.add("c", &[left + 1], Init::Zeros).unwrap_err().to_string();
        assert!(error.contains("at most 4294967232 values"), "{error}");
        let flat = p.initial(1);
        assert!(flat[15..64].iter().chain(&flat[129..]).all(|x| *x == 0.0), "padding is zero");
        assert!(flat[64..129].iter().all(|x| x.abs() <= 0.5));
        assert_ne!(flat, p.initial(2));
    }

    #[test]
    fn normal_values_have_their_moments() {
        let mut p = Parameters::new();
        p.add("w", &[100, 100], Init::Normal(2.0)).unwrap();
        let flat = p.initial(3);
        let n = 10_000.0;
        let mean = flat.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
        let square = flat.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / n;
        assert!(mean.abs() < 0.1 && (square - 4.0).abs() < 0.3, "{mean} {square}");
    }
}
