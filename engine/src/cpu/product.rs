//! Matrix products: matrices as strided views of slices, blocks of them packed for a
//! micro-kernel whose sums stay in registers (the scheme of Goto and van de Geijn, "Anatomy of
//! high-performance matrix multiplication", 2008).
//!
//! Every element of a product is summed over k in one order, which depends on the sizes alone:
//! how a product is shared out among threads changes no bit.

mod dot;
mod pack;
#[cfg(test)]
mod tests;
mod tile;

use std::marker::PhantomData;
use std::ops::Range;

use fearless_simd::Simd;
use rayon::prelude::*;

use super::isa::{Isa, Vectors, with_vectors};
use super::scratch::{self, LINE};
pub(super) use pack::sliver;
pub(super) use tile::Shape;
use tile::Sliver;

/// A matrix in a slice: element (i, j) is `data[i * row + j * column]`.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub data: &'a [f32],
    pub rows: usize,
    pub columns: usize,
    pub row: usize,
    pub column: usize,
}

impl<'a> View<'a> {
    /// A matrix whose rows follow one another `row` apart.
    pub fn rows(data: &'a [f32], rows: usize, columns: usize, row: usize) -> Self {
        View { data, rows, columns, row, column: 1 }
    }

    /// The transpose, the data staying where it is.
    pub fn transposed(self) -> Self {
        View { rows: self.columns, columns: self.rows, row: self.column, column: self.row, ..self }
    }

    /// Some of its rows and columns.
    fn part(self, rows: Range<usize>, columns: Range<usize>) -> Self {
        let start = rows.start * self.row + columns.start * self.column;
        let data = self.data.get(start..).unwrap_or_default();
        View { data, rows: rows.len(), columns: columns.len(), ..self }
    }
}

/// The matrix that a product is written to, or a rectangle of it.
struct Target<'a> {
    start: *mut f32,
    rows: usize,
    columns: usize,
    row: usize,
    matrix: PhantomData<&'a mut [f32]>,
}

// SAFETY: a target stands for a mutable borrow of its elements, which may go to another thread.
unsafe impl Send for Target<'_> {}

impl<'a> Target<'a> {
    fn new(data: &'a mut [f32], rows: usize, columns: usize, row: usize) -> Self {
        assert_inside(data.len(), rows, columns, row, 1);
        assert!(columns <= row, "rows of the product overlap");
        Target { start: data.as_mut_ptr(), rows, columns, row, matrix: PhantomData }
    }

    /// Cuts it into rectangles: all of `rows` by all of `columns`, which are neighbors.
    fn cut(self, rows: &[Range<usize>], columns: &[Range<usize>]) -> Vec<Target<'a>> {
        let mut parts = Vec::new();
        let mut end = [0, 0];
        for i in rows {
            assert!(end[0] <= i.start && i.start <= i.end && i.end <= self.rows);
            (end[0], end[1]) = (i.end, 0);
            for j in columns {
                assert!(end[1] <= j.start && j.start <= j.end && j.end <= self.columns);
                end[1] = j.end;
                // SAFETY: the rectangle lies within this one, which lies within its slice.
                let start = unsafe { self.start.add(i.start * self.row + j.start) };
                let (rows, columns) = (i.len(), j.len());
                // Rectangles don't overlap, as just asserted, and this one is given up.
                parts.push(Target { start, rows, columns, row: self.row, matrix: PhantomData });
            }
        }
        parts
    }

    /// `n` elements of row `i` from column `j` on.
    #[inline(always)]
    fn line(&mut self, i: usize, j: usize, n: usize) -> &mut [f32] {
        assert!(i < self.rows && j + n <= self.columns);
        // SAFETY: the elements lie in the rectangle, as just asserted, and with it in a slice
        // that is borrowed mutably; nobody else has the rectangle, and `self` is borrowed.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(i * self.row + j), n) }
    }
}

/// The right side of a product, if it isn't a matrix in memory: it writes its columns in the order in
/// which the micro-kernel reads them.
pub(super) trait Right: Sync {
    /// Rows, then columns.
    fn size(&self) -> [usize; 2];

    /// The matrix, where it lies in memory.
    #[inline(always)]
    fn view(&self) -> Option<View<'_>> {
        None
    }

    /// Writes the columns of some rows: `shape.columns` of them, then the next; of each such sliver
    /// its rows, `shape.width` of its columns apart, filled up with anything.
    fn pack<S: Simd>(
        &self,
        s: S,
        rows: Range<usize>,
        columns: Range<usize>,
        shape: Shape,
        to: &mut [f32],
    );
}

