//! Fast differences and scaling of updates.

use tern_shaders::Arg;
use tern_shaders::kernels::update::{Difference, Rescale};

use super::Table;
use super::isa::with_vectors;
use super::parallel::rows;
use super::vector::{put, rewrite};

pub(super) static TABLE: Table = &[("update/difference", difference), ("update/rescale", rescale)];

fn difference(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Difference = bytemuck::from_bytes(p);
    let [x, base, y] = args else { unreachable!("three bindings") };
    let n = p.n as usize;
    let base = &base.real()[..n];
    let y = y.real_mut()[..replicas * n].chunks_mut(n);
    for (y, x) in y.zip(x.real().chunks(n)) {
        rows(y, 1, 1, |first, y| {
            with_vectors!(s => put(
                s,
                [&x[first..], &base[first..]],
                false,
                y,
                #[inline(always)]
                |[x, base]| x - base,
            ));
        });
    }
}

fn rescale(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Rescale = bytemuck::from_bytes(p);
    let [scalar, x] = args else { unreachable!("two bindings") };
    let n = p.n as usize;
    for (x, scalar) in x.real_mut()[..replicas * n].chunks_mut(n).zip(scalar.real()) {
        rows(x, 1, 1, |_, x| {
            with_vectors!(s => rewrite(
                s,
                [],
                [x],
                #[inline(always)]
                |[], [x]| [x * *scalar],
            ));
        });
    }
}
