//! Updates of federated training: what each of many replicas has moved from the model that they
//! all started from, and its clipping.
//!
//! ```rust
//! use tern_shaders::kernels::update::{Difference, Rescale, difference, rescale};
//!
//! // Two replicas of three numbers, held against the model that they started from.
//! let (x, base) = ([1.0f32, 2.0, 3.0, 10.0, 20.0, 30.0], [1.0, 1.0, 5.0]);
//! let mut y = [0.0; 6];
//! difference(&Difference { n: 3 }, 2, &x, &base, &mut y);
//! assert_eq!(y, [0.0, 1.0, -2.0, 9.0, 19.0, 25.0]);
//! rescale(&Rescale { n: 3 }, 2, &[0.5, -1.0], &mut y);
//! assert_eq!(y, [0.0, 0.5, -1.0, -9.0, -19.0, -25.0]);
//! ```

use crate::{AnyKernel, Real, kernel, linear_grid, params};

params!(
    /// Parameters of [`DIFFERENCE`].
    Difference {
        /// Elements a replica.
        n: u32,
    }
);

params!(
    /// Parameters of [`RESCALE`].
    Rescale {
        /// Elements a replica.
        n: u32,
    }
);

/// y = x − base. Shapes: `x`, `y` `[R, n]`, `base` `[n]`.
pub fn difference<F: Real>(p: &Difference, replicas: usize, x: &[F], base: &[F], y: &mut [F]) {
    let n = p.n as usize;
    for r in 0..replicas {
        for i in 0..n {
            y[r * n + i] = x[r * n + i] - base[i];
        }
    }
}

/// x ← scalar · x. Shapes: `scalar` `[R]`, `x` `[R, n]`.
pub fn rescale<F: Real>(p: &Rescale, replicas: usize, scalar: &[F], x: &mut [F]) {
    let n = p.n as usize;
    for r in 0..replicas {
        for i in 0..n {
            x[r * n + i] *= scalar[r];
        }
    }
}

kernel! {
    /// y = x − base, the base shared by all replicas.
    DIFFERENCE = "update/difference", Difference;
    bindings: [x: read f32, base: read f32, y: write f32];
    reference: difference;
    variants: [{
        name: "plain",
        source: "update/difference.wgsl",
        preludes: [INDEX],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.n as usize, v.constant("GROUP")),
    }];
}

kernel! {
    /// x ← scalar · x, a scalar a replica.
    RESCALE = "update/rescale", Rescale;
    bindings: [scalar: read f32, x: write f32];
    reference: rescale;
    variants: [{
        name: "plain",
        source: "update/rescale.wgsl",
        preludes: [INDEX],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.n as usize, v.constant("GROUP")),
    }];
}

/// Kernels of this family.
pub static KERNELS: &[&AnyKernel] = &[DIFFERENCE.any(), RESCALE.any()];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_replica_is_held_against_the_shared_base_and_scaled_by_its_own_number() {
        let x = [1.0, 2.0, 3.0, 10.0, 20.0, 30.0];
        let mut y = [9.0f64; 6];
        difference(&Difference { n: 3 }, 2, &x, &[1.0, 1.0, 5.0], &mut y);
        assert_eq!(y, [0.0, 1.0, -2.0, 9.0, 19.0, 25.0]);
        rescale(&Rescale { n: 3 }, 2, &[0.5, -1.0], &mut y);
        assert_eq!(y, [0.0, 0.5, -1.0, -9.0, -19.0, -25.0]);
    }
}
