//! Normalization by groups: what lies side by side of a channel of a sample, a plane, in vectors.

use fearless_simd::Simd;
use fearless_simd::prelude::*;
use tern_shaders::kernels::normalize::groups::{GroupNorm, RunningMoments};
use tern_shaders::{Arg, ReferenceFn, state};

use super::isa::with_vectors;
use super::parallel::{rows, rows2};
use super::scratch;
use super::vector::{put, rewrite, splat, sum};

pub(super) static TABLE: &[(&str, ReferenceFn<f32>)] = &[
    ("normalize/group_moments", moments),
    ("normalize/group_forward", forward),
    ("normalize/group_sums", sums),
    ("normalize/group_backward", backward),
    ("normalize/group_backward_channels", backward_channels),
    ("normalize/running_moments", running_moments),
];

/// The runs of a group, in a replica's elements.
fn runs<'a>(
    p: &GroupNorm,
    x: &'a [f32],
    group: usize,
) -> impl Iterator<Item = &'a [f32]> + use<'a> {
    let (run, gap) = (p.run as usize, p.gap as usize);
    (0..p.runs as usize).map(move |i| &x[i * gap + group * run..][..run])
}

/// Where the planes of a group begin, in a replica's elements.
fn planes_of_group(p: &GroupNorm, group: usize) -> impl Iterator<Item = usize> + use<> {
    let (run, gap, pixels) = (p.run as usize, p.gap as usize, p.pixels as usize);
    let starts = (0..p.runs as usize).map(move |i| i * gap + group * run);
    starts.flat_map(move |start| (start..start + run).step_by(pixels))
}

/// Means and variances of a replica.
#[derive(Clone, Copy)]
struct Moments<'a> {
    mean: &'a [f32],
    variance: &'a [f32],
    epsilon: f32,
}

impl<'a> Moments<'a> {
    fn new(p: &GroupNorm, moments: &'a [f32], replica: usize) -> Self {
        let groups = p.groups as usize;
        let (mean, variance) = moments[replica * 2 * groups..][..2 * groups].split_at(groups);
        Moments { mean, variance, epsilon: p.epsilon }
    }

    /// Mean and 1 / √(variance + ε) of a group.
    fn normal(&self, group: usize) -> (f32, f32) {
        (self.mean[group], 1.0 / (self.variance[group] + self.epsilon).sqrt())
    }
}

/// Mean and variance of a group.
#[inline(always)]
fn moments_of<S: Simd>(s: S, p: &GroupNorm, x: &[f32], group: usize) -> (f32, f32) {
    let length = p.length() as f64;
    let mut total = 0.0;
    for run in runs(p, x, group) {
        total += f64::from(sum(
            s,
            [run],
            #[inline(always)]
            |[x]| x,
        ));
    }
    let mean = (total / length) as f32;
    let center = splat(s, mean);
    let mut squares = 0.0;
    for run in runs(p, x, group) {
        squares += f64::from(sum(
            s,
            [run],
            #[inline(always)]
            |[x]| (x - center) * (x - center),
        ));
    }
    (mean, (squares / length) as f32)
}

fn moments(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &GroupNorm = bytemuck::from_bytes(p);
    let [x, moments] = args else { unreachable!("two bindings") };
    let (x, groups, n) = (x.real(), p.groups as usize, p.elements());
    let all = moments.real_mut()[..replicas * 2 * groups].chunks_exact_mut(2 * groups);
    for (x, moments) in x.chunks_exact(n).zip(all) {
        let (mean, variance) = moments.split_at_mut(groups);
        rows2((mean, 1), (variance, 1), 2 * p.length(), |first, mean, variance| {
            for (group, (mean, variance)) in (first..).zip(mean.iter_mut().zip(variance)) {
                (*mean, *variance) = with_vectors!(s => moments_of(s, p, x, group));
            }
        });
    }
}

