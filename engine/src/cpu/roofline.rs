//! What the CPU can do at most, on all threads.

use fearless_simd::Simd;
use fearless_simd::prelude::*;
use tern_shaders::kernels::roofline::{CHAINS, Copy, MultiplyAdd};
use tern_shaders::{Arg, ReferenceFn};

use super::isa::with_vectors;
use super::mixed::{get, set};
use super::parallel::rows;
use super::vector::{from_fn, lanes, splat};

pub(super) static TABLE: &[(&str, ReferenceFn<f32>)] =
    &[("roofline/copy", copy), ("roofline/multiply_add", multiply_add)];

fn copy(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Copy = bytemuck::from_bytes(p);
    let [x, y] = args else { unreachable!("two bindings") };
    let n = replicas * p.n as usize;
    let x = &x.real()[..n];
    rows(&mut y.real_mut()[..n], 1, 1, |first, y| stream(&x[first..][..y.len()], y));
}

/// y = x past the caches: memory that is overwritten isn't read before. Twice as fast as other
/// stores where the caches are too small, and as fast by vectors of four as by wider ones.
#[cfg(target_arch = "x86_64")]
fn stream(x: &[f32], y: &mut [f32]) {
    use std::arch::x86_64::{__m128, _mm_loadu_ps, _mm_sfence, _mm_stream_ps};

    // SAFETY: any bits are floats.
    let (first, vectors, last) = unsafe { y.align_to_mut::<__m128>() };
    let (x, last_x) = x.split_at(x.len() - last.len());
    let (first_x, x) = x.split_at(first.len());
    first.copy_from_slice(first_x);
    for (y, x) in vectors.iter_mut().zip(x.as_chunks::<4>().0) {
        // SAFETY: every processor of the architecture has the instructions, `y` is aligned.
        unsafe { _mm_stream_ps(std::ptr::from_mut(y).cast(), _mm_loadu_ps(x.as_ptr())) }
    }
    last.copy_from_slice(last_x);
    // SAFETY: as above. Such stores are ordered by it alone.
    unsafe { _mm_sfence() }
}

#[cfg(not(target_arch = "x86_64"))]
fn stream(x: &[f32], y: &mut [f32]) {
    y.copy_from_slice(x);
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

#[cfg(test)]
mod tests {
    use super::super::isa::Isa;
    use super::*;

    #[test]
    fn copies_start_and_end_anywhere() {
        let x: Vec<f32> = (0..40).map(|i| i as f32).collect();
        for start in 0..5 {
            for end in start..40 {
                let mut y = vec![-1.0; 40];
                stream(&x[start..end], &mut y[start..end]);
                let inside = |i: &usize| (start..end).contains(i);
                let expected: Vec<f32> =
                    (0..40).map(|i| if inside(&i) { x[i] } else { -1.0 }).collect();
                assert_eq!(y, expected);
            }
        }
    }

    #[test]
    fn chains_of_every_instruction_set_equal_the_reference() {
        let p = MultiplyAdd { n: 19, rounds: 16, factor: 0.5, summand: 1.0 };
        let x: Vec<f32> = (0..19).map(|i| i as f32).collect();
        let mut expected = vec![0.0; 19];
        tern_shaders::kernels::roofline::multiply_add(&p, 1, &x, &mut expected);
        for isa in Isa::available() {
            let mut y = vec![9.0; 19];
            with_vectors!(isa.level().unwrap(), s => chains(s, &p, &x, &mut y));
            for (y, expected) in y.iter().zip(&expected) {
                assert!((y - expected).abs() < 1e-4, "{isa}: {y}, expected {expected}");
            }
        }
    }
}
