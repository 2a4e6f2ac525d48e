//! Matrix products: C = act(op(A)·op(B) + bias [+ C]) in three kernels, one for each pair of
//! transpositions that training needs.
//!
//! Every operand is a view into a buffer: an offset, a stride from replica to replica (0: all
//! replicas share it) and a stride from row to row, all in words.
//!
//! ```rust
//! use tern_shaders::kernels::matmul::{Gemm, nn};
//!
//! // A row of two numbers by a matrix of 2 × 2, without bias.
//! let p = Gemm {
//!     m: 1, n: 2, k: 2,
//!     a_row: 2, b_row: 2, c_row: 2,
//!     splits: 1,
//!     ..Default::default()
//! };
//! let mut c = [0.0f32; 2];
//! nn(&p, 1, &[1.0, 2.0], &[3.0, 4.0, 5.0, 6.0], &[], &mut c);
//! assert_eq!(c, [13.0, 16.0]);
//! ```

use crate::activation::{Activation, activate};
use crate::{AnyKernel, Kernel, Real, Variant, kernel, params};

/// How the operands of a product are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// C = A·B with `a [m, k]`, `b [k, n]`.
    Nn,
    /// C = A·Bᵀ with `a [m, k]`, `b [n, k]`.
    Nt,
    /// C = Aᵀ·B with `a [k, m]`, `b [k, n]`.
    Tn,
}

impl Order {
    /// The kernel that computes it.
    pub fn kernel(self) -> &'static Kernel<Gemm> {
        match self {
            Order::Nn => &NN,
            Order::Nt => &NT,
            Order::Tn => &TN,
        }
    }
}

params!(
    /// Parameters of [`NN`], [`NT`] and [`TN`]. All offsets and strides are in words.
    Gemm {
        /// Rows of C and op(A).
        m: u32,
        /// Columns of C and op(B).
        n: u32,
        /// Columns of op(A), rows of op(B); at most [`MAX_LOOP`] for each of the `splits`.
        k: u32,
        /// First word of A.
        a_offset: u32,
        /// From replica to replica of A.
        a_stride: u32,
        /// From row to row of A as it is stored.
        a_row: u32,
        /// First word of B.
        b_offset: u32,
        /// From replica to replica of B.
        b_stride: u32,
        /// From row to row of B as it is stored.
        b_row: u32,
        /// First word of C.
        c_offset: u32,
        /// From replica to replica of C.
        c_stride: u32,
        /// From row to row of C.
        c_row: u32,
        /// First word of the bias.
        bias_offset: u32,
        /// From replica to replica of the bias.
        bias_stride: u32,
        /// 1 adds `bias[n]` to every row; with 0 the binding is not read.
        has_bias: u32,
        /// [`Activation`] as a number, applied last.
        activation: u32,
        /// 1 adds what C held, before the activation.
        accumulate: u32,
        /// Parts that K is cut into, 1 as a rule. Part s writes its sum to rows from s·m on, so
        /// C is `[splits, m, n]`; their sum is the product.
        splits: u32,
    }
);

/// Longest K that one invocation sums: llvmpipe stops a loop after 65,535 iterations.
pub const MAX_LOOP: u32 = 30_720;

impl Gemm {
    /// Columns of op(A) that a part takes: a multiple of 16, which is a tile's depth.
    pub fn part(&self) -> u32 {
        self.k.div_ceil(self.splits).next_multiple_of(16)
    }
}

