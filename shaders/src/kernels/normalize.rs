//! Layer normalization (Ba, Kiros, Hinton 2016) and RMS normalization (Zhang, Sennrich 2019).
//! ```rust
//! use tern_shaders::kernels::normalize::{RmsNormForward, rms_norm_forward};
//! let p = RmsNormForward { rows: 1, width: 2, stride: 2, ..Default::default() };
//! let mut y = [0.0f32; 2];
//! rms_norm_forward(&p, 1, &[2.0, 2.0], &[1.0, 3.0], &mut y, &mut [0.0]);
//! assert_eq!(y, [1.0, 3.0]); // 2 / √4 times the weights
//! ```

pub mod groups;

use crate::rows::{column_kernel, row_kernel};
use crate::{AnyKernel, Real, params};

params!(
    /// Parameters of [`LAYER_NORM_FORWARD`].
    LayerNormForward {
        /// Rows a replica.
        rows: u32,
        /// Elements of a row.
        width: u32,
        /// Added to the variance.
        epsilon: f32,
        /// Where γ starts in a replica's parameters, in words.
        gamma_offset: u32,
        /// Where β starts in a replica's parameters, in words.
        beta_offset: u32,
        /// Words of parameters a replica.
        stride: u32,
    }
);

params!(
    /// Parameters of [`LAYER_NORM_BACKWARD`].
    LayerNormBackward {
        /// Rows a replica.
        rows: u32,
        /// Elements of a row.
        width: u32,
        /// Where γ starts in a replica's parameters, in words.
        gamma_offset: u32,
        /// Words of parameters a replica.
        stride: u32,
        /// 1 adds to `dx`, 0 overwrites it.
        accumulate: u32,
    }
);

params!(
    /// Parameters of [`LAYER_NORM_BACKWARD_PARAMETERS`]. A mode is 0 to overwrite a
    /// gradient, 1 to add to it, 2 to leave it alone.
    LayerNormBackwardParameters {
        /// Rows a replica.
        rows: u32,
        /// Elements of a row.
        width: u32,
        /// Where γ's gradient starts in a replica's gradients, in words.
        gamma_offset: u32,
        /// Where β's gradient starts in a replica's gradients, in words.
        beta_offset: u32,
        /// Words of gradients a replica.
        stride: u32,
        /// Mode of γ's gradient.
        gamma_mode: u32,
        /// Mode of β's gradient.
        beta_mode: u32,
        /// The first row that is summed.
        first: u32,
        /// The row at which the sum ends, at most
        /// [`MAX_SUMMED_ROWS`](crate::MAX_SUMMED_ROWS) after the first.
        end: u32,
    }
);

params!(
    /// Parameters of [`RMS_NORM_FORWARD`].
    RmsNormForward {
        /// Rows a replica.
        rows: u32,
        /// Elements of a row.
        width: u32,
        /// Added to the mean square.
        epsilon: f32,
        /// Where the weight starts in a replica's parameters, in words.
        weight_offset: u32,
        /// Words of parameters a replica.
        stride: u32,
    }
);

params!(
    /// Parameters of [`RMS_NORM_BACKWARD`].
    RmsNormBackward {
        /// Rows a replica.
        rows: u32,
        /// Elements of a row.
        width: u32,
        /// Where the weight starts in a replica's parameters, in words.
        weight_offset: u32,
        /// Words of parameters a replica.
        stride: u32,
        /// 1 adds to the gradient, 0 overwrites it.
        accumulate: u32,
    }
);

params!(
    /// Parameters of [`RMS_NORM_BACKWARD_WEIGHT`].
    RmsNormBackwardWeight {
        /// Rows a replica.
        rows: u32,
        /// Elements of a row.
        width: u32,
        /// Where the weight's gradient starts in a replica's gradients, in words.
        weight_offset: u32,
        /// Words of gradients a replica.
        stride: u32,
        /// 1 adds to the gradient, 0 overwrites it.
        accumulate: u32,
        /// The first row that is summed.
        first: u32,
        /// The row at which the sum ends, at most
        /// [`MAX_SUMMED_ROWS`](crate::MAX_SUMMED_ROWS) after the first.
        end: u32,
    }
);