fn forward(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &GroupNorm = bytemuck::from_bytes(p);
    let [x, moments, parameters, y] = args else { unreachable!("four bindings") };
    let (x, moments, parameters) = (x.real(), moments.real(), parameters.real());
    let (n, pixels) = (p.elements(), p.pixels as usize);
    for (r, y) in y.real_mut()[..replicas * n].chunks_exact_mut(n).enumerate() {
        let (x, moments) = (&x[r * n..][..n], Moments::new(p, moments, r));
        let weights = &parameters[r * p.stride as usize..];
        rows(y, pixels, pixels, |first, y| {
            for (plane, y) in (first..).zip(y.chunks_exact_mut(pixels)) {
                let (at, channel) = (plane * pixels, p.channel_of(plane * pixels));
                let (mean, inverse) = moments.normal(p.group_of(at));
                let gamma = inverse * weights[p.gamma_offset as usize + channel];
                let beta = weights[p.beta_offset as usize + channel];
                with_vectors!(s => put(
                    s,
                    [&x[at..]],
                    false,
                    y,
                    #[inline(always)]
                    |[x]| (x - mean).mul_add(splat(s, gamma), splat(s, beta)),
                ));
            }
        });
    }
}

/// Σ dy and Σ dy · (x − mean) of a plane.
#[inline(always)]
fn plane_sums<S: Simd>(s: S, x: &[f32], dy: &[f32], mean: f32) -> (f64, f64) {
    let center = splat(s, mean);
    let plain = sum(
        s,
        [dy],
        #[inline(always)]
        |[dy]| dy,
    );
    let weighted = sum(
        s,
        [x, dy],
        #[inline(always)]
        |[x, dy]| (x - center) * dy,
    );
    (plain.into(), weighted.into())
}

fn sums(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &GroupNorm = bytemuck::from_bytes(p);
    let [x, moments, parameters, dy, sums] = args else { unreachable!("five bindings") };
    let (x, moments, parameters, dy) = (x.real(), moments.real(), parameters.real(), dy.real());
    let (groups, n, pixels) = (p.groups as usize, p.elements(), p.pixels as usize);
    let all = sums.real_mut()[..replicas * 2 * groups].chunks_exact_mut(2 * groups);
    for (r, sums) in all.enumerate() {
        let (x, dy, moments) = (&x[r * n..][..n], &dy[r * n..][..n], Moments::new(p, moments, r));
        let gamma = &parameters[r * p.stride as usize + p.gamma_offset as usize..];
        let (plain, weighted) = sums.split_at_mut(groups);
        rows2((plain, 1), (weighted, 1), p.length(), |first, plain, weighted| {
            for (group, (plain, weighted)) in (first..).zip(plain.iter_mut().zip(weighted)) {
                let (mean, inverse) = moments.normal(group);
                let mut total = (0.0, 0.0);
                for at in planes_of_group(p, group) {
                    let (x, dy) = (&x[at..][..pixels], &dy[at..][..pixels]);
                    let own = with_vectors!(s => plane_sums(s, x, dy, mean));
                    let gamma = f64::from(gamma[p.channel_of(at)]);
                    total = (total.0 + gamma * own.0, total.1 + gamma * own.1);
                }
                *plain = total.0 as f32;
                *weighted = (f64::from(inverse) * total.1) as f32;
            }
        });
    }
}

