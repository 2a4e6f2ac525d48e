//! Scales and thresholds of the tensors of a flat vector, in passes without a limit on size:
//! `lanes` partial sums a tensor, then their total.

use super::finite_or_zero;
use crate::{Real, kernel, linear_grid, params};

/// What [`SCALE`] makes of the partial sums; the number is what the kernel receives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum ScaleKind {
    /// scale = max |x|, at most `factor` standard deviations if `factor` > 0, or root mean squares
    /// where the mean is larger than the deviation (TernGrad clips
    /// at 2.5); threshold = 0.
    #[default]
    Maximum = 0,
    /// threshold = `factor` · mean |x| (0.7 for ternary weight networks); no scale.
    Threshold = 1,
    /// scale = mean of |x| over |x| > threshold, from sums above the threshold; 0 if there is
    /// none.
    MeanAbove = 2,
}

impl ScaleKind {
    fn of(number: u32) -> Self {
        match number {
            0 => Self::Maximum,
            1 => Self::Threshold,
            _ => Self::MeanAbove,
        }
    }
}

params!(
    /// Parameters of [`MOMENTS`].
    Moments {
        /// Tensors of the vector.
        tensors: u32,
        /// Words a replica takes in `x` and `residual`.
        stride: u32,
        /// Words of the longest tensor.
        longest: u32,
        /// Partial sums a tensor. About the square root of the length splits the work evenly
        /// between the two passes.
        lanes: u32,
        /// 1 adds the residual.
        feedback: u32,
        /// 1 sums what is above the thresholds.
        above: u32,
    }
);

params!(
    /// Parameters of [`SCALE`].
    Scale {
        /// Tensors of the vector.
        tensors: u32,
        /// Partial sums a tensor.
        lanes: u32,
        /// [`ScaleKind`] as a number.
        kind: u32,
        /// See [`ScaleKind`].
        factor: f32,
    }
);

/// Partial sums of v = x (+ residual): lane j takes the elements j, j + lanes, ... of a tensor.
/// Four numbers each: max |v|, Σ |v|, Σ v, Σ v²; or, above the threshold, Σ |v| and the count.
/// Shapes: `x`, `residual` `[R, stride]`, `segments` `[tensors + 1]`, `lengths` `[tensors]`,
/// `thresholds` `[R, tensors]`, `partials` `[R, tensors, lanes, 4]`.
pub fn moments<F: Real>(
    p: &Moments,
    replicas: usize,
    x: &[F],
    residual: &[F],
    segments: &[u32],
    lengths: &[u32],
    thresholds: &[F],
    partials: &mut [F],
) {
    let (tensors, lanes) = (p.tensors as usize, p.lanes as usize);
    for row in 0..replicas * tensors {
        let tensor = row % tensors;
        let start = row / tensors * p.stride as usize + segments[tensor] as usize;
        for lane in 0..lanes {
            let mut partial = [F::zero(); 4];
            for i in (lane..lengths[tensor] as usize).step_by(lanes) {
                let mut v = x[start + i];
                if p.feedback != 0 {
                    v += residual[start + i];
                }
                v = finite_or_zero(v);
                if p.above == 0 {
                    partial[0] = partial[0].max(v.abs());
                    partial[1] += v.abs();
                    partial[2] += v;
                    partial[3] += v * v;
                } else if v.abs() > thresholds[row] {
                    partial[0] += v.abs();
                    partial[1] += F::one();
                }
            }
            partials[4 * (row * lanes + lane)..][..4].copy_from_slice(&partial);
        }
    }
}