/// y = (x − mean) · rstd · γ + β over each row, rstd = 1 / √(variance + ε), variance over
/// `width`. Shapes: `x`, `y` `[R, rows, width]`, `parameters` `[R, stride]`, `mean`, `rstd`
/// `[R, rows]`.
pub fn layer_norm_forward<F: Real>(
    p: &LayerNormForward,
    replicas: usize,
    x: &[F],
    parameters: &[F],
    y: &mut [F],
    mean: &mut [F],
    rstd: &mut [F],
) {
    let (rows, width) = (p.rows as usize, p.width as usize);
    for at in 0..replicas * rows {
        let flat = at / rows * p.stride as usize;
        let gamma = &parameters[flat + p.gamma_offset as usize..][..width];
        let beta = &parameters[flat + p.beta_offset as usize..][..width];
        let row = &x[at * width..][..width];
        let center = row.iter().copied().sum::<F>() / F::count(width);
        let squares = row.iter().map(|x| (*x - center) * (*x - center)).sum::<F>();
        let inverse = F::one() / (squares / F::count(width) + F::of(p.epsilon)).sqrt();
        for c in 0..width {
            y[at * width + c] = (row[c] - center) * inverse * gamma[c] + beta[c];
        }
        mean[at] = center;
        rstd[at] = inverse;
    }
}

/// dx (+)= rstd · (g − mean(g) − x̂ · mean(g · x̂)) with g = dy · γ, x̂ = (x − mean) · rstd.
/// Shapes: `x`, `dy`, `dx` `[R, rows, width]`, `parameters` `[R, stride]`, `mean`, `rstd`
/// `[R, rows]`.
pub fn layer_norm_backward<F: Real>(
    p: &LayerNormBackward,
    replicas: usize,
    x: &[F],
    parameters: &[F],
    mean: &[F],
    rstd: &[F],
    dy: &[F],
    dx: &mut [F],
) {
    let (rows, width) = (p.rows as usize, p.width as usize);
    for at in 0..replicas * rows {
        let flat = at / rows * p.stride as usize + p.gamma_offset as usize;
        let gamma = &parameters[flat..][..width];
        let first = at * width;
        let normal = |c: usize| (x[first + c] - mean[at]) * rstd[at];
        let (mut plain, mut weighted) = (F::zero(), F::zero());
        for c in 0..width {
            let g = dy[first + c] * gamma[c];
            plain += g;
            weighted += g * normal(c);
        }
        plain = plain / F::count(width);
        weighted = weighted / F::count(width);
        for c in 0..width {
            let d = rstd[at] * (dy[first + c] * gamma[c] - plain - normal(c) * weighted);
            dx[first + c] = if p.accumulate != 0 { dx[first + c] + d } else { d };
        }
    }
}

/// dγ (+)= Σ dy · x̂, dβ (+)= Σ dy over the rows of the part. Shapes: `x`, `dy`
/// `[R, rows, width]`, `mean`, `rstd` `[R, rows]`, `gradients` `[R, stride]`.
pub fn layer_norm_backward_parameters<F: Real>(
    p: &LayerNormBackwardParameters,
    replicas: usize,
    x: &[F],
    mean: &[F],
    rstd: &[F],
    dy: &[F],
    gradients: &mut [F],
) {
    let (rows, width) = (p.rows as usize, p.width as usize);
    for r in 0..replicas {
        for c in 0..width {
            let (mut gamma, mut beta) = (F::zero(), F::zero());
            for row in r * rows + p.first as usize..r * rows + p.end as usize {
                let g = dy[row * width + c];
                gamma += g * (x[row * width + c] - mean[row]) * rstd[row];
                beta += g;
            }
            let flat = r * p.stride as usize + c;
            for (offset, sum, mode) in
                [(p.gamma_offset, gamma, p.gamma_mode), (p.beta_offset, beta, p.beta_mode)]
            {
                let at = flat + offset as usize;
                match mode {
                    0 => gradients[at] = sum,
                    1 => gradients[at] += sum,
                    _ => {}
                }
            }
        }
    }
}

/// y = x · rrms · weight over each row, rrms = 1 / √(mean(x²) + ε). Shapes: `x`, `y`
/// `[R, rows, width]`, `parameters` `[R, stride]`, `rrms` `[R, rows]`.
pub fn rms_norm_forward<F: Real>(
    p: &RmsNormForward,
    replicas: usize,
    x: &[F],
    parameters: &[F],
    y: &mut [F],
    rrms: &mut [F],
) {
    let (rows, width) = (p.rows as usize, p.width as usize);
    for at in 0..replicas * rows {
        let flat = at / rows * p.stride as usize + p.weight_offset as usize;
        let weight = &parameters[flat..][..width];
        let row = &x[at * width..][..width];
        let squares = row.iter().map(|x| *x * *x).sum::<F>();
        let inverse = F::one() / (squares / F::count(width) + F::of(p.epsilon)).sqrt();
        for c in 0..width {
            y[at * width + c] = row[c] * inverse * weight[c];
        }
        rrms[at] = inverse;
    }
}