impl Right for View<'_> {
    #[inline(always)]
    fn size(&self) -> [usize; 2] {
        [self.rows, self.columns]
    }

    #[inline(always)]
    fn view(&self) -> Option<View<'_>> {
        Some(*self)
    }

    #[inline(always)]
    fn pack<S: Simd>(
        &self,
        s: S,
        rows: Range<usize>,
        columns: Range<usize>,
        shape: Shape,
        to: &mut [f32],
    ) {
        pack::columns(s, self.part(rows, columns), shape, to);
    }
}

fn assert_inside(len: usize, rows: usize, columns: usize, row: usize, column: usize) {
    let last = rows.saturating_sub(1) * row + columns.saturating_sub(1) * column;
    assert!(rows * columns == 0 || last < len, "a matrix reaches past its slice");
}

/// c (+)= a · b on the calling thread, the rows of c following one another `row` apart.
pub(super) fn multiply(c: &mut [f32], row: usize, add: bool, a: View<'_>, b: View<'_>) {
    multiply_on(1, c, row, add, a, b);
}

/// [`multiply`] on a number of threads.
pub(super) fn multiply_on(
    threads: usize,
    c: &mut [f32],
    row: usize,
    add: bool,
    a: View<'_>,
    b: View<'_>,
) {
    product(Isa::vectors(), threads, c, row, add, a, b);
}

fn product(
    vectors: Vectors,
    threads: usize,
    c: &mut [f32],
    row: usize,
    add: bool,
    a: View<'_>,
    b: View<'_>,
) {
    let (m, n, k) = (a.rows, b.columns, a.columns);
    assert_eq!(k, b.rows);
    assert_inside(a.data.len(), m, k, a.row, a.column);
    assert_inside(b.data.len(), k, n, b.row, b.column);
    let way = Way::of(a, b);
    if way == Way::Transposed {
        let mut columns = vec![0.0; m * n];
        product(vectors, threads, &mut columns, m, false, b.transposed(), a.transposed());
        let mut target = Target::new(c, m, n, row);
        for i in 0..m {
            for (c, column) in target.line(i, 0, n).iter_mut().zip(columns.chunks_exact(m)) {
                *c = if add { *c + column[i] } else { column[i] };
            }
        }
        return;
    }
    let target = Target::new(c, m, n, row);
    let [rows, columns] = grid(threads, m, n);
    let compute = |(i, mut c): (usize, Target<'_>)| {
        let (rows, columns) = (&rows[i / columns.len()], &columns[i % columns.len()]);
        let (a, b) = (a.part(rows.clone(), 0..k), b.part(0..k, columns.clone()));
        part(vectors, way, &mut c, add, a, b);
    };
    let parts = target.cut(&rows, &columns);
    if parts.len() == 1 {
        parts.into_iter().enumerate().for_each(compute);
    } else {
        parts.into_par_iter().enumerate().for_each(compute);
    }
}

/// c (+)= a · b on the calling thread.
fn part(vectors: Vectors, way: Way, c: &mut Target<'_>, add: bool, a: View<'_>, b: View<'_>) {
    with_vectors!(vectors, s => match way {
        Way::Dot => dot::multiply(s, c, add, a, b),
        _ => blocks(s, c, add, a, &b),
    });
}

/// c (+)= a · b on the calling thread, the rows of c following one another `row` apart.
pub(super) fn multiply_made(c: &mut [f32], row: usize, add: bool, a: View<'_>, b: &impl Right) {
    let [depth, columns] = b.size();
    assert_eq!(a.columns, depth);
    assert_inside(a.data.len(), a.rows, depth, a.row, a.column);
    let mut target = Target::new(c, a.rows, columns, row);
    with_vectors!(s => blocks(s, &mut target, add, a, b));
}

/// How a product is computed; it depends on the sizes and where the elements lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Packed blocks.
    Blocks,
    /// Few rows of A and dense columns of B: inner products, nothing packed.
    Dot,
    /// Few columns: the transpose is computed, for which less has to be packed.
    Transposed,
}

impl Way {
    fn of(a: View<'_>, b: View<'_>) -> Self {
        let (m, n, k) = (a.rows, b.columns, a.columns);
        if n <= NARROW && m > 2 * NARROW {
            Way::Transposed
        } else if m <= SHORT && b.row == 1 && b.column != 1 && k >= 16 {
            Way::Dot
        } else {
            Way::Blocks
        }
    }
}

/// Columns that are few: to write the product twice is cheaper than to compute lanes for nothing.
const NARROW: usize = 8;
/// Rows that are few: they pass over B too seldom to make up for packing it.
const SHORT: usize = 20;

