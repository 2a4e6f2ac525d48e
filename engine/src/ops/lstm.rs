//! Stacked LSTM layers over time-major sequences, as `torch.nn.LSTM` computes them.
//!
//! ```rust
//! use tern_engine::ops::lstm::{LstmOptions, LstmWeights};
//! use tern_engine::{Arena, Device, Graph, Init, Parameters};
//!
//! # fn main() -> tern_engine::Result<()> {
//! // One unit whose weights are zero: all gates are half open, and nothing comes in.
//! let mut parameters = Parameters::new();
//! let mut zeros = |name, shape: &[usize]| parameters.add(name, shape, Init::Zeros);
//! let (w_ih, w_hh) = (zeros("weight_ih_l0", &[4, 1])?, zeros("weight_hh_l0", &[4, 1])?);
//! let (b_ih, b_hh) = (zeros("bias_ih_l0", &[4])?, zeros("bias_hh_l0", &[4])?);
//! let arena = Arena::new(&Device::cpu(), &parameters, &[1])?;
//! let mut graph = Graph::new(&arena);
//! let (x, one) = (graph.constant(1.0, &[2, 1, 1]), graph.constant(1.0, &[1, 1]));
//! let options = LstmOptions { initial: Some(vec![(one, one)]), ..LstmOptions::default() };
//! let weights = LstmWeights { w_ih, w_hh, b_ih, b_hh, w_hr: None };
//! let output = graph.lstm(x, &[weights], &options)?;
//! graph.keep(output.c[0]);
//! let mut plan = graph.forward()?;
//! plan.run(1)?;
//! // The cell state is halved in each of the two steps.
//! let c = plan.read(output.c[0])?.floats()?;
//! assert!((c[0] - 0.25).abs() < 1e-6);
//! # Ok(())
//! # }
//! ```

mod cases;
mod layer;
mod projection;
#[cfg(test)]
mod tests;

use layer::Layer;

use super::recurrent::{Stack, Weights};
use crate::{Activation, Graph, Kind, Param, Precision, Result, Tensor};

pub use cases::cases;

/// Parameters of one layer, in PyTorch's shapes: gates i, f, g, o (coupled: i, g, o) one
/// after the other, G = 4 (coupled: 3).
#[derive(Clone, Debug)]
pub struct LstmWeights {
    /// `weight_ih` `[G·H, I]`
    pub w_ih: Param,
    /// `weight_hh` `[G·H, H]`
    pub w_hh: Param,
    /// `bias_ih` `[G·H]`
    pub b_ih: Param,
    /// `bias_hh` `[G·H]`
    pub b_hh: Param,
    /// `weight_hr` `[P, H]`: what a step puts out and the next one reads are P projections of its H
    /// units (Sak et al. 2014), and `weight_hh` is `[G·H, P]`.
    pub w_hr: Option<Param>,
}

impl LstmWeights {
    fn all(&self) -> Weights<'_> {
        [&self.w_ih, &self.w_hh, &self.b_ih, &self.b_hh]
    }

    /// Units, H.
    fn hidden(&self) -> usize {
        self.w_hr.as_ref().unwrap_or(&self.w_hh).shape.last().copied().unwrap_or(0)
    }
}

/// How [`Graph::lstm`] computes.
#[derive(Clone, Debug, Default)]
pub struct LstmOptions {
    /// Couples input and forget gates, f = 1 − i (CIFG; Greff et al. 2017).
    pub cifg: bool,
    /// h and c before the first step for each entry of the weights, `[B, H]`, or `[B, P]` and `[B, H]`
    /// with a projection; zeros if `None`.
    pub initial: Option<Vec<(Tensor, Tensor)>>,
    /// Probability that an output of a layer is dropped on its way to the next one.
    pub dropout: f32,
    /// Whether each layer reads the sequence from its end, too (Schuster and Paliwal 1997): a layer then
    /// has two entries of the weights, forward and backward, and the next one reads the outputs of both.
    pub bidirectional: bool,
}