/// dx (+)= rrms · (g − x̂ · mean(g · x̂)) with g = dy · weight, x̂ = x · rrms. Shapes: `x`,
/// `dy`, `dx` `[R, rows, width]`, `parameters` `[R, stride]`, `rrms` `[R, rows]`.
pub fn rms_norm_backward<F: Real>(
    p: &RmsNormBackward,
    replicas: usize,
    x: &[F],
    parameters: &[F],
    rrms: &[F],
    dy: &[F],
    dx: &mut [F],
) {
    let (rows, width) = (p.rows as usize, p.width as usize);
    for at in 0..replicas * rows {
        let flat = at / rows * p.stride as usize + p.weight_offset as usize;
        let weight = &parameters[flat..][..width];
        let first = at * width;
        let mut weighted = F::zero();
        for c in 0..width {
            weighted += dy[first + c] * weight[c] * x[first + c] * rrms[at];
        }
        weighted = weighted / F::count(width);
        for c in 0..width {
            let normal = x[first + c] * rrms[at];
            let d = rrms[at] * (dy[first + c] * weight[c] - normal * weighted);
            dx[first + c] = if p.accumulate != 0 { dx[first + c] + d } else { d };
        }
    }
}

/// dweight (+)= Σ dy · x · rrms over the rows of the part. Shapes: `x`, `dy`
/// `[R, rows, width]`, `rrms` `[R, rows]`, `gradients` `[R, stride]`.
pub fn rms_norm_backward_weight<F: Real>(
    p: &RmsNormBackwardWeight,
    replicas: usize,
    x: &[F],
    rrms: &[F],
    dy: &[F],
    gradients: &mut [F],
) {
    let (rows, width) = (p.rows as usize, p.width as usize);
    for r in 0..replicas {
        for c in 0..width {
            let mut sum = F::zero();
            for row in r * rows + p.first as usize..r * rows + p.end as usize {
                sum += dy[row * width + c] * x[row * width + c] * rrms[row];
            }
            let at = r * p.stride as usize + p.weight_offset as usize + c;
            gradients[at] = if p.accumulate != 0 { gradients[at] + sum } else { sum };
        }
    }
}

row_kernel! {
    /// Normalizes each row, and keeps mean and 1 / √(variance + ε).
    LAYER_NORM_FORWARD = "normalize/layer_norm_forward", LayerNormForward;
    bindings: [
        x: read f32, parameters: read f32, y: write f32, mean: write f32, rstd: write f32,
    ];
    reference: layer_norm_forward;
    source: "normalize/layer_norm_forward.wgsl";
    rows: |p| p.rows;
    length: |p| p.width;
    passes: |_| 3;
}

row_kernel! {
    /// Gradient of the input.
    LAYER_NORM_BACKWARD = "normalize/layer_norm_backward", LayerNormBackward;
    bindings: [
        x: read f32, parameters: read f32, mean: read f32, rstd: read f32, dy: read f32,
        dx: write f32,
    ];
    reference: layer_norm_backward;
    source: "normalize/layer_norm_backward.wgsl";
    rows: |p| p.rows;
    length: |p| p.width;
    passes: |_| 2;
}

column_kernel! {
    /// Gradients of γ and β.
    LAYER_NORM_BACKWARD_PARAMETERS =
        "normalize/layer_norm_backward_parameters", LayerNormBackwardParameters;
    bindings: [x: read f32, mean: read f32, rstd: read f32, dy: read f32, gradients: write f32];
    reference: layer_norm_backward_parameters;
    source: "normalize/layer_norm_backward_parameters.wgsl";
    rows: |p| p.end - p.first;
    columns: |p| p.width;
}

row_kernel! {
    /// Scales each row by its root mean square, and keeps 1 / √(mean(x²) + ε).
    RMS_NORM_FORWARD = "normalize/rms_norm_forward", RmsNormForward;
    bindings: [x: read f32, parameters: read f32, y: write f32, rrms: write f32];
    reference: rms_norm_forward;
    source: "normalize/rms_norm_forward.wgsl";
    rows: |p| p.rows;
    length: |p| p.width;
    passes: |_| 2;
}

row_kernel! {
    /// Gradient of the input.
    RMS_NORM_BACKWARD = "normalize/rms_norm_backward", RmsNormBackward;
    bindings: [
        x: read f32, parameters: read f32, rrms: read f32, dy: read f32, dx: write f32,
    ];
    reference: rms_norm_backward;
    source: "normalize/rms_norm_backward.wgsl";
    rows: |p| p.rows;
    length: |p| p.width;
    passes: |_| 2;
}

