//! Cross-entropy with weights of the classes and label smoothing (Szegedy et al. 2016, section 7).
//!
//! ```rust
//! use tern_shaders::kernels::loss::weighted::{
//!     TargetWeights, WeightedCrossEntropyForward, target_weights, weighted_cross_entropy_forward,
//! };
//!
//! // Two rows of two equal logits; the second class counts three times.
//! let (target, weights) = ([0, 1], [1.0, 3.0]);
//! let mut normalizer = [0.0f32];
//! target_weights(&TargetWeights { rows: 2, classes: 2 }, 1, &target, &weights, &mut normalizer);
//! assert_eq!(normalizer, [0.25]);
//! let p = WeightedCrossEntropyForward { rows: 2, classes: 2, smoothing: 0.0 };
//! let (mut row, mut sums) = ([0.0; 2], [0.0; 6]);
//! let logits = [7.0; 4];
//! weighted_cross_entropy_forward(
//!     &p, 1, &logits, &target, &weights, &normalizer, &mut row, &mut sums,
//! );
//! assert_eq!(row, [0.25 * 2f32.ln(), 0.75 * 2f32.ln()]);
//! ```

use super::IGNORED;
use crate::rows::row_kernel;
use crate::{Real, kernel, linear_grid, params};

params!(
    /// Parameters of [`TARGET_WEIGHTS`].
    TargetWeights {
        /// Rows a replica.
        rows: u32,
        /// Classes, the number of weights.
        classes: u32,
    }
);

params!(
    /// Parameters of [`WEIGHTED_CROSS_ENTROPY_FORWARD`].
    WeightedCrossEntropyForward {
        /// Rows a replica.
        rows: u32,
        /// Classes, the length of a row.
        classes: u32,
        /// Share of a target that goes to all classes alike, in [0, 1].
        smoothing: f32,
    }
);

params!(
    /// Parameters of [`WEIGHTED_CROSS_ENTROPY_BACKWARD`].
    WeightedCrossEntropyBackward {
        /// Rows a replica.
        rows: u32,
        /// Classes, the length of a row.
        classes: u32,
        /// Share of a target that goes to all classes alike, in [0, 1].
        smoothing: f32,
        /// 1 adds to `dlogits`, 0 overwrites it.
        accumulate: u32,
    }
);

/// normalizer = 1 / Σ weights\[target\] over the targets that are not [`IGNORED`], 0 without any: by
/// it a sum of weighted rows becomes their mean. Shapes: `target_class` `[R, rows]`, `weights`
/// `[R, classes]`, `normalizer` `[R]`.
pub fn target_weights<F: Real>(
    p: &TargetWeights,
    replicas: usize,
    target_class: &[u32],
    weights: &[F],
    normalizer: &mut [F],
) {
    let (rows, classes) = (p.rows as usize, p.classes as usize);
    for r in 0..replicas {
        let targets = target_class[r * rows..][..rows].iter().filter(|t| **t != IGNORED);
        let weight = |t: &u32| weights[r * classes + (*t as usize).min(classes - 1)];
        let sum = targets.map(weight).sum::<F>();
        normalizer[r] = if sum == F::zero() { F::zero() } else { F::one() / sum };
    }
}

