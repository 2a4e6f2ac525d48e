//! Pooling on the CPU: planes are shared among the threads, and within one a vector of a row's
//! windows is taken tap by tap.
//!
//! Planes are copied to lines with room on both sides, so that each window sees a number at each
//! tap, and vectors past the last window, too. Who wins a window can't be foretold: a branch on
//! it costs more than all the rest.

use std::ops::Range;

use fearless_simd::Simd;
use fearless_simd::prelude::*;
use tern_shaders::Arg;
use tern_shaders::kernels::convolution::pooling::Pool;

use super::Table;
use super::isa::with_vectors;
use super::mixed::{self, get};
use super::parallel::{rows, rows2};
use super::vector::{MAX_LANES, assign, inlined, lanes, load, splat, store, store_part, tally};

pub(super) static TABLE: Table = &[
    ("convolution/max_pool_forward", max_forward),
    ("convolution/max_pool_backward", max_backward),
    ("convolution/average_pool_forward", average_forward),
    ("convolution/average_pool_backward", average_backward),
];

/// Sizes of a plane, and of the lines that it is copied to.
struct Planes {
    count: usize,
    height: usize,
    width: usize,
    out_h: usize,
    out_w: usize,
    kernel_h: usize,
    kernel_w: usize,
    stride_h: usize,
    stride: usize,
    padding_h: usize,
    padding: usize,
    /// Words of a line: padding, a row, and what vectors see behind it.
    line: usize,
    accumulate: bool,
}

impl Planes {
    fn of(p: &[u8], replicas: usize) -> Self {
        let p: &Pool = bytemuck::from_bytes(p);
        let (width, out_w, stride) = (p.width as usize, p.out_w as usize, p.stride_w as usize);
        let (padding, kernel_w) = (p.padding_w as usize, p.kernel_w as usize);
        let seen = out_w.next_multiple_of(MAX_LANES) * stride + kernel_w;
        Planes {
            count: replicas * p.planes as usize,
            height: p.height as usize,
            width,
            out_h: p.out_h as usize,
            out_w,
            kernel_h: p.kernel_h as usize,
            kernel_w,
            stride_h: p.stride_h as usize,
            stride,
            padding_h: p.padding_h as usize,
            padding,
            line: seen.max(padding + width),
            accumulate: p.accumulate != 0,
        }
    }

    fn input(&self) -> usize {
        self.height * self.width
    }

    fn output(&self) -> usize {
        self.out_h * self.out_w
    }

    /// Pixels under the windows of a plane.
    fn work(&self) -> usize {
        self.kernel_h * self.kernel_w * self.output()
    }

    /// Pixels under a window.
    fn area(&self) -> f32 {
        (self.kernel_h * self.kernel_w) as f32
    }

    /// Rows of pixels under a row of windows.
    #[inline(always)]
    fn under(&self, row: usize) -> Range<usize> {
        let first = row * self.stride_h;
        let past = (first + self.kernel_h).saturating_sub(self.padding_h).min(self.height);
        first.saturating_sub(self.padding_h)..past
    }

    /// Lines for one plane.
    fn lines(&self, filler: f32) -> Vec<f32> {
        vec![filler; self.height * self.line]
    }

    /// Rows of windows over a row of pixels.
    #[inline(always)]
    fn over(&self, h: usize) -> Range<usize> {
        let h = h + self.padding_h;
        (h + 1).saturating_sub(self.kernel_h).div_ceil(self.stride_h)
            ..self.out_h.min(h / self.stride_h + 1)
    }

    /// Pixels of a line a stride apart, whole vectors of them.
    fn class(&self) -> usize {
        (self.padding + self.width).div_ceil(self.stride).next_multiple_of(MAX_LANES)
    }

    /// Copies a plane to its lines.
    #[inline(always)]
    fn spread(&self, x: &[f32], lines: &mut [f32]) {
        for (x, line) in x.chunks_exact(self.width).zip(lines.chunks_exact_mut(self.line)) {
            line[self.padding..][..self.width].copy_from_slice(x);
        }
    }
}

/// A vector of pixels, `stride` apart.
#[inline(always)]
fn seen<S: Simd>(s: S, x: &[f32], stride: usize) -> S::f32s {
    match stride {
        1 => load(s, x),
        2 => load::<S, S::f32s>(s, x).deinterleave(load::<S, S::f32s>(s, &x[lanes::<S>()..])).0,
        _ => {
            let mut pixels = [0.0; MAX_LANES];
            let all = pixels.iter_mut().take(lanes::<S>()).zip(x.iter().step_by(stride));
            all.for_each(|(pixel, x)| *pixel = *x);
            load(s, &pixels)
        }
    }
}

/// Calls a function with the stride, of which the usual ones are constants: its loops are
/// compiled for these.
macro_rules! by_stride {
    ($planes:expr, $stride:ident => $call:expr) => {
        match $planes.stride {
            1 => {
                let $stride = 1;
                $call
            }
            2 => {
                let $stride = 2;
                $call
            }
            $stride => $call,
        }
    };
}

