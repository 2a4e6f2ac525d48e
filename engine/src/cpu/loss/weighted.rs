//! Cross-entropy with a weight for each class, and smoothed: as the plain one, with one more sum
//! of each row.

use fearless_simd::Simd;
use fearless_simd::prelude::*;
use rayon::prelude::*;
use tern_shaders::kernels::loss::IGNORED;
use tern_shaders::kernels::loss::weighted::{
    TargetWeights, WeightedCrossEntropyBackward, WeightedCrossEntropyForward,
};
use tern_shaders::{Arg, ReferenceFn};

use crate::cpu::isa::with_vectors;
use crate::cpu::parallel::{by_replica, rows, rows2};
use crate::cpu::planes::{NARROW, NO_PLANES, ROWS, join, split};
use crate::cpu::pointwise::softmax::{log_sum_exp, log_sum_exps};
use crate::cpu::reduce::total;
use crate::cpu::vector::{exp, lanes, load, put, splat, store, sum};

pub(in crate::cpu) static TABLE: &[(&str, ReferenceFn<f32>)] = &[
    ("loss/target_weights", target_weights),
    ("loss/weighted_cross_entropy_forward", forward),
    ("loss/weighted_cross_entropy_backward", backward),
];

/// Targets whose weights are added up at once.
const PART: usize = 1 << 12;

fn target_weights(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &TargetWeights = bytemuck::from_bytes(p);
    let [targets, weights, normalizer] = args else { unreachable!("three bindings") };
    let (rows, classes) = (p.rows as usize, p.classes as usize);
    let (targets, weights) = (targets.word(), weights.real());
    for (r, normalizer) in normalizer.real_mut()[..replicas].iter_mut().enumerate() {
        let weights = &weights[r * classes..][..classes];
        let parts: Vec<f32> = targets[r * rows..][..rows]
            .par_chunks(PART)
            .map(|targets| {
                let mut own = [0.0; PART];
                for (own, target) in own.iter_mut().zip(targets) {
                    let weight = weights[(*target as usize).min(classes - 1)];
                    *own = if *target == IGNORED { 0.0 } else { weight };
                }
                total(&own[..targets.len()])
            })
            .collect();
        let sum = total(&parts);
        *normalizer = if sum == 0.0 { 0.0 } else { 1.0 / sum };
    }
}

/// The weights of a replica's classes, and how targets are smoothed.
#[derive(Clone, Copy)]
struct Classes<'a> {
    weights: &'a [f32],
    /// Of the target's loss.
    own: f32,
    /// Of each class's.
    share: f32,
}

impl<'a> Classes<'a> {
    fn new(weights: &'a [f32], smoothing: f32) -> Self {
        Self { weights, own: 1.0 - smoothing, share: smoothing / weights.len() as f32 }
    }

    /// share · Σ w
    #[inline(always)]
    fn shares<S: Simd>(&self, s: S) -> f32 {
        self.share
            * sum(
                s,
                [self.weights],
                #[inline(always)]
                |[weight]| weight,
            )
    }
}

/// Losses of wide rows before they are normalized, and what their gradients take.
#[inline(always)]
fn losses<S: Simd>(
    s: S,
    x: &[f32],
    target: &[u32],
    classes: Classes<'_>,
    normalizer: f32,
    (loss, sums): (&mut [f32], &mut [f32]),
) {
    let (width, shares) = (classes.weights.len(), classes.shares(s));
    let rows = x.chunks_exact(width).zip(target);
    for ((x, target), (loss, sums)) in rows.zip(loss.iter_mut().zip(sums.chunks_exact_mut(3))) {
        let [top, rest] = log_sum_exp(s, x);
        let place = (*target as usize).min(width - 1);
        let own = classes.own * classes.weights[place];
        let mut row = own * (rest - (x[place] - top));
        if classes.share != 0.0 {
            let (top, rest) = (splat(s, top), splat(s, rest));
            let surprise = sum(
                s,
                [x, classes.weights],
                #[inline(always)]
                |[x, weight]| weight * (rest - (x - top)),
            );
            row += classes.share * surprise;
        }
        *loss = if *target == IGNORED { 0.0 } else { normalizer * row };
        sums.copy_from_slice(&[top, rest, own + shares]);
    }
}

