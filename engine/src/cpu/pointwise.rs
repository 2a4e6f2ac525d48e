//! Pointwise kernels: elements in parallel and in vectors.

pub(super) mod binary;
pub(super) mod cast;
pub(super) mod copy;
pub(super) mod softmax;
pub(super) mod strided;
pub(super) mod swiglu;

use fearless_simd::Simd;
use fearless_simd::prelude::*;
use tern_shaders::kernels::pointwise::{ActivationBackward, ActivationForward};
use tern_shaders::{Activation, Arg, ReferenceFn};

use super::isa::with_vectors;
use super::parallel::rows;
use super::vector::{assign, exp, put, sigmoid, splat, tanh};

pub(super) static TABLE: &[(&str, ReferenceFn<f32>)] = &[
    ("pointwise/activation_forward", activation_forward),
    ("pointwise/activation_backward", activation_backward),
];

#[inline(always)]
fn gelu_tanh<S: Simd>(s: S, x: S::f32s) -> S::f32s {
    tanh(s, x * (x * x).mul_add(splat(s, 0.035_677_407), splat(s, 0.797_884_6)))
}

/// The share of the normal distribution below x, and e^(−x²/2). The share past |x| is a fit in
/// t = 1 / (1 + 0.21 |x|), as in `shaders/preludes/activation.wgsl`.
#[inline(always)]
fn normal<S: Simd>(s: S, x: S::f32s) -> (S::f32s, S::f32s) {
    let one = splat(s, 1.0);
    let t = one / x.abs().mul_add(splat(s, 0.21), one);
    let mut q = splat(s, -0.071_656_28);
    for coefficient in [
        0.283_588_4,
        -0.330_253_1,
        0.349_400_67,
        -0.093_924_99,
        0.124_872_64,
        0.069_192_19,
        0.085_068_86,
        0.083_711_58,
    ] {
        q = q.mul_add(t, splat(s, coefficient));
    }
    let density = exp(s, x * x * -0.5);
    let past = q * t * density;
    (x.simd_lt(splat(s, 0.0)).select(past, one - past), density)
}

/// y = f(x)
pub(super) fn activate(kind: Activation, x: &[f32], y: &mut [f32]) {
    with_vectors!(s => activate_in(s, kind, x, y));
}

#[inline(always)]
fn activate_in<S: Simd>(s: S, kind: Activation, x: &[f32], y: &mut [f32]) {
    let zero = splat(s, 0.0);
    match kind {
        Activation::Identity => y.copy_from_slice(x),
        Activation::Relu => put(
            s,
            [x],
            false,
            y,
            // Not the maximum, which could hide a NaN.
            #[inline(always)]
            |[x]| x.simd_le(zero).select(zero, x),
        ),
        Activation::Sigmoid => put(
            s,
            [x],
            false,
            y,
            #[inline(always)]
            |[x]| sigmoid(s, x),
        ),
        Activation::Tanh => put(
            s,
            [x],
            false,
            y,
            #[inline(always)]
            |[x]| tanh(s, x),
        ),
        Activation::LeakyRelu => put(
            s,
            [x],
            false,
            y,
            #[inline(always)]
            |[x]| x.simd_gt(zero).select(x, x * 0.01),
        ),
        Activation::Gelu => put(
            s,
            [x],
            false,
            y,
            #[inline(always)]
            |[x]| x * normal(s, x).0,
        ),
        Activation::GeluTanh => put(
            s,
            [x],
            false,
            y,
            #[inline(always)]
            |[x]| {
                let half = x * 0.5;
                half.mul_add(gelu_tanh(s, x), half)
            },
        ),
        Activation::Silu => put(
            s,
            [x],
            false,
            y,
            #[inline(always)]
            |[x]| x * sigmoid(s, x),
        ),
        other => y.iter_mut().zip(x).for_each(|(y, x)| *y = tern_shaders::activate(other, *x)),
    }
}

/// dx (+)= dy · f'(x); y = f(x)
#[inline(always)]
fn activate_gradient<S: Simd>(
    s: S,
    kind: Activation,
    [x, y, dy]: [&[f32]; 3],
    accumulate: bool,
    dx: &mut [f32],
) {
    let (zero, one) = (splat(s, 0.0), splat(s, 1.0));
    match kind {
        Activation::Identity => assign(s, dy, accumulate, dx),
        Activation::Relu => put(
            s,
            [x, dy],
            accumulate,
            dx,
            #[inline(always)]
            |[x, dy]| dy * x.simd_le(zero).select(zero, one),
        ),
        Activation::Sigmoid => put(
            s,
            [y, dy],
            accumulate,
            dx,
            #[inline(always)]
            |[y, dy]| dy * (y * (one - y)),
        ),
        Activation::Tanh => put(
            s,
            [y, dy],
            accumulate,
            dx,
            #[inline(always)]
            |[y, dy]| dy * (one - y * y),
        ),
        Activation::LeakyRelu => put(
            s,
            [x, dy],
            accumulate,
            dx,
            #[inline(always)]
            |[x, dy]| dy * x.simd_gt(zero).select(one, splat(s, 0.01)),
        ),
        Activation::Gelu => put(
            s,
            [x, dy],
            accumulate,
            dx,
            #[inline(always)]
            |[x, dy]| {
                let (below, density) = normal(s, x);
                dy * (x * density).mul_add(splat(s, 0.398_942_3), below)
            },
        ),
        Activation::GeluTanh => put(
            s,
            [x, dy],
            accumulate,
            dx,
            #[inline(always)]
            |[x, dy]| {
                let t = gelu_tanh(s, x);
                let inner = (x * x).mul_add(splat(s, 0.107_032_22), splat(s, 0.797_884_6));
                let slope = x * (one - t * t) * inner;
                dy * ((one + t + slope) * 0.5)
            },
        ),
        Activation::Silu => put(
            s,
            [x, dy],
            accumulate,
            dx,
            #[inline(always)]
            |[x, dy]| {
                let sigmoid = sigmoid(s, x);
                dy * (one - sigmoid).mul_add(x * sigmoid, sigmoid)
            },
        ),
        other => {
            for ((x, y), (dy, dx)) in x.iter().zip(y).zip(dy.iter().zip(dx)) {
                let gradient = dy * tern_shaders::activate_gradient(other, *x, *y);
                *dx = if accumulate { *dx + gradient } else { gradient };
            }
        }
    }
}

fn activation_forward(p: &[u8], _replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &ActivationForward = bytemuck::from_bytes(p);
    let [x, y] = args else { unreachable!("two bindings") };
    let x = x.real();
    rows(y.real_mut(), 1, 4, |first, y| {
        activate(Activation::of(p.kind), &x[first..][..y.len()], y);
    });
}

fn activation_backward(p: &[u8], _replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &ActivationBackward = bytemuck::from_bytes(p);
    let [x, y, dy, dx] = args else { unreachable!("four bindings") };
    let all = [x.real(), y.real(), dy.real()];
    let (kind, accumulate) = (Activation::of(p.kind), p.accumulate != 0);
    rows(dx.real_mut(), 1, 4, |first, dx| {
        let all = all.map(|x| &x[first..][..dx.len()]);
        with_vectors!(s => activate_gradient(s, kind, all, accumulate, dx));
    });
}
