//! Ternary quantization of updates: each element becomes −1, 0 or +1 times a scale of its
//! tensor, 16 to a word.
//!
//! Stochastic codes after Wen et al., "TernGrad" (NeurIPS 2017); thresholded ones after Li and
//! Liu, "Ternary Weight Networks" (2016), as Xu et al. use them in "Ternary Compression for
//! Communication-Efficient Federated Learning" (2020). What a code leaves is kept in a residual
//! and added to the next update (error feedback, Karimireddy et al., 2019).
//!
//! A flat vector's tensors are described by `segments` `[tensors + 1]`, the first element of
//! each and then the vector's length, all multiples of 64, and `lengths` `[tensors]`, how many
//! elements of each are no padding. Padding holds zeros.
//!
//! ```rust
//! use tern_shaders::kernels::ternary::{Quantize, code_at, quantize};
//!
//! // One tensor with scale 1 and threshold 0.3.
//! let p = Quantize { n: 64, stride: 64, tensors: 1, threshold: 1, ..Default::default() };
//! let p = Quantize { feedback: 1, ..p };
//! let (mut x, mut residual, mut codes) = ([0.0f32; 64], [0.0; 64], [0; 4]);
//! x[..3].copy_from_slice(&[0.75, -1.25, 0.125]);
//! quantize(&p, 1, &x, &mut residual, &[0, 64], &[1.0], &[0.3], &mut codes);
//! assert_eq!([0, 1, 2].map(|i| code_at(&codes, i)), [1, -1, 0]);
//! // What the codes leave.
//! assert_eq!(residual[..3], [-0.25, -0.25, 0.125]);
//! ```

mod lanes;
mod scale;

pub use lanes::{
    DECODE_LANES, DecodeLanes, ENCODE_LANES, EncodeLanes, decode_lanes, encode_lanes, lane_bits,
    lane_words,
};
pub use scale::{MOMENTS, Moments, SCALE, Scale, ScaleKind, moments, scale};

use crate::kernels::random::{pcg4d, uniform};
use crate::{AnyKernel, Real, kernel, linear_grid, params};

/// Codes in a word.
pub const CODES: usize = 16;

/// Iterations in which `preludes/segment.wgsl` finds one of so many tensors, which it halves.
fn search(tensors: u32) -> u64 {
    u64::from(u32::BITS - tensors.saturating_sub(1).leading_zeros())
}

params!(
    /// Parameters of [`QUANTIZE`].
    Quantize {
        /// Elements a replica, a multiple of 16.
        n: u32,
        /// Words a replica takes in `x` and `residual`, a multiple of 4.
        stride: u32,
        /// Tensors of the vector.
        tensors: u32,
        /// Words a replica takes in `scales` and `thresholds`; 0 if all share one row.
        scales_stride: u32,
        /// 1 codes what is above its tensor's threshold, 0 draws.
        threshold: u32,
        /// 1 adds the residual and writes back what the codes leave.
        feedback: u32,
        /// Number of the draw, a round say. With salt and seed, the key of the stream.
        step: u32,
        /// Second part of the key; replica r has `salt + r`.
        salt: u32,
        /// Third part of the key.
        seed: u32,
    }
);

params!(
    /// Parameters of [`DECODE_ACCUMULATE`].
    DecodeAccumulate {
        /// Elements a replica, a multiple of 16.
        n: u32,
        /// Words a replica takes in `sum`, a multiple of 4.
        stride: u32,
        /// Tensors of the vector.
        tensors: u32,
        /// Updates to add a replica; at most 65,000.
        clients: u32,
        /// Words an update takes in `scales`; 0 if all share one row.
        scales_stride: u32,
        /// 1 adds to `sum`, 0 overwrites it.
        accumulate: u32,
    }
);

/// The tensor that element `i` belongs to.
pub(crate) fn tensor_of(segments: &[u32], tensors: u32, i: usize) -> usize {
    let starts = &segments[..tensors as usize];
    starts.partition_point(|start| *start as usize <= i).saturating_sub(1)
}

