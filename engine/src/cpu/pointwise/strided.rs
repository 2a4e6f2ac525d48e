//! Elements moved by strides, or chosen by a condition.

use fearless_simd::Simd;
use fearless_simd::prelude::*;
use tern_shaders::kernels::pointwise::{StridedCopy, WhereBackward, WhereForward};
use tern_shaders::{Arg, ReferenceFn};

use crate::cpu::isa::with_vectors;
use crate::cpu::mixed::{get, set};
use crate::cpu::parallel::rows;
use crate::cpu::vector::{assign, lanes, splat};

pub(in crate::cpu) static TABLE: &[(&str, ReferenceFn<f32>)] = &[
    ("pointwise/strided_copy", strided_copy),
    ("pointwise/where_forward", where_forward),
    ("pointwise/where_backward", where_backward),
];

/// Elements that are gathered before they are added.
const PART: usize = 64;

/// A row, the innermost axis: `count` elements of x from `from` on, `step` apart.
fn row(x: &[f32], from: u32, step: u32, accumulate: bool, y: &mut [f32]) {
    if step == 1 {
        let x = &x[from as usize..][..y.len()];
        return with_vectors!(s => assign(s, x, accumulate, y));
    }
    let mut gathered = [0.0; PART];
    let mut at = from;
    for y in y.chunks_mut(PART) {
        let part = &mut gathered[..y.len()];
        for value in &mut *part {
            *value = x[at as usize];
            at = at.wrapping_add(step);
        }
        match accumulate {
            true => with_vectors!(s => assign(s, part, true, y)),
            false => y.copy_from_slice(part),
        }
    }
}

fn strided_copy(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &StridedCopy = bytemuck::from_bytes(p);
    let [x, y] = args else { unreachable!("two bindings") };
    let (x, y, accumulate) = (x.real(), y.real_mut(), p.accumulate != 0);
    let (sizes, [.., step]) = (p.sizes(), p.x_strides());
    let lines = sizes[0] * sizes[1] * sizes[2];
    let start = |offset: u32, strides: [u32; 4], line: u32| {
        let index = [line / sizes[2] / sizes[1], line / sizes[2] % sizes[1], line % sizes[2]];
        let steps = strides.iter().zip(index).map(|(stride, i)| stride.wrapping_mul(i));
        steps.fold(offset, u32::wrapping_add)
    };
    let from = |r: u32, line| start(r * p.x_replica + p.x_offset, p.x_strides(), line);
    let width = sizes[3] as usize;
    let dense = [sizes[1] * sizes[2] * sizes[3], sizes[2] * sizes[3], sizes[3], 1];
    let strides = p.y_strides();
    let is_dense = (0..4).all(|axis| sizes[axis] == 1 || strides[axis] == dense[axis]);
    if is_dense && p.y_offset == 0 && p.y_replica == lines * sizes[3] {
        let y = &mut y[..replicas * lines as usize * width];
        return rows(y, width, width, |first, y| {
            for (line, y) in (first as u32..).zip(y.chunks_exact_mut(width)) {
                row(x, from(line / lines, line % lines), step, accumulate, y);
            }
        });
    }
    for r in 0..replicas as u32 {
        for line in 0..lines {
            let to = start(r * p.y_replica + p.y_offset, p.y_strides(), line);
            if p.y_stride3 == 1 {
                row(x, from(r, line), step, accumulate, &mut y[to as usize..][..width]);
                continue;
            }
            let (mut at, mut to) = (from(r, line), to);
            for _ in 0..width {
                let value = x[at as usize];
                let y = &mut y[to as usize];
                *y = if accumulate { *y + value } else { value };
                (at, to) = (at.wrapping_add(step), to.wrapping_add(p.y_stride3));
            }
        }
    }
}

/// y = a where the condition is not 0, b where it is.
#[inline(always)]
fn choose<S: Simd>(s: S, condition: &[u32], [a, b]: [&[f32]; 2], y: &mut [f32]) {
    let (width, zero) = (lanes::<S>(), S::u32s::splat(s, 0));
    for (i, y) in y.chunks_mut(width).enumerate() {
        let (at, n) = (i * width, y.len());
        let none = get::<S, S::u32s>(s, &condition[at..], n).simd_eq(zero);
        let a: S::f32s = get(s, &a[at..], n);
        let b: S::f32s = get(s, &b[at..], n);
        set(y, n, none.select(b, a));
    }
}

/// dx (+)= dy where the condition is of the side, else 0.
#[inline(always)]
fn choose_back<S: Simd>(s: S, p: &WhereBackward, condition: &[u32], dy: &[f32], dx: &mut [f32]) {
    let (width, none) = (lanes::<S>(), S::u32s::splat(s, 0));
    let zero = splat(s, 0.0);
    for (i, dx) in dx.chunks_mut(width).enumerate() {
        let (at, n) = (i * width, dx.len());
        let not = get::<S, S::u32s>(s, &condition[at..], n).simd_eq(none);
        let dy: S::f32s = get(s, &dy[at..], n);
        let own = if p.side != 0 { not.select(zero, dy) } else { not.select(dy, zero) };
        let old: S::f32s = get(s, dx, n);
        set(dx, n, if p.accumulate != 0 { old + own } else { own });
    }
}

fn where_forward(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &WhereForward = bytemuck::from_bytes(p);
    let [condition, a, b, y] = args else { unreachable!("four bindings") };
    let (condition, a, b) = (condition.word(), a.real(), b.real());
    rows(&mut y.real_mut()[..replicas * p.n as usize], 1, 1, |first, y| {
        with_vectors!(s => choose(s, &condition[first..], [&a[first..], &b[first..]], y));
    });
}

fn where_backward(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &WhereBackward = bytemuck::from_bytes(p);
    let [condition, dy, dx] = args else { unreachable!("three bindings") };
    let (condition, dy) = (condition.word(), dy.real());
    rows(&mut dx.real_mut()[..replicas * p.n as usize], 1, 1, |first, dx| {
        with_vectors!(s => choose_back(s, p, &condition[first..], &dy[first..], dx));
    });
}
