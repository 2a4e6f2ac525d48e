//! Optimizers over the flat parameter vector.
//!
//! Each is one dispatch over a range `[offset, offset + n)` of every replica's vector. The
//! kernels read and write vec4s, so offsets and strides are multiples of 4 (the engine's are
//! multiples of 64); `n` may be any. The learning rate and the step come from the replica's
//! [record](crate::state); a replica whose record is inactive keeps everything unchanged.
//!
//! ```rust
//! use tern_shaders::kernels::optimizer::{SgdPlain, sgd_plain};
//! use tern_shaders::schedule::Schedule;
//! use tern_shaders::state::StateRecord;
//!
//! // Four weights, of which the first three are trained, at a rate of ½.
//! let p = SgdPlain { n: 3, stride: 4, scale: 1.0, rate: 1.0, ..Default::default() };
//! let record = StateRecord::new(7, 0..1, 1, 100, &Schedule::constant(0.5));
//! let mut weights = [1.0f32; 4];
//! sgd_plain(&p, 1, &mut weights, &[1.0, 2.0, -1.0, 9.0], &record[..], &[1.0]);
//! assert_eq!(weights, [0.5, 0.0, 1.5, 1.0]);
//! ```

mod adam;
mod average;

pub use adam::*;
pub use average::*;

use crate::state::{ACTIVE, RATE, WORDS, updates};
use crate::{AnyKernel, Real, kernel, linear_grid, params};

/// Elements whose squares one partial sum of [`NORM_PARTIAL`] takes.
pub const NORM_CHUNK: u32 = 8192;

params!(
    /// Parameters of [`SGD_PLAIN`].
    SgdPlain {
        /// First word of the range in a replica's vector, a multiple of 4.
        offset: u32,
        /// Words of the range.
        n: u32,
        /// Words a replica, a multiple of 4.
        stride: u32,
        /// L2 decay, added to the gradient.
        weight_decay: f32,
        /// Factor on the gradient.
        scale: f32,
        /// 1 multiplies the gradient by `clip[r]`, too.
        clipped: u32,
        /// Factor on the record's learning rate.
        rate: f32,
    }
);

params!(
    /// Parameters of [`SGD`].
    Sgd {
        /// First word of the range in a replica's vector, a multiple of 4.
        offset: u32,
        /// Words of the range.
        n: u32,
        /// Words a replica, a multiple of 4.
        stride: u32,
        /// Share of the old moment that is kept.
        momentum: f32,
        /// Share of the gradient that is added to it, from the second step on: 1 less the
        /// dampening.
        fresh: f32,
        /// 1 looks ahead along the momentum (Nesterov).
        nesterov: u32,
        /// L2 decay, added to the gradient.
        weight_decay: f32,
        /// Factor on the gradient.
        scale: f32,
        /// 1 multiplies the gradient by `clip[r]`, too.
        clipped: u32,
        /// Factor on the record's learning rate.
        rate: f32,
    }
);

params!(
    /// Parameters of [`NORM_PARTIAL`].
    NormPartial {
        /// First word of the range in a replica's vector, a multiple of 4.
        offset: u32,
        /// Words of the range.
        n: u32,
        /// Words a replica, a multiple of 4.
        stride: u32,
        /// First partial sum of this range, where several ranges make one norm.
        partial_offset: u32,
        /// Partial sums a replica.
        partial_stride: u32,
    }
);

params!(
    /// Parameters of [`NORM_FINISH`].
    NormFinish {
        /// Partial sums to add up.
        count: u32,
        /// Partial sums a replica.
        partial_stride: u32,
        /// Norm from which on the gradient is scaled down.
        max_norm: f32,
        /// The optimizer's factor on the gradient, which counts in the norm.
        scale: f32,
    }
);

params!(
    /// Parameters of [`PROXIMAL`].
    Proximal {
        /// First word of the range in a replica's vector, a multiple of 4.
        offset: u32,
        /// Words of the range.
        n: u32,
        /// Words a replica, a multiple of 4.
        stride: u32,
        /// Words a replica in `reference`; 0: all replicas share one reference.
        reference_stride: u32,
        /// Strength of the pull.
        mu: f32,
    }
);

/// Number of partial sums of a range of `n` words.
pub fn norm_partials(n: usize) -> usize {
    n.div_ceil(NORM_CHUNK as usize)
}

