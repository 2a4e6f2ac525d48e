//! Adam, AdamW and AMSGrad.

use super::{gradient_scale, step_and_rate};
use crate::{Real, kernel, linear_grid, params};

params!(
    /// Parameters of [`ADAM`] and [`AMSGRAD`]. [`Adam::betas`] sets the four that follow from β₁ and β₂.
    Adam {
        /// First word of the range in a replica's vector, a multiple of 4.
        offset: u32,
        /// Words of the range.
        n: u32,
        /// Words a replica, a multiple of 4.
        stride: u32,
        /// 1 − β₁, rounded once: the difference of rounded numbers would lose digits.
        fresh1: f32,
        /// 1 − β₂.
        fresh2: f32,
        /// ln β₁.
        log_beta1: f32,
        /// ln β₂.
        log_beta2: f32,
        /// Added to the root of the corrected second moment.
        epsilon: f32,
        /// Weight decay.
        weight_decay: f32,
        /// 0: decay is added to the gradient (Adam with L2); 1: it shrinks the parameters
        /// directly (AdamW).
        decoupled: u32,
        /// Factor on the gradient.
        scale: f32,
        /// 1 multiplies the gradient by `clip[r]`, too.
        clipped: u32,
        /// Factor on the record's learning rate.
        rate: f32,
    }
);

impl Adam {
    /// Sets what follows from β₁ and β₂, computed in double precision. Both lie in [0, 1).
    pub fn betas(mut self, beta1: f64, beta2: f64) -> Self {
        self.fresh1 = (1.0 - beta1) as f32;
        self.fresh2 = (1.0 - beta2) as f32;
        // Of 0, a number whose exponential is 0.
        let log = |beta: f64| beta.ln().max(-1e4) as f32;
        (self.log_beta1, self.log_beta2) = (log(beta1), log(beta2));
        self
    }
}

/// From here on a second moment counts as past the largest number of single precision.
pub const OVERFLOWN: f32 = 3.4e38;

/// How Adam steps in one replica.
struct AdamStep<F> {
    first: bool,
    rate: F,
    scale: F,
    l2: F,
    shrink: F,
    /// 1 − β₁ᵗ
    correction1: F,
    /// √(1 − β₂ᵗ)
    correction2: F,
}

impl<F: Real> AdamStep<F> {
    /// That of replica `r`, unless it rests.
    fn new(p: &Adam, state: &[u32], clip: &[F], r: usize) -> Option<Self> {
        let (step, rate) = step_and_rate::<F>(state, r, p.rate)?;
        let (decay, t) = (F::of(p.weight_decay), F::of((step + 1) as f32));
        let decoupled = p.decoupled != 0;
        Some(AdamStep {
            first: step == 0,
            rate,
            scale: gradient_scale(p.scale, p.clipped, clip, r),
            l2: if decoupled { F::zero() } else { decay },
            shrink: if decoupled { rate * decay } else { F::zero() },
            correction1: -(t * F::of(p.log_beta1)).exp_m1(),
            correction2: (-(t * F::of(p.log_beta2)).exp_m1()).sqrt(),
        })
    }

    /// The moments after the gradient `g` of a parameter w.
    fn moments(&self, p: &Adam, w: F, g: F, (m, v): (F, F)) -> (F, F) {
        let g = self.scale * g + self.l2 * w;
        let (m, v) = if self.first { (F::zero(), F::zero()) } else { (m, v) };
        // What is past the largest number stays there; ∞ − ∞ would be no number.
        let next = if v < F::of(OVERFLOWN) { v + F::of(p.fresh2) * (g * g - v) } else { v };
        (m + F::of(p.fresh1) * (g - m), next)
    }

    /// A parameter after a step along `m` by the second moment `v`.
    fn step(&self, p: &Adam, w: F, m: F, v: F) -> F {
        let d = m / (v.sqrt() / self.correction2 + F::of(p.epsilon));
        w - self.shrink * w - self.rate / self.correction1 * d
    }
}

/// Adam (Kingma and Ba 2015, Algorithm 1) and AdamW (Loshchilov and Hutter 2019, Algorithm 2),
/// with ε added to the root of the corrected second moment as in `torch.optim`. Shapes:
/// `parameters`, `gradients`, `moment1`, `moment2` `[R, stride]`, `state` `[R, 64]`,
/// `clip` `[R]`.
pub fn adam<F: Real>(
    p: &Adam,
    replicas: usize,
    parameters: &mut [F],
    gradients: &[F],
    moment1: &mut [F],
    moment2: &mut [F],
    state: &[u32],
    clip: &[F],
) {
    let moments = (moment1, moment2);
    steps(p, replicas, parameters, gradients, moments, (state, clip), |_, _, v| v);
}

/// [`adam`] by the largest second moment so far (AMSGrad; Reddi et al. 2018, Algorithm 2), as in
/// `torch.optim`. Shapes: `parameters`, `gradients`, `moment1`, `moment2`, `largest` `[R, stride]`,
/// `state` `[R, 64]`, `clip` `[R]`.
pub fn amsgrad<F: Real>(
    p: &Adam,
    replicas: usize,
    parameters: &mut [F],
    gradients: &[F],
    moment1: &mut [F],
    moment2: &mut [F],
    state: &[u32],
    clip: &[F],
    largest: &mut [F],
) {
    let moments = (moment1, moment2);
    steps(p, replicas, parameters, gradients, moments, (state, clip), |at, first, v| {
        let before = if first { F::zero() } else { largest[at] };
        // One that is no number is the largest.
        largest[at] = if before.is_nan() || before >= v { before } else { v };
        largest[at]
    });
}

/// The steps of all replicas; `divisor` has the second moment of a place that is divided by.
fn steps<F: Real>(
    p: &Adam,
    replicas: usize,
    parameters: &mut [F],
    gradients: &[F],
    (moment1, moment2): (&mut [F], &mut [F]),
    (state, clip): (&[u32], &[F]),
    mut divisor: impl FnMut(usize, bool, F) -> F,
) {
    for r in 0..replicas {
        let Some(step) = AdamStep::new(p, state, clip, r) else { continue };
        let from = r * p.stride as usize + p.offset as usize;
        for at in from..from + p.n as usize {
            let (w, old) = (parameters[at], (moment1[at], moment2[at]));
            let (m, v) = step.moments(p, w, gradients[at], old);
            (moment1[at], moment2[at]) = (m, v);
            parameters[at] = step.step(p, w, m, divisor(at, step.first, v));
        }
    }
}

kernel! {
    /// Adam and AdamW.
    ADAM = "optimizer/adam", Adam;
    bindings: [
        parameters: write f32, gradients: read f32, moment1: write f32, moment2: write f32,
        state: read u32, clip: read f32
    ];
    reference: adam;
    variants: [{
        name: "vec4",
        source: "optimizer/adam.wgsl",
        preludes: [INDEX, LANES, STATE, ADAM],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.n.div_ceil(4) as usize, v.constant("GROUP")),
    }];
}

kernel! {
    /// Adam and AdamW by the largest second moment so far.
    AMSGRAD = "optimizer/amsgrad", Adam;
    bindings: [
        parameters: write f32, gradients: read f32, moment1: write f32, moment2: write f32,
        state: read u32, clip: read f32, largest: write f32
    ];
    reference: amsgrad;
    variants: [{
        name: "vec4",
        source: "optimizer/adam.wgsl",
        preludes: [INDEX, LANES, STATE, AMSGRAD],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.n.div_ceil(4) as usize, v.constant("GROUP")),
    }];
}
