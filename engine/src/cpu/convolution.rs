//! Convolution on the CPU: each image's pixels are laid out as the columns of a matrix, so
//! that the sums become a matrix product; images are shared among the threads.

use std::ops::Range;

use fearless_simd::Simd;
use rayon::prelude::*;
use tern_shaders::Arg;
use tern_shaders::kernels::convolution::{Convolution, Finish};

use super::Table;
use super::isa::with_vectors;
use super::product::{View, multiply};
use super::scratch::lend;
use super::vector::{assign, lanes, splat, store_part};
use super::windows::seeing;

pub(super) static TABLE: Table = &[
    ("convolution/forward", forward),
    ("convolution/input_backward", input_backward),
    ("convolution/weight_partial", weight_partial),
    ("convolution/weight_finish", weight_finish),
];

/// Sizes of one image.
struct Sizes {
    input: usize,
    output: usize,
    /// Pixels of an output plane.
    plane: usize,
    taps: usize,
    filters: usize,
}

impl Sizes {
    fn of(p: &Convolution) -> Self {
        let plane = p.out_h as usize * p.out_w as usize;
        Sizes {
            input: p.channels as usize * p.height as usize * p.width as usize,
            output: p.filters as usize * plane,
            plane,
            taps: p.taps() as usize,
            filters: p.filters as usize,
        }
    }
}

/// A run of output pixels in one row under one tap, which see input pixels `stride_w` apart.
struct Run {
    /// Where the run lies in the matrix `[taps, pixels]`.
    matrix: Range<usize>,
    /// The part of it that sees pixels and no padding.
    seen: Range<usize>,
    /// The first input pixel seen.
    image: usize,
}

/// Calls `f` for each run of a range of output pixels.
#[inline(always)]
fn runs(p: &Convolution, pixels: Range<usize>, mut f: impl FnMut(Run)) {
    let (height, width) = (p.height as usize, p.width as usize);
    let (out_w, stride) = (p.out_w as usize, p.stride_w as usize);
    let (kernel_h, kernel_w) = (p.kernel_h as usize, p.kernel_w as usize);
    let padding = p.padding_w as usize;
    for tap in 0..p.taps() as usize {
        let (c, i, j) = (tap / (kernel_h * kernel_w), tap / kernel_w % kernel_h, tap % kernel_w);
        let mut q = pixels.start;
        while q < pixels.end {
            let (oh, ow) = (q / out_w, q % out_w);
            let end = pixels.end.min((oh + 1) * out_w);
            let start = tap * pixels.len() + q - pixels.start;
            let matrix = start..start + end - q;
            let columns = seeing(ow..ow + end - q, j, width, padding, stride);
            let ih = (oh * p.stride_h as usize + i).checked_sub(p.padding_h as usize);
            let (seen, image) = match ih.filter(|ih| *ih < height && !columns.is_empty()) {
                Some(ih) => {
                    let column = columns.start * stride + j - padding;
                    let seen = start + columns.start - ow..start + columns.end - ow;
                    (seen, (c * height + ih) * width + column)
                }
                None => (start..start, 0),
            };
            f(Run { matrix, seen, image });
            q = end;
        }
    }
}

/// What each tap sees at each of the pixels: `[taps, pixels]`.
fn unfold(p: &Convolution, image: &[f32], pixels: Range<usize>, matrix: &mut [f32]) {
    with_vectors!(s => runs(
        p,
        pixels,
        #[inline(always)]
        |run| {
            zero(s, &mut matrix[run.matrix.start..run.seen.start]);
            zero(s, &mut matrix[run.seen.end..run.matrix.end]);
            let to = &mut matrix[run.seen];
            if p.stride_w == 1 {
                assign(s, &image[run.image..][..to.len()], false, to);
            } else {
                let from = image[run.image..].iter().step_by(p.stride_w as usize);
                to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
            }
        },
    ));
}

/// Adds to the pixels of an image what each tap has for them.
fn fold(p: &Convolution, pixels: Range<usize>, matrix: &[f32], image: &mut [f32]) {
    with_vectors!(s => runs(
        p,
        pixels,
        #[inline(always)]
        |run| {
            let from = &matrix[run.seen];
            if p.stride_w == 1 {
                assign(s, from, true, &mut image[run.image..][..from.len()]);
            } else {
                let to = image[run.image..].iter_mut().step_by(p.stride_w as usize);
                to.zip(from).for_each(|(to, from)| *to += from);
            }
        },
    ));
}

/// y = 0; a padding is short.
#[inline(always)]
fn zero<S: Simd>(s: S, y: &mut [f32]) {
    match y.len() <= lanes::<S>() {
        true => store_part(y, y.len(), splat(s, 0.0)),
        false => y.fill(0.0),
    }
}