/// What the optimizers read of replica `r`: its updates so far, and its learning rate times a factor; `None`
/// if it rests.
fn step_and_rate<F: Real>(state: &[u32], r: usize, factor: f32) -> Option<(u32, F)> {
    let record = &state[r * WORDS..];
    let rate = || F::of(factor) * F::of(f32::from_bits(record[RATE]));
    (record[ACTIVE] != 0).then(|| (updates(record), rate()))
}

fn gradient_scale<F: Real>(scale: f32, clipped: u32, clip: &[F], r: usize) -> F {
    if clipped != 0 { F::of(scale) * clip[r] } else { F::of(scale) }
}

/// w −= rate · (g + decay · w). Shapes: `parameters`, `gradients` `[R, stride]`, `state`
/// `[R, 64]`, `clip` `[R]`.
pub fn sgd_plain<F: Real>(
    p: &SgdPlain,
    replicas: usize,
    parameters: &mut [F],
    gradients: &[F],
    state: &[u32],
    clip: &[F],
) {
    for r in 0..replicas {
        let Some((_, rate)) = step_and_rate::<F>(state, r, p.rate) else { continue };
        let scale = gradient_scale(p.scale, p.clipped, clip, r);
        let from = r * p.stride as usize + p.offset as usize;
        for at in from..from + p.n as usize {
            let w = parameters[at];
            parameters[at] = w - rate * (scale * gradients[at] + F::of(p.weight_decay) * w);
        }
    }
}

/// m = momentum · m + fresh · g (the first step: m = g), w −= rate · m, or with Nesterov's
/// look-ahead w −= rate · (g + momentum · m), as in `torch.optim.SGD` with a dampening of
/// 1 − fresh. Shapes: `parameters`, `gradients`, `moment1` `[R, stride]`, `state` `[R, 64]`, `clip`
/// `[R]`.
pub fn sgd<F: Real>(
    p: &Sgd,
    replicas: usize,
    parameters: &mut [F],
    gradients: &[F],
    moment1: &mut [F],
    state: &[u32],
    clip: &[F],
) {
    let momentum = F::of(p.momentum);
    for r in 0..replicas {
        let Some((step, rate)) = step_and_rate::<F>(state, r, p.rate) else { continue };
        let scale = gradient_scale(p.scale, p.clipped, clip, r);
        let from = r * p.stride as usize + p.offset as usize;
        for at in from..from + p.n as usize {
            let w = parameters[at];
            let g = scale * gradients[at] + F::of(p.weight_decay) * w;
            let m = if step == 0 { g } else { momentum * moment1[at] + F::of(p.fresh) * g };
            let d = if p.nesterov != 0 { g + momentum * m } else { m };
            moment1[at] = m;
            parameters[at] = w - rate * d;
        }
    }
}

/// Sum of squares of each chunk of [`NORM_CHUNK`] words of the range. Shapes: `gradients`
/// `[R, stride]`, `partial` `[R, partial_stride]`.
pub fn norm_partial<F: Real>(p: &NormPartial, replicas: usize, gradients: &[F], partial: &mut [F]) {
    for r in 0..replicas {
        let from = r * p.stride as usize + p.offset as usize;
        let to = r * p.partial_stride as usize + p.partial_offset as usize;
        let range = &gradients[from..from + p.n as usize];
        for (chunk, values) in range.chunks(NORM_CHUNK as usize).enumerate() {
            partial[to + chunk] = values.iter().map(|g| *g * *g).sum();
        }
    }
}

/// norm = scale · √(Σ partial), clip = min(1, max_norm / (norm + 1e-6)), as
/// `torch.nn.utils.clip_grad_norm_`. Shapes: `partial` `[R, partial_stride]`, `norm`, `clip`
/// `[R]`.
pub fn norm_finish<F: Real>(
    p: &NormFinish,
    replicas: usize,
    partial: &[F],
    norm: &mut [F],
    clip: &mut [F],
) {
    for r in 0..replicas {
        let from = r * p.partial_stride as usize;
        let sum: F = partial[from..from + p.count as usize].iter().copied().sum();
        norm[r] = F::of(p.scale) * sum.sqrt();
        let factor = F::of(p.max_norm) / (norm[r] + F::of(1e-6));
        // The factor of a norm that is no number is none either.
        clip[r] = if factor > F::one() { F::one() } else { factor };
    }
}

