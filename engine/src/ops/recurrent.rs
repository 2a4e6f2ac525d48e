//! What recurrent layers share: how they stand on each other, their sizes, and the products around the
//! recurrence.

use tern_shaders::kernels::matmul::Order;

use super::matmul::{Gemm, Matrix};
use super::reduce::sum_columns;
use crate::{Backward, Error, Graph, Param, Result, Tensor};

/// Parameters of a layer in PyTorch's order: `weight_ih` `[G·H, I]`, `weight_hh` `[G·H, H]`, `bias_ih`
/// and `bias_hh` `[G·H]`.
pub(super) type Weights<'a> = [&'a Param; 4];

/// Layers on each other.
pub(super) struct Stack {
    pub op: &'static str,
    /// Entries of the weights: a layer each, or a layer's two directions.
    pub weights: usize,
    /// Entries of the initial states, if there are any.
    pub initial: Option<usize>,
    pub bidirectional: bool,
    /// Probability that an output is dropped on its way to the next layer.
    pub dropout: f32,
}

impl Stack {
    /// Records the layers over `x [T, B, I]`, each by `layer`, which is given the number of its weights and
    /// its input, and gives its outputs. A backward direction is a layer whose input is reversed in time,
    /// and its outputs turned back; they stand after the forward ones, `[T, B, 2·H]`.
    pub fn record(
        &self,
        graph: &mut Graph,
        x: Tensor,
        mut layer: impl FnMut(&mut Graph, usize, Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let &Stack { op, weights, initial, bidirectional, dropout } = self;
        let directions = if bidirectional { 2 } else { 1 };
        let layers = weights / directions;
        if !weights.is_multiple_of(directions) {
            let what = format!("{weights} weights, expected two directions of each layer");
            return Err(Error::shape(op, what));
        }
        if layers == 0 {
            return Err(Error::value(format!("layers of {op}"), 0, "at least 1"));
        }
        if let Some(states) = initial.filter(|states| *states != weights) {
            let of = if bidirectional { "directions of layers" } else { "layers" };
            return Err(Error::shape(op, format!("{states} initial states for {weights} {of}")));
        }
        let mut y = x;
        for i in 0..layers {
            if i > 0 && dropout != 0.0 {
                y = graph.dropout(y, dropout)?;
            }
            if !bidirectional {
                y = graph.scoped(&format!("l{i}"), |graph| layer(graph, i, y))?;
                continue;
            }
            let ahead = graph.scoped(&format!("l{i}"), |graph| layer(graph, 2 * i, y))?;
            let back = graph.scoped(&format!("l{i}_reverse"), |graph| {
                let reversed = graph.flip(y, 0)?;
                let back = layer(graph, 2 * i + 1, reversed)?;
                graph.flip(back, 0)
            })?;
            y = graph.concat(&[ahead, back], 2)?;
        }
        Ok(y)
    }
}

/// Sizes of a layer over `x [T, B, I]`.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub steps: usize,
    pub batch: usize,
    pub hidden: usize,
    /// Floats of a row that the recurrent product reads: H, or P of a projected layer.
    pub state: usize,
    inputs: usize,
    gates: usize,
}

impl Sizes {
    /// Checks that input and weights go together; those of a projection are `[P, H]`.
    pub fn of(
        graph: &Graph,
        op: &'static str,
        x: Tensor,
        (weights, gates): (Weights<'_>, usize),
        projection: Option<&Param>,
    ) -> Result<Self> {
        graph.check_floats(op, x)?;
        let wrong = |what: String| Err(Error::shape(op, what));
        let &[steps, batch, inputs] = graph.shape(x) else {
            return wrong(format!("input {:?}, expected [T, B, I]", graph.shape(x)));
        };
        let state = weights[1].shape.last().copied().unwrap_or(0);
        let hidden = match projection {
            Some(_) => weights[1].shape.first().copied().unwrap_or(0) / gates,
            None => state,
        };
        let rows = gates * hidden;
        let expected = [&[rows, inputs][..], &[rows, state], &[rows], &[rows], &[state, hidden]];
        for (param, expected) in weights.into_iter().chain(projection).zip(expected) {
            if param.shape != expected || hidden == 0 || state == 0 {
                let (name, shape, x) = (&param.name, &param.shape, graph.shape(x));
                return wrong(format!(
                    "{name} {shape:?}, expected {expected:?} for input {x:?} and {gates} gates"
                ));
            }
        }
        Ok(Sizes { steps, batch, hidden, state, inputs, gates })
    }

    /// Checks that a state before the first step is `[B, width]`.
    pub fn check_state(
        &self,
        graph: &Graph,
        op: &'static str,
        state: Tensor,
        width: usize,
    ) -> Result<()> {
        graph.check_floats(op, state)?;
        let (shape, expected) = (graph.shape(state), [self.batch, width]);
        if shape != expected {
            return Err(Error::shape(
                op,
                format!("initial state {shape:?}, expected {expected:?}"),
            ));
        }
        Ok(())
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
        weights: Weights<'_>,
        (x, hs): (Tensor, Tensor),
        upstream: [Tensor; 2],
    ) {
        self.around_backward(b, weights, x, upstream);
        self.weight_backward(b, weights[1], hs, upstream[1]);
    }

    /// The gradient of a weight whose product with each row of `input` has the gradient `d`.
    fn weight_backward(&self, b: &mut Backward<'_>, param: &Param, input: Tensor, d: Tensor) {
        if let Some(flag) = b.weight_target(param) {
            let (d, input) = (Matrix::tensor(b, d), Matrix::tensor(b, input));
            let to = Matrix::gradient(b, param);
            let size = [self.width(), param.shape[1], self.rows()];
            Gemm::new(Order::Tn, size, d, input, to).accumulate(flag).record(b);
        }
    }

    /// [`products_backward`](Self::products_backward) without the recurrent weights.
    pub fn around_backward(
        &self,
        b: &mut Backward<'_>,
        [w_ih, _, b_ih, b_hh]: Weights<'_>,
        x: Tensor,
        [of_input, of_state]: [Tensor; 2],
    ) {
        let (rows, width) = (self.rows(), self.width());
        if let Some((dx, flag)) = b.target(x) {
            let (d, w) = (Matrix::tensor(b, of_input), Matrix::weight(b, w_ih));
            let (to, size) = (Matrix::tensor(b, dx), [rows, self.inputs, width]);
            Gemm::new(Order::Nn, size, d, w, to).accumulate(flag).record(b);
        }
        self.weight_backward(b, w_ih, x, of_input);
        for (bias, d) in [(b_ih, of_input), (b_hh, of_state)] {
            if let Some(flag) = b.weight_target(bias) {
                let out = (Backward::GRADIENTS, bias.offset, b.parameter_stride());
                sum_columns(b, d, [rows, width], out, flag);
            }
        }
    }
}
