//! Whole GRU sequences, as those of the [LSTM](super::lstm): a task is a few rows of the batch, which
//! one thread walks through all time steps, by panels of the packed `W_hh`.

#[cfg(test)]
mod tests;

use fearless_simd::Simd;
use fearless_simd::prelude::*;
use rayon::prelude::*;
use tern_shaders::kernels::gru::{Backward, Forward};
use tern_shaders::{Arg, ReferenceFn};

use super::isa::{Isa, Vectors, with_vectors};
use super::lstm::walk::{Sums, groups, separate};
use super::lstm::{
    Cell, MAX_ROWS, Sizes, VECTORS, deal, deal_mut, pack_backward, pack_forward, packed,
};
use super::mixed::{get, set};
use super::vector::{lanes, sigmoid, splat, tanh};

pub(super) static TABLE: &[(&str, ReferenceFn<f32>)] =
    &[("gru/sequence_forward", sequence_forward), ("gru/sequence_backward", sequence_backward)];

/// Slices a step, of a task's rows, and the layer's packed weights. `hs` has one slot more than there
/// are steps.
struct ForwardTask<'a> {
    sizes: Sizes,
    weights: &'a [f32],
    bias: &'a [f32],
    hs: Vec<&'a mut [f32]>,
    y: Vec<&'a mut [f32]>,
    recurrent: Vec<&'a mut [f32]>,
    gates: Vec<&'a mut [f32]>,
}

/// As [`ForwardTask`]; `dy` is empty if there is no gradient of the outputs.
struct BackwardTask<'a> {
    sizes: Sizes,
    weights: &'a [f32],
    gates: Vec<&'a [f32]>,
    recurrent: Vec<&'a [f32]>,
    hs: Vec<&'a [f32]>,
    dy: Vec<&'a [f32]>,
    dgates: Vec<&'a mut [f32]>,
    drecurrent: Vec<&'a mut [f32]>,
    carried: &'a mut [f32],
}

fn sequence_forward(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    forward_on(Isa::vectors(), bytemuck::from_bytes(p), replicas, args);
}

fn sequence_backward(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    backward_on(Isa::vectors(), bytemuck::from_bytes(p), replicas, args);
}

