//! Recording matrix products: what `matmul`, `linear` and the layers build on.

use tern_shaders::kernels::half::{self, Format};
use tern_shaders::kernels::matmul::{self, MAX_LOOP, Order};
use tern_shaders::{Activation, Element, Kernel, MAX_GROUPS};

use super::reduce::sum_columns;
use crate::graph::Storage;
use crate::{Backward, Flat, Graph, Kind, Operand, Param, Tensor};

/// A matrix (or a vector, a bias) somewhere in an operand. All numbers are words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix {
    operand: Operand,
    /// First word within a replica.
    offset: usize,
    /// From replica to replica; 0 if they share it.
    stride: usize,
    /// From row to row.
    row: usize,
}

impl Matrix {
    /// A whole tensor as rows of its last dimension.
    pub fn tensor(graph: &Graph, tensor: Tensor) -> Self {
        let shared = matches!(graph.info(tensor).storage, Storage::Shared(_));
        Matrix {
            operand: tensor.into(),
            offset: 0,
            stride: if shared { 0 } else { graph.len(tensor) },
            row: graph.shape(tensor).last().copied().unwrap_or(1),
        }
    }

    /// Each of the matrices that the last two axes of a tensor are.
    pub fn items(graph: &Graph, tensor: Tensor) -> Self {
        let of_one = graph.shape(tensor).iter().rev().take(2).product();
        Matrix { stride: of_one, ..Self::tensor(graph, tensor) }
    }

    /// A parameter as rows of its last dimension.
    pub fn weight(graph: &Graph, param: &Param) -> Self {
        Matrix {
            operand: Operand::Flat(Flat::Parameters),
            offset: param.offset,
            stride: graph.parameter_stride(),
            row: param.shape.last().copied().unwrap_or(1),
        }
    }

    /// A parameter's gradient, laid out like the parameter.
    pub fn gradient(graph: &Graph, param: &Param) -> Self {
        Matrix { operand: Backward::GRADIENTS, ..Self::weight(graph, param) }
    }

    /// The same with rows of so many words.
    pub fn rows(self, row: usize) -> Self {
        Matrix { row, ..self }
    }

    /// Records a tensor of its dense rows in 16 bits, `[rows, columns / 2]` words.
    pub fn packed(
        self,
        graph: &mut Graph,
        format: Format,
        label: &str,
        [rows, columns]: [usize; 2],
    ) -> Tensor {
        let words = graph.tensor(label, &[rows, columns / 2], Element::U32);
        let params = half::Pack {
            n: (rows * columns) as u32,
            offset: self.offset as u32,
            stride: self.stride as u32,
            format: format as u32,
        };
        graph.dispatch(&half::PACK, &params, &[self.operand, words.into()]);
        words
    }

    /// Begins `words` later: at another row, column or time step.
    pub fn skip(self, words: usize) -> Self {
        Matrix { offset: self.offset + words, ..self }
    }
}

/// Rows and columns of C that a dispatch computes at most: a grid has 65,535 workgroups a side, and
/// the smallest tiles of the variants have 4 rows and 32 columns.
const MAX_ROWS: usize = 4 * MAX_GROUPS as usize;
const MAX_COLUMNS: usize = 32 * MAX_GROUPS as usize;

/// C = act(op(A)·op(B) + bias [+ C]) to be recorded. Sizes are those of the product: C is
/// m × n, and k is summed over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gemm {
    order: Order,
    size: [usize; 3],
    a: Matrix,
    b: Matrix,
    c: Matrix,
    bias: Option<Matrix>,
    activation: Activation,
    accumulate: bool,
    /// Products side by side, of the [items](Matrix::items) of tensors.
    items: usize,
    /// What A and B are, where they are packed numbers of 16 bits.
    format: Option<Format>,
}

impl Gemm {
    /// C = op(A)·op(B) with `size` = [m, n, k].
    pub fn new(order: Order, size: [usize; 3], a: Matrix, b: Matrix, c: Matrix) -> Self {
        let (bias, activation, accumulate) = (None, Activation::Identity, false);
        Gemm { order, size, a, b, c, bias, activation, accumulate, items: 1, format: None }
    }

    /// C = A·Bᵀ of packed numbers: `a [m, k / 2]` and `b [n, k / 2]` are words of two, k is a multiple of
    /// four.
    pub fn packed(
        format: Format,
        graph: &Graph,
        size: [usize; 3],
        [a, b]: [Tensor; 2],
        c: Matrix,
    ) -> Self {
        let [_, _, k] = size;
        // Offsets and rows of A and B count numbers.
        let numbers =
            |t: Tensor| Matrix { operand: t.into(), offset: 0, stride: 2 * graph.len(t), row: k };
        Gemm { format: Some(format), ..Gemm::new(Order::Nt, size, numbers(a), numbers(b), c) }
    }

    /// Of so many matrices each.
    pub fn items(self, items: usize) -> Self {
        Gemm { items, ..self }
    }

    /// Adds a bias `[n]` to every row.
    pub fn bias(self, bias: Option<Matrix>) -> Self {
        Gemm { bias, ..self }
    }

    /// Applies an activation last.
    pub fn activation(self, activation: Activation) -> Self {
        Gemm { activation, ..self }
    }

