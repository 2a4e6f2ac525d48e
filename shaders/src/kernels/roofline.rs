//! What a device can do at most, measured: kernels that only move and only compute. No model
//! uses them; the benches hold the other kernels against them (Williams et al., "Roofline",
//! 2009).
//!
//! ```rust
//! use tern_shaders::kernels::roofline::{MultiplyAdd, multiply_add};
//!
//! // v ← ½ v + 1, 64 times: each of an element's 32 numbers ends at 2.
//! let p = MultiplyAdd { n: 1, rounds: 64, factor: 0.5, summand: 1.0 };
//! let mut y = [0.0f64];
//! multiply_add(&p, 1, &[5.0], &mut y);
//! assert!((y[0] - 64.0).abs() < 1e-9);
//! assert_eq!(p.flops(), 2 * 32 * 64);
//! ```

use crate::{AnyKernel, Real, kernel, linear_grid, params};

params!(
    /// Parameters of [`COPY`].
    Copy {
        /// Elements of a replica, a multiple of four.
        n: u32,
    }
);

params!(
    /// Parameters of [`MULTIPLY_ADD`] and [`MULTIPLY_ADD_HALF`].
    MultiplyAdd {
        /// Elements of a replica.
        n: u32,
        /// Multiply-adds of a chain, a multiple of eight on a GPU.
        rounds: u32,
        /// What a chain multiplies by; below 1, so that chains stay finite.
        factor: f32,
        /// What it adds.
        summand: f32,
    }
);

/// Chains of an element, and numbers in each.
pub const CHAINS: [usize; 2] = [8, 4];

impl MultiplyAdd {
    /// Floating-point operations of a replica.
    pub fn flops(&self) -> u64 {
        2 * (CHAINS[0] * CHAINS[1]) as u64 * u64::from(self.n) * u64::from(self.rounds)
    }
}

/// y = x. Shapes: `x`, `y` `[R, n]`.
pub fn copy<F: Real>(p: &Copy, replicas: usize, x: &[F], y: &mut [F]) {
    let n = replicas * p.n as usize;
    y[..n].copy_from_slice(&x[..n]);
}

/// y = Σ over chains and numbers of `rounds` times v ← v · factor + summand, from v = x + 0 to 7
/// by chain + 0 to ¾ by number. Shapes: `x`, `y` `[R, n]`.
pub fn multiply_add<F: Real>(p: &MultiplyAdd, replicas: usize, x: &[F], y: &mut [F]) {
    let (factor, summand) = (F::of(p.factor), F::of(p.summand));
    for (x, y) in x.iter().zip(y).take(replicas * p.n as usize) {
        *y = F::zero();
        for chain in 0..CHAINS[0] {
            for number in 0..CHAINS[1] {
                let mut v = *x + F::count(chain) + F::count(number) * F::of(0.25);
                for _ in 0..p.rounds {
                    v = v * factor + summand;
                }
                *y += v;
            }
        }
    }
}

kernel! {
    /// Moves memory.
    COPY = "roofline/copy", Copy;
    bindings: [x: read f32, y: write f32];
    reference: copy;
    variants: [{
        name: "plain",
        source: "roofline/copy.wgsl",
        preludes: [INDEX],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.n as usize / 4, v.constant("GROUP")),
    }];
}

kernel! {
    /// Multiplies and adds numbers of 32 bits.
    MULTIPLY_ADD = "roofline/multiply_add", MultiplyAdd;
    bindings: [x: read f32, y: write f32];
    reference: multiply_add;
    variants: [{
        name: "plain",
        source: "roofline/multiply_add.wgsl",
        preludes: [INDEX, SINGLE],
        consts: [GROUP = 64],
        fits: |p| p.rounds.is_multiple_of(8),
        iterations: |p, _| p.rounds.into(),
        grid: |p, v| linear_grid(p.n as usize, v.constant("GROUP")),
    }];
}

kernel! {
    /// Multiplies and adds numbers of 16 bits, where the device has them.
    MULTIPLY_ADD_HALF = "roofline/multiply_add_half", MultiplyAdd;
    bindings: [x: read f32, y: write f32];
    reference: multiply_add;
    variants: [{
        name: "f16",
        source: "roofline/multiply_add.wgsl",
        preludes: [INDEX, HALF],
        consts: [GROUP = 64],
        features: [F16],
        fits: |p| p.rounds.is_multiple_of(8),
        iterations: |p, _| p.rounds.into(),
        grid: |p, v| linear_grid(p.n as usize, v.constant("GROUP")),
    }];
}

/// Kernels of this family.
pub static KERNELS: &[&AnyKernel] = &[COPY.any(), MULTIPLY_ADD.any(), MULTIPLY_ADD_HALF.any()];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_come_to_rest_where_they_should() {
        // v = v / 2 + 1 ends at 2, whatever it starts from; 32 of them are summed.
        let p = MultiplyAdd { n: 2, rounds: 60, factor: 0.5, summand: 1.0 };
        let mut y = [0.0; 2];
        multiply_add(&p, 1, &[3.0f64, -5.0], &mut y);
        assert!(y.iter().all(|y| (y - 64.0).abs() < 1e-9), "{y:?}");
        let one = MultiplyAdd { rounds: 1, ..p };
        multiply_add(&one, 1, &[0.0f64, 8.0], &mut y);
        // Half the sum of what they start from, and 1 each.
        assert_eq!(y, [0.5 * (4.0 * 28.0 + 8.0 * 1.5) + 32.0, 0.5 * (124.0 + 256.0) + 32.0]);
    }
}
