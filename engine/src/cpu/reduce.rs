//! Reductions: in vectors, and in parts whose number depends on sizes alone, so that the result
//! doesn't depend on the threads that share them.

use fearless_simd::Simd;
use fearless_simd::prelude::*;
use rayon::prelude::*;
use tern_shaders::kernels::reduce::{Columns, Rows, RowsBackward, Sum};
use tern_shaders::{Arg, ReferenceFn};

use super::isa::with_vectors;
use super::parallel::rows;
use super::planes::{NARROW, NO_PLANES, Planes, ROWS, join, split};
use super::vector::{
    assign, lanes, larger, largest_or_nan, load, put, rewrite, splat, store, sum as sum_in,
};

pub(super) static TABLE: &[(&str, ReferenceFn<f32>)] = &[
    ("reduce/columns", columns),
    ("reduce/rows", by_rows),
    ("reduce/rows_backward", by_rows_backward),
    ("reduce/sum", sum),
];

/// Elements of a part: enough to be worth a thread.
const PART: usize = 1 << 16;

/// Rows summed before they are added to the total: rounding errors grow with a chain's length.
const BLOCK: usize = 32;

/// Columns of one task: their sums stay in the nearest cache.
const STRIP: usize = 1024;

/// Columns from which on vectors run along a row without loss.
const WIDE: usize = 512;

/// Σ x
#[inline(always)]
fn sum_of<S: Simd>(s: S, x: &[f32]) -> f32 {
    sum_in(
        s,
        [x],
        #[inline(always)]
        |[x]| x,
    )
}

/// Σ x, on several threads if that is worth them.
pub(super) fn total(x: &[f32]) -> f32 {
    if x.len() <= PART {
        return with_vectors!(s => sum_of(s, x));
    }
    let parts: Vec<f32> = x.par_chunks(PART).map(|x| with_vectors!(s => sum_of(s, x))).collect();
    total(&parts)
}

/// Calls `task` for each chunk of `length` words, on several threads if `work` is worth them.
fn chunks(words: &mut [f32], length: usize, work: usize, task: impl Fn(usize, &mut [f32]) + Sync) {
    if work < PART {
        words.chunks_mut(length).enumerate().for_each(|(i, chunk)| task(i, chunk));
    } else {
        words.par_chunks_mut(length).enumerate().for_each(|(i, chunk)| task(i, chunk));
    }
}

/// y += x
fn add_to(y: &mut [f32], x: &[f32]) {
    with_vectors!(s => assign(s, x, true, y));
}

/// out (+)= the sums of the columns of a matrix of `count` rows and as many columns as `out`
/// has: `add` gets the number of an element and adds to sums what stands from there on.
pub(super) fn column_sums(
    count: usize,
    out: &mut [f32],
    accumulate: bool,
    add: impl Fn(usize, &mut [f32]) + Sync,
) {
    let columns = out.len();
    // Narrow rows: several are one row.
    let fold = if columns < WIDE { WIDE.div_ceil(columns).min(count.max(1)) } else { 1 };
    let (count, width, rest) = (count / fold, fold * columns, count % fold * columns);
    let length = PART.div_ceil(width).next_multiple_of(BLOCK);
    let parts = count.div_ceil(length).max(1);
    let mut sums = vec![0.0; parts * width];
    chunks(&mut sums, width, count * width, |part, sums| {
        let rows = part * length..count.min((part + 1) * length);
        chunks(sums, STRIP, rows.len() * width, |strip, sums| {
            let mut block = [0.0; STRIP];
            let block = &mut block[..sums.len()];
            for start in rows.clone().step_by(BLOCK) {
                block.fill(0.0);
                for row in start..rows.end.min(start + BLOCK) {
                    add(row * width + strip * STRIP, block);
                }
                add_to(sums, block);
            }
        });
    });
    add(count * width, &mut sums[..rest]);
    let (first, others) = sums.split_at_mut(width);
    others.chunks_exact(width).for_each(|part| add_to(first, part));
    let (to, others) = first.split_at_mut(columns);
    others.chunks_exact(columns).for_each(|row| add_to(to, row));
    if accumulate {
        add_to(out, to);
    } else {
        out.copy_from_slice(to);
    }
}

