//! States into and out of the slots of a sequence, and their gradients.

use fearless_simd::Simd;
use fearless_simd::prelude::*;
use tern_shaders::kernels::lstm::{State, StateBackward, gate_count};
use tern_shaders::{Arg, ReferenceFn};

use crate::cpu::isa::with_vectors;
use crate::cpu::parallel::{rows, rows2};
use crate::cpu::vector::{assign, lanes, load, rewrite, splat, store};

pub(in crate::cpu) static TABLE: &[(&str, ReferenceFn<f32>)] = &[
    ("lstm/state_load", load_state),
    ("lstm/state_store", store_state),
    ("lstm/state_backward", backward),
];

fn load_state(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &State = bytemuck::from_bytes(p);
    let [h, c, hs, cs] = args else { unreachable!("four bindings") };
    let (n, slots) = (p.n as usize, (p.steps as usize + 1) * p.n as usize);
    let (h, c) = (h.real(), c.real());
    for (r, (hs, cs)) in (0..replicas)
        .zip(hs.real_mut().chunks_exact_mut(slots).zip(cs.real_mut().chunks_exact_mut(slots)))
    {
        rows2((&mut hs[..n], 1), (&mut cs[..n], 1), 1, |first, hs, cs| {
            for (x, slot) in [(h, hs), (c, cs)] {
                if p.zero != 0 {
                    slot.fill(0.0);
                } else {
                    slot.copy_from_slice(&x[r * n + first..][..slot.len()]);
                }
            }
        });
    }
}

fn store_state(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &State = bytemuck::from_bytes(p);
    let [hs, cs, h, c] = args else { unreachable!("four bindings") };
    let (n, steps) = (p.n as usize, p.steps as usize);
    let (hs, cs) = (hs.real(), cs.real());
    for (r, (h, c)) in
        (0..replicas).zip(h.real_mut().chunks_exact_mut(n).zip(c.real_mut().chunks_exact_mut(n)))
    {
        rows2((h, 1), (c, 1), 1, |first, h, c| {
            for (slots, x) in [(hs, h), (cs, c)] {
                let from = (r * (steps + 1) + steps) * n + first;
                x.copy_from_slice(&slots[from..][..x.len()]);
            }
        });
    }
}

/// Vectors of sums side by side: enough to hide how long an addition takes.
const TOGETHER: usize = 8;

/// dh (+)= dgates · W_hh for one row of gates; weights are `[G·H, H]`.
#[inline(always)]
fn multiply<S: Simd>(s: S, dgates: &[f32], weights: &[f32], accumulate: bool, dh: &mut [f32]) {
    let (hidden, width) = (dh.len(), TOGETHER * lanes::<S>());
    let whole = hidden - hidden % width;
    for first in (0..whole).step_by(width) {
        let mut sums = [splat(s, 0.0); TOGETHER];
        for (gate, row) in dgates.iter().zip(weights.chunks_exact(hidden)) {
            let (gate, row) = (splat(s, *gate), &row[first..][..width]);
            for v in 0..TOGETHER {
                sums[v] = load::<S, S::f32s>(s, &row[v * lanes::<S>()..]).mul_add(gate, sums[v]);
            }
        }
        for v in 0..TOGETHER {
            let to = &mut dh[first + v * lanes::<S>()..];
            let old = if accumulate { load(s, to) } else { splat(s, 0.0) };
            store::<S, S::f32s>(to, old + sums[v]);
        }
    }
    let rest = &mut dh[whole..];
    if !accumulate {
        rest.fill(0.0);
    }
    if !rest.is_empty() {
        for (gate, row) in dgates.iter().zip(weights.chunks_exact(hidden)) {
            let gate = splat(s, *gate);
            rewrite(
                s,
                [&row[whole..]],
                [&mut *rest],
                #[inline(always)]
                |[w], [sum]| [w.mul_add(gate, sum)],
            );
        }
    }
}

fn backward(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &StateBackward = bytemuck::from_bytes(p);
    let [weights, dgates, dc, dh0, dc0] = args else { unreachable!("five bindings") };
    let (steps, batch, hidden) = (p.steps as usize, p.batch as usize, p.hidden as usize);
    let width = gate_count(p.cifg) * hidden;
    let (weights, dgates, dc) = (weights.real(), dgates.real(), dc.real());
    let all = replicas * batch * hidden;
    let dh0 = &mut dh0.real_mut()[..all];
    rows(dh0, hidden, width * hidden, |first, dh0| {
        for (row, dh0) in (first..).zip(dh0.chunks_exact_mut(hidden)) {
            let (r, b) = (row / batch, row % batch);
            let w = &weights[r * p.stride as usize + p.w_offset as usize..][..width * hidden];
            let dgates = &dgates[(r * steps * batch + b) * width..][..width];
            with_vectors!(s => multiply(s, dgates, w, p.accumulate_h != 0, dh0));
        }
    });
    rows(&mut dc0.real_mut()[..all], 1, 1, |first, dc0| {
        with_vectors!(s => assign(s, &dc[first..], p.accumulate_c != 0, dc0));
    });
}