/// What [`Graph::lstm`] returns.
#[derive(Clone, Debug)]
pub struct LstmOutput {
    /// Outputs of the last layer, `[T, B, H]`, or P projections a step instead of H; twice as many of
    /// both directions.
    pub y: Tensor,
    /// Hidden state after the last step that was read, `[B, H]` or `[B, P]`, for each entry of the
    /// weights.
    pub h: Vec<Tensor>,
    /// Cell state after the last step that was read, `[B, H]`, for each entry of the weights.
    pub c: Vec<Tensor>,
}

/// Largest hidden size whose sequences a GPU walks in one dispatch. A workgroup then reads all
/// of `W_hh` at every step for its two rows: 256 KiB stay in a cache nearby. With more, the
/// many workgroups of a dispatch a step are faster than the few of a sequence.
const WALKED: u32 = 128;

impl Graph {
    /// LSTM layers (Hochreiter and Schmidhuber 1997; see [`tern_shaders::kernels::lstm`] for the
    /// equations) over `x [T, B, I]`, one entry of `weights` a layer and direction.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) unless the shapes go together;
    /// [`Error::Value`](crate::Error::Value) unless 0 ≤ dropout < 1.
    pub fn lstm(
        &mut self,
        x: Tensor,
        weights: &[LstmWeights],
        options: &LstmOptions,
    ) -> Result<LstmOutput> {
        let kind = self.profile().kind;
        let hidden = weights.first().map_or(0, LstmWeights::hidden);
        let hardware = !matches!(kind, Kind::Cpu | Kind::Software);
        let default = self.profile().whole_sequence || hardware && hidden <= WALKED as usize;
        let measured = match self.shape(x) {
            [steps, batch, _] => {
                let sizes = [*steps as u32, *batch as u32, hidden as u32];
                self.arena.device().walks_lstm(sizes, options.cifg)
            }
            _ => None,
        };
        let whole = measured.unwrap_or(default);
        self.lstm_walking(x, weights, options, whole)
    }

    /// [`Graph::lstm`] with one dispatch a sequence, or else one a step.
    pub(crate) fn lstm_walking(
        &mut self,
        x: Tensor,
        weights: &[LstmWeights],
        options: &LstmOptions,
        whole: bool,
    ) -> Result<LstmOutput> {
        let stack = Stack {
            op: "lstm",
            weights: weights.len(),
            initial: options.initial.as_ref().map(Vec::len),
            bidirectional: options.bidirectional,
            dropout: options.dropout,
        };
        let (mut h, mut c) = (Vec::new(), Vec::new());
        let y = stack.record(self, x, |graph, i, input| {
            let initial = options.initial.as_ref().map(|states| states[i]);
            let layer = Layer::new(graph, input, &weights[i], initial, options.cifg, whole)?;
            layer.forward(graph);
            let (mut y, mut last, cell, w) = (layer.y, layer.h, layer.c, layer.weights.clone());
            let inputs: Vec<Tensor> =
                [input].into_iter().chain(initial.into_iter().flat_map(|(h, c)| [h, c])).collect();
            let all: Vec<&Param> = w.all().into_iter().chain(&w.w_hr).collect();
            graph.on_backward(&inputs, &all, &[y, last, cell], move |b| {
                layer.backward(b);
                Ok(())
            });
            if let Some(w_hr) = &w.w_hr {
                // The next step reads what comes out, and is in single precision.
                let project = |graph: &mut Graph| graph.linear(y, w_hr, None, Activation::Identity);
                y = graph.in_precision(Precision::Single, project)?;
                let &[steps, batch, width] = graph.shape(y) else { return Ok(y) };
                last = graph.slice(y, 0, steps - 1..steps)?;
                last = graph.reshape(last, &[batch, width])?;
            }
            h.push(last);
            c.push(cell);
            Ok(y)
        })?;
        Ok(LstmOutput { y, h, c })
    }
}
