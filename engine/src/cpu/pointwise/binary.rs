//! Sums, differences and products with a right operand that is repeated.

use std::borrow::Cow;
use std::ops::Range;

use fearless_simd::Simd;
use tern_shaders::kernels::pointwise::{
    Binary, BinaryBackwardLeft, BinaryBackwardRight, BinaryForward,
};
use tern_shaders::{Arg, ReferenceFn};

use crate::cpu::isa::with_vectors;
use crate::cpu::parallel::rows;
use crate::cpu::reduce::column_sums;
use crate::cpu::vector::{assign, put, rewrite};

pub(in crate::cpu) static TABLE: &[(&str, ReferenceFn<f32>)] = &[
    ("pointwise/binary_forward", forward),
    ("pointwise/binary_backward_left", backward_left),
    ("pointwise/binary_backward_right", backward_right),
];

/// Elements below which a right operand is written out several times, so that vectors run on.
const LONG: usize = 2048;

/// Right operands of all replicas, each for a run of `period` elements of its replica's `n`.
struct Repeated<'a> {
    b: Cow<'a, [f32]>,
    n: usize,
    period: usize,
}

impl<'a> Repeated<'a> {
    fn new(b: &'a [f32], n: u32, period: u32) -> Self {
        let (n, period) = (n as usize, period as usize);
        if period >= LONG || period >= n {
            return Repeated { b: b.into(), n, period };
        }
        let times = LONG.div_ceil(period);
        let written = b.chunks_exact(period).flat_map(|b| b.repeat(times)).collect();
        Repeated { b: Cow::Owned(written), n, period: times * period }
    }

    /// Cuts elements `first..first + len` of all replicas into runs within one repetition:
    /// calls `f` with the run, counted from `first`, and its right operand.
    fn each(&self, first: usize, len: usize, mut f: impl FnMut(Range<usize>, &[f32])) {
        let mut at = 0;
        while at < len {
            let (replica, place) = ((first + at) / self.n, (first + at) % self.n);
            let column = place % self.period;
            let end = len.min(at + (self.period - column).min(self.n - place));
            f(at..end, &self.b[replica * self.period + column..][..end - at]);
            at = end;
        }
    }
}

#[inline(always)]
fn combine<S: Simd>(s: S, kind: Binary, a: &[f32], b: &[f32], y: &mut [f32]) {
    match kind {
        Binary::Add => put(
            s,
            [a, b],
            false,
            y,
            #[inline(always)]
            |[a, b]| a + b,
        ),
        Binary::Subtract => put(
            s,
            [a, b],
            false,
            y,
            #[inline(always)]
            |[a, b]| a - b,
        ),
        Binary::Multiply => put(
            s,
            [a, b],
            false,
            y,
            #[inline(always)]
            |[a, b]| a * b,
        ),
    }
}

fn forward(p: &[u8], _replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &BinaryForward = bytemuck::from_bytes(p);
    let [a, b, y] = args else { unreachable!("three bindings") };
    let (a, b) = (a.real(), Repeated::new(b.real(), p.n, p.period));
    rows(y.real_mut(), 1, 1, |first, y| {
        b.each(first, y.len(), |run, b| {
            let a = &a[first + run.start..][..run.len()];
            with_vectors!(s => combine(s, Binary::of(p.kind), a, b, &mut y[run]));
        });
    });
}

fn backward_left(p: &[u8], _replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &BinaryBackwardLeft = bytemuck::from_bytes(p);
    let [b, dy, da] = args else { unreachable!("three bindings") };
    let (dy, accumulate) = (dy.real(), p.accumulate != 0);
    let factor = match Binary::of(p.kind) {
        Binary::Add | Binary::Subtract => None,
        Binary::Multiply => Some(Repeated::new(b.real(), p.n, p.period)),
    };
    rows(da.real_mut(), 1, 1, |first, da| match &factor {
        None => with_vectors!(s => assign(s, &dy[first..], accumulate, da)),
        Some(b) => b.each(first, da.len(), |run, b| {
            let dy = &dy[first + run.start..];
            with_vectors!(s => put(
                s,
                [dy, b],
                accumulate,
                &mut da[run],
                #[inline(always)]
                |[dy, b]| dy * b,
            ));
        }),
    });
}

fn backward_right(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &BinaryBackwardRight = bytemuck::from_bytes(p);
    let [a, dy, db] = args else { unreachable!("three bindings") };
    let (a, dy, db) = (a.real(), dy.real(), db.real_mut());
    let (count, period) = ((p.end - p.first) as usize, p.period as usize);
    for (r, db) in (0..replicas).zip(db.chunks_exact_mut(period)) {
        let own = (r * p.rows as usize + p.first as usize) * period;
        let (a, dy) = (&a[own..][..count * period], &dy[own..][..count * period]);
        column_sums(count, db, p.accumulate != 0, |from, sums| {
            let (a, dy) = (&a[from..], &dy[from..]);
            match Binary::of(p.kind) {
                Binary::Add => with_vectors!(s => rewrite(
                    s,
                    [dy],
                    [sums],
                    #[inline(always)]
                    |[dy], [sum]| [sum + dy],
                )),
                Binary::Subtract => with_vectors!(s => rewrite(
                    s,
                    [dy],
                    [sums],
                    #[inline(always)]
                    |[dy], [sum]| [sum - dy],
                )),
                Binary::Multiply => with_vectors!(s => rewrite(
                    s,
                    [dy, a],
                    [sums],
                    #[inline(always)]
                    |[dy, a], [sum]| [sum + dy * a],
                )),
            }
        });
    }
}
