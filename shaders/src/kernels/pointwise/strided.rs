//! Elements that are moved by strides, or chosen by a condition.

use super::copy::put;
use crate::{Real, kernel, linear_grid, params};

params!(
    /// Parameters of [`STRIDED_COPY`]: up to four axes, the last the innermost; an axis that isn't
    /// needed has the size 1. Strides wrap: one of 2^32 − s runs backward.
    StridedCopy {
        /// Elements of the outermost axis.
        size0: u32,
        /// Elements of the second axis.
        size1: u32,
        /// Elements of the third axis.
        size2: u32,
        /// Elements of the innermost axis.
        size3: u32,
        /// First element in x.
        x_offset: u32,
        /// In x from one element of the outermost axis to the next; 0 repeats.
        x_stride0: u32,
        /// Of the second axis.
        x_stride1: u32,
        /// Of the third axis.
        x_stride2: u32,
        /// Of the innermost axis.
        x_stride3: u32,
        /// Elements of x a replica.
        x_replica: u32,
        /// First element in y.
        y_offset: u32,
        /// In y from one element of the outermost axis to the next.
        y_stride0: u32,
        /// Of the second axis.
        y_stride1: u32,
        /// Of the third axis.
        y_stride2: u32,
        /// Of the innermost axis.
        y_stride3: u32,
        /// Elements of y a replica.
        y_replica: u32,
        /// 1 adds to `y`, 0 overwrites it.
        accumulate: u32,
    }
);

params!(
    /// Parameters of [`WHERE_FORWARD`].
    WhereForward {
        /// Elements a replica.
        n: u32,
    }
);

params!(
    /// Parameters of [`WHERE_BACKWARD`].
    WhereBackward {
        /// Elements a replica.
        n: u32,
        /// 1: the gradient of what is taken where the condition holds; 0: of the other.
        side: u32,
        /// 1 adds to `dx`, 0 overwrites it.
        accumulate: u32,
    }
);

impl StridedCopy {
    /// Sizes of the axes.
    pub fn sizes(&self) -> [u32; 4] {
        [self.size0, self.size1, self.size2, self.size3]
    }

    /// Strides of the axes in x.
    pub fn x_strides(&self) -> [u32; 4] {
        [self.x_stride0, self.x_stride1, self.x_stride2, self.x_stride3]
    }

    /// Strides of the axes in y.
    pub fn y_strides(&self) -> [u32; 4] {
        [self.y_stride0, self.y_stride1, self.y_stride2, self.y_stride3]
    }
}

/// The place of an element by its indices.
fn place(offset: u32, strides: [u32; 4], index: [u32; 4]) -> usize {
    let steps = strides.iter().zip(index).map(|(stride, i)| stride.wrapping_mul(i));
    steps.fold(offset, u32::wrapping_add) as usize
}

/// y\[Σ iₖ · y_strideₖ\] (+)= x\[Σ iₖ · x_strideₖ\] for all indices. Shapes: `x` `[R, x_replica]`, `y`
/// `[R, y_replica]`.
pub fn strided_copy<F: Real>(p: &StridedCopy, replicas: usize, x: &[F], y: &mut [F]) {
    let [a, b, c, d] = p.sizes();
    for r in 0..replicas as u32 {
        let (x_offset, y_offset) = (r * p.x_replica + p.x_offset, r * p.y_replica + p.y_offset);
        for n in 0..a * b * c * d {
            let index = [n / d / c / b, n / d / c % b, n / d % c, n % d];
            let from = place(x_offset, p.x_strides(), index);
            put(&mut y[place(y_offset, p.y_strides(), index)], x[from], p.accumulate);
        }
    }
}

/// y = a where the condition is not 0, b where it is. Shapes: all `[R, n]`.
pub fn where_forward<F: Real>(
    p: &WhereForward,
    replicas: usize,
    condition: &[u32],
    a: &[F],
    b: &[F],
    y: &mut [F],
) {
    for at in 0..replicas * p.n as usize {
        y[at] = if condition[at] != 0 { a[at] } else { b[at] };
    }
}

