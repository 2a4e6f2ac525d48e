//! Floats from words, and words from floats.

use fearless_simd::Simd;
use fearless_simd::prelude::*;
use tern_shaders::kernels::pointwise::Cast;
use tern_shaders::{Arg, ReferenceFn};

use crate::cpu::isa::with_vectors;
use crate::cpu::parallel::rows;
use crate::cpu::vector::{lanes, load, store};

pub(in crate::cpu) static TABLE: &[(&str, ReferenceFn<f32>)] =
    &[("pointwise/to_floats", to_floats), ("pointwise/to_words", to_words)];

#[inline(always)]
fn floats<S: Simd>(s: S, x: &[u32], y: &mut [f32]) {
    let (mut from, mut to) = (x.chunks_exact(lanes::<S>()), y.chunks_exact_mut(lanes::<S>()));
    for (x, y) in from.by_ref().zip(to.by_ref()) {
        store(y, load::<S, S::u32s>(s, x).to_float::<S::f32s>());
    }
    let rest = to.into_remainder().iter_mut().zip(from.remainder());
    rest.for_each(|(y, x)| *y = *x as f32);
}

#[inline(always)]
fn words<S: Simd>(s: S, x: &[f32], y: &mut [u32]) {
    let (mut from, mut to) = (x.chunks_exact(lanes::<S>()), y.chunks_exact_mut(lanes::<S>()));
    for (x, y) in from.by_ref().zip(to.by_ref()) {
        store(y, load::<S, S::f32s>(s, x).to_int_precise::<S::u32s>());
    }
    let rest = to.into_remainder().iter_mut().zip(from.remainder());
    rest.for_each(|(y, x)| *y = *x as u32);
}

fn to_floats(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Cast = bytemuck::from_bytes(p);
    let [x, y] = args else { unreachable!("two bindings") };
    let x = x.word();
    rows(&mut y.real_mut()[..replicas * p.n as usize], 1, 1, |first, y| {
        with_vectors!(s => floats(s, &x[first..][..y.len()], y));
    });
}

fn to_words(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Cast = bytemuck::from_bytes(p);
    let [x, y] = args else { unreachable!("two bindings") };
    let x = x.real();
    rows(&mut y.word_mut()[..replicas * p.n as usize], 1, 1, |first, y| {
        with_vectors!(s => words(s, &x[first..][..y.len()], y));
    });
}