fn forward(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Convolution = bytemuck::from_bytes(p);
    let [x, parameters, y] = args else { unreachable!("three bindings") };
    let (x, parameters) = (x.real(), parameters.real());
    let s = Sizes::of(p);
    let images = replicas * p.batch as usize;
    let y = y.real_mut()[..images * s.output].par_chunks_mut(s.output);
    let x = x.par_chunks(s.input);
    y.zip(x).enumerate().for_each(|(image, (y, x))| {
        let parameters = &parameters[image / p.batch as usize * p.parameter_stride as usize..];
        for (o, y) in y.chunks_exact_mut(s.plane).enumerate() {
            y.fill(if p.bias != 0 { parameters[p.bias_offset as usize + o] } else { 0.0 });
        }
        let weight = View::rows(&parameters[p.weight_offset as usize..], s.filters, s.taps, s.taps);
        lend(s.taps * s.plane, |matrix| {
            let matrix = &mut matrix[..s.taps * s.plane];
            unfold(p, x, 0..s.plane, matrix);
            multiply(y, s.plane, true, weight, View::rows(matrix, s.taps, s.plane, s.plane));
        });
    });
}

fn input_backward(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Convolution = bytemuck::from_bytes(p);
    let [dy, parameters, dx] = args else { unreachable!("three bindings") };
    let (dy, parameters) = (dy.real(), parameters.real());
    let s = Sizes::of(p);
    let images = replicas * p.batch as usize;
    let dx = dx.real_mut()[..images * s.input].par_chunks_mut(s.input);
    let dy = dy.par_chunks(s.output);
    dx.zip(dy).enumerate().for_each(|(image, (dx, dy))| {
        let parameters = &parameters[image / p.batch as usize * p.parameter_stride as usize..];
        if p.accumulate == 0 {
            dx.fill(0.0);
        }
        let weight = View::rows(&parameters[p.weight_offset as usize..], s.filters, s.taps, s.taps);
        let dy = View::rows(dy, s.filters, s.plane, s.plane);
        lend(s.taps * s.plane, |matrix| {
            multiply(matrix, s.plane, false, weight.transposed(), dy);
            fold(p, 0..s.plane, matrix, dx);
        });
    });
}

fn weight_partial(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Convolution = bytemuck::from_bytes(p);
    let [x, dy, partial] = args else { unreachable!("three bindings") };
    let (x, dy) = (x.real(), dy.real());
    let s = Sizes::of(p);
    let (batch, splits, columns) = (p.batch as usize, p.splits as usize, p.columns() as usize);
    let total = batch * s.plane;
    let share = total.div_ceil(splits);
    let size = s.filters * columns;
    let partial = &mut partial.real_mut()[..replicas * splits * size];
    partial.par_chunks_mut(size).enumerate().for_each(|(at, partial)| {
        partial.fill(0.0);
        let (r, split) = (at / splits, at % splits);
        let mut q = split * share;
        let end = total.min(q + share);
        while q < end {
            let image = r * batch + q / s.plane;
            let first = q % s.plane;
            let pixels = first..s.plane.min(first + end - q);
            let n = pixels.len();
            let dy = &dy[image * s.output + first..];
            lend(s.taps * n, |matrix| {
                unfold(p, &x[image * s.input..][..s.input], pixels, matrix);
                let product = View::rows(dy, s.filters, n, s.plane);
                let seen = View::rows(matrix, s.taps, n, n).transposed();
                multiply(partial, columns, true, product, seen);
            });
            if p.bias != 0 {
                for (o, sums) in partial.chunks_exact_mut(columns).enumerate() {
                    sums[s.taps] += dy[o * s.plane..][..n].iter().sum::<f32>();
                }
            }
            q += n;
        }
    });
}

fn weight_finish(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Finish = bytemuck::from_bytes(p);
    let [partial, gradients] = args else { unreachable!("two bindings") };
    let (partial, gradients) = (partial.real(), gradients.real_mut());
    let (filters, count) = (p.filters as usize, p.count as usize);
    let size = filters * p.columns as usize;
    for r in 0..replicas {
        let start = r * p.parameter_stride as usize + p.offset as usize;
        let gradients = gradients[start..][..filters * count].par_chunks_mut(count);
        gradients.enumerate().for_each(|(o, gradient)| {
            if p.accumulate == 0 {
                gradient.fill(0.0);
            }
            for split in 0..p.splits as usize {
                let row = (r * p.splits as usize + split) * size + o * p.columns as usize;
                let sums = &partial[row + p.first as usize..][..count];
                gradient.iter_mut().zip(sums).for_each(|(g, sum)| *g += sum);
            }
        });
    }
}