/// dx (+)= dy where the condition is not 0 (`side` 1) or where it is (`side` 0). Shapes: all `[R, n]`.
pub fn where_backward<F: Real>(
    p: &WhereBackward,
    replicas: usize,
    condition: &[u32],
    dy: &[F],
    dx: &mut [F],
) {
    for at in 0..replicas * p.n as usize {
        let chosen = (condition[at] != 0) == (p.side != 0);
        put(&mut dx[at], if chosen { dy[at] } else { F::zero() }, p.accumulate);
    }
}

kernel! {
    /// Copies or adds elements by strides.
    STRIDED_COPY = "pointwise/strided_copy", StridedCopy;
    bindings: [x: read f32, y: write f32];
    reference: strided_copy;
    variants: [{
        name: "plain",
        source: "pointwise/strided_copy.wgsl",
        preludes: [INDEX],
        consts: [GROUP = 64],
        grid: |p, v| {
            let n = p.sizes().iter().map(|size| *size as usize).product();
            linear_grid(n, v.constant("GROUP"))
        },
    }];
}

kernel! {
    /// Chooses between two tensors, element by element.
    WHERE_FORWARD = "pointwise/where_forward", WhereForward;
    bindings: [condition: read u32, a: read f32, b: read f32, y: write f32];
    reference: where_forward;
    variants: [{
        name: "plain",
        source: "pointwise/where_forward.wgsl",
        preludes: [INDEX],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.n as usize, v.constant("GROUP")),
    }];
}

kernel! {
    /// The gradient of one of the two.
    WHERE_BACKWARD = "pointwise/where_backward", WhereBackward;
    bindings: [condition: read u32, dy: read f32, dx: write f32];
    reference: where_backward;
    variants: [{
        name: "plain",
        source: "pointwise/where_backward.wgsl",
        preludes: [INDEX],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.n as usize, v.constant("GROUP")),
    }];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_turned_run_backward_and_repeat() {
        // [2, 3] turned to [3, 2], the first axis of x backward.
        let p = StridedCopy {
            size0: 1,
            size1: 1,
            size2: 3,
            size3: 2,
            x_offset: 3,
            x_stride2: 1,
            x_stride3: 3u32.wrapping_neg(),
            x_replica: 6,
            y_stride2: 2,
            y_stride3: 1,
            y_replica: 6,
            ..Default::default()
        };
        let x: Vec<f64> = (0..12).map(f64::from).collect();
        let mut y = [0.0; 12];
        strided_copy(&p, 2, &x, &mut y);
        assert_eq!(y, [3.0, 0.0, 4.0, 1.0, 5.0, 2.0, 9.0, 6.0, 10.0, 7.0, 11.0, 8.0]);
        let repeated = StridedCopy { x_offset: 1, x_stride2: 0, x_stride3: 0, accumulate: 1, ..p };
        strided_copy(&repeated, 1, &x, &mut y);
        assert_eq!(y[..6], [4.0, 1.0, 5.0, 2.0, 6.0, 3.0]);
    }

    #[test]
    fn a_condition_chooses_and_its_gradient_goes_to_what_was_chosen() {
        let (condition, mut y) = ([0, 1, 7], [9.0f64; 3]);
        where_forward(&WhereForward { n: 3 }, 1, &condition, &[1.0; 3], &[2.0; 3], &mut y);
        assert_eq!(y, [2.0, 1.0, 1.0]);
        for (side, expected) in [(0, [6.0, 9.0, 9.0]), (1, [9.0, 7.0, 8.0])] {
            let (dy, mut dx) = ([-3.0, -2.0, -1.0], [9.0f64; 3]);
            let p = WhereBackward { n: 3, side, accumulate: 1 };
            where_backward(&p, 1, &condition, &dy, &mut dx);
            assert_eq!(dx, expected);
        }
    }
}