fn forward_on(vectors: Vectors, p: &Forward, replicas: usize, args: &mut [Arg<'_, f32>]) {
    let [weights, hs, gates, recurrent, y] = args else { unreachable!("five bindings") };
    let (steps, batch, hidden) = (p.steps as usize, p.batch as usize, p.hidden as usize);
    let sizes = Sizes { steps, batch, hidden, cell: Cell::Gru };
    let weights = weights.real();
    let of = |r: usize, offset: u32| &weights[r * p.stride as usize + offset as usize..];
    let panels = hidden.div_ceil(vectors.lanes());
    let fill = |r, panel, to: &mut [f32]| {
        let w = of(r, p.w_offset);
        with_vectors!(vectors, s => pack_forward(s, sizes, w, panel, to));
    };
    let rows = sizes.rows(replicas);
    let (per_replica, slots) = (batch.div_ceil(rows), replicas * batch);
    let (state, row) = ([batch, rows, hidden], [batch, rows, sizes.width()]);
    let outputs = slots * hidden * steps;
    let tasks = deal_mut(&mut hs.real_mut()[..slots * hidden * (steps + 1)], steps + 1, state)
        .into_par_iter()
        .zip(deal_mut(&mut y.real_mut()[..outputs], steps, state))
        .zip(deal_mut(&mut recurrent.real_mut()[..outputs], steps, state))
        .zip(deal_mut(&mut gates.real_mut()[..slots * steps * sizes.width()], steps, row))
        .enumerate();
    packed(vectors, (replicas, panels, hidden), fill, |packed| {
        let layers: Vec<&[f32]> = packed.chunks_exact(packed.len() / replicas).collect();
        tasks.for_each(|(i, (((hs, y), recurrent), gates))| {
            let r = i / per_replica;
            let (weights, bias) = (layers[r], of(r, p.b_offset));
            let task = ForwardTask { sizes, weights, bias, hs, y, recurrent, gates };
            with_vectors!(vectors, s => forward(s, task));
        });
    });
}

fn backward_on(vectors: Vectors, p: &Backward, replicas: usize, args: &mut [Arg<'_, f32>]) {
    let [weights, gates, recurrent, hs, dy, dgates, drecurrent, carried] = args else {
        unreachable!("eight bindings")
    };
    let (steps, batch, hidden) = (p.steps as usize, p.batch as usize, p.hidden as usize);
    let sizes = Sizes { steps, batch, hidden, cell: Cell::Gru };
    let width = sizes.width();
    let weights = weights.real();
    let panels = hidden.div_ceil(VECTORS * vectors.lanes());
    let fill = |r: usize, panel, to: &mut [f32]| {
        let w = &weights[r * p.stride as usize + p.w_offset as usize..];
        with_vectors!(vectors, s => pack_backward(s, sizes, w, panel, to));
    };
    let rows = sizes.rows(replicas);
    let (per_replica, slots) = (batch.div_ceil(rows), replicas * batch);
    let (state, row) = ([batch, rows, hidden], [batch, rows, width]);
    let (outputs, all) = (slots * hidden * steps, slots * width * steps);
    // A gradient that isn't given is dealt out as no slices.
    let dy = match p.has_dy {
        0 => vec![Vec::new(); replicas * per_replica],
        _ => deal(&dy.real()[..outputs], steps, state),
    };
    let tasks = deal_mut(&mut dgates.real_mut()[..all], steps, row)
        .into_par_iter()
        .zip(deal_mut(&mut drecurrent.real_mut()[..all], steps, row))
        .zip(deal_mut(&mut carried.real_mut()[..slots * hidden], 1, state))
        .zip(deal(&gates.real()[..all], steps, row))
        .zip(deal(&recurrent.real()[..outputs], steps, state))
        .zip(
            deal(&hs.real()[..slots * hidden * (steps + 1)], steps + 1, state)
                .into_par_iter()
                .zip(dy),
        )
        .enumerate();
    packed(vectors, (replicas, panels, width), fill, |packed| {
        let layers: Vec<&[f32]> = packed.chunks_exact(packed.len() / replicas).collect();
        tasks.for_each(
            |(i, (((((dgates, drecurrent), mut carried), gates), recurrent), (hs, dy)))| {
                let Some(carried) = carried.pop() else { return };
                let weights = layers[i / per_replica];
                let task = BackwardTask {
                    sizes,
                    weights,
                    gates,
                    recurrent,
                    hs,
                    dy,
                    dgates,
                    drecurrent,
                    carried,
                };
                with_vectors!(vectors, s => backward(s, task));
            },
        );
    });
}

/// A task's rows forward through all steps.
#[inline(always)]
fn forward<S: Simd>(s: S, task: ForwardTask<'_>) {
    let ForwardTask { sizes, weights, bias, mut hs, mut y, mut recurrent, mut gates } = task;
    let (hidden, width) = (sizes.hidden, sizes.width());
    let (l, row) = (lanes::<S>(), VECTORS * lanes::<S>());
    let rows = hs[0].len() / hidden;
    let mut sums: Sums<S> = [[splat(s, 0.0); VECTORS]; MAX_ROWS];
    for t in 0..sizes.steps {
        let [before, after] = &mut hs[t..t + 2] else { return };
        for (p, panel) in weights.chunks_exact(hidden * row).enumerate() {
            let first = p * l;
            let n = l.min(hidden - first);
            for group in groups(rows) {
                separate(s, panel, before, (group, hidden), &mut sums);
                for (r, sums) in (group.first..).zip(&sums[..group.rows]) {
                    let row = &mut gates[t][r * width + first..(r + 1) * width];
                    let (z_at, n_at) = (hidden, 2 * hidden);
                    let at = r * hidden + first;
                    let own_r = sums[0] + get::<S, S::f32s>(s, &bias[first..], n);
                    let own_z = sums[1] + get::<S, S::f32s>(s, &bias[z_at + first..], n);
                    let own = sums[2] + get::<S, S::f32s>(s, &bias[n_at + first..], n);
                    let reset = sigmoid(s, own_r + get::<S, S::f32s>(s, row, n));
                    let update = sigmoid(s, own_z + get::<S, S::f32s>(s, &row[z_at..], n));
                    let input: S::f32s = get(s, &row[n_at..], n);
                    let new = tanh(s, reset.mul_add(own, input));
                    let old: S::f32s = get(s, &before[at..], n);
                    let h = update.mul_add(old - new, new);
                    set(row, n, reset);
                    set(&mut row[z_at..], n, update);
                    set(&mut row[n_at..], n, new);
                    set(&mut recurrent[t][at..], n, own);
                    set(&mut after[at..], n, h);
                    set(&mut y[t][at..], n, h);
                }
            }
        }
    }
}

/// A task's rows backward through all steps.
#[inline(always)]
fn backward<S: Simd>(s: S, mut task: BackwardTask<'_>) {
    let (hidden, width) = (task.sizes.hidden, task.sizes.width());
    let row = VECTORS * lanes::<S>();
    let rows = task.carried.len() / hidden;
    let mut sums: Sums<S> = [[splat(s, 0.0); VECTORS]; MAX_ROWS];
    let weights = task.weights;
    for t in (0..task.sizes.steps).rev() {
        let last = t + 1 == task.sizes.steps;
        for (p, panel) in weights.chunks_exact(width * row).enumerate() {
            for group in groups(rows) {
                if !last {
                    let after = &task.drecurrent[t + 1];
                    separate(s, panel, after, (group, width), &mut sums);
                }
                for (r, sums) in (group.first..).zip(&sums[..group.rows]) {
                    for (v, sum) in sums.iter().enumerate() {
                        let first = p * row + v * lanes::<S>();
                        if first < hidden {
                            backward_units(s, &mut task, t, (r, first), *sum);
                        }
                    }
                }
            }
        }
    }
}

/// The gradients of a vector of units, the first of which is `first`, of row `r` at step `t`. `dh` is
/// what comes through the gates of the step after; the last step has none.
#[inline(always)]
fn backward_units<S: Simd>(
    s: S,
    task: &mut BackwardTask<'_>,
    t: usize,
    (r, first): (usize, usize),
    dh: S::f32s,
) {
    let (hidden, width) = (task.sizes.hidden, task.sizes.width());
    let n = lanes::<S>().min(hidden - first);
    let at = r * hidden + first;
    let one = splat(s, 1.0);
    let mut dh = dh + get::<S, S::f32s>(s, &task.carried[at..], n);
    if let Some(dy) = task.dy.get(t) {
        dh += get::<S, S::f32s>(s, &dy[at..], n);
    }
    let row = &task.gates[t][r * width + first..(r + 1) * width];
    let reset: S::f32s = get(s, row, n);
    let update: S::f32s = get(s, &row[hidden..], n);
    let new: S::f32s = get(s, &row[2 * hidden..], n);
    let own: S::f32s = get(s, &task.recurrent[t][at..], n);
    let old: S::f32s = get(s, &task.hs[t][at..], n);
    let dn = dh * (one - update) * (one - new * new);
    let dz = dh * (old - new) * update * (one - update);
    let dr = dn * own * reset * (one - reset);
    set(&mut task.carried[at..], n, dh * update);
    let to = r * width + first;
    let row = &mut task.dgates[t][to..(r + 1) * width];
    set(row, n, dr);
    set(&mut row[hidden..], n, dz);
    set(&mut row[2 * hidden..], n, dn);
    let row = &mut task.drecurrent[t][to..(r + 1) * width];
    set(row, n, dr);
    set(&mut row[hidden..], n, dz);
    set(&mut row[2 * hidden..], n, dn * reset);
}
