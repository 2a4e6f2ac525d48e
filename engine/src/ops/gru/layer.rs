//! One layer: its shapes, its forward calls and its backward calls.

use tern_shaders::Element;
use tern_shaders::kernels::gru::{
    Backward as BackwardParams, Forward, GATES, SEQUENCE_BACKWARD, SEQUENCE_FORWARD, STEP_BACKWARD,
    STEP_FORWARD,
};
use tern_shaders::kernels::matmul::Order;
use tern_shaders::kernels::pointwise::{COPY, Copy, FILL, Fill, SCALE, Scale};

use super::GruWeights;
use crate::ops::matmul::{Gemm, Matrix};
use crate::ops::reduce::sum_columns;
use crate::{Backward, Error, Flat, Graph, Operand, Param, Result, Tensor};

/// One layer's sizes and tensors, as its backward pass needs them.
#[derive(Clone)]
pub(super) struct Layer {
    pub weights: GruWeights,
    steps: usize,
    batch: usize,
    hidden: usize,
    inputs: usize,
    /// Whether one dispatch walks the sequence.
    whole: bool,
    pub x: Tensor,
    initial: Option<Tensor>,
    /// Sums of the input products at first, then the activated gates.
    gates: Tensor,
    /// The new gate's recurrent part.
    recurrent: Tensor,
    hs: Tensor,
    pub y: Tensor,
    pub h: Tensor,
}

impl Layer {
    /// Checks the shapes and makes the tensors.
    pub fn new(
        graph: &mut Graph,
        x: Tensor,
        weights: &GruWeights,
        initial: Option<Tensor>,
        whole: bool,
    ) -> Result<Self> {
        graph.check_floats("gru", x)?;
        let wrong = |what: String| Err(Error::shape("gru", what));
        let &[steps, batch, inputs] = graph.shape(x) else {
            return wrong(format!("input {:?}, expected [T, B, I]", graph.shape(x)));
        };
        let hidden = weights.w_hh.shape.last().copied().unwrap_or(0);
        let rows = GATES * hidden;
        for (param, expected) in [
            (&weights.w_ih, &[rows, inputs][..]),
            (&weights.w_hh, &[rows, hidden]),
            (&weights.b_ih, &[rows]),
            (&weights.b_hh, &[rows]),
        ] {
            if param.shape != expected || hidden == 0 {
                let (name, shape, x) = (&param.name, &param.shape, graph.shape(x));
                return wrong(format!("{name} {shape:?}, expected {expected:?} for input {x:?}"));
            }
        }
        if let Some(state) = initial {
            graph.check_floats("gru", state)?;
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
            whole,
            x,
            initial,
            gates: make("gates", &[steps, batch, rows]),
            recurrent: make("recurrent part", &[steps, batch, hidden]),
            hs: make("hidden states", &[steps + 1, batch, hidden]),
            y: make("outputs", &[steps, batch, hidden]),
            h: make("last hidden state", &[batch, hidden]),
        };
        layer.whole = whole && graph.computes(&SEQUENCE_FORWARD, &layer.forward_params(graph));
        Ok(layer)
    }

    /// Elements of a row of gates.
    fn width(&self) -> usize {
        GATES * self.hidden
    }

    /// Elements of a state.
    fn state(&self) -> u32 {
        (self.batch * self.hidden) as u32
    }

    fn forward_params(&self, graph: &Graph) -> Forward {
        Forward {
            t: 0,
            steps: self.steps as u32,
            batch: self.batch as u32,
            hidden: self.hidden as u32,
            w_offset: self.weights.w_hh.offset as u32,
            b_offset: self.weights.b_hh.offset as u32,
            stride: graph.parameter_stride() as u32,
        }
    }

    /// A copy of a state between a tensor of its own and the slot of a number.
    fn slot(&self, number: usize, out: bool) -> Copy {
        let (n, all) = (self.state(), (self.steps as u32 + 1) * self.state());
        let offset = number as u32 * n;
        let (of_one, of_all) = ((0, n), (offset, all));
        let ((x_offset, x_stride), (y_offset, y_stride)) =
            if out { (of_all, of_one) } else { (of_one, of_all) };
        Copy {
            rows: 1,
            width: n,
            x_row: n,
            x_offset,
            x_stride,
            y_row: n,
            y_offset,
            y_stride,
            accumulate: 0,
        }
    }