/// Writes a vector of results; what follows them is written later, if there is something.
#[inline(always)]
fn set<S: Simd, V: SimdBase<S>>(y: &mut [V::Element], vector: V) {
    if y.len() >= V::LEN {
        store(y, vector);
    } else {
        store_part(y, y.len(), vector);
    }
}

/// Whether a plane has a NaN: its windows are compared with more care then.
#[inline(always)]
fn has_nan<S: Simd>(s: S, x: &[f32]) -> bool {
    let (zero, one) = (S::u32s::splat(s, 0), S::u32s::splat(s, 1));
    let count = tally(
        s,
        x,
        #[inline(always)]
        |x: S::f32s| x.simd_eq(x).select(zero, one),
    );
    count > 0
}

/// Max pooling of a few planes.
#[inline(always)]
fn max_planes<S: Simd>(
    s: S,
    p: &Planes,
    stride: usize,
    x: &[f32],
    (y, index): (&mut [f32], &mut [u32]),
) {
    let mut lines = p.lines(f32::NEG_INFINITY);
    let mut numbers = [0; MAX_LANES];
    numbers.iter_mut().zip(0..).for_each(|(number, i)| *number = i * stride as u32);
    let numbers: S::u32s = load(s, &numbers);
    for (plane, x) in x.chunks_exact(p.input()).take(y.len() / p.output()).enumerate() {
        p.spread(x, &mut lines);
        let nan = has_nan(s, x);
        for row in 0..p.out_h {
            let under = p.under(row);
            for first in (0..p.out_w).step_by(lanes::<S>()) {
                let at = first * stride;
                // Places at the first tap, padding included.
                let place = inlined(
                    #[inline(always)]
                    |h: usize, tap: usize| {
                        numbers + ((h * p.width + at + tap).wrapping_sub(p.padding) as u32)
                    },
                );
                let mut most = seen(s, &lines[under.start * p.line + at..], stride);
                let mut won = place(under.start, 0);
                if at < p.padding {
                    // Windows whose first tap is padding begin with the row's first pixel.
                    let edge = (p.padding - at).div_ceil(stride).min(lanes::<S>());
                    // In copies, since what is written by number isn't kept in a register.
                    let (mut edge_most, mut edge_won) = (most, won);
                    edge_most.as_mut_slice()[..edge].fill(x[under.start * p.width]);
                    edge_won.as_mut_slice()[..edge].fill((under.start * p.width) as u32);
                    (most, won) = (edge_most, edge_won);
                }
                for h in under.clone() {
                    for tap in 0..p.kernel_w {
                        let x = seen(s, &lines[h * p.line + at + tap..], stride);
                        let wins = match nan {
                            false => x.simd_gt(most),
                            // The first NaN wins, and stays.
                            true => !x.simd_le(most) & most.simd_eq(most),
                        };
                        most = wins.select(x, most);
                        won = wins.select(place(h, tap), won);
                    }
                }
                let to = plane * p.output() + row * p.out_w + first;
                set::<S, S::f32s>(&mut y[to..], most);
                set::<S, S::u32s>(&mut index[to..], won);
            }
        }
    }
}

/// y = the largest pixel under each window, index = its place, the first of equals.
fn max_forward(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p = Planes::of(p, replicas);
    let [x, y, index] = args else { unreachable!("three bindings") };
    let (x, n, output) = (x.real(), p.count * p.output(), p.output());
    let (y, index) = (&mut y.real_mut()[..n], &mut index.word_mut()[..n]);
    rows2((y, output), (index, output), p.work(), |first, y, index| {
        let x = &x[first * p.input()..];
        with_vectors!(s => by_stride!(p, stride => max_planes(s, &p, stride, x, (y, index))));
    });
}

/// dx (+)= dy of the windows that each pixel won. Each window goes to its winner: vectors of
/// pixels that look for their windows take three times as long.
fn max_backward(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p = Planes::of(p, replicas);
    let [dy, index, dx] = args else { unreachable!("three bindings") };
    let (dy, index, input, output) = (dy.real(), index.word(), p.input(), p.output());
    rows(&mut dx.real_mut()[..p.count * input], input, p.work(), |first, dx| {
        if !p.accumulate {
            dx.fill(0.0);
        }
        let windows = dy[first * output..].chunks_exact(output);
        let winners = index[first * output..].chunks_exact(output);
        for ((dx, dy), winners) in dx.chunks_exact_mut(input).zip(windows).zip(winners) {
            for (dy, winner) in dy.iter().zip(winners) {
                if let Some(dx) = dx.get_mut(*winner as usize) {
                    *dx += dy;
                }
            }
        }
    });
}

/// y = the sums of rows, times a factor.
#[inline(always)]
fn add_rows<S: Simd>(
    s: S,
    x: &[f32],
    width: usize,
    rows: Range<usize>,
    factor: S::f32s,
    y: &mut [f32],
) {
    for at in (0..width).step_by(lanes::<S>()) {
        let n = lanes::<S>().min(width - at);
        let mut sum = splat(s, 0.0);
        for row in rows.clone() {
            sum += get::<S, S::f32s>(s, &x[row * width + at..], n);
        }
        mixed::set(&mut y[at..], n, sum * factor);
    }
}

