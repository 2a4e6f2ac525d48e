//! Low-rank adapters of linear layers (LoRA; Hu et al. 2021).

use serde::{Deserialize, Serialize};
use tern_shaders::Activation;

use super::layers::bound;
use crate::{Error, Graph, Init, Param, Parameters, Result, Tensor};

/// What the names of adapters' parameters begin with: a group that can be trained and sent alone,
/// as [`Trainable::Prefixes`](crate::Trainable::Prefixes).
pub const LORA: &str = "lora.";

/// Low-rank adapters of a layer of weights W: x Wᵀ + α / rank · x Aᵀ Bᵀ.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct LoraConfig {
    /// Rows of A and columns of B.
    pub rank: usize,
    /// Numerator of the factor.
    pub alpha: f32,
}

impl LoraConfig {
    /// A rank with α = 2 · rank, a factor of 2.
    pub fn new(rank: usize) -> Self {
        LoraConfig { rank, alpha: 2.0 * rank as f32 }
    }

    /// With a numerator of the factor.
    pub fn alpha(mut self, alpha: f32) -> Self {
        self.alpha = alpha;
        self
    }
}

/// A `[rank, inputs]` and B `[outputs, rank]` of a layer's adapters.
#[derive(Clone, Debug)]
pub(super) struct Adapter {
    a: Param,
    b: Param,
    factor: f32,
}

impl Adapter {
    /// Registers `lora.` and the name of the weight with `lora_A` and `lora_B` before its end, A
    /// uniform within 1/√inputs and B zero: at first they change nothing.
    pub fn new(parameters: &mut Parameters, weight: &Param, config: LoraConfig) -> Result<Self> {
        let [outputs, inputs] = weight.shape[..] else {
            let what = format!("{} {:?}, expected a matrix", weight.name, weight.shape);
            return Err(Error::shape("lora", what));
        };
        let LoraConfig { rank, alpha } = config;
        if rank == 0 || rank > inputs.min(outputs) {
            let expected = format!("1 to {}", inputs.min(outputs));
            return Err(Error::value(format!("rank of {}", weight.name), rank, expected));
        }
        if !alpha.is_finite() {
            let name = format!("alpha of {}", weight.name);
            return Err(Error::value(name, alpha, "a finite number"));
        }
        let layer = weight.name.strip_suffix(".weight").unwrap_or(&weight.name);
        let mut add = |part: &str, shape: &[usize], init| {
            parameters.add(&format!("{LORA}{layer}.{part}.weight"), shape, init)
        };
        let a = add("lora_A", &[rank, inputs], bound(inputs))?;
        let b = add("lora_B", &[outputs, rank], Init::Zeros)?;
        Ok(Adapter { a, b, factor: alpha / rank as f32 })
    }

    /// `y` and what the adapters make of `x`.
    pub fn forward(&self, graph: &mut Graph, x: Tensor, y: Tensor) -> Result<Tensor> {
        let low = graph.linear(x, &self.a, None, Activation::Identity)?;
        let high = graph.linear(low, &self.b, None, Activation::Identity)?;
        let high = graph.scale(high, self.factor);
        graph.add(y, high)
    }

    /// Adds α / rank · B A to the weight in a flat vector, and sets B to zero: the layer computes
    /// what it did.
    pub fn merge(&self, weight: &Param, flat: &mut [f32]) {
        let (rank, inputs) = (self.a.shape[0], self.a.shape[1]);
        for output in 0..weight.shape[0] {
            for input in 0..inputs {
                let product: f64 = (0..rank)
                    .map(|r| {
                        let a = flat[self.a.offset + r * inputs + input];
                        f64::from(flat[self.b.offset + output * rank + r]) * f64::from(a)
                    })
                    .sum();
                let at = weight.offset + output * inputs + input;
                flat[at] = (f64::from(flat[at]) + f64::from(self.factor) * product) as f32;
            }
        }
        flat[self.b.offset..][..self.b.len()].fill(0.0);
    }
}
