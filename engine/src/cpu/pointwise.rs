//! Pointwise kernels: elements in parallel and in vectors.

use tern_shaders::cpu::pointwise::{
    ActivationBackward, ActivationForward, Binary, BinaryBackwardLeft, BinaryBackwardRight,
    BinaryForward, Copy, Scale, SoftmaxBackward, SoftmaxForward,
};
use tern_shaders::{Activation, Arg, TwinFn};

use super::parallel::{put, rows};
use super::vmath::{exp, largest, sigmoid, sum_by, tanh, vectorized};

pub(super) static TABLE: &[(&str, TwinFn<f32>)] = &[
    ("pointwise/activation_forward", activation_forward),
    ("pointwise/activation_backward", activation_backward),
    ("pointwise/binary_forward", binary_forward),
    ("pointwise/binary_backward_left", binary_backward_left),
    ("pointwise/binary_backward_right", binary_backward_right),
    ("pointwise/scale", scale),
    ("pointwise/copy", copy),
    ("pointwise/softmax_forward", softmax_forward),
    ("pointwise/softmax_backward", softmax_backward),
];

#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    tanh(0.797_884_6 * (x + 0.044_715 * x * x * x))
}

vectorized! {
    /// y = f(x)
    pub(super) fn activate(kind: Activation, x: &[f32], y: &mut [f32]) {
        #[inline(always)]
        fn map(x: &[f32], y: &mut [f32], f: impl Fn(f32) -> f32) {
            for (x, y) in x.iter().zip(y) {
                *y = f(*x);
            }
        }
        match kind {
            Activation::Identity => y.copy_from_slice(x),
            Activation::Relu => map(x, y, |x| if x > 0.0 { x } else { 0.0 }),
            Activation::Sigmoid => map(x, y, sigmoid),
            Activation::Tanh => map(x, y, tanh),
            Activation::LeakyRelu => map(x, y, |x| if x > 0.0 { x } else { 0.01 * x }),
            Activation::Gelu => map(x, y, |x| 0.5 * x * (1.0 + gelu_tanh(x))),
        }
    }
}

vectorized! {
    /// dx (+)= dy · f'(x)
    fn activate_gradient(
        kind: Activation, x: &[f32], y: &[f32], dy: &[f32], accumulate: bool, dx: &mut [f32],
    ) {
        #[inline(always)]
        fn map(
            (x, dy): (&[f32], &[f32]), accumulate: bool, dx: &mut [f32], f: impl Fn(f32) -> f32,
        ) {
            for ((x, dy), dx) in x.iter().zip(dy).zip(dx) {
                put(dx, dy * f(*x), accumulate);
            }
        }
        match kind {
            Activation::Identity => map((x, dy), accumulate, dx, |_| 1.0),
            Activation::Relu => {
                map((x, dy), accumulate, dx, |x| if x > 0.0 { 1.0 } else { 0.0 });
            }
            Activation::Sigmoid => map((y, dy), accumulate, dx, |y| y * (1.0 - y)),
            Activation::Tanh => map((y, dy), accumulate, dx, |y| 1.0 - y * y),
            Activation::LeakyRelu => {
                map((x, dy), accumulate, dx, |x| if x > 0.0 { 1.0 } else { 0.01 });
            }
            Activation::Gelu => map((x, dy), accumulate, dx, |x| {
                let t = gelu_tanh(x);
                let inner = 0.797_884_6 * (1.0 + 0.134_145 * x * x);
                0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner
            }),
        }
    }
}

fn activation_forward(p: &[u8], _replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &ActivationForward = bytemuck::from_bytes(p);
    let [x, y] = args else { unreachable!("two bindings") };
    let x = x.real();
    rows(y.real_mut(), 1, 4, |first, y| {
        activate(Activation::of(p.kind), &x[first..][..y.len()], y);
    });
}

fn activation_backward(p: &[u8], _replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &ActivationBackward = bytemuck::from_bytes(p);
    let [x, y, dy, dx] = args else { unreachable!("four bindings") };
    let (x, y, dy) = (x.real(), y.real(), dy.real());
    rows(dx.real_mut(), 1, 4, |first, dx| {
        let range = first..first + dx.len();
        let kind = Activation::of(p.kind);
        let (x, y, dy) = (&x[range.clone()], &y[range.clone()], &dy[range]);
        activate_gradient(kind, x, y, dy, p.accumulate != 0, dx);
    });
}

/// Cuts elements `first..first + len` of all replicas into runs within one repetition of a
/// right operand: calls `f` with the run, counted from `first`, and where its right operand
/// starts.
fn repetitions(
    first: usize,
    len: usize,
    (n, period): (u32, u32),
    mut f: impl FnMut(std::ops::Range<usize>, usize),
) {
    let (n, period) = (n as usize, period as usize);
    let mut at = 0;
    while at < len {
        let column = (first + at) % n % period;
        let end = len.min(at + period - column);
        f(at..end, (first + at) / n * period + column);
        at = end;
    }
}

fn binary_forward(p: &[u8], _replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &BinaryForward = bytemuck::from_bytes(p);
    let [a, b, y] = args else { unreachable!("three bindings") };
    let (a, b) = (a.real(), b.real());
    rows(y.real_mut(), 1, 1, |first, y| {
        repetitions(first, y.len(), (p.n, p.period), |run, right| {
            let a = &a[first + run.start..][..run.len()];
            let b = &b[right..][..run.len()];
            let all = a.iter().zip(b).zip(&mut y[run]);
            match Binary::of(p.kind) {
                Binary::Add => all.for_each(|((a, b), y)| *y = a + b),
                Binary::Subtract => all.for_each(|((a, b), y)| *y = a - b),
                Binary::Multiply => all.for_each(|((a, b), y)| *y = a * b),
            }
        });
    });
}

