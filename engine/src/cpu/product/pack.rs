//! Packing blocks of A and B: what the micro-kernel reads lies in the order in which it does.

use std::ops::Range;

use fearless_simd::prelude::*;
use fearless_simd::{Simd, f32x4, f32x8};

use super::tile::Shape;
use super::{View, even};
use crate::cpu::vector::{from_fn, lanes, load, store};

/// Rows of a dense matrix that are copied before the next columns are: they are read as they
/// lie, and of as many pages as stay known.
const AT_ONCE: usize = 16;

/// Packs rows of A: groups of rows one after another, and of each group for each k its rows.
#[inline(always)]
pub(super) fn rows<S: Simd>(s: S, a: View<'_>, shape: Shape, to: &mut [f32]) {
    let a = a.transposed();
    let depth = a.rows;
    for ks in steps(a) {
        for group in even(a.columns, shape.rows) {
            let (n, first) = (group.len(), group.start);
            // The next group is there already, but for the first rows.
            let end = if ks.start == 0 { to.len() } else { (first + n) * depth };
            let to = &mut to[first * depth + ks.start * n..end];
            sliver(s, a.part(ks.clone(), group), n, to);
        }
    }
}

/// Packs columns of B: slivers one after another, and of each sliver its rows, filled up to
/// whole vectors with anything.
#[inline(always)]
pub(super) fn columns<S: Simd>(s: S, b: View<'_>, shape: Shape, to: &mut [f32]) {
    for ks in steps(b) {
        for first in (0..b.columns).step_by(shape.columns) {
            let width = shape.width::<S>(b.columns - first);
            let to = &mut to[first * b.rows + ks.start * width..];
            for start in (0..width).step_by(lanes::<S>()) {
                let columns = first + start..b.columns.min(first + start + lanes::<S>());
                sliver(s, b.part(ks.clone(), columns), width, &mut to[start..]);
            }
        }
    }
}

/// The rows that are packed one after another.
#[inline(always)]
fn steps(from: View<'_>) -> impl Iterator<Item = Range<usize>> {
    let step = if from.column == 1 { AT_ONCE } else { from.rows.max(1) };
    (0..from.rows).step_by(step).map(move |k| k..from.rows.min(k + step))
}

/// Writes the rows of a matrix of at most a vector's columns, `stride` apart. Each row is stored
/// as a whole vector where there is room, of which the next row overwrites what isn't its own.
#[inline(always)]
pub(in crate::cpu) fn sliver<S: Simd>(s: S, from: View<'_>, stride: usize, to: &mut [f32]) {
    let (l, n) = (lanes::<S>(), from.columns);
    debug_assert!(n <= l && n <= stride);
    if from.column == 1 {
        for k in 0..from.rows {
            let (row, to) = (&from.data[k * from.row..], &mut to[k * stride..]);
            // Elements of the next columns do no harm.
            if row.len() >= l && to.len() >= l {
                store(to, load::<S, S::f32s>(s, row));
            } else {
                to[..n].copy_from_slice(&row[..n]);
            }
        }
    } else if from.row == 1 {
        // By vectors of eight, where there are sixteen too: measured, three times as fast. The
        // right half comes first: the left one overwrites what isn't its own.
        if n > 8 {
            let right = from.part(0..from.rows, 8..n);
            transpose::<S, f32x8<S>, 8>(s, right, stride, &mut to[8..]);
        }
        if l > 4 {
            transpose::<S, f32x8<S>, 8>(s, from.part(0..from.rows, 0..n.min(8)), stride, to);
        } else {
            transpose::<S, f32x4<S>, 4>(s, from, stride, to);
        }
    } else {
        for k in 0..from.rows {
            for j in 0..n {
                to[k * stride + j] = from.data[k * from.row + j * from.column];
            }
        }
    }
}

/// Writes the rows of a matrix of at most `L` columns, which are dense, by squares of `L` vectors.
#[inline(always)]
fn transpose<S: Simd, V: SimdBase<S, Element = f32>, const L: usize>(
    s: S,
    from: View<'_>,
    stride: usize,
    to: &mut [f32],
) {
    // In place of columns that are lacking stands the last one: nobody reads it.
    let columns: [&[f32]; L] = from_fn(
        #[inline(always)]
        |j| &from.data[j.min(from.columns - 1) * from.column..][..from.rows],
    );
    let whole = from.rows - from.rows % L;
    for k in (0..whole).step_by(L) {
        let square: [V; L] = from_fn(
            #[inline(always)]
            |j| load(s, &columns[j][k..]),
        );
        for (i, row) in transposed(square).into_iter().enumerate() {
            store(&mut to[(k + i) * stride..], row);
        }
    }
    for k in whole..from.rows {
        for j in 0..from.columns {
            to[k * stride + j] = columns[j][k];
        }
    }
}

/// The transpose of a square matrix of vectors: the bits of an element's place, row before
/// column, are rotated by one each time that halves are interleaved.
#[inline(always)]
pub(in crate::cpu) fn transposed<S: Simd, V: SimdBase<S>, const L: usize>(rows: [V; L]) -> [V; L] {
    let mut rows = rows;
    for _ in 0..L.ilog2() {
        rows = from_fn(
            #[inline(always)]
            |i| {
                let (a, b) = (rows[i / 2], rows[i / 2 + L / 2]);
                if i % 2 == 0 { a.zip_low(b) } else { a.zip_high(b) }
            },
        );
    }
    rows
}
