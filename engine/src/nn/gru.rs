//! GRU layers.

use super::layers::{bound, check_dropout};
use super::{GruConfig, Mode};
use crate::ops::gru::{GruOptions, GruWeights};
use crate::{Element, Error, Graph, Parameters, Result, Tensor};

/// Stacked GRU layers over time-major sequences, with PyTorch's names and gates r, z, n:
/// `weight_ih_l0 [3H, I]`, `weight_hh_l0 [3H, H]`, `bias_ih_l0`, `bias_hh_l0`.
///
/// ```
/// use tern_engine::nn::{Gru, GruConfig, Mode};
/// use tern_engine::{Arena, Device, Element, Graph, Parameters};
///
/// # fn main() -> tern_engine::Result<()> {
/// let mut parameters = Parameters::new();
/// let gru = Gru::new(&mut parameters, "gru", GruConfig::new(5, 8).layers(2))?;
/// assert_eq!(parameters.get("gru.weight_ih_l1")?.shape, [24, 8]);
/// let arena = Arena::new(&Device::cpu(), &parameters, &[1])?;
/// let mut graph = Graph::new(&arena);
/// let x = graph.input("x", &[7, 3, 5], Element::F32);
/// let (y, _) = gru.forward(&mut graph, x, Mode::Train)?;
/// assert_eq!(graph.shape(y), [7, 3, 8]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Gru {
    weights: Vec<GruWeights>,
    hidden: usize,
    dropout: f32,
}

impl Gru {
    /// Registers the layers' parameters, uniform within 1/√hidden.
    ///
    /// # Errors
    /// [`Error::Value`] without a layer, or for a dropout that isn't in [0, 1); as
    /// [`Parameters::add`].
    pub fn new(parameters: &mut Parameters, name: &str, config: GruConfig) -> Result<Self> {
        let GruConfig { inputs, hidden, layers, dropout } = config;
        if layers == 0 {
            return Err(Error::value(format!("layers of {name}"), 0, "at least 1"));
        }
        check_dropout(name, dropout)?;
        let rows = 3 * hidden;
        let mut weights = Vec::with_capacity(layers);
        for layer in 0..layers {
            let width = if layer == 0 { inputs } else { hidden };
            let mut add = |part: &str, shape: &[usize]| {
                parameters.add(&format!("{name}.{part}_l{layer}"), shape, bound(hidden))
            };
            weights.push(GruWeights {
                w_ih: add("weight_ih", &[rows, width])?,
                w_hh: add("weight_hh", &[rows, hidden])?,
                b_ih: add("bias_ih", &[rows])?,
                b_hh: add("bias_hh", &[rows])?,
            });
        }
        Ok(Gru { weights, hidden, dropout })
    }

    /// `[T, B, I]` to `[T, B, H]`. Where the mode carries state, the returned tensors are h of each
    /// layer, `[B, H]`: inputs of the plan that hold the state between steps.
    ///
    /// # Errors
    /// [`Error::Shape`] for another input shape.
    pub fn forward(
        &self,
        graph: &mut Graph,
        x: Tensor,
        mode: Mode,
    ) -> Result<(Tensor, Vec<Tensor>)> {
        let [_, batch, _] = *graph.shape(x) else {
            let what = format!("input {:?}, expected [T, B, I]", graph.shape(x));
            return Err(Error::shape("gru", what));
        };
        let layers = if mode.carries() { self.weights.len() } else { 0 };
        let mut state =
            |layer| graph.input(&format!("h{layer}"), &[batch, self.hidden], Element::F32);
        let carried: Vec<Tensor> = (0..layers).map(&mut state).collect();
        let initial = carried.iter().map(|h| graph.restarted(*h)).collect();
        let options = GruOptions {
            initial: mode.carries().then_some(initial),
            dropout: if mode.trains() { self.dropout } else { 0.0 },
        };
        let output = graph.gru(x, &self.weights, &options)?;
        for (h, last) in carried.iter().zip(&output.h) {
            graph.copy_into(*last, *h)?;
        }
        Ok((output.y, carried))
    }
}
