//! Dropout (Srivastava et al. 2014), inverted: what is kept is scaled, so that nothing
//! changes at evaluation, where the layer is left out.
//!
//! ```rust
//! use tern_shaders::kernels::dropout::{Forward, forward, kept, threshold};
//! use tern_shaders::state::StateRecord;
//!
//! // Each element is dropped with probability ½.
//! let p = Forward { n: 4, threshold: threshold(0.5), scale: 2.0, operation: 0 };
//! let record = StateRecord::IDLE;
//! let mut y = [9.0f32; 4];
//! forward(&p, 1, &[1.0, 2.0, 3.0, 4.0], &record[..], &mut y);
//! for i in 0..4 {
//!     let keep = kept(&record[..], p.operation, p.threshold, i);
//!     assert_eq!(y[i as usize], if keep { 2.0 * (i + 1) as f32 } else { 0.0 });
//! }
//! ```

use super::random::pcg4d;
use crate::{AnyKernel, Real, kernel, linear_grid, params, state};

params!(
    /// Parameters of [`FORWARD`].
    Forward {
        /// Elements a replica.
        n: u32,
        /// An element is dropped where its random word is below this; see [`threshold`].
        threshold: u32,
        /// 1 / (1 − p).
        scale: f32,
        /// Number of the operation in its graph, so that each has a mask of its own.
        operation: u32,
    }
);

params!(
    /// Parameters of [`BACKWARD`].
    Backward {
        /// Elements a replica.
        n: u32,
        /// An element is dropped where its random word is below this; see [`threshold`].
        threshold: u32,
        /// 1 / (1 − p).
        scale: f32,
        /// Number of the operation in its graph.
        operation: u32,
        /// 1 adds to `dx`, 0 overwrites it.
        accumulate: u32,
    }
);

/// The threshold for the probability `p` (in [0, 1)) of dropping an element: p · 2³².
pub fn threshold(p: f32) -> u32 {
    // Saturates: a float's conversion to an integer stays in range.
    (f64::from(p) * 4_294_967_296.0) as u32
}

/// Whether element `i` of a replica is kept in the step its state record is at.
pub fn kept(record: &[u32], operation: u32, threshold: u32, i: u32) -> bool {
    pcg4d([i, record[state::STEP], operation, record[state::SEED]])[0] >= threshold
}

/// y = scale · x where kept, else 0. Shapes: `x`, `y` `[R, n]`, `state` `[R, 64]`.
pub fn forward<F: Real>(p: &Forward, replicas: usize, x: &[F], state: &[u32], y: &mut [F]) {
    let n = p.n as usize;
    for r in 0..replicas {
        let record = &state[r * state::WORDS..];
        for i in 0..n {
            let keep = kept(record, p.operation, p.threshold, i as u32);
            y[r * n + i] = if keep { F::of(p.scale) * x[r * n + i] } else { F::zero() };
        }
    }
}

/// dx (+)= scale · dy where kept, else 0. Shapes: `dy`, `dx` `[R, n]`, `state` `[R, 64]`.
pub fn backward<F: Real>(p: &Backward, replicas: usize, dy: &[F], state: &[u32], dx: &mut [F]) {
    let n = p.n as usize;
    for r in 0..replicas {
        let record = &state[r * state::WORDS..];
        for i in 0..n {
            let at = r * n + i;
            let keep = kept(record, p.operation, p.threshold, i as u32);
            let g = if keep { F::of(p.scale) * dy[at] } else { F::zero() };
            dx[at] = if p.accumulate != 0 { dx[at] + g } else { g };
        }
    }
}

kernel! {
    /// y = scale · x where the counter-based mask keeps the element, else 0.
    FORWARD = "dropout/forward", Forward;
    bindings: [x: read f32, state: read u32, y: write f32];
    reference: forward;
    variants: [{
        name: "plain",
        source: "dropout/forward.wgsl",
        preludes: [INDEX, STATE, RANDOM, KEPT],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.n as usize, v.constant("GROUP")),
    }];
}

kernel! {
    /// dx (+)= scale · dy where the forward pass kept the element, else 0.
    BACKWARD = "dropout/backward", Backward;
    bindings: [dy: read f32, state: read u32, dx: write f32];
    reference: backward;
    variants: [{
        name: "plain",
        source: "dropout/backward.wgsl",
        preludes: [INDEX, STATE, RANDOM, KEPT],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.n as usize, v.constant("GROUP")),
    }];
}

/// Kernels of this family.
pub static KERNELS: &[&AnyKernel] = &[FORWARD.any(), BACKWARD.any()];

#[cfg(test)]
mod tests {
    use super::*;

    fn record(step: u32, seed: u32) -> Vec<u32> {
        let mut words = vec![0; state::WORDS];
        words[state::STEP] = step;
        words[state::SEED] = seed;
        words
    }

    fn mask(p: f32, operation: u32, record: &[u32]) -> Vec<bool> {
        let n = 20_000;
        let p = Forward { n, threshold: threshold(p), scale: 1.0 / (1.0 - p), operation };
        let mut y = vec![0.0f64; n as usize];
        forward(&p, 1, &vec![1.0; n as usize], record, &mut y);
        y.iter().map(|y| *y > 0.0).collect()
    }

    #[test]
    fn drops_with_the_probability_asked_for_and_keeps_the_mean() {
        assert!(mask(0.0, 0, &record(0, 0)).iter().all(|kept| *kept));
        for p in [0.1, 0.5, 0.9] {
            let kept = mask(p, 3, &record(5, 7)).iter().filter(|kept| **kept).count() as f32;
            // Five standard deviations of the binomial distribution.
            let deviation = (20_000.0 * p * (1.0 - p)).sqrt();
            assert!((kept - 20_000.0 * (1.0 - p)).abs() < 5.0 * deviation, "p {p}: {kept} kept");
        }
    }

    #[test]
    fn steps_seeds_and_operations_have_masks_of_their_own() {
        let base = mask(0.5, 1, &record(1, 1));
        assert_eq!(base, mask(0.5, 1, &record(1, 1)));
        for other in [mask(0.5, 1, &record(2, 1)), mask(0.5, 1, &record(1, 2))] {
            assert_ne!(base, other);
        }
        assert_ne!(base, mask(0.5, 2, &record(1, 1)));
    }

    #[test]
    fn the_gradient_has_the_mask_of_the_forward_pass() {
        let n = 64;
        let state = record(9, 4);
        let f = Forward { n, threshold: threshold(0.3), scale: 1.0 / 0.7, operation: 2 };
        let b = Backward { n, threshold: f.threshold, scale: f.scale, operation: 2, accumulate: 1 };
        let ones = vec![1.0f64; n as usize];
        let mut y = ones.clone();
        let mut dx = ones.clone();
        forward(&f, 1, &ones, &state, &mut y);
        backward(&b, 1, &ones, &state, &mut dx);
        assert!(y.iter().zip(&dx).all(|(y, dx)| (y + 1.0 - dx).abs() < 1e-12));
    }
}
