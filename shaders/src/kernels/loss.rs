//! Losses with their gradients.
//!
//! A loss is the mean over the rows that count: rows whose target is not
//! [`IGNORED`], or the leading rows that a short batch fills. The number of them is computed
//! on the device too ([`COUNT_TARGETS`], [`COUNT_ROWS`]); with none at all the loss and its
//! gradient are zero.
//!
//! ```rust
//! use tern_shaders::kernels::loss::{Rows, SoftmaxCrossEntropyForward, count_targets, mean};
//! use tern_shaders::kernels::loss::{IGNORED, softmax_cross_entropy_forward};
//!
//! // Two rows of four equal logits; the second one has no target.
//! let target = [3, IGNORED];
//! let p = SoftmaxCrossEntropyForward { rows: 2, classes: 4, first: 0, all: 4 };
//! let (mut row, mut log_sum) = ([0.0f32; 2], [0.0; 4]);
//! softmax_cross_entropy_forward(&p, 1, &[0.5; 8], &target, &mut row, &mut log_sum);
//! let (mut count, mut loss) = ([0.0], [0.0]);
//! count_targets(&Rows { rows: 2 }, 1, &target, &mut count);
//! mean(&Rows { rows: 2 }, 1, &row, &count, &mut loss);
//! assert_eq!((count, loss), ([1.0], [4f32.ln()]));
//! ```

mod cross_entropy;
pub mod weighted;

pub use cross_entropy::*;

use crate::activation::sigmoid;
use crate::rows::row_kernel;
use crate::{AnyKernel, Real, kernel, linear_grid, params, state};

/// The target of a row that does not count.
pub const IGNORED: u32 = u32::MAX;

/// A loss between two tensors, element by element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ElementLoss {
    /// (x − t)²
    SquaredError = 0,
    /// −t log σ(x) − (1 − t) log(1 − σ(x)) of a logit x and a probability t in [0, 1]
    BinaryCrossEntropy = 1,
}

impl ElementLoss {
    /// The loss of a number that came through a parameter struct.
    pub fn of(number: u32) -> Self {
        if number == 1 { Self::BinaryCrossEntropy } else { Self::SquaredError }
    }

    /// ℓ(x, t)
    pub fn value<F: Real>(self, x: F, t: F) -> F {
        match self {
            Self::SquaredError => (x - t) * (x - t),
            // (1 − t) x − log σ(x): finite for every logit, and infinite where it should be.
            Self::BinaryCrossEntropy => {
                let below = if x < F::zero() { x } else { F::zero() };
                (F::one() - t) * x - (below - (-x.abs()).exp().ln_1p())
            }
        }
    }

    /// ∂ℓ/∂x
    pub fn gradient<F: Real>(self, x: F, t: F) -> F {
        match self {
            Self::SquaredError => F::of(2.0) * (x - t),
            Self::BinaryCrossEntropy => sigmoid(x) - t,
        }
    }
}

params!(
    /// Parameters of [`COUNT_TARGETS`] and [`MEAN`].
    Rows {
        /// Rows a replica.
        rows: u32,
    }
);

params!(
    /// Parameters of [`COUNT_ROWS`].
    BatchRows {
        /// Row of the batch that is the part's first; 0 for a whole batch.
        first: u32,
        /// Rows a replica.
        rows: u32,
    }
);

params!(
    /// Parameters of [`ELEMENTWISE_FORWARD`].
    ElementwiseForward {
        /// Rows a replica.
        rows: u32,
        /// Elements of a row.
        width: u32,
        /// [`ElementLoss`] as a number.
        kind: u32,
    }
);

params!(
    /// Parameters of [`ELEMENTWISE_BACKWARD`].
    ElementwiseBackward {
        /// Rows a replica.
        rows: u32,
        /// Elements of a row.
        width: u32,
        /// [`ElementLoss`] as a number.
        kind: u32,
        /// 1 adds to `dx`, 0 overwrites it.
        accumulate: u32,
    }
);

