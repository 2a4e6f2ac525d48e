//! Softmax and log-softmax: wide rows one by one, narrow ones many at a time.

use fearless_simd::Simd;
use fearless_simd::prelude::*;
use tern_shaders::kernels::pointwise::{SoftmaxBackward, SoftmaxForward};
use tern_shaders::{Arg, ReferenceFn};

use crate::cpu::isa::with_vectors;
use crate::cpu::parallel::rows;
use crate::cpu::planes::{NARROW, NO_PLANES, Planes, ROWS, join, split};
use crate::cpu::vector::{exp, lanes, largest, ln, load, put, rewrite, splat, store, sum};

pub(in crate::cpu) static TABLE: &[(&str, ReferenceFn<f32>)] =
    &[("pointwise/softmax_forward", forward), ("pointwise/softmax_backward", backward)];

/// log Σ e^x in two parts, whose sum as one number would lose the second beside a large first: the
/// largest x, and what the others add.
#[inline(always)]
pub(in crate::cpu) fn log_sum_exp<S: Simd>(s: S, x: &[f32]) -> [f32; 2] {
    let top = largest(s, x);
    let shift = splat(s, top);
    let sum = sum(
        s,
        [x],
        #[inline(always)]
        |[x]| exp(s, x - shift),
    );
    [top, sum.ln()]
}

/// The largest element of each of a vector of rows from `at` on, `width` planes.
#[inline(always)]
fn tops<S: Simd>(s: S, planes: &Planes, width: usize, at: usize) -> S::f32s {
    let mut top = splat(s, f32::NEG_INFINITY);
    for c in 0..width {
        let x = load::<S, S::f32s>(s, &planes[c * ROWS + at..]);
        top = x.simd_gt(top).select(x, top);
    }
    top
}

/// [`log_sum_exp`] of a vector of rows.
#[inline(always)]
fn log_sum_exp_at<S: Simd>(s: S, planes: &Planes, width: usize, at: usize) -> [S::f32s; 2] {
    let top = tops(s, planes, width, at);
    let mut sum = splat(s, 0.0);
    for c in 0..width {
        sum += exp(s, load::<S, S::f32s>(s, &planes[c * ROWS + at..]) - top);
    }
    [top, ln(s, sum)]
}

/// [`log_sum_exp`] of the rows of a block, all first parts and all second ones.
#[inline(always)]
pub(in crate::cpu) fn log_sum_exps<S: Simd>(
    s: S,
    planes: &Planes,
    width: usize,
    [tops, rests]: &mut [[f32; ROWS]; 2],
) {
    for at in (0..ROWS).step_by(lanes::<S>()) {
        let [top, rest] = log_sum_exp_at(s, planes, width, at);
        store(&mut tops[at..], top);
        store(&mut rests[at..], rest);
    }
}

#[inline(always)]
fn row<S: Simd>(s: S, x: &[f32], logarithm: bool, y: &mut [f32]) {
    if logarithm {
        let [top, rest] = log_sum_exp(s, x).map(|part| splat(s, part));
        put(
            s,
            [x],
            false,
            y,
            #[inline(always)]
            |[x]| x - top - rest,
        );
    } else {
        let top = splat(s, largest(s, x));
        put(
            s,
            [x],
            false,
            y,
            #[inline(always)]
            |[x]| exp(s, x - top),
        );
        let total = sum(
            s,
            [y],
            #[inline(always)]
            |[y]| y,
        );
        rewrite(
            s,
            [],
            [y],
            #[inline(always)]
            |[], [y]| [y * (1.0 / total)],
        );
    }
}

#[inline(always)]
fn row_gradient<S: Simd>(
    s: S,
    y: &[f32],
    dy: &[f32],
    (logarithm, accumulate): (bool, bool),
    dx: &mut [f32],
) {
    if logarithm {
        let total = sum(
            s,
            [dy],
            #[inline(always)]
            |[dy]| dy,
        );
        let total = splat(s, total);
        put(
            s,
            [y, dy],
            accumulate,
            dx,
            #[inline(always)]
            |[y, dy]| dy - exp(s, y) * total,
        );
    } else {
        let total = sum(
            s,
            [y, dy],
            #[inline(always)]
            |[y, dy]| y * dy,
        );
        let total = splat(s, total);
        put(
            s,
            [y, dy],
            accumulate,
            dx,
            #[inline(always)]
            |[y, dy]| y * (dy - total),
        );
    }
}

