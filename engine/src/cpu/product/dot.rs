//! Inner products: a few rows of A by dense columns of B, vectors along k.

use fearless_simd::Simd;
use fearless_simd::prelude::*;

use super::{Target, View, even};
use crate::cpu::vector::{from_fn, lanes, load, load_part, splat};

/// Rows by columns whose sums fit sixteen registers, with a vector of each column.
const ROWS: usize = 5;
const COLUMNS: usize = 2;

/// c (+)= a · b, where the elements of a column of b follow one another.
#[inline(always)]
pub(super) fn multiply<S: Simd>(s: S, c: &mut Target<'_>, add: bool, a: View<'_>, b: View<'_>) {
    debug_assert_eq!(b.row, 1);
    let dense: Vec<f32>;
    let a = if a.column == 1 {
        a
    } else {
        dense = (0..a.rows * a.columns)
            .map(|at| a.data[at / a.columns * a.row + at % a.columns * a.column])
            .collect();
        View::rows(&dense, a.rows, a.columns, a.columns)
    };
    for j in (0..b.columns).step_by(COLUMNS) {
        for rows in even(a.rows, ROWS) {
            let (i, rows, columns) = (rows.start, rows.len(), COLUMNS.min(b.columns - j));
            match (rows, columns) {
                (5, 2) => tile::<S, 5, 2>(s, c, add, a, b, (i, j)),
                (4, 2) => tile::<S, 4, 2>(s, c, add, a, b, (i, j)),
                (3, 2) => tile::<S, 3, 2>(s, c, add, a, b, (i, j)),
                (2, 2) => tile::<S, 2, 2>(s, c, add, a, b, (i, j)),
                (1, 2) => tile::<S, 1, 2>(s, c, add, a, b, (i, j)),
                _ => (i..i + rows).for_each(|i| tile::<S, 1, 1>(s, c, add, a, b, (i, j))),
            }
        }
    }
}

#[inline(always)]
fn tile<S: Simd, const R: usize, const C: usize>(
    s: S,
    c: &mut Target<'_>,
    add: bool,
    a: View<'_>,
    b: View<'_>,
    (i, j): (usize, usize),
) {
    let (l, depth) = (lanes::<S>(), a.columns);
    let rows: [&[f32]; R] = from_fn(
        #[inline(always)]
        |r| &a.data[(i + r) * a.row..][..depth],
    );
    let columns: [&[f32]; C] = from_fn(
        #[inline(always)]
        |c| &b.data[(j + c) * b.column..][..depth],
    );
    let mut sums = [[splat(s, 0.0); C]; R];
    let whole = depth - depth % l;
    for k in (0..whole).step_by(l) {
        let y: [S::f32s; C] = from_fn(
            #[inline(always)]
            |c| load(s, &columns[c][k..]),
        );
        for r in 0..R {
            let x: S::f32s = load(s, &rows[r][k..]);
            for c in 0..C {
                sums[r][c] = x.mul_add(y[c], sums[r][c]);
            }
        }
    }
    if whole < depth {
        for r in 0..R {
            let x: S::f32s = load_part(s, &rows[r][whole..], depth - whole, 0.0);
            for c in 0..C {
                let y: S::f32s = load_part(s, &columns[c][whole..], depth - whole, 0.0);
                sums[r][c] = x.mul_add(y, sums[r][c]);
            }
        }
    }
    for r in 0..R {
        let line = c.line(i + r, j, C);
        for (c, sum) in line.iter_mut().zip(sums[r]) {
            *c = if add { *c + sum.reduce_sum() } else { sum.reduce_sum() };
        }
    }
}