/// A number, or 0 for what is not finite.
pub(crate) fn finite_or_zero<F: Real>(x: F) -> F {
    if x.is_finite() { x } else { F::zero() }
}

/// A number, or 0 for one that is smaller than every normal number: some devices compute with those,
/// others take them for zero.
fn normal_or_zero(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE { 0.0 } else { x }
}

/// The value of the code at `i`: 0 is 0, 1 is +1, 2 is −1. 3 is no code and counts as 0.
pub fn code_at(codes: &[u32], i: usize) -> i32 {
    let code = (codes[i / CODES] >> (2 * (i % CODES))) & 3;
    (code & 1) as i32 - (code >> 1) as i32
}

/// A scale, if it is a normal positive number; 0 otherwise, and then every code is 0.
fn usable(scale: f32) -> f32 {
    if scale.is_normal() && scale > 0.0 { scale } else { 0.0 }
}

/// v = x (+ residual); code = sign(v) where it fires, otherwise 0; residual = v − scale · code.
///
/// Drawn, a code fires if u · scale < |v| for u uniform in [0, 1) with 24 bits, which is
/// P = |v| / scale, never at 0 and always from the scale on: v is clipped to ±scale, and the
/// residual keeps the rest. Thresholded, it fires if |v| > threshold. What is not finite gives
/// code and residual 0, and subnormal numbers count as 0. Computed in `f32` whatever `F` is, so that
/// codes are the same everywhere.
///
/// Shapes: `x`, `residual` `[R, stride]`, `segments` `[tensors + 1]`, `scales`, `thresholds`
/// `[tensors]` or `[R, tensors]`, `codes` `[R, n / 16]`.
pub fn quantize<F: Real>(
    p: &Quantize,
    replicas: usize,
    x: &[F],
    residual: &mut [F],
    segments: &[u32],
    scales: &[F],
    thresholds: &[F],
    codes: &mut [u32],
) {
    let words = p.n as usize / CODES;
    codes[..replicas * words].fill(0);
    for r in 0..replicas {
        for i in 0..p.n as usize {
            let row = r * p.scales_stride as usize + tensor_of(segments, p.tensors, i);
            let scale = usable(scales[row].f32());
            let at = r * p.stride as usize + i;
            let mut v = normal_or_zero(x[at].f32());
            if p.feedback != 0 {
                v = normal_or_zero(v + normal_or_zero(residual[at].f32()));
            }
            v = finite_or_zero(v);
            let fires = scale > 0.0
                && if p.threshold != 0 {
                    v.abs() > thresholds[row].f32()
                } else {
                    let salt = p.salt.wrapping_add(r as u32);
                    let words = pcg4d([i as u32 / 4, p.step, salt, p.seed]);
                    uniform(words[i % 4]) * scale < v.abs()
                };
            let mut decoded = 0.0;
            if fires {
                let code = if v < 0.0 { 2 } else { 1 };
                codes[r * words + i / CODES] |= code << (2 * (i % CODES));
                decoded = if v < 0.0 { -scale } else { scale };
            }
            if p.feedback != 0 {
                residual[at] = F::of(normal_or_zero(v - decoded));
            }
        }
    }
}

/// sum (+)= Σ over clients of weight · scale · code. Shapes: `codes` `[R, clients, n / 16]`,
/// `segments` `[tensors + 1]`, `scales` `[tensors]` or `[R, clients, tensors]`, `weights`
/// `[R, clients]`, `sum` `[R, stride]`.
pub fn decode_accumulate<F: Real>(
    p: &DecodeAccumulate,
    replicas: usize,
    codes: &[u32],
    segments: &[u32],
    scales: &[F],
    weights: &[F],
    sum: &mut [F],
) {
    let (n, clients) = (p.n as usize, p.clients as usize);
    for r in 0..replicas {
        for i in 0..n {
            let tensor = tensor_of(segments, p.tensors, i);
            let at = r * p.stride as usize + i;
            let mut total = if p.accumulate != 0 { sum[at] } else { F::zero() };
            for c in r * clients..(r + 1) * clients {
                let code = code_at(&codes[c * n / CODES..], i);
                let step = weights[c] * scales[c * p.scales_stride as usize + tensor];
                total += step * F::of(code as f32);
            }
            sum[at] = total;
        }
    }
}