fn columns(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Columns = bytemuck::from_bytes(p);
    let [x, out] = args else { unreachable!("two bindings") };
    let (x, out) = (x.real(), out.real_mut());
    let (rows, columns, parts) = (p.rows as usize, p.columns as usize, p.parts as usize);
    let length = rows.div_ceil(parts);
    for r in 0..replicas {
        let x = &x[r * rows * columns..][..rows * columns];
        let out = &mut out[p.out_offset as usize + r * p.out_stride as usize..][..parts * columns];
        for (part, out) in out.chunks_mut(columns).enumerate() {
            let part = rows.min(part * length)..rows.min((part + 1) * length);
            let x = &x[part.start * columns..part.end * columns];
            column_sums(part.len(), out, p.accumulate != 0, |from, sums| {
                with_vectors!(s => rewrite(
                    s,
                    [&x[from..]],
                    [sums],
                    #[inline(always)]
                    |[x], [sum]| [sum + x],
                ));
            });
        }
    }
}

/// out = f of all elements of each of the narrow rows.
#[inline(always)]
fn fold_narrow<S: Simd>(
    s: S,
    x: &[f32],
    columns: usize,
    out: &mut [f32],
    f: impl Fn(S::f32s, S::f32s) -> S::f32s,
) {
    let mut planes = NO_PLANES;
    let mut results = [0.0; ROWS];
    for (x, out) in x.chunks(ROWS * columns).zip(out.chunks_mut(ROWS)) {
        split(s, x, columns, &mut planes);
        for at in (0..ROWS).step_by(lanes::<S>()) {
            let mut result = load::<S, S::f32s>(s, &planes[at..]);
            for c in 1..columns {
                result = f(result, load(s, &planes[c * ROWS + at..]));
            }
            store(&mut results[at..], result);
        }
        out.copy_from_slice(&results[..out.len()]);
    }
}

/// out = factor · Σ of each of the narrow rows.
#[inline(always)]
pub(super) fn sums_of_narrow<S: Simd>(
    s: S,
    factor: f32,
    x: &[f32],
    columns: usize,
    out: &mut [f32],
) {
    fold_narrow(
        s,
        x,
        columns,
        out,
        #[inline(always)]
        |a, b| a + b,
    );
    if factor != 1.0 {
        rewrite(
            s,
            [],
            [out],
            #[inline(always)]
            |[], [sum]| [sum * factor],
        );
    }
}

