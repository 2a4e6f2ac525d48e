//! Softmax and log-softmax over rows.

use crate::rows::row_kernel;
use crate::{Real, params};

params!(
    /// Parameters of [`SOFTMAX_FORWARD`].
    SoftmaxForward {
        /// Rows a replica.
        rows: u32,
        /// Elements of a row.
        classes: u32,
        /// 1 gives the logarithm.
        logarithm: u32,
    }
);

params!(
    /// Parameters of [`SOFTMAX_BACKWARD`].
    SoftmaxBackward {
        /// Rows a replica.
        rows: u32,
        /// Elements of a row.
        classes: u32,
        /// 1 where y is the logarithm.
        logarithm: u32,
        /// 1 adds to `dx`, 0 overwrites it.
        accumulate: u32,
    }
);

/// y = softmax of each row of x, or its logarithm. Shapes: `x`, `y` `[R, rows, classes]`.
pub fn softmax_forward<F: Real>(p: &SoftmaxForward, replicas: usize, x: &[F], y: &mut [F]) {
    let classes = p.classes as usize;
    for at in 0..replicas * p.rows as usize {
        let x = &x[at * classes..][..classes];
        let largest = x.iter().copied().fold(F::neg_infinity(), F::max);
        let sum = x.iter().map(|x| (*x - largest).exp()).sum::<F>();
        for c in 0..classes {
            let shifted = x[c] - largest;
            y[at * classes + c] =
                if p.logarithm != 0 { shifted - sum.ln() } else { shifted.exp() / sum };
        }
    }
}

/// Softmax: dx (+)= y · (dy − Σ dy · y); log-softmax: dx (+)= dy − exp(y) · Σ dy. Shapes:
/// `y`, `dy`, `dx` `[R, rows, classes]`.
pub fn softmax_backward<F: Real>(
    p: &SoftmaxBackward,
    replicas: usize,
    y: &[F],
    dy: &[F],
    dx: &mut [F],
) {
    let classes = p.classes as usize;
    for at in 0..replicas * p.rows as usize {
        let row = at * classes..(at + 1) * classes;
        let mut sum = F::zero();
        for at in row.clone() {
            sum += if p.logarithm != 0 { dy[at] } else { dy[at] * y[at] };
        }
        for at in row {
            let g =
                if p.logarithm != 0 { dy[at] - y[at].exp() * sum } else { y[at] * (dy[at] - sum) };
            dx[at] = if p.accumulate != 0 { dx[at] + g } else { g };
        }
    }
}

row_kernel! {
    /// Softmax or log-softmax of each row.
    SOFTMAX_FORWARD = "pointwise/softmax_forward", SoftmaxForward;
    bindings: [x: read f32, y: write f32];
    reference: softmax_forward;
    source: "pointwise/softmax_forward.wgsl";
    rows: |p| p.rows;
    length: |p| p.classes;
    passes: |_| 3;
}

row_kernel! {
    /// Gradient of softmax or log-softmax.
    SOFTMAX_BACKWARD = "pointwise/softmax_backward", SoftmaxBackward;
    bindings: [y: read f32, dy: read f32, dx: write f32];
    reference: softmax_backward;
    source: "pointwise/softmax_backward.wgsl";
    rows: |p| p.rows;
    length: |p| p.classes;
    passes: |_| 2;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(x: &[f64], logarithm: u32) -> Vec<f64> {
        let mut y = vec![0.0; x.len()];
        softmax_forward(&SoftmaxForward { rows: 2, classes: 3, logarithm }, 1, x, &mut y);
        y
    }

    #[test]
    fn rows_sum_to_one_and_a_shift_changes_nothing() {
        let x = [0.1, -2.0, 3.0, 800.1, 798.0, 803.0];
        let (y, log) = (forward(&x, 0), forward(&x, 1));
        for c in 0..3 {
            assert!((y[c] - y[3 + c]).abs() < 1e-12);
            assert!((y[c].ln() - log[c]).abs() < 1e-12);
        }
        assert!((y[..3].iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn gradients_are_the_slopes() {
        let x = [0.1, -2.0, 3.0, 0.5, 0.4, 0.3];
        let dy = [1.0, -0.5, 2.0, 0.1, 0.2, -3.0];
        for logarithm in [0, 1] {
            let y = forward(&x, logarithm);
            let mut dx = vec![1.0; 6];
            let p = SoftmaxBackward { rows: 2, classes: 3, logarithm, accumulate: 1 };
            softmax_backward(&p, 1, &y, &dy, &mut dx);
            for i in 0..6 {
                let loss = |d: f64| -> f64 {
                    let mut x = x;
                    x[i] += d;
                    forward(&x, logarithm).iter().zip(dy).map(|(y, dy)| y * dy).sum()
                };
                let slope = (loss(1e-5) - loss(-1e-5)) / 2e-5;
                assert!((dx[i] - 1.0 - slope).abs() < 1e-8, "{i}: {slope} {}", dx[i]);
            }
        }
    }
}
