//! Normalization by the moments of groups of elements, with weights by channel: of a channel over the
//! batch (Ioffe, Szegedy 2015), or of some channels of a sample (Wu, He 2018).
//!
//! ```
//! use tern_shaders::kernels::normalize::groups::{GroupNorm, group_forward, group_moments};
//!
//! // Two samples of two channels of one pixel: a channel of the batch is a group.
//! let p = GroupNorm::of_batch([2, 2, 1], 0.0).weights(0, 2, 4);
//! let (x, mut moments, mut y) = ([1.0f32, 10.0, 3.0, 30.0], [0.0; 4], [0.0; 4]);
//! group_moments(&p, 1, &x, &mut moments);
//! assert_eq!(moments, [2.0, 20.0, 1.0, 100.0]);
//! group_forward(&p, 1, &x, &moments, &[1.0, 2.0, 0.0, 5.0], &mut y);
//! assert_eq!(y, [-1.0, 3.0, 1.0, 7.0]);
//! ```

use crate::rows::row_kernel;
use crate::state::{ACTIVE, WORDS};
use crate::{Real, kernel, linear_grid, params};

params!(
    /// Parameters of the group normalizations: n = groups · runs · run elements of samples
    /// `[channels, pixels]`. [`GroupNorm::of_batch`] and [`GroupNorm::of_samples`] set the sizes.
    GroupNorm {
        /// Groups a replica.
        groups: u32,
        /// Runs of elements that lie side by side, of a group.
        runs: u32,
        /// Elements of a run.
        run: u32,
        /// From one run of a group to the next.
        gap: u32,
        /// Channels of a sample.
        channels: u32,
        /// Elements of a channel of a sample.
        pixels: u32,
        /// Added to the variance.
        epsilon: f32,
        /// Where γ starts in a replica's parameters, in words.
        gamma_offset: u32,
        /// Where β starts in a replica's parameters, in words.
        beta_offset: u32,
        /// Words of parameters a replica.
        stride: u32,
        /// 1: the moments don't depend on x.
        fixed: u32,
        /// Of dγ: 0 overwrites it, 1 adds to it, 2 leaves it alone. Of dx in [`GROUP_BACKWARD`], 0 or 1.
        gamma_mode: u32,
        /// The same of dβ.
        beta_mode: u32,
    }
);

params!(
    /// Parameters of [`RUNNING_MOMENTS`].
    RunningMoments {
        /// Channels.
        channels: u32,
        /// Where the running means start in a replica's parameters, in words.
        mean_offset: u32,
        /// Where the running variances start.
        variance_offset: u32,
        /// Words of parameters a replica.
        stride: u32,
        /// Share of the batch's moments.
        momentum: f32,
        /// length / (length − 1): what makes the batch's variance unbiased.
        correction: f32,
    }
);

impl GroupNorm {
    /// A channel of the batch is a group: of `[samples, channels, pixels]`.
    pub fn of_batch([samples, channels, pixels]: [u32; 3], epsilon: f32) -> Self {
        let (groups, runs, run) = (channels, samples, pixels);
        let gap = channels * pixels;
        GroupNorm { groups, runs, run, gap, channels, pixels, epsilon, ..Self::default() }
    }

    /// `groups` of a sample's channels are one each.
    pub fn of_samples([samples, channels, pixels]: [u32; 3], groups: u32, epsilon: f32) -> Self {
        let run = channels / groups * pixels;
        let groups = samples * groups;
        GroupNorm { groups, runs: 1, run, channels, pixels, epsilon, ..Self::default() }
    }

    /// With where γ and β start in a replica's parameters, and words of these.
    pub fn weights(self, gamma_offset: u32, beta_offset: u32, stride: u32) -> Self {
        GroupNorm { gamma_offset, beta_offset, stride, ..self }
    }

    /// Elements of a group.
    pub fn length(&self) -> usize {
        self.runs as usize * self.run as usize
    }

    /// Elements of a replica.
    pub fn elements(&self) -> usize {
        self.groups as usize * self.length()
    }

    /// The place of element `i` of a group.
    fn place(&self, group: usize, i: usize) -> usize {
        let run = self.run as usize;
        i / run * self.gap as usize + group * run + i % run
    }

    /// The group of a place.
    pub fn group_of(&self, at: usize) -> usize {
        at / self.run as usize % self.groups as usize
    }

