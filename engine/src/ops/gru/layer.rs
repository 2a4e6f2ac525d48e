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
use crate::ops::recurrent::Sizes;
use crate::{Backward, Flat, Graph, Operand, Result, Tensor};

/// One layer's sizes and tensors, as its backward pass needs them.
#[derive(Clone)]
pub(super) struct Layer {
    pub weights: GruWeights,
    sizes: Sizes,
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
        let sizes = Sizes::of(graph, "gru", x, (weights.all(), GATES), None)?;
        let Sizes { steps, batch, hidden, .. } = sizes;
        initial.map_or(Ok(()), |h| sizes.check_state(graph, "gru", h, hidden))?;
        let mut make = |label: &str, shape: &[usize]| graph.tensor(label, shape, Element::F32);
        let mut layer = Layer {
            weights: weights.clone(),
            sizes,
            whole,
            x,
            initial,
            gates: make("gates", &[steps, batch, sizes.width()]),
            recurrent: make("recurrent part", &[steps, batch, hidden]),
            hs: make("hidden states", &[steps + 1, batch, hidden]),
            y: make("outputs", &[steps, batch, hidden]),
            h: make("last hidden state", &[batch, hidden]),
        };
        layer.whole = whole && graph.computes(&SEQUENCE_FORWARD, &layer.forward_params(graph));
        Ok(layer)
    }

    /// Elements of a state.
    fn state(&self) -> u32 {
        (self.sizes.batch * self.sizes.hidden) as u32
    }

    fn forward_params(&self, graph: &Graph) -> Forward {
        Forward {
            t: 0,
            steps: self.sizes.steps as u32,
            batch: self.sizes.batch as u32,
            hidden: self.sizes.hidden as u32,
            w_offset: self.weights.w_hh.offset as u32,
            b_offset: self.weights.b_hh.offset as u32,
            stride: graph.parameter_stride() as u32,
        }
    }

    /// A copy of a state between a tensor of its own and the slot of a number.
    fn slot(&self, number: usize, out: bool) -> Copy {
        let (n, all) = (self.state(), (self.sizes.steps as u32 + 1) * self.state());
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
        self.sizes.input_product(graph, self.weights.all(), self.x, self.gates);
        match self.initial {
            Some(h) => graph.dispatch(&COPY, &self.slot(0, false), &[h.into(), self.hs.into()]),
            None => {
                let (n, stride) = (self.state(), (self.sizes.steps as u32 + 1) * self.state());
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
        graph.dispatch(&COPY, &self.slot(self.sizes.steps, true), &[self.hs.into(), self.h.into()]);
    }

    pub fn backward(&self, b: &mut Backward<'_>) {
        let (dy, dh) = (b.gradient(self.y), b.gradient(self.h));
        let gates = [self.sizes.steps, self.sizes.batch, self.sizes.width()];
        let dgates = b.tensor("d gates", &gates, Element::F32);
        let drecurrent = b.tensor("d recurrent parts", &gates, Element::F32);
        let carried =
            b.tensor("d hidden state", &[self.sizes.batch, self.sizes.hidden], Element::F32);
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
            steps: self.sizes.steps as u32,
            batch: self.sizes.batch as u32,
            hidden: self.sizes.hidden as u32,
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
            let (to, size) =
                (Matrix::tensor(b, to), [self.sizes.batch, self.sizes.hidden, self.sizes.width()]);
            Gemm::new(Order::Nn, size, d, w, to).accumulate(1).record(b);
        }
        let upstream = [dgates, drecurrent];
        self.sizes.products_backward(b, self.weights.all(), (self.x, self.hs), upstream);
    }
}
