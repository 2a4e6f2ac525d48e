//! Weighted 64-bit fixed-point accumulation: the sum of integers depends on no order, so that
//! updates can be added as they arrive, on any device, to the same bits.
//!
//! ```rust
//! use tern_shaders::kernels::aggregate::{Accumulate, Finish, accumulate, finish};
//!
//! // Two clients with one number each, 1.0 three times and 2.0 once.
//! let p = Accumulate { n: 1, stride: 1, clients: 2, fraction_bits: 30 };
//! let mut total = [0; 2];
//! accumulate(&p, 1, &[1.0f32, 2.0], &[3, 1], &mut total);
//! assert_eq!(total, [1 << 30, 1]); // 5 · 2³⁰, low word first
//!
//! let p = Finish { n: 1, stride: 1, weight_low: 4, weight_high: 0, fraction_bits: 30 };
//! let mut mean = [0.0f32];
//! finish(&p, 1, &total, &mut mean);
//! assert_eq!(mean, [1.25]);
//! ```

use crate::kernels::fixed;
use crate::{AnyKernel, Real, kernel, linear_grid, params};

params!(
    /// Parameters of [`ACCUMULATE`].
    Accumulate {
        /// Elements a replica.
        n: u32,
        /// Words a client's vector takes in `x`.
        stride: u32,
        /// Vectors to add a replica; at most 65,000.
        clients: u32,
        /// Bits after the binary point, at most [`fixed::MAX_FRACTION_BITS`].
        fraction_bits: u32,
    }
);

params!(
    /// Parameters of [`FINISH`].
    Finish {
        /// Elements a replica.
        n: u32,
        /// Words a replica takes in `mean`.
        stride: u32,
        /// Low word of the sum of all weights, which is below 2^63.
        weight_low: u32,
        /// High word of it.
        weight_high: u32,
        /// Bits after the binary point, as accumulated.
        fraction_bits: u32,
    }
);

/// The 64-bit number in two words, low word first.
fn join(words: &[u32]) -> i64 {
    (u64::from(words[1]) << 32 | u64::from(words[0])) as i64
}

/// total += Σ over clients of round(x · weight · 2^fraction_bits), see [`fixed::fixed64`].
/// Shapes: `x` `[R, clients, stride]`, `weights` `[R, clients]`, `total` `[R, n, 2]`.
pub fn accumulate<F: Real>(
    p: &Accumulate,
    replicas: usize,
    x: &[F],
    weights: &[u32],
    total: &mut [u32],
) {
    let (n, clients) = (p.n as usize, p.clients as usize);
    for r in 0..replicas {
        for i in 0..n {
            let at = 2 * (r * n + i);
            let mut sum = join(&total[at..]);
            for c in r * clients..(r + 1) * clients {
                let value = x[c * p.stride as usize + i].f32();
                sum = sum.wrapping_add(fixed::fixed64(value, weights[c], p.fraction_bits));
            }
            total[at] = sum as u32;
            total[at + 1] = (sum >> 32) as u32;
        }
    }
}

/// mean = total / (weight · 2^fraction_bits), correctly rounded. Shapes: `total` `[R, n, 2]`,
/// `mean` `[R, stride]`.
pub fn finish<F: Real>(p: &Finish, replicas: usize, total: &[u32], mean: &mut [F]) {
    let weight = u64::from(p.weight_high) << 32 | u64::from(p.weight_low);
    for r in 0..replicas {
        for i in 0..p.n as usize {
            let sum = join(&total[2 * (r * p.n as usize + i)..]);
            mean[r * p.stride as usize + i] = F::of(fixed::mean(sum, weight, p.fraction_bits));
        }
    }
}

kernel! {
    /// total += Σ round(x · weight · 2^fraction_bits), 64-bit integers in pairs of words.
    ACCUMULATE = "aggregate/accumulate", Accumulate;
    bindings: [x: read f32, weights: read u32, total: write u32];
    reference: accumulate;
    variants: [{
        name: "plain",
        source: "aggregate/accumulate.wgsl",
        preludes: [INDEX, FIXED64],
        consts: [GROUP = 64],
        iterations: |p, _| p.clients.into(),
        grid: |p, v| linear_grid(p.n as usize, v.constant("GROUP")),
    }];
}

kernel! {
    /// mean = total / (weight · 2^fraction_bits), by integer division.
    FINISH = "aggregate/finish", Finish;
    bindings: [total: read u32, mean: write f32];
    reference: finish;
    variants: [{
        name: "plain",
        source: "aggregate/finish.wgsl",
        preludes: [INDEX, FIXED64],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.n as usize, v.constant("GROUP")),
    }];
}

/// Kernels of this family.
pub static KERNELS: &[&AnyKernel] = &[ACCUMULATE.any(), FINISH.any()];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const N: usize = 5;

    fn total(updates: &[([f32; N], u32)]) -> Vec<u32> {
        let x: Vec<f32> = updates.iter().flat_map(|u| u.0).collect();
        let weights: Vec<u32> = updates.iter().map(|u| u.1).collect();
        let p = Accumulate {
            n: N as u32,
            stride: N as u32,
            clients: updates.len() as u32,
            fraction_bits: 30,
        };
        let mut total = vec![0; 2 * N];
        accumulate(&p, 1, &x, &weights, &mut total);
        total
    }

    fn finished(total: &[u32], weight: u64) -> Vec<f64> {
        let p = Finish {
            n: N as u32,
            stride: N as u32,
            weight_low: weight as u32,
            weight_high: (weight >> 32) as u32,
            fraction_bits: 30,
        };
        let mut mean = vec![0.0; N];
        finish(&p, 1, total, &mut mean);
        mean
    }

    fn updates() -> impl Strategy<Value = Vec<([f32; N], u32)>> {
        let value = prop_oneof![-8.0f32..8.0, -1e-6f32..1e-6, Just(0.0)];
        proptest::collection::vec((proptest::array::uniform5(value), 1u32..100_000), 1..12)
    }

    proptest! {
        #[test]
        fn order_changes_no_bit(updates in updates(), turn in 0usize..12) {
            let mut turned = updates.clone();
            turned.rotate_left(turn % updates.len());
            turned.reverse();
            prop_assert_eq!(total(&updates), total(&turned));
        }

        #[test]
        fn the_mean_is_the_weighted_mean(updates in updates()) {
            let weight: u64 = updates.iter().map(|u| u64::from(u.1)).sum();
            let ours = finished(&total(&updates), weight);
            for (i, ours) in ours.iter().enumerate() {
                let sum: f64 = updates.iter().map(|u| f64::from(u.0[i]) * f64::from(u.1)).sum();
                let exact = sum / weight as f64;
                prop_assert!((ours - exact).abs() <= 1e-9 + exact.abs() * 1e-7);
            }
        }
    }

    #[test]
    fn a_negative_sum_has_its_sign_in_the_high_word() {
        let total = total(&[([-1.0; N], 1)]);
        assert_eq!(total[..2], [(-1i32 << 30) as u32, u32::MAX]);
        assert_eq!(finished(&total, 4), [-0.25; N]);
        assert_eq!(finished(&total, 1 << 33), [-(f64::powi(2.0, -33)); N]);
    }
}
