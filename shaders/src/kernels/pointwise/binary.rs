//! Sums, differences and products, of equal shapes or with a repeated row vector.

use crate::rows::column_kernel;
use crate::{Real, kernel, linear_grid, params};

/// An operation on two elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Binary {
    /// a + b
    Add = 0,
    /// a − b
    Subtract = 1,
    /// a · b
    Multiply = 2,
}

impl Binary {
    /// The operation of a number that came through a parameter struct.
    pub fn of(number: u32) -> Self {
        match number {
            0 => Self::Add,
            1 => Self::Subtract,
            _ => Self::Multiply,
        }
    }
}

params!(
    /// Parameters of [`BINARY_FORWARD`].
    BinaryForward {
        /// Elements of a and y a replica.
        n: u32,
        /// Elements of b a replica; a divisor of `n`, after which b repeats.
        period: u32,
        /// [`Binary`] as a number.
        kind: u32,
    }
);

params!(
    /// Parameters of [`BINARY_BACKWARD_LEFT`].
    BinaryBackwardLeft {
        /// Elements of a and y a replica.
        n: u32,
        /// Elements of b a replica.
        period: u32,
        /// [`Binary`] as a number.
        kind: u32,
        /// 1 adds to `da`, 0 overwrites it.
        accumulate: u32,
    }
);

params!(
    /// Parameters of [`BINARY_BACKWARD_RIGHT`].
    BinaryBackwardRight {
        /// How often b is repeated.
        rows: u32,
        /// Elements of b a replica.
        period: u32,
        /// [`Binary`] as a number.
        kind: u32,
        /// 1 adds to `db`, 0 overwrites it.
        accumulate: u32,
        /// The first repetition that is summed.
        first: u32,
        /// The repetition at which the sum ends, at most
        /// [`MAX_SUMMED_ROWS`](crate::MAX_SUMMED_ROWS) after the first.
        end: u32,
    }
);

/// y = a ∘ b, b repeated every `period` elements. Shapes: `a`, `y` `[R, n]`, `b`
/// `[R, period]`.
pub fn binary_forward<F: Real>(p: &BinaryForward, replicas: usize, a: &[F], b: &[F], y: &mut [F]) {
    let (n, period) = (p.n as usize, p.period as usize);
    for at in 0..replicas * n {
        let right = b[at / n * period + at % n % period];
        y[at] = match Binary::of(p.kind) {
            Binary::Add => a[at] + right,
            Binary::Subtract => a[at] - right,
            Binary::Multiply => a[at] * right,
        };
    }
}

/// da (+)= dy · ∂y/∂a. Shapes: `dy`, `da` `[R, n]`, `b` `[R, period]`.
pub fn binary_backward_left<F: Real>(
    p: &BinaryBackwardLeft,
    replicas: usize,
    b: &[F],
    dy: &[F],
    da: &mut [F],
) {
    let (n, period) = (p.n as usize, p.period as usize);
    for at in 0..replicas * n {
        let g = match Binary::of(p.kind) {
            Binary::Add | Binary::Subtract => dy[at],
            Binary::Multiply => dy[at] * b[at / n * period + at % n % period],
        };
        da[at] = if p.accumulate != 0 { da[at] + g } else { g };
    }
}

/// db (+)= Σ over the rows of the part of dy · ∂y/∂b. Shapes: `a`, `dy` `[R, rows, period]`,
/// `db` `[R, period]`.
pub fn binary_backward_right<F: Real>(
    p: &BinaryBackwardRight,
    replicas: usize,
    a: &[F],
    dy: &[F],
    db: &mut [F],
) {
    let (rows, period) = (p.rows as usize, p.period as usize);
    for r in 0..replicas {
        for c in 0..period {
            let mut sum = F::zero();
            for row in r * rows + p.first as usize..r * rows + p.end as usize {
                let at = row * period + c;
                match Binary::of(p.kind) {
                    Binary::Add => sum += dy[at],
                    Binary::Subtract => sum -= dy[at],
                    Binary::Multiply => sum += dy[at] * a[at],
                }
            }
            let at = r * period + c;
            db[at] = if p.accumulate != 0 { db[at] + sum } else { sum };
        }
    }
}

kernel! {
    /// y = a ∘ b.
    BINARY_FORWARD = "pointwise/binary_forward", BinaryForward;
    bindings: [a: read f32, b: read f32, y: write f32];
    reference: binary_forward;
    variants: [{
        name: "plain",
        source: "pointwise/binary_forward.wgsl",
        preludes: [INDEX],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.n as usize, v.constant("GROUP")),
    }];
}

kernel! {
    /// Gradient of the left operand.
    BINARY_BACKWARD_LEFT = "pointwise/binary_backward_left", BinaryBackwardLeft;
    bindings: [b: read f32, dy: read f32, da: write f32];
    reference: binary_backward_left;
    variants: [{
        name: "plain",
        source: "pointwise/binary_backward_left.wgsl",
        preludes: [INDEX],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.n as usize, v.constant("GROUP")),
    }];
}

column_kernel! {
    /// Gradient of the right operand, summed over its repetitions.
    BINARY_BACKWARD_RIGHT = "pointwise/binary_backward_right", BinaryBackwardRight;
    bindings: [a: read f32, dy: read f32, db: write f32];
    reference: binary_backward_right;
    source: "pointwise/binary_backward_right.wgsl";
    rows: |p| p.end - p.first;
    columns: |p| p.period;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_are_the_slopes_and_sum_over_repetitions() {
        let a: Vec<f64> = (0..6).map(|i| f64::from(i) - 2.5).collect();
        let dy: Vec<f64> = (0..6).map(|i| f64::from(i * i) * 0.1 - 1.0).collect();
        for (kind, period) in [(0, 3), (1, 2), (2, 3), (2, 6)] {
            let b: Vec<f64> = (0..period).map(|i| 1.5 - f64::from(i)).collect();
            let loss = |a: &[f64], b: &[f64]| -> f64 {
                let mut y = vec![0.0; 6];
                binary_forward(&BinaryForward { n: 6, period, kind }, 1, a, b, &mut y);
                y.iter().zip(&dy).map(|(y, dy)| y * dy).sum()
            };
            let bump = |x: &[f64], i: usize| {
                let mut x = x.to_vec();
                x[i] += 1.0;
                x
            };
            // Linear in each operand: the difference of a whole unit is exact.
            let mut da = vec![1.0; 6];
            let p = BinaryBackwardLeft { n: 6, period, kind, accumulate: 1 };
            binary_backward_left(&p, 1, &b, &dy, &mut da);
            for i in 0..6 {
                let slope = loss(&bump(&a, i), &b) - loss(&a, &b);
                assert!((da[i] - 1.0 - slope).abs() < 1e-12, "kind {kind}, da {i}");
            }
            let mut db = vec![1.0; b.len()];
            let rows = 6 / period;
            let p = BinaryBackwardRight { rows, period, kind, accumulate: 0, first: 0, end: rows };
            binary_backward_right(&p, 1, &a, &dy, &mut db);
            for i in 0..b.len() {
                let slope = loss(&a, &bump(&b, i)) - loss(&a, &b);
                assert!((db[i] - slope).abs() < 1e-12, "kind {kind}, db {i}");
            }
        }
    }
}
