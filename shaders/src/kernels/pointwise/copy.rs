//! Moving and scaling: fill, copy of a block, swap of axes, multiplication by a number.

use crate::{Real, kernel, linear_grid, params};

params!(
    /// Parameters of [`SCALE`].
    Scale {
        /// Elements a replica.
        n: u32,
        /// Factor.
        factor: f32,
        /// 1 adds to `y`, 0 overwrites it.
        accumulate: u32,
    }
);

params!(
    /// Parameters of [`SCALE_BY`].
    ScaleBy {
        /// Elements a replica.
        n: u32,
        /// Factor, besides the scalar of the replica.
        factor: f32,
        /// 1 adds to `y`, 0 overwrites it.
        accumulate: u32,
    }
);

params!(
    /// Parameters of [`FILL`].
    Fill {
        /// Elements to fill in each replica.
        n: u32,
        /// Where they start.
        offset: u32,
        /// Elements a replica.
        stride: u32,
        /// What they become.
        value: f32,
    }
);

params!(
    /// Parameters of [`COPY`]: a block of `rows` × `width`.
    Copy {
        /// Rows of the block.
        rows: u32,
        /// Elements of a row of the block.
        width: u32,
        /// First element in x.
        x_offset: u32,
        /// Distance of the rows in x.
        x_row: u32,
        /// Elements of x a replica.
        x_stride: u32,
        /// First element in y.
        y_offset: u32,
        /// Distance of the rows in y.
        y_row: u32,
        /// Elements of y a replica.
        y_stride: u32,
        /// 1 adds to `y`, 0 overwrites it.
        accumulate: u32,
    }
);

params!(
    /// Parameters of [`TRANSPOSE`].
    Transpose {
        /// Product of the axes before the two.
        outer: u32,
        /// First of the two axes in x.
        a: u32,
        /// Second of the two axes in x.
        b: u32,
        /// Product of the axes after the two.
        inner: u32,
        /// 1 adds to `y`, 0 overwrites it.
        accumulate: u32,
    }
);

pub(super) fn put<F: Real>(y: &mut F, value: F, accumulate: u32) {
    *y = if accumulate != 0 { *y + value } else { value };
}

/// y (+)= factor · x. Shapes: `x`, `y` `[R, n]`.
pub fn scale<F: Real>(p: &Scale, replicas: usize, x: &[F], y: &mut [F]) {
    for at in 0..replicas * p.n as usize {
        put(&mut y[at], F::of(p.factor) * x[at], p.accumulate);
    }
}

/// y (+)= factor · scalar · x. Shapes: `x`, `y` `[R, n]`, `scalar` `[R]`.
pub fn scale_by<F: Real>(p: &ScaleBy, replicas: usize, x: &[F], scalar: &[F], y: &mut [F]) {
    let n = p.n as usize;
    for at in 0..replicas * n {
        put(&mut y[at], F::of(p.factor) * scalar[at / n] * x[at], p.accumulate);
    }
}

/// y\[offset .. offset + n\] = value. Shape: `y` `[R, stride]`.
pub fn fill<F: Real>(p: &Fill, replicas: usize, y: &mut [F]) {
    for r in 0..replicas {
        let first = r * p.stride as usize + p.offset as usize;
        y[first..first + p.n as usize].fill(F::of(p.value));
    }
}

/// A block of x to a block of y. Shapes: `x` `[R, x_stride]`, `y` `[R, y_stride]`.
pub fn copy<F: Real>(p: &Copy, replicas: usize, x: &[F], y: &mut [F]) {
    for r in 0..replicas {
        for row in 0..p.rows as usize {
            let from = r * p.x_stride as usize + p.x_offset as usize + row * p.x_row as usize;
            let to = r * p.y_stride as usize + p.y_offset as usize + row * p.y_row as usize;
            for column in 0..p.width as usize {
                put(&mut y[to + column], x[from + column], p.accumulate);
            }
        }
    }
}

/// y\[o, j, i, :\] (+)= x\[o, i, j, :\]. Shapes: `x` `[R, outer, a, b, inner]`, `y`
/// `[R, outer, b, a, inner]`.
pub fn transpose<F: Real>(p: &Transpose, replicas: usize, x: &[F], y: &mut [F]) {
    let (a, b, inner) = (p.a as usize, p.b as usize, p.inner as usize);
    for o in 0..replicas * p.outer as usize {
        for i in 0..a {
            for j in 0..b {
                for k in 0..inner {
                    let value = x[((o * a + i) * b + j) * inner + k];
                    put(&mut y[((o * b + j) * a + i) * inner + k], value, p.accumulate);
                }
            }
        }
    }
}

