//! Products of 16-bit floats, for weights and activations that are stored as such: half the
//! memory and half the traffic, and on hardware with matrix units many times the speed. Sums are
//! of 32 bits.
//!
//! They are halves (IEEE 754 binary16) or bfloat16, the upper 16 bits of a float: fewer digits, and all of
//! a float's range. Two are packed into a word, the lower one first. Offsets, strides and rows of A and B
//! count numbers.
//!
//! ```rust
//! use tern_shaders::kernels::half::{Format, Pack, pack, unpack};
//!
//! let mut words = [0; 1];
//! pack(&Pack { n: 2, stride: 2, ..Pack::default() }, 1, &[1.0f32, 2049.0], &mut words);
//! assert_eq!(words[0] & 0xffff, 0x3c00);
//! // A half has 11 digits: 2049 is rounded.
//! assert_eq!(unpack::<f32>(Format::Half, &words), [1.0, 2048.0]);
//! ```

use half::{bf16, f16};

use super::matmul::{Gemm, nt as float_nt, register_grid, sums, tiled_grid};
use crate::activation::Activation;
use crate::{AnyKernel, Real, kernel, linear_grid, params};

params!(
    /// Parameters of [`PACK`].
    Pack {
        /// Elements to pack in each replica, a multiple of two.
        n: u32,
        /// First word of x.
        offset: u32,
        /// From replica to replica of x; 0 if they share it.
        stride: u32,
        /// [`Format`] as a number.
        format: u32,
    }
);

/// What 16 bits are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// binary16 of IEEE 754: 11 digits, up to 65,504.
    #[default]
    Half = 0,
    /// bfloat16: 8 digits, up to 3.4e38 as a float.
    Bf16 = 1,
}

impl Format {
    /// The bits of the number nearest to x, ties to even.
    fn bits(self, x: f32) -> u32 {
        u32::from(match self {
            Format::Half => f16::from_f32(x).to_bits(),
            Format::Bf16 => bf16::from_f32(x).to_bits(),
        })
    }

    /// The number of the lower 16 bits.
    fn number(self, bits: u32) -> f32 {
        match self {
            Format::Half => f16::from_bits(bits as u16).to_f32(),
            Format::Bf16 => bf16::from_bits(bits as u16).to_f32(),
        }
    }
}

impl From<u32> for Format {
    fn from(number: u32) -> Self {
        if number == Format::Bf16 as u32 { Format::Bf16 } else { Format::Half }
    }
}

/// The numbers that words of two hold.
pub fn unpack<F: Real>(format: Format, words: &[u32]) -> Vec<F> {
    let number = |bits: u32| F::of(format.number(bits));
    words.iter().flat_map(|word| [number(*word), number(word >> 16)]).collect()
}

/// out = x in 16 bits. Shapes: `x [R, n]`, `out [R, n / 2]`.
pub fn pack<F: Real>(p: &Pack, replicas: usize, x: &[F], out: &mut [u32]) {
    let (n, format) = (p.n as usize, Format::from(p.format));
    let bits = |x: F| format.bits(x.f32());
    for r in 0..replicas {
        let from = p.offset as usize + r * p.stride as usize;
        for i in 0..n / 2 {
            out[r * (n / 2) + i] = bits(x[from + 2 * i]) | bits(x[from + 2 * i + 1]) << 16;
        }
    }
}

/// C = act(A·Bᵀ + bias [+ C]). Shapes: `a [R, m, k]` and `b [R, n, k]` of packed halves,
/// `bias [R, n]`, `c [R, splits, m, n]`.
pub fn nt<F: Real>(p: &Gemm, replicas: usize, a: &[u32], b: &[u32], bias: &[F], c: &mut [F]) {
    product_of(Format::Half, p, replicas, (a, b, bias), c);
}

/// [`nt`] of bfloat16.
pub fn nt_bf16<F: Real>(p: &Gemm, replicas: usize, a: &[u32], b: &[u32], bias: &[F], c: &mut [F]) {
    product_of(Format::Bf16, p, replicas, (a, b, bias), c);
}

fn product_of<F: Real>(
    format: Format,
    p: &Gemm,
    replicas: usize,
    (a, b, bias): (&[u32], &[u32], &[F]),
    c: &mut [F],
) {
    let [a, b] = [a, b].map(|words| unpack::<F>(format, words));
    float_nt(p, replicas, &a, &b, bias, c);
}

params!(
    /// Parameters of [`TRANSPOSE`].
    Transpose {
        /// Rows of x, a multiple of two.
        rows: u32,
        /// Columns of x, a multiple of two.
        columns: u32,
    }
);

