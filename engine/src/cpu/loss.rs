//! Losses: rows in parallel, exponentials and logarithms in vectors; narrow rows many at a time.

pub(super) mod weighted;

use fearless_simd::Simd;
use fearless_simd::prelude::*;
use rayon::prelude::*;
use tern_shaders::kernels::loss::{
    ElementLoss, ElementwiseBackward, ElementwiseForward, IGNORED, Rows,
    SoftmaxCrossEntropyBackward, SoftmaxCrossEntropyForward, SoftmaxCrossEntropyJoin,
    softmax_cross_entropy_join,
};
use tern_shaders::{Arg, ReferenceFn};

use super::isa::with_vectors;
use super::parallel::{by_replica, rows, rows2};
use super::planes::{NARROW, NO_PLANES, ROWS, join, split};
use super::pointwise::softmax::{log_sum_exp, log_sum_exps};
use super::reduce::{sums_of_narrow, total};
use super::vector::{exp, lanes, ln_1p, load, put, sigmoid, splat, store, sum, tally};

pub(super) static TABLE: &[(&str, ReferenceFn<f32>)] = &[
    ("loss/count_targets", count_targets),
    ("loss/mean", mean),
    ("loss/softmax_cross_entropy_forward", forward),
    ("loss/softmax_cross_entropy_join", join_parts),
    ("loss/softmax_cross_entropy_backward", backward),
    ("loss/elementwise_forward", elementwise_forward),
    ("loss/elementwise_backward", elementwise_backward),
];

/// Words that a thread counts at once.
const PART: usize = 1 << 16;

fn count_targets(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Rows = bytemuck::from_bytes(p);
    let [targets, count] = args else { unreachable!("two bindings") };
    let (targets, n) = (targets.word(), p.rows as usize);
    for (r, count) in count.real_mut()[..replicas].iter_mut().enumerate() {
        let known = |targets: &[u32]| with_vectors!(s => known(s, targets));
        let known: u32 = targets[r * n..][..n].par_chunks(PART).map(known).sum();
        *count = known as f32;
    }
}

/// How many targets are not [`IGNORED`].
#[inline(always)]
pub(super) fn known<S: Simd>(s: S, targets: &[u32]) -> u32 {
    let (ignored, zero, one) =
        (S::u32s::splat(s, IGNORED), S::u32s::splat(s, 0), S::u32s::splat(s, 1));
    tally(
        s,
        targets,
        #[inline(always)]
        |target: S::u32s| target.simd_eq(ignored).select(zero, one),
    )
}

fn mean(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Rows = bytemuck::from_bytes(p);
    let [row_loss, count, loss] = args else { unreachable!("three bindings") };
    let (row_loss, count, n) = (row_loss.real(), count.real(), p.rows as usize);
    for (r, loss) in loss.real_mut()[..replicas].iter_mut().enumerate() {
        *loss = total(&row_loss[r * n..][..n]) / count[r].max(1.0);
    }
}

/// The classes of a row's logits: so many from the first on, of all that there are.
#[derive(Clone, Copy)]
struct Classes {
    first: u32,
    count: usize,
    all: u32,
}

impl Classes {
    /// Place of a target that isn't ignored, past the last where it is none of these.
    #[inline(always)]
    fn place(&self, target: u32) -> usize {
        target.min(self.all - 1).wrapping_sub(self.first) as usize
    }

    /// [`Classes::place`] of a vector of targets.
    #[inline(always)]
    fn places<S: Simd>(&self, s: S, targets: S::u32s) -> S::u32s {
        targets.min(S::u32s::splat(s, self.all - 1)) - S::u32s::splat(s, self.first)
    }
}

/// log Σ e^x of rows in its two parts, and how far it is from the target's x; zero where that is
/// ignored or none of these.
#[inline(always)]
fn losses<S: Simd>(
    s: S,
    (x, all): (&[f32], Classes),
    target: &[u32],
    loss: &mut [f32],
    log_sum: &mut [f32],
) {
    let classes = all.count;
    if classes <= NARROW {
        return narrow_losses(s, (x, all), target, loss, log_sum);
    }
    let rows = x.chunks_exact(classes).zip(target);
    for ((x, target), (loss, log_sum)) in rows.zip(loss.iter_mut().zip(log_sum.chunks_exact_mut(2)))
    {
        let [top, rest] = log_sum_exp(s, x);
        log_sum.copy_from_slice(&[top, rest]);
        *loss = match x.get(all.place(*target)) {
            Some(own) if *target != IGNORED => rest - (own - top),
            _ => 0.0,
        };
    }
}

