//! Averages: of the weights over steps, and of gradients over the parts of a batch.

use crate::state::{ACTIVE, WORDS, updates};
use crate::{Real, kernel, linear_grid, params};

params!(
    /// Parameters of [`AVERAGE`].
    Average {
        /// First word of the range in a replica's vector, a multiple of 4.
        offset: u32,
        /// Words of the range.
        n: u32,
        /// Words a replica, a multiple of 4.
        stride: u32,
        /// 1 − decay: share of the new weights.
        fresh: f32,
    }
);

params!(
    /// Parameters of [`MEAN_OF_PARTS`].
    MeanOfParts {
        /// First word of the range in a replica's vector.
        offset: u32,
        /// Words of the range.
        n: u32,
        /// Words a replica.
        stride: u32,
    }
);

/// average ← average + fresh · (w − average), and w in the first step: the exponential moving
/// average of `torch.optim.swa_utils`. Shapes: `parameters`, `average` `[R, stride]`, `state`
/// `[R, 64]`.
pub fn average_weights<F: Real>(
    p: &Average,
    replicas: usize,
    parameters: &[F],
    average: &mut [F],
    state: &[u32],
) {
    for r in 0..replicas {
        let record = &state[r * WORDS..];
        if record[ACTIVE] == 0 {
            continue;
        }
        let from = r * p.stride as usize + p.offset as usize;
        for at in from..from + p.n as usize {
            let (w, old) = (parameters[at], average[at]);
            average[at] = if updates(record) == 0 { w } else { old + F::of(p.fresh) * (w - old) };
        }
    }
}

/// x ← x / count, and 0 where the count is. Shapes: `count` `[R]`, `x` `[R, stride]`.
pub fn mean_of_parts<F: Real>(p: &MeanOfParts, replicas: usize, count: &[F], x: &mut [F]) {
    for r in 0..replicas {
        let from = r * p.stride as usize + p.offset as usize;
        for x in &mut x[from..from + p.n as usize] {
            *x = if count[r] == F::zero() { F::zero() } else { *x / count[r] };
        }
    }
}

kernel! {
    /// Exponential moving average of the weights.
    AVERAGE = "optimizer/average", Average;
    bindings: [parameters: read f32, average: write f32, state: read u32];
    reference: average_weights;
    variants: [{
        name: "vec4",
        source: "optimizer/average.wgsl",
        preludes: [INDEX, LANES, STATE],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.n.div_ceil(4) as usize, v.constant("GROUP")),
    }];
}

kernel! {
    /// What was summed over the parts of a batch becomes a mean; what came of a scaled loss becomes as it was.
    MEAN_OF_PARTS = "optimizer/mean_of_parts", MeanOfParts;
    bindings: [count: read f32, x: write f32];
    reference: mean_of_parts;
    variants: [{
        name: "plain",
        source: "optimizer/mean_of_parts.wgsl",
        preludes: [INDEX],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.n as usize, v.constant("GROUP")),
    }];
}
