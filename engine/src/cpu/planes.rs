//! Matrices turned in registers, and with that narrow rows: a block of them is taken apart into
//! planes, a column each, on which vectors run along the rows.

use fearless_simd::Simd;
use fearless_simd::prelude::*;
use rayon::prelude::*;

use super::vector::{MAX_LANES, assign, inlined, lanes, load, splat, store};

/// Rows up to this wide are taken apart.
pub(super) const NARROW: usize = 32;

/// Rows of a block. All of a block's are computed, whether or not there are as many.
pub(super) const ROWS: usize = 64;

/// The columns of a block; that of column c starts at c · [`ROWS`].
pub(super) type Planes = [f32; NARROW * ROWS];

/// Planes of zeros.
pub(super) const NO_PLANES: Planes = [0.0; NARROW * ROWS];

/// Turns as many rows as a vector has lanes: each pass interleaves the rows of the first half
/// with those of the second, which moves the highest bit of an element's row number to the
/// lowest of its column number, and the other way round.
#[inline(always)]
fn turn<S: Simd>(rows: &mut [S::f32s; MAX_LANES]) {
    let half = lanes::<S>() / 2;
    let mut pass = 1;
    while pass < lanes::<S>() {
        let before = *rows;
        for i in 0..half {
            (rows[2 * i], rows[2 * i + 1]) = before[i].interleave(before[i + half]);
        }
        pass *= 2;
    }
}

/// A matrix, or its corner, at the start of a slice.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub rows: usize,
    pub columns: usize,
    /// Elements from row to row of the source, and from column to column of what is written.
    pub from: usize,
    pub to: usize,
    /// Add to what is there.
    pub accumulate: bool,
}

/// y\[c\]\[r\] (+)= x\[r\]\[c\] for a vector of rows and at most one of columns.
#[inline(always)]
fn whole_tile<S: Simd>(s: S, at: Layout, columns: usize, x: &[f32], y: &mut [f32]) {
    let mut tile = [splat(s, 0.0); MAX_LANES];
    for r in 0..lanes::<S>() {
        tile[r] = load(s, &x[r * at.from..]);
    }
    turn::<S>(&mut tile);
    for c in 0..lanes::<S>() {
        if c < columns {
            let y = &mut y[c * at.to..];
            let column = if at.accumulate { tile[c] + load::<S, S::f32s>(s, y) } else { tile[c] };
            store(y, column);
        }
    }
}

/// As [`whole_tile`] for fewer rows, or where a vector can't be read from each.
#[inline(always)]
fn part_of_tile<S: Simd>(s: S, at: Layout, x: &[f32], y: &mut [f32]) {
    const SIDE: usize = MAX_LANES;
    let mut before = [0.0; SIDE * SIDE];
    for (to, x) in before.chunks_exact_mut(SIDE).zip(x.chunks(at.from)).take(at.rows) {
        to.iter_mut().zip(x).take(at.columns).for_each(|(to, x)| *to = *x);
    }
    let mut after = [0.0; SIDE * SIDE];
    let inside = Layout { from: SIDE, to: SIDE, accumulate: false, ..at };
    whole_tile(s, inside, lanes::<S>(), &before, &mut after);
    for (y, from) in y.chunks_mut(at.to).zip(after.chunks_exact(SIDE)).take(at.columns) {
        for (y, x) in y.iter_mut().zip(from).take(at.rows) {
            *y = if at.accumulate { *y + x } else { *x };
        }
    }
}

/// y\[c\]\[r\] (+)= x\[r\]\[c\] for at most a vector of rows and one of columns.
#[inline(always)]
fn tile<S: Simd>(s: S, at: Layout, x: &[f32], y: &mut [f32]) {
    let all = lanes::<S>();
    if at.rows < all || x.len() < (all - 1) * at.from + all {
        part_of_tile(s, at, x, y);
    } else if at.columns == all {
        whole_tile(s, at, all, x, y);
    } else {
        whole_tile(s, at, at.columns, x, y);
    }
}

/// Rows and columns that are turned before the next ones, so that the lines of memory that they
/// share stay in the cache.
const BLOCK: usize = 64;

/// y\[c\]\[r\] (+)= x\[r\]\[c\]
pub(super) fn transpose<S: Simd>(s: S, at: Layout, x: &[f32], y: &mut [f32]) {
    s.vectorize(
        #[inline(always)]
        || transpose_by(s, at, x, y),
    );
}

#[inline(always)]
fn transpose_by<S: Simd>(s: S, at: Layout, x: &[f32], y: &mut [f32]) {
    let width = lanes::<S>();
    // The last tile starts where it is whole, unless that would add twice.
    let start = |i: usize, n: usize| {
        let whole = n >= width && !at.accumulate;
        let start = if whole { i.min(n - width) } else { i };
        (start, width.min(n - start))
    };
    let blocks = |n: usize| (0..n).step_by(BLOCK);
    let tiles = |block: usize, n: usize| (block..n.min(block + BLOCK)).step_by(width);
    for column_block in blocks(at.columns) {
        for row_block in blocks(at.rows) {
            for column in tiles(column_block, at.columns) {
                let (column, columns) = start(column, at.columns);
                for row in tiles(row_block, at.rows) {
                    let (row, rows) = start(row, at.rows);
                    let corner = Layout { rows, columns, ..at };
                    tile(s, corner, &x[row * at.from + column..], &mut y[column * at.to + row..]);
                }
            }
        }
    }
}