/// The product whichever way A and B are stored: op(A) is A or, with `trans_a`, its transpose.
fn product<F: Real>(
    (trans_a, trans_b): (bool, bool),
    p: &Gemm,
    replicas: usize,
    a: &[F],
    b: &[F],
    bias: &[F],
    c: &mut [F],
) {
    let at = |offset: u32, stride: u32, row: u32, r: usize, i: usize, j: usize| {
        offset as usize + r * stride as usize + i * row as usize + j
    };
    let (m, n, k) = (p.m as usize, p.n as usize, p.k as usize);
    for r in 0..replicas {
        for split in 0..p.splits as usize {
            let first = k.min(split * p.part() as usize);
            let end = k.min(first + p.part() as usize);
            for i in 0..m {
                for j in 0..n {
                    let mut sum = F::zero();
                    for l in first..end {
                        let (y, x) = if trans_a { (l, i) } else { (i, l) };
                        let left = a[at(p.a_offset, p.a_stride, p.a_row, r, y, x)];
                        let (y, x) = if trans_b { (j, l) } else { (l, j) };
                        sum += left * b[at(p.b_offset, p.b_stride, p.b_row, r, y, x)];
                    }
                    let to = at(p.c_offset, p.c_stride, p.c_row, r, split * m + i, j);
                    if p.accumulate != 0 {
                        sum += c[to];
                    }
                    if p.has_bias != 0 {
                        sum += bias[at(p.bias_offset, p.bias_stride, 0, r, 0, j)];
                    }
                    c[to] = activate(Activation::of(p.activation), sum);
                }
            }
        }
    }
}

/// C = act(A·B + bias [+ C]). Shapes: `a [R, m, k]`, `b [R, k, n]`, `bias [R, n]`,
/// `c [R, splits, m, n]`.
pub fn nn<F: Real>(p: &Gemm, replicas: usize, a: &[F], b: &[F], bias: &[F], c: &mut [F]) {
    product((false, false), p, replicas, a, b, bias, c);
}

/// C = act(A·Bᵀ + bias [+ C]). Shapes: `a [R, m, k]`, `b [R, n, k]`, `bias [R, n]`,
/// `c [R, splits, m, n]`.
pub fn nt<F: Real>(p: &Gemm, replicas: usize, a: &[F], b: &[F], bias: &[F], c: &mut [F]) {
    product((false, true), p, replicas, a, b, bias, c);
}

/// C = act(Aᵀ·B + bias [+ C]). Shapes: `a [R, k, m]`, `b [R, k, n]`, `bias [R, n]`,
/// `c [R, splits, m, n]`.
pub fn tn<F: Real>(p: &Gemm, replicas: usize, a: &[F], b: &[F], bias: &[F], c: &mut [F]) {
    product((true, false), p, replicas, a, b, bias, c);
}

/// Whether K is within what one invocation sums.
fn short(p: &Gemm) -> bool {
    p.part() <= MAX_LOOP
}

/// Whether `words`, the length of a stored row, and all that leads to a row are multiples of four.
fn fours(words: u32, offset: u32, stride: u32, row: u32) -> bool {
    (words | offset | stride | row).is_multiple_of(4)
}

/// Whether B can be read four words at a time.
fn aligned_b(p: &Gemm, trans_b: u32) -> bool {
    let row = if trans_b == 1 { p.k } else { p.n };
    short(p) && fours(row, p.b_offset, p.b_stride, p.b_row)
}

/// Whether A and B can be read four words at a time.
fn aligned(p: &Gemm, trans_a: u32, trans_b: u32) -> bool {
    let row = if trans_a == 1 { p.m } else { p.k };
    aligned_b(p, trans_b) && fours(row, p.a_offset, p.a_stride, p.a_row)
}

/// Iterations along K and, in each, of the loops within a tile that compilers keep.
pub(super) fn sums(p: &Gemm, _: &Variant) -> u64 {
    u64::from(p.part()) * 13 / 8
}

/// Workgroups of the register variants: invocations along N, tiles along M.
pub(super) fn register_grid(p: &Gemm, v: &Variant) -> [u32; 2] {
    let across = p.n.div_ceil(4 * v.constant("COLUMNS") * v.constant("GROUP"));
    [across * p.splits, p.m.div_ceil(4 * v.constant("ROWS"))]
}

/// Workgroups of the tiled variants: one a tile.
pub(super) fn tiled_grid(p: &Gemm, v: &Variant) -> [u32; 2] {
    let across = p.n.div_ceil(4 * v.constant("COLUMNS") * v.constant("ACROSS"));
    [across * p.splits, p.m.div_ceil(4 * v.constant("ROWS") * v.constant("DOWN"))]
}

