//! Moving and scaling: fill, copy of a block, swap of axes, multiplication by a number.

use fearless_simd::Simd;
use tern_shaders::kernels::pointwise::{Copy, Fill, Scale, ScaleBy, Transpose};
use tern_shaders::{Arg, ReferenceFn};

use crate::cpu::isa::with_vectors;
use crate::cpu::parallel::rows;
use crate::cpu::planes::{
    Layout, NARROW, NO_PLANES, PART, ROWS, join, parts_of_columns, take_apart, transpose as turn,
};
use crate::cpu::vector::{assign, inlined, lanes, load, put, splat, store};

pub(in crate::cpu) static TABLE: &[(&str, ReferenceFn<f32>)] = &[
    ("pointwise/scale", scale),
    ("pointwise/scale_by", scale_by),
    ("pointwise/fill", fill),
    ("pointwise/copy", copy),
    ("pointwise/transpose", transpose),
];

/// y (+)= factor · x
fn scaled(factor: f32, x: &[f32], accumulate: bool, y: &mut [f32]) {
    rows(y, 1, 1, |first, y| {
        with_vectors!(s => put(
            s,
            [&x[first..]],
            accumulate,
            y,
            #[inline(always)]
            |[x]| x * splat(s, factor),
        ));
    });
}

fn scale(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Scale = bytemuck::from_bytes(p);
    let [x, y] = args else { unreachable!("two bindings") };
    let n = replicas * p.n as usize;
    scaled(p.factor, &x.real()[..n], p.accumulate != 0, &mut y.real_mut()[..n]);
}

fn scale_by(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &ScaleBy = bytemuck::from_bytes(p);
    let [x, scalar, y] = args else { unreachable!("three bindings") };
    let n = p.n as usize;
    let all = y.real_mut()[..replicas * n].chunks_exact_mut(n).zip(x.real().chunks_exact(n));
    for ((y, x), scalar) in all.zip(scalar.real()) {
        scaled(p.factor * scalar, x, p.accumulate != 0, y);
    }
}

fn fill(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Fill = bytemuck::from_bytes(p);
    let [y] = args else { unreachable!("one binding") };
    let y = y.real_mut();
    for r in 0..replicas {
        let first = r * p.stride as usize + p.offset as usize;
        rows(&mut y[first..][..p.n as usize], 1, 1, |_, y| y.fill(p.value));
    }
}

/// Rows that are moved together.
const TOGETHER: usize = 4;

/// y\[row\] (+)= x\[row\], `width` elements of each, for the rows of `y` that begin in it.
#[inline(always)]
fn move_rows<S: Simd>(
    s: S,
    (x, x_row): (&[f32], usize),
    (y, y_row): (&mut [f32], usize),
    width: usize,
    accumulate: bool,
) {
    let few = inlined(
        #[inline(always)]
        |width: usize, y: &mut [f32]| {
            for (x, y) in x.chunks(x_row).zip(y.chunks_mut(y_row)) {
                for (x, y) in x[..width].iter().zip(&mut y[..width]) {
                    *y = if accumulate { *y + x } else { *x };
                }
            }
        },
    );
    match width {
        1 => few(1, y),
        2 => few(2, y),
        3 => few(3, y),
        4 => few(4, y),
        _ if width < lanes::<S>() => few(width, y),
        _ => {
            // Vectors of several rows in turn: memory is waited for in all of them at once.
            let whole = width - width % lanes::<S>();
            for (x, y) in x.chunks(TOGETHER * x_row).zip(y.chunks_mut(TOGETHER * y_row)) {
                let count = y.len().div_ceil(y_row);
                for at in (0..whole).step_by(lanes::<S>()) {
                    for row in 0..count {
                        let mut vector: S::f32s = load(s, &x[row * x_row + at..]);
                        let y = &mut y[row * y_row + at..];
                        if accumulate {
                            vector += load::<S, S::f32s>(s, y);
                        }
                        store(y, vector);
                    }
                }
                for (x, y) in x.chunks(x_row).zip(y.chunks_mut(y_row)) {
                    assign(s, &x[whole..width], accumulate, &mut y[whole..width]);
                }
            }
        }
    }
}