    pub fn forward(&self, graph: &mut Graph) {
        let w = &self.weights;
        let [x, gates] = [self.x, self.gates].map(|t| Matrix::tensor(graph, t));
        let size = [self.steps * self.batch, self.width(), self.inputs];
        Gemm::new(Order::Nt, size, x, Matrix::weight(graph, &w.w_ih), gates)
            .bias(Some(Matrix::weight(graph, &w.b_ih)))
            .record(graph);
        match self.initial {
            Some(h) => graph.dispatch(&COPY, &self.slot(0, false), &[h.into(), self.hs.into()]),
            None => {
                let (n, stride) = (self.state(), (self.steps as u32 + 1) * self.state());
                let params = Fill { n, offset: 0, stride, value: 0.0 };
                graph.dispatch(&FILL, &params, &[self.hs.into()]);
            }
        }
        let args = [
            Operand::Flat(Flat::Parameters),
            self.hs.into(),
            self.gates.into(),
            self.recurrent.into(),
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
        graph.dispatch(&COPY, &self.slot(self.steps, true), &[self.hs.into(), self.h.into()]);
    }

    pub fn backward(&self, b: &mut Backward<'_>) {
        let (dy, dh) = (b.gradient(self.y), b.gradient(self.h));
        let gates = [self.steps, self.batch, self.width()];
        let dgates = b.tensor("d gates", &gates, Element::F32);
        let drecurrent = b.tensor("d recurrent parts", &gates, Element::F32);
        let carried = b.tensor("d hidden state", &[self.batch, self.hidden], Element::F32);
        let n = self.state();
        match dh {
            Some(dh) => {
                let params = Scale { n, factor: 1.0, accumulate: 0 };
                b.dispatch(&SCALE, &params, &[dh.into(), carried.into()]);
            }
            None => {
                let params = Fill { n, offset: 0, stride: n, value: 0.0 };
                b.dispatch(&FILL, &params, &[carried.into()]);
            }
        }
        let params = BackwardParams {
            t: 0,
            steps: self.steps as u32,
            batch: self.batch as u32,
            hidden: self.hidden as u32,
            w_offset: self.weights.w_hh.offset as u32,
            stride: b.parameter_stride() as u32,
            has_dy: dy.is_some().into(),
        };
        let args = [
            Operand::Flat(Flat::Parameters),
            self.gates.into(),
            self.recurrent.into(),
            self.hs.into(),
            // An absent gradient is not read; its binding still needs a buffer that isn't written.
            dy.unwrap_or(self.gates).into(),
            dgates.into(),
            drecurrent.into(),
            carried.into(),
        ];
        if self.whole && b.computes(&SEQUENCE_BACKWARD, &params) {
            b.dispatch(&SEQUENCE_BACKWARD, &params, &args);
        } else {
            for t in (0..params.steps).rev() {
                b.dispatch(&STEP_BACKWARD, &BackwardParams { t, ..params }, &args);
            }
        }
        if let Some((to, accumulate)) = self.initial.and_then(|h| b.target(h)) {
            let params = Scale { n, factor: 1.0, accumulate };
            b.dispatch(&SCALE, &params, &[carried.into(), to.into()]);
            // What comes through the gates of the first step.
            let (d, w) = (Matrix::tensor(b, drecurrent), Matrix::weight(b, &self.weights.w_hh));
            let (to, size) = (Matrix::tensor(b, to), [self.batch, self.hidden, self.width()]);
            Gemm::new(Order::Nn, size, d, w, to).accumulate(1).record(b);
        }
        self.products_backward(b, [dgates, drecurrent]);
    }

    /// Gradients through the two products: dx, both weights, both biases.
    fn products_backward(&self, b: &mut Backward<'_>, [dgates, drecurrent]: [Tensor; 2]) {
        let (rows, width) = (self.steps * self.batch, self.width());
        if let Some((dx, flag)) = b.target(self.x) {
            let (d, w) = (Matrix::tensor(b, dgates), Matrix::weight(b, &self.weights.w_ih));
            let (to, size) = (Matrix::tensor(b, dx), [rows, self.inputs, width]);
            Gemm::new(Order::Nn, size, d, w, to).accumulate(flag).record(b);
        }
        let GruWeights { w_ih, w_hh, b_ih, b_hh } = &self.weights;
        // The first T slots of the hidden states are what each step started from.
        for (weight, bias, d, input) in
            [(w_ih, b_ih, dgates, self.x), (w_hh, b_hh, drecurrent, self.hs)]
        {
            self.weight_backward(b, weight, d, input);
            if let Some(flag) = b.weight_target(bias) {
                let out = (Backward::GRADIENTS, bias.offset, b.parameter_stride());
                sum_columns(b, d, [rows, width], out, flag);
            }
        }
    }

    fn weight_backward(&self, b: &mut Backward<'_>, weight: &Param, d: Tensor, input: Tensor) {
        let Some(flag) = b.weight_target(weight) else { return };
        let (d, input) = (Matrix::tensor(b, d), Matrix::tensor(b, input));
        let to = Matrix::gradient(b, weight);
        let size = [self.width(), weight.shape[1], self.steps * self.batch];
        Gemm::new(Order::Tn, size, d, input, to).accumulate(flag).record(b);
    }
}
