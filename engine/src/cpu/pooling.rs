//! Pooling on the CPU: planes are shared among the threads, and within one a row of windows is
//! taken tap by tap. Who wins can't be foretold: a branch on it costs more than all the rest.

use std::hint::select_unpredictable;
use std::ops::Range;

use tern_shaders::Arg;
use tern_shaders::cpu::convolution::pooling::Pool;

use super::Table;
use super::parallel::{rows, rows2};
use super::vmath::vectorized;
use super::windows::seeing;

pub(super) static TABLE: Table = &[
    ("convolution/max_pool_forward", max_forward),
    ("convolution/max_pool_backward", max_backward),
    ("convolution/average_pool_forward", average_forward),
    ("convolution/average_pool_backward", average_backward),
];

/// A column of the windows' taps: the windows of a row that see pixels and no padding under it,
/// and the first one's pixel.
struct Column {
    windows: Range<usize>,
    pixel: usize,
}

/// Sizes of a plane, and what its windows see.
struct Planes<'a> {
    p: &'a Pool,
    count: usize,
    input: usize,
    output: usize,
    out_w: usize,
    /// Pixels from one window to the next.
    stride: usize,
    /// Pixels of a window.
    area: f32,
    /// Pixels under all windows.
    work: usize,
    columns: Vec<Column>,
}

impl<'a> Planes<'a> {
    fn of(p: &'a [u8], replicas: usize) -> Self {
        let p: &Pool = bytemuck::from_bytes(p);
        let (width, out_w) = (p.width as usize, p.out_w as usize);
        let (padding, stride) = (p.padding_w as usize, p.stride_w as usize);
        let column = |j: usize| {
            let windows = seeing(0..out_w, j, width, padding, stride);
            let pixel = windows.start * stride + j;
            (!windows.is_empty()).then(|| Column { windows, pixel: pixel - padding })
        };
        let (output, area) = (p.out_h as usize * out_w, (p.kernel_h * p.kernel_w) as usize);
        Planes {
            p,
            count: replicas * p.planes as usize,
            input: p.height as usize * width,
            output,
            out_w,
            stride,
            area: area as f32,
            work: area * output,
            columns: (0..p.kernel_w as usize).filter_map(column).collect(),
        }
    }

    /// The first pixel under a window.
    #[inline(always)]
    fn first(&self, row: usize, column: usize, stride: usize) -> usize {
        let p = self.p;
        let h = (row * p.stride_h as usize).saturating_sub(p.padding_h as usize);
        h * p.width as usize + (column * stride).saturating_sub(p.padding_w as usize)
    }

    /// For each tap of the windows of an output row: calls `f` with those windows that see a
    /// pixel and no padding under it, and the first one's pixel.
    #[inline(always)]
    fn each_tap(&self, row: usize, mut f: impl FnMut(Range<usize>, usize)) {
        let p = self.p;
        for i in 0..p.kernel_h as usize {
            let h = (row * p.stride_h as usize + i).checked_sub(p.padding_h as usize);
            let Some(h) = h.filter(|h| *h < p.height as usize) else { continue };
            for column in &self.columns {
                f(column.windows.clone(), h * p.width as usize + column.pixel);
            }
        }
    }
}

vectorized! {
    /// Max pooling of a few planes.
    fn max_planes(s: &Planes<'_>, x: &[f32], y: &mut [f32], index: &mut [u32]) {
        // By constants, so that the loops are compiled for these.
        match s.stride {
            1 => max_planes_by(s, 1, x, y, index),
            2 => max_planes_by(s, 2, x, y, index),
            _ => max_planes_by(s, s.stride, x, y, index),
        }
    }
}

#[inline(always)]
fn max_planes_by(s: &Planes, stride: usize, x: &[f32], y: &mut [f32], index: &mut [u32]) {
    let out = y.chunks_exact_mut(s.output).zip(index.chunks_exact_mut(s.output));
    for (x, (y, index)) in x.chunks_exact(s.input).zip(out) {
        let lines = y.chunks_exact_mut(s.out_w).zip(index.chunks_exact_mut(s.out_w));
        for (row, (y, index)) in lines.enumerate() {
            for (o, (y, index)) in y.iter_mut().zip(index.iter_mut()).enumerate() {
                let place = s.first(row, o, stride);
                (*y, *index) = (x[place], place as u32);
            }
            s.each_tap(row, |windows, pixel| {
                let (y, index) = (&mut y[windows.clone()], &mut index[windows]);
                let mut place = pixel as u32;
                for ((y, index), x) in y.iter_mut().zip(index).zip(x[pixel..].chunks(stride)) {
                    let wins = x[0] > *y;
                    *y = select_unpredictable(wins, x[0], *y);
                    *index = select_unpredictable(wins, place, *index);
                    place += stride as u32;
                }
            });
        }
    }
}

