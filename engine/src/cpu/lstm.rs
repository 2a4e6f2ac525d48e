//! Whole LSTM sequences: a task is a few rows of the batch, which one thread walks through all
//! time steps without waiting for the others.
//!
//! `W_hh` is packed once a call into panels that a vector micro-kernel streams. Forward, a
//! panel holds the four gates of as many units as a register has lanes, so that the gates are
//! activated where they were summed; backward, it holds four registers of neighboring units.
//! Rows are computed alike whatever task they are in: threads don't change the numbers.

pub(super) mod state;
#[cfg(test)]
pub(super) mod tests;
pub(super) mod walk;

use fearless_simd::Simd;
use rayon::prelude::*;
use tern_shaders::kernels::gru::GATES;
use tern_shaders::kernels::lstm::{Backward, Forward, gate_count};
use tern_shaders::{Arg, ReferenceFn};

use super::isa::{Isa, Vectors, with_vectors};
use super::parallel::rows;
use super::product::{View, sliver};
use super::scratch;
use super::vector::lanes;
use walk::{BackwardTask, ForwardTask};

pub(super) static TABLE: &[(&str, ReferenceFn<f32>)] =
    &[("lstm/sequence_forward", sequence_forward), ("lstm/sequence_backward", sequence_backward)];

/// Vectors side by side in a panel.
pub(super) const VECTORS: usize = 4;

/// Rows that a micro-kernel takes at most: their sums fit the registers. Browsers' compilers keep
/// a register for themselves, and load the factors of all rows before they use the first.
pub(super) const MAX_ROWS: usize = if cfg!(target_arch = "wasm32") { 4 } else { 6 };

/// What the gates of a row are.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Cell {
    /// i f g o
    Lstm,
    /// i g o; f = 1 − i
    Coupled,
    /// r z n
    Gru,
}

impl Cell {
    fn lstm(cifg: u32) -> Self {
        if cifg != 0 { Cell::Coupled } else { Cell::Lstm }
    }
}

/// Sizes of a layer.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub steps: usize,
    pub batch: usize,
    pub hidden: usize,
    pub cell: Cell,
}

impl Sizes {
    fn gates(&self) -> usize {
        match self.cell {
            Cell::Lstm | Cell::Coupled => gate_count(u32::from(self.cell == Cell::Coupled)),
            Cell::Gru => GATES,
        }
    }

    /// Words of a row of gates.
    pub fn width(&self) -> usize {
        self.gates() * self.hidden
    }

    /// Where a gate, numbered i f g o or r z n, stands in a row of gates; coupled rows have no f.
    pub fn gate(&self, number: usize) -> Option<usize> {
        match (self.cell, number) {
            (Cell::Coupled, 1) | (Cell::Gru, 3) => None,
            (Cell::Coupled, 2..) => Some((number - 1) * self.hidden),
            _ => Some(number * self.hidden),
        }
    }

    /// Rows a task: an equal share for each thread.
    pub fn rows(&self, replicas: usize) -> usize {
        let tasks = rayon::current_num_threads().div_ceil(replicas.max(1));
        self.batch.div_ceil(tasks).max(1)
    }
}

