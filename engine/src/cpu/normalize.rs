//! Layer and RMS normalization, which is the same without means: wide rows one by one, narrow
//! ones many at a time.

use std::ops::Range;

use fearless_simd::Simd;
use fearless_simd::prelude::*;
use rayon::prelude::*;
use tern_shaders::kernels::normalize::{
    LayerNormBackward, LayerNormBackwardParameters, LayerNormForward, RmsNormBackward,
    RmsNormBackwardWeight, RmsNormForward,
};
use tern_shaders::{Arg, ReferenceFn};

use super::isa::with_vectors;
use super::parallel::{by_replica, rows, rows2, rows3};
use super::planes::{NARROW, NO_PLANES, Planes, ROWS, join, split};
use super::vector::{assign, lanes, load, put, rewrite, splat, store, sum};

pub(super) static TABLE: &[(&str, ReferenceFn<f32>)] = &[
    ("normalize/layer_norm_forward", forward),
    ("normalize/layer_norm_backward", backward),
    ("normalize/layer_norm_backward_parameters", backward_parameters),
    ("normalize/rms_norm_forward", rms_forward),
    ("normalize/rms_norm_backward", rms_backward),
    ("normalize/rms_norm_backward_weight", rms_backward_weight),
];

/// γ and β of a replica. Without β rows are normalized by their root mean square.
#[derive(Clone, Copy)]
struct Affine<'a> {
    gamma: &'a [f32],
    beta: Option<&'a [f32]>,
    epsilon: f32,
}

/// y = (x − mean) · rstd · γ + β for rows as wide as γ, and their means and 1 / √(variance + ε);
/// without β, y = x · rstd · γ, rstd is 1 / √(mean(x²) + ε) and nothing is kept in `mean`.
#[inline(always)]
fn normalize<S: Simd, const MEANS: bool>(
    s: S,
    affine: Affine<'_>,
    x: &[f32],
    y: &mut [f32],
    (mean, rstd): (&mut [f32], &mut [f32]),
) {
    let width = affine.gamma.len();
    if width <= NARROW {
        return normalize_narrow(s, affine, x, y, (mean, rstd));
    }
    let rows = x.chunks_exact(width).zip(y.chunks_exact_mut(width));
    for (row, ((x, y), rstd)) in rows.zip(rstd).enumerate() {
        let mut center = splat(s, 0.0);
        if MEANS {
            mean[row] = sum(
                s,
                [x],
                #[inline(always)]
                |[x]| x,
            ) / width as f32;
            center = splat(s, mean[row]);
        }
        let squares = sum(
            s,
            [x],
            #[inline(always)]
            |[x]| (x - center) * (x - center),
        );
        *rstd = 1.0 / (squares / width as f32 + affine.epsilon).sqrt();
        let scale = splat(s, *rstd);
        if MEANS {
            put(
                s,
                [x, affine.gamma, affine.beta.unwrap_or_default()],
                false,
                y,
                #[inline(always)]
                |[x, gamma, beta]| ((x - center) * scale).mul_add(gamma, beta),
            );
        } else {
            put(
                s,
                [x, affine.gamma],
                false,
                y,
                #[inline(always)]
                |[x, gamma]| x * scale * gamma,
            );
        }
    }
}