/// out = xᵀ. Shapes: `x [R, rows, columns / 2]`, `out [R, columns, rows / 2]` in words of two numbers.
pub fn transpose(p: &Transpose, replicas: usize, x: &[u32], out: &mut [u32]) {
    let (rows, columns) = (p.rows as usize, p.columns as usize);
    let number = |at: usize| x[at / 2] >> (16 * (at % 2)) & 0xffff;
    for r in 0..replicas {
        let first = r * rows * columns;
        for (j, row) in out[first / 2..][..columns * rows / 2].chunks_mut(rows / 2).enumerate() {
            for (i, word) in row.iter_mut().enumerate() {
                let [upper, lower] = [2 * i, 2 * i + 1].map(|i| number(first + i * columns + j));
                *word = upper | lower << 16;
            }
        }
    }
}

/// Whether rows of both operands can be read four halves at a time.
fn aligned(p: &Gemm) -> bool {
    let all = p.k | p.a_offset | p.a_stride | p.a_row | p.b_offset | p.b_stride | p.b_row;
    all.is_multiple_of(4) && p.part() <= super::matmul::MAX_LOOP
}

kernel! {
    /// Floats to numbers of 16 bits.
    PACK = "half/pack", Pack;
    bindings: [x: read f32, out: write u32];
    reference: pack;
    variants: [{
        name: "plain",
        source: "half/pack.wgsl",
        preludes: [INDEX],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.n as usize / 2, v.constant("GROUP")),
    }];
}

