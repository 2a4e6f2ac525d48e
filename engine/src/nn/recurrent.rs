//! LSTM and GRU layers.

use super::layers::{bound, check_dropout};
use super::{GruConfig, LstmConfig, Mode};
use crate::ops::gru::{GruOptions, GruWeights};
use crate::ops::lstm::{LstmOptions, LstmWeights};
use crate::{Element, Error, Graph, Param, Parameters, Result, Tensor};

/// What the parameters of recurrent layers are made of.
struct Stack {
    inputs: usize,
    hidden: usize,
    layers: usize,
    /// Gates of a unit.
    gates: usize,
    bidirectional: bool,
    dropout: f32,
    /// Outputs of a step instead of its units.
    projection: Option<usize>,
}

impl Stack {
    /// Registers the parameters of every layer and direction under PyTorch's names, in its order:
    /// `weight_ih`, `weight_hh`, `bias_ih`, `bias_hh`, and `weight_hr` where there is a projection.
    fn register<W>(
        &self,
        parameters: &mut Parameters,
        name: &str,
        make: impl Fn([Param; 4], Option<Param>) -> W,
    ) -> Result<Vec<W>> {
        let &Stack { inputs, hidden, layers, gates, bidirectional, dropout, projection } = self;
        if layers == 0 {
            return Err(Error::value(format!("layers of {name}"), 0, "at least 1"));
        }
        check_dropout(name, dropout)?;
        if let Some(outputs) = projection.filter(|outputs| !(1..hidden).contains(outputs)) {
            let expected = format!("1 up to but not {hidden}, the units of a layer");
            return Err(Error::value(format!("projection of {name}"), outputs, expected));
        }
        let directions: &[&str] = if bidirectional { &["", "_reverse"] } else { &[""] };
        let (rows, state) = (gates * hidden, projection.unwrap_or(hidden));
        let mut weights = Vec::new();
        for layer in 0..layers {
            let width = if layer == 0 { inputs } else { directions.len() * state };
            for direction in directions {
                let mut add = |part: &str, shape: &[usize]| {
                    let name = format!("{name}.{part}_l{layer}{direction}");
                    parameters.add(&name, shape, bound(hidden))
                };
                let all = [
                    add("weight_ih", &[rows, width])?,
                    add("weight_hh", &[rows, state])?,
                    add("bias_ih", &[rows])?,
                    add("bias_hh", &[rows])?,
                ];
                let w_hr = match projection {
                    Some(outputs) => Some(add("weight_hr", &[outputs, hidden])?),
                    None => None,
                };
                weights.push(make(all, w_hr));
            }
        }
        Ok(weights)
    }
}

/// The batch of an input `[T, B, I]` of layers in a mode.
fn batch(
    graph: &Graph,
    op: &'static str,
    x: Tensor,
    (bidirectional, mode): (bool, Mode),
) -> Result<usize> {
    if bidirectional && mode.carries() {
        let expected =
            "one that carries no state: a bidirectional layer reads from the end of the text";
        return Err(Error::value("mode", format!("{mode:?}"), expected));
    }
    match *graph.shape(x) {
        [_, batch, _] => Ok(batch),
        ref shape => Err(Error::shape(op, format!("input {shape:?}, expected [T, B, I]"))),
    }
}

/// Stacked LSTM layers over time-major sequences, with PyTorch's names: `weight_ih_l0
/// [4H, I]`, `weight_hh_l0 [4H, H]`, `bias_ih_l0`, `bias_hh_l0` (gates i, f, g, o), or with
/// coupled gates 3H (i, g, o; f = 1 − i). A projected layer has `weight_hr_l0 [P, H]`, too, and puts out P
/// floats a step; a bidirectional one has all of them twice, with `_reverse` at the end of the names.
///
/// ```
/// use tern_engine::nn::{Lstm, LstmConfig, Mode};
/// use tern_engine::{Arena, Device, Element, Graph, Parameters};
///
/// # fn main() -> tern_engine::Result<()> {
/// let mut parameters = Parameters::new();
/// let config = LstmConfig::new(5, 8).projection(3).bidirectional(true);
/// let lstm = Lstm::new(&mut parameters, "lstm", config)?;
/// assert_eq!(parameters.get("lstm.weight_hh_l0_reverse")?.shape, [32, 3]);
/// let arena = Arena::new(&Device::cpu(), &parameters, &[1])?;
/// let mut graph = Graph::new(&arena);
/// let x = graph.input("x", &[7, 2, 5], Element::F32);
/// let (y, _) = lstm.forward(&mut graph, x, Mode::Train)?;
/// assert_eq!(graph.shape(y), [7, 2, 6]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Lstm {
    weights: Vec<LstmWeights>,
    config: LstmConfig,
}

impl Lstm {
    /// Registers the layers' parameters, uniform within 1/√hidden.
    ///
    /// # Errors
    /// [`Error::Value`] without a layer, for a dropout that isn't in [0, 1) or a projection that isn't
    /// to fewer floats than there are units; as [`Parameters::add`].
    pub fn new(parameters: &mut Parameters, name: &str, config: LstmConfig) -> Result<Self> {
        let LstmConfig { inputs, hidden, layers, coupled, dropout, bidirectional, projection } =
            config;
        let gates = if coupled { 3 } else { 4 };
        let stack = Stack { inputs, hidden, layers, gates, bidirectional, dropout, projection };
        let weights = stack.register(parameters, name, |[w_ih, w_hh, b_ih, b_hh], w_hr| {
            LstmWeights { w_ih, w_hh, b_ih, b_hh, w_hr }
        })?;
        Ok(Lstm { weights, config })
    }

