//! Reductions in vector registers, and in parallel where there is enough to do.

use rayon::prelude::*;
use tern_shaders::cpu::reduce::{Columns, Rows, Sum};
use tern_shaders::{Arg, TwinFn};

use super::vmath::vectorized;

pub(super) static TABLE: &[(&str, TwinFn<f32>)] =
    &[("reduce/columns", columns), ("reduce/rows", rows), ("reduce/sum", sum)];

/// Elements below which a second thread costs more than it saves.
const WORTH_A_THREAD: usize = 1 << 16;

/// Rows summed before they are added to the total: rounding errors grow with a chain's length.
const BLOCK: usize = 32;

/// Columns of one task.
const STRIP: usize = 256;

/// Calls `task` for each chunk of `length` words, on several threads if `work` is worth them.
fn chunks(words: &mut [f32], length: usize, work: usize, task: impl Fn(usize, &mut [f32]) + Sync) {
    if work < WORTH_A_THREAD {
        words.chunks_mut(length).enumerate().for_each(|(i, chunk)| task(i, chunk));
    } else {
        words.par_chunks_mut(length).enumerate().for_each(|(i, chunk)| task(i, chunk));
    }
}

vectorized! {
    /// out (+)= sums of the columns of `x` from `first` on; at most [`STRIP`] of them.
    fn sum_strip(x: &[f32], columns: usize, first: usize, accumulate: bool, out: &mut [f32]) {
        let mut total = [0.0; STRIP];
        for block in x.chunks(BLOCK * columns) {
            let mut sum = [0.0; STRIP];
            for row in block.chunks_exact(columns) {
                let row = &row[first..][..out.len()];
                sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
            }
            total.iter_mut().zip(sum).for_each(|(total, sum)| *total += sum);
        }
        for (out, total) in out.iter_mut().zip(total) {
            *out = if accumulate { *out + total } else { total };
        }
    }
}

fn columns(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Columns = bytemuck::from_bytes(p);
    let [x, out] = args else { unreachable!("two bindings") };
    let (x, out) = (x.real(), out.real_mut());
    let (rows, columns, parts) = (p.rows as usize, p.columns as usize, p.parts as usize);
    let length = rows.div_ceil(parts);
    for r in 0..replicas {
        let x = &x[r * rows * columns..][..rows * columns];
        let out = &mut out[p.out_offset as usize + r * p.out_stride as usize..][..parts * columns];
        for (part, out) in out.chunks_mut(columns).enumerate() {
            let x = &x[rows.min(part * length) * columns..rows.min((part + 1) * length) * columns];
            chunks(out, STRIP, x.len(), |strip, out| {
                sum_strip(x, columns, strip * STRIP, p.accumulate != 0, out);
            });
        }
    }
}

vectorized! {
/// Σ in 16 chains that are closed every 512 elements.
fn sum_of(x: &[f32]) -> f32 {
    let mut total = [0.0; 16];
    for block in x.chunks(16 * BLOCK) {
        let mut sum = [0.0; 16];
        let (lines, rest) = block.as_chunks::<16>();
        for line in lines {
            sum.iter_mut().zip(line).for_each(|(sum, x)| *sum += x);
        }
        sum.iter_mut().zip(rest).for_each(|(sum, x)| *sum += x);
        total.iter_mut().zip(sum).for_each(|(total, sum)| *total += sum);
    }
    total.iter().sum()
}
}

vectorized! {
/// Largest element, in 16 chains.
fn max_of(x: &[f32]) -> f32 {
    let mut max = [x[0]; 16];
    let (lines, rest) = x.as_chunks::<16>();
    for line in lines {
        max.iter_mut().zip(line).for_each(|(max, x)| *max = max.max(*x));
    }
    max.iter().chain(rest).copied().fold(x[0], f32::max)
}
}

fn rows(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Rows = bytemuck::from_bytes(p);
    let [x, out] = args else { unreachable!("two bindings") };
    let (x, out) = (x.real(), out.real_mut());
    let columns = p.columns as usize;
    let out = &mut out[..replicas * p.rows as usize];
    let length = (WORTH_A_THREAD / columns).max(1);
    chunks(out, length, x.len(), |chunk, out| {
        let rows = x[chunk * length * columns..].chunks_exact(columns);
        for (out, row) in out.iter_mut().zip(rows) {
            *out = match p.kind {
                1 => max_of(row),
                2 => sum_of(row) / columns as f32,
                _ => sum_of(row),
            };
        }
    });
}

fn sum(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Sum = bytemuck::from_bytes(p);
    let [x, out] = args else { unreachable!("two bindings") };
    let (x, out) = (x.real(), out.real_mut());
    let (n, parts) = (p.n as usize, p.parts as usize);
    let length = n.div_ceil(parts);
    let out = &mut out[..replicas * parts];
    chunks(out, 1, x.len(), |i, out| {
        let (r, part) = (i / parts, i % parts);
        let x = &x[r * n..][n.min(part * length)..n.min((part + 1) * length)];
        out[0] = p.scale * sum_of(x);
    });
}