/// Softmax of narrow rows.
#[inline(always)]
fn narrow<S: Simd>(s: S, x: &[f32], width: usize, logarithm: bool, y: &mut [f32]) {
    let mut planes = NO_PLANES;
    for (x, y) in x.chunks(ROWS * width).zip(y.chunks_mut(ROWS * width)) {
        split(s, x, width, &mut planes);
        for at in (0..ROWS).step_by(lanes::<S>()) {
            if logarithm {
                let [top, rest] = log_sum_exp_at(s, &planes, width, at);
                for c in 0..width {
                    let plane = &mut planes[c * ROWS + at..];
                    let y = load::<S, S::f32s>(s, plane) - top - rest;
                    store(plane, y);
                }
            } else {
                let top = tops(s, &planes, width, at);
                let mut sum = splat(s, 0.0);
                for c in 0..width {
                    let plane = &mut planes[c * ROWS + at..];
                    let y = exp(s, load::<S, S::f32s>(s, plane) - top);
                    store(plane, y);
                    sum += y;
                }
                let scale = splat(s, 1.0) / sum;
                for c in 0..width {
                    let plane = &mut planes[c * ROWS + at..];
                    let y = load::<S, S::f32s>(s, plane) * scale;
                    store(plane, y);
                }
            }
        }
        join(s, &planes, width, false, y);
    }
}

/// Gradient of narrow rows.
#[inline(always)]
fn narrow_gradient<S: Simd>(
    s: S,
    [y, dy]: [&[f32]; 2],
    width: usize,
    (logarithm, accumulate): (bool, bool),
    dx: &mut [f32],
) {
    let mut all = [NO_PLANES; 2];
    let block = ROWS * width;
    for (i, dx) in dx.chunks_mut(block).enumerate() {
        for (x, planes) in [y, dy].into_iter().zip(&mut all) {
            split(s, &x[i * block..][..dx.len()], width, planes);
        }
        let [y, dy] = &mut all;
        for at in (0..ROWS).step_by(lanes::<S>()) {
            let mut total = splat(s, 0.0);
            for c in 0..width {
                let place = c * ROWS + at;
                let d = load::<S, S::f32s>(s, &dy[place..]);
                total += if logarithm { d } else { d * load::<S, S::f32s>(s, &y[place..]) };
            }
            for c in 0..width {
                let place = c * ROWS + at;
                let (y, d) =
                    (load::<S, S::f32s>(s, &y[place..]), load::<S, S::f32s>(s, &dy[place..]));
                let d = if logarithm { d - exp(s, y) * total } else { y * (d - total) };
                store(&mut dy[place..], d);
            }
        }
        join(s, dy, width, accumulate, dx);
    }
}

fn forward(p: &[u8], _replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &SoftmaxForward = bytemuck::from_bytes(p);
    let [x, y] = args else { unreachable!("two bindings") };
    let (x, classes, logarithm) = (x.real(), p.classes as usize, p.logarithm != 0);
    rows(y.real_mut(), classes, 4 * classes, |first, y| {
        let x = &x[first * classes..][..y.len()];
        with_vectors!(s => if classes <= NARROW {
            narrow(s, x, classes, logarithm, y);
        } else {
            for (x, y) in x.chunks_exact(classes).zip(y.chunks_exact_mut(classes)) {
                row(s, x, logarithm, y);
            }
        });
    });
}

fn backward(p: &[u8], _replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &SoftmaxBackward = bytemuck::from_bytes(p);
    let [y, dy, dx] = args else { unreachable!("three bindings") };
    let (y, dy, classes) = (y.real(), dy.real(), p.classes as usize);
    let flags = (p.logarithm != 0, p.accumulate != 0);
    rows(dx.real_mut(), classes, 4 * classes, |first, dx| {
        let (y, dy) = (&y[first * classes..][..dx.len()], &dy[first * classes..][..dx.len()]);
        with_vectors!(s => if classes <= NARROW {
            narrow_gradient(s, [y, dy], classes, flags, dx);
        } else {
            let rows = y.chunks_exact(classes).zip(dy.chunks_exact(classes));
            for ((y, dy), dx) in rows.zip(dx.chunks_exact_mut(classes)) {
                row_gradient(s, y, dy, flags, dx);
            }
        });
    });
}