fn binary_backward_left(p: &[u8], _replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &BinaryBackwardLeft = bytemuck::from_bytes(p);
    let [b, dy, da] = args else { unreachable!("three bindings") };
    let (b, dy, accumulate) = (b.real(), dy.real(), p.accumulate != 0);
    rows(da.real_mut(), 1, 1, |first, da| {
        repetitions(first, da.len(), (p.n, p.period), |run, right| {
            let dy = &dy[first + run.start..][..run.len()];
            let b = &b[right..][..run.len()];
            let all = dy.iter().zip(b).zip(&mut da[run]);
            match Binary::of(p.kind) {
                Binary::Add | Binary::Subtract => {
                    all.for_each(|((dy, _), da)| put(da, *dy, accumulate));
                }
                Binary::Multiply => all.for_each(|((dy, b), da)| put(da, dy * b, accumulate)),
            }
        });
    });
}

fn binary_backward_right(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &BinaryBackwardRight = bytemuck::from_bytes(p);
    let [a, dy, db] = args else { unreachable!("three bindings") };
    let (a, dy, db) = (a.real(), dy.real(), db.real_mut());
    let (count, period) = (p.rows as usize, p.period as usize);
    for (r, db) in (0..replicas).zip(db.chunks_exact_mut(period)) {
        // Threads own columns; each walks the rows in order, so that rows are read as they lie.
        rows(db, 1, count, |first, db| {
            if p.accumulate == 0 {
                db.fill(0.0);
            }
            for row in r * count..(r + 1) * count {
                let from = row * period + first;
                let (a, dy) = (&a[from..][..db.len()], &dy[from..][..db.len()]);
                let all = a.iter().zip(dy).zip(&mut *db);
                match Binary::of(p.kind) {
                    Binary::Add => all.for_each(|((_, dy), db)| *db += dy),
                    Binary::Subtract => all.for_each(|((_, dy), db)| *db -= dy),
                    Binary::Multiply => all.for_each(|((a, dy), db)| *db += dy * a),
                }
            }
        });
    }
}

fn scale(p: &[u8], _replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Scale = bytemuck::from_bytes(p);
    let [x, y] = args else { unreachable!("two bindings") };
    let (x, accumulate) = (x.real(), p.accumulate != 0);
    rows(y.real_mut(), 1, 1, |first, y| {
        let x = &x[first..][..y.len()];
        x.iter().zip(y).for_each(|(x, y)| put(y, p.factor * x, accumulate));
    });
}

fn copy(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Copy = bytemuck::from_bytes(p);
    let [x, y] = args else { unreachable!("two bindings") };
    let (x, y, width) = (x.real(), y.real_mut(), p.width as usize);
    for (r, row) in (0..replicas).flat_map(|r| (0..p.rows as usize).map(move |row| (r, row))) {
        let from = r * p.x_stride as usize + p.x_offset as usize + row * p.x_row as usize;
        let to = r * p.y_stride as usize + p.y_offset as usize + row * p.y_row as usize;
        let (x, y) = (&x[from..][..width], &mut y[to..][..width]);
        if p.accumulate == 0 {
            y.copy_from_slice(x);
        } else {
            x.iter().zip(y).for_each(|(x, y)| *y += x);
        }
    }
}

vectorized! {
    fn softmax_row(x: &[f32], logarithm: bool, y: &mut [f32]) {
        let top = largest(x);
        if logarithm {
            let total = top + sum_by(x, x, |x, _| exp(x - top)).ln();
            x.iter().zip(y).for_each(|(x, y)| *y = x - total);
        } else {
            x.iter().zip(&mut *y).for_each(|(x, y)| *y = exp(x - top));
            let scale = 1.0 / sum_by(y, y, |y, _| y);
            y.iter_mut().for_each(|y| *y *= scale);
        }
    }
}

vectorized! {
    fn softmax_row_gradient(
        y: &[f32], dy: &[f32], logarithm: bool, accumulate: bool, dx: &mut [f32],
    ) {
        let all = y.iter().zip(dy).zip(dx);
        if logarithm {
            let sum = sum_by(y, dy, |_, dy| dy);
            all.for_each(|((y, dy), dx)| put(dx, dy - exp(*y) * sum, accumulate));
        } else {
            let sum = sum_by(y, dy, |y, dy| y * dy);
            all.for_each(|((y, dy), dx)| put(dx, y * (dy - sum), accumulate));
        }
    }
}

fn softmax_forward(p: &[u8], _replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &SoftmaxForward = bytemuck::from_bytes(p);
    let [x, y] = args else { unreachable!("two bindings") };
    let (x, classes) = (x.real(), p.classes as usize);
    rows(y.real_mut(), classes, 4 * classes, |first, y| {
        for (row, y) in (first..).zip(y.chunks_exact_mut(classes)) {
            softmax_row(&x[row * classes..][..classes], p.logarithm != 0, y);
        }
    });
}

fn softmax_backward(p: &[u8], _replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &SoftmaxBackward = bytemuck::from_bytes(p);
    let [y, dy, dx] = args else { unreachable!("three bindings") };
    let (y, dy, classes) = (y.real(), dy.real(), p.classes as usize);
    rows(dx.real_mut(), classes, 4 * classes, |first, dx| {
        for (row, dx) in (first..).zip(dx.chunks_exact_mut(classes)) {
            let range = row * classes..(row + 1) * classes;
            let (y, dy) = (&y[range.clone()], &dy[range]);
            softmax_row_gradient(y, dy, p.logarithm != 0, p.accumulate != 0, dx);
        }
    });
}
