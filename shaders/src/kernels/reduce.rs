//! Row, column and full reductions.
//!
//! Long sums are cut into parts, whose sums are summed by a second call: deterministic, and
//! rounding errors stay those of short chains.
//!
//! ```rust
//! use tern_shaders::kernels::reduce::{Reduction, Rows, rows};
//!
//! let x = [1.0f32, 5.0, 3.0, -2.0, -1.0, -6.0];
//! let mut out = [0.0; 2];
//! let p = Rows { rows: 2, columns: 3, kind: Reduction::Max as u32 };
//! rows(&p, 1, &x, &mut out);
//! assert_eq!(out, [5.0, -1.0]);
//! rows(&Rows { kind: Reduction::Mean as u32, ..p }, 1, &x, &mut out);
//! assert_eq!(out, [3.0, -3.0]);
//! ```

use crate::{AnyKernel, Real, kernel, linear_grid, params};

/// What [`ROWS`] does to a row; the number is what the kernel receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Reduction {
    /// Σ
    Sum = 0,
    /// Largest element
    Max = 1,
    /// Σ / n
    Mean = 2,
}

params!(
    /// Parameters of [`COLUMNS`].
    Columns {
        /// Rows of x.
        rows: u32,
        /// Columns of x.
        columns: u32,
        /// Parts the rows are cut into, at most 65,535; part q is summed to `out[q · columns]`.
        parts: u32,
        /// First word of the result.
        out_offset: u32,
        /// Words from replica to replica of the result.
        out_stride: u32,
        /// 1 adds to the result, 0 overwrites it.
        accumulate: u32,
    }
);

params!(
    /// Parameters of [`ROWS`].
    Rows {
        /// Rows of x.
        rows: u32,
        /// Columns of x, at most [`MAX_LOOP`].
        columns: u32,
        /// [`Reduction`] as a number.
        kind: u32,
    }
);

params!(
    /// Parameters of [`ROWS_BACKWARD`].
    RowsBackward {
        /// Rows of x.
        rows: u32,
        /// Columns of x.
        columns: u32,
        /// [`Reduction`] as a number.
        kind: u32,
        /// 1 adds to `dx`, 0 overwrites it.
        accumulate: u32,
    }
);

params!(
    /// Parameters of [`SUM`].
    Sum {
        /// Elements a replica.
        n: u32,
        /// Parts they are cut into.
        parts: u32,
        /// Factor of the sums.
        scale: f32,
    }
);

/// Elements that one invocation sums at most without workgroup memory, so that no loop is too long
/// for any device.
pub const MAX_LOOP: u32 = 200_000;

/// Iterations of a loop over `n` elements in blocks of `block`, four at a time.
fn by_fours(n: u32, block: u32) -> u64 {
    u64::from(n.div_ceil(block)) + u64::from(n.div_ceil(4)) + 3
}

/// out\[q\] (+)= Σ over the rows of part q. Shapes: `x [R, rows, columns]`,
/// `out [R, parts, columns]` at an offset and stride.
pub fn columns<F: Real>(p: &Columns, replicas: usize, x: &[F], out: &mut [F]) {
    let (rows, columns, parts) = (p.rows as usize, p.columns as usize, p.parts as usize);
    let length = rows.div_ceil(parts);
    for r in 0..replicas {
        for part in 0..parts {
            for column in 0..columns {
                let mut sum = F::zero();
                for row in rows.min(part * length)..rows.min((part + 1) * length) {
                    sum += x[(r * rows + row) * columns + column];
                }
                let to = p.out_offset as usize + r * p.out_stride as usize;
                let to = to + part * columns + column;
                out[to] = if p.accumulate != 0 { out[to] + sum } else { sum };
            }
        }
    }
}

/// The larger of two numbers; NaN if one is.
fn larger<F: Real>(a: F, b: F) -> F {
    if b > a || b.is_nan() { b } else { a }
}

/// out\[m\] = sum, maximum or mean of row m. Shapes: `x [R, rows, columns]`, `out [R, rows]`.
pub fn rows<F: Real>(p: &Rows, replicas: usize, x: &[F], out: &mut [F]) {
    let columns = p.columns as usize;
    for row in 0..replicas * p.rows as usize {
        let values = &x[row * columns..][..columns];
        let sum: F = values.iter().copied().sum();
        out[row] = match p.kind {
            1 => values.iter().copied().fold(values[0], larger),
            2 => sum / F::count(columns),
            _ => sum,
        };
    }
}

/// dx (+)= gradient of [`rows`]; a maximum's goes to the first element that attains it.
/// Shapes: `x`, `dx` `[R, rows, columns]`; `y`, `dy` `[R, rows]`.
pub fn rows_backward<F: Real>(
    p: &RowsBackward,
    replicas: usize,
    x: &[F],
    y: &[F],
    dy: &[F],
    dx: &mut [F],
) {
    let columns = p.columns as usize;
    for row in 0..replicas * p.rows as usize {
        let values = &x[row * columns..][..columns];
        let attains = |v: &F| *v == y[row] || v.is_nan() && y[row].is_nan();
        let first = values.iter().position(attains);
        for column in 0..columns {
            let gradient = match p.kind {
                1 if first == Some(column) => dy[row],
                1 => F::zero(),
                2 => dy[row] / F::count(columns),
                _ => dy[row],
            };
            let to = &mut dx[row * columns + column];
            *to = if p.accumulate != 0 { *to + gradient } else { gradient };
        }
    }
}