    /// The channel of a place.
    pub fn channel_of(&self, at: usize) -> usize {
        at / self.pixels as usize % self.channels as usize
    }

    /// Mean and 1 / √(variance + ε) of a group.
    fn normal<F: Real>(&self, replica: usize, moments: &[F], group: usize) -> (F, F) {
        let at = replica * 2 * self.groups as usize + group;
        let variance = moments[at + self.groups as usize];
        (moments[at], (variance + F::of(self.epsilon)).sqrt().recip())
    }
}

/// Mean and variance of each group. Shapes: `x` `[R, n]`, `moments` `[R, 2, groups]`.
pub fn group_moments<F: Real>(p: &GroupNorm, replicas: usize, x: &[F], moments: &mut [F]) {
    let (groups, n, length) = (p.groups as usize, p.elements(), p.length());
    for r in 0..replicas {
        for group in 0..groups {
            let element = |i: usize| x[r * n + p.place(group, i)];
            let mean = (0..length).map(element).sum::<F>() / F::count(length);
            let squares = (0..length).map(|i| (element(i) - mean) * (element(i) - mean));
            let at = r * 2 * groups + group;
            moments[at + groups] = squares.sum::<F>() / F::count(length);
            moments[at] = mean;
        }
    }
}

/// y = (x − mean) / √(variance + ε) · γ + β. Shapes: `x`, `y` `[R, n]`, `moments` `[R, 2, groups]`,
/// `parameters` `[R, stride]`.
pub fn group_forward<F: Real>(
    p: &GroupNorm,
    replicas: usize,
    x: &[F],
    moments: &[F],
    parameters: &[F],
    y: &mut [F],
) {
    for r in 0..replicas {
        let weights = &parameters[r * p.stride as usize..];
        for i in 0..p.elements() {
            let (mean, inverse) = p.normal(r, moments, p.group_of(i));
            let channel = p.channel_of(i);
            let gamma = weights[p.gamma_offset as usize + channel];
            let at = r * p.elements() + i;
            y[at] = (x[at] - mean) * inverse * gamma + weights[p.beta_offset as usize + channel];
        }
    }
}

/// Σ γ · dy and Σ γ · dy · x̂ of each group, x̂ = (x − mean) / √(variance + ε). Shapes: `x`, `dy`
/// `[R, n]`, `moments`, `sums` `[R, 2, groups]`, `parameters` `[R, stride]`.
pub fn group_sums<F: Real>(
    p: &GroupNorm,
    replicas: usize,
    x: &[F],
    moments: &[F],
    parameters: &[F],
    dy: &[F],
    sums: &mut [F],
) {
    let groups = p.groups as usize;
    for r in 0..replicas {
        let gamma = &parameters[r * p.stride as usize + p.gamma_offset as usize..];
        for group in 0..groups {
            let (mean, inverse) = p.normal(r, moments, group);
            let (mut plain, mut weighted) = (F::zero(), F::zero());
            for i in 0..p.length() {
                let place = p.place(group, i);
                let at = r * p.elements() + place;
                let d = dy[at] * gamma[p.channel_of(place)];
                plain += d;
                weighted += d * (x[at] - mean) * inverse;
            }
            sums[r * 2 * groups + group] = plain;
            sums[r * 2 * groups + groups + group] = weighted;
        }
    }
}

/// dx (+)= (γ · dy − (Σ γ · dy + x̂ · Σ γ · dy · x̂) / length) / √(variance + ε), the sums being those of
/// [`group_sums`]; without them where the moments are fixed. Shapes: `x`, `dy`, `dx` `[R, n]`, `moments`,
/// `sums` `[R, 2, groups]`, `parameters` `[R, stride]`.
pub fn group_backward<F: Real>(
    p: &GroupNorm,
    replicas: usize,
    x: &[F],
    moments: &[F],
    sums: &[F],
    parameters: &[F],
    dy: &[F],
    dx: &mut [F],
) {
    let groups = p.groups as usize;
    for r in 0..replicas {
        let gamma = &parameters[r * p.stride as usize + p.gamma_offset as usize..];
        for i in 0..p.elements() {
            let (group, at) = (p.group_of(i), r * p.elements() + i);
            let (mean, inverse) = p.normal(r, moments, group);
            let mut d = dy[at] * gamma[p.channel_of(i)];
            if p.fixed == 0 {
                let sum = r * 2 * groups + group;
                let normal = (x[at] - mean) * inverse;
                d -= (sums[sum] + normal * sums[sum + groups]) / F::count(p.length());
            }
            d *= inverse;
            dx[at] = if p.gamma_mode != 0 { dx[at] + d } else { d };
        }
    }
}