/// Takes rows apart element by element.
fn split_few(x: &[f32], width: usize, planes: &mut Planes) {
    for (r, x) in x.chunks_exact(width).enumerate() {
        x.iter().enumerate().for_each(|(c, x)| planes[c * ROWS + r] = *x);
    }
}

/// Puts planes together element by element.
fn join_few(planes: &Planes, width: usize, y: &mut [f32]) {
    for (r, y) in y.chunks_exact_mut(width).enumerate() {
        y.iter_mut().enumerate().for_each(|(c, y)| *y = planes[c * ROWS + r]);
    }
}

/// The columns at which groups of four begin; the last group ends with the row.
fn groups(width: usize) -> impl Iterator<Item = usize> {
    (0..width).step_by(4).map(move |first| first.min(width.saturating_sub(4)))
}

/// Takes a whole block of rows apart, four columns at a time.
#[inline(always)]
fn split_block<S: Simd>(s: S, x: &[f32], width: usize, planes: &mut Planes) {
    let mut quads = [[0.0; 4]; ROWS];
    for first in groups(width) {
        for (quad, x) in quads.iter_mut().zip(x[first..].windows(4).step_by(width)) {
            quad.copy_from_slice(x);
        }
        if width == 3 {
            // A fourth number would be none of the last row.
            quads[ROWS - 1][..3].copy_from_slice(&x[x.len() - 3..]);
        }
        for at in (0..ROWS).step_by(lanes::<S>()) {
            let part = quads[at..][..lanes::<S>()].as_flattened();
            let load = inlined(
                #[inline(always)]
                |v: usize| load::<S, S::f32s>(s, &part[v * lanes::<S>()..]),
            );
            let (even, odd) = load(0).deinterleave(load(1));
            let (later_even, later_odd) = load(2).deinterleave(load(3));
            let (a, c) = even.deinterleave(later_even);
            let (b, d) = odd.deinterleave(later_odd);
            let all = [a, b, c, d];
            for k in 0..4 {
                if k < width {
                    store(&mut planes[(first + k) * ROWS + at..], all[k]);
                }
            }
        }
    }
}

/// Puts the planes of a whole block together, four columns at a time.
#[inline(always)]
fn join_block<S: Simd>(s: S, planes: &Planes, width: usize, y: &mut [f32]) {
    let mut quads = [[0.0; 4]; ROWS];
    for first in groups(width) {
        for at in (0..ROWS).step_by(lanes::<S>()) {
            let load = inlined(
                #[inline(always)]
                |k: usize| load::<S, S::f32s>(s, &planes[(first + k) * ROWS + at..]),
            );
            let fourth = if width == 3 { splat(s, 0.0) } else { load(3) };
            let (even, later_even) = load(0).interleave(load(2));
            let (odd, later_odd) = load(1).interleave(fourth);
            let part = quads[at..][..lanes::<S>()].as_flattened_mut();
            let (a, b) = even.interleave(odd);
            let (c, d) = later_even.interleave(later_odd);
            let all = [a, b, c, d];
            for v in 0..4 {
                store(&mut part[v * lanes::<S>()..], all[v]);
            }
        }
        let last = y.len() - 3;
        for (r, quad) in quads.iter().enumerate() {
            let from = r * width + first;
            // Where rows are of three, the fourth number is overwritten by the next row.
            match y[from..].first_chunk_mut() {
                Some(y) => *y = *quad,
                None => y[last..].copy_from_slice(&quad[..3]),
            }
        }
    }
}

/// [`split_block`] of pairs.
#[inline(always)]
fn split_pairs<S: Simd>(s: S, x: &[f32], planes: &mut Planes) {
    for at in (0..ROWS).step_by(lanes::<S>()) {
        let pairs = load::<S, S::f32s>(s, &x[2 * at..]);
        let (first, second) =
            pairs.deinterleave(load::<S, S::f32s>(s, &x[2 * at + lanes::<S>()..]));
        store(&mut planes[at..], first);
        store(&mut planes[ROWS + at..], second);
    }
}

/// [`join_block`] of pairs.
#[inline(always)]
fn join_pairs<S: Simd>(s: S, planes: &Planes, y: &mut [f32]) {
    for at in (0..ROWS).step_by(lanes::<S>()) {
        let first = load::<S, S::f32s>(s, &planes[at..]);
        let (low, high) = first.interleave(load::<S, S::f32s>(s, &planes[ROWS + at..]));
        store(&mut y[2 * at..], low);
        store(&mut y[2 * at + lanes::<S>()..], high);
    }
}