    /// Floats that a step puts out.
    pub fn outputs(&self) -> usize {
        let of_one = self.config.projection.unwrap_or(self.config.hidden);
        if self.config.bidirectional { 2 * of_one } else { of_one }
    }

    /// `[T, B, I]` to `[T, B, H]`, P instead of H of a projected layer, twice as many of a bidirectional
    /// one. Where the mode carries state, the returned tensors are h and c of each layer, `[B, H]` (h is
    /// `[B, P]` of a projected one): inputs of the plan that hold the state between steps.
    ///
    /// # Errors
    /// [`Error::Shape`] for another input shape; [`Error::Value`] if a bidirectional layer is to carry
    /// state.
    pub fn forward(
        &self,
        graph: &mut Graph,
        x: Tensor,
        mode: Mode,
    ) -> Result<(Tensor, Vec<(Tensor, Tensor)>)> {
        let LstmConfig { hidden, coupled, dropout, bidirectional, projection, .. } = self.config;
        let batch = batch(graph, "lstm", x, (bidirectional, mode))?;
        let mut carried = Vec::new();
        if mode.carries() {
            for layer in 0..self.weights.len() {
                let mut state = |part: &str, width| {
                    graph.input(&format!("{part}{layer}"), &[batch, width], Element::F32)
                };
                carried.push((state("h", projection.unwrap_or(hidden)), state("c", hidden)));
            }
        }
        let start = |&(h, c): &(Tensor, Tensor)| (graph.restarted(h), graph.restarted(c));
        let initial = carried.iter().map(start).collect();
        let options = LstmOptions {
            cifg: coupled,
            initial: mode.carries().then_some(initial),
            dropout: if mode.trains() { dropout } else { 0.0 },
            bidirectional,
        };
        let output = graph.lstm(x, &self.weights, &options)?;
        for ((h, c), (last_h, last_c)) in carried.iter().zip(output.h.iter().zip(&output.c)) {
            graph.copy_into(*last_h, *h)?;
            graph.copy_into(*last_c, *c)?;
        }
        Ok((output.y, carried))
    }
}

/// Stacked GRU layers over time-major sequences, with PyTorch's names and gates r, z, n:
/// `weight_ih_l0 [3H, I]`, `weight_hh_l0 [3H, H]`, `bias_ih_l0`, `bias_hh_l0`; a bidirectional layer has
/// all of them twice, with `_reverse` at the end of the names.
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
    config: GruConfig,
}

impl Gru {
    /// Registers the layers' parameters, uniform within 1/√hidden.
    ///
    /// # Errors
    /// [`Error::Value`] without a layer, or for a dropout that isn't in [0, 1); as
    /// [`Parameters::add`].
    pub fn new(parameters: &mut Parameters, name: &str, config: GruConfig) -> Result<Self> {
        let GruConfig { inputs, hidden, layers, dropout, bidirectional } = config;
        let (gates, projection) = (3, None);
        let stack = Stack { inputs, hidden, layers, gates, bidirectional, dropout, projection };
        let weights = stack.register(parameters, name, |[w_ih, w_hh, b_ih, b_hh], _| {
            GruWeights { w_ih, w_hh, b_ih, b_hh }
        })?;
        Ok(Gru { weights, config })
    }

    /// Floats that a step puts out.
    pub fn outputs(&self) -> usize {
        if self.config.bidirectional { 2 * self.config.hidden } else { self.config.hidden }
    }

    /// `[T, B, I]` to `[T, B, H]`, `[T, B, 2·H]` of a bidirectional layer. Where the mode carries state,
    /// the returned tensors are h of each layer, `[B, H]`: inputs of the plan that hold the state between
    /// steps.
    ///
    /// # Errors
    /// [`Error::Shape`] for another input shape; [`Error::Value`] if a bidirectional layer is to carry
    /// state.
    pub fn forward(
        &self,
        graph: &mut Graph,
        x: Tensor,
        mode: Mode,
    ) -> Result<(Tensor, Vec<Tensor>)> {
        let GruConfig { hidden, dropout, bidirectional, .. } = self.config;
        let batch = batch(graph, "gru", x, (bidirectional, mode))?;
        let layers = if mode.carries() { self.weights.len() } else { 0 };
        let mut state = |layer| graph.input(&format!("h{layer}"), &[batch, hidden], Element::F32);
        let carried: Vec<Tensor> = (0..layers).map(&mut state).collect();
        let initial = carried.iter().map(|h| graph.restarted(*h)).collect();
        let options = GruOptions {
            initial: mode.carries().then_some(initial),
            dropout: if mode.trains() { dropout } else { 0.0 },
            bidirectional,
        };
        let output = graph.gru(x, &self.weights, &options)?;
        for (h, last) in carried.iter().zip(&output.h) {
            graph.copy_into(*last, *h)?;
        }
        Ok((output.y, carried))
    }
}