/// g += μ · (w − w_ref), the gradient of FedProx's proximal term μ/2 · ‖w − w_ref‖² (Li et al.
/// 2020, "Federated Optimization in Heterogeneous Networks", equation 2). Shapes: `parameters`,
/// `gradients` `[R, stride]`, `reference` `[reference_stride]` or `[R, reference_stride]`.
pub fn proximal<F: Real>(
    p: &Proximal,
    replicas: usize,
    parameters: &[F],
    reference: &[F],
    gradients: &mut [F],
) {
    for r in 0..replicas {
        let from = r * p.stride as usize + p.offset as usize;
        let anchor = r * p.reference_stride as usize + p.offset as usize;
        for i in 0..p.n as usize {
            let away = parameters[from + i] - reference[anchor + i];
            gradients[from + i] += F::of(p.mu) * away;
        }
    }
}

kernel! {
    /// SGD without momentum.
    SGD_PLAIN = "optimizer/sgd_plain", SgdPlain;
    bindings: [parameters: write f32, gradients: read f32, state: read u32, clip: read f32];
    reference: sgd_plain;
    variants: [{
        name: "vec4",
        source: "optimizer/sgd_plain.wgsl",
        preludes: [INDEX, LANES, STATE],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.n.div_ceil(4) as usize, v.constant("GROUP")),
    }];
}

kernel! {
    /// SGD with momentum.
    SGD = "optimizer/sgd", Sgd;
    bindings: [
        parameters: write f32, gradients: read f32, moment1: write f32, state: read u32,
        clip: read f32
    ];
    reference: sgd;
    variants: [{
        name: "vec4",
        source: "optimizer/sgd.wgsl",
        preludes: [INDEX, LANES, STATE],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.n.div_ceil(4) as usize, v.constant("GROUP")),
    }];
}

kernel! {
    /// First half of the global norm: sums of squares, chunk by chunk.
    NORM_PARTIAL = "optimizer/norm_partial", NormPartial;
    bindings: [gradients: read f32, partial: write f32];
    reference: norm_partial;
    variants: [{
        name: "group",
        source: "optimizer/norm_partial_group.wgsl",
        preludes: [LANES],
        consts: [GROUP = 256, CHUNK = NORM_CHUNK],
        workgroup_memory: true,
        iterations: |_, v| (v.constant("CHUNK") / 4).div_ceil(v.constant("GROUP")).into(),
        grid: |p, _| linear_grid(norm_partials(p.n as usize), 1),
    }, {
        name: "serial",
        source: "optimizer/norm_partial.wgsl",
        preludes: [INDEX, LANES],
        consts: [GROUP = 8, CHUNK = NORM_CHUNK],
        software: true,
        iterations: |_, v| (v.constant("CHUNK") / 4).into(),
        grid: |p, v| linear_grid(norm_partials(p.n as usize), v.constant("GROUP")),
    }];
}

kernel! {
    /// Second half of the global norm: the norm and the factor that clips to it.
    NORM_FINISH = "optimizer/norm_finish", NormFinish;
    bindings: [partial: read f32, norm: write f32, clip: write f32];
    reference: norm_finish;
    variants: [{
        name: "group",
        source: "optimizer/norm_finish_group.wgsl",
        preludes: [],
        consts: [GROUP = 256],
        workgroup_memory: true,
        iterations: |p, v| p.count.div_ceil(v.constant("GROUP")).into(),
        grid: |_, _| [1, 1],
    }, {
        name: "serial",
        source: "optimizer/norm_finish.wgsl",
        preludes: [],
        consts: [],
        software: true,
        iterations: |p, _| p.count.into(),
        grid: |_, _| [1, 1],
    }];
}

kernel! {
    /// FedProx's pull to a reference model.
    PROXIMAL = "optimizer/proximal", Proximal;
    bindings: [parameters: read f32, reference: read f32, gradients: write f32];
    reference: proximal;
    variants: [{
        name: "vec4",
        source: "optimizer/proximal.wgsl",
        preludes: [INDEX, LANES],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.n.div_ceil(4) as usize, v.constant("GROUP")),
    }];
}

/// Kernels of this family.
pub static KERNELS: &[&AnyKernel] = &[
    SGD_PLAIN.any(),
    SGD.any(),
    ADAM.any(),
    AMSGRAD.any(),
    NORM_PARTIAL.any(),
    NORM_FINISH.any(),
    PROXIMAL.any(),
    AVERAGE.any(),
    MEAN_OF_PARTS.any(),
];

#[cfg(test)]
mod tests;