    /// Adds what C holds if the flag is 1.
    pub fn accumulate(self, flag: u32) -> Self {
        Gemm { accumulate: flag != 0, ..self }
    }

    /// Parts of K whose products are computed side by side and then summed. Where C is small
    /// and K long, its tiles alone would leave most of a GPU idle. A function of the shape, so
    /// that a replica's numbers don't depend on how many others there are.
    fn splits(&self, graph: &Graph) -> usize {
        let [m, n, k] = self.size;
        let plain =
            self.bias.is_none() && self.activation == Activation::Identity && self.items == 1;
        let small = m * n <= 1 << 16 && k >= 1 << 12 && self.c.row == n;
        let parallel = !matches!(graph.profile().kind, Kind::Cpu);
        let enough = k.div_ceil(MAX_LOOP as usize);
        if !(plain && small && parallel) {
            return 1;
        }
        // Parts lie side by side in a grid.
        (k >> 10).clamp(2, 64).min(MAX_COLUMNS / n).max(1).max(enough)
    }

    /// The product in as many strips of rows and of columns as a grid needs.
    fn strips(self) -> impl Iterator<Item = Gemm> {
        let [m, n, k] = self.size;
        let starts = move || {
            let rows = (0..m).step_by(MAX_ROWS);
            rows.flat_map(move |row| (0..n).step_by(MAX_COLUMNS).map(move |column| (row, column)))
        };
        starts().map(move |(row, column)| Gemm {
            size: [MAX_ROWS.min(m - row), MAX_COLUMNS.min(n - column), k],
            a: self.a.skip(row * if self.order == Order::Tn { 1 } else { self.a.row }),
            b: self.b.skip(column * if self.order == Order::Nt { self.b.row } else { 1 }),
            c: self.c.skip(row * self.c.row + column),
            bias: self.bias.map(|bias| bias.skip(column)),
            ..self
        })
    }

    /// Records the product.
    pub fn record(self, graph: &mut Graph) {
        for strip in self.strips() {
            strip.record_strip(graph);
        }
    }

    fn record_strip(self, graph: &mut Graph) {
        let [m, n, _] = self.size;
        let splits = self.splits(graph);
        if splits > 1 {
            let parts = graph.tensor("parts of a product", &[splits, m, n], Element::F32);
            let c = Matrix::tensor(graph, parts);
            Gemm { c, accumulate: false, ..self }.pieces(graph, splits);
            let flag = u32::from(self.accumulate);
            let Matrix { operand, offset, stride, .. } = self.c;
            sum_columns(graph, parts, [splits, m * n], (operand, offset, stride), flag);
            return;
        }
        self.pieces(graph, 1);
    }

    /// The parameters of the product in one call.
    fn params(&self) -> matmul::Gemm {
        let (Gemm { a, b, c, bias, .. }, [m, n, k]) = (self, self.size.map(|n| n as u32));
        matmul::Gemm {
            m,
            n,
            k,
            a_offset: a.offset as u32,
            a_stride: a.stride as u32,
            a_row: a.row as u32,
            b_offset: b.offset as u32,
            b_stride: b.stride as u32,
            b_row: b.row as u32,
            c_offset: c.offset as u32,
            c_stride: c.stride as u32,
            c_row: c.row as u32,
            bias_offset: bias.map_or(0, |x| x.offset as u32),
            bias_stride: bias.map_or(0, |x| x.stride as u32),
            has_bias: u32::from(bias.is_some()),
            activation: self.activation as u32,
            accumulate: u32::from(self.accumulate),
            splits: 1,
        }
    }

    /// Records one call for each stretch of K that an invocation can sum; each adds to the one
    /// before, the last one activates.
    fn pieces(self, graph: &mut Graph, splits: usize) {
        let k = self.size[2];
        let longest = if splits > 1 { k } else { MAX_LOOP as usize };
        for first in (0..k).step_by(longest) {
            let length = longest.min(k - first);
            let (down_a, down_b) = (self.order == Order::Tn, self.order != Order::Nt);
            let a = self.a.skip(first * if down_a { self.a.row } else { 1 });
            let b = self.b.skip(first * if down_b { self.b.row } else { 1 });
            let bias = self.bias.filter(|_| first == 0);
            let last = first + length == k;
            let params = matmul::Gemm {
                k: length as u32,
                has_bias: u32::from(bias.is_some()),
                activation: if last { self.activation as u32 } else { 0 },
                accumulate: u32::from(self.accumulate || first > 0),
                splits: splits as u32,
                ..Gemm { a, b, bias, ..self }.params()
            };
            // Without a bias its binding still needs a buffer of floats that isn't written.
            let unread = match self.format {
                None => a.operand,
                Some(_) => Operand::Flat(Flat::Parameters),
            };
            let bias = bias.map_or(unread, |x| x.operand);
            let args = [a.operand, b.operand, bias, self.c.operand];
            graph.dispatch_items(self.kernel(), &params, &args, self.items);
        }
    }

    fn kernel(&self) -> &'static Kernel<matmul::Gemm> {
        match self.format {
            None => self.order.kernel(),
            Some(Format::Half) => &half::NT,
            Some(Format::Bf16) => &half::NT_BF16,
        }
    }
}
