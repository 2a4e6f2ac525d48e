//! Dropout: elements in parallel, a vector of random numbers at a time. The mask is the reference's,
//! bit for bit.

use fearless_simd::Simd;
use fearless_simd::prelude::*;
use tern_shaders::kernels::dropout::{Backward, Forward};
use tern_shaders::{Arg, ReferenceFn, state};

use super::isa::with_vectors;
use super::parallel::rows;
use super::random::pcg4d;
use super::vector::{MAX_LANES, inlined, lanes, load, load_part, splat, store, store_part};

pub(super) static TABLE: &[(&str, ReferenceFn<f32>)] =
    &[("dropout/forward", forward), ("dropout/backward", backward)];

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
        rows(&mut y[r * n..][..n], 1, 4, |first, y| {
            let x = &x[first..][..y.len()];
            with_vectors!(s => mask(s, p, record, first as u32, x, y));
        });
    }
}

/// y (+)= scale · x where kept, else 0, of elements from number `first` on.
#[inline(always)]
fn mask<S: Simd>(s: S, p: &Backward, record: &[u32], first: u32, x: &[f32], y: &mut [f32]) {
    let width = lanes::<S>();
    let word = inlined(
        #[inline(always)]
        |k: u32| S::u32s::splat(s, k),
    );
    let key = [record[state::STEP], p.operation, record[state::SEED]].map(word);
    let (threshold, scale, zero) = (word(p.threshold), splat(s, p.scale), splat(s, 0.0));
    let mut numbers = [0; MAX_LANES];
    numbers.iter_mut().zip(first..).for_each(|(to, number)| *to = number);
    let mut number: S::u32s = load(s, &numbers);
    let kept = inlined(
        #[inline(always)]
        |number: S::u32s, x: S::f32s, y: S::f32s| {
            let [step, operation, seed] = key;
            let [random, ..] = pcg4d::<S>([number, step, operation, seed]);
            let kept = random.simd_ge(threshold).select(x * scale, zero);
            if p.accumulate != 0 { y + kept } else { kept }
        },
    );
    let (xs, ys) = (x.chunks_exact(width), y.chunks_exact_mut(width));
    let rest = xs.remainder();
    for (x, y) in xs.zip(ys) {
        let kept = kept(number, load(s, x), load(s, y));
        store(y, kept);
        number += width as u32;
    }
    if !rest.is_empty() {
        let n = rest.len();
        let last = &mut y[x.len() - n..];
        let kept = kept(number, load_part(s, rest, n, 0.0), load_part(s, last, n, 0.0));
        store_part(last, n, kept);
    }
}
