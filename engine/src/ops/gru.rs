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

use super::recurrent::{Stack, Weights};
use crate::{Graph, Kind, Param, Result, Tensor};

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
    /// h before the first step for each entry of the weights, `[B, H]`; zeros if `None`.
    pub initial: Option<Vec<Tensor>>,
    /// Probability that an output of a layer is dropped on its way to the next one.
    pub dropout: f32,
    /// Whether each layer reads the sequence from its end, too (Schuster and Paliwal 1997): a layer then
    /// has two entries of the weights, forward and backward, and the next one reads the outputs of both.
    pub bidirectional: bool,
}

/// What [`Graph::gru`] returns.
#[derive(Clone, Debug)]
pub struct GruOutput {
    /// Outputs of the last layer, `[T, B, H]`, or `[T, B, 2·H]` of both directions.
    pub y: Tensor,
    /// Hidden state after the last step that was read, `[B, H]`, for each entry of the weights.
    pub h: Vec<Tensor>,
}

/// Largest hidden size whose sequences a GPU walks in one dispatch, as of an LSTM.
const WALKED: usize = 128;

impl Graph {
    /// GRU layers (Cho et al. 2014; see [`tern_shaders::kernels::gru`] for the equations) over
    /// `x [T, B, I]`, one entry of `weights` a layer and direction.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) unless the shapes go together;
    /// [`Error::Value`](crate::Error::Value) unless 0 ≤ dropout < 1.
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
        let stack = Stack {
            op: "gru",
            weights: weights.len(),
            initial: options.initial.as_ref().map(Vec::len),
            bidirectional: options.bidirectional,
            dropout: options.dropout,
        };
        let mut h = Vec::with_capacity(weights.len());
        let y = stack.record(self, x, |graph, i, input| {
            let initial = options.initial.as_ref().map(|states| states[i]);
            let layer = Layer::new(graph, input, &weights[i], initial, whole)?;
            layer.forward(graph);
            let (y, last, w) = (layer.y, layer.h, layer.weights.clone());
            h.push(last);
            let inputs: Vec<Tensor> = [input].into_iter().chain(initial).collect();
            graph.on_backward(&inputs, &w.all(), &[y, last], move |b| {
                layer.backward(b);
                Ok(())
            });
            Ok(y)
        })?;
        Ok(GruOutput { y, h })
    }
}
