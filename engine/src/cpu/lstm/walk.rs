//! Some rows of a batch through all time steps.
//!
//! A micro-kernel multiplies a few rows by a panel of the weights, its sums in registers. Within
//! a step a task takes panel by panel, and of each panel all its rows: weights come from
//! memory once a step, whatever the batch.

use fearless_simd::Simd;
use fearless_simd::prelude::*;

use super::{Cell, MAX_ROWS, Sizes, VECTORS};
use crate::cpu::mixed::{get, set};
use crate::cpu::vector::{from_fn, inlined, lanes, load, sigmoid, splat, tanh};

/// Slices a step, of a task's rows, and the layer's packed weights. `hs` and `cs` have one slot
/// more than there are steps.
pub(super) struct ForwardTask<'a> {
    pub sizes: Sizes,
    pub weights: &'a [f32],
    pub bias: &'a [f32],
    pub hs: Vec<&'a mut [f32]>,
    pub cs: Vec<&'a mut [f32]>,
    pub y: Vec<&'a mut [f32]>,
    pub gates: Vec<&'a mut [f32]>,
}

/// As [`ForwardTask`]; `dy` is empty if there is no gradient of the outputs.
pub(super) struct BackwardTask<'a> {
    pub sizes: Sizes,
    pub weights: &'a [f32],
    pub gates: Vec<&'a [f32]>,
    pub cs: Vec<&'a [f32]>,
    pub dy: Vec<&'a [f32]>,
    pub dh_last: Option<&'a [f32]>,
    pub dc_last: Option<&'a [f32]>,
    pub dgates: Vec<&'a mut [f32]>,
    pub dc: &'a mut [f32],
}

/// Sums of a few rows over a panel.
pub(crate) type Sums<S> = [[<S as Simd>::f32s; VECTORS]; MAX_ROWS];

/// Rows `first..first + rows` of a task, for one run of the micro-kernel.
#[derive(Clone, Copy)]
pub(crate) struct Group {
    pub first: usize,
    pub rows: usize,
}

/// Cuts rows into groups as even as can be.
pub(crate) fn groups(rows: usize) -> impl Iterator<Item = Group> + Clone {
    let count = rows.div_ceil(MAX_ROWS).max(1);
    (0..count).map(move |i| {
        let first = i * rows / count;
        Group { first, rows: (i + 1) * rows / count - first }
    })
}

/// sums[r] = Σ_k x[r][k] · panel[k], `V` vectors of the panel at a time: their sums for all rows,
/// the vectors and a factor fit the registers. Rows of `x` are `depth` long.
#[inline(always)]
fn multiply<S: Simd, const R: usize, const V: usize>(
    s: S,
    panel: &[f32],
    x: &[f32],
    depth: usize,
    all: &mut Sums<S>,
) {
    let row = VECTORS * lanes::<S>();
    let x: [&[f32]; R] = from_fn(
        #[inline(always)]
        |r| &x[r * depth..][..depth],
    );
    for part in 0..VECTORS / V {
        let mut sums = [[splat(s, 0.0); V]; R];
        for (k, weights) in (0..depth).zip(panel.chunks_exact(row)) {
            let weights: [S::f32s; V] = from_fn(
                #[inline(always)]
                |v| load(s, &weights[(part * V + v) * lanes::<S>()..]),
            );
            for r in 0..R {
                let factor = splat(s, x[r][k]);
                for v in 0..V {
                    sums[r][v] = weights[v].mul_add(factor, sums[r][v]);
                }
            }
        }
        for r in 0..R {
            all[r][part * V..][..V].copy_from_slice(&sums[r]);
        }
    }
}

/// [`multiply`] for a group: of one or two rows it takes all vectors at a time, sums enough to
/// hide how long an addition takes; of more as many as the registers hold.
#[inline(always)]
fn multiply_group<S: Simd>(
    s: S,
    panel: &[f32],
    x: &[f32],
    (group, depth): (Group, usize),
    sums: &mut Sums<S>,
) {
    let x = &x[group.first * depth..];
    // 32 registers, or 16.
    let many = lanes::<S>() == 16 || cfg!(target_arch = "aarch64");
    match (group.rows, many) {
        (1, _) => multiply::<S, 1, 4>(s, panel, x, depth, sums),
        (2, _) => multiply::<S, 2, 4>(s, panel, x, depth, sums),
        (3, true) => multiply::<S, 3, 4>(s, panel, x, depth, sums),
        (4, true) => multiply::<S, 4, 4>(s, panel, x, depth, sums),
        (5, true) => multiply::<S, 5, 4>(s, panel, x, depth, sums),
        (6, true) => multiply::<S, 6, 4>(s, panel, x, depth, sums),
        (3, false) => multiply::<S, 3, 2>(s, panel, x, depth, sums),
        (4, false) => multiply::<S, 4, 2>(s, panel, x, depth, sums),
        (5, false) => multiply::<S, 5, 2>(s, panel, x, depth, sums),
        (6, false) => multiply::<S, 6, 2>(s, panel, x, depth, sums),
        (rows, _) => unreachable!("a group of {rows} rows"),
    }
}

/// [`multiply_group`] as a function of its own: its sums need the registers that what is around
/// it would keep constants in.
#[inline(always)]
pub(crate) fn separate<S: Simd>(
    s: S,
    panel: &[f32],
    x: &[f32],
    group: (Group, usize),
    sums: &mut Sums<S>,
) {
    s.vectorize(
        #[inline(always)]
        || multiply_group(s, panel, x, group, sums),
    );
}

