//! Optimizers on the CPU: vectors, in chunks that are shared among the threads.

use fearless_simd::Simd;
use fearless_simd::prelude::*;
use rayon::prelude::*;
use tern_shaders::Arg;
use tern_shaders::kernels::optimizer::{
    Adam, Average, MeanOfParts, NORM_CHUNK, NormPartial, OVERFLOWN, Proximal, Sgd, SgdPlain,
};
use tern_shaders::state::{ACTIVE, RATE, WORDS, updates};

use super::Table;
use super::isa::with_vectors;
use super::vector::{put, rewrite, splat, sum};

/// Words that a thread takes at once.
const CHUNK: usize = 1 << 16;

pub(super) static TABLE: Table = &[
    ("optimizer/sgd_plain", sgd_plain),
    ("optimizer/sgd", sgd),
    ("optimizer/adam", adam),
    ("optimizer/amsgrad", amsgrad),
    ("optimizer/norm_partial", norm_partial),
    ("optimizer/proximal", proximal),
    ("optimizer/average", average),
    ("optimizer/mean_of_parts", mean_of_parts),
];

/// What every chunk of a replica's step needs.
struct Step {
    first: bool,
    steps: f32,
    rate: f32,
    scale: f32,
}

/// Replica `r`'s step, at a part of its learning rate, unless it rests.
fn step(
    state: &[u32],
    r: usize,
    rate: f32,
    (scale, clipped): (f32, u32),
    clip: &[f32],
) -> Option<Step> {
    let record = &state[r * WORDS..];
    (record[ACTIVE] != 0).then(|| Step {
        first: updates(record) == 0,
        steps: (updates(record) + 1) as f32,
        rate: rate * f32::from_bits(record[RATE]),
        scale: if clipped != 0 { scale * clip[r] } else { scale },
    })
}

/// Where a range lies in every replica's vector.
#[derive(Clone, Copy)]
struct Range {
    offset: u32,
    n: u32,
    stride: u32,
}

impl Range {
    fn within(self, r: usize, stride: u32) -> std::ops::Range<usize> {
        let start = r * stride as usize + self.offset as usize;
        start..start + self.n as usize
    }

    /// The range of replica `r`.
    fn of<'a>(&self, x: &'a [f32], r: usize) -> &'a [f32] {
        &x[self.within(r, self.stride)]
    }

    /// The range of each replica, to be written, with the replica's number.
    fn each(
        self,
        x: &mut [f32],
        replicas: usize,
    ) -> impl IndexedParallelIterator<Item = (usize, &mut [f32])> {
        let range = self.within(0, 0);
        let x = &mut x[..replicas * self.stride as usize];
        x.par_chunks_mut(self.stride as usize).map(move |x| &mut x[range.clone()]).enumerate()
    }
}

fn sgd_plain(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &SgdPlain = bytemuck::from_bytes(p);
    let [w, g, state, clip] = args else { unreachable!("four bindings") };
    let (g, state, clip) = (g.real(), state.word(), clip.real());
    let range = Range { offset: p.offset, n: p.n, stride: p.stride };
    range.each(w.real_mut(), replicas).for_each(|(r, w)| {
        let Some(Step { rate, scale, .. }) = step(state, r, p.rate, (p.scale, p.clipped), clip)
        else {
            return;
        };
        let g = range.of(g, r).par_chunks(CHUNK);
        w.par_chunks_mut(CHUNK).zip(g).for_each(|(w, g)| {
            with_vectors!(s => rewrite(
                s,
                [g],
                [w],
                #[inline(always)]
                |[g], [w]| [w - (g * scale + w * p.weight_decay) * rate],
            ));
        });
    });
}

fn sgd(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Sgd = bytemuck::from_bytes(p);
    let [w, g, m, state, clip] = args else { unreachable!("five bindings") };
    let (g, state, clip) = (g.real(), state.word(), clip.real());
    let range = Range { offset: p.offset, n: p.n, stride: p.stride };
    let m = range.each(m.real_mut(), replicas);
    range.each(w.real_mut(), replicas).zip(m).for_each(|((r, w), (_, m))| {
        let Some(step) = step(state, r, p.rate, (p.scale, p.clipped), clip) else { return };
        // w −= rate · (past · m + now · g) with the new m.
        let (past, now) = if p.nesterov != 0 { (p.momentum, 1.0) } else { (1.0, 0.0) };
        let fresh = if step.first { 1.0 } else { p.fresh };
        let g = range.of(g, r).par_chunks(CHUNK);
        let w = w.par_chunks_mut(CHUNK).zip(m.par_chunks_mut(CHUNK));
        w.zip(g).for_each(|((w, m), g)| {
            if step.first {
                m.fill(0.0);
            }
            with_vectors!(s => rewrite(
                s,
                [g],
                [w, m],
                #[inline(always)]
                |[g], [w, m]| {
                    let g = g * step.scale + w * p.weight_decay;
                    let m = m * p.momentum + g * fresh;
                    [w - (m * past + g * now) * step.rate, m]
                },
            ));
        });
    });
}