/// row_loss = normalizer · ((1 − ε) w\[t\] · −log p\[t\] + ε / classes · Σ_c w\[c\] · −log p\[c\]) with
/// p = softmax(logits), w the weights, t the target and ε the smoothing; zero where t is
/// [`IGNORED`]. `row_sums` is what the gradient takes: the largest logit, the logarithm of
/// Σ exp(logit − largest), and (1 − ε) w\[t\] + ε / classes · Σ w. Shapes: `logits`
/// `[R, rows, classes]`, `target_class`, `row_loss` `[R, rows]`, `weights` `[R, classes]`,
/// `normalizer` `[R]`, `row_sums` `[R, rows, 3]`.
pub fn weighted_cross_entropy_forward<F: Real>(
    p: &WeightedCrossEntropyForward,
    replicas: usize,
    logits: &[F],
    target_class: &[u32],
    weights: &[F],
    normalizer: &[F],
    row_loss: &mut [F],
    row_sums: &mut [F],
) {
    let (rows, classes) = (p.rows as usize, p.classes as usize);
    let smoothing = F::of(p.smoothing);
    let share = smoothing / F::count(classes);
    for at in 0..replicas * rows {
        let r = at / rows;
        let (row, weights) =
            (&logits[at * classes..][..classes], &weights[r * classes..][..classes]);
        let largest = row.iter().copied().fold(F::neg_infinity(), F::max);
        let rest = row.iter().map(|x| (*x - largest).exp()).sum::<F>().ln();
        let place = (target_class[at] as usize).min(classes - 1);
        let own = (F::one() - smoothing) * weights[place];
        let mut loss = own * (rest - (row[place] - largest));
        // Not 0 · ∞ without smoothing.
        if p.smoothing != 0.0 {
            let terms = row.iter().zip(weights);
            loss += share * terms.map(|(x, w)| *w * (rest - (*x - largest))).sum::<F>();
        }
        let ignored = target_class[at] == IGNORED;
        row_loss[at] = if ignored { F::zero() } else { normalizer[r] * loss };
        let weight = own + share * weights.iter().copied().sum::<F>();
        row_sums[3 * at..][..3].copy_from_slice(&[largest, rest, weight]);
    }
}

/// dlogits (+)= dloss · normalizer · (s · softmax(logits) − (1 − ε) w\[t\] · onehot(t) −
/// ε / classes · w), the gradient of the rows' sum, with s the last of `row_sums`; zero where the
/// target t is [`IGNORED`]. Shapes: `logits`, `dlogits` `[R, rows, classes]`, `target_class`
/// `[R, rows]`, `weights` `[R, classes]`, `row_sums` `[R, rows, 3]`, `normalizer`, `dloss` `[R]`.
pub fn weighted_cross_entropy_backward<F: Real>(
    p: &WeightedCrossEntropyBackward,
    replicas: usize,
    logits: &[F],
    target_class: &[u32],
    weights: &[F],
    row_sums: &[F],
    normalizer: &[F],
    dloss: &[F],
    dlogits: &mut [F],
) {
    let (rows, classes) = (p.rows as usize, p.classes as usize);
    let smoothing = F::of(p.smoothing);
    for at in 0..replicas * rows * classes {
        let (row, c) = (at / classes, at % classes);
        let (r, class) = (row / rows, target_class[row]);
        let mut g = F::zero();
        if class != IGNORED {
            let hit = c == (class as usize).min(classes - 1);
            let own = if hit { F::one() - smoothing } else { F::zero() };
            let share = weights[r * classes + c] * (own + smoothing / F::count(classes));
            let x = logits[at] - row_sums[3 * row];
            let probability = (x - row_sums[3 * row + 1]).exp();
            g = dloss[r] * normalizer[r] * (row_sums[3 * row + 2] * probability - share);
        }
        dlogits[at] = if p.accumulate != 0 { dlogits[at] + g } else { g };
    }
}

row_kernel! {
    /// One over the sum of the targets' weights.
    TARGET_WEIGHTS = "loss/target_weights", TargetWeights;
    bindings: [target_class: read u32, weights: read f32, normalizer: write f32];
    reference: target_weights;
    source: "loss/target_weights.wgsl";
    rows: |_| 1;
    length: |p| p.rows;
    passes: |_| 1;
}

row_kernel! {
    /// Weighted, smoothed cross-entropy of each row, and sums for the gradient.
    WEIGHTED_CROSS_ENTROPY_FORWARD =
        "loss/weighted_cross_entropy_forward", WeightedCrossEntropyForward;
    bindings: [
        logits: read f32, target_class: read u32, weights: read f32, normalizer: read f32,
        row_loss: write f32, row_sums: write f32,
    ];
    reference: weighted_cross_entropy_forward;
    source: "loss/weighted_cross_entropy_forward.wgsl";
    rows: |p| p.rows;
    length: |p| p.classes;
    passes: |_| 2;
}