fn copy(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Copy = bytemuck::from_bytes(p);
    let [x, y] = args else { unreachable!("two bindings") };
    let (x, y, count, width) = (x.real(), y.real_mut(), p.rows as usize, p.width as usize);
    let (x_row, y_row, accumulate) = (p.x_row as usize, p.y_row as usize, p.accumulate != 0);
    for r in 0..replicas {
        let x = &x[r * p.x_stride as usize + p.x_offset as usize..];
        let y = &mut y[r * p.y_stride as usize + p.y_offset as usize..];
        if count < 2 || (x_row == width && y_row == width) {
            scaled(1.0, x, accumulate, &mut y[..count * width]);
        } else if x_row < width || y_row < width {
            // Rows that overlap, one after another.
            for row in 0..count {
                scaled(1.0, &x[row * x_row..], accumulate, &mut y[row * y_row..][..width]);
            }
        } else {
            rows(&mut y[..(count - 1) * y_row + width], y_row, width, |first, y| {
                let x = (&x[first * x_row..], x_row);
                with_vectors!(s => move_rows(s, x, (y, y_row), width, accumulate));
            });
        }
    }
}

/// Runs of the first axis that are moved before those of the next number of the second, so that
/// the lines of memory that they share stay in the cache.
const BLOCK: usize = 64;

/// y\[j\]\[i\] (+)= x\[i\]\[j\] for `count` of the `b` columns.
#[inline(always)]
fn turn_columns<S: Simd>(
    s: S,
    x: &[f32],
    [a, b, count]: [usize; 3],
    accumulate: bool,
    y: &mut [f32],
) {
    let at = Layout { rows: a, columns: count, from: b, to: a, accumulate };
    turn(s, at, x, y);
}

/// y\[j\]\[i\] (+)= x\[i\]\[j\] for `count` of the `b` columns, of few rows.
#[inline(always)]
fn put_together<S: Simd>(
    s: S,
    x: &[f32],
    [a, b, count]: [usize; 3],
    accumulate: bool,
    y: &mut [f32],
) {
    let mut planes = NO_PLANES;
    for first in (0..count).step_by(ROWS) {
        let n = ROWS.min(count - first);
        for (plane, x) in planes.chunks_exact_mut(ROWS).zip(x.chunks(b)).take(a) {
            plane[..n].copy_from_slice(&x[first..][..n]);
        }
        join(s, &planes, a, accumulate, &mut y[first * a..][..n * a]);
    }
}

fn transpose(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Transpose = bytemuck::from_bytes(p);
    let [x, y] = args else { unreachable!("two bindings") };
    let (a, b, inner) = (p.a as usize, p.b as usize, p.inner as usize);
    let (accumulate, all) = (p.accumulate != 0, replicas * p.outer as usize * a * b * inner);
    let (x, width) = (&x.real()[..all], a * inner);
    let y = &mut y.real_mut()[..all];
    if inner == 1 && b <= NARROW && a > PART {
        // Few long columns, of which threads take parts.
        for (x, y) in x.chunks_exact(a * b).zip(y.chunks_exact_mut(a * b)) {
            parts_of_columns(y, a, |first, columns| {
                let x = &x[first * b..][..columns[0].len() * b];
                with_vectors!(s => take_apart(s, x, columns, accumulate));
            });
        }
        return;
    }
    rows(y, width, width, |first, y| {
        let mut at = 0;
        while at * width < y.len() {
            let (outer, j) = ((first + at) / b, (first + at) % b);
            let count = (b - j).min(y.len() / width - at);
            let x = &x[(outer * a * b + j) * inner..];
            let y = &mut y[at * width..];
            with_vectors!(s => if inner == 1 && a <= NARROW && count >= ROWS {
                put_together(s, x, [a, b, count], accumulate, y);
            } else if inner == 1 {
                turn_columns(s, x, [a, b, count], accumulate, y);
            } else {
                for block in (0..a).step_by(BLOCK) {
                    let n = BLOCK.min(a - block);
                    for j in 0..count {
                        let x = &x[(block * b + j) * inner..];
                        let y = &mut y[j * width + block * inner..][..n * inner];
                        move_rows(s, (x, b * inner), (y, inner), inner, accumulate);
                    }
                }
            });
            at += count;
        }
    });
}