/// count = number of targets that are not [`IGNORED`]. Shapes: `target_class` `[R, rows]`,
/// `count` `[R]`.
pub fn count_targets<F: Real>(p: &Rows, replicas: usize, target_class: &[u32], count: &mut [F]) {
    let rows = p.rows as usize;
    for r in 0..replicas {
        let targets = &target_class[r * rows..][..rows];
        count[r] = F::count(targets.iter().filter(|t| **t != IGNORED).count());
    }
}

/// count = rows of the batch that hold samples, from `first` on. Shapes: `state` `[R, 64]`, `count` `[R]`.
pub fn count_rows<F: Real>(p: &BatchRows, replicas: usize, state: &[u32], count: &mut [F]) {
    for r in 0..replicas {
        let held = state[r * state::WORDS + state::ROWS].saturating_sub(p.first);
        count[r] = F::count(held.min(p.rows) as usize);
    }
}

/// loss = Σ row_loss / max(count, 1). Shapes: `row_loss` `[R, rows]`, `count`, `loss` `[R]`.
pub fn mean<F: Real>(p: &Rows, replicas: usize, row_loss: &[F], count: &[F], loss: &mut [F]) {
    let rows = p.rows as usize;
    for r in 0..replicas {
        let sum = row_loss[r * rows..][..rows].iter().copied().sum::<F>();
        loss[r] = sum / count[r].max(F::one());
    }
}

/// row_loss = mean over the row of ℓ(x, t), zero from row `count` on. Shapes: `x`,
/// `target_value` `[R, rows, width]`, `count` `[R]`, `row_loss` `[R, rows]`.
pub fn elementwise_forward<F: Real>(
    p: &ElementwiseForward,
    replicas: usize,
    x: &[F],
    target_value: &[F],
    count: &[F],
    row_loss: &mut [F],
) {
    let (rows, width) = (p.rows as usize, p.width as usize);
    let loss = ElementLoss::of(p.kind);
    for r in 0..replicas {
        for row in 0..rows {
            let first = (r * rows + row) * width;
            let mut sum = F::zero();
            for at in first..first + width {
                sum += loss.value(x[at], target_value[at]);
            }
            row_loss[r * rows + row] =
                if F::count(row) < count[r] { sum / F::count(width) } else { F::zero() };
        }
    }
}

/// dx (+)= dloss · ∂ℓ/∂x / (width · max(count, 1)), zero from row `count` on. Shapes: `x`,
/// `target_value`, `dx` `[R, rows, width]`, `count`, `dloss` `[R]`.
pub fn elementwise_backward<F: Real>(
    p: &ElementwiseBackward,
    replicas: usize,
    x: &[F],
    target_value: &[F],
    count: &[F],
    dloss: &[F],
    dx: &mut [F],
) {
    let (n, width) = (p.rows as usize * p.width as usize, p.width as usize);
    let loss = ElementLoss::of(p.kind);
    for r in 0..replicas {
        let scale = dloss[r] / (F::count(width) * count[r].max(F::one()));
        for i in 0..n {
            let at = r * n + i;
            let mut g = F::zero();
            if F::count(i / width) < count[r] {
                g = scale * loss.gradient(x[at], target_value[at]);
            }
            dx[at] = if p.accumulate != 0 { dx[at] + g } else { g };
        }
    }
}

row_kernel! {
    /// Number of rows with a target.
    COUNT_TARGETS = "loss/count_targets", Rows;
    bindings: [target_class: read u32, count: write f32];
    reference: count_targets;
    source: "loss/count_targets.wgsl";
    rows: |_| 1;
    length: |p| p.rows;
    passes: |_| 1;
}

kernel! {
    /// Number of rows of the batch that hold samples, from the state record.
    COUNT_ROWS = "loss/count_rows", BatchRows;
    bindings: [state: read u32, count: write f32];
    reference: count_rows;
    variants: [{
        name: "plain",
        source: "loss/count_rows.wgsl",
        preludes: [STATE],
        consts: [],
        grid: |_, _| [1, 1],
    }];
}

