//! Pointwise kernels.
//!
//! ```rust
//! use tern_shaders::Activation;
//! use tern_shaders::kernels::pointwise::*;
//!
//! let mut y = [0.0f32; 4];
//! let p = ActivationForward { n: 4, kind: Activation::Relu as u32 };
//! activation_forward(&p, 1, &[-1.0, 2.0, 3.0, -4.0], &mut y);
//! assert_eq!(y, [0.0, 2.0, 3.0, 0.0]);
//! // A row of two numbers, added to both rows.
//! let p = BinaryForward { n: 4, period: 2, kind: Binary::Add as u32 };
//! let mut z = [0.0; 4];
//! binary_forward(&p, 1, &y, &[10.0, 20.0], &mut z);
//! assert_eq!(z, [10.0, 22.0, 13.0, 20.0]);
//! ```

mod binary;
mod cast;
mod copy;
mod softmax;
mod strided;
mod swiglu;

pub use binary::*;
pub use cast::*;
pub use copy::*;
pub use softmax::*;
pub use strided::*;
pub use swiglu::*;

use crate::activation::{Activation, activate, activate_gradient};
use crate::{AnyKernel, Real, kernel, linear_grid, params};

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
    reference: activation_forward;
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
    reference: activation_backward;
    variants: [{
        name: "plain",
        source: "pointwise/activation_backward.wgsl",
        preludes: [INDEX, ACTIVATION],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.n as usize, v.constant("GROUP")),
    }];
}

/// Kernels of this family.
pub static KERNELS: &[&AnyKernel] = &[
    ACTIVATION_FORWARD.any(),
    ACTIVATION_BACKWARD.any(),
    BINARY_FORWARD.any(),
    BINARY_BACKWARD_LEFT.any(),
    BINARY_BACKWARD_RIGHT.any(),
    SOFTMAX_FORWARD.any(),
    SOFTMAX_BACKWARD.any(),
    SWIGLU_FORWARD.any(),
    SWIGLU_BACKWARD.any(),
    SCALE.any(),
    SCALE_BY.any(),
    FILL.any(),
    COPY.any(),
    TO_FLOATS.any(),
    TO_WORDS.any(),
    TRANSPOSE.any(),
    STRIDED_COPY.any(),
    WHERE_FORWARD.any(),
    WHERE_BACKWARD.any(),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activation_gradients_are_the_slopes() {
        for kind in Activation::ALL {
            // None of them at a kink.
            for x in [-3.0f64, -0.7, 0.4, 2.5] {
                let slope = (activate(kind, x + 1e-6) - activate(kind, x - 1e-6)) / 2e-6;
                let p = ActivationBackward { n: 1, kind: kind as u32, accumulate: 1 };
                let mut dx = [1.0];
                activation_backward(&p, 1, &[x], &[activate(kind, x)], &[2.0], &mut dx);
                assert!((1.0 + 2.0 * slope - dx[0]).abs() < 1e-6, "{kind:?} at {x}");
            }
        }
    }
}
