//! Floats from words, and words from floats.

use crate::{Real, kernel, linear_grid, params};

params!(
    /// Parameters of [`TO_FLOATS`] and [`TO_WORDS`].
    Cast {
        /// Elements a replica.
        n: u32,
    }
);

/// y = the float nearest to each word. Shapes: `x`, `y` `[R, n]`.
pub fn to_floats<F: Real>(p: &Cast, replicas: usize, x: &[u32], y: &mut [F]) {
    for at in 0..replicas * p.n as usize {
        // Through single precision, which is what a device has.
        y[at] = F::of(x[at] as f32);
    }
}

/// y = each float without its fraction: 0 below 0 and for what is no number, and 2^32 − 1 from 2^32 on.
/// Shapes: `x`, `y` `[R, n]`.
pub fn to_words<F: Real>(p: &Cast, replicas: usize, x: &[F], y: &mut [u32]) {
    for at in 0..replicas * p.n as usize {
        y[at] = x[at].f32() as u32;
    }
}

kernel! {
    /// y = the float nearest to each word.
    TO_FLOATS = "pointwise/to_floats", Cast;
    bindings: [x: read u32, y: write f32];
    reference: to_floats;
    variants: [{
        name: "plain",
        source: "pointwise/to_floats.wgsl",
        preludes: [INDEX],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.n as usize, v.constant("GROUP")),
    }];
}

kernel! {
    /// y = each float without its fraction.
    TO_WORDS = "pointwise/to_words", Cast;
    bindings: [x: read f32, y: write u32];
    reference: to_words;
    variants: [{
        name: "plain",
        source: "pointwise/to_words.wgsl",
        preludes: [INDEX],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.n as usize, v.constant("GROUP")),
    }];
}