/// dγ (+)= Σ dy · x̂ and dβ (+)= Σ dy of each channel. Shapes: `x`, `dy` `[R, n]`, `moments`
/// `[R, 2, groups]`, `gradients` `[R, stride]`.
pub fn group_backward_channels<F: Real>(
    p: &GroupNorm,
    replicas: usize,
    x: &[F],
    moments: &[F],
    dy: &[F],
    gradients: &mut [F],
) {
    let (channels, pixels) = (p.channels as usize, p.pixels as usize);
    for r in 0..replicas {
        for channel in 0..channels {
            let (mut plain, mut weighted) = (F::zero(), F::zero());
            for i in 0..p.elements() / channels {
                let place = (i / pixels * channels + channel) * pixels + i % pixels;
                let (mean, inverse) = p.normal(r, moments, p.group_of(place));
                let at = r * p.elements() + place;
                plain += dy[at];
                weighted += dy[at] * (x[at] - mean) * inverse;
            }
            let flat = r * p.stride as usize + channel;
            for (offset, sum, mode) in
                [(p.gamma_offset, weighted, p.gamma_mode), (p.beta_offset, plain, p.beta_mode)]
            {
                let d = &mut gradients[flat + offset as usize];
                match mode {
                    0 => *d = sum,
                    1 => *d += sum,
                    _ => {}
                }
            }
        }
    }
}

/// running += momentum · (of the batch − running), of means and of variances, the latter times the
/// correction; a replica that rests keeps both. Shapes: `moments` `[R, 2, channels]`, `state` `[R, 64]`,
/// `parameters` `[R, stride]`.
pub fn running_moments<F: Real>(
    p: &RunningMoments,
    replicas: usize,
    moments: &[F],
    state: &[u32],
    parameters: &mut [F],
) {
    let channels = p.channels as usize;
    for r in (0..replicas).filter(|r| state[r * WORDS + ACTIVE] != 0) {
        let own = &moments[r * 2 * channels..][..2 * channels];
        for (offset, batch, factor) in [
            (p.mean_offset, &own[..channels], 1.0),
            (p.variance_offset, &own[channels..], p.correction),
        ] {
            let running = &mut parameters[r * p.stride as usize + offset as usize..][..channels];
            for (running, batch) in running.iter_mut().zip(batch) {
                *running += F::of(p.momentum) * (F::of(factor) * *batch - *running);
            }
        }
    }
}

row_kernel! {
    /// Mean and variance of each group.
    GROUP_MOMENTS = "normalize/group_moments", GroupNorm;
    bindings: [x: read f32, moments: write f32];
    reference: group_moments;
    source: "normalize/group_moments.wgsl";
    group: [GROUP_NORM]; single: [GROUP_NORM];
    rows: |p| p.groups;
    length: |p| p.runs * p.run;
    passes: |_| 2;
}

kernel! {
    /// y = (x − mean) / √(variance + ε) · γ + β.
    GROUP_FORWARD = "normalize/group_forward", GroupNorm;
    bindings: [x: read f32, moments: read f32, parameters: read f32, y: write f32];
    reference: group_forward;
    variants: [{
        name: "plain",
        source: "normalize/group_forward.wgsl",
        preludes: [INDEX, GROUP_NORM],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.elements(), v.constant("GROUP")),
    }];
}

row_kernel! {
    /// What the gradient of a group's elements has of all of them.
    GROUP_SUMS = "normalize/group_sums", GroupNorm;
    bindings: [
        x: read f32, moments: read f32, parameters: read f32, dy: read f32, sums: write f32,
    ];
    reference: group_sums;
    source: "normalize/group_sums.wgsl";
    group: [GROUP_NORM]; single: [GROUP_NORM];
    rows: |p| p.groups;
    length: |p| p.runs * p.run;
    passes: |_| 1;
}

kernel! {
    /// Gradient of what is normalized.
    GROUP_BACKWARD = "normalize/group_backward", GroupNorm;
    bindings: [
        x: read f32, moments: read f32, sums: read f32, parameters: read f32, dy: read f32,
        dx: write f32,
    ];
    reference: group_backward;
    variants: [{
        name: "plain",
        source: "normalize/group_backward.wgsl",
        preludes: [INDEX, GROUP_NORM],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.elements(), v.constant("GROUP")),
    }];
}

