//! Matrix products of kernels: which products, on how many threads, and the epilogue.

use rayon::prelude::*;
use tern_shaders::kernels::matmul::{Gemm, Order};
use tern_shaders::{Activation, Arg, ReferenceFn};

use super::pointwise::activate;
use super::product::{View, multiply_on};

pub(super) static TABLE: &[(&str, ReferenceFn<f32>)] =
    &[("matmul/nn", nn), ("matmul/nt", nt), ("matmul/tn", tn)];

/// Multiplications below which a second thread costs more than it saves.
const WORTH_A_THREAD: usize = 1 << 20;

/// Elements below which the epilogue stays on one thread.
const WORTH_AN_EPILOGUE: usize = 1 << 14;

fn nn(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    run(Order::Nn, p, replicas, args);
}

pub(super) fn nt(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    run(Order::Nt, p, replicas, args);
}

fn tn(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    run(Order::Tn, p, replicas, args);
}

fn run(order: Order, p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Gemm = bytemuck::from_bytes(p);
    let [a, b, bias, c] = args else { unreachable!("four bindings") };
    let (a, b, bias, c) = (a.real(), b.real(), bias.real(), c.real_mut());
    let c = &mut c[p.c_offset as usize..];
    let work = p.m as usize * p.n as usize * p.k as usize;
    let one = |r: usize, c: &mut [f32], threads: usize| {
        for split in 0..p.splits as usize {
            product(order, p, (r, split), a, b, c, threads);
        }
        epilogue(p, r, bias, c, threads);
    };
    let threads = rayon::current_num_threads();
    if replicas == 1 {
        one(0, c, if work < WORTH_A_THREAD { 1 } else { threads });
    } else if work * replicas < WORTH_A_THREAD {
        c.chunks_mut(p.c_stride as usize)
            .take(replicas)
            .enumerate()
            .for_each(|(r, c)| one(r, c, 1));
    } else if replicas >= 2 * threads || work < WORTH_A_THREAD {
        let chunks = c.par_chunks_mut(p.c_stride as usize).take(replicas).enumerate();
        chunks.for_each(|(r, c)| one(r, c, 1));
    } else {
        let chunks = c.chunks_mut(p.c_stride as usize).take(replicas).enumerate();
        chunks.for_each(|(r, c)| one(r, c, threads));
    }
}

/// One product. `c` begins where the replica's result does.
fn product(
    order: Order,
    p: &Gemm,
    (replica, split): (usize, usize),
    a: &[f32],
    b: &[f32],
    c: &mut [f32],
    threads: usize,
) {
    let (m, n, row) = (p.m as usize, p.n as usize, p.c_row as usize);
    let first = (split * p.part() as usize).min(p.k as usize);
    let k = (p.k as usize - first).min(p.part() as usize);
    let c = &mut c[split * m * row..];
    if k == 0 {
        if p.accumulate == 0 {
            c.chunks_mut(row).take(m).for_each(|row| row[..n].fill(0.0));
        }
        return;
    }
    let start = |offset: u32, stride: u32, row: u32, along_rows: bool| {
        let skipped = first * if along_rows { row as usize } else { 1 };
        offset as usize + replica * stride as usize + skipped
    };
    let (transposed_a, transposed_b) = (order == Order::Tn, order == Order::Nt);
    let a = &a[start(p.a_offset, p.a_stride, p.a_row, transposed_a)..];
    let b = &b[start(p.b_offset, p.b_stride, p.b_row, !transposed_b)..];
    let a = match transposed_a {
        true => View::rows(a, k, m, p.a_row as usize).transposed(),
        false => View::rows(a, m, k, p.a_row as usize),
    };
    let b = match transposed_b {
        true => View::rows(b, n, k, p.b_row as usize).transposed(),
        false => View::rows(b, k, n, p.b_row as usize),
    };
    multiply_on(threads, c, row, p.accumulate != 0, a, b);
}

/// Adds the bias and activates, row by row.
fn epilogue(p: &Gemm, replica: usize, bias: &[f32], c: &mut [f32], threads: usize) {
    let kind = Activation::of(p.activation);
    if p.has_bias == 0 && kind == Activation::Identity {
        return;
    }
    let (rows, n) = (p.splits as usize * p.m as usize, p.n as usize);
    let first = p.bias_offset as usize + replica * p.bias_stride as usize;
    let bias = if p.has_bias != 0 { &bias[first..first + n] } else { &[] };
    let finish = |row: &mut [f32]| {
        let row = &mut row[..n];
        for (value, bias) in row.iter_mut().zip(bias) {
            *value += bias;
        }
        if kind != Activation::Identity {
            let mut sums = [0.0; 256];
            for part in row.chunks_mut(256) {
                sums[..part.len()].copy_from_slice(part);
                activate(kind, &sums[..part.len()], part);
            }
        }
    };
    if threads > 1 && rows * n >= WORTH_AN_EPILOGUE {
        c.par_chunks_mut(p.c_row as usize).take(rows).with_min_len(16).for_each(finish);
    } else {
        c.chunks_mut(p.c_row as usize).take(rows).for_each(finish);
    }
}