#[inline(always)]
fn normalize_narrow<S: Simd>(
    s: S,
    affine: Affine<'_>,
    x: &[f32],
    y: &mut [f32],
    (mean, rstd): (&mut [f32], &mut [f32]),
) {
    let width = affine.gamma.len();
    let mut planes = NO_PLANES;
    let (mut means, mut scales) = ([0.0; ROWS], [0.0; ROWS]);
    let one = splat(s, 1.0);
    let share = splat(s, 1.0 / width as f32);
    let rows = x.chunks(ROWS * width).zip(y.chunks_mut(ROWS * width));
    for (block, ((x, y), rstd)) in rows.zip(rstd.chunks_mut(ROWS)).enumerate() {
        split(s, x, width, &mut planes);
        for at in (0..ROWS).step_by(lanes::<S>()) {
            let mut center = splat(s, 0.0);
            if affine.beta.is_some() {
                for c in 0..width {
                    center += load::<S, S::f32s>(s, &planes[c * ROWS + at..]);
                }
                center *= share;
            }
            let mut squares = splat(s, 0.0);
            for c in 0..width {
                let d = load::<S, S::f32s>(s, &planes[c * ROWS + at..]) - center;
                squares += d * d;
            }
            let scale = one / squares.mul_add(share, splat(s, affine.epsilon)).sqrt();
            for c in 0..width {
                let plane = &mut planes[c * ROWS + at..];
                let normal = (load::<S, S::f32s>(s, plane) - center) * scale;
                let beta = splat(s, if let Some(beta) = affine.beta { beta[c] } else { 0.0 });
                store(plane, normal.mul_add(splat(s, affine.gamma[c]), beta));
            }
            store(&mut means[at..], center);
            store(&mut scales[at..], scale);
        }
        if affine.beta.is_some() {
            mean[block * ROWS..][..rstd.len()].copy_from_slice(&means[..rstd.len()]);
        }
        rstd.copy_from_slice(&scales[..rstd.len()]);
        join(s, &planes, width, false, y);
    }
}

/// [`normalize`] of all rows, `per` a replica, whose γ and β `affine` gives.
fn normalize_all<'a>(
    (per, affine): (u32, impl Fn(usize) -> Affine<'a> + Send + Sync),
    (x, y, width): (&[f32], &mut [f32], usize),
    (mean, rstd): (Option<&mut [f32]>, &mut [f32]),
) {
    let rows = |first: usize, y: &mut [f32], mean: &mut [f32], rstd: &mut [f32]| {
        by_replica(first, rstd.len(), per as usize, |replica, run| {
            let affine = affine(replica);
            let x = &x[(first + run.start) * width..][..run.len() * width];
            let y = &mut y[run.start * width..run.end * width];
            let mean = mean.get_mut(run.clone()).unwrap_or_default();
            let moments = (mean, &mut rstd[run]);
            with_vectors!(s => match affine.beta {
                Some(_) => normalize::<_, true>(s, affine, x, y, moments),
                None => normalize::<_, false>(s, affine, x, y, moments),
            });
        });
    };
    let (y, rstd) = ((y, width), (rstd, 1));
    match mean {
        Some(mean) => rows3(y, (mean, 1), rstd, 4 * width, rows),
        None => rows2(y, rstd, 4 * width, |first, y, rstd| rows(first, y, &mut [], rstd)),
    }
}

fn forward(p: &[u8], _replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &LayerNormForward = bytemuck::from_bytes(p);
    let [x, parameters, y, mean, rstd] = args else { unreachable!("five bindings") };
    let (parameters, width) = (parameters.real(), p.width as usize);
    let affine = |replica| {
        let flat = &parameters[replica * p.stride as usize..];
        let of = |offset| &flat[offset as usize..][..width];
        let (gamma, beta) = (of(p.gamma_offset), Some(of(p.beta_offset)));
        Affine { gamma, beta, epsilon: p.epsilon }
    };
    let moments = (Some(mean.real_mut()), rstd.real_mut());
    normalize_all((p.rows, affine), (x.real(), y.real_mut(), width), moments);
}

fn rms_forward(p: &[u8], _replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &RmsNormForward = bytemuck::from_bytes(p);
    let [x, parameters, y, rrms] = args else { unreachable!("four bindings") };
    let (parameters, width) = (parameters.real(), p.width as usize);
    let affine = |replica| {
        let flat = replica * p.stride as usize + p.weight_offset as usize;
        Affine { gamma: &parameters[flat..][..width], beta: None, epsilon: p.epsilon }
    };
    let moments = (None, rrms.real_mut());
    normalize_all((p.rows, affine), (x.real(), y.real_mut(), width), moments);
}

