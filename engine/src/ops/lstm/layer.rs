//! One layer: its shapes, its forward calls and its backward calls.

use tern_shaders::Element;
use tern_shaders::kernels::lstm::{
    Backward as BackwardParams, Forward, SEQUENCE_BACKWARD, SEQUENCE_FORWARD, STATE_BACKWARD,
    STATE_LOAD, STATE_STORE, STEP_BACKWARD, STEP_FORWARD, State, StateBackward, gate_count,
};
use tern_shaders::kernels::matmul::Order;

use super::LstmWeights;
use crate::ops::matmul::{Gemm, Matrix};
use crate::ops::reduce::sum_columns;
use crate::{Backward, Error, Flat, Graph, Operand, Result, Tensor};

/// One layer's sizes and tensors, as its backward pass needs them.
#[derive(Clone)]
pub(super) struct Layer {
    pub weights: LstmWeights,
    steps: usize,
    batch: usize,
    hidden: usize,
    inputs: usize,
    cifg: bool,
    /// Whether one dispatch walks the sequence.
    whole: bool,
    pub x: Tensor,
    initial: Option<(Tensor, Tensor)>,
    /// Sums of the input products at first, then the activated gates.
    gates: Tensor,
    hs: Tensor,
    cs: Tensor,
    pub y: Tensor,
    pub h: Tensor,
    pub c: Tensor,
}

impl Layer {
    /// Checks the shapes and makes the tensors.
    pub fn new(
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
        layer.whole = whole && graph.computes(&SEQUENCE_FORWARD, &layer.forward_params(graph));
        Ok(layer)
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

    pub fn forward(&self, graph: &mut Graph) {
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

    pub fn backward(&self, b: &mut Backward<'_>) {
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
        if self.whole && b.computes(&SEQUENCE_BACKWARD, &params) {
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