/// Declares the three products with the same variants. Tiles are named rows × columns.
macro_rules! products {
    ($($(#[$meta:meta])* $id:ident = $name:literal, $reference:path, $ta:literal, $tb:literal;)+) => {$(
        kernel! {
            $(#[$meta])*
            $id = $name, Gemm;
            bindings: [a: read f32, b: read f32, bias: read f32, c: write f32];
            reference: $reference;
            variants: [{
                name: "tiled_16x64",
                source: "matmul/tiled.wgsl",
                preludes: [ACTIVATION, GEMM_PARAMS, MATMUL_STORE, MATMUL_A_VEC4, MATMUL_A_BLOCKS,
                           MATMUL_B_VEC4, MATMUL_B_BLOCKS],
                consts: [TRANS_A = $ta, TRANS_B = $tb, CHECK_K = 1,
                         ROWS = 1, COLUMNS = 1, ACROSS = 16, DOWN = 4],
                workgroup_memory: true,
                fits: |p| aligned(p, $ta, $tb) && p.m <= 16,
                iterations: sums,
                grid: tiled_grid,
            }, {
                name: "tiled_128x128",
                source: "matmul/tiled.wgsl",
                preludes: [ACTIVATION, GEMM_PARAMS, MATMUL_STORE, MATMUL_A_VEC4, MATMUL_A_BLOCKS,
                           MATMUL_B_VEC4, MATMUL_B_BLOCKS],
                consts: [TRANS_A = $ta, TRANS_B = $tb, CHECK_K = 1,
                         ROWS = 2, COLUMNS = 2, ACROSS = 16, DOWN = 16],
                workgroup_memory: true,
                fits: |p| aligned(p, $ta, $tb) && p.m >= 1024 && p.n >= 1024,
                iterations: sums,
                grid: tiled_grid,
            }, {
                name: "tiled_64x64",
                source: "matmul/tiled.wgsl",
                preludes: [ACTIVATION, GEMM_PARAMS, MATMUL_STORE, MATMUL_A_VEC4, MATMUL_A_BLOCKS,
                           MATMUL_B_VEC4, MATMUL_B_BLOCKS],
                consts: [TRANS_A = $ta, TRANS_B = $tb, CHECK_K = 1,
                         ROWS = 2, COLUMNS = 2, ACROSS = 8, DOWN = 8],
                workgroup_memory: true,
                fits: |p| aligned(p, $ta, $tb) && p.m >= 64 && p.n >= 64 && p.m * p.n >= 1 << 18,
                iterations: sums,
                grid: tiled_grid,
            }, {
                name: "tiled_32x32",
                source: "matmul/tiled.wgsl",
                preludes: [ACTIVATION, GEMM_PARAMS, MATMUL_STORE, MATMUL_A_VEC4, MATMUL_A_BLOCKS,
                           MATMUL_B_VEC4, MATMUL_B_BLOCKS],
                consts: [TRANS_A = $ta, TRANS_B = $tb, CHECK_K = 1,
                         ROWS = 1, COLUMNS = 1, ACROSS = 8, DOWN = 8],
                workgroup_memory: true,
                fits: |p| aligned(p, $ta, $tb),
                iterations: sums,
                grid: tiled_grid,
            }, {
                name: "tiled_32x32_words",
                source: "matmul/tiled.wgsl",
                preludes: [ACTIVATION, GEMM_PARAMS, MATMUL_STORE, MATMUL_A_SCALAR,
                           MATMUL_B_SCALAR],
                consts: [TRANS_A = $ta, TRANS_B = $tb,
                         ROWS = 1, COLUMNS = 1, ACROSS = 8, DOWN = 8],
                workgroup_memory: true,
                fits: short,
                iterations: sums,
                grid: tiled_grid,
            }, {
                name: "shuffled_32x64",
                source: "matmul/shuffled.wgsl",
                preludes: [ACTIVATION, GEMM_PARAMS, MATMUL_STORE, MATMUL_A_VEC4, MATMUL_A_ROWS,
                           MATMUL_B_VEC4, MATMUL_B_BLOCKS],
                consts: [TRANS_B = $tb, ROWS = 8, COLUMNS = 2, GROUP = 8],
                features: [SubgroupOf8],
                software: true,
                fits: |p| $ta == 0 && aligned(p, $ta, $tb) && p.m > 16 && p.n > 32,
                iterations: sums,
                grid: register_grid,
            }, {
                name: "shuffled_32x64_words_a",
                source: "matmul/shuffled.wgsl",
                preludes: [ACTIVATION, GEMM_PARAMS, MATMUL_STORE, MATMUL_A_SCALAR, MATMUL_B_VEC4,
                           MATMUL_B_BLOCKS],
                consts: [TRANS_A = $ta, TRANS_B = $tb, ROWS = 8, COLUMNS = 2, GROUP = 8],
                features: [SubgroupOf8],
                software: true,
                fits: |p| aligned_b(p, $tb) && p.m > 16 && p.n > 32,
                iterations: sums,
                grid: register_grid,
            }, {
                name: "shuffled_16x64_words",
                source: "matmul/shuffled.wgsl",
                preludes: [ACTIVATION, GEMM_PARAMS, MATMUL_STORE, MATMUL_A_SCALAR,
                           MATMUL_B_SCALAR],
                consts: [TRANS_A = $ta, TRANS_B = $tb, ROWS = 4, COLUMNS = 2, GROUP = 8],
                features: [SubgroupOf8],
                software: true,
                fits: |p| short(p) && p.n > 32,
                iterations: sums,
                grid: register_grid,
            }, {
                name: "register_12x16",
                source: "matmul/register.wgsl",
                preludes: [ACTIVATION, GEMM_PARAMS, MATMUL_STORE, MATMUL_A_VEC4, MATMUL_A_BLOCKS,
                           MATMUL_B_VEC4, MATMUL_B_BLOCKS],
                consts: [TRANS_A = $ta, TRANS_B = $tb, CHECK_K = 0,
                         ROWS = 3, COLUMNS = 4, GROUP = 8],
                software: true,
                fits: |p| aligned(p, $ta, $tb) && p.n > 48,
                iterations: sums,
                grid: register_grid,
            }, {
                // The gradients of a layer whose outputs are no multiple of four: A is theirs.
                name: "register_12x16_words_a",
                source: "matmul/register.wgsl",
                preludes: [ACTIVATION, GEMM_PARAMS, MATMUL_STORE, MATMUL_A_SCALAR, MATMUL_B_VEC4,
                           MATMUL_B_BLOCKS],
                consts: [TRANS_A = $ta, TRANS_B = $tb,
                         ROWS = 3, COLUMNS = 4, GROUP = 8],
                software: true,
                fits: |p| aligned_b(p, $tb) && p.n > 48,
                iterations: sums,
                grid: register_grid,
            }, {
                name: "register_8x8_words",
                source: "matmul/register.wgsl",
                preludes: [ACTIVATION, GEMM_PARAMS, MATMUL_STORE, MATMUL_A_SCALAR,
                           MATMUL_B_SCALAR],
                consts: [TRANS_A = $ta, TRANS_B = $tb,
                         ROWS = 2, COLUMNS = 2, GROUP = 8],
                software: true,
                fits: |p| short(p) && p.n > 32,
                iterations: sums,
                grid: register_grid,
            }, {
                name: "register_4x4_words",
                source: "matmul/register.wgsl",
                preludes: [ACTIVATION, GEMM_PARAMS, MATMUL_STORE, MATMUL_A_SCALAR,
                           MATMUL_B_SCALAR],
                consts: [TRANS_A = $ta, TRANS_B = $tb,
                         ROWS = 1, COLUMNS = 1, GROUP = 8],
                software: true,
                fits: short,
                iterations: sums,
                grid: register_grid,
            }];
        }
    )+};
}

products! {
    /// C = act(A·B + bias [+ C]).
    NN = "matmul/nn", nn, 0, 0;
    /// C = act(A·Bᵀ + bias [+ C]).
    NT = "matmul/nt", nt, 0, 1;
    /// C = act(Aᵀ·B + bias [+ C]).
    TN = "matmul/tn", tn, 1, 0;
}

/// Kernels of this family.
pub static KERNELS: &[&AnyKernel] = &[NN.any(), NT.any(), TN.any()];