/// Rows as they were normalized, with their upstream gradients. Without means they were
/// normalized by their root mean square.
#[derive(Clone, Copy)]
struct Normalized<'a> {
    x: &'a [f32],
    mean: Option<&'a [f32]>,
    rstd: &'a [f32],
    dy: &'a [f32],
    width: usize,
}

impl<'a> Normalized<'a> {
    fn rows(&self, rows: Range<usize>) -> Self {
        let elements = rows.start * self.width..rows.end * self.width;
        Normalized {
            x: &self.x[elements.clone()],
            mean: self.mean.map(|mean| &mean[rows.clone()]),
            rstd: &self.rstd[rows],
            dy: &self.dy[elements],
            width: self.width,
        }
    }

    /// A row, its mean (or 0) and its 1 / √(variance + ε), its upstream gradient.
    #[inline(always)]
    fn each(self) -> impl Iterator<Item = (&'a [f32], f32, f32, &'a [f32])> {
        let rows = self.x.chunks_exact(self.width).zip(self.dy.chunks_exact(self.width));
        rows.zip(self.rstd).enumerate().map(move |(row, ((x, dy), rstd))| {
            (x, self.mean.map_or(0.0, |mean| mean[row]), *rstd, dy)
        })
    }

    /// A block of narrow rows taken apart: x̂ and dy; what lacks to a whole block is zero.
    #[inline(always)]
    fn planes<S: Simd>(self, s: S, [x, dy]: &mut [Planes; 2]) {
        let (n, width) = (self.rstd.len(), self.width);
        let (mut mean, mut rstd) = ([0.0; ROWS], [0.0; ROWS]);
        if let Some(own) = self.mean {
            mean[..n].copy_from_slice(own);
        }
        rstd[..n].copy_from_slice(self.rstd);
        if n < ROWS {
            (*x, *dy) = (NO_PLANES, NO_PLANES);
        }
        split(s, self.x, width, x);
        split(s, self.dy, width, dy);
        for plane in x.chunks_exact_mut(ROWS).take(width) {
            rewrite(
                s,
                [&mean, &rstd],
                [plane],
                #[inline(always)]
                |[mean, rstd], [x]| [(x - mean) * rstd],
            );
        }
    }
}

/// The gradients of rows.
#[inline(always)]
fn row_gradients<S: Simd>(
    s: S,
    rows: Normalized<'_>,
    gamma: &[f32],
    accumulate: bool,
    dx: &mut [f32],
) {
    let width = rows.width;
    for ((x, mean, rstd, dy), dx) in rows.each().zip(dx.chunks_exact_mut(width)) {
        let (center, scale) = (splat(s, mean), splat(s, rstd));
        let mut plain = 0.0;
        if rows.mean.is_some() {
            plain = sum(
                s,
                [dy, gamma],
                #[inline(always)]
                |[dy, gamma]| dy * gamma,
            );
        }
        let weighted = sum(
            s,
            [x, dy, gamma],
            #[inline(always)]
            |[x, dy, gamma]| dy * gamma * ((x - center) * scale),
        );
        let (plain, weighted) = (splat(s, plain / width as f32), splat(s, weighted / width as f32));
        put(
            s,
            [x, dy, gamma],
            accumulate,
            dx,
            #[inline(always)]
            |[x, dy, gamma]| scale * (dy * gamma - plain - (x - center) * scale * weighted),
        );
    }
}