/// y = the largest pixel under each window, index = its place, the first of equals.
fn max_forward(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let s = Planes::of(p, replicas);
    let [x, y, index] = args else { unreachable!("three bindings") };
    let (x, n) = (x.real(), s.count * s.output);
    let (y, index) = (&mut y.real_mut()[..n], &mut index.word_mut()[..n]);
    rows2((y, s.output), (index, s.output), s.work, |first, y, index| {
        max_planes(&s, &x[first * s.input..], y, index);
    });
}

/// Calls `add` for each run of windows of a few planes, the first of which is number `first`: the
/// windows' numbers, counted through all planes, their plane, and the first one's pixel in it.
#[inline(always)]
fn each_run(
    s: &Planes,
    first: usize,
    dx: &mut [f32],
    mut add: impl FnMut(Range<usize>, &mut [f32], usize),
) {
    if s.p.accumulate == 0 {
        dx.fill(0.0);
    }
    for (plane, dx) in dx.chunks_exact_mut(s.input).enumerate() {
        for row in 0..s.p.out_h as usize {
            let start = (first + plane) * s.output + row * s.out_w;
            s.each_tap(row, |windows, pixel| {
                add(start + windows.start..start + windows.end, dx, pixel);
            });
        }
    }
}

vectorized! {
    /// Gradients of a few planes.
    fn won_planes(s: &Planes<'_>, first: usize, dy: &[f32], index: &[u32], dx: &mut [f32]) {
        match s.stride {
            1 => won_planes_by(s, 1, first, dy, index, dx),
            2 => won_planes_by(s, 2, first, dy, index, dx),
            _ => won_planes_by(s, s.stride, first, dy, index, dx),
        }
    }
}

#[inline(always)]
fn won_planes_by(
    s: &Planes,
    stride: usize,
    first: usize,
    dy: &[f32],
    index: &[u32],
    dx: &mut [f32],
) {
    each_run(s, first, dx, |windows, dx, pixel| {
        let mut place = pixel as u32;
        let given = dy[windows.clone()].iter().zip(&index[windows]);
        for ((dy, index), dx) in given.zip(dx[pixel..].chunks_mut(stride)) {
            dx[0] += select_unpredictable(*index == place, *dy, 0.0);
            place += stride as u32;
        }
    });
}

/// dx (+)= dy of the windows that each pixel won.
fn max_backward(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let s = Planes::of(p, replicas);
    let [dy, index, dx] = args else { unreachable!("three bindings") };
    let (dy, index) = (dy.real(), index.word());
    rows(&mut dx.real_mut()[..s.count * s.input], s.input, s.work, |first, dx| {
        won_planes(&s, first, dy, index, dx);
    });
}

/// y = the mean under each window, padding counted as zeros.
fn average_forward(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let s = Planes::of(p, replicas);
    let [x, y] = args else { unreachable!("two bindings") };
    let x = x.real();
    rows(&mut y.real_mut()[..s.count * s.output], s.output, s.work, |first, y| {
        y.fill(0.0);
        let x = x[first * s.input..].chunks_exact(s.input);
        for (x, y) in x.zip(y.chunks_exact_mut(s.output)) {
            for (row, y) in y.chunks_exact_mut(s.out_w).enumerate() {
                s.each_tap(row, |windows, pixel| {
                    let seen = x[pixel..].chunks(s.stride);
                    y[windows].iter_mut().zip(seen).for_each(|(y, x)| *y += x[0] / s.area);
                });
            }
        }
    });
}

/// dx (+)= dy / area of the windows that hold each pixel.
fn average_backward(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let s = Planes::of(p, replicas);
    let [dy, dx] = args else { unreachable!("two bindings") };
    let dy = dy.real();
    rows(&mut dx.real_mut()[..s.count * s.input], s.input, s.work, |first, dx| {
        each_run(&s, first, dx, |windows, dx, pixel| {
            let seen = dx[pixel..].chunks_mut(s.stride);
            seen.zip(&dy[windows]).for_each(|(dx, dy)| dx[0] += dy / s.area);
        });
    });
}