/// [`losses`] of narrow rows.
#[inline(always)]
fn narrow_losses<S: Simd>(
    s: S,
    x: &[f32],
    target: &[u32],
    classes: Classes<'_>,
    normalizer: f32,
    (loss, sums): (&mut [f32], &mut [f32]),
) {
    let (width, shares) = (classes.weights.len(), splat(s, classes.shares(s)));
    let mut planes = NO_PLANES;
    let (mut targets, mut log_sums) = ([IGNORED; ROWS], [[0.0; ROWS]; 2]);
    let (mut losses, mut totals) = ([0.0; ROWS], [0.0; ROWS]);
    let (zero, normalizer) = (splat(s, 0.0), splat(s, normalizer));
    let (ignored, last) = (S::u32s::splat(s, IGNORED), S::u32s::splat(s, width as u32 - 1));
    let rows = x.chunks(ROWS * width).zip(target.chunks(ROWS));
    let results = loss.chunks_mut(ROWS).zip(sums.chunks_mut(3 * ROWS));
    for ((x, target), (loss, sums)) in rows.zip(results) {
        let n = loss.len();
        targets[..n].copy_from_slice(target);
        split(s, x, width, &mut planes);
        log_sum_exps(s, &planes, width, &mut log_sums);
        for at in (0..ROWS).step_by(lanes::<S>()) {
            let target = load::<S, S::u32s>(s, &targets[at..]);
            let place = target.min(last);
            let [top, rest] = [0, 1].map(|part| load::<S, S::f32s>(s, &log_sums[part][at..]));
            let (mut own, mut weight, mut surprise) = (zero, zero, zero);
            for c in 0..width {
                let x = load::<S, S::f32s>(s, &planes[c * ROWS + at..]);
                let (here, w) = (rest - (x - top), splat(s, classes.weights[c]));
                let hit = place.simd_eq(S::u32s::splat(s, c as u32));
                own = hit.select(here, own);
                weight = hit.select(w, weight);
                surprise += w * here;
            }
            let weight = weight * classes.own;
            let mut row = weight * own;
            if classes.share != 0.0 {
                row += surprise * classes.share;
            }
            let row = target.simd_eq(ignored).select(zero, normalizer * row);
            store(&mut losses[at..], row);
            store(&mut totals[at..], weight + shares);
        }
        loss.copy_from_slice(&losses[..n]);
        for (row, sums) in sums.chunks_exact_mut(3).enumerate() {
            sums.copy_from_slice(&[log_sums[0][row], log_sums[1][row], totals[row]]);
        }
    }
}

fn forward(p: &[u8], _replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &WeightedCrossEntropyForward = bytemuck::from_bytes(p);
    let [logits, target, weights, normalizer, row_loss, row_sums] = args else {
        unreachable!("six bindings")
    };
    let (logits, target) = (logits.real(), target.word());
    let (weights, normalizer) = (weights.real(), normalizer.real());
    let (per, width) = (p.rows as usize, p.classes as usize);
    let (row_loss, row_sums) = (row_loss.real_mut(), row_sums.real_mut());
    rows2((row_loss, 1), (row_sums, 3), 5 * width, |first, row_loss, row_sums| {
        by_replica(first, row_loss.len(), per, |replica, run| {
            let classes = Classes::new(&weights[replica * width..][..width], p.smoothing);
            let (first, n) = (first + run.start, run.len());
            let (x, target) = (&logits[first * width..][..n * width], &target[first..][..n]);
            let results = (&mut row_loss[run.clone()], &mut row_sums[3 * run.start..3 * run.end]);
            with_vectors!(s => if width <= NARROW {
                narrow_losses(s, x, target, classes, normalizer[replica], results);
            } else {
                losses(s, x, target, classes, normalizer[replica], results);
            });
        });
    });
}

/// Rows of logits with their targets, sums of the forward pass, and the factor of their gradients.
#[derive(Clone, Copy)]
struct Targets<'a> {
    x: &'a [f32],
    target: &'a [u32],
    sums: &'a [f32],
    classes: Classes<'a>,
    scale: f32,
}