#[inline(always)]
fn narrow_losses<S: Simd>(
    s: S,
    (x, all): (&[f32], Classes),
    target: &[u32],
    loss: &mut [f32],
    log_sum: &mut [f32],
) {
    let classes = all.count;
    let mut planes = NO_PLANES;
    let (mut targets, mut log_sums, mut losses) = ([IGNORED; ROWS], [[0.0; ROWS]; 2], [0.0; ROWS]);
    let zero = splat(s, 0.0);
    let (ignored, count) = (S::u32s::splat(s, IGNORED), S::u32s::splat(s, classes as u32));
    let rows = x.chunks(ROWS * classes).zip(target.chunks(ROWS));
    let results = loss.chunks_mut(ROWS).zip(log_sum.chunks_mut(2 * ROWS));
    for ((x, target), (loss, log_sum)) in rows.zip(results) {
        let n = loss.len();
        targets[..n].copy_from_slice(target);
        split(s, x, classes, &mut planes);
        log_sum_exps(s, &planes, classes, &mut log_sums);
        for at in (0..ROWS).step_by(lanes::<S>()) {
            let target = load::<S, S::u32s>(s, &targets[at..]);
            let place = all.places(s, target);
            let mut own = zero;
            for c in 0..classes {
                let x = load::<S, S::f32s>(s, &planes[c * ROWS + at..]);
                own = place.simd_eq(S::u32s::splat(s, c as u32)).select(x, own);
            }
            let [top, rest] = [0, 1].map(|part| load::<S, S::f32s>(s, &log_sums[part][at..]));
            let distance = place.simd_lt(count).select(rest - (own - top), zero);
            store(&mut losses[at..], target.simd_eq(ignored).select(zero, distance));
        }
        loss.copy_from_slice(&losses[..n]);
        for (row, parts) in log_sum.chunks_exact_mut(2).enumerate() {
            parts.copy_from_slice(&[log_sums[0][row], log_sums[1][row]]);
        }
    }
}

fn forward(p: &[u8], _replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &SoftmaxCrossEntropyForward = bytemuck::from_bytes(p);
    let [logits, target, row_loss, log_sum] = args else { unreachable!("four bindings") };
    let (logits, target, classes) = (logits.real(), target.word(), p.classes as usize);
    let (row_loss, log_sum) = (row_loss.real_mut(), log_sum.real_mut());
    let all = Classes { first: p.first, count: classes, all: p.all };
    // An exponential counts for several visits of an element.
    rows2((row_loss, 1), (log_sum, 2), 4 * classes, |first, row_loss, log_sum| {
        let n = row_loss.len();
        let (x, target) = (&logits[first * classes..][..n * classes], &target[first..][..n]);
        with_vectors!(s => losses(s, (x, all), target, row_loss, log_sum));
    });
}

/// A few numbers a row, beside the classes that each stands for.
fn join_parts(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &SoftmaxCrossEntropyJoin = bytemuck::from_bytes(p);
    let [part_loss, part_sum, target, row_loss, log_sum] = args else {
        unreachable!("five bindings")
    };
    let (row_loss, log_sum) = (row_loss.real_mut(), log_sum.real_mut());
    let (part_loss, part_sum) = (part_loss.real(), part_sum.real());
    softmax_cross_entropy_join(p, replicas, part_loss, part_sum, target.word(), row_loss, log_sum);
}