/// Hands a buffer of `[R·S, B, width]` out to tasks of `rows` rows: by task, a slice a step.
macro_rules! deal {
    ($name:ident, $slice:ty, $chunks:ident) => {
        pub(super) fn $name<'a>(buffer: $slice, slots: usize, row: [usize; 3]) -> Vec<Vec<$slice>> {
            let [batch, rows, width] = row;
            let tasks = batch.div_ceil(rows);
            let replicas = buffer.len() / (slots * batch * width);
            let mut hands: Vec<Vec<$slice>> = Vec::new();
            hands.resize_with(replicas * tasks, || Vec::with_capacity(slots));
            for (i, slot) in buffer.$chunks(batch * width).enumerate() {
                for (task, part) in slot.$chunks(rows * width).enumerate() {
                    hands[i / slots * tasks + task].push(part);
                }
            }
            hands
        }
    };
}
deal!(deal, &'a [f32], chunks);
deal!(deal_mut, &'a mut [f32], chunks_mut);

/// Panels of the weights `[G·H, H]`: a row for each k, and in it the gates of a register's lanes of
/// units.
#[inline(always)]
pub(super) fn pack_forward<S: Simd>(s: S, sizes: Sizes, w: &[f32], panel: usize, to: &mut [f32]) {
    let (hidden, l) = (sizes.hidden, lanes::<S>());
    let units = panel * l..hidden.min((panel + 1) * l);
    for v in 0..VECTORS {
        let to = &mut to[v * l..];
        match sizes.gate(v) {
            Some(gate) => {
                let rows =
                    View::rows(&w[(gate + units.start) * hidden..], units.len(), hidden, hidden);
                sliver(s, rows.transposed(), VECTORS * l, to);
            }
            // What another layer left may be no number, which would stay one.
            None => to.chunks_mut(VECTORS * l).for_each(|row| row[..l].fill(0.0)),
        }
    }
}

/// Panels of the weights: a row for each of the G·H, and in it neighboring units.
#[inline(always)]
pub(super) fn pack_backward<S: Simd>(s: S, sizes: Sizes, w: &[f32], panel: usize, to: &mut [f32]) {
    let (hidden, l) = (sizes.hidden, lanes::<S>());
    for v in 0..VECTORS {
        let first = (panel * VECTORS + v) * l;
        if first < hidden {
            let n = l.min(hidden - first);
            sliver(
                s,
                View::rows(&w[first..], sizes.width(), n, hidden),
                VECTORS * l,
                &mut to[v * l..],
            );
        }
    }
}

/// Lends the packed weights of every replica: `fill` packs a panel of `depth` rows, given the
/// replica and the panel's number.
pub(super) fn packed(
    vectors: Vectors,
    (replicas, panels, depth): (usize, usize, usize),
    fill: impl Fn(usize, usize, &mut [f32]) + Sync,
    f: impl FnOnce(&[f32]),
) {
    let length = depth * VECTORS * vectors.lanes();
    scratch::lend(replicas * panels * length, |packed| {
        let packed = &mut packed[..replicas * panels * length];
        rows(packed, length, length, |first, some| {
            for (at, panel) in (first..).zip(some.chunks_exact_mut(length)) {
                fill(at / panels, at % panels, panel);
            }
        });
        f(packed);
    });
}

fn sequence_forward(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    forward_on(Isa::vectors(), bytemuck::from_bytes(p), replicas, args);
}

fn sequence_backward(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    backward_on(Isa::vectors(), bytemuck::from_bytes(p), replicas, args);
}

fn forward_on(vectors: Vectors, p: &Forward, replicas: usize, args: &mut [Arg<'_, f32>]) {
    let [weights, hs, cs, gates, y] = args else { unreachable!("five bindings") };
    let (steps, batch, hidden) = (p.steps as usize, p.batch as usize, p.hidden as usize);
    let sizes = Sizes { steps, batch, hidden, cell: Cell::lstm(p.cifg) };
    let weights = weights.real();
    let of = |r: usize, offset: u32| &weights[r * p.stride as usize + offset as usize..];
    let panels = hidden.div_ceil(vectors.lanes());
    let fill = |r, panel, to: &mut [f32]| {
        let w = of(r, p.w_offset);
        with_vectors!(vectors, s => pack_forward(s, sizes, w, panel, to));
    };
    let rows = sizes.rows(replicas);
    let per_replica = batch.div_ceil(rows);
    let state = [batch, rows, hidden];
    let slots = replicas * batch * hidden;
    let tasks = deal_mut(&mut hs.real_mut()[..slots * (steps + 1)], steps + 1, state)
        .into_par_iter()
        .zip(deal_mut(&mut cs.real_mut()[..slots * (steps + 1)], steps + 1, state))
        .zip(deal_mut(&mut y.real_mut()[..slots * steps], steps, state))
        .zip(deal_mut(
            &mut gates.real_mut()[..replicas * steps * batch * sizes.width()],
            steps,
            [batch, rows, sizes.width()],
        ))
        .enumerate();
    packed(vectors, (replicas, panels, hidden), fill, |packed| {
        let layers: Vec<&[f32]> = packed.chunks_exact(packed.len() / replicas).collect();
        tasks.for_each(|(i, (((hs, cs), y), gates))| {
            let r = i / per_replica;
            let (weights, bias) = (layers[r], of(r, p.b_offset));
            let task = ForwardTask { sizes, weights, bias, hs, cs, y, gates };
            with_vectors!(vectors, s => walk::forward(s, task));
        });
    });
}

fn backward_on(vectors: Vectors, p: &Backward, replicas: usize, args: &mut [Arg<'_, f32>]) {
    let [weights, gates, cs, dy, dh_last, dc_last, dgates, dc] = args else {
        unreachable!("eight bindings")
    };
    let (steps, batch, hidden) = (p.steps as usize, p.batch as usize, p.hidden as usize);
    let sizes = Sizes { steps, batch, hidden, cell: Cell::lstm(p.cifg) };
    let width = sizes.width();
    let weights = weights.real();
    let panels = hidden.div_ceil(VECTORS * vectors.lanes());
    let fill = |r: usize, panel, to: &mut [f32]| {
        let w = &weights[r * p.stride as usize + p.w_offset as usize..];
        with_vectors!(vectors, s => pack_backward(s, sizes, w, panel, to));
    };
    let rows = sizes.rows(replicas);
    let per_replica = batch.div_ceil(rows);
    let (state, row) = ([batch, rows, hidden], [batch, rows, width]);
    let rows_in_all = replicas * batch;
    // A gradient that isn't given is dealt out as no slices.
    let upstream = [
        (p.has_dy, dy.real(), steps),
        (p.has_dh, dh_last.real(), 1),
        (p.has_dc, dc_last.real(), 1),
    ];
    let [dy, dh_last, dc_last] = upstream.map(|(given, buffer, slots)| match given {
        0 => vec![Vec::new(); replicas * per_replica],
        _ => deal(&buffer[..rows_in_all * hidden * slots], slots, state),
    });
    let tasks = deal_mut(&mut dgates.real_mut()[..rows_in_all * steps * width], steps, row)
        .into_par_iter()
        .zip(deal_mut(&mut dc.real_mut()[..rows_in_all * hidden], 1, state))
        .zip(deal(&gates.real()[..rows_in_all * steps * width], steps, row))
        .zip(deal(&cs.real()[..rows_in_all * (steps + 1) * hidden], steps + 1, state))
        .zip(dy.into_par_iter().zip(dh_last).zip(dc_last))
        .enumerate();
    packed(vectors, (replicas, panels, width), fill, |packed| {
        let layers: Vec<&[f32]> = packed.chunks_exact(packed.len() / replicas).collect();
        tasks.for_each(|(i, ((((dgates, mut dc), gates), cs), ((dy, dh_last), dc_last)))| {
            let Some(dc) = dc.pop() else { return };
            let (weights, dh_last, dc_last) =
                (layers[i / per_replica], dh_last.first().copied(), dc_last.first().copied());
            let task = BackwardTask { sizes, weights, gates, cs, dy, dh_last, dc_last, dgates, dc };
            with_vectors!(vectors, s => walk::backward(s, task));
        });
    });
}
