//! Fast differences and scaling of updates: chunks that the compiler turns into vectors.

use rayon::prelude::*;
use tern_shaders::Arg;
use tern_shaders::cpu::update::{Difference, Rescale};

use super::Table;

/// Elements that a thread takes at once.
const CHUNK: usize = 1 << 14;

pub(super) static TABLE: Table = &[("update/difference", difference), ("update/rescale", rescale)];

fn difference(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Difference = bytemuck::from_bytes(p);
    let [x, base, y] = args else { unreachable!("three bindings") };
    let n = p.n as usize;
    let base = &base.real()[..n];
    let rows = y.real_mut()[..replicas * n].par_chunks_mut(n).zip(x.real().par_chunks(n));
    rows.for_each(|(y, x)| {
        let x = x.par_chunks(CHUNK).zip(base.par_chunks(CHUNK));
        y.par_chunks_mut(CHUNK).zip(x).for_each(|(y, (x, base))| {
            for ((y, x), base) in y.iter_mut().zip(x).zip(base) {
                *y = x - base;
            }
        });
    });
}

fn rescale(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Rescale = bytemuck::from_bytes(p);
    let [scalar, x] = args else { unreachable!("two bindings") };
    let n = p.n as usize;
    let rows = x.real_mut()[..replicas * n].par_chunks_mut(n).zip(scalar.real());
    rows.for_each(|(x, scalar)| {
        x.par_chunks_mut(CHUNK).for_each(|x| x.iter_mut().for_each(|x| *x *= scalar));
    });
}