/// How Adam steps in one replica: w ← keep · w − rate · m / (√v · root + ε).
struct AdamStep {
    step: Step,
    rate: f32,
    root: f32,
    l2: f32,
    keep: f32,
}

impl AdamStep {
    /// That of replica `r`, unless it rests.
    fn new(p: &Adam, state: &[u32], clip: &[f32], r: usize) -> Option<Self> {
        let step = step(state, r, p.rate, (p.scale, p.clipped), clip)?;
        let rate = step.rate / -(step.steps * p.log_beta1).exp_m1();
        let root = 1.0 / (-(step.steps * p.log_beta2).exp_m1()).sqrt();
        let (l2, keep) = if p.decoupled != 0 {
            (0.0, 1.0 - step.rate * p.weight_decay)
        } else {
            (p.weight_decay, 1.0)
        };
        Some(AdamStep { step, rate, root, l2, keep })
    }

    /// The moments after the gradient `g` of parameters `w`.
    #[inline(always)]
    fn moments<S: Simd>(
        &self,
        s: S,
        p: &Adam,
        (w, g): (S::f32s, S::f32s),
        (m, v): (S::f32s, S::f32s),
    ) -> (S::f32s, S::f32s) {
        let g = g * self.step.scale + w * self.l2;
        let next = v + (g * g - v) * p.fresh2;
        // What is past the largest number stays there; ∞ − ∞ would be no number.
        let v = v.simd_ge(splat(s, OVERFLOWN)).select(v, next);
        (m + (g - m) * p.fresh1, v)
    }

    /// Parameters after a step along `m` by the second moment `v`.
    #[inline(always)]
    fn step<S: Simd>(&self, s: S, p: &Adam, w: S::f32s, m: S::f32s, v: S::f32s) -> S::f32s {
        let size = v.sqrt() * self.root + splat(s, p.epsilon);
        w * self.keep - m * self.rate / size
    }
}

fn adam(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Adam = bytemuck::from_bytes(p);
    let [w, g, m, v, state, clip] = args else { unreachable!("six bindings") };
    let (g, state, clip) = (g.real(), state.word(), clip.real());
    let range = Range { offset: p.offset, n: p.n, stride: p.stride };
    let m = range.each(m.real_mut(), replicas);
    let v = range.each(v.real_mut(), replicas);
    range.each(w.real_mut(), replicas).zip(m).zip(v).for_each(|(((r, w), (_, m)), (_, v))| {
        let Some(adam) = AdamStep::new(p, state, clip, r) else { return };
        let g = range.of(g, r).par_chunks(CHUNK);
        let m = m.par_chunks_mut(CHUNK).zip(v.par_chunks_mut(CHUNK));
        w.par_chunks_mut(CHUNK).zip(m).zip(g).for_each(|((w, (m, v)), g)| {
            if adam.step.first {
                m.fill(0.0);
                v.fill(0.0);
            }
            with_vectors!(s => rewrite(
                s,
                [g],
                [w, m, v],
                #[inline(always)]
                |[g], [w, m, v]| {
                    let (m, v) = adam.moments(s, p, (w, g), (m, v));
                    [adam.step(s, p, w, m, v), m, v]
                },
            ));
        });
    });
}

/// The larger of numbers that are not below zero, by their bits, which are in the order of the
/// numbers: one that is no number is the largest.
#[inline(always)]
fn larger<S: Simd>(_: S, a: S::f32s, b: S::f32s) -> S::f32s {
    a.bitcast::<S::u32s>().max(b.bitcast::<S::u32s>()).bitcast()
}

