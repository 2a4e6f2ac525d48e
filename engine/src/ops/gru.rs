//! Stacked GRU layers over time-major sequences, as `torch.nn.GRU` computes them.
//!
//! ```rust
//! use tern_engine::ops::gru::{GruOptions, GruWeights};
//! use tern_engine::{Arena, Device, Graph, Init, Parameters};
//!
//! # fn main() -> tern_engine::Result<()> {
//! // One unit whose weights are zero: both gates are half open, and nothing comes in.
//! let mut parameters = Parameters::new();
//! let mut zeros = |name, shape: &[usize]| parameters.add(name, shape, Init::Zeros);
//! let (w_ih, w_hh) = (zeros("weight_ih_l0", &[3, 1])?, zeros("weight_hh_l0", &[3, 1])?);
//! let (b_ih, b_hh) = (zeros("bias_ih_l0", &[3])?, zeros("bias_hh_l0", &[3])?);
//! let arena = Arena::new(&Device::cpu(), &parameters, &[1])?;
//! let mut graph = Graph::new(&arena);
//! let (x, one) = (graph.constant(1.0, &[2, 1, 1]), graph.constant(1.0, &[1, 1]));
//! let options = GruOptions { initial: Some(vec![one]), ..GruOptions::default() };
//! let output = graph.gru(x, &[GruWeights { w_ih, w_hh, b_ih, b_hh }], &options)?;
//! graph.keep(output.h[0]);
//! let mut plan = graph.forward()?;
//! plan.run(1)?;
//! // The state is halved in each of the two steps.
//! let h = plan.read(output.h[0])?.floats()?;
//! assert!((h[0] - 0.25).abs() < 1e-6);
//! # Ok(())
//! # }
//! ```

mod cases;
mod layer;
#[cfg(test)]
mod tests;

use layer::Layer;

use super::recurrent::Weights;
use crate::{Error, Graph, Kind, Param, Result, Tensor};

pub use cases::cases;

/// Parameters of one layer, in PyTorch's shapes: gates r, z, n one after the other.
#[derive(Clone, Debug)]
pub struct GruWeights {
    /// `weight_ih` `[3·H, I]`
    pub w_ih: Param,
    /// `weight_hh` `[3·H, H]`
    pub w_hh: Param,
    /// `bias_ih` `[3·H]`
    pub b_ih: Param,
    /// `bias_hh` `[3·H]`
    pub b_hh: Param,
}

impl GruWeights {
    fn all(&self) -> Weights<'_> {
        [&self.w_ih, &self.w_hh, &self.b_ih, &self.b_hh]
    }
}

/// How [`Graph::gru`] computes.
#[derive(Clone, Debug, Default)]
pub struct GruOptions {
    /// h of each layer before the first step, `[B, H]`; zeros if `None`.
    pub initial: Option<Vec<Tensor>>,
    /// Probability that an output of a layer is dropped on its way to the next one.
    pub dropout: f32,
}

/// What [`Graph::gru`] returns.
#[derive(Clone, Debug)]
pub struct GruOutput {
    /// Outputs of the last layer, `[T, B, H]`.
    pub y: Tensor,
    /// Hidden state of each layer after the last step, `[B, H]`.
    pub h: Vec<Tensor>,
}

/// Largest hidden size whose sequences a GPU walks in one dispatch, as of an LSTM.
const WALKED: usize = 128;

impl Graph {
    /// GRU layers (Cho et al. 2014; see [`tern_shaders::kernels::gru`] for the equations) over
    /// `x [T, B, I]`, one entry of `weights` a layer.
    ///
    /// # Errors
    /// [`Error::Shape`] unless the shapes go together; [`Error::Value`] unless
    /// 0 ≤ dropout < 1.
    pub fn gru(
        &mut self,
        x: Tensor,
        weights: &[GruWeights],
        options: &GruOptions,
    ) -> Result<GruOutput> {
        let kind = self.profile().kind;
        let hidden = weights.first().and_then(|w| w.w_hh.shape.last()).copied().unwrap_or(0);
        let hardware = !matches!(kind, Kind::Cpu | Kind::Software);
        let whole = self.profile().whole_sequence || hardware && hidden <= WALKED;
        self.gru_walking(x, weights, options, whole)
    }

    /// [`Graph::gru`] with one dispatch a sequence, or else one a step.
    pub(crate) fn gru_walking(
        &mut self,
        x: Tensor,
        weights: &[GruWeights],
        options: &GruOptions,
        whole: bool,
    ) -> Result<GruOutput> {
        if weights.is_empty() {
            return Err(Error::value("layers of a gru", 0, "at least 1"));
        }
        if let Some(initial) = options.initial.as_ref().filter(|i| i.len() != weights.len()) {
            let what = format!("{} initial states for {} layers", initial.len(), weights.len());
            return Err(Error::shape("gru", what));
        }
        let mut output = GruOutput { y: x, h: Vec::new() };
        for (i, weights) in weights.iter().enumerate() {
            if i > 0 && options.dropout != 0.0 {
                output.y = self.dropout(output.y, options.dropout)?;
            }
            let initial = options.initial.as_ref().map(|states| states[i]);
            let input = output.y;
            let layer = self.scoped(&format!("l{i}"), |graph| {
                let layer = Layer::new(graph, input, weights, initial, whole)?;
                layer.forward(graph);
                Ok::<_, Error>(layer)
            })?;
            output.y = layer.y;
            output.h.push(layer.h);
            let w = layer.weights.clone();
            let inputs: Vec<Tensor> = [layer.x].into_iter().chain(initial).collect();
            let weights = w.all();
            self.on_backward(&inputs, &weights, &[layer.y, layer.h], move |b| {
                layer.backward(b);
                Ok(())
            });
        }
        Ok(output)
    }
}