/// Takes a block of rows apart.
pub(super) fn split<S: Simd>(s: S, x: &[f32], width: usize, planes: &mut Planes) {
    s.vectorize(
        #[inline(always)]
        || match width {
            1 => planes[..x.len()].copy_from_slice(x),
            _ if x.len() < ROWS * width => split_few(x, width, planes),
            2 => split_pairs(s, x, planes),
            3 => split_block(s, x, 3, planes),
            _ => split_block(s, x, width, planes),
        },
    );
}

#[inline(always)]
fn join_by<S: Simd>(s: S, planes: &Planes, width: usize, y: &mut [f32]) {
    match width {
        1 => y.copy_from_slice(&planes[..y.len()]),
        _ if y.len() < ROWS * width => join_few(planes, width, y),
        2 => join_pairs(s, planes, y),
        3 => join_block(s, planes, 3, y),
        _ => join_block(s, planes, width, y),
    }
}

/// Puts planes together to rows, or adds them.
pub(super) fn join<S: Simd>(s: S, planes: &Planes, width: usize, accumulate: bool, y: &mut [f32]) {
    s.vectorize(
        #[inline(always)]
        || {
            if !accumulate {
                return join_by(s, planes, width, y);
            }
            let mut rows = NO_PLANES;
            let rows = &mut rows[..y.len()];
            join_by(s, planes, width, rows);
            assign(s, rows, true, y);
        },
    );
}

/// Rows of a part that one thread takes of long columns.
pub(super) const PART: usize = 1 << 12;

/// Cuts lines of `length` elements into parts of `size`: a part has its piece of each line.
pub(super) fn cut<T>(lines: &mut [T], length: usize, size: usize) -> Vec<Vec<&mut [T]>> {
    let mut parts: Vec<Vec<&mut [T]>> = Vec::new();
    let count = lines.len() / length.max(1);
    parts.resize_with(length.div_ceil(size), || Vec::with_capacity(count));
    for line in lines.chunks_exact_mut(length) {
        parts.iter_mut().zip(line.chunks_mut(size)).for_each(|(part, piece)| part.push(piece));
    }
    parts
}

/// Calls `f` with the number of a row and the parts of all columns, `length` elements each, that
/// start with it.
pub(super) fn parts_of_columns(
    y: &mut [f32],
    length: usize,
    f: impl Fn(usize, &mut [&mut [f32]]) + Sync,
) {
    let mut parts = cut(y, length, PART);
    parts.par_iter_mut().enumerate().for_each(|(i, columns)| f(i * PART, columns));
}

/// columns\[c\]\[i\] (+)= x\[i\]\[c\] of narrow rows.
#[inline(always)]
pub(super) fn take_apart<S: Simd>(s: S, x: &[f32], columns: &mut [&mut [f32]], accumulate: bool) {
    let mut planes = NO_PLANES;
    let width = columns.len();
    for (i, x) in x.chunks(ROWS * width).enumerate() {
        split(s, x, width, &mut planes);
        for (plane, column) in planes.chunks_exact(ROWS).zip(columns.iter_mut()) {
            assign(s, plane, accumulate, &mut column[i * ROWS..][..x.len() / width]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::isa::{Isa, with_vectors};
    use super::*;

    #[test]
    fn matrices_of_all_shapes_are_turned() {
        for isa in Isa::available() {
            for (rows, columns) in
                [(1, 1), (1, 40), (2, 17), (3, 64), (16, 16), (17, 3), (33, 70), (130, 5)]
            {
                for accumulate in [false, true] {
                    let x: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
                    let mut y = vec![0.5; rows * columns];
                    let at = Layout { rows, columns, from: columns, to: rows, accumulate };
                    with_vectors!(isa.level().unwrap(), s => transpose(s, at, &x, &mut y));
                    for (i, y) in y.into_iter().enumerate() {
                        let x = x[i % rows * columns + i / rows];
                        let expected = if accumulate { x + 0.5 } else { x };
                        assert_eq!(y, expected, "{isa} {rows} × {columns}, {i}");
                    }
                }
            }
        }
    }

    #[test]
    fn rows_come_apart_and_together() {
        for isa in Isa::available() {
            for width in 1..=NARROW {
                for rows in [1, 5, 16, 33, ROWS] {
                    let x: Vec<f32> = (0..rows * width).map(|i| i as f32).collect();
                    let (mut planes, mut y) = (NO_PLANES, vec![1.0; rows * width]);
                    with_vectors!(isa.level().unwrap(), s => {
                        split(s, &x, width, &mut planes);
                        join(s, &planes, width, true, &mut y);
                    });
                    assert!(x.iter().zip(&y).all(|(x, y)| x + 1.0 == *y), "{isa} {rows} {width}");
                    assert_eq!(planes[(width - 1) * ROWS + rows - 1], x[rows * width - 1]);
                    with_vectors!(isa.level().unwrap(), s => {
                        join(s, &planes, width, false, &mut y);
                    });
                    assert_eq!(x, y, "{isa} {rows} {width}");
                }
            }
        }
    }
}
