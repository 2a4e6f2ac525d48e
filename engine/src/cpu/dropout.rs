//! Dropout: elements in parallel. The mask is the twin's, bit for bit.

use tern_shaders::cpu::dropout::{Backward, Forward, kept};
use tern_shaders::{Arg, TwinFn, state};

use super::parallel::{put, rows};

pub(super) static TABLE: &[(&str, TwinFn<f32>)] =
    &[("dropout/forward", forward), ("dropout/backward", backward)];

/// Element visits that the hash of one element is worth.
const HASH: usize = 16;

fn forward(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Forward = bytemuck::from_bytes(p);
    let [x, state, y] = args else { unreachable!("three bindings") };
    let b = Backward {
        n: p.n,
        threshold: p.threshold,
        scale: p.scale,
        operation: p.operation,
        accumulate: 0,
    };
    masked(&b, replicas, x.real(), state.word(), y.real_mut());
}

fn backward(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Backward = bytemuck::from_bytes(p);
    let [dy, state, dx] = args else { unreachable!("three bindings") };
    masked(p, replicas, dy.real(), state.word(), dx.real_mut());
}

fn masked(p: &Backward, replicas: usize, x: &[f32], state: &[u32], y: &mut [f32]) {
    let n = p.n as usize;
    for r in 0..replicas {
        let record = &state[r * state::WORDS..][..state::WORDS];
        let x = &x[r * n..][..n];
        rows(&mut y[r * n..][..n], 1, HASH, |first, y| {
            for (i, y) in (first..).zip(y) {
                let keep = kept(record, p.operation, p.threshold, i as u32);
                put(y, if keep { p.scale * x[i] } else { 0.0 }, p.accumulate != 0);
            }
        });
    }
}