/// Average pooling of a few planes: the rows of pixels under a row of windows are added up, then
/// what lies under each window. One plane's sums are written before they are read: shifted by a
/// tap, they could not be had from stores that are under way.
#[inline(always)]
fn mean_planes<S: Simd>(s: S, p: &Planes, stride: usize, x: &[f32], y: &mut [f32]) {
    let mut lines = vec![0.0; p.out_h * p.line];
    let (share, one) = (splat(s, 1.0 / p.area()), splat(s, 1.0));
    for (plane, x) in x.chunks_exact(p.input()).take(y.len() / p.output()).enumerate() {
        for (row, line) in lines.chunks_exact_mut(p.line).enumerate() {
            add_rows(s, x, p.width, p.under(row), one, &mut line[p.padding..]);
        }
        for (row, line) in lines.chunks_exact(p.line).enumerate() {
            for first in (0..p.out_w).step_by(lanes::<S>()) {
                let mut sum = splat(s, 0.0);
                for tap in 0..p.kernel_w {
                    sum += seen(s, &line[first * stride + tap..], stride);
                }
                let to = plane * p.output() + row * p.out_w + first;
                set::<S, S::f32s>(&mut y[to..], sum * share);
            }
        }
    }
}

/// y = the mean under each window, padding counted as zeros.
fn average_forward(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p = Planes::of(p, replicas);
    let [x, y] = args else { unreachable!("two bindings") };
    let (x, output) = (x.real(), p.output());
    rows(&mut y.real_mut()[..p.count * output], output, p.work(), |first, y| {
        let x = &x[first * p.input()..];
        with_vectors!(s => by_stride!(p, stride => mean_planes(s, &p, stride, x, y)));
    });
}

/// Gradients of average pooling of a few planes: the rows of windows over a row of pixels are
/// added up, then the windows over each pixel. Rows of pixels under the same windows are alike.
///
/// Pixels whose distance from a window's first is the same but for whole strides lie under
/// windows that are neighbors: they are one class, whose sums are vectors.
#[inline(always)]
fn shared_planes<S: Simd>(s: S, p: &Planes, stride: usize, dy: &[f32], dx: &mut [f32]) {
    let (l, class) = (lanes::<S>(), p.class());
    let share = splat(s, 1.0 / p.area());
    // Rows of windows, and for each row of pixels which of these are over it.
    let mut over: Vec<Range<usize>> = Vec::new();
    let which = (0..p.height).map(|h| {
        let rows = p.over(h);
        if over.last() != Some(&rows) {
            over.push(rows);
        }
        over.len() - 1
    });
    let which: Vec<usize> = which.collect();
    // No windows lie before the first and after the last.
    let windows_line = p.kernel_w + p.out_w.max(class);
    let mut windows = vec![0.0; over.len() * windows_line];
    let mut lines = vec![0.0; over.len() * stride * class];
    for (dx, dy) in dx.chunks_exact_mut(p.input()).zip(dy.chunks_exact(p.output())) {
        for (rows, windows) in over.iter().zip(windows.chunks_exact_mut(windows_line)) {
            add_rows(s, dy, p.out_w, rows.clone(), share, &mut windows[p.kernel_w..]);
        }
        let all = windows.chunks_exact(windows_line).zip(lines.chunks_exact_mut(stride * class));
        for (windows, line) in all {
            // The sums of a class from pixel `m` of it on.
            let sum = inlined(
                #[inline(always)]
                |first: usize, m: usize| {
                    let mut sum = splat(s, 0.0);
                    for tap in 0..p.kernel_w.saturating_sub(first).div_ceil(stride) {
                        sum += load::<S, S::f32s>(s, &windows[p.kernel_w + m - tap..]);
                    }
                    sum
                },
            );
            for m in (0..class).step_by(l) {
                match stride {
                    1 => store(&mut line[m..], sum(0, m)),
                    2 => {
                        let (low, high) = sum(0, m).interleave(sum(1, m));
                        store(&mut line[2 * m..], low);
                        store(&mut line[2 * m + l..], high);
                    }
                    _ => {
                        for first in 0..stride {
                            let pixels = line[m * stride + first..].iter_mut().step_by(stride);
                            let sums = sum(first, m);
                            pixels.zip(sums.as_slice()).for_each(|(pixel, sum)| *pixel = *sum);
                        }
                    }
                }
            }
        }
        for (dx, which) in dx.chunks_exact_mut(p.width).zip(&which) {
            assign(s, &lines[which * stride * class + p.padding..], p.accumulate, dx);
        }
    }
}

/// dx (+)= dy / area of the windows that hold each pixel.
fn average_backward(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p = Planes::of(p, replicas);
    let [dy, dx] = args else { unreachable!("two bindings") };
    let (dy, input) = (dy.real(), p.input());
    rows(&mut dx.real_mut()[..p.count * input], input, p.work(), |first, dx| {
        let dy = &dy[first * p.output()..];
        with_vectors!(s => by_stride!(p, stride => shared_planes(s, &p, stride, dy, dx)));
    });
}
