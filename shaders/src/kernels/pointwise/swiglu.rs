//! SwiGLU: a gate by SiLU, times a value (Shazeer 2020).

use crate::activation::{Activation, activate, activate_gradient};
use crate::{Real, kernel, linear_grid, params};

params!(
    /// Parameters of [`SWIGLU_FORWARD`].
    SwigluForward {
        /// Elements a replica.
        n: u32,
    }
);

params!(
    /// Parameters of [`SWIGLU_BACKWARD`].
    SwigluBackward {
        /// Elements a replica.
        n: u32,
        /// 1 adds to `dgate`, 0 overwrites it, 2 leaves it alone.
        gate_mode: u32,
        /// The same for `dup`.
        up_mode: u32,
    }
);

/// y = gate · σ(gate) · up. Shapes: all `[R, n]`.
pub fn swiglu_forward<F: Real>(
    p: &SwigluForward,
    replicas: usize,
    gate: &[F],
    up: &[F],
    y: &mut [F],
) {
    for at in 0..replicas * p.n as usize {
        y[at] = activate(Activation::Silu, gate[at]) * up[at];
    }
}

/// dgate (+)= dy · up · SiLU'(gate), dup (+)= dy · SiLU(gate). Shapes: all `[R, n]`.
pub fn swiglu_backward<F: Real>(
    p: &SwigluBackward,
    replicas: usize,
    gate: &[F],
    up: &[F],
    dy: &[F],
    dgate: &mut [F],
    dup: &mut [F],
) {
    let put = |mode: u32, to: &mut F, gradient: F| match mode {
        0 => *to = gradient,
        1 => *to += gradient,
        _ => {}
    };
    for at in 0..replicas * p.n as usize {
        let y = activate(Activation::Silu, gate[at]);
        let slope = activate_gradient(Activation::Silu, gate[at], y);
        put(p.gate_mode, &mut dgate[at], dy[at] * up[at] * slope);
        put(p.up_mode, &mut dup[at], dy[at] * y);
    }
}

kernel! {
    /// y = SiLU(gate) · up.
    SWIGLU_FORWARD = "pointwise/swiglu_forward", SwigluForward;
    bindings: [gate: read f32, up: read f32, y: write f32];
    reference: swiglu_forward;
    variants: [{
        name: "plain",
        source: "pointwise/swiglu_forward.wgsl",
        preludes: [INDEX, ACTIVATION],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.n as usize, v.constant("GROUP")),
    }];
}

kernel! {
    /// Gradients of gate and value.
    SWIGLU_BACKWARD = "pointwise/swiglu_backward", SwigluBackward;
    bindings: [gate: read f32, up: read f32, dy: read f32, dgate: write f32, dup: write f32];
    reference: swiglu_backward;
    variants: [{
        name: "plain",
        source: "pointwise/swiglu_backward.wgsl",
        preludes: [INDEX, ACTIVATION],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.n as usize, v.constant("GROUP")),
    }];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_are_the_slopes() {
        let (gate, up, dy) =
            ([-3.0f64, -0.4, 0.0, 2.5], [0.5, -1.0, 2.0, 1.5], [1.0, 2.0, -1.0, 0.5]);
        let y = |gate: f64, up: f64| {
            let mut y = [0.0];
            swiglu_forward(&SwigluForward { n: 1 }, 1, &[gate], &[up], &mut y);
            y[0]
        };
        let (mut dgate, mut dup) = ([1.0; 4], [1.0; 4]);
        let p = SwigluBackward { n: 4, gate_mode: 1, up_mode: 0 };
        swiglu_backward(&p, 1, &gate, &up, &dy, &mut dgate, &mut dup);
        for i in 0..4 {
            let slope = (y(gate[i] + 1e-6, up[i]) - y(gate[i] - 1e-6, up[i])) / 2e-6;
            assert!((1.0 + dy[i] * slope - dgate[i]).abs() < 1e-8, "gate {i}");
            assert!((dy[i] * y(gate[i], 1.0) - dup[i]).abs() < 1e-12, "up {i}");
        }
        let p = SwigluBackward { n: 4, gate_mode: 2, up_mode: 2 };
        let before = (dgate, dup);
        swiglu_backward(&p, 1, &gate, &up, &dy, &mut dgate, &mut dup);
        assert_eq!(before, (dgate, dup));
    }
}