row_kernel! {
    /// loss = Σ row_loss / max(count, 1).
    MEAN = "loss/mean", Rows;
    bindings: [row_loss: read f32, count: read f32, loss: write f32];
    reference: mean;
    source: "loss/mean.wgsl";
    rows: |_| 1;
    length: |p| p.rows;
    passes: |_| 1;
}

row_kernel! {
    /// Mean over each row of a loss element by element.
    ELEMENTWISE_FORWARD = "loss/elementwise_forward", ElementwiseForward;
    bindings: [x: read f32, target_value: read f32, count: read f32, row_loss: write f32];
    reference: elementwise_forward;
    source: "loss/elementwise_forward.wgsl";
    rows: |p| p.rows;
    length: |p| p.width;
    passes: |_| 1;
}

kernel! {
    /// Gradient of a loss element by element.
    ELEMENTWISE_BACKWARD = "loss/elementwise_backward", ElementwiseBackward;
    bindings: [
        x: read f32, target_value: read f32, count: read f32, dloss: read f32, dx: write f32,
    ];
    reference: elementwise_backward;
    variants: [{
        name: "plain",
        source: "loss/elementwise_backward.wgsl",
        preludes: [INDEX, ACTIVATION],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.rows as usize * p.width as usize, v.constant("GROUP")),
    }];
}

/// Kernels of this family.
pub static KERNELS: &[&AnyKernel] = &[
    COUNT_TARGETS.any(),
    COUNT_ROWS.any(),
    MEAN.any(),
    SOFTMAX_CROSS_ENTROPY_FORWARD.any(),
    SOFTMAX_CROSS_ENTROPY_JOIN.any(),
    SOFTMAX_CROSS_ENTROPY_BACKWARD.any(),
    ELEMENTWISE_FORWARD.any(),
    ELEMENTWISE_BACKWARD.any(),
    weighted::TARGET_WEIGHTS.any(),
    weighted::WEIGHTED_CROSS_ENTROPY_FORWARD.any(),
    weighted::WEIGHTED_CROSS_ENTROPY_BACKWARD.any(),
];

#[cfg(test)]
mod tests {
    use super::*;

    const EPSILON: f64 = 1e-5;

    /// Holds `gradient` against central differences of `loss` around `x`.
    pub(super) fn check(x: &[f64], gradient: &[f64], loss: impl Fn(&[f64]) -> f64) {
        for i in 0..x.len() {
            let at = |d: f64| {
                let mut x = x.to_vec();
                x[i] += d;
                loss(&x)
            };
            let expected = (at(EPSILON) - at(-EPSILON)) / (2.0 * EPSILON);
            assert!((expected - gradient[i]).abs() < 1e-8, "{i}: {expected} {}", gradient[i]);
        }
    }

    #[test]
    fn cross_entropy_of_equal_logits_is_the_logarithm_of_the_classes() {
        let p = SoftmaxCrossEntropyForward { rows: 2, classes: 8, first: 0, all: 8 };
        let (mut loss, mut log_sum) = ([0.0f64; 2], [0.0; 4]);
        softmax_cross_entropy_forward(&p, 1, &[1e4; 16], &[3, IGNORED], &mut loss, &mut log_sum);
        assert!((loss[0] - 8f64.ln()).abs() < 1e-9, "large logits do not overflow");
        assert_eq!(loss[1], 0.0);
        // In single precision, too.
        for offset in [-1e9f32, -1e5, 1e4, 1e5, 1e7, 1e9, 3e38] {
            let (mut loss, mut log_sum) = ([0.0f32; 2], [0.0; 4]);
            softmax_cross_entropy_forward(&p, 1, &[offset; 16], &[3, 7], &mut loss, &mut log_sum);
            assert_eq!(loss, [8f32.ln(); 2], "{offset}");
        }
    }