fn amsgrad(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Adam = bytemuck::from_bytes(p);
    let [w, g, m, v, state, clip, top] = args else { unreachable!("seven bindings") };
    let (g, state, clip) = (g.real(), state.word(), clip.real());
    let range = Range { offset: p.offset, n: p.n, stride: p.stride };
    let m = range.each(m.real_mut(), replicas);
    let v = range.each(v.real_mut(), replicas).zip(range.each(top.real_mut(), replicas));
    range.each(w.real_mut(), replicas).zip(m).zip(v).for_each(
        |(((r, w), (_, m)), ((_, v), (_, top)))| {
            let Some(adam) = AdamStep::new(p, state, clip, r) else { return };
            let g = range.of(g, r).par_chunks(CHUNK);
            let v = v.par_chunks_mut(CHUNK).zip(top.par_chunks_mut(CHUNK));
            let m = m.par_chunks_mut(CHUNK).zip(v);
            w.par_chunks_mut(CHUNK).zip(m).zip(g).for_each(|((w, (m, (v, top))), g)| {
                if adam.step.first {
                    m.fill(0.0);
                    v.fill(0.0);
                    top.fill(0.0);
                }
                with_vectors!(s => rewrite(
                    s,
                    [g],
                    [w, m, v, top],
                    #[inline(always)]
                    |[g], [w, m, v, top]| {
                        let (m, v) = adam.moments(s, p, (w, g), (m, v));
                        let top = larger(s, top, v);
                        [adam.step(s, p, w, m, top), m, v, top]
                    },
                ));
            });
        },
    );
}

fn norm_partial(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &NormPartial = bytemuck::from_bytes(p);
    let [g, partial] = args else { unreachable!("two bindings") };
    let (g, partial) = (g.real(), partial.real_mut());
    let range = Range { offset: p.offset, n: p.n, stride: p.stride };
    for r in 0..replicas {
        let chunks = range.of(g, r).par_chunks(NORM_CHUNK as usize);
        let to = r * p.partial_stride as usize + p.partial_offset as usize;
        let partial = &mut partial[to..][..chunks.len()];
        partial.par_iter_mut().zip(chunks).for_each(|(partial, chunk)| {
            *partial = with_vectors!(s => sum(
                s,
                [chunk],
                #[inline(always)]
                |[g]| g * g,
            ));
        });
    }
}

fn proximal(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Proximal = bytemuck::from_bytes(p);
    let [w, reference, g] = args else { unreachable!("three bindings") };
    let (w, reference) = (w.real(), reference.real());
    let range = Range { offset: p.offset, n: p.n, stride: p.stride };
    range.each(g.real_mut(), replicas).for_each(|(r, g)| {
        let w = range.of(w, r).par_chunks(CHUNK);
        let anchor = reference[range.within(r, p.reference_stride)].par_chunks(CHUNK);
        g.par_chunks_mut(CHUNK).zip(w).zip(anchor).for_each(|((g, w), anchor)| {
            with_vectors!(s => put(
                s,
                [w, anchor],
                true,
                g,
                #[inline(always)]
                |[w, anchor]| (w - anchor) * p.mu,
            ));
        });
    });
}

fn average(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Average = bytemuck::from_bytes(p);
    let [w, average, state] = args else { unreachable!("three bindings") };
    let (w, state) = (w.real(), state.word());
    let range = Range { offset: p.offset, n: p.n, stride: p.stride };
    range.each(average.real_mut(), replicas).for_each(|(r, average)| {
        let record = &state[r * WORDS..];
        if record[ACTIVE] == 0 {
            return;
        }
        let w = range.of(w, r);
        if updates(record) == 0 {
            return average.copy_from_slice(w);
        }
        average.par_chunks_mut(CHUNK).zip(w.par_chunks(CHUNK)).for_each(|(average, w)| {
            with_vectors!(s => rewrite(
                s,
                [w],
                [average],
                #[inline(always)]
                |[w], [old]| [(w - old) * p.fresh + old],
            ));
        });
    });
}

fn mean_of_parts(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &MeanOfParts = bytemuck::from_bytes(p);
    let [count, x] = args else { unreachable!("two bindings") };
    let count = count.real();
    let range = Range { offset: p.offset, n: p.n, stride: p.stride };
    range.each(x.real_mut(), replicas).for_each(|(r, x)| {
        if count[r] == 0.0 {
            return x.fill(0.0);
        }
        x.par_chunks_mut(CHUNK).for_each(|x| {
            with_vectors!(s => rewrite(
                s,
                [],
                [x],
                #[inline(always)]
                |[], [x]| [x / splat(s, count[r])],
            ));
        });
    });
}
