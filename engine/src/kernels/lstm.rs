//! Stacked LSTM layers over time-major sequences, as `torch.nn.LSTM` computes them.

mod cases;
#[cfg(test)]
mod tests;

use tern_shaders::cpu::lstm::{
    Backward as BackwardParams, Forward, SEQUENCE_BACKWARD, SEQUENCE_FORWARD, STATE_BACKWARD,
    STATE_LOAD, STATE_STORE, STEP_BACKWARD, STEP_FORWARD, State, StateBackward, gate_count,
};
use tern_shaders::{Element, Kernel};

use super::matmul::{Gemm, Matrix, Order};
use super::reduce::sum_columns;
use crate::{Backward, Error, Flat, Graph, Kind, Operand, Param, Result, Tensor};

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

/// One layer's sizes and tensors, as its backward pass needs them.
#[derive(Clone)]
struct Layer {
    weights: LstmWeights,
    steps: usize,
    batch: usize,
    hidden: usize,
    inputs: usize,
    cifg: bool,
    /// Whether one dispatch walks the sequence.
    whole: bool,
    x: Tensor,
    initial: Option<(Tensor, Tensor)>,
    /// Sums of the input products at first, then the activated gates.
    gates: Tensor,
    hs: Tensor,
    cs: Tensor,
    y: Tensor,
    h: Tensor,
    c: Tensor,
}

impl Graph {
    /// LSTM layers (Hochreiter and Schmidhuber 1997; see [`tern_shaders::cpu::lstm`] for the
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
        let whole = self.profile().whole_sequence || hardware && hidden <= WALKED as usize;
        self.lstm_walking(x, weights, options, whole)
    }

    /// [`Graph::lstm`] with one dispatch a sequence, or else one a step.
    fn lstm_walking(
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
            self.on_backward(
                &inputs,
                &[&w.w_ih, &w.w_hh, &w.b_ih, &w.b_hh],
                &[layer.y, layer.h, layer.c],
                move |b| {
                    layer.backward(b);
                    Ok(())
                },
            );
        }
        Ok(output)
    }
}

impl Layer {
    /// Checks the shapes and makes the tensors.
    fn new(
        graph: &mut Graph,
        x: Tensor,
        weights: &LstmWeights,
        initial: Option<(Tensor, Tensor)>,
        cifg: bool,
        whole: bool,
    ) -> Result<Self> {
        graph.check_floats("lstm", x)?;
        let wrong = |what: String| Err(Error::shape("lstm", what));
        let &[steps, batch, inputs] = graph.shape(x) else {
            return wrong(format!("input {:?}, expected [T, B, I]", graph.shape(x)));
        };
        let hidden = weights.w_hh.shape.last().copied().unwrap_or(0);
        let rows = gate_count(cifg.into()) * hidden;
        for (param, expected) in [
            (&weights.w_ih, &[rows, inputs][..]),
            (&weights.w_hh, &[rows, hidden]),
            (&weights.b_ih, &[rows]),
            (&weights.b_hh, &[rows]),
        ] {
            if param.shape != expected || hidden == 0 {
                let (name, shape, x) = (&param.name, &param.shape, graph.shape(x));
                let gates = gate_count(cifg.into());
                return wrong(format!(
                    "{name} {shape:?}, expected {expected:?} for input {x:?} and {gates} gates"
                ));
            }
        }
        for state in initial.iter().flat_map(|(h, c)| [*h, *c]) {
            graph.check_floats("lstm", state)?;
            if graph.shape(state) != [batch, hidden] {
                let shape = graph.shape(state);
                return wrong(format!("initial state {shape:?}, expected {:?}", [batch, hidden]));
            }
        }
        let mut make = |label: &str, shape: &[usize]| graph.tensor(label, shape, Element::F32);
        let mut layer = Layer {
            weights: weights.clone(),
            steps,
            batch,
            hidden,
            inputs,
            cifg,
            whole,
            x,
            initial,
            gates: make("gates", &[steps, batch, rows]),
            hs: make("hidden states", &[steps + 1, batch, hidden]),
            cs: make("cell states", &[steps + 1, batch, hidden]),
            y: make("outputs", &[steps, batch, hidden]),
            h: make("last hidden state", &[batch, hidden]),
            c: make("last cell state", &[batch, hidden]),
        };
        layer.whole = whole && layer.fits(graph, &SEQUENCE_FORWARD, &layer.forward_params(graph));
        Ok(layer)
    }

    /// Whether the device has a way to compute a kernel with these parameters.
    fn fits(&self, graph: &Graph, kernel: &Kernel, params: &impl bytemuck::Pod) -> bool {
        let fitting = |v: &tern_shaders::Variant| (v.fits)(bytemuck::bytes_of(params));
        graph.profile().kind == Kind::Cpu || kernel.variants.iter().any(fitting)
    }

    /// Rows of a row of gates: G·H.
    fn width(&self) -> usize {
        gate_count(self.cifg.into()) * self.hidden
    }

    fn forward_params(&self, graph: &Graph) -> Forward {
        Forward {
            t: 0,
            steps: self.steps as u32,
            batch: self.batch as u32,
            hidden: self.hidden as u32,
            cifg: self.cifg.into(),
            w_offset: self.weights.w_hh.offset as u32,
            b_offset: self.weights.b_hh.offset as u32,
            stride: graph.parameter_stride() as u32,
        }
    }