/// Cuts m rows by n columns into a rectangle a thread, as near to squares as can be.
fn grid(threads: usize, m: usize, n: usize) -> [Vec<Range<usize>>; 2] {
    let across = |down: usize| threads / down;
    let perimeter = |down: usize| m.div_ceil(down) + n.div_ceil(across(down));
    let cuts = (1..=threads.max(1)).filter(|down| threads.max(1).is_multiple_of(*down));
    let down = cuts.min_by_key(|down| perimeter(*down)).unwrap_or(1);
    // Columns of a part begin at cache lines, if those of the whole do.
    let shares = |length: usize, count: usize, multiple: usize| {
        let share = length.div_ceil(count.max(1)).next_multiple_of(multiple);
        (0..length).step_by(share).map(|i| i..length.min(i + share)).collect()
    };
    [shares(m, down, 1), shares(n, across(down), 16)]
}

/// Depth of a block: its sum is added to C in one go.
const DEPTH: usize = 512;
/// Rows of A that are packed at a time, to stay in the second-level cache.
const ROWS: usize = 112;
/// Columns of B that are packed at a time, to stay in the last-level cache.
const COLUMNS: usize = 1024;

/// Floats of B that stay in the second-level cache while rows of A pass by one group after the
/// other, whose tiles then follow one another in C. Of more, each sliver meets all rows.
const NEAR: usize = 1 << 16;

/// Cuts a length into parts of `most` or less, as even as can be. What it counts by is carried from
/// part to part, so that no loop over a part computes it again.
#[inline(always)]
fn even(length: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let (mut first, mut left) = (0, length.div_ceil(most).max(1));
    std::iter::from_fn(
        #[inline(always)]
        move || {
            let part = first..first + (length - first).checked_div(left)?;
            (first, left) = (part.end, left - 1);
            Some(part)
        },
    )
}

/// c (+)= a · b by packed blocks.
#[inline(always)]
fn blocks<S: Simd>(s: S, c: &mut Target<'_>, add: bool, a: View<'_>, b: &impl Right) {
    let (m, [k, n]) = (a.rows, b.size());
    let shape = Shape::of::<S>();
    if k == 0 {
        if !add {
            (0..m).for_each(|i| c.line(i, 0, n).fill(0.0));
        }
        return;
    }
    let view = b.view();
    // Two passes over a matrix whose rows are dense are cheaper than packing it.
    let as_is = view.is_some_and(|b| b.column == 1) && m <= 2 * shape.rows;
    let most = k.min(DEPTH);
    // Whole vectors are stored, so that the last one of A may reach past its end.
    let size_a = (most * m.min(ROWS)).next_multiple_of(LINE) + LINE;
    let size_b = most * (n.min(COLUMNS) + shape.columns);
    scratch::lend(
        size_a + size_b,
        #[inline(always)]
        |packed| {
            let (packed_a, packed_b) = packed.split_at_mut(size_a);
            for depths in even(k, DEPTH) {
                let depth = depths.len();
                let add = add || depths.start > 0;
                for first in (0..n).step_by(COLUMNS) {
                    let columns = first..n.min(first + COLUMNS);
                    // What isn't read as it is has no use for it.
                    let block = match view {
                        Some(b) => b.part(depths.clone(), columns.clone()),
                        None => View::rows(&[], depth, columns.len(), columns.len()),
                    };
                    // What fills no sliver is packed in any case.
                    let dense =
                        if as_is { columns.len() / shape.columns * shape.columns } else { 0 };
                    b.pack(s, depths.clone(), first + dense..columns.end, shape, packed_b);
                    for rows in even(m, ROWS) {
                        pack::rows(s, a.part(rows.clone(), depths.clone()), shape, packed_a);
                        let place = (rows.start, first);
                        let panels =
                            Panels { place, add, depth, a: packed_a, block, dense, packed_b };
                        let near = depth * columns.len() <= NEAR;
                        let step = if near { columns.len() } else { shape.columns };
                        for at in (0..columns.len()).step_by(step) {
                            let columns = at..columns.len().min(at + step);
                            for rows in even(rows.len(), shape.rows) {
                                tile::multiply(s, c, &panels, rows, columns.clone());
                            }
                        }
                    }
                }
            }
        },
    );
}

/// Rows of A by columns of B of some depth, ready for the micro-kernel.
struct Panels<'a> {
    /// Where their product begins in C.
    place: (usize, usize),
    add: bool,
    depth: usize,
    /// Groups of rows, depth by depth.
    a: &'a [f32],
    block: View<'a>,
    /// Columns of B that are read where they are; the others are packed.
    dense: usize,
    packed_b: &'a [f32],
}

impl Panels<'_> {
    /// The columns of B from `at` on.
    #[inline(always)]
    fn sliver<S: Simd>(&self, at: usize) -> Sliver<'_> {
        let columns = self.block.columns;
        if at < self.dense {
            // Of one row, the distance to the next may be anything.
            let row = if self.depth == 1 { columns } else { self.block.row };
            Sliver { data: &self.block.data[at..], row }
        } else {
            let row = Shape::of::<S>().width::<S>(columns - at);
            Sliver { data: &self.packed_b[(at - self.dense) * self.depth..], row }
        }
    }
}
