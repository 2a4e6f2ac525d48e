//! Rows of the cross-entropy, plain and weighted.

use tern_shaders::kernels::loss::weighted::{
    WEIGHTED_CROSS_ENTROPY_BACKWARD, WEIGHTED_CROSS_ENTROPY_FORWARD, WeightedCrossEntropyBackward,
    WeightedCrossEntropyForward,
};
use tern_shaders::kernels::loss::{
    SOFTMAX_CROSS_ENTROPY_BACKWARD, SOFTMAX_CROSS_ENTROPY_FORWARD, SoftmaxCrossEntropyBackward,
    SoftmaxCrossEntropyForward,
};

use super::recipe::{Contents, Recipe, case, floats, repeated, words};

/// Logits, targets and weights of `rows` rows.
fn inputs(rows: u32, classes: u32) -> [Contents; 3] {
    let all = (rows * classes) as usize;
    [floats(all, 2), words(rows as usize, classes, 1), floats(classes as usize, 7)]
}

/// What a mean over so many rows is divided by, in the kernels' form.
fn normalizer(rows: u32) -> Contents {
    repeated([2.0 / rows as f32], 1)
}

/// Losses of rows.
pub(super) fn forward(rows: u32, classes: u32) -> [Recipe; 2] {
    let (label, n) = (format!("{rows} × {classes}"), rows as usize);
    let [logits, targets, weights] = inputs(rows, classes);
    let p = SoftmaxCrossEntropyForward { rows, classes, first: 0, all: classes };
    let buffers = vec![logits.clone(), targets.clone(), floats(n, 3), floats(2 * n, 4)];
    let plain = case(&SOFTMAX_CROSS_ENTROPY_FORWARD, &label, &p, buffers);
    let p = WeightedCrossEntropyForward { rows, classes, smoothing: 0.1 };
    let buffers = vec![logits, targets, weights, normalizer(rows), floats(n, 3), floats(3 * n, 4)];
    [plain, case(&WEIGHTED_CROSS_ENTROPY_FORWARD, label, &p, buffers)]
}

/// Their gradients.
pub(super) fn backward(rows: u32, classes: u32) -> [Recipe; 2] {
    let (label, n) = (format!("{rows} × {classes}"), rows as usize);
    let [logits, targets, weights] = inputs(rows, classes);
    let dlogits = floats(n * classes as usize, 6);
    let rest = (classes as f32).ln();
    let p = SoftmaxCrossEntropyBackward { rows, classes, accumulate: 0, first: 0, all: classes };
    let log_sum = repeated([0.0, rest], n);
    let count = repeated([rows as f32], 1);
    let buffers =
        vec![logits.clone(), targets.clone(), log_sum, count, floats(1, 5), dlogits.clone()];
    let plain = case(&SOFTMAX_CROSS_ENTROPY_BACKWARD, &label, &p, buffers);
    let p = WeightedCrossEntropyBackward { rows, classes, smoothing: 0.1, accumulate: 0 };
    let sums = repeated([0.0, rest, 1.0], n);
    let buffers = vec![logits, targets, weights, sums, normalizer(rows), floats(1, 5), dlogits];
    [plain, case(&WEIGHTED_CROSS_ENTROPY_BACKWARD, label, &p, buffers)]
}
