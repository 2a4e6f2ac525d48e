//! Layers: parameters under PyTorch's names and shapes, and how they are recorded.

use tern_shaders::Activation;

use super::lora::Adapter;
use super::{LinearConfig, LoraConfig};
use crate::{Error, Graph, Init, Param, Parameters, Result, Tensor};

/// What a graph is recorded for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Dropout is on; recurrent state starts at zero.
    #[default]
    Train,
    /// Dropout is off; recurrent state starts at zero.
    Evaluate,
    /// Dropout is on; recurrent state is carried from step to step, for long text.
    TrainCarrying,
    /// Dropout is off; recurrent state is carried from step to step.
    EvaluateCarrying,
}

impl Mode {
    /// Whether dropout is on.
    pub fn trains(self) -> bool {
        matches!(self, Mode::Train | Mode::TrainCarrying)
    }

    /// Whether recurrent state is carried from step to step.
    pub fn carries(self) -> bool {
        matches!(self, Mode::TrainCarrying | Mode::EvaluateCarrying)
    }
}

/// 1/√n, the bound of PyTorch's uniform starting values.
pub(super) fn bound(n: usize) -> Init {
    Init::Uniform(1.0 / (n.max(1) as f32).sqrt())
}

/// A vector a token: `weight [V, D]`.
#[derive(Clone, Debug)]
pub struct Embedding {
    weight: Param,
}

impl Embedding {
    /// Registers `name.weight`, normal with deviation 1.
    ///
    /// # Errors
    /// As [`Parameters::add`].
    pub fn new(
        parameters: &mut Parameters,
        name: &str,
        vocabulary: usize,
        dimension: usize,
    ) -> Result<Self> {
        Self::of_deviation(parameters, name, [vocabulary, dimension], 1.0)
    }

    /// Registers `name.weight`, normal with a deviation.
    pub(super) fn of_deviation(
        parameters: &mut Parameters,
        name: &str,
        shape: [usize; 2],
        deviation: f32,
    ) -> Result<Self> {
        let init = Init::Normal(deviation);
        Ok(Embedding { weight: parameters.add(&format!("{name}.weight"), &shape, init)? })
    }

    /// The table.
    pub(super) fn weight(&self) -> &Param {
        &self.weight
    }

    /// Tokens `[...]` to vectors `[..., D]`.
    ///
    /// # Errors
    /// [`Error::Shape`] unless the input holds words.
    pub fn forward(&self, graph: &mut Graph, tokens: Tensor) -> Result<Tensor> {
        graph.embedding(tokens, &self.weight)
    }
}

/// y = f(x Wᵀ + b): `weight [out, in]`, `bias [out]`.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Param,
    bias: Option<Param>,
    activation: Activation,
    adapter: Option<Adapter>,
}

impl Linear {
    /// Registers `name.weight` and `name.bias`, uniform within 1/√inputs.
    ///
    /// # Errors
    /// As [`Parameters::add`].
    pub fn new(parameters: &mut Parameters, name: &str, config: LinearConfig) -> Result<Self> {
        let LinearConfig { inputs, outputs, bias, activation, init } = config;
        let init = init.unwrap_or(bound(inputs));
        let weight = parameters.add(&format!("{name}.weight"), &[outputs, inputs], init)?;
        let bias = match bias {
            true => Some(parameters.add(&format!("{name}.bias"), &[outputs], bound(inputs))?),
            false => None,
        };
        Ok(Linear { weight, bias, activation, adapter: None })
    }

    /// Registers low-rank adapters, `lora.name.lora_A.weight` and `lora_B`, of a layer that has
    /// none: their product is added to the weight. At first it is zero.
    ///
    /// # Errors
    /// [`Error::Value`] for a rank of 0 or more than the layer's sides; as [`Parameters::add`].
    pub fn adapt(&mut self, parameters: &mut Parameters, config: LoraConfig) -> Result<()> {
        self.adapter = Some(Adapter::new(parameters, &self.weight, config)?);
        Ok(())
    }