kernel! {
    /// y = factor · x, or y += factor · x.
    SCALE = "pointwise/scale", Scale;
    bindings: [x: read f32, y: write f32];
    reference: scale;
    variants: [{
        name: "plain",
        source: "pointwise/scale.wgsl",
        preludes: [INDEX],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.n as usize, v.constant("GROUP")),
    }];
}

kernel! {
    /// y (+)= factor · scalar · x with a scalar from the device.
    SCALE_BY = "pointwise/scale_by", ScaleBy;
    bindings: [x: read f32, scalar: read f32, y: write f32];
    reference: scale_by;
    variants: [{
        name: "plain",
        source: "pointwise/scale_by.wgsl",
        preludes: [INDEX],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.n as usize, v.constant("GROUP")),
    }];
}

kernel! {
    /// Fills a range with a number.
    FILL = "pointwise/fill", Fill;
    bindings: [y: write f32];
    reference: fill;
    variants: [{
        name: "plain",
        source: "pointwise/fill.wgsl",
        preludes: [INDEX],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.n as usize, v.constant("GROUP")),
    }];
}

kernel! {
    /// Copies or adds a block of rows.
    COPY = "pointwise/copy", Copy;
    bindings: [x: read f32, y: write f32];
    reference: copy;
    variants: [{
        name: "plain",
        source: "pointwise/copy.wgsl",
        preludes: [INDEX],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.rows as usize * p.width as usize, v.constant("GROUP")),
    }];
}

kernel! {
    /// Swaps two neighboring axes.
    TRANSPOSE = "pointwise/transpose", Transpose;
    bindings: [x: read f32, y: write f32];
    reference: transpose;
    variants: [{
        name: "plain",
        source: "pointwise/transpose.wgsl",
        preludes: [INDEX],
        consts: [GROUP = 64],
        grid: |p, v| {
            let n = p.outer as usize * p.a as usize * p.b as usize * p.inner as usize;
            linear_grid(n, v.constant("GROUP"))
        },
    }];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaling_by_a_number_and_by_a_number_of_each_replica() {
        let x = [1.0f64, 2.0, 3.0, 4.0];
        let mut y = [10.0; 4];
        scale(&Scale { n: 2, factor: -0.5, accumulate: 1 }, 2, &x, &mut y);
        assert_eq!(y, [9.5, 9.0, 8.5, 8.0]);
        scale_by(&ScaleBy { n: 2, factor: 2.0, accumulate: 0 }, 2, &x, &[3.0, 5.0], &mut y);
        assert_eq!(y, [6.0, 12.0, 30.0, 40.0]);
    }

    #[test]
    fn fill_stays_in_its_range() {
        let mut y = [1.0f64; 8];
        fill(&Fill { n: 2, offset: 1, stride: 4, value: 0.0 }, 2, &mut y);
        assert_eq!(y, [1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0]);
    }

    #[test]
    fn blocks_joined_along_the_last_axis_come_apart_again() {
        let (left, right) = ([1.0f64, 2.0, 3.0, 4.0], [5.0, 6.0]);
        let block = |width, x_offset, x_row, y_offset, y_row| Copy {
            rows: 2,
            width,
            x_offset,
            x_row,
            x_stride: 0,
            y_offset,
            y_row,
            y_stride: 0,
            accumulate: 0,
        };
        let mut joined = [0.0; 6];
        copy(&block(2, 0, 2, 0, 3), 1, &left, &mut joined);
        copy(&block(1, 0, 1, 2, 3), 1, &right, &mut joined);
        assert_eq!(joined, [1.0, 2.0, 5.0, 3.0, 4.0, 6.0]);
        let mut back = [10.0, 20.0];
        copy(&Copy { accumulate: 1, ..block(1, 2, 3, 0, 1) }, 1, &joined, &mut back);
        assert_eq!(back, [15.0, 26.0]);
    }

    #[test]
    fn swapping_twice_gives_the_tensor_back() {
        let x: Vec<f64> = (0..24).map(f64::from).collect();
        let (mut y, mut z) = (vec![0.0; 24], vec![0.0; 24]);
        transpose(&Transpose { outer: 2, a: 3, b: 2, inner: 2, accumulate: 0 }, 1, &x, &mut y);
        assert_eq!(y[..6], [0.0, 1.0, 4.0, 5.0, 8.0, 9.0]);
        transpose(&Transpose { outer: 2, a: 2, b: 3, inner: 2, accumulate: 0 }, 1, &y, &mut z);
        assert_eq!(x, z);
    }
}
