//! What the CPU can do at most, on all threads.

use rayon::prelude::*;
use tern_shaders::cpu::roof::{CHAINS, Copy, MultiplyAdd};
use tern_shaders::{Arg, TwinFn};

use super::parallel::rows;

pub(super) static TABLE: &[(&str, TwinFn<f32>)] =
    &[("roof/copy", copy), ("roof/multiply_add", multiply_add)];

fn copy(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Copy = bytemuck::from_bytes(p);
    let [x, y] = args else { unreachable!("two bindings") };
    let n = replicas * p.n as usize;
    let (x, y) = (&x.real()[..n], &mut y.real_mut()[..n]);
    let part = n.div_ceil(rayon::current_num_threads()).max(1 << 14);
    y.par_chunks_mut(part).zip(x.par_chunks(part)).for_each(|(y, x)| y.copy_from_slice(x));
}

fn multiply_add(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &MultiplyAdd = bytemuck::from_bytes(p);
    let [x, y] = args else { unreachable!("two bindings") };
    let n = replicas * p.n as usize;
    let x = &x.real()[..n];
    // An element visit is about 30 operations.
    let work = CHAINS[0] * CHAINS[1] * p.rounds as usize / 16;
    rows(&mut y.real_mut()[..n], 1, work, |first, y| chains(p, &x[first..][..y.len()], y));
}

/// Elements computed together: with the numbers of a chain, a vector of 16.
const TOGETHER: usize = 4;
const WIDTH: usize = TOGETHER * CHAINS[1];

/// Multiplies and adds in one instruction where the caller is compiled for it. All chains lie in
/// one array: then the loop over it becomes vectors that stay in registers.
#[inline(always)]
fn all<const FUSED: bool>(p: &MultiplyAdd, x: &[f32], y: &mut [f32]) {
    for (x, y) in x.chunks(TOGETHER).zip(y.chunks_mut(TOGETHER)) {
        let mut all = [0f32; CHAINS[0] * WIDTH];
        for (i, v) in all.iter_mut().enumerate() {
            let (chain, number) = (i / WIDTH, i % CHAINS[1]);
            let x = x.get(i % WIDTH / CHAINS[1]).copied().unwrap_or(0.0);
            *v = x + chain as f32 + number as f32 * 0.25;
        }
        for _ in 0..p.rounds {
            for v in &mut all {
                *v = if FUSED { v.mul_add(p.factor, p.summand) } else { *v * p.factor + p.summand };
            }
        }
        for (i, y) in y.iter_mut().enumerate() {
            let own = |v: &[f32]| v[i * CHAINS[1]..][..CHAINS[1]].iter().sum::<f32>();
            *y = all.chunks(WIDTH).map(own).sum();
        }
    }
}

fn chains(p: &MultiplyAdd, x: &[f32], y: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,fma")]
        fn avx512(p: &MultiplyAdd, x: &[f32], y: &mut [f32]) {
            all::<true>(p, x, y);
        }
        #[target_feature(enable = "avx2,fma")]
        fn avx2(p: &MultiplyAdd, x: &[f32], y: &mut [f32]) {
            all::<true>(p, x, y);
        }
        let fused = std::arch::is_x86_feature_detected!("fma");
        if fused && std::arch::is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has the features that the function is compiled for.
            return unsafe { avx512(p, x, y) };
        }
        if fused && std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return unsafe { avx2(p, x, y) };
        }
    }
    // Other processors have the instruction in their baseline, or not at all.
    all::<{ cfg!(target_arch = "aarch64") }>(p, x, y);
}