/// d (+)= scale · (s · softmax(x) − own · w\[t\] · onehot(t) − share · w) of wide rows, or zero
/// where the target is ignored.
#[inline(always)]
fn gradients<S: Simd>(s: S, rows: Targets<'_>, accumulate: bool, d: &mut [f32]) {
    let (width, weights) = (rows.classes.weights.len(), rows.classes.weights);
    let (scale, share) = (splat(s, rows.scale), splat(s, rows.classes.share));
    for (row, d) in d.chunks_exact_mut(width).enumerate() {
        let target = rows.target[row];
        if target == IGNORED {
            if !accumulate {
                d.fill(0.0);
            }
            continue;
        }
        let sums = &rows.sums[3 * row..][..3];
        let (top, rest, total) = (splat(s, sums[0]), splat(s, sums[1]), splat(s, sums[2]));
        put(
            s,
            [&rows.x[row * width..][..width], weights],
            accumulate,
            d,
            #[inline(always)]
            |[x, weight]| scale * (total * exp(s, x - top - rest) - share * weight),
        );
        let place = (target as usize).min(width - 1);
        d[place] -= rows.scale * rows.classes.own * weights[place];
    }
}

/// [`gradients`] of narrow rows.
#[inline(always)]
fn narrow_gradients<S: Simd>(s: S, rows: Targets<'_>, accumulate: bool, d: &mut [f32]) {
    let width = rows.classes.weights.len();
    let mut planes = NO_PLANES;
    let (mut targets, mut sums) = ([IGNORED; ROWS], [[0.0; ROWS]; 3]);
    let (zero, scale) = (splat(s, 0.0), splat(s, rows.scale));
    let (ignored, last) = (S::u32s::splat(s, IGNORED), S::u32s::splat(s, width as u32 - 1));
    for (i, d) in d.chunks_mut(ROWS * width).enumerate() {
        let (first, n) = (i * ROWS, d.len() / width);
        targets[..n].copy_from_slice(&rows.target[first..][..n]);
        for (row, parts) in rows.sums[3 * first..][..3 * n].chunks_exact(3).enumerate() {
            sums.iter_mut().zip(parts).for_each(|(sums, part)| sums[row] = *part);
        }
        split(s, &rows.x[first * width..][..d.len()], width, &mut planes);
        for at in (0..ROWS).step_by(lanes::<S>()) {
            let [top, rest, total] = [0, 1, 2].map(|part| load::<S, S::f32s>(s, &sums[part][at..]));
            let target = load::<S, S::u32s>(s, &targets[at..]);
            let (none, target) = (target.simd_eq(ignored), target.min(last));
            for c in 0..width {
                let plane = &mut planes[c * ROWS + at..];
                let e = exp(s, load::<S, S::f32s>(s, plane) - top - rest);
                let weight = rows.classes.weights[c];
                let (share, own) = (rows.classes.share * weight, rows.classes.own * weight);
                let hit = target.simd_eq(S::u32s::splat(s, c as u32));
                let subtract = hit.select(splat(s, share + own), splat(s, share));
                store(plane, none.select(zero, scale * (total * e - subtract)));
            }
        }
        join(s, &planes, width, accumulate, d);
    }
}

fn backward(p: &[u8], _replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &WeightedCrossEntropyBackward = bytemuck::from_bytes(p);
    let [logits, target, weights, sums, normalizer, dloss, dlogits] = args else {
        unreachable!("seven bindings")
    };
    let (logits, target, sums) = (logits.real(), target.word(), sums.real());
    let (weights, normalizer, dloss) = (weights.real(), normalizer.real(), dloss.real());
    let (width, accumulate) = (p.classes as usize, p.accumulate != 0);
    rows(dlogits.real_mut(), width, 4 * width, |first, d| {
        by_replica(first, d.len() / width, p.rows as usize, |replica, run| {
            let first = first + run.start;
            let rows = Targets {
                x: &logits[first * width..],
                target: &target[first..],
                sums: &sums[3 * first..],
                classes: Classes::new(&weights[replica * width..][..width], p.smoothing),
                scale: dloss[replica] * normalizer[replica],
            };
            let d = &mut d[run.start * width..run.end * width];
            with_vectors!(s => if width <= NARROW {
                narrow_gradients(s, rows, accumulate, d);
            } else {
                gradients(s, rows, accumulate, d);
            });
        });
    });
}