kernel! {
    /// Codes of x (+ residual), and what they leave.
    QUANTIZE = "ternary/quantize", Quantize;
    bindings: [
        x: read f32,
        residual: write f32,
        segments: read u32,
        scales: read f32,
        thresholds: read f32,
        codes: write u32,
    ];
    reference: quantize;
    variants: [{
        name: "plain",
        source: "ternary/quantize.wgsl",
        preludes: [INDEX, RANDOM, FINITE, SEGMENT],
        consts: [GROUP = 64],
        iterations: |p, _| search(p.tensors),
        grid: |p, v| linear_grid(p.n as usize / CODES, v.constant("GROUP")),
    }];
}

kernel! {
    /// sum (+)= Σ over clients of weight · scale · code.
    DECODE_ACCUMULATE = "ternary/decode_accumulate", DecodeAccumulate;
    bindings: [
        codes: read u32,
        segments: read u32,
        scales: read f32,
        weights: read f32,
        sum: write f32,
    ];
    reference: decode_accumulate;
    variants: [{
        name: "plain",
        source: "ternary/decode_accumulate.wgsl",
        preludes: [INDEX, SEGMENT],
        consts: [GROUP = 64],
        iterations: |p, _| u64::from(p.clients) + search(p.tensors),
        grid: |p, v| linear_grid(p.n as usize / CODES, v.constant("GROUP")),
    }];
}

