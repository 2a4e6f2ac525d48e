//! Matrix products by the `gemm` crate.

use rayon::prelude::*;
use tern_shaders::cpu::matmul::Gemm;
use tern_shaders::{Activation, Arg, activate};

use crate::kernels::matmul::Order;

/// Multiplications below which a second thread costs more than it saves.
const WORTH_A_THREAD: usize = 1 << 21;

/// Elements below which the epilogue stays on one thread.
const WORTH_AN_EPILOGUE: usize = 1 << 14;

/// `matmul/nn`.
pub(super) fn nn(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    run(Order::Nn, p, replicas, args);
}

/// `matmul/nt`.
pub(super) fn nt(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    run(Order::Nt, p, replicas, args);
}

/// `matmul/tn`.
pub(super) fn tn(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    run(Order::Tn, p, replicas, args);
}

/// A matrix within a slice: where it starts and the strides of its rows and columns.
#[derive(Clone, Copy)]
struct View {
    at: usize,
    rows: usize,
    columns: usize,
}

impl View {
    /// One past the last word of an m × n matrix.
    fn end(self, m: usize, n: usize) -> usize {
        self.at + (m - 1) * self.rows + (n - 1) * self.columns + 1
    }
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
    let (m, n) = (p.m as usize, p.n as usize);
    let first = (split * p.part() as usize).min(p.k as usize);
    let k = (p.k as usize - first).min(p.part() as usize);
    let c_view = View { at: split * m * p.c_row as usize, rows: p.c_row as usize, columns: 1 };
    assert!(c_view.end(m, n) <= c.len(), "result out of its buffer");
    if k == 0 {
        if p.accumulate == 0 {
            c[c_view.at..].chunks_mut(c_view.rows).take(m).for_each(|row| row[..n].fill(0.0));
        }
        return;
    }
    let view = |offset: u32, stride: u32, row: u32, transposed: bool, along_rows: bool| {
        let row = row as usize;
        let (rows, columns) = if transposed { (1, row) } else { (row, 1) };
        let at = offset as usize + replica * stride as usize;
        View { at: at + first * if along_rows { rows } else { columns }, rows, columns }
    };
    let a_view = view(p.a_offset, p.a_stride, p.a_row, order == Order::Tn, false);
    let b_view = view(p.b_offset, p.b_stride, p.b_row, order == Order::Nt, true);
    assert!(
        a_view.end(m, k) <= a.len() && b_view.end(k, n) <= b.len(),
        "operand out of its buffer"
    );
    let parallelism = match threads {
        1 => gemm::Parallelism::None,
        threads => gemm::Parallelism::Rayon(threads),
    };
    // SAFETY: the three matrices lie within their slices, as asserted; `c` is borrowed mutably,
    // so that it overlaps neither of the others.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c[c_view.at..].as_mut_ptr(),
            c_view.columns as isize,
            c_view.rows as isize,
            p.accumulate != 0,
            a[a_view.at..].as_ptr(),
            a_view.columns as isize,
            a_view.rows as isize,
            b[b_view.at..].as_ptr(),
            b_view.columns as isize,
            b_view.rows as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
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
            row.iter_mut().for_each(|value| *value = activate(kind, *value));
        }
    };
    if threads > 1 && rows * n >= WORTH_AN_EPILOGUE {
        c.par_chunks_mut(p.c_row as usize).take(rows).with_min_len(16).for_each(finish);
    } else {
        c.chunks_mut(p.c_row as usize).take(rows).for_each(finish);
    }
}
