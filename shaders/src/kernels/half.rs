//! Products of 16-bit floats, for weights and activations that are stored as such: half the
//! memory and half the traffic, and on hardware with matrix units many times the speed. Sums are
//! of 32 bits.
//!
//! Two halves are packed into a word, the lower one first. Offsets, strides and rows of A and B
//! count halves.
//!
//! ```rust
//! use tern_shaders::kernels::half::{Pack, pack, unpack};
//!
//! let mut words = [0; 1];
//! pack(&Pack { n: 2, offset: 0, stride: 2 }, 1, &[1.0f32, 2049.0], &mut words);
//! assert_eq!(words[0] & 0xffff, 0x3c00);
//! // A half has 11 digits: 2049 is rounded.
//! assert_eq!(unpack::<f32>(&words), [1.0, 2048.0]);
//! ```

use half::f16;

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
    }
);

/// The bits of the half nearest to a number, ties to even.
fn bits<F: Real>(x: F) -> u32 {
    u32::from(f16::from_f32(x.f32()).to_bits())
}

/// The numbers that words of two halves hold.
pub fn unpack<F: Real>(words: &[u32]) -> Vec<F> {
    let number = |bits: u32| F::of(f16::from_bits(bits as u16).to_f32());
    words.iter().flat_map(|word| [number(*word), number(word >> 16)]).collect()
}

/// out = x as halves. Shapes: `x [R, n]`, `out [R, n / 2]`.
pub fn pack<F: Real>(p: &Pack, replicas: usize, x: &[F], out: &mut [u32]) {
    let n = p.n as usize;
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
    float_nt(p, replicas, &unpack::<F>(a), &unpack::<F>(b), bias, c);
}

/// Whether rows of both operands can be read four halves at a time.
fn aligned(p: &Gemm) -> bool {
    let all = p.k | p.a_offset | p.a_stride | p.a_row | p.b_offset | p.b_stride | p.b_row;
    all.is_multiple_of(4) && p.part() <= super::matmul::MAX_LOOP
}

kernel! {
    /// Floats to halves.
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

kernel! {
    /// C = act(A·Bᵀ + bias [+ C]) of halves.
    NT = "half/nt", Gemm;
    bindings: [a: read u32, b: read u32, bias: read f32, c: write f32];
    reference: nt;
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
    }, {
        name: "tiled_64x64",
        source: "matmul/tiled.wgsl",
        preludes: [ACTIVATION, GEMM_PARAMS, MATMUL_STORE, HALF_WORDS, MATMUL_A_BLOCKS,
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
        preludes: [ACTIVATION, GEMM_PARAMS, MATMUL_STORE, HALF_WORDS, MATMUL_A_BLOCKS,
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
        preludes: [ACTIVATION, GEMM_PARAMS, MATMUL_STORE, HALF_WORDS, MATMUL_A_ROWS,
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
        preludes: [ACTIVATION, GEMM_PARAMS, MATMUL_STORE, HALF_WORDS, MATMUL_A_BLOCKS,
                   MATMUL_B_BLOCKS],
        consts: [TRANS_A = 0, TRANS_B = 1, CHECK_K = 0, ROWS = 3, COLUMNS = 4, GROUP = 8],
        software: true,
        fits: aligned,
        iterations: sums,
        grid: register_grid,
    }];
}

/// Kernels of this family.
pub static KERNELS: &[&AnyKernel] = &[PACK.any(), NT.any()];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_round_to_the_nearest() {
        // One, a tie to even either way, the largest, infinity, the smallest, half of it.
        let x = [1.0f64, 2049.0, 2051.0, 65504.0, 65520.0, 6e-8, 2.9e-8, -0.0];
        let mut words = [0; 4];
        pack(&Pack { n: 8, offset: 0, stride: 8 }, 1, &x, &mut words);
        let found: Vec<f64> = unpack(&words);
        let smallest = 2f64.powi(-24);
        let expected = [1.0, 2048.0, 2052.0, 65504.0, f64::INFINITY, smallest, 0.0, -0.0];
        assert_eq!(found, expected);
    }
}
