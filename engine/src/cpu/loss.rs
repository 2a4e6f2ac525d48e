//! Softmax with cross-entropy: rows in parallel, exponentials in vectors.

use tern_shaders::cpu::loss::{IGNORED, SoftmaxCrossEntropyBackward, SoftmaxCrossEntropyForward};
use tern_shaders::{Arg, TwinFn};

use super::parallel::{put, rows, rows2};
use super::vmath::{exp, largest, sum_by, vectorized};

pub(super) static TABLE: &[(&str, TwinFn<f32>)] = &[
    ("loss/softmax_cross_entropy_forward", forward),
    ("loss/softmax_cross_entropy_backward", backward),
];

vectorized! {
    /// log Σ e^x
    fn log_sum_exp(x: &[f32]) -> f32 {
        let top = largest(x);
        top + sum_by(x, x, |x, _| exp(x - top)).ln()
    }
}

vectorized! {
    /// d (+)= scale · e^(x − log_sum)
    fn softmax_gradient(x: &[f32], log_sum: f32, scale: f32, accumulate: bool, d: &mut [f32]) {
        for (x, d) in x.iter().zip(d) {
            put(d, scale * exp(x - log_sum), accumulate);
        }
    }
}

fn forward(p: &[u8], _replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &SoftmaxCrossEntropyForward = bytemuck::from_bytes(p);
    let [logits, target, row_loss, log_sum] = args else { unreachable!("four bindings") };
    let (logits, target, classes) = (logits.real(), target.word(), p.classes as usize);
    let (row_loss, log_sum) = (row_loss.real_mut(), log_sum.real_mut());
    // An exponential counts for several visits of an element.
    rows2((row_loss, 1), (log_sum, 1), 4 * classes, |first, row_loss, log_sum| {
        for (i, (loss, total)) in row_loss.iter_mut().zip(log_sum).enumerate() {
            let row = &logits[(first + i) * classes..][..classes];
            *total = log_sum_exp(row);
            *loss = match target[first + i] {
                IGNORED => 0.0,
                class => *total - row[(class as usize).min(classes - 1)],
            };
        }
    });
}

fn backward(p: &[u8], _replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &SoftmaxCrossEntropyBackward = bytemuck::from_bytes(p);
    let [logits, target, log_sum, count, dloss, dlogits] = args else {
        unreachable!("six bindings")
    };
    let (logits, target, log_sum) = (logits.real(), target.word(), log_sum.real());
    let (count, dloss) = (count.real(), dloss.real());
    let (classes, accumulate) = (p.classes as usize, p.accumulate != 0);
    rows(dlogits.real_mut(), classes, 4 * classes, |first, dlogits| {
        for (i, d) in dlogits.chunks_exact_mut(classes).enumerate() {
            let row = first + i;
            let replica = row / p.rows as usize;
            let scale = dloss[replica] / count[replica].max(1.0);
            match target[row] {
                IGNORED if accumulate => {}
                IGNORED => d.fill(0.0),
                class => {
                    let x = &logits[row * classes..][..classes];
                    softmax_gradient(x, log_sum[row], scale, accumulate, d);
                    d[(class as usize).min(classes - 1)] -= scale;
                }
            }
        }
    });
}