/// out\[q\] = scale · Σ of part q of x. Shapes: `x [R, n]`, `out [R, parts]`.
pub fn sum<F: Real>(p: &Sum, replicas: usize, x: &[F], out: &mut [F]) {
    let (n, parts) = (p.n as usize, p.parts as usize);
    let length = n.div_ceil(parts);
    for r in 0..replicas {
        for part in 0..parts {
            let values = &x[r * n..][n.min(part * length)..n.min((part + 1) * length)];
            out[r * parts + part] = F::of(p.scale) * values.iter().copied().sum::<F>();
        }
    }
}

/// Workgroups of [`COLUMNS`], each of so many columns of a part.
fn columns_grid(p: &Columns, across: u32) -> [u32; 2] {
    linear_grid(p.columns.div_ceil(across) as usize * p.parts as usize, 1)
}

kernel! {
    /// Sums over rows, for every column: bias gradients, second pass of split products.
    COLUMNS = "reduce/columns", Columns;
    bindings: [x: read f32, out: write f32];
    reference: columns;
    variants: [{
        name: "shared",
        source: "reduce/columns_shared.wgsl",
        preludes: [],
        consts: [GROUP = 256, ACROSS = 32],
        workgroup_memory: true,
        iterations: |p, v| {
            let strips = v.constant("GROUP") / v.constant("ACROSS");
            p.rows.div_ceil(p.parts).div_ceil(strips).into()
        },
        grid: |p, v| columns_grid(p, v.constant("ACROSS")),
    }, {
        name: "plain",
        source: "reduce/columns.wgsl",
        preludes: [],
        consts: [GROUP = 8],
        software: true,
        iterations: |p, _| by_fours(p.rows.div_ceil(p.parts), 64),
        grid: |p, v| columns_grid(p, v.constant("GROUP")),
    }];
}

kernel! {
    /// Sum, maximum or mean of every row.
    ROWS = "reduce/rows", Rows;
    bindings: [x: read f32, out: write f32];
    reference: rows;
    variants: [{
        name: "subgroup",
        source: "reduce/rows_shared.wgsl",
        preludes: [ROWS_SUBGROUP, REDUCE],
        consts: [GROUP = 64],
        features: [Subgroup],
        workgroup_memory: true,
        iterations: |p, v| p.columns.div_ceil(v.constant("GROUP")).into(),
        grid: |p, _| linear_grid(p.rows as usize, 1),
    }, {
        name: "shared",
        source: "reduce/rows_shared.wgsl",
        preludes: [ROWS_GROUP, REDUCE],
        consts: [GROUP = 64],
        workgroup_memory: true,
        iterations: |p, v| p.columns.div_ceil(v.constant("GROUP")).into(),
        grid: |p, _| linear_grid(p.rows as usize, 1),
    }, {
        name: "plain",
        source: "reduce/rows.wgsl",
        preludes: [INDEX, REDUCE],
        consts: [GROUP = 8],
        software: true,
        iterations: |p, _| by_fours(p.columns, 256),
        grid: |p, v| linear_grid(p.rows as usize, v.constant("GROUP")),
    }];
}

kernel! {
    /// Gradient of [`ROWS`].
    ROWS_BACKWARD = "reduce/rows_backward", RowsBackward;
    bindings: [x: read f32, y: read f32, dy: read f32, dx: write f32];
    reference: rows_backward;
    variants: [{
        name: "plain",
        source: "reduce/rows_backward.wgsl",
        preludes: [INDEX],
        consts: [GROUP = 64],
        iterations: |p, _| if p.kind == Reduction::Max as u32 { p.columns.into() } else { 0 },
        grid: |p, v| linear_grid(p.rows as usize * p.columns as usize, v.constant("GROUP")),
    }];
}

kernel! {
    /// Sums of the parts of a vector.
    SUM = "reduce/sum", Sum;
    bindings: [x: read f32, out: write f32];
    reference: sum;
    variants: [{
        name: "subgroup",
        source: "reduce/sum_shared.wgsl",
        preludes: [ROWS_SUBGROUP],
        consts: [GROUP = 256],
        features: [Subgroup],
        workgroup_memory: true,
        iterations: |p, v| p.n.div_ceil(p.parts).div_ceil(v.constant("GROUP")).into(),
        grid: |p, _| linear_grid(p.parts as usize, 1),
    }, {
        name: "shared",
        source: "reduce/sum_shared.wgsl",
        preludes: [ROWS_GROUP],
        consts: [GROUP = 256],
        workgroup_memory: true,
        iterations: |p, v| p.n.div_ceil(p.parts).div_ceil(v.constant("GROUP")).into(),
        grid: |p, _| linear_grid(p.parts as usize, 1),
    }, {
        name: "plain",
        source: "reduce/sum.wgsl",
        preludes: [INDEX],
        consts: [GROUP = 8],
        software: true,
        iterations: |p, _| by_fours(p.n.div_ceil(p.parts), 64),
        grid: |p, v| linear_grid(p.parts as usize, v.constant("GROUP")),
    }];
}

/// Kernels of this family.
pub static KERNELS: &[&AnyKernel] = &[COLUMNS.any(), ROWS.any(), ROWS_BACKWARD.any(), SUM.any()];