/// d (+)= scale · (e^(x − log Σ e^x) − onehot) of wide rows, or zero where the scale is.
#[inline(always)]
fn gradients<S: Simd>(s: S, rows: Targets<'_>, accumulate: bool, d: &mut [f32]) {
    let classes = rows.classes.count;
    for (row, d) in d.chunks_exact_mut(classes).enumerate() {
        let scale = splat(s, rows.scale);
        let (top, rest) = (splat(s, rows.log_sum[2 * row]), splat(s, rows.log_sum[2 * row + 1]));
        match rows.target[row] {
            IGNORED if accumulate => {}
            IGNORED => d.fill(0.0),
            class => {
                put(
                    s,
                    [&rows.x[row * classes..][..classes]],
                    accumulate,
                    d,
                    #[inline(always)]
                    |[x]| scale * exp(s, x - top - rest),
                );
                if let Some(d) = d.get_mut(rows.classes.place(class)) {
                    *d -= rows.scale;
                }
            }
        }
    }
}

/// [`gradients`] of narrow rows.
#[inline(always)]
fn narrow_gradients<S: Simd>(s: S, rows: Targets<'_>, accumulate: bool, d: &mut [f32]) {
    let classes = rows.classes.count;
    let mut planes = NO_PLANES;
    let (mut targets, mut tops, mut rests) = ([IGNORED; ROWS], [0.0; ROWS], [0.0; ROWS]);
    let (zero, one, scale) = (splat(s, 0.0), splat(s, 1.0), splat(s, rows.scale));
    let ignored = S::u32s::splat(s, IGNORED);
    for (i, d) in d.chunks_mut(ROWS * classes).enumerate() {
        let (first, n) = (i * ROWS, d.len() / classes);
        targets[..n].copy_from_slice(&rows.target[first..][..n]);
        for (row, parts) in rows.log_sum[2 * first..][..2 * n].chunks_exact(2).enumerate() {
            (tops[row], rests[row]) = (parts[0], parts[1]);
        }
        split(s, &rows.x[first * classes..][..d.len()], classes, &mut planes);
        for at in (0..ROWS).step_by(lanes::<S>()) {
            let top = load::<S, S::f32s>(s, &tops[at..]);
            let rest = load::<S, S::f32s>(s, &rests[at..]);
            let target = load::<S, S::u32s>(s, &targets[at..]);
            let (none, target) = (target.simd_eq(ignored), rows.classes.places(s, target));
            for c in 0..classes {
                let plane = &mut planes[c * ROWS + at..];
                let e = exp(s, load::<S, S::f32s>(s, plane) - top - rest);
                let hit = target.simd_eq(S::u32s::splat(s, c as u32)).select(one, zero);
                store(plane, none.select(zero, scale * (e - hit)));
            }
        }
        join(s, &planes, classes, accumulate, d);
    }
}

/// Rows of logits with their targets, and the factor of their gradients.
#[derive(Clone, Copy)]
struct Targets<'a> {
    x: &'a [f32],
    target: &'a [u32],
    log_sum: &'a [f32],
    classes: Classes,
    scale: f32,
}

fn backward(p: &[u8], _replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &SoftmaxCrossEntropyBackward = bytemuck::from_bytes(p);
    let [logits, target, log_sum, count, dloss, dlogits] = args else {
        unreachable!("six bindings")
    };
    let (logits, target, log_sum) = (logits.real(), target.word(), log_sum.real());
    let (count, dloss) = (count.real(), dloss.real());
    let (classes, accumulate) = (p.classes as usize, p.accumulate != 0);
    rows(dlogits.real_mut(), classes, 4 * classes, |first, d| {
        by_replica(first, d.len() / classes, p.rows as usize, |replica, run| {
            let first = first + run.start;
            let rows = Targets {
                x: &logits[first * classes..],
                target: &target[first..],
                log_sum: &log_sum[2 * first..],
                classes: Classes { first: p.first, count: classes, all: p.all },
                scale: dloss[replica] / count[replica].max(1.0),
            };
            let d = &mut d[run.start * classes..run.end * classes];
            with_vectors!(s => if classes <= NARROW {
                narrow_gradients(s, rows, accumulate, d);
            } else {
                gradients(s, rows, accumulate, d);
            });
        });
    });
}

/// −t log σ(x) − (1 − t) log(1 − σ(x))
#[inline(always)]
fn binary_cross_entropy<S: Simd>(s: S, x: S::f32s, t: S::f32s) -> S::f32s {
    let zero = splat(s, 0.0);
    let log_sigmoid = x.simd_lt(zero).select(x, zero) - ln_1p(s, exp(s, -x.abs()));
    (splat(s, 1.0) - t) * x - log_sigmoid
}