/// Scales and thresholds from partial sums, see [`ScaleKind`]. Shapes: `partials`
/// `[R, tensors, lanes, 4]`, `lengths` `[tensors]`, `thresholds`, `scales` `[R, tensors]`.
pub fn scale<F: Real>(
    p: &Scale,
    replicas: usize,
    partials: &[F],
    lengths: &[u32],
    thresholds: &mut [F],
    scales: &mut [F],
) {
    let (tensors, lanes) = (p.tensors as usize, p.lanes as usize);
    for row in 0..replicas * tensors {
        let partials = partials[4 * row * lanes..][..4 * lanes].chunks_exact(4);
        let sum = |k: usize| partials.clone().map(|partial| partial[k]).sum::<F>();
        let count = F::count(lengths[row % tensors].max(1) as usize);
        let factor = F::of(p.factor);
        match ScaleKind::of(p.kind) {
            ScaleKind::Maximum => {
                let most = partials.clone().map(|partial| partial[0]).fold(F::zero(), F::max);
                let mean = sum(2) / count;
                let square = sum(3) / count;
                let variance = (square - mean * mean).max(F::zero());
                // Around a mean that is larger, as that of a tensor of equal elements, the
                // deviation says nothing of how large they are.
                let centered = mean * mean <= variance;
                let deviation = if centered { variance.sqrt() } else { square.sqrt() };
                let clips = p.factor > 0.0;
                scales[row] = if clips { most.min(factor * deviation) } else { most };
                thresholds[row] = F::zero();
            }
            ScaleKind::Threshold => thresholds[row] = factor * (sum(1) / count),
            ScaleKind::MeanAbove => scales[row] = sum(0) / sum(1).max(F::one()),
        }
    }
}

kernel! {
    /// Partial sums of each tensor.
    MOMENTS = "ternary/moments", Moments;
    bindings: [
        x: read f32,
        residual: read f32,
        segments: read u32,
        lengths: read u32,
        thresholds: read f32,
        partials: write f32,
    ];
    reference: moments;
    variants: [{
        name: "plain",
        source: "ternary/moments.wgsl",
        preludes: [FINITE],
        consts: [GROUP = 64],
        iterations: |p, _| p.longest.div_ceil(p.lanes).into(),
        grid: |p, v| [p.lanes.div_ceil(v.constant("GROUP")), p.tensors],
    }];
}

