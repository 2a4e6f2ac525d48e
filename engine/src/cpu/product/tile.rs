//! The micro-kernel: a tile of C, a few rows by a few vectors, its sums in registers.

use std::ops::Range;

use fearless_simd::Simd;
use fearless_simd::prelude::*;

use super::{Panels, Target};
use crate::cpu::vector::{from_fn, inlined, lanes, load, load_part, splat, store, store_part};

/// Rows and columns of the largest tile: its sums, a row of B and a factor fit the registers.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Shape {
    pub rows: usize,
    pub columns: usize,
}

impl Shape {
    #[inline(always)]
    pub fn of<S: Simd>() -> Self {
        let (rows, vectors) = match lanes::<S>() {
            16 => (14, 2),
            8 => (6, 2),
            // 32 registers, or 16.
            _ if cfg!(target_arch = "aarch64") => (4, 4),
            _ => (4, 2),
        };
        Shape { rows, columns: vectors * lanes::<S>() }
    }

    /// Floats in a row of a sliver of so many columns: whole vectors.
    #[inline(always)]
    pub fn width<S: Simd>(self, columns: usize) -> usize {
        columns.min(self.columns).next_multiple_of(lanes::<S>())
    }
}

/// Some vectors' width of rows of B, `row` apart.
#[derive(Clone, Copy)]
pub(super) struct Sliver<'a> {
    pub data: &'a [f32],
    pub row: usize,
}

/// c (+)= a · b for some rows, as many as a tile has at most, and columns of panels.
#[inline(always)]
pub(super) fn multiply<S: Simd>(
    s: S,
    c: &mut Target<'_>,
    panels: &Panels<'_>,
    rows: Range<usize>,
    columns: Range<usize>,
) {
    let (l, shape) = (lanes::<S>(), Shape::of::<S>());
    let Range { start: first, end } = rows;
    let rows = end - first;
    assert!(rows <= shape.rows);
    let vectors = columns.len().div_ceil(l);
    let split = columns.end.min(columns.start + vectors / (shape.columns / l) * shape.columns);
    macro_rules! by_rows {
        ($columns:expr, $v:literal: $($r:literal)*) => {
            match rows {
                $($r => tiles::<S, $r, $v>(s, c, panels, first, $columns),)*
                rows => unreachable!("a tile of {rows} rows"),
            }
        };
    }
    // What a tile of this set never has isn't compiled.
    let wide = shape.columns / l > 2;
    if split > columns.start {
        match wide {
            true => by_rows!(columns.start..split, 4: 1 2 3 4),
            false => by_rows!(columns.start..split, 2: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        }
    }
    match ((columns.end - split).div_ceil(l), wide) {
        (0, _) => {}
        (1, _) => by_rows!(split..columns.end, 1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        (2, true) => by_rows!(split..columns.end, 2: 1 2 3 4),
        (3, true) => by_rows!(split..columns.end, 3: 1 2 3 4),
        (vectors, _) => unreachable!("a tile of {vectors} vectors"),
    }
}

/// Tiles of `R` rows side by side, each `V` vectors wide.
#[inline(always)]
fn tiles<S: Simd, const R: usize, const V: usize>(
    s: S,
    c: &mut Target<'_>,
    panels: &Panels<'_>,
    row: usize,
    columns: Range<usize>,
) {
    let l = lanes::<S>();
    let factors = &panels.a[row * panels.depth..].as_chunks::<R>().0[..panels.depth];
    for at in columns.clone().step_by(V * l) {
        let sliver = panels.sliver::<S>(at);
        let mut sums = [[splat(s, 0.0); V]; R];
        let mut add = inlined(
            #[inline(always)]
            |b: &[f32], factors: &[f32; R]| {
                let b: [S::f32s; V] = from_fn(
                    #[inline(always)]
                    |v| load(s, &b[v * l..]),
                );
                for r in 0..R {
                    let factor = splat(s, factors[r]);
                    for v in 0..V {
                        sums[r][v] = b[v].mul_add(factor, sums[r][v]);
                    }
                }
            },
        );
        // Rows don't overlap; the last one may end before the next would begin.
        debug_assert!(sliver.data.len() / sliver.row + 1 >= factors.len());
        let rows = sliver.data.chunks_exact(sliver.row);
        let last = rows.remainder();
        for (b, factors) in rows.zip(factors) {
            add(b, factors);
        }
        if let Some(factors) = factors.get(sliver.data.len() / sliver.row) {
            add(last, factors);
        }
        let (i, j) = (panels.place.0 + row, panels.place.1 + at);
        let width = (V * l).min(columns.end - at);
        for (r, sums) in sums.into_iter().enumerate() {
            let line = c.line(i + r, j, width);
            for (v, sum) in sums.into_iter().enumerate() {
                let line = &mut line[(v * l).min(width)..];
                if let Some(whole) = line.get_mut(..l) {
                    store(whole, if panels.add { sum + load::<S, S::f32s>(s, whole) } else { sum });
                } else {
                    let n = line.len();
                    let sum = match panels.add {
                        true => sum + load_part::<S, S::f32s>(s, line, n, 0.0),
                        false => sum,
                    };
                    store_part(line, n, sum);
                }
            }
        }
    }
}