    fn forward(&self, graph: &mut Graph) {
        let w = &self.weights;
        let [x, gates] = [self.x, self.gates].map(|t| Matrix::tensor(graph, t));
        let size = [self.steps * self.batch, self.width(), self.inputs];
        Gemm::new(Order::Nt, size, x, Matrix::weight(graph, &w.w_ih), gates)
            .bias(Some(Matrix::weight(graph, &w.b_ih)))
            .record(graph);
        let n = (self.batch * self.hidden) as u32;
        let state = State { n, steps: self.steps as u32, zero: self.initial.is_none().into() };
        // Without initial states nothing of the two is read.
        let (h, c) = self.initial.unwrap_or((self.gates, self.gates));
        let args = [h.into(), c.into(), self.hs.into(), self.cs.into()];
        graph.dispatch(&STATE_LOAD, &state, &args);
        let args = [
            Operand::Flat(Flat::Parameters),
            self.hs.into(),
            self.cs.into(),
            self.gates.into(),
            self.y.into(),
        ];
        let params = self.forward_params(graph);
        if self.whole {
            graph.dispatch(&SEQUENCE_FORWARD, &params, &args);
        } else {
            for t in 0..params.steps {
                graph.dispatch(&STEP_FORWARD, &Forward { t, ..params }, &args);
            }
        }
        let args = [self.hs.into(), self.cs.into(), self.h.into(), self.c.into()];
        graph.dispatch(&STATE_STORE, &state, &args);
    }

    fn backward(&self, b: &mut Backward<'_>) {
        let upstream = [self.y, self.h, self.c].map(|t| b.gradient(t));
        let dgates = b.tensor("d gates", &[self.steps, self.batch, self.width()], Element::F32);
        let carried = b.tensor("d cell state", &[self.batch, self.hidden], Element::F32);
        let [has_dy, has_dh, has_dc] = upstream.map(|d| u32::from(d.is_some()));
        // An absent gradient is not read; its binding still needs a buffer that isn't written.
        let [dy, dh, dc] = upstream.map(|d| d.unwrap_or(self.gates).into());
        let params = BackwardParams {
            t: 0,
            steps: self.steps as u32,
            batch: self.batch as u32,
            hidden: self.hidden as u32,
            cifg: self.cifg.into(),
            w_offset: self.weights.w_hh.offset as u32,
            stride: b.parameter_stride() as u32,
            has_dy,
            has_dh,
            has_dc,
        };
        let args = [
            Operand::Flat(Flat::Parameters),
            self.gates.into(),
            self.cs.into(),
            dy,
            dh,
            dc,
            dgates.into(),
            carried.into(),
        ];
        if self.whole && self.fits(b, &SEQUENCE_BACKWARD, &params) {
            b.dispatch(&SEQUENCE_BACKWARD, &params, &args);
        } else {
            for t in (0..params.steps).rev() {
                b.dispatch(&STEP_BACKWARD, &BackwardParams { t, ..params }, &args);
            }
        }
        self.state_backward(b, &params, dgates, carried);
        self.products_backward(b, dgates);
    }

    /// Gradients of the initial state, for whoever wants them.
    fn state_backward(
        &self,
        b: &mut Backward<'_>,
        p: &BackwardParams,
        dgates: Tensor,
        carried: Tensor,
    ) {
        let Some((h, c)) = self.initial else { return };
        let (dh, dc) = (b.target(h), b.target(c));
        if dh.is_none() && dc.is_none() {
            return;
        }
        let mut or_unused = |target: Option<(Tensor, u32)>| {
            let shape = [self.batch, self.hidden];
            target.unwrap_or_else(|| (b.tensor("unused", &shape, Element::F32), 0))
        };
        let ((dh, accumulate_h), (dc, accumulate_c)) = (or_unused(dh), or_unused(dc));
        let params = StateBackward {
            steps: p.steps,
            batch: p.batch,
            hidden: p.hidden,
            cifg: p.cifg,
            w_offset: p.w_offset,
            stride: p.stride,
            accumulate_h,
            accumulate_c,
        };
        let weights = Operand::Flat(Flat::Parameters);
        let args = [weights, dgates.into(), carried.into(), dh.into(), dc.into()];
        b.dispatch(&STATE_BACKWARD, &params, &args);
    }

    /// Gradients through the two products: dx, both weights, both biases.
    fn products_backward(&self, b: &mut Backward<'_>, dgates: Tensor) {
        let (rows, width) = (self.steps * self.batch, self.width());
        let upstream = Matrix::tensor(b, dgates);
        if let Some((dx, flag)) = b.target(self.x) {
            let (w, to) = (Matrix::weight(b, &self.weights.w_ih), Matrix::tensor(b, dx));
            let size = [rows, self.inputs, width];
            Gemm::new(Order::Nn, size, upstream, w, to).accumulate(flag).record(b);
        }
        // The first T slots of the hidden states are what each step started from.
        for (param, input) in [(&self.weights.w_ih, self.x), (&self.weights.w_hh, self.hs)] {
            if let Some(flag) = b.weight_target(param) {
                let (input, to) = (Matrix::tensor(b, input), Matrix::gradient(b, param));
                let size = [width, param.shape[1], rows];
                Gemm::new(Order::Tn, size, upstream, input, to).accumulate(flag).record(b);
            }
        }
        for bias in [&self.weights.b_ih, &self.weights.b_hh] {
            if let Some(flag) = b.weight_target(bias) {
                let out = (Backward::GRADIENTS, bias.offset, b.parameter_stride());
                sum_columns(b, dgates, [rows, width], out, flag);
            }
        }
    }
}