fn backward(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &GroupNorm = bytemuck::from_bytes(p);
    let [x, moments, sums, parameters, dy, dx] = args else { unreachable!("six bindings") };
    let (x, moments, sums) = (x.real(), moments.real(), sums.real());
    let (parameters, dy) = (parameters.real(), dy.real());
    let (groups, n, pixels) = (p.groups as usize, p.elements(), p.pixels as usize);
    let share = if p.fixed == 0 { 1.0 / p.length() as f32 } else { 0.0 };
    for (r, dx) in dx.real_mut()[..replicas * n].chunks_exact_mut(n).enumerate() {
        let (x, dy, moments) = (&x[r * n..][..n], &dy[r * n..][..n], Moments::new(p, moments, r));
        let gamma = &parameters[r * p.stride as usize + p.gamma_offset as usize..];
        let sums = if p.fixed == 0 { &sums[r * 2 * groups..][..2 * groups] } else { &[] };
        rows(dx, pixels, pixels, |first, dx| {
            for (plane, dx) in (first..).zip(dx.chunks_exact_mut(pixels)) {
                let at = plane * pixels;
                let group = p.group_of(at);
                let (mean, inverse) = moments.normal(group);
                let scale = inverse * gamma[p.channel_of(at)];
                // dx = scale · dy − own − slope · (x − mean)
                let [own, slope] = match sums {
                    [] => [0.0; 2],
                    _ => [sums[group] * share, sums[groups + group] * share * inverse]
                        .map(|sum| sum * inverse),
                };
                let accumulate = p.gamma_mode != 0;
                with_vectors!(s => if sums.is_empty() {
                    put(
                        s,
                        [&dy[at..]],
                        accumulate,
                        dx,
                        #[inline(always)]
                        |[dy]| dy * scale,
                    );
                } else {
                    put(
                        s,
                        [&x[at..], &dy[at..]],
                        accumulate,
                        dx,
                        #[inline(always)]
                        |[x, dy]| dy * scale - (x - mean).mul_add(splat(s, slope), splat(s, own)),
                    );
                });
            }
        });
    }
}

fn backward_channels(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &GroupNorm = bytemuck::from_bytes(p);
    let [x, moments, dy, gradients] = args else { unreachable!("four bindings") };
    let (x, moments, dy, gradients) = (x.real(), moments.real(), dy.real(), gradients.real_mut());
    let (n, pixels, channels) = (p.elements(), p.pixels as usize, p.channels as usize);
    for r in 0..replicas {
        let (x, dy, moments) = (&x[r * n..][..n], &dy[r * n..][..n], Moments::new(p, moments, r));
        scratch::lend(2 * channels, |lent| {
            let (gamma, beta) = lent[..2 * channels].split_at_mut(channels);
            rows2((gamma, 1), (beta, 1), n / channels, |first, gamma, beta| {
                for (channel, (gamma, beta)) in (first..).zip(gamma.iter_mut().zip(beta)) {
                    let mut total = (0.0, 0.0);
                    for at in (channel * pixels..n).step_by(channels * pixels) {
                        let (mean, inverse) = moments.normal(p.group_of(at));
                        let (x, dy) = (&x[at..][..pixels], &dy[at..][..pixels]);
                        let own = with_vectors!(s => plane_sums(s, x, dy, mean));
                        total = (total.0 + own.0, total.1 + f64::from(inverse) * own.1);
                    }
                    (*beta, *gamma) = (total.0 as f32, total.1 as f32);
                }
            });
            let (gamma, beta) = lent[..2 * channels].split_at(channels);
            for (offset, sums, mode) in
                [(p.gamma_offset, gamma, p.gamma_mode), (p.beta_offset, beta, p.beta_mode)]
            {
                let to = r * p.stride as usize + offset as usize;
                let to = &mut gradients[to..][..channels];
                match mode {
                    0 => to.copy_from_slice(sums),
                    1 => to.iter_mut().zip(sums).for_each(|(to, sum)| *to += sum),
                    _ => {}
                }
            }
        });
    }
}

fn running_moments(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &RunningMoments = bytemuck::from_bytes(p);
    let [moments, state, parameters] = args else { unreachable!("three bindings") };
    let (moments, words, parameters) = (moments.real(), state.word(), parameters.real_mut());
    let channels = p.channels as usize;
    for r in (0..replicas).filter(|r| words[r * state::WORDS + state::ACTIVE] != 0) {
        let (mean, variance) = moments[r * 2 * channels..][..2 * channels].split_at(channels);
        for (offset, batch, factor) in
            [(p.mean_offset, mean, 1.0), (p.variance_offset, variance, p.correction)]
        {
            let running = &mut parameters[r * p.stride as usize + offset as usize..][..channels];
            with_vectors!(s => rewrite(
                s,
                [batch],
                [running],
                #[inline(always)]
                |[batch], [running]| [(batch * factor - running) * p.momentum + running],
            ));
        }
    }
}
