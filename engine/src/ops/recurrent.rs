//! What recurrent layers share: their sizes, and the products around the recurrence.

use tern_shaders::kernels::matmul::Order;

use super::matmul::{Gemm, Matrix};
use super::reduce::sum_columns;
use crate::{Backward, Error, Graph, Param, Result, Tensor};

/// Parameters of a layer in PyTorch's order: `weight_ih` `[G·H, I]`, `weight_hh` `[G·H, H]`, `bias_ih`
/// and `bias_hh` `[G·H]`.
pub(super) type Weights<'a> = [&'a Param; 4];

/// Sizes of a layer over `x [T, B, I]`.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub steps: usize,
    pub batch: usize,
    pub hidden: usize,
    inputs: usize,
    gates: usize,
}

impl Sizes {
    /// Checks that input, weights and initial states `[B, H]` go together.
    pub fn of(
        graph: &Graph,
        op: &'static str,
        x: Tensor,
        (weights, gates): (Weights<'_>, usize),
        initial: impl IntoIterator<Item = Tensor>,
    ) -> Result<Self> {
        graph.check_floats(op, x)?;
        let wrong = |what: String| Err(Error::shape(op, what));
        let &[steps, batch, inputs] = graph.shape(x) else {
            return wrong(format!("input {:?}, expected [T, B, I]", graph.shape(x)));
        };
        let hidden = weights[1].shape.last().copied().unwrap_or(0);
        let rows = gates * hidden;
        let expected = [&[rows, inputs][..], &[rows, hidden], &[rows], &[rows]];
        for (param, expected) in weights.into_iter().zip(expected) {
            if param.shape != expected || hidden == 0 {
                let (name, shape, x) = (&param.name, &param.shape, graph.shape(x));
                return wrong(format!(
                    "{name} {shape:?}, expected {expected:?} for input {x:?} and {gates} gates"
                ));
            }
        }
        for state in initial {
            graph.check_floats(op, state)?;
            if graph.shape(state) != [batch, hidden] {
                let shape = graph.shape(state);
                return wrong(format!("initial state {shape:?}, expected {:?}", [batch, hidden]));
            }
        }
        Ok(Sizes { steps, batch, hidden, inputs, gates })
    }

    /// Elements of a row of gates.
    pub fn width(&self) -> usize {
        self.gates * self.hidden
    }

    /// Rows of all steps.
    fn rows(&self) -> usize {
        self.steps * self.batch
    }

    /// gates = x·W_ihᵀ + b_ih, of all steps at once.
    pub fn input_product(
        &self,
        graph: &mut Graph,
        [w_ih, _, b_ih, _]: Weights<'_>,
        x: Tensor,
        gates: Tensor,
    ) {
        let [x, gates] = [x, gates].map(|t| Matrix::tensor(graph, t));
        let size = [self.rows(), self.width(), self.inputs];
        Gemm::new(Order::Nt, size, x, Matrix::weight(graph, w_ih), gates)
            .bias(Some(Matrix::weight(graph, b_ih)))
            .record(graph);
    }

    /// Gradients through the two products: dx, both weights, both biases. `upstream` are the gradients
    /// of the input's product and of the recurrent one; what each step started from are the first T
    /// slots of `hs`.
    pub fn products_backward(
        &self,
        b: &mut Backward<'_>,
        [w_ih, w_hh, b_ih, b_hh]: Weights<'_>,
        (x, hs): (Tensor, Tensor),
        upstream: [Tensor; 2],
    ) {
        let (rows, width) = (self.rows(), self.width());
        let [of_input, of_state] = upstream;
        if let Some((dx, flag)) = b.target(x) {
            let (d, w) = (Matrix::tensor(b, of_input), Matrix::weight(b, w_ih));
            let (to, size) = (Matrix::tensor(b, dx), [rows, self.inputs, width]);
            Gemm::new(Order::Nn, size, d, w, to).accumulate(flag).record(b);
        }
        for (param, d, input) in [(w_ih, of_input, x), (w_hh, of_state, hs)] {
            if let Some(flag) = b.weight_target(param) {
                let (d, input) = (Matrix::tensor(b, d), Matrix::tensor(b, input));
                let (to, size) = (Matrix::gradient(b, param), [width, param.shape[1], rows]);
                Gemm::new(Order::Tn, size, d, input, to).accumulate(flag).record(b);
            }
        }
        for (bias, d) in [(b_ih, of_input), (b_hh, of_state)] {
            if let Some(flag) = b.weight_target(bias) {
                let out = (Backward::GRADIENTS, bias.offset, b.parameter_stride());
                sum_columns(b, d, [rows, width], out, flag);
            }
        }
    }
}
