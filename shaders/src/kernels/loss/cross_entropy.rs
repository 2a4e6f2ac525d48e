//! Cross-entropy of logits with one class a row, of all classes or of a part of them.

use super::IGNORED;
use crate::rows::row_kernel;
use crate::{Real, kernel, linear_grid, params};

params!(
    /// Parameters of [`SOFTMAX_CROSS_ENTROPY_FORWARD`].
    SoftmaxCrossEntropyForward {
        /// Rows a replica.
        rows: u32,
        /// Classes, the length of a row.
        classes: u32,
        /// The first of them: 0 but for a part of the classes.
        first: u32,
        /// Classes that there are.
        all: u32,
    }
);

params!(
    /// Parameters of [`SOFTMAX_CROSS_ENTROPY_JOIN`].
    SoftmaxCrossEntropyJoin {
        /// Rows a replica.
        rows: u32,
        /// Classes of the part that is added.
        classes: u32,
        /// The first of them: those before are known.
        first: u32,
        /// Classes that there are.
        all: u32,
    }
);

params!(
    /// Parameters of [`SOFTMAX_CROSS_ENTROPY_BACKWARD`].
    SoftmaxCrossEntropyBackward {
        /// Rows a replica.
        rows: u32,
        /// Classes, the length of a row.
        classes: u32,
        /// 1 adds to `dlogits`, 0 overwrites it.
        accumulate: u32,
        /// The first class: 0 but for a part of them.
        first: u32,
        /// Classes that there are.
        all: u32,
    }
);

/// Place of a target among `classes` classes from `first` on, of which there are `all`; `None` where it is
/// another or [`IGNORED`]. A target past all counts as the last.
fn place(target: u32, [first, classes, all]: [u32; 3]) -> Option<usize> {
    let place = target.min(all - 1).checked_sub(first)?;
    (target != IGNORED && place < classes).then_some(place as usize)
}

/// row_loss = log Σ exp(logits) − logits\[target\], zero where the target is [`IGNORED`] or none of these
/// classes; a target past all classes counts as the last one. `log_sum` is the logarithm in two parts, the largest
/// logit and what the sum of exp(logit − largest) adds: as one number it would lose the second
/// beside a large first. Shapes: `logits` `[R, rows, classes]`, `target_class`, `row_loss`
/// `[R, rows]`, `log_sum` `[R, rows, 2]`.
pub fn softmax_cross_entropy_forward<F: Real>(
    p: &SoftmaxCrossEntropyForward,
    replicas: usize,
    logits: &[F],
    target_class: &[u32],
    row_loss: &mut [F],
    log_sum: &mut [F],
) {
    let classes = p.classes as usize;
    for at in 0..replicas * p.rows as usize {
        let row = &logits[at * classes..][..classes];
        let largest = row.iter().copied().fold(F::neg_infinity(), F::max);
        let sum = row.iter().map(|x| (*x - largest).exp()).sum::<F>();
        let rest = sum.ln();
        log_sum[2 * at..][..2].copy_from_slice(&[largest, rest]);
        row_loss[at] = match place(target_class[at], [p.first, p.classes, p.all]) {
            None => F::zero(),
            Some(class) => rest - (row[class] - largest),
        };
    }
}

/// row_loss and log_sum of a part of the classes and of those before it become those of both. Shapes:
/// `part_loss`, `target_class`, `row_loss` `[R, rows]`, `part_sum`, `log_sum` `[R, rows, 2]`.
pub fn softmax_cross_entropy_join<F: Real>(
    p: &SoftmaxCrossEntropyJoin,
    replicas: usize,
    part_loss: &[F],
    part_sum: &[F],
    target_class: &[u32],
    row_loss: &mut [F],
    log_sum: &mut [F],
) {
    for at in 0..replicas * p.rows as usize {
        let (part, known) = (&part_sum[2 * at..][..2], &mut log_sum[2 * at..][..2]);
        let largest = known[0].max(part[0]);
        let far = [known, part].map(|sum| sum[0] - largest + sum[1]);
        let rest = (far[0].exp() + far[1].exp()).ln();
        // The logarithm grows, and with it the distance from the target's logit.
        row_loss[at] = if place(target_class[at], [0, p.first, p.all]).is_some() {
            row_loss[at] + (rest - far[0])
        } else if place(target_class[at], [p.first, p.classes, p.all]).is_some() {
            part_loss[at] + (rest - far[1])
        } else {
            F::zero()
        };
        log_sum[2 * at..][..2].copy_from_slice(&[largest, rest]);
    }
}

