//! What the CPU can do at most, on all threads.

use fearless_simd::Simd;
use fearless_simd::prelude::*;
use tern_shaders::cpu::roof::{CHAINS, Copy, MultiplyAdd};
use tern_shaders::{Arg, TwinFn};

use super::isa::with_vectors;
use super::mixed::{get, map, set};
use super::parallel::rows;
use super::vector::{from_fn, lanes, splat};

pub(super) static TABLE: &[(&str, TwinFn<f32>)] =
    &[("roof/copy", copy), ("roof/multiply_add", multiply_add)];

fn copy(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Copy = bytemuck::from_bytes(p);
    let [x, y] = args else { unreachable!("two bindings") };
    let n = replicas * p.n as usize;
    let x = &x.real()[..n];
    rows(&mut y.real_mut()[..n], 1, 1, |first, y| {
        let x = &x[first..][..y.len()];
        with_vectors!(s => move_slice(s, x, y));
    });
}

#[inline(always)]
fn move_slice<S: Simd>(s: S, x: &[f32], y: &mut [f32]) {
    map(
        s,
        x,
        y,
        #[inline(always)]
        |x: S::f32s| x,
    );
}

fn multiply_add(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &MultiplyAdd = bytemuck::from_bytes(p);
    let [x, y] = args else { unreachable!("two bindings") };
    let n = replicas * p.n as usize;
    let x = &x.real()[..n];
    // An element visit is about 30 operations.
    let work = CHAINS[0] * CHAINS[1] * p.rounds as usize / 16;
    rows(&mut y.real_mut()[..n], 1, work, |first, y| {
        let x = &x[first..][..y.len()];
        with_vectors!(s => chains(s, p, x, y));
    });
}

/// Chains that are computed together: with factor and summand they fit the registers, and there
/// are enough of them that no multiply-add waits for the one before.
const TOGETHER: usize = 8;

/// An element a lane; a vector for each of its chains.
#[inline(always)]
fn chains<S: Simd>(s: S, p: &MultiplyAdd, x: &[f32], y: &mut [f32]) {
    let (factor, summand) = (splat(s, p.factor), splat(s, p.summand));
    let width = lanes::<S>();
    for (x, y) in x.chunks(width).zip(y.chunks_mut(width)) {
        let x: S::f32s = get(s, x, x.len());
        let mut sum = splat(s, 0.0);
        for first in (0..CHAINS[0] * CHAINS[1]).step_by(TOGETHER) {
            let mut v: [S::f32s; TOGETHER] = from_fn(
                #[inline(always)]
                |i| {
                    let (chain, number) = ((first + i) / CHAINS[1], (first + i) % CHAINS[1]);
                    x + chain as f32 + number as f32 * 0.25
                },
            );
            for _ in 0..p.rounds {
                for v in &mut v {
                    *v = v.mul_add(factor, summand);
                }
            }
            for v in v {
                sum += v;
            }
        }
        set(y, y.len(), sum);
    }
}