kernel! {
    /// Scale and threshold of each tensor from its partial sums.
    SCALE = "ternary/scale", Scale;
    bindings: [
        partials: read f32,
        lengths: read u32,
        thresholds: write f32,
        scales: write f32,
    ];
    reference: scale;
    variants: [
        {
            name: "workgroup",
            source: "ternary/scale_workgroup.wgsl",
            preludes: [TERNARY_SCALE],
            consts: [GROUP = 64],
            workgroup_memory: true,
            iterations: |p, v| p.lanes.div_ceil(v.constant("GROUP")).into(),
            grid: |p, _| [p.tensors, 1],
        },
        {
            name: "plain",
            source: "ternary/scale_plain.wgsl",
            preludes: [INDEX, TERNARY_SCALE],
            consts: [GROUP = 64],
            software: true,
            iterations: |p, _| p.lanes.into(),
            grid: |p, v| linear_grid(p.tensors as usize, v.constant("GROUP")),
        },
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENTS: [u32; 3] = [0, 64, 192];
    /// The second tensor ends inside its last 64 elements.
    const LENGTHS: [u32; 2] = [1, 101];
    const LANES: u32 = 3;

    /// Scales and thresholds of two replicas, kind after kind.
    fn run(x: &[f64], residual: &[f64], kinds: &[(ScaleKind, f32)]) -> (Vec<f64>, Vec<f64>) {
        let (mut scales, mut thresholds) = (vec![0.0; 4], vec![0.0; 4]);
        let mut partials = vec![0.0; 2 * 2 * 3 * 4];
        for (kind, factor) in kinds {
            let p = Moments {
                tensors: 2,
                stride: 192,
                longest: LENGTHS[0].max(LENGTHS[1]),
                lanes: LANES,
                feedback: u32::from(!residual.is_empty()),
                above: u32::from(*kind == ScaleKind::MeanAbove),
            };
            moments(&p, 2, x, residual, &SEGMENTS, &LENGTHS, &thresholds, &mut partials);
            let p = Scale { tensors: 2, lanes: LANES, kind: *kind as u32, factor: *factor };
            scale(&p, 2, &partials, &LENGTHS, &mut thresholds, &mut scales);
        }
        (scales, thresholds)
    }

    fn sample() -> Vec<f64> {
        let mut x: Vec<f64> = (0..384).map(|i| (f64::from(i) * 0.7).sin() + 0.2).collect();
        x[70] = f64::NAN;
        x
    }

    /// The elements of a row, without padding, what is not finite as 0.
    fn row(x: &[f64], row: usize) -> Vec<f64> {
        let start = row / 2 * 192 + SEGMENTS[row % 2] as usize;
        let values = x[start..][..LENGTHS[row % 2] as usize].iter();
        values.map(|v| if v.is_finite() { *v } else { 0.0 }).collect()
    }

    #[test]
    fn the_maximum_is_clipped_at_standard_deviations() {
        let x = sample();
        let (whole, thresholds) = run(&x, &[], &[(ScaleKind::Maximum, 0.0)]);
        let (clipped, _) = run(&x, &[], &[(ScaleKind::Maximum, 0.5)]);
        assert_eq!(thresholds, [0.0; 4]);
        for r in 0..4 {
            let v = row(&x, r);
            let most = v.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
            assert_eq!(whole[r], most);
            let mean = v.iter().sum::<f64>() / v.len() as f64;
            let variance = v.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / v.len() as f64;
            let square = variance + mean * mean;
            let spread = if mean * mean > variance { square } else { variance };
            assert!((clipped[r] - most.min(0.5 * spread.sqrt())).abs() < 1e-7, "{r}");
        }
    }

    #[test]
    fn equal_elements_have_their_size_as_the_scale_by_every_rule() {
        for value in [0.5, -3.0, 1e-7, 0.0] {
            let x = vec![value; 384];
            let whole = run(&x, &[], &[(ScaleKind::Maximum, 0.0)]).0;
            let clipped = run(&x, &[], &[(ScaleKind::Maximum, 2.5)]).0;
            let kinds = [(ScaleKind::Threshold, 0.7), (ScaleKind::MeanAbove, 0.0)];
            let above = run(&x, &[], &kinds).0;
            for scale in whole.into_iter().chain(clipped).chain(above) {
                assert!((scale - value.abs()).abs() <= 1e-12 * value.abs(), "{value}: {scale}");
            }
        }
    }

    #[test]
    fn ternary_weight_networks_take_the_mean_above_the_threshold() {
        let x = sample();
        let kinds = [(ScaleKind::Threshold, 0.7), (ScaleKind::MeanAbove, 0.0)];
        let (scales, thresholds) = run(&x, &[], &kinds);
        for r in 0..4 {
            let v: Vec<f64> = row(&x, r).iter().map(|v| v.abs()).collect();
            let threshold = f64::from(0.7f32) * v.iter().sum::<f64>() / v.len() as f64;
            assert!((thresholds[r] - threshold).abs() < 1e-12);
            let above: Vec<f64> = v.into_iter().filter(|v| *v > threshold).collect();
            let mean = above.iter().sum::<f64>() / above.len() as f64;
            assert!((scales[r] - mean).abs() < 1e-12, "{r}");
        }
    }

    #[test]
    fn the_residual_counts_and_zeros_have_no_scale() {
        let (x, half) = (sample(), vec![0.5; 384]);
        let shifted: Vec<f64> = x.iter().map(|x| x + 0.5).collect();
        let kind = [(ScaleKind::Maximum, 2.5)];
        assert_eq!(run(&x, &half, &kind), run(&shifted, &[], &kind));
        let kinds = [(ScaleKind::Threshold, 0.7), (ScaleKind::MeanAbove, 0.0)];
        assert_eq!(run(&[0.0; 384], &[], &kinds), (vec![0.0; 4], vec![0.0; 4]));
    }
}