/// A product of packed numbers: the variants of the one format alone, then those of words that every
/// device reads.
macro_rules! product {
    (
        $(#[$meta:meta])*
        $id:ident = $name:literal, $reference:ident, $format:ident;
        variants: [$($own:tt)*];
    ) => {
kernel! {
    $(#[$meta])*
    $id = $name, Gemm;
    bindings: [a: read u32, b: read u32, bias: read f32, c: write f32];
    reference: $reference;
    variants: [$($own)* {
        name: "tiled_64x64",
        source: "matmul/tiled.wgsl",
        preludes: [ACTIVATION, GEMM_PARAMS, MATMUL_STORE, WORDS_OF_TWO, $format, MATMUL_A_BLOCKS,
                   MATMUL_B_BLOCKS],
        consts: [TRANS_A = 0, TRANS_B = 1, CHECK_K = 1,
                 ROWS = 2, COLUMNS = 2, ACROSS = 8, DOWN = 8],
        workgroup_memory: true,
        fits: |p| aligned(p) && p.m >= 64 && p.n >= 64,
        iterations: sums,
        grid: tiled_grid,
    }, {
        name: "tiled_32x32",
        source: "matmul/tiled.wgsl",
        preludes: [ACTIVATION, GEMM_PARAMS, MATMUL_STORE, WORDS_OF_TWO, $format, MATMUL_A_BLOCKS,
                   MATMUL_B_BLOCKS],
        consts: [TRANS_A = 0, TRANS_B = 1, CHECK_K = 1,
                 ROWS = 1, COLUMNS = 1, ACROSS = 8, DOWN = 8],
        workgroup_memory: true,
        fits: aligned,
        iterations: sums,
        grid: tiled_grid,
    }, {
        name: "shuffled_32x64",
        source: "matmul/shuffled.wgsl",
        preludes: [ACTIVATION, GEMM_PARAMS, MATMUL_STORE, WORDS_OF_TWO, $format, MATMUL_A_ROWS,
                   MATMUL_B_BLOCKS],
        consts: [TRANS_B = 1, ROWS = 8, COLUMNS = 2, GROUP = 8],
        features: [SubgroupOf8],
        software: true,
        fits: |p| aligned(p) && p.m > 16 && p.n > 32,
        iterations: sums,
        grid: register_grid,
    }, {
        name: "register_12x16",
        source: "matmul/register.wgsl",
        preludes: [ACTIVATION, GEMM_PARAMS, MATMUL_STORE, WORDS_OF_TWO, $format, MATMUL_A_BLOCKS,
                   MATMUL_B_BLOCKS],
        consts: [TRANS_A = 0, TRANS_B = 1, CHECK_K = 0, ROWS = 3, COLUMNS = 4, GROUP = 8],
        software: true,
        fits: aligned,
        iterations: sums,
        grid: register_grid,
    }];
}
    };
}

product! {
    /// C = act(A·Bᵀ + bias [+ C]) of halves.
    NT = "half/nt", nt, FROM_HALF;
    variants: [{
        name: "cooperative_128x128",
        source: "half/nt_cooperative.wgsl",
        preludes: [GEMM_PARAMS],
        consts: [GROUP = 128, SIDE = 4, PARTS = 2],
        features: [CooperativeMatrix, Subgroup],
        fits: |p| {
            (p.m | p.n).is_multiple_of(64) && (p.k | p.a_row | p.b_row).is_multiple_of(16)
                && (p.a_offset | p.a_stride | p.b_offset | p.b_stride).is_multiple_of(8)
                && (p.c_offset | p.c_stride | p.c_row).is_multiple_of(4) && p.splits == 1
                && (p.has_bias == 0 || (p.bias_offset | p.bias_stride).is_multiple_of(4))
                && (p.has_bias == 0 || p.accumulate == 0)
                && p.activation == Activation::Identity as u32
        },
        iterations: sums,
        grid: |p, _| [p.n.div_ceil(128), p.m.div_ceil(128)],
    }, {
        name: "tiled_64x64_f16",
        source: "matmul/tiled.wgsl",
        preludes: [ACTIVATION, GEMM_PARAMS, MATMUL_STORE, HALF_FLOATS, MATMUL_A_BLOCKS,
                   MATMUL_B_BLOCKS],
        consts: [TRANS_A = 0, TRANS_B = 1, CHECK_K = 1,
                 ROWS = 2, COLUMNS = 2, ACROSS = 8, DOWN = 8],
        features: [F16],
        workgroup_memory: true,
        fits: |p| aligned(p) && p.m >= 64 && p.n >= 64,
        iterations: sums,
        grid: tiled_grid,
    }, {
        name: "tiled_32x32_f16",
        source: "matmul/tiled.wgsl",
        preludes: [ACTIVATION, GEMM_PARAMS, MATMUL_STORE, HALF_FLOATS, MATMUL_A_BLOCKS,
                   MATMUL_B_BLOCKS],
        consts: [TRANS_A = 0, TRANS_B = 1, CHECK_K = 1,
                 ROWS = 1, COLUMNS = 1, ACROSS = 8, DOWN = 8],
        features: [F16],
        workgroup_memory: true,
        fits: aligned,
        iterations: sums,
        grid: tiled_grid,
    },];
}

product! {
    /// C = act(A·Bᵀ + bias [+ C]) of bfloat16.
    NT_BF16 = "half/bf16_nt", nt_bf16, FROM_BF16;
    variants: [];
}

kernel! {
    /// The transpose of a matrix of numbers of 16 bits.
    TRANSPOSE = "half/transpose", Transpose;
    bindings: [x: read u32, out: write u32];
    reference: transpose;
    variants: [{
        name: "plain",
        source: "half/transpose.wgsl",
        preludes: [],
        consts: [GROUP = 64],
        grid: |p, v| {
            let [down, across] = [p.rows, p.columns].map(|n| (n as usize / 2).div_ceil(8));
            let group = v.constant("GROUP");
            linear_grid(down * across * group as usize, group)
        },
    }];
}

/// Kernels of this family.
pub static KERNELS: &[&AnyKernel] = &[PACK.any(), NT.any(), NT_BF16.any(), TRANSPOSE.any()];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_to_the_nearest() {
        // One, a tie to even either way, the largest half, infinity as a half, the smallest, half of it.
        let x = [1.0f64, 2049.0, 2051.0, 65504.0, 65520.0, 6e-8, 2.9e-8, -0.0];
        let rounded = |format| {
            let mut words = [0; 4];
            let p = Pack { n: 8, stride: 8, format: format as u32, ..Pack::default() };
            pack(&p, 1, &x, &mut words);
            unpack::<f64>(format, &words)
        };
        let smallest = 2f64.powi(-24);
        let expected = [1.0, 2048.0, 2052.0, 65504.0, f64::INFINITY, smallest, 0.0, -0.0];
        assert_eq!(rounded(Format::Half), expected);
        let found = rounded(Format::Bf16);
        assert_eq!(found[..5], [1.0, 2048.0, 2048.0, 65536.0, 65536.0]);
        assert!((found[5] / 6e-8 - 1.0).abs() < 1.0 / 256.0 && found[7].is_sign_negative());
    }

    #[test]
    fn a_transpose_of_pairs() {
        // Two replicas of [[1, 2, 3, 4], [5, 6, 7, 8]].
        let (x, mut out) = ([1 | 2 << 16, 3 | 4 << 16, 5 | 6 << 16, 7 | 8 << 16], [0; 8]);
        transpose(&Transpose { rows: 2, columns: 4 }, 2, &[x, x].concat(), &mut out);
        let expected = [1 | 5 << 16, 2 | 6 << 16, 3 | 7 << 16, 4 | 8 << 16];
        assert_eq!(out, [expected, expected].as_flattened());
    }
}