row_kernel! {
    /// Gradients of the weights of each channel.
    GROUP_BACKWARD_CHANNELS = "normalize/group_backward_channels", GroupNorm;
    bindings: [x: read f32, moments: read f32, dy: read f32, gradients: write f32];
    reference: group_backward_channels;
    source: "normalize/group_backward_channels.wgsl";
    group: [GROUP_NORM]; single: [GROUP_NORM];
    rows: |p| p.channels;
    length: |p| p.groups * p.runs * p.run / p.channels;
    passes: |_| 1;
}

kernel! {
    /// Moments of batches, averaged over steps.
    RUNNING_MOMENTS = "normalize/running_moments", RunningMoments;
    bindings: [moments: read f32, state: read u32, parameters: write f32];
    reference: running_moments;
    variants: [{
        name: "plain",
        source: "normalize/running_moments.wgsl",
        preludes: [INDEX, STATE],
        consts: [GROUP = 64],
        grid: |p, v| linear_grid(p.channels as usize, v.constant("GROUP")),
    }];
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: [u32; 3] = [3, 4, 5];

    fn numbers(n: usize, key: usize) -> Vec<f64> {
        (0..n).map(|i| ((i + key) * 7919 % 101) as f64 / 50.0 - 1.0).collect()
    }

    #[test]
    fn gradients_match_finite_differences() {
        let n = 60;
        let (x, dy, parameters) = (numbers(n, 1), numbers(n, 2), numbers(8, 3));
        for (p, fixed) in [
            (GroupNorm::of_batch(SIZES, 0.1), 0),
            (GroupNorm::of_batch(SIZES, 0.1), 1),
            (GroupNorm::of_samples(SIZES, 2, 0.1), 0),
        ] {
            let p = GroupNorm { fixed, ..p.weights(0, 4, 8) };
            let groups = p.groups as usize;
            let mut moments = vec![0.3; 2 * groups];
            if fixed == 0 {
                group_moments(&p, 1, &x, &mut moments);
            }
            let objective = |x: &[f64], parameters: &[f64]| -> f64 {
                let (mut moments, mut y) = (moments.clone(), vec![0.0; n]);
                if fixed == 0 {
                    group_moments(&p, 1, x, &mut moments);
                }
                group_forward(&p, 1, x, &moments, parameters, &mut y);
                y.iter().zip(&dy).map(|(y, d)| y * d).sum()
            };
            let (mut sums, mut dx, mut dw) = (vec![0.0; 2 * groups], vec![0.0; n], vec![0.0; 8]);
            group_sums(&p, 1, &x, &moments, &parameters, &dy, &mut sums);
            group_backward(&p, 1, &x, &moments, &sums, &parameters, &dy, &mut dx);
            group_backward_channels(&p, 1, &x, &moments, &dy, &mut dw);
            let slope = |at: usize, of_weights: bool| {
                let value = |step: f64| {
                    let (mut x, mut w) = (x.clone(), parameters.clone());
                    if of_weights {
                        w[at] += step
                    } else {
                        x[at] += step
                    }
                    objective(&x, &w)
                };
                (value(1e-5) - value(-1e-5)) / 2e-5
            };
            for at in 0..n {
                assert!((dx[at] - slope(at, false)).abs() < 1e-7, "{p:?} x {at}");
            }
            for at in 0..8 {
                assert!((dw[at] - slope(at, true)).abs() < 1e-7, "{p:?} weight {at}");
            }
        }
    }

    #[test]
    fn running_moments_go_to_those_of_the_batches() {
        let p = RunningMoments {
            channels: 1,
            mean_offset: 1,
            variance_offset: 2,
            stride: 4,
            momentum: 0.25,
            correction: 1.5,
        };
        let mut state = [0; 2 * WORDS];
        state[ACTIVE] = 1;
        let mut parameters = [9.0f64, 2.0, 1.0, 9.0, 9.0, 2.0, 1.0, 9.0];
        running_moments(&p, 2, &[4.0, 2.0, 4.0, 2.0], &state, &mut parameters);
        // The second replica rests.
        assert_eq!(parameters, [9.0, 2.5, 1.5, 9.0, 9.0, 2.0, 1.0, 9.0]);
    }
}
