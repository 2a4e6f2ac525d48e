//! Layers whose outputs are projected (Sak et al. 2014; `proj_size` of `torch.nn.LSTM`).
//!
//! What a step puts out, W_hr·h, the next one multiplies by W_hh. Of the two products one is made:
//! steps multiply h by W_hh·W_hr, which is computed once a call, and are those of a layer without a
//! projection. All outputs are then projected in one product, outside of the recurrence. Only the output
//! before the first step, which is given, has no h, and meets W_hh alone.
//!
//! The product takes as much memory as the recurrent weights of the layer without a projection, and a step
//! as many operations: what a projection saves are parameters, and the next layer's products.

use tern_shaders::Element;
use tern_shaders::kernels::matmul::Order;
use tern_shaders::kernels::pointwise::{COPY, Copy, FILL, Fill, SCALE, Scale};

use super::LstmWeights;
use crate::ops::matmul::{Gemm, Matrix};
use crate::ops::recurrent::Sizes;
use crate::{Backward, Flat, Graph, Operand, Param, Tensor};

/// The projection of a layer.
#[derive(Clone)]
pub(super) struct Projection {
    sizes: Sizes,
    w_hr: Param,
    /// The output before the first step, `[B, P]`, and what it was: the graph may write the next one
    /// there before the backward pass.
    initial: Option<[Tensor; 2]>,
    /// W_hh·W_hr `[G·H, H]`, and after it b_hh `[G·H]`: what the kernels read.
    recurrent: Tensor,
}

impl Projection {
    pub fn new(graph: &mut Graph, sizes: Sizes, w_hr: &Param, initial: Option<Tensor>) -> Self {
        // Rows of H words: the product, then the biases of G gates.
        let shape = [sizes.width() + sizes.width() / sizes.hidden, sizes.hidden];
        let recurrent = graph.tensor("recurrent weights", &shape, Element::F32);
        let initial = initial.map(|given| {
            let shape = [sizes.batch, sizes.state];
            [given, graph.tensor("initial output", &shape, Element::F32)]
        });
        Projection { sizes, w_hr: w_hr.clone(), initial, recurrent }
    }

    /// Words of the product of the two matrices, after which the biases come.
    fn product(&self) -> usize {
        self.sizes.width() * self.sizes.hidden
    }

    /// Words of a replica of what the kernels read.
    fn stride(&self) -> usize {
        self.product() + self.sizes.width()
    }

    /// Where the kernels read: the operand, where the matrix and the biases begin, and from replica to
    /// replica.
    pub fn recurrent(&self) -> (Operand, [u32; 2], u32) {
        (self.recurrent.into(), [0, self.product() as u32], self.stride() as u32)
    }

    /// Makes what the steps multiply by, and adds to the first step's gates what the output before it
    /// gives.
    pub fn forward(&self, graph: &mut Graph, weights: &LstmWeights, gates: Tensor) {
        let Sizes { batch, hidden, state, .. } = self.sizes;
        let width = self.sizes.width();
        let [w_hh, w_hr] = [&weights.w_hh, &self.w_hr].map(|param| Matrix::weight(graph, param));
        if self.sizes.steps > 1 {
            let product = Matrix::tensor(graph, self.recurrent);
            Gemm::new(Order::Nn, [width, hidden, state], w_hh, w_hr, product).record(graph);
        } else {
            // The only step multiplies zeros by it.
            let stride = self.stride() as u32;
            let params = Fill { n: self.product() as u32, offset: 0, stride, value: 0.0 };
            graph.dispatch(&FILL, &params, &[self.recurrent.into()]);
        }
        let biases = Copy {
            rows: 1,
            width: width as u32,
            x_row: width as u32,
            x_offset: weights.b_hh.offset as u32,
            x_stride: graph.parameter_stride() as u32,
            y_row: width as u32,
            y_offset: self.product() as u32,
            y_stride: self.stride() as u32,
            accumulate: 0,
        };
        let args = [Operand::Flat(Flat::Parameters), self.recurrent.into()];
        graph.dispatch(&COPY, &biases, &args);
        if let Some([given, kept]) = self.initial {
            let params = Scale { n: graph.len(given) as u32, factor: 1.0, accumulate: 0 };
            graph.dispatch(&SCALE, &params, &[given.into(), kept.into()]);
            let [initial, first] = [kept, gates].map(|t| Matrix::tensor(graph, t));
            let size = [batch, width, state];
            Gemm::new(Order::Nt, size, initial, w_hh, first).accumulate(1).record(graph);
        }
    }

    /// Gradients of the two matrices and of the output before the first step. What each step started
    /// from are the first T slots of `hs`; the projection of the outputs is not of this layer.
    pub fn backward(
        &self,
        b: &mut Backward<'_>,
        weights: &LstmWeights,
        hs: Tensor,
        dgates: Tensor,
    ) {
        let Sizes { steps, batch, hidden, state, .. } = self.sizes;
        let (width, w_hh) = (self.sizes.width(), &weights.w_hh);
        let [to_hh, to_hr] = [w_hh, &self.w_hr].map(|param| b.weight_target(param));
        let d = Matrix::tensor(b, dgates);
        if to_hh.is_some() || to_hr.is_some() {
            let product = b.tensor("d recurrent weights", &[width, hidden], Element::F32);
            let [product, hs] = [product, hs].map(|t| Matrix::tensor(b, t));
            Gemm::new(Order::Tn, [width, hidden, steps * batch], d, hs, product).record(b);
            if let Some(flag) = to_hh {
                let (w, to) = (Matrix::weight(b, &self.w_hr), Matrix::gradient(b, w_hh));
                let size = [width, state, hidden];
                Gemm::new(Order::Nt, size, product, w, to).accumulate(flag).record(b);
            }
            if let Some(flag) = to_hr {
                let (w, to) = (Matrix::weight(b, w_hh), Matrix::gradient(b, &self.w_hr));
                let size = [state, hidden, width];
                Gemm::new(Order::Tn, size, w, product, to).accumulate(flag).record(b);
            }
        }
        let Some([given, kept]) = self.initial else { return };
        if to_hh.is_some() {
            let (h, to) = (Matrix::tensor(b, kept), Matrix::gradient(b, w_hh));
            Gemm::new(Order::Tn, [width, state, batch], d, h, to).accumulate(1).record(b);
        }
        if let Some((to, flag)) = b.target(given) {
            let (w, to) = (Matrix::weight(b, w_hh), Matrix::tensor(b, to));
            Gemm::new(Order::Nn, [batch, state, width], d, w, to).accumulate(flag).record(b);
        }
    }
}
