//! Pointwise kernels.

use crate::activation::{Activation, activate, activate_gradient};
use crate::{Kernel, Real, kernel, linear_grid, params};

params!(
    /// Parameters of [`ACTIVATION_FORWARD`].
    ActivationForward {
        /// Elements a replica.
        n: u32,
        /// [`Activation`] as a number.
        kind: u32,
    }
);

params!(
    /// Parameters of [`ACTIVATION_BACKWARD`].
    ActivationBackward {
        /// Elements a replica.
        n: u32,
        /// [`Activation`] as a number.
        kind: u32,
        /// 1 adds to `dx`, 0 overwrites it.
        accumulate: u32,
    }
);

/// y = f(x). Shapes: `x`, `y` `[R, n]`.
pub fn activation_forward<F: Real>(p: &ActivationForward, replicas: usize, x: &[F], y: &mut [F]) {
    for at in 0..replicas * p.n as usize {
        y[at] = activate(Activation::of(p.kind), x[at]);
    }
}

/// dx (+)= dy · f'(x). Shapes: all `[R, n]`.
pub fn activation_backward<F: Real>(
    p: &ActivationBackward,
    replicas: usize,
    x: &[F],
    y: &[F],
    dy: &[F],
    dx: &mut [F],
) {
    for at in 0..replicas * p.n as usize {
        let g = dy[at] * activate_gradient(Activation::of(p.kind), x[at], y[at]);
        dx[at] = if p.accumulate != 0 { dx[at] + g } else { g };
    }
}

kernel! {
    /// y = f(x), element by element.
    ACTIVATION_FORWARD = "pointwise/activation_forward", ActivationForward;
    bindings: [x: read f32, y: write f32];
    twin: activation_forward;
    variants: [{
        name: "plain",
        source: "pointwise/activation_forward.wgsl",
        preludes: [INDEX, ACTIVATION],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.n as usize, v.constant("GROUP")),
    }];
}

kernel! {
    /// dx (+)= dy · f'(x), element by element.
    ACTIVATION_BACKWARD = "pointwise/activation_backward", ActivationBackward;
    bindings: [x: read f32, y: read f32, dy: read f32, dx: write f32];
    twin: activation_backward;
    variants: [{
        name: "plain",
        source: "pointwise/activation_backward.wgsl",
        preludes: [INDEX, ACTIVATION],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.n as usize, v.constant("GROUP")),
    }];
}

/// Kernels of this family.
pub static KERNELS: &[&Kernel] = &[&ACTIVATION_FORWARD, &ACTIVATION_BACKWARD];