fn by_rows(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Rows = bytemuck::from_bytes(p);
    let [x, out] = args else { unreachable!("two bindings") };
    let (x, columns) = (x.real(), p.columns as usize);
    let out = &mut out.real_mut()[..replicas * p.rows as usize];
    rows(out, 1, columns, |first, out| {
        let x = &x[first * columns..][..out.len() * columns];
        with_vectors!(s => if columns <= NARROW {
            match p.kind {
                1 => fold_narrow(s, x, columns, out, #[inline(always)] |a, b| larger(s, a, b)),
                2 => sums_of_narrow(s, 1.0 / columns as f32, x, columns, out),
                _ => sums_of_narrow(s, 1.0, x, columns, out),
            }
        } else {
            for (out, row) in out.iter_mut().zip(x.chunks_exact(columns)) {
                *out = match p.kind {
                    1 => largest_or_nan(s, row),
                    2 => sum_of(s, row) / columns as f32,
                    _ => sum_of(s, row),
                };
            }
        });
    });
}

/// dx (+)= the upstream gradient's share of each element of narrow rows.
#[inline(always)]
fn narrow_backward<S: Simd>(
    s: S,
    (x, columns): (&[f32], usize),
    (y, dy): (Option<&[f32]>, &[f32]),
    (factor, accumulate): (f32, bool),
    dx: &mut [f32],
) {
    let mut planes: Planes = NO_PLANES;
    let zero = splat(s, 0.0);
    for (i, dx) in dx.chunks_mut(ROWS * columns).enumerate() {
        let n = dx.len() / columns;
        let mut given = [0.0; ROWS];
        given[..n].copy_from_slice(&dy[i * ROWS..][..n]);
        let mut most = [0.0; ROWS];
        if let Some(y) = y {
            most[..n].copy_from_slice(&y[i * ROWS..][..n]);
            split(s, &x[i * ROWS * columns..][..dx.len()], columns, &mut planes);
        }
        for at in (0..ROWS).step_by(lanes::<S>()) {
            let mut given = load::<S, S::f32s>(s, &given[at..]) * factor;
            let most = load::<S, S::f32s>(s, &most[at..]);
            for c in 0..columns {
                let plane = &mut planes[c * ROWS + at..];
                if y.is_some() {
                    // The first that attains it takes all.
                    let attains = load::<S, S::f32s>(s, plane).simd_eq(most);
                    store(plane, attains.select(given, zero));
                    given = attains.select(zero, given);
                } else {
                    store(plane, given);
                }
            }
        }
        join(s, &planes, columns, accumulate, dx);
    }
}

fn by_rows_backward(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &RowsBackward = bytemuck::from_bytes(p);
    let [x, y, dy, dx] = args else { unreachable!("four bindings") };
    let (x, y, dy) = (x.real(), y.real(), dy.real());
    let (columns, accumulate) = (p.columns as usize, p.accumulate != 0);
    let factor = if p.kind == 2 { 1.0 / columns as f32 } else { 1.0 };
    let dx = &mut dx.real_mut()[..replicas * p.rows as usize * columns];
    rows(dx, columns, columns, |first, dx| {
        let x = &x[first * columns..][..dx.len()];
        let (y, dy) = ((p.kind == 1).then_some(&y[first..]), &dy[first..]);
        with_vectors!(s => if columns <= NARROW {
            narrow_backward(s, (x, columns), (y, dy), (factor, accumulate), dx);
        } else {
            for (row, dx) in dx.chunks_exact_mut(columns).enumerate() {
                let spread = if y.is_some() { 0.0 } else { dy[row] * factor };
                put(
                    s,
                    [],
                    accumulate,
                    dx,
                    #[inline(always)]
                    |[]| splat(s, spread),
                );
                if let Some(y) = y
                    && let Some(place) = position(s, &x[row * columns..][..columns], y[row])
                {
                    dx[place] += dy[row];
                }
            }
        });
    });
}

/// The first place of a number.
#[inline(always)]
fn position<S: Simd>(s: S, x: &[f32], wanted: f32) -> Option<usize> {
    let width = lanes::<S>();
    let vector = splat(s, wanted);
    let whole = x.len() - x.len() % width;
    let mut near = 0;
    while near < whole && load::<S, S::f32s>(s, &x[near..]).simd_eq(vector).all_false() {
        near += width;
    }
    x[near..].iter().position(|x| *x == wanted).map(|place| near + place)
}

fn sum(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Sum = bytemuck::from_bytes(p);
    let [x, out] = args else { unreachable!("two bindings") };
    let (x, out) = (x.real(), out.real_mut());
    let (n, parts) = (p.n as usize, p.parts as usize);
    let length = n.div_ceil(parts);
    let out = &mut out[..replicas * parts];
    chunks(out, 1, x.len(), |i, out| {
        let (r, part) = (i / parts, i % parts);
        let x = &x[r * n..][n.min(part * length)..n.min((part + 1) * length)];
        out[0] = p.scale * total(x);
    });
}