/// A task's rows forward through all steps.
#[inline(always)]
pub(super) fn forward<S: Simd>(s: S, task: ForwardTask<'_>) {
    let ForwardTask { sizes, weights, bias, mut hs, mut cs, mut y, mut gates } = task;
    let (hidden, width) = (sizes.hidden, sizes.width());
    let (l, row) = (lanes::<S>(), VECTORS * lanes::<S>());
    let rows = hs[0].len() / hidden;
    let (one, coupled) = (splat(s, 1.0), sizes.cell == Cell::Coupled);
    let mut sums = [[splat(s, 0.0); VECTORS]; MAX_ROWS];
    for t in 0..sizes.steps {
        let [before, after] = &mut hs[t..t + 2] else { return };
        let [old_cells, cells] = &mut cs[t..t + 2] else { return };
        for (p, panel) in weights.chunks_exact(hidden * row).enumerate() {
            let first = p * l;
            let n = l.min(hidden - first);
            for group in groups(rows) {
                separate(s, panel, before, (group, hidden), &mut sums);
                for (r, sums) in (group.first..).zip(&sums[..group.rows]) {
                    let row = &mut gates[t][r * width + first..(r + 1) * width];
                    let at = r * hidden + first;
                    let pre = from_fn::<_, VECTORS>(
                        #[inline(always)]
                        |v| match sizes.gate(v) {
                            Some(gate) => {
                                sums[v]
                                    + get::<S, S::f32s>(s, &bias[gate + first..], n)
                                    + get::<S, S::f32s>(s, &row[gate..], n)
                            }
                            None => sums[v],
                        },
                    );
                    let i = sigmoid(s, pre[0]);
                    let f = if coupled { one - i } else { sigmoid(s, pre[1]) };
                    let (g, o) = (tanh(s, pre[2]), sigmoid(s, pre[3]));
                    let c = f.mul_add(get::<S, S::f32s>(s, &old_cells[at..], n), i * g);
                    let h = o * tanh(s, c);
                    let activated = [i, f, g, o];
                    for v in 0..VECTORS {
                        if let Some(at) = sizes.gate(v) {
                            set(&mut row[at..], n, activated[v]);
                        }
                    }
                    set(&mut cells[at..], n, c);
                    set(&mut after[at..], n, h);
                    set(&mut y[t][at..], n, h);
                }
            }
        }
    }
}

/// A task's rows backward through all steps.
#[inline(always)]
pub(super) fn backward<S: Simd>(s: S, mut task: BackwardTask<'_>) {
    let (hidden, width) = (task.sizes.hidden, task.sizes.width());
    let row = VECTORS * lanes::<S>();
    let rows = task.dc.len() / hidden;
    match task.dc_last {
        Some(last) => task.dc.copy_from_slice(last),
        None => task.dc.fill(0.0),
    }
    let mut sums = [[splat(s, 0.0); VECTORS]; MAX_ROWS];
    let weights = task.weights;
    for t in (0..task.sizes.steps).rev() {
        let last = t + 1 == task.sizes.steps;
        for (p, panel) in weights.chunks_exact(width * row).enumerate() {
            for group in groups(rows) {
                if !last {
                    let after = &task.dgates[t + 1];
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

/// The gradients of a vector of units, the first of which is `first`, of row `r` at step `t`.
/// `dh` is what comes from the step after; the last step has none.
#[inline(always)]
fn backward_units<S: Simd>(
    s: S,
    task: &mut BackwardTask<'_>,
    t: usize,
    (r, first): (usize, usize),
    mut dh: S::f32s,
) {
    let sizes = task.sizes;
    let (hidden, width) = (sizes.hidden, sizes.width());
    let n = lanes::<S>().min(hidden - first);
    let at = r * hidden + first;
    let (one, coupled) = (splat(s, 1.0), sizes.cell == Cell::Coupled);
    let above = task.dh_last.filter(
        #[inline(always)]
        |_| t + 1 == sizes.steps,
    );
    for upstream in [above, task.dy.get(t).copied()].into_iter().flatten() {
        dh += get::<S, S::f32s>(s, &upstream[at..], n);
    }
    let row = &task.gates[t][r * width + first..(r + 1) * width];
    let gate = inlined(
        #[inline(always)]
        |v| match sizes.gate(v) {
            Some(at) => get(s, &row[at..], n),
            None => splat(s, 0.0),
        },
    );
    let (i, g, o) = (gate(0), gate(2), gate(3));
    let f = if coupled { one - i } else { gate(1) };
    let old: S::f32s = get(s, &task.cs[t][at..], n);
    let squashed = tanh(s, get(s, &task.cs[t + 1][at..], n));
    let d = (dh * o).mul_add(one - squashed * squashed, get::<S, S::f32s>(s, &task.dc[at..], n));
    let other = if coupled { g - old } else { g };
    let gradients = [
        d * other * i * (one - i),
        d * old * f * (one - f),
        d * i * (one - g * g),
        dh * squashed * o * (one - o),
    ];
    set(&mut task.dc[at..], n, d * f);
    let row = &mut task.dgates[t][r * width..(r + 1) * width];
    for v in 0..VECTORS {
        if let Some(gate) = sizes.gate(v) {
            set(&mut row[gate + first..], n, gradients[v]);
        }
    }
}
