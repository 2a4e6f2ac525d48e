//! Safe cover of the `gemm` crate: matrices as strided views of slices.

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
    assert_eq!(a.columns, b.rows);
    assert!(b.columns <= row, "rows of the product overlap");
    assert_inside(c.len(), a.rows, b.columns, row, 1);
    assert_inside(a.data.len(), a.rows, a.columns, a.row, a.column);
    assert_inside(b.data.len(), b.rows, b.columns, b.row, b.column);
    let parallelism = match threads {
        0 | 1 => gemm::Parallelism::None,
        threads => gemm::Parallelism::Rayon(threads),
    };
    // SAFETY: every element of the three matrices lies inside its slice, as just asserted;
    // `c` is borrowed mutably, so it overlaps neither of the others, and its own elements are
    // distinct, since a row ends before the next begins.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            c.as_mut_ptr(),
            1,
            row as isize,
            add,
            a.data.as_ptr(),
            a.column as isize,
            a.row as isize,
            b.data.as_ptr(),
            b.column as isize,
            b.row as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}