/// The gradients of narrow rows.
#[inline(always)]
fn narrow_gradients<S: Simd>(
    s: S,
    rows: Normalized<'_>,
    gamma: &[f32],
    accumulate: bool,
    dx: &mut [f32],
) {
    let width = rows.width;
    let mut planes = [NO_PLANES; 2];
    let share = splat(s, 1.0 / width as f32);
    let plain_share = if rows.mean.is_some() { share } else { splat(s, 0.0) };
    let mut scales = [0.0; ROWS];
    for (i, dx) in dx.chunks_mut(ROWS * width).enumerate() {
        let block = rows.rows(i * ROWS..i * ROWS + dx.len() / width);
        block.planes(s, &mut planes);
        scales[..block.rstd.len()].copy_from_slice(block.rstd);
        let [x, dy] = &mut planes;
        for at in (0..ROWS).step_by(lanes::<S>()) {
            let (mut plain, mut weighted) = (splat(s, 0.0), splat(s, 0.0));
            for c in 0..width {
                let place = c * ROWS + at;
                let g = load::<S, S::f32s>(s, &dy[place..]) * gamma[c];
                plain += g;
                weighted += g * load::<S, S::f32s>(s, &x[place..]);
            }
            (plain, weighted) = (plain * plain_share, weighted * share);
            let scale = load::<S, S::f32s>(s, &scales[at..]);
            for c in 0..width {
                let place = c * ROWS + at;
                let g = load::<S, S::f32s>(s, &dy[place..]) * gamma[c];
                let normal = load::<S, S::f32s>(s, &x[place..]);
                store(&mut dy[place..], scale * (g - plain - normal * weighted));
            }
        }
        join(s, dy, width, accumulate, dx);
    }
}

/// The gradients of all rows, `per` a replica, whose γ `gamma` gives.
fn all_gradients<'a>(
    (per, gamma): (u32, impl Fn(usize) -> &'a [f32] + Send + Sync),
    all: Normalized<'_>,
    accumulate: bool,
    dx: &mut [f32],
) {
    let width = all.width;
    rows(dx, width, 4 * width, |first, dx| {
        by_replica(first, dx.len() / width, per as usize, |replica, run| {
            let gamma = gamma(replica);
            let rows = all.rows(first + run.start..first + run.end);
            let dx = &mut dx[run.start * width..run.end * width];
            with_vectors!(s => if width <= NARROW {
                narrow_gradients(s, rows, gamma, accumulate, dx);
            } else {
                row_gradients(s, rows, gamma, accumulate, dx);
            });
        });
    });
}

fn backward(p: &[u8], _replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &LayerNormBackward = bytemuck::from_bytes(p);
    let [x, parameters, mean, rstd, dy, dx] = args else { unreachable!("six bindings") };
    let (parameters, width) = (parameters.real(), p.width as usize);
    let (x, mean, rstd, dy) = (x.real(), Some(mean.real()), rstd.real(), dy.real());
    let gamma = |replica| {
        let flat = replica * p.stride as usize + p.gamma_offset as usize;
        &parameters[flat..][..width]
    };
    let all = Normalized { x, mean, rstd, dy, width };
    all_gradients((p.rows, gamma), all, p.accumulate != 0, dx.real_mut());
}

fn rms_backward(p: &[u8], _replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &RmsNormBackward = bytemuck::from_bytes(p);
    let [x, parameters, rrms, dy, dx] = args else { unreachable!("five bindings") };
    let (parameters, width) = (parameters.real(), p.width as usize);
    let gamma = |replica| {
        let flat = replica * p.stride as usize + p.weight_offset as usize;
        &parameters[flat..][..width]
    };
    let (x, rstd, dy) = (x.real(), rrms.real(), dy.real());
    let all = Normalized { x, mean: None, rstd, dy, width };
    all_gradients((p.rows, gamma), all, p.accumulate != 0, dx.real_mut());
}

/// Adds Σ dy · x̂ and Σ dy of rows to dγ and dβ.
#[inline(always)]
fn add_rows<S: Simd>(s: S, rows: Normalized<'_>, gamma: &mut [f32], beta: &mut [f32]) {
    for (x, mean, rstd, dy) in rows.each() {
        let (mean, rstd) = (splat(s, mean), splat(s, rstd));
        rewrite(
            s,
            [x, dy],
            [&mut *gamma, &mut *beta],
            #[inline(always)]
            |[x, dy], [gamma, beta]| [gamma + dy * ((x - mean) * rstd), beta + dy],
        );
    }
}