    /// Adds the adapters' product to the weight in a flat vector, and sets it to zero: the layer
    /// computes what it did.
    pub fn merge(&self, flat: &mut [f32]) {
        if let Some(adapter) = &self.adapter {
            adapter.merge(&self.weight, flat);
        }
    }

    /// `[..., in]` to `[..., out]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the last dimension isn't `in`.
    pub fn forward(&self, graph: &mut Graph, x: Tensor) -> Result<Tensor> {
        let Some(adapter) = &self.adapter else {
            return graph.linear(x, &self.weight, self.bias.as_ref(), self.activation);
        };
        let y = graph.linear(x, &self.weight, self.bias.as_ref(), Activation::Identity)?;
        let y = adapter.forward(graph, x, y)?;
        Ok(match self.activation {
            Activation::Identity => y,
            kind => graph.activation(y, kind),
        })
    }
}

/// A probability of dropout that leaves something.
pub(super) fn check_dropout(name: &str, p: f32) -> Result<()> {
    match (0.0..1.0).contains(&p) {
        true => Ok(()),
        false => Err(Error::value(format!("dropout of {name}"), p, "0 up to but not 1")),
    }
}

/// Layer normalization over the last dimension: `weight [D]`, `bias [D]`, ε = 1e-5.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    weight: Param,
    bias: Param,
}

impl LayerNorm {
    /// Registers `name.weight` of ones and `name.bias` of zeros.
    ///
    /// # Errors
    /// As [`Parameters::add`].
    pub fn new(parameters: &mut Parameters, name: &str, dimension: usize) -> Result<Self> {
        Ok(LayerNorm {
            weight: parameters.add(&format!("{name}.weight"), &[dimension], Init::Constant(1.0))?,
            bias: parameters.add(&format!("{name}.bias"), &[dimension], Init::Zeros)?,
        })
    }

    /// `[..., D]` to the same shape.
    ///
    /// # Errors
    /// [`Error::Shape`] if the last dimension isn't `D`.
    pub fn forward(&self, graph: &mut Graph, x: Tensor) -> Result<Tensor> {
        graph.layer_norm(x, &self.weight, &self.bias, 1e-5)
    }
}

/// RMS normalization over the last dimension: `weight [D]`, and ε = 2⁻²³, which PyTorch takes for
/// single precision, if nothing else is said.
#[derive(Clone, Debug)]
pub struct RmsNorm {
    weight: Param,
    epsilon: f32,
}

impl RmsNorm {
    /// Registers `name.weight` of ones.
    ///
    /// # Errors
    /// As [`Parameters::add`].
    pub fn new(parameters: &mut Parameters, name: &str, dimension: usize) -> Result<Self> {
        let weight =
            parameters.add(&format!("{name}.weight"), &[dimension], Init::Constant(1.0))?;
        Ok(RmsNorm { weight, epsilon: f32::EPSILON })
    }

    /// With another ε.
    pub fn epsilon(mut self, epsilon: f32) -> Self {
        self.epsilon = epsilon;
        self
    }

    /// `[..., D]` to the same shape.
    ///
    /// # Errors
    /// [`Error::Shape`] if the last dimension isn't `D`.
    pub fn forward(&self, graph: &mut Graph, x: Tensor) -> Result<Tensor> {
        graph.rms_norm(x, &self.weight, self.epsilon)
    }
}

/// Dropout with probability `p`, inverted: what is kept is scaled by 1/(1 − p).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// Probability of being dropped.
    pub p: f32,
}

impl Dropout {
    /// The same shape; the input itself where the mode doesn't train.
    ///
    /// # Errors
    /// [`Error::Value`] unless 0 ≤ p < 1.
    pub fn forward(self, graph: &mut Graph, x: Tensor, mode: Mode) -> Result<Tensor> {
        if mode.trains() && self.p != 0.0 { graph.dropout(x, self.p) } else { Ok(x) }
    }
}
