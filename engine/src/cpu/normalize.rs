//! Layer normalization: rows in parallel, sums in vectors.

use tern_shaders::cpu::normalize::{
    LayerNormBackward, LayerNormBackwardParameters, LayerNormForward,
};
use tern_shaders::{Arg, TwinFn};

use super::parallel::{put, rows, rows2};
use super::vmath::{sum_by, vectorized};

pub(super) static TABLE: &[(&str, TwinFn<f32>)] = &[
    ("normalize/layer_norm_forward", forward),
    ("normalize/layer_norm_backward", backward),
    ("normalize/layer_norm_backward_parameters", backward_parameters),
];

vectorized! {
    /// Mean and 1 / √(variance + ε) of a row.
    fn moments(x: &[f32], epsilon: f32) -> (f32, f32) {
        let n = x.len() as f32;
        let mean = sum_by(x, x, |x, _| x) / n;
        let variance = sum_by(x, x, |x, _| (x - mean) * (x - mean)) / n;
        (mean, 1.0 / (variance + epsilon).sqrt())
    }
}

vectorized! {
    /// y = (x − mean) · rstd · γ + β
    fn normalized(x: &[f32], mean: f32, rstd: f32, gamma: &[f32], beta: &[f32], y: &mut [f32]) {
        for (((x, gamma), beta), y) in x.iter().zip(gamma).zip(beta).zip(y) {
            *y = (x - mean) * rstd * gamma + beta;
        }
    }
}

vectorized! {
    /// The gradient of one row; `g` is scratch of its length.
    fn row_gradient(
        x: &[f32], mean: f32, rstd: f32, gamma: &[f32], dy: &[f32],
        g: &mut [f32], accumulate: bool, dx: &mut [f32],
    ) {
        for ((g, dy), gamma) in g.iter_mut().zip(dy).zip(gamma) {
            *g = dy * gamma;
        }
        let n = x.len() as f32;
        let plain = sum_by(g, g, |g, _| g) / n;
        let weighted = sum_by(g, x, |g, x| g * (x - mean) * rstd) / n;
        for ((g, x), dx) in g.iter().zip(x).zip(dx) {
            let d = rstd * (g - plain - (x - mean) * rstd * weighted);
            put(dx, d, accumulate);
        }
    }
}

vectorized! {
    /// dγ += dy · x̂ and dβ += dy of one row.
    fn add_row(x: &[f32], mean: f32, rstd: f32, dy: &[f32], gamma: &mut [f32], beta: &mut [f32]) {
        for (((x, dy), gamma), beta) in x.iter().zip(dy).zip(gamma).zip(beta) {
            *gamma += dy * (x - mean) * rstd;
            *beta += dy;
        }
    }
}

fn forward(p: &[u8], _replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &LayerNormForward = bytemuck::from_bytes(p);
    let [x, parameters, y, mean, rstd] = args else { unreachable!("five bindings") };
    let (x, parameters, width) = (x.real(), parameters.real(), p.width as usize);
    let (mean, rstd) = (mean.real_mut(), rstd.real_mut());
    rows2((&mut *mean, 1), (&mut *rstd, 1), 2 * width, |first, mean, rstd| {
        for (i, (mean, rstd)) in mean.iter_mut().zip(rstd).enumerate() {
            (*mean, *rstd) = moments(&x[(first + i) * width..][..width], p.epsilon);
        }
    });
    rows(y.real_mut(), width, width, |first, y| {
        for (i, y) in y.chunks_exact_mut(width).enumerate() {
            let row = first + i;
            let flat = row / p.rows as usize * p.stride as usize;
            let gamma = &parameters[flat + p.gamma_offset as usize..][..width];
            let beta = &parameters[flat + p.beta_offset as usize..][..width];
            normalized(&x[row * width..][..width], mean[row], rstd[row], gamma, beta, y);
        }
    });
}

fn backward(p: &[u8], _replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &LayerNormBackward = bytemuck::from_bytes(p);
    let [x, parameters, mean, rstd, dy, dx] = args else { unreachable!("six bindings") };
    let (x, parameters, dy) = (x.real(), parameters.real(), dy.real());
    let (mean, rstd, width) = (mean.real(), rstd.real(), p.width as usize);
    rows(dx.real_mut(), width, 4 * width, |first, dx| {
        let mut g = vec![0.0; width];
        for (i, dx) in dx.chunks_exact_mut(width).enumerate() {
            let row = first + i;
            let flat = row / p.rows as usize * p.stride as usize + p.gamma_offset as usize;
            let gamma = &parameters[flat..][..width];
            let (x, dy) = (&x[row * width..][..width], &dy[row * width..][..width]);
            row_gradient(x, mean[row], rstd[row], gamma, dy, &mut g, p.accumulate != 0, dx);
        }
    });
}

fn backward_parameters(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &LayerNormBackwardParameters = bytemuck::from_bytes(p);
    let [x, mean, rstd, dy, gradients] = args else { unreachable!("five bindings") };
    let (x, mean, rstd, dy) = (x.real(), mean.real(), rstd.real(), dy.real());
    let (count, width) = (p.rows as usize, p.width as usize);
    let gradients = gradients.real_mut();
    for r in 0..replicas {
        let (mut gamma, mut beta) = (vec![0.0; width], vec![0.0; width]);
        for row in r * count..(r + 1) * count {
            let (x, dy) = (&x[row * width..][..width], &dy[row * width..][..width]);
            add_row(x, mean[row], rstd[row], dy, &mut gamma, &mut beta);
        }
        for (offset, sums, mode) in
            [(p.gamma_offset, gamma, p.gamma_mode), (p.beta_offset, beta, p.beta_mode)]
        {
            let first = r * p.stride as usize + offset as usize;
            if mode < 2 {
                for (d, sum) in gradients[first..][..width].iter_mut().zip(sums) {
                    put(d, sum, mode == 1);
                }
            }
        }
    }
}