/// As [`add_rows`], of narrow rows.
#[inline(always)]
fn add_narrow_rows<S: Simd>(s: S, rows: Normalized<'_>, gamma: &mut [f32], beta: &mut [f32]) {
    let mut planes = [NO_PLANES; 2];
    // A sum for each row of a block.
    let mut sums = [NO_PLANES; 2];
    let (width, count) = (rows.width, rows.rstd.len());
    for start in (0..count).step_by(ROWS) {
        rows.rows(start..count.min(start + ROWS)).planes(s, &mut planes);
        let ([x, dy], [gammas, betas]) = (&planes, &mut sums);
        let all = width * ROWS;
        rewrite(
            s,
            [&x[..all], &dy[..all]],
            [&mut gammas[..all], &mut betas[..all]],
            #[inline(always)]
            |[x, dy], [gamma, beta]| [gamma + dy * x, beta + dy],
        );
    }
    for (out, sums) in [gamma, beta].into_iter().zip(&sums) {
        for (out, sums) in out.iter_mut().zip(sums.chunks_exact(ROWS)) {
            *out += sum(
                s,
                [sums],
                #[inline(always)]
                |[x]| x,
            );
        }
    }
}

/// Elements of a part, which is summed by itself: sizes alone say in which order is added.
const PART: usize = 1 << 16;

/// The gradients of γ and β from all rows.
fn all_parameters(
    p: &LayerNormBackwardParameters,
    replicas: usize,
    all: Normalized<'_>,
    gradients: &mut [f32],
) {
    let (count, width) = ((p.end - p.first) as usize, all.width);
    let length = PART.div_ceil(width).next_multiple_of(ROWS);
    for r in 0..replicas {
        let own = r * p.rows as usize + p.first as usize;
        let rows = all.rows(own..own + count);
        let mut sums = vec![0.0; count.div_ceil(length).max(1) * 2 * width];
        sums.par_chunks_mut(2 * width).enumerate().for_each(|(part, sums)| {
            let rows = rows.rows(count.min(part * length)..count.min((part + 1) * length));
            let (gamma, beta) = sums.split_at_mut(width);
            with_vectors!(s => if width <= NARROW {
                add_narrow_rows(s, rows, gamma, beta);
            } else {
                add_rows(s, rows, gamma, beta);
            });
        });
        let (total, others) = sums.split_at_mut(2 * width);
        let add = |y: &mut [f32], x: &[f32], accumulate| {
            with_vectors!(s => assign(s, x, accumulate, y));
        };
        others.chunks_exact(2 * width).for_each(|part| add(total, part, true));
        let (gamma, beta) = total.split_at(width);
        for (offset, sums, mode) in
            [(p.gamma_offset, gamma, p.gamma_mode), (p.beta_offset, beta, p.beta_mode)]
        {
            let first = r * p.stride as usize + offset as usize;
            if mode < 2 {
                add(&mut gradients[first..][..width], sums, mode == 1);
            }
        }
    }
}

fn backward_parameters(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &LayerNormBackwardParameters = bytemuck::from_bytes(p);
    let [x, mean, rstd, dy, gradients] = args else { unreachable!("five bindings") };
    let (x, mean, rstd, dy) = (x.real(), Some(mean.real()), rstd.real(), dy.real());
    let all = Normalized { x, mean, rstd, dy, width: p.width as usize };
    all_parameters(p, replicas, all, gradients.real_mut());
}

fn rms_backward_weight(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &RmsNormBackwardWeight = bytemuck::from_bytes(p);
    let [x, rrms, dy, gradients] = args else { unreachable!("four bindings") };
    let (x, rstd, dy) = (x.real(), rrms.real(), dy.real());
    let all = Normalized { x, mean: None, rstd, dy, width: p.width as usize };
    let of_gamma = LayerNormBackwardParameters {
        rows: p.rows,
        width: p.width,
        gamma_offset: p.weight_offset,
        beta_offset: 0,
        stride: p.stride,
        gamma_mode: p.accumulate,
        beta_mode: 2,
        first: p.first,
        end: p.end,
    };
    all_parameters(&of_gamma, replicas, all, gradients.real_mut());
}
