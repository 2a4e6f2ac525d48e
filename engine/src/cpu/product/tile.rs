//! The micro-kernel: a tile of C, a few rows by a few vectors, its sums in registers.

use fearless_simd::Simd;
use fearless_simd::prelude::*;

use super::Target;
use crate::cpu::vector::{from_fn, lanes, load, load_part, splat, store, store_part};

/// Rows and columns of the largest tile: its sums, a row of B and a factor fit the registers.
#[derive(Clone, Copy)]
pub(super) struct Shape {
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

/// c[i.., j..] (+)= a · b for `rows` rows packed in `a`, depth by depth, and `columns` columns.
#[inline(always)]
pub(super) fn multiply<S: Simd>(
    s: S,
    c: &mut Target<'_>,
    add: bool,
    (i, rows): (usize, usize),
    (j, columns): (usize, usize),
    a: &[f32],
    b: Sliver<'_>,
    depth: usize,
) {
    assert!(rows <= Shape::of::<S>().rows);
    let place = Place { i, j, columns, add };
    macro_rules! by_rows {
        ($v:literal: $($r:literal)*) => {
            match rows {
                $($r => tile::<S, $r, $v>(s, c, place, a, b, depth),)*
                rows => unreachable!("a tile of {rows} rows"),
            }
        };
    }
    match columns.div_ceil(lanes::<S>()) {
        1 => by_rows!(1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        2 => by_rows!(2: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        3 => by_rows!(3: 1 2 3 4),
        4 => by_rows!(4: 1 2 3 4),
        vectors => unreachable!("a tile of {vectors} vectors"),
    }
}

/// Where a tile is, how many columns of it there are, and whether it is added.
#[derive(Clone, Copy)]
struct Place {
    i: usize,
    j: usize,
    columns: usize,
    add: bool,
}

#[inline(always)]
fn tile<S: Simd, const R: usize, const V: usize>(
    s: S,
    c: &mut Target<'_>,
    place: Place,
    a: &[f32],
    b: Sliver<'_>,
    depth: usize,
) {
    let l = lanes::<S>();
    let mut sums = [[splat(s, 0.0); V]; R];
    let factors = &a.as_chunks::<R>().0[..depth];
    for (factors, b) in factors.iter().zip(b.data.chunks(b.row)) {
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
    }
    for (r, sums) in sums.into_iter().enumerate() {
        let line = c.line(place.i + r, place.j, place.columns);
        for (v, sum) in sums.into_iter().enumerate() {
            let line = &mut line[(v * l).min(place.columns)..];
            if let Some(whole) = line.get_mut(..l) {
                store(whole, if place.add { sum + load::<S, S::f32s>(s, whole) } else { sum });
            } else {
                let n = line.len();
                let sum =
                    if place.add { sum + load_part::<S, S::f32s>(s, line, n, 0.0) } else { sum };
                store_part(line, n, sum);
            }
        }
    }
}