column_kernel! {
    /// Gradient of the weight.
    RMS_NORM_BACKWARD_WEIGHT = "normalize/rms_norm_backward_weight", RmsNormBackwardWeight;
    bindings: [x: read f32, rrms: read f32, dy: read f32, gradients: write f32];
    reference: rms_norm_backward_weight;
    source: "normalize/rms_norm_backward_weight.wgsl";
    rows: |p| p.end - p.first;
    columns: |p| p.width;
}

/// Kernels of this family.
pub static KERNELS: &[&AnyKernel] = &[
    LAYER_NORM_FORWARD.any(),
    LAYER_NORM_BACKWARD.any(),
    LAYER_NORM_BACKWARD_PARAMETERS.any(),
    RMS_NORM_FORWARD.any(),
    RMS_NORM_BACKWARD.any(),
    RMS_NORM_BACKWARD_WEIGHT.any(),
    groups::GROUP_MOMENTS.any(),
    groups::GROUP_FORWARD.any(),
    groups::GROUP_SUMS.any(),
    groups::GROUP_BACKWARD.any(),
    groups::GROUP_BACKWARD_CHANNELS.any(),
    groups::RUNNING_MOMENTS.any(),
];

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: u32 = 3;
    const WIDTH: u32 = 4;

    /// y, mean and rstd of [`ROWS`] × [`WIDTH`] inputs; γ at 0, β after it.
    fn forward(x: &[f64], parameters: &[f64]) -> [Vec<f64>; 3] {
        let p = LayerNormForward {
            rows: ROWS,
            width: WIDTH,
            epsilon: 1e-3,
            gamma_offset: 0,
            beta_offset: 4,
            stride: 8,
        };
        let [mut y, mut mean, mut rstd] = [vec![0.0; x.len()], vec![0.0; 3], vec![0.0; 3]];
        layer_norm_forward(&p, 1, x, parameters, &mut y, &mut mean, &mut rstd);
        [y, mean, rstd]
    }

    /// y and rrms of [`ROWS`] × [`WIDTH`] inputs; the weight behind two words of another.
    fn rms_forward(x: &[f64], parameters: &[f64]) -> [Vec<f64>; 2] {
        let (rows, width, epsilon) = (ROWS, WIDTH, 1e-3);
        let p = RmsNormForward { rows, width, epsilon, weight_offset: 2, stride: 6 };
        let [mut y, mut rrms] = [vec![0.0; x.len()], vec![0.0; 3]];
        rms_norm_forward(&p, 1, x, parameters, &mut y, &mut rrms);
        [y, rrms]
    }

    /// The central difference of `f` in the element `i` of `values`.
    fn slope(values: &[f64], i: usize, f: &dyn Fn(&[f64]) -> f64) -> f64 {
        let at = |d: f64| {
            let mut values = values.to_vec();
            values[i] += d;
            f(&values)
        };
        (at(1e-5) - at(-1e-5)) / 2e-5
    }

    #[test]
    fn rows_come_out_with_mean_beta_and_variance_gamma_squared() {
        let x: Vec<f64> = (0..12).map(|i| f64::from(i * i) - 3.0).collect();
        let [y, ..] = forward(&x, &[2.0, 2.0, 2.0, 2.0, 5.0, 5.0, 5.0, 5.0]);
        for row in y.chunks(4) {
            let mean = row.iter().sum::<f64>() / 4.0;
            let variance = row.iter().map(|y| (y - mean).powi(2)).sum::<f64>() / 4.0;
            assert!((mean - 5.0).abs() < 1e-12);
            // ε takes a little off.
            assert!((variance - 4.0).abs() < 0.01, "{variance}");
        }
        let [constant, ..] = forward(&[7.0; 12], &[1.0; 8]);
        assert_eq!(constant, [1.0; 12], "a constant row comes out as β");
    }

    #[test]
    fn gradients_are_the_slopes() {
        let x: Vec<f64> = (0..12).map(|i| f64::from(i * 5 % 7) * 0.3 - 0.8).collect();
        let parameters: Vec<f64> = (0..8).map(|i| 0.5 + 0.2 * f64::from(i)).collect();
        let dy: Vec<f64> = (0..12).map(|i| f64::from(i * 3 % 5) - 1.5).collect();
        let loss = |x: &[f64], parameters: &[f64]| -> f64 {
            forward(x, parameters)[0].iter().zip(&dy).map(|(y, dy)| y * dy).sum()
        };
        let [_, mean, rstd] = forward(&x, &parameters);
        let p = LayerNormBackward {
            rows: ROWS,
            width: WIDTH,
            gamma_offset: 0,
            stride: 8,
            accumulate: 1,
        };
        let mut dx = vec![1.0; 12];
        layer_norm_backward(&p, 1, &x, &parameters, &mean, &rstd, &dy, &mut dx);
        for i in 0..12 {
            let expected = 1.0 + slope(&x, i, &|x| loss(x, &parameters));
            assert!((expected - dx[i]).abs() < 1e-7, "dx {i}: {expected} {}", dx[i]);
        }
        let mut p = LayerNormBackwardParameters {
            rows: ROWS,
            width: WIDTH,
            gamma_offset: 0,
            beta_offset: 4,
            stride: 8,
            gamma_mode: 0,
            beta_mode: 1,
            first: 0,
            end: ROWS,
        };
        let mut gradients = vec![1.0; 8];
        layer_norm_backward_parameters(&p, 1, &x, &mean, &rstd, &dy, &mut gradients);
        for i in 0..8 {
            let added = if i < 4 { 0.0 } else { 1.0 };
            let expected = added + slope(&parameters, i, &|parameters| loss(&x, parameters));
            assert!((expected - gradients[i]).abs() < 1e-7, "{i}: {expected} {}", gradients[i]);
        }
        (p.gamma_mode, p.beta_mode) = (2, 2);
        let before = gradients.clone();
        layer_norm_backward_parameters(&p, 1, &x, &mean, &rstd, &dy, &mut gradients);
        assert_eq!(before, gradients, "mode 2 leaves a gradient alone");
    }

    #[test]
    fn rows_come_out_with_the_weights_root_mean_square() {
        // Mean squares 4, 1 and 0: ε counts in the last ones.
        let x = [[2.0, -2.0, 2.0, -2.0], [0.0, 2.0, 0.0, 0.0], [0.0; 4]].concat();
        let [y, rrms] = rms_forward(&x, &[9.0, 9.0, 1.0, 2.0, 3.0, 4.0]);
        let inverse = [4.0, 1.0, 0.0].map(|square: f64| (square + f64::from(1e-3f32)).powf(-0.5));
        for (found, expected) in rrms.iter().zip(inverse) {
            assert!((found - expected).abs() < 1e-12 * expected, "{found} {expected}");
        }
        let [a, b, _] = inverse;
        let expected = [[2.0 * a, -4.0 * a, 6.0 * a, -8.0 * a], [0.0, 4.0 * b, 0.0, 0.0], [0.0; 4]];
        for (found, expected) in y.iter().zip(expected.concat()) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
    }

    #[test]
    fn rms_gradients_are_the_slopes() {
        let x: Vec<f64> = (0..12).map(|i| f64::from(i * 5 % 7) * 0.3 - 0.8).collect();
        let parameters: Vec<f64> = (0..6).map(|i| 0.5 + 0.2 * f64::from(i)).collect();
        let dy: Vec<f64> = (0..12).map(|i| f64::from(i * 3 % 5) - 1.5).collect();
        let loss = |x: &[f64], parameters: &[f64]| -> f64 {
            rms_forward(x, parameters)[0].iter().zip(&dy).map(|(y, dy)| y * dy).sum()
        };
        let [_, rrms] = rms_forward(&x, &parameters);
        for accumulate in [0, 1] {
            let (rows, width) = (ROWS, WIDTH);
            let p = RmsNormBackward { rows, width, weight_offset: 2, stride: 6, accumulate };
            let before = f64::from(accumulate);
            let (mut dx, mut gradients) = (vec![1.0; 12], vec![1.0; 6]);
            rms_norm_backward(&p, 1, &x, &parameters, &rrms, &dy, &mut dx);
            let (weight_offset, stride, end) = (p.weight_offset, p.stride, rows);
            let p = RmsNormBackwardWeight {
                rows,
                width,
                weight_offset,
                stride,
                accumulate,
                first: 0,
                end,
            };
            rms_norm_backward_weight(&p, 1, &x, &rrms, &dy, &mut gradients);
            for i in 0..12 {
                let expected = before + slope(&x, i, &|x| loss(x, &parameters));
                assert!((expected - dx[i]).abs() < 1e-7, "dx {i}: {expected} {}", dx[i]);
            }
            assert_eq!(gradients[..2], [1.0; 2], "another's gradients are left alone");
            for i in 2..6 {
                let expected = before + slope(&parameters, i, &|parameters| loss(&x, parameters));
                assert!((expected - gradients[i]).abs() < 1e-7, "{i}: {expected} {}", gradients[i]);
            }
        }
    }
}
