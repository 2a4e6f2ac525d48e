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
//! let output = graph.lstm(x, &[LstmWeights { w_ih, w_hh, b_ih, b_hh }], &options)?;
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
#[cfg(test)]
mod tests;

use layer::Layer;

use super::recurrent::Weights;
use crate::{Error, Graph, Kind, Param, Result, Tensor};

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
}

impl LstmWeights {
    fn all(&self) -> Weights<'_> {
        [&self.w_ih, &self.w_hh, &self.b_ih, &self.b_hh]
    }
}

/// How [`Graph::lstm`] computes.
#[derive(Clone, Debug, Default)]
pub struct LstmOptions {
    /// Couples input and forget gates, f = 1 − i (CIFG; Greff et al. 2017).
    pub cifg: bool,
    /// h and c of each layer before the first step, `[B, H]`; zeros if `None`.
    pub initial: Option<Vec<(Tensor, Tensor)>>,
    /// Probability that an output of a layer is dropped on its way to the next one.
    pub dropout: f32,
}

/// What [`Graph::lstm`] returns.
#[derive(Clone, Debug)]
pub struct LstmOutput {
    /// Outputs of the last layer, `[T, B, H]`.
    pub y: Tensor,
    /// Hidden state of each layer after the last step, `[B, H]`.
    pub h: Vec<Tensor>,
    /// Cell state of each layer after the last step, `[B, H]`.
    pub c: Vec<Tensor>,
}

/// Largest hidden size whose sequences a GPU walks in one dispatch. A workgroup then reads all
/// of `W_hh` at every step for its two rows: 256 KiB stay in a cache nearby. With more, the
/// many workgroups of a dispatch a step are faster than the few of a sequence.
const WALKED: u32 = 128;

impl Graph {
    /// LSTM layers (Hochreiter and Schmidhuber 1997; see [`tern_shaders::kernels::lstm`] for the
    /// equations) over `x [T, B, I]`, one entry of `weights` a layer.
    ///
    /// # Errors
    /// [`Error::Shape`] unless the shapes go together; [`Error::Value`] unless
    /// 0 ≤ dropout < 1.
    pub fn lstm(
        &mut self,
        x: Tensor,
        weights: &[LstmWeights],
        options: &LstmOptions,
    ) -> Result<LstmOutput> {
        let kind = self.profile().kind;
        let hidden = weights.first().and_then(|w| w.w_hh.shape.last()).copied().unwrap_or(0);
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
        if weights.is_empty() {
            return Err(Error::value("layers of an lstm", 0, "at least 1"));
        }
        if let Some(initial) = options.initial.as_ref().filter(|i| i.len() != weights.len()) {
            let what = format!("{} initial states for {} layers", initial.len(), weights.len());
            return Err(Error::shape("lstm", what));
        }
        let mut output = LstmOutput { y: x, h: Vec::new(), c: Vec::new() };
        for (i, weights) in weights.iter().enumerate() {
            if i > 0 && options.dropout != 0.0 {
                output.y = self.dropout(output.y, options.dropout)?;
            }
            let initial = options.initial.as_ref().map(|states| states[i]);
            let input = output.y;
            let layer = self.scoped(&format!("l{i}"), |graph| {
                let layer = Layer::new(graph, input, weights, initial, options.cifg, whole)?;
                layer.forward(graph);
                Ok::<_, Error>(layer)
            })?;
            output.y = layer.y;
            output.h.push(layer.h);
            output.c.push(layer.c);
            let w = layer.weights.clone();
            let mut inputs = vec![layer.x];
            inputs.extend(initial.into_iter().flat_map(|(h, c)| [h, c]));
            self.on_backward(&inputs, &w.all(), &[layer.y, layer.h, layer.c], move |b| {
                layer.backward(b);
                Ok(())
            });
        }
        Ok(output)
    }
}