kernel! {
    /// Gradient of the weighted, smoothed cross-entropy.
    WEIGHTED_CROSS_ENTROPY_BACKWARD =
        "loss/weighted_cross_entropy_backward", WeightedCrossEntropyBackward;
    bindings: [
        logits: read f32, target_class: read u32, weights: read f32, row_sums: read f32,
        normalizer: read f32, dloss: read f32, dlogits: write f32,
    ];
    reference: weighted_cross_entropy_backward;
    variants: [{
        name: "plain",
        source: "loss/weighted_cross_entropy_backward.wgsl",
        preludes: [INDEX],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.rows as usize * p.classes as usize, v.constant("GROUP")),
    }];
}

#[cfg(test)]
mod tests {
    use super::*;

    /// −log p of each logit of a row.
    fn surprise(row: &[f64]) -> Vec<f64> {
        let sum: f64 = row.iter().map(|x| x.exp()).sum();
        row.iter().map(|x| sum.ln() - x).collect()
    }

    #[test]
    fn the_loss_is_its_definition_and_the_gradient_its_slope() {
        let (rows, classes) = (4, 3);
        let target = [2, IGNORED, 0, 1];
        let weights = [0.5, 2.0, 1.25];
        let logits: Vec<f64> = (0..12).map(|i| f64::from(i * i % 7) * 0.4 - 1.0).collect();
        for smoothing in [0.0, 0.25, 1.0] {
            let mut normalizer = [0.0];
            let p = TargetWeights { rows, classes };
            target_weights(&p, 1, &target, &weights, &mut normalizer);
            assert_eq!(normalizer, [1.0 / 3.75]);
            let forward = |logits: &[f64]| {
                let p = WeightedCrossEntropyForward { rows, classes, smoothing };
                let (mut row, mut sums) = (vec![0.0; 4], vec![0.0; 12]);
                weighted_cross_entropy_forward(
                    &p,
                    1,
                    logits,
                    &target,
                    &weights,
                    &normalizer,
                    &mut row,
                    &mut sums,
                );
                (row, sums)
            };
            let (row, sums) = forward(&logits);
            let share = f64::from(smoothing) / 3.0;
            for (at, (row, logits)) in row.iter().zip(logits.chunks(3)).enumerate() {
                let log = surprise(logits);
                let all: f64 = log.iter().zip(weights).map(|(l, w)| l * w).sum();
                let expected = match target[at] {
                    IGNORED => 0.0,
                    t => {
                        let t = t as usize;
                        (1.0 - f64::from(smoothing)) * weights[t] * log[t] + share * all
                    }
                };
                assert!((row - normalizer[0] * expected).abs() < 1e-12, "{at}: {row}");
            }
            let mut dlogits = vec![0.0; 12];
            for accumulate in [0, 1] {
                let p = WeightedCrossEntropyBackward { rows, classes, smoothing, accumulate };
                weighted_cross_entropy_backward(
                    &p,
                    1,
                    &logits,
                    &target,
                    &weights,
                    &sums,
                    &normalizer,
                    &[1.25],
                    &mut dlogits,
                );
            }
            let total = |x: &[f64]| 2.5 * forward(x).0.iter().sum::<f64>();
            super::super::tests::check(&logits, &dlogits, total);
        }
    }

    #[test]
    fn without_a_target_that_counts_all_is_zero() {
        let mut normalizer = [9.0f64];
        let p = TargetWeights { rows: 2, classes: 2 };
        target_weights(&p, 1, &[IGNORED; 2], &[1.0, 1.0], &mut normalizer);
        assert_eq!(normalizer, [0.0]);
    }
}