    #[test]
    fn cross_entropy_gradient_is_the_slope_of_the_mean() {
        let (rows, classes) = (4, 3);
        let target = [2, IGNORED, 0, 99];
        let logits: Vec<f64> = (0..12).map(|i| f64::from(i * i % 7) * 0.4 - 1.0).collect();
        let mut count = [0.0];
        count_targets(&Rows { rows }, 1, &target, &mut count);
        assert_eq!(count, [3.0]);
        let forward = |logits: &[f64]| {
            let p = SoftmaxCrossEntropyForward { rows, classes, first: 0, all: classes };
            let (mut row, mut log_sum, mut loss) = (vec![0.0; 4], vec![0.0; 8], [0.0]);
            softmax_cross_entropy_forward(&p, 1, logits, &target, &mut row, &mut log_sum);
            mean(&Rows { rows }, 1, &row, &count, &mut loss);
            (2.5 * loss[0], log_sum)
        };
        let (_, log_sum) = forward(&logits);
        let mut dlogits = vec![0.0; 12];
        for accumulate in [0, 1] {
            let p =
                SoftmaxCrossEntropyBackward { rows, classes, accumulate, first: 0, all: classes };
            softmax_cross_entropy_backward(
                &p,
                1,
                &logits,
                &target,
                &log_sum,
                &count,
                &[1.25],
                &mut dlogits,
            );
        }
        check(&logits, &dlogits, |x| forward(x).0);
    }

    #[test]
    fn element_losses_have_their_slopes_and_ignore_the_padded_rows() {
        let (rows, width) = (3, 2);
        let x = [0.3, -1.2, 4.0, 0.0, 7.0, 8.0];
        let t = [0.0, 1.0, 0.25, 0.5, 1.0, 1.0];
        let mut record = vec![0; state::WORDS];
        record[state::ROWS] = 2;
        let mut count = [0.0];
        count_rows(&BatchRows { first: 0, rows }, 1, &record, &mut count);
        for kind in [ElementLoss::SquaredError, ElementLoss::BinaryCrossEntropy] {
            let kind = kind as u32;
            let forward = |x: &[f64]| {
                let p = ElementwiseForward { rows, width, kind };
                let (mut row, mut loss) = (vec![0.0; 3], [0.0]);
                elementwise_forward(&p, 1, x, &t, &count, &mut row);
                mean(&Rows { rows }, 1, &row, &count, &mut loss);
                3.0 * loss[0]
            };
            let mut dx = vec![0.0; 6];
            let p = ElementwiseBackward { rows, width, kind, accumulate: 0 };
            elementwise_backward(&p, 1, &x, &t, &count, &[3.0], &mut dx);
            check(&x, &dx, forward);
            assert_eq!(dx[4..], [0.0, 0.0]);
        }
        // Known values: -log σ(2) and a logit far out.
        let bce = ElementLoss::BinaryCrossEntropy;
        assert!((bce.value(2.0f64, 1.0) - 0.126_928_011_042_972_5).abs() < 1e-15);
        assert!((bce.value(-500.0f64, 1.0) - 500.0).abs() < 1e-9);
    }

    #[test]
    fn without_a_row_that_counts_loss_and_gradient_are_zero() {
        let mut loss = [1.0f64];
        mean(&Rows { rows: 2 }, 1, &[0.0, 0.0], &[0.0], &mut loss);
        assert_eq!(loss, [0.0]);
        let p =
            SoftmaxCrossEntropyBackward { rows: 1, classes: 2, accumulate: 0, first: 0, all: 2 };
        let mut d = [1.0f64; 2];
        softmax_cross_entropy_backward(
            &p,
            1,
            &[1.0, 2.0],
            &[IGNORED],
            &[2.3],
            &[0.0],
            &[1.0],
            &mut d,
        );
        assert_eq!(d, [0.0, 0.0]);
    }
}
