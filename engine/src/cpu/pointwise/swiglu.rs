//! SwiGLU.

use fearless_simd::Simd;
use fearless_simd::prelude::*;
use tern_shaders::kernels::pointwise::SwigluBackward;
use tern_shaders::{Arg, ReferenceFn};

use crate::cpu::isa::with_vectors;
use crate::cpu::parallel::{rows, rows2};
use crate::cpu::vector::{put, rewrite, sigmoid, splat};

pub(in crate::cpu) static TABLE: &[(&str, ReferenceFn<f32>)] =
    &[("pointwise/swiglu_forward", forward), ("pointwise/swiglu_backward", backward)];

fn forward(_: &[u8], _replicas: usize, args: &mut [Arg<'_, f32>]) {
    let [gate, up, y] = args else { unreachable!("three bindings") };
    let (gate, up) = (gate.real(), up.real());
    rows(y.real_mut(), 1, 8, |first, y| {
        let inputs = [gate, up].map(|x| &x[first..][..y.len()]);
        with_vectors!(s => product(s, inputs, y));
    });
}

#[inline(always)]
fn product<S: Simd>(s: S, inputs: [&[f32]; 2], y: &mut [f32]) {
    put(
        s,
        inputs,
        false,
        y,
        #[inline(always)]
        |[gate, up]| gate * sigmoid(s, gate) * up,
    );
}

/// d SiLU(gate) / d gate, and SiLU(gate).
#[inline(always)]
fn slope<S: Simd>(s: S, gate: S::f32s) -> [S::f32s; 2] {
    let sigmoid = sigmoid(s, gate);
    let silu = gate * sigmoid;
    [(splat(s, 1.0) - sigmoid).mul_add(silu, sigmoid), silu]
}

#[inline(always)]
fn gradients<S: Simd>(
    s: S,
    [gate, up, dy]: [&[f32]; 3],
    modes: [u32; 2],
    dgate: &mut [f32],
    dup: &mut [f32],
) {
    if modes == [0, 0] {
        return rewrite(
            s,
            [gate, up, dy],
            [dgate, dup],
            #[inline(always)]
            |[gate, up, dy], _| {
                let [slope, silu] = slope(s, gate);
                [dy * up * slope, dy * silu]
            },
        );
    }
    if modes[0] < 2 {
        put(
            s,
            [gate, up, dy],
            modes[0] == 1,
            dgate,
            #[inline(always)]
            |[gate, up, dy]| dy * up * slope(s, gate)[0],
        );
    }
    if modes[1] < 2 {
        put(
            s,
            [gate, dy],
            modes[1] == 1,
            dup,
            #[inline(always)]
            |[gate, dy]| dy * slope(s, gate)[1],
        );
    }
}

fn backward(p: &[u8], _replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &SwigluBackward = bytemuck::from_bytes(p);
    let [gate, up, dy, dgate, dup] = args else { unreachable!("five bindings") };
    let inputs = [gate.real(), up.real(), dy.real()];
    rows2((dgate.real_mut(), 1), (dup.real_mut(), 1), 12, |first, dgate, dup| {
        let inputs = inputs.map(|x| &x[first..][..dgate.len()]);
        with_vectors!(s => gradients(s, inputs, [p.gate_mode, p.up_mode], dgate, dup));
    });
}