/// Kernels of this family.
pub static KERNELS: &[&AnyKernel] = &[
    MOMENTS.any(),
    SCALE.any(),
    QUANTIZE.any(),
    DECODE_ACCUMULATE.any(),
    ENCODE_LANES.any(),
    DECODE_LANES.any(),
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Two tensors, of 64 and of 128 elements.
    const SEGMENTS: [u32; 3] = [0, 64, 192];
    const N: usize = 192;

    fn parameters() -> Quantize {
        Quantize {
            n: N as u32,
            stride: N as u32,
            tensors: 2,
            feedback: 1,
            seed: 5,
            ..Quantize::default()
        }
    }

    /// Codes of one replica; the residual is changed in place.
    fn codes(p: &Quantize, x: &[f32], residual: &mut [f32], scales: &[f32; 2]) -> Vec<u32> {
        let mut codes = vec![0; N / CODES];
        quantize(p, 1, x, residual, &SEGMENTS, scales, &[0.3, 0.3], &mut codes);
        codes
    }

    fn decoded(codes: &[u32], scales: &[f32; 2], weight: f32) -> Vec<f32> {
        let p = DecodeAccumulate {
            n: N as u32,
            stride: N as u32,
            tensors: 2,
            clients: (codes.len() * CODES / N) as u32,
            ..DecodeAccumulate::default()
        };
        let weights = vec![weight; p.clients as usize];
        let mut sum = vec![9.0; N];
        decode_accumulate(&p, 1, codes, &SEGMENTS, scales, &weights, &mut sum);
        sum
    }

    #[test]
    fn tensors_are_found_at_their_edges() {
        for (i, tensor) in [(0, 0), (63, 0), (64, 1), (191, 1)] {
            assert_eq!(tensor_of(&SEGMENTS, 2, i), tensor);
        }
    }

    #[test]
    fn drawn_codes_are_unbiased() {
        let x: Vec<f32> = (0..N).map(|i| i as f32 / N as f32 - 0.5).collect();
        let scales = [0.5, 1.0];
        let draws = 2_000;
        let mut mean = vec![0.0; N];
        for step in 0..draws {
            let p = Quantize { step, feedback: 0, ..parameters() };
            let codes = codes(&p, &x, &mut [], &scales);
            for (mean, value) in mean.iter_mut().zip(decoded(&codes, &scales, 1.0)) {
                *mean += f64::from(value) / f64::from(draws);
            }
        }
        for i in 0..N {
            // The variance of a code is at most scale² / 4; five standard deviations.
            let bound =
                5.0 * 0.5 * f64::from(scales[usize::from(i >= 64)]) / f64::from(draws).sqrt();
            assert!((mean[i] - f64::from(x[i])).abs() < bound, "{i}: {} {}", mean[i], x[i]);
        }
    }

    #[test]
    fn replicas_are_single_runs_under_their_salts() {
        let x: Vec<f32> = (0..2 * N).map(|i| (i as f32 * 0.37).sin()).collect();
        let mut together = vec![0; 2 * N / CODES];
        let mut residual = vec![0.25; 2 * N];
        let p = Quantize { salt: 7, ..parameters() };
        quantize(&p, 2, &x, &mut residual, &SEGMENTS, &[1.0, 2.0], &[0.0; 2], &mut together);
        for r in 0..2 {
            let p = Quantize { salt: 7 + r as u32, ..parameters() };
            let mut alone = vec![0.25; N];
            let words = codes(&p, &x[r * N..][..N], &mut alone, &[1.0, 2.0]);
            assert_eq!(together[r * N / CODES..][..N / CODES], words);
            assert_eq!(residual[r * N..][..N], alone);
        }
        assert_ne!(together[..N / CODES], together[N / CODES..]);
    }

    #[test]
    fn zeros_large_values_and_bad_numbers() {
        let mut x = vec![0.0; N];
        x[..5].copy_from_slice(&[1.0, -1.0, 7.0, f32::NAN, f32::INFINITY]);
        for threshold in [0, 1] {
            let p = Quantize { threshold, ..parameters() };
            let mut residual = vec![0.0; N];
            let words = codes(&p, &x, &mut residual, &[1.0, 1.0]);
            assert_eq!(words[0], 0b01_10_01);
            assert!(words[1..].iter().all(|w| *w == 0));
            assert_eq!(residual[..5], [0.0, 0.0, 6.0, 0.0, 0.0]);
        }
        for scale in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e-40] {
            let mut residual = vec![0.0; N];
            let words = codes(&parameters(), &x, &mut residual, &[scale, 1.0]);
            assert!(words.iter().all(|w| *w == 0), "{scale}");
            assert_eq!(residual[..3], x[..3]);
        }
    }

    proptest! {
        // On a grid of 2^-12 all sums are exact in f32.
        #[test]
        fn codes_and_residual_make_up_the_input(
            grid in proptest::collection::vec(-8192i32..8192, N),
            before in proptest::collection::vec(-8192i32..8192, N),
            scales in [1u32..4096, 1u32..4096],
            threshold in 0u32..2,
        ) {
            let real = |g: &i32| *g as f32 / 4096.0;
            let x: Vec<f32> = grid.iter().map(real).collect();
            let before: Vec<f32> = before.iter().map(real).collect();
            let scales = scales.map(|s| s as f32 / 4096.0);
            let mut residual = before.clone();
            let words = codes(&Quantize { threshold, ..parameters() }, &x, &mut residual, &scales);
            let values = decoded(&words, &scales, 1.0);
            for i in 0..N {
                prop_assert_eq!(values[i] + residual[i], x[i] + before[i]);
                let fires = values[i] != 0.0;
                let v = x[i] + before[i];
                prop_assert!(!fires || values[i].signum() == v.signum());
                let scale = scales[usize::from(i >= 64)];
                prop_assert!(fires || threshold == 1 || v.abs() < scale);
                prop_assert!(threshold == 0 || fires == (v.abs() > 0.3));
            }
        }

        #[test]
        fn clients_add_up(words in proptest::collection::vec(any::<u32>(), 3 * N / CODES)) {
            let together = decoded(&words, &[0.5, 2.0], 0.25);
            for i in 0..N {
                let codes: i32 =
                    (0..3).map(|c| code_at(&words[c * N / CODES..], i)).sum();
                let scale = if i < 64 { 0.5 } else { 2.0 };
                prop_assert_eq!(together[i], 0.25 * scale * codes as f32);
            }
        }
    }
}