/// dlogits (+)= dloss · (softmax(logits) − onehot(target)) / max(count, 1), zero where the
/// target is [`IGNORED`]; `log_sum` is of all classes. Shapes: `logits`, `dlogits` `[R, rows, classes]`, `target_class`
/// `[R, rows]`, `log_sum` `[R, rows, 2]`, `count`, `dloss` `[R]`.
pub fn softmax_cross_entropy_backward<F: Real>(
    p: &SoftmaxCrossEntropyBackward,
    replicas: usize,
    logits: &[F],
    target_class: &[u32],
    log_sum: &[F],
    count: &[F],
    dloss: &[F],
    dlogits: &mut [F],
) {
    let (rows, classes) = (p.rows as usize, p.classes as usize);
    for r in 0..replicas {
        let scale = dloss[r] / count[r].max(F::one());
        for row in r * rows..(r + 1) * rows {
            let class = place(target_class[row], [p.first, p.classes, p.all]);
            for c in 0..classes {
                let at = row * classes + c;
                let mut g = F::zero();
                if target_class[row] != IGNORED {
                    let one = if class == Some(c) { F::one() } else { F::zero() };
                    let x = logits[at] - log_sum[2 * row];
                    g = scale * ((x - log_sum[2 * row + 1]).exp() - one);
                }
                dlogits[at] = if p.accumulate != 0 { dlogits[at] + g } else { g };
            }
        }
    }
}

row_kernel! {
    /// Cross-entropy of each row, and the logarithm of its sum of exponentials for the
    /// gradient.
    SOFTMAX_CROSS_ENTROPY_FORWARD =
        "loss/softmax_cross_entropy_forward", SoftmaxCrossEntropyForward;
    bindings: [
        logits: read f32, target_class: read u32, row_loss: write f32, log_sum: write f32,
    ];
    reference: softmax_cross_entropy_forward;
    source: "loss/softmax_cross_entropy_forward.wgsl";
    rows: |p| p.rows;
    length: |p| p.classes;
    passes: |_| 2;
}

kernel! {
    /// Cross-entropy of each row, and the logarithm of its sum of exponentials, of some classes and of those
    /// before.
    SOFTMAX_CROSS_ENTROPY_JOIN = "loss/softmax_cross_entropy_join", SoftmaxCrossEntropyJoin;
    bindings: [
        part_loss: read f32, part_sum: read f32, target_class: read u32, row_loss: write f32,
        log_sum: write f32,
    ];
    reference: softmax_cross_entropy_join;
    variants: [{
        name: "plain",
        source: "loss/softmax_cross_entropy_join.wgsl",
        preludes: [INDEX],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.rows as usize, v.constant("GROUP")),
    }];
}

kernel! {
    /// dlogits (+)= dloss · (softmax(logits) − onehot(target)) / max(count, 1).
    SOFTMAX_CROSS_ENTROPY_BACKWARD =
        "loss/softmax_cross_entropy_backward", SoftmaxCrossEntropyBackward;
    bindings: [
        logits: read f32, target_class: read u32, log_sum: read f32, count: read f32,
        dloss: read f32, dlogits: write f32,
    ];
    reference: softmax_cross_entropy_backward;
    variants: [{
        name: "plain",
        source: "loss/softmax_cross_entropy_backward.wgsl",
        preludes: [INDEX],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.rows as usize * p.classes as usize, v.constant("GROUP")),
    }];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_the_classes_join_to_all_of_them() {
        let (rows, all) = (5, 7);
        // In each part, ignored, and past the last class.
        let target = [0, 3, 6, IGNORED, 99];
        let logits: Vec<f64> = (0..35).map(|i| f64::from(i * i % 11) * 0.7 - 2.0).collect();
        let of_part = |first: u32, classes: u32| {
            let columns = first as usize..(first + classes) as usize;
            let part: Vec<f64> =
                logits.chunks(7).flat_map(|row| row[columns.clone()].to_vec()).collect();
            let p = SoftmaxCrossEntropyForward { rows, classes, first, all };
            let (mut loss, mut sum) = (vec![9.0; 5], vec![9.0; 10]);
            softmax_cross_entropy_forward(&p, 1, &part, &target, &mut loss, &mut sum);
            (loss, sum)
        };
        let (expected, expected_sum) = of_part(0, 7);
        let (mut loss, mut sum) = of_part(0, 3);
        for (first, classes) in [(3, 1), (4, 3)] {
            let (part, part_sum) = of_part(first, classes);
            let p = SoftmaxCrossEntropyJoin { rows, classes, first, all };
            softmax_cross_entropy_join(&p, 1, &part, &part_sum, &target, &mut loss, &mut sum);
        }
        for (a, b) in loss.iter().zip(&expected).chain(sum.iter().zip(&expected_sum)) {
            assert!((a - b).abs() < 1e-12, "{a} {b}");
        }
    }
}