/// Means of the losses of rows.
#[inline(always)]
fn mean_losses<S: Simd>(
    s: S,
    [x, t]: [&[f32]; 2],
    width: usize,
    value: impl Fn([S::f32s; 2]) -> S::f32s + Copy,
    loss: &mut [f32],
) {
    let share = 1.0 / width as f32;
    if width > NARROW {
        let rows = x.chunks_exact(width).zip(t.chunks_exact(width));
        for ((x, t), loss) in rows.zip(loss) {
            *loss = share * sum(s, [x, t], value);
        }
        return;
    }
    if width == 1 {
        return put(s, [x, t], false, loss, value);
    }
    let mut values = NO_PLANES;
    let block = ROWS * width;
    for (i, loss) in loss.chunks_mut(ROWS).enumerate() {
        let values = &mut values[..loss.len() * width];
        put(s, [&x[i * block..], &t[i * block..]], false, values, value);
        sums_of_narrow(s, share, values, width, loss);
    }
}

/// How many of a replica's rows count.
fn counted(count: f32, rows: usize) -> usize {
    (count.ceil() as usize).min(rows)
}

fn elementwise_forward(p: &[u8], _replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &ElementwiseForward = bytemuck::from_bytes(p);
    let [x, target, count, row_loss] = args else { unreachable!("four bindings") };
    let (x, target, count) = (x.real(), target.real(), count.real());
    let (per, width) = (p.rows as usize, p.width as usize);
    rows(row_loss.real_mut(), 1, 4 * width, |first, loss| {
        by_replica(first, loss.len(), per, |replica, run| {
            let first = first + run.start;
            let counted = counted(count[replica], per).saturating_sub(first - replica * per);
            let (loss, rest) = loss[run.clone()].split_at_mut(counted.min(run.len()));
            rest.fill(0.0);
            let all = [x, target].map(|x| &x[first * width..]);
            with_vectors!(s => match ElementLoss::of(p.kind) {
                ElementLoss::SquaredError => mean_losses(
                    s,
                    all,
                    width,
                    #[inline(always)]
                    |[x, t]| (x - t) * (x - t),
                    loss,
                ),
                ElementLoss::BinaryCrossEntropy => mean_losses(
                    s,
                    all,
                    width,
                    #[inline(always)]
                    |[x, t]| binary_cross_entropy(s, x, t),
                    loss,
                ),
            });
        });
    });
}

fn elementwise_backward(p: &[u8], _replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &ElementwiseBackward = bytemuck::from_bytes(p);
    let [x, target, count, dloss, dx] = args else { unreachable!("five bindings") };
    let (x, target, count, dloss) = (x.real(), target.real(), count.real(), dloss.real());
    let (per, width, accumulate) = (p.rows as usize, p.width as usize, p.accumulate != 0);
    rows(dx.real_mut(), width, 4 * width, |first, dx| {
        by_replica(first, dx.len() / width, per, |replica, run| {
            let first = first + run.start;
            let counted = counted(count[replica], per).saturating_sub(first - replica * per);
            let dx = &mut dx[run.start * width..run.end * width];
            let (dx, rest) = dx.split_at_mut(counted.min(run.len()) * width);
            if !accumulate {
                rest.fill(0.0);
            }
            let all = [x, target].map(|x| &x[first * width..]);
            let scale = dloss[replica] / (width as f32 * count[replica].max(1.0));
            with_vectors!(s => match ElementLoss::of(p.kind) {
                ElementLoss::SquaredError => put(
                    s,
                    all,
                    accumulate,
                    dx,
                    #[inline(always)]
                    |[x, t]| (x - t) * splat(s, 2.0 * scale),
                ),
                ElementLoss::BinaryCrossEntropy => put(
                    s,
                    all,
                    accumulate,
                    dx,
                    #[inline(always)]
                    |[x, t]| (sigmoid(s, x) - t) * splat(s, scale),
                ),
            });
        });
    });
}
