//! Convolution on the CPU: sums over what each tap sees at each pixel are a matrix product, whose right
//! side is taken from the images as it is needed (`images.rs`). Images whose planes are small are
//! computed several at a time, so that the filters are read for many pixels.
//!
//! How much work a product has depends on sizes alone: which thread has which part changes no bit. Channels
//! in groups are images of their own (`grouped.rs`).

mod dots;
mod grouped;
mod images;

use std::ops::Range;

use rayon::prelude::*;
use tern_shaders::Arg;
use tern_shaders::kernels::convolution::{Convolution, Finish};

use self::images::{Seen, Sizes};
use super::Table;
use super::isa::with_vectors;
use super::product::{View, multiply_made, multiply_on};
use super::reduce::total;
use super::scratch::{LINE, lend};
use super::vector::assign;

pub(super) static TABLE: Table = &[
    ("convolution/forward", forward),
    ("convolution/input_backward", input_backward),
    ("convolution/weight_partial", weight_partial),
    ("convolution/weight_finish", weight_finish),
];

/// Output pixels that a product has, where single images have fewer.
const PIXELS: usize = 256;

/// Fewest filters of a job, where several threads share images.
const FILTERS: usize = 16;

/// Pixels of an image from which the weights' gradient over them is inner products, and the input's, if
/// there are channels enough, a convolution.
const WIDE: usize = 128;

/// Most pixels of an image whose products are added up before they go to the others.
const LONG: usize = 1 << 13;

/// Channels for which the output's gradient is laid out for filters that are turned around: for fewer
/// that takes longer than it saves.
const CHANNELS: usize = 32;

/// Images that are computed at a time.
fn group(plane: usize, batch: usize) -> usize {
    (PIXELS / plane).clamp(1, batch.max(1))
}

/// Threads for each of some jobs.
fn threads_each(jobs: usize) -> usize {
    rayon::current_num_threads().div_ceil(jobs.max(1))
}

/// Filters of a part, so that each of some jobs is cut for the threads that it has.
fn filters_each(jobs: usize, filters: usize) -> usize {
    filters.div_ceil(threads_each(jobs)).max(FILTERS.min(filters))
}

/// Some filters of a convolution of some images.
struct Job<'a> {
    replica: usize,
    images: &'a [f32],
    filters: Range<usize>,
    /// What the filters give, an image each.
    outputs: Vec<&'a mut [f32]>,
}

/// y (+)= the convolution of images, by filters `[filters, taps]` of each replica.
fn convolve<'w>(
    sizes: Sizes,
    (replicas, batch): (usize, usize),
    x: &[f32],
    weights: impl Fn(usize) -> &'w [f32] + Sync,
    y: &mut [f32],
    add: bool,
) {
    let plane = sizes.plane();
    let group = group(plane, batch);
    let part = filters_each(replicas * batch.div_ceil(group), sizes.filters);
    let mut jobs: Vec<Job<'_>> = Vec::new();
    let images = x.chunks_exact(batch * sizes.input).take(replicas);
    for (replica, (x, y)) in images.zip(y.chunks_exact_mut(batch * sizes.output)).enumerate() {
        let groups = x.chunks(group * sizes.input).zip(y.chunks_mut(group * sizes.output));
        for (images, y) in groups {
            let first = jobs.len();
            jobs.extend((0..sizes.filters).step_by(part).map(|start| {
                let filters = start..sizes.filters.min(start + part);
                Job { replica, images, filters, outputs: Vec::new() }
            }));
            for image in y.chunks_exact_mut(sizes.output) {
                for (job, y) in jobs[first..].iter_mut().zip(image.chunks_mut(part * plane)) {
                    job.outputs.push(y);
                }
            }
        }
    }
    jobs.into_par_iter().for_each(|job| {
        let Job { replica, images, filters, mut outputs } = job;
        let (count, rows) = (outputs.len(), filters.len());
        let weights = &weights(replica)[filters.start * sizes.taps..];
        let weights = View::rows(weights, rows, sizes.taps, sizes.taps);
        lend(count * sizes.padded_image() + LINE, |padded| {
            sizes.pad(images, padded);
            let seen = Seen { sizes, pixels: 0..count * plane, padded, by_pixels: false };
            if let [y] = &mut outputs[..] {
                return multiply_made(y, plane, add, weights, &seen);
            }
            let columns = count * plane;
            lend(rows * columns, |product| {
                // In the order in which an image's own product would be added up.
                for (image, y) in outputs.iter().enumerate().filter(|_| add) {
                    let rows = product.chunks_exact_mut(columns).zip(y.chunks_exact(plane));
                    rows.for_each(|(row, y)| put(y, false, &mut row[image * plane..][..plane]));
                }
                multiply_made(product, columns, add, weights, &seen);
                for (image, y) in outputs.iter_mut().enumerate() {
                    let rows = product.chunks_exact(columns).zip(y.chunks_exact_mut(plane));
                    rows.for_each(|(row, y)| put(&row[image * plane..], false, y));
                }
            });
        });
    });
}

/// y (+)= x
fn put(x: &[f32], add: bool, y: &mut [f32]) {
    with_vectors!(s => assign(s, x, add, y));
}

/// Sets each plane to its bias.
fn fill(planes: &mut [f32], plane: usize, bias: &[f32]) {
    let planes = planes.chunks_exact_mut(plane).zip(bias.iter().cycle());
    planes.for_each(|(plane, bias)| plane.fill(*bias));
}

fn forward(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Convolution = bytemuck::from_bytes(p);
    let [x, parameters, y] = args else { unreachable!("three bindings") };
    let (x, parameters) = (x.real(), parameters.real());
    let (sizes, batch) = (Sizes::of(p), p.batch as usize);
    let of = |replica: usize| &parameters[replica * p.parameter_stride as usize..];
    let output = p.groups as usize * sizes.output;
    let y = &mut y.real_mut()[..replicas * batch * output];
    if p.bias != 0 {
        for (replica, y) in y.chunks_exact_mut(batch * output).enumerate() {
            let bias = &of(replica)[p.bias_offset as usize..][..p.filters as usize];
            fill(y, sizes.plane(), bias);
        }
    }
    let weights = |replica: usize| &of(replica)[p.weight_offset as usize..];
    if p.groups > 1 {
        return grouped::forward(p, x, weights, y);
    }
    convolve(sizes, (replicas, batch), x, weights, y, p.bias != 0);
}

fn input_backward(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Convolution = bytemuck::from_bytes(p);
    let [dy, parameters, dx] = args else { unreachable!("three bindings") };
    let (dy, parameters) = (dy.real(), parameters.real());
    let (sizes, batch) = (Sizes::of(p), p.batch as usize);
    let weights = |replica: usize| {
        let start = replica * p.parameter_stride as usize + p.weight_offset as usize;
        &parameters[start..][..p.filters as usize * sizes.taps]
    };
    let input = p.groups as usize * sizes.input;
    let dx = &mut dx.real_mut()[..replicas * batch * input];
    let add = p.accumulate != 0 || p.bias != 0;
    if p.bias != 0 {
        for (replica, dx) in dx.chunks_exact_mut(batch * input).enumerate() {
            let bias = &parameters[replica * p.parameter_stride as usize..];
            let bias = &bias[p.bias_offset as usize..][..p.channels as usize];
            let plane = (p.height * p.width) as usize;
            if p.accumulate == 0 {
                fill(dx, plane, bias);
                continue;
            }
            let planes = dx.chunks_exact_mut(plane).zip(bias.iter().cycle());
            planes.for_each(|(dx, bias)| dx.iter_mut().for_each(|dx| *dx += bias));
        }
    }
    if p.groups > 1 {
        return grouped::input_backward(p, dy, weights, dx, add);
    }
    let is_worth = |b: &Sizes| b.plane() >= WIDE && sizes.channels >= CHANNELS;
    let backward = sizes.backward().filter(is_worth);
    let Some(backward) = backward else {
        return spread(sizes, (replicas, batch), dy, weights, dx, add);
    };
    let count = sizes.filters * sizes.taps;
    lend(replicas * count, |turned| {
        for (replica, turned) in turned.chunks_exact_mut(count).take(replicas).enumerate() {
            turn(sizes, weights(replica), turned);
        }
        let turned = &turned[..];
        let of = |replica: usize| &turned[replica * count..][..count];
        convolve(backward, (replicas, batch), dy, of, dx, add);
    });
}

/// Filters of the convolution that is the input's gradient: filters and channels change places, and the
/// places of a filter their order.
fn turn(sizes: Sizes, weights: &[f32], turned: &mut [f32]) {
    let kernel = sizes.kernel();
    let rows = turned.chunks_exact_mut(sizes.filters * kernel);
    for (channel, row) in rows.enumerate() {
        let filters = weights.chunks_exact(sizes.taps);
        for (to, filter) in row.chunks_exact_mut(kernel).zip(filters) {
            let from = &filter[channel * kernel..][..kernel];
            to.iter_mut().zip(from.iter().rev()).for_each(|(to, from)| *to = *from);
        }
    }
}

/// The input's gradient by what each tap has for each pixel, which is added to the pixel that it sees.
fn spread<'w>(
    sizes: Sizes,
    (replicas, batch): (usize, usize),
    dy: &[f32],
    weights: impl Fn(usize) -> &'w [f32] + Sync,
    dx: &mut [f32],
    add: bool,
) {
    let plane = sizes.plane();
    let group = group(plane, batch);
    let threads = threads_each(replicas * batch.div_ceil(group));
    let of_replicas = dx.par_chunks_exact_mut(batch * sizes.input);
    let of_replicas = of_replicas.zip(dy.par_chunks_exact(batch * sizes.output)).enumerate();
    let groups = of_replicas.flat_map(|(replica, (dx, dy))| {
        let groups = dx.par_chunks_mut(group * sizes.input);
        groups.zip(dy.par_chunks(group * sizes.output)).map(move |(dx, dy)| (replica, dx, dy))
    });
    groups.for_each(|(replica, dx, dy)| {
        let weights = View::rows(weights(replica), sizes.filters, sizes.taps, sizes.taps);
        let columns = dy.len() / sizes.filters;
        lend((sizes.filters + sizes.taps) * columns, |scratch| {
            let (rows, product) = scratch.split_at_mut(sizes.filters * columns);
            side_by_side(sizes, dy, 0..sizes.filters, rows);
            let rows = View::rows(rows, sizes.filters, columns, columns);
            multiply_on(threads, product, columns, false, weights.transposed(), rows);
            let product = &*product;
            let images = dx.par_chunks_exact_mut(sizes.input).enumerate();
            images.for_each(|(image, dx)| {
                let pixels = image * plane..(image + 1) * plane;
                lend(sizes.padded_image() + LINE, |padded| {
                    with_vectors!(s => sizes.spread(s, product, columns, pixels, padded));
                    sizes.crop(padded, add, dx);
                });
            });
        });
    });
}

/// Some filters' planes of images, side by side.
fn side_by_side(sizes: Sizes, y: &[f32], filters: Range<usize>, to: &mut [f32]) {
    let (plane, images) = (sizes.plane(), y.len() / sizes.output);
    for (filter, row) in filters.zip(to.chunks_exact_mut(images * plane)) {
        let images = y.chunks_exact(sizes.output).zip(row.chunks_exact_mut(plane));
        images.for_each(|(y, to)| put(&y[filter * plane..][..plane], false, to));
    }
}

fn weight_partial(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Convolution = bytemuck::from_bytes(p);
    let [x, dy, partial] = args else { unreachable!("three bindings") };
    let (x, dy) = (x.real(), dy.real());
    let (sizes, batch) = (Sizes::of(p), p.batch as usize);
    let (splits, columns) = (p.splits as usize, p.columns() as usize);
    let groups = p.groups as usize;
    let (plane, size) = (sizes.plane(), sizes.filters * columns);
    let total = batch * plane;
    let share = total.div_ceil(splits);
    let part = filters_each(replicas * splits * groups, sizes.filters);
    let partial =
        partial.real_mut()[..replicas * splits * groups * size].par_chunks_exact_mut(size);
    let parts = partial.enumerate().flat_map(|(at, sums)| {
        let parts = sums.par_chunks_mut(part * columns).enumerate();
        parts.map(move |(number, sums)| (at / groups, at % groups, number * part, sums))
    });
    // Images of a group lie together where there is no other.
    let together = if groups == 1 { group(plane, batch) } else { 1 };
    parts.for_each(|(at, group, first, sums)| {
        let filters = first..first + sums.len() / columns;
        let (replica, split) = (at / splits, at % splits);
        let pixels = (split * share).min(total)..total.min((split + 1) * share);
        if pixels.is_empty() {
            sums.fill(0.0);
        }
        let mut next = pixels.start;
        while next < pixels.end {
            // The rest of an image, or some whole ones.
            let (image, within) = (next / plane, next % plane);
            let whole = ((pixels.end - next) / plane).min(together);
            let (images, n) = match (within, whole) {
                (0, 1..) if plane <= LONG => (whole, whole * plane),
                _ => (1, (plane - within).min(pixels.end - next).min(LONG)),
            };
            let seen = within..within + n;
            let image = (replica * batch + image) * groups + group;
            let x = &x[image * sizes.input..][..images * sizes.input];
            let dy = &dy[image * sizes.output..][..images * sizes.output];
            add_weights(sizes, x, dy, seen, filters.clone(), (sums, columns, next > pixels.start));
            next += n;
        }
    });
}

/// Adds to, or sets, the sums of some filters' taps, and of their bias where there is a column for it,
/// over pixels of images.
fn add_weights(
    sizes: Sizes,
    x: &[f32],
    dy: &[f32],
    pixels: Range<usize>,
    filters: Range<usize>,
    (sums, columns, add): (&mut [f32], usize, bool),
) {
    let (plane, count, images) = (sizes.plane(), filters.len(), dy.len() / sizes.output);
    let n = pixels.len();
    let add_bias = |dy: View<'_>, sums: &mut [f32]| {
        if columns > sizes.taps {
            for (filter, sums) in sums.chunks_exact_mut(columns).enumerate() {
                let sum = total(&dy.data[filter * dy.row..][..n]);
                sums[sizes.taps] = if add { sums[sizes.taps] + sum } else { sum };
            }
        }
    };
    let length = images * sizes.padded_image();
    lend(length + LINE, |padded| {
        sizes.pad(x, padded);
        padded[length..].fill(0.0);
        let own = &dy[filters.start * plane..];
        let of_image = View::rows(&own[pixels.start..], count, n, plane);
        if images == 1 && sizes.is_dense() && n >= WIDE {
            let gradient = (own, pixels.clone());
            with_vectors!(s => dots::add(s, &sizes, padded, gradient, (&mut *sums, columns, add)));
            return add_bias(of_image, sums);
        }
        let mut multiply = |dy: View<'_>| {
            let seen = Seen { sizes, pixels: pixels.clone(), padded, by_pixels: true };
            multiply_made(sums, columns, add, dy, &seen);
            add_bias(dy, sums);
        };
        if images == 1 {
            return multiply(of_image);
        }
        lend(count * n, |rows| {
            side_by_side(sizes, dy, filters.clone(), rows);
            multiply(View::rows(rows, count, n, n));
        });
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
            for split in 0..p.splits as usize {
                let row = (r * p.splits as usize + split) * size + o * p.columns as usize;
                let add = p.accumulate != 0 || split > 0;
                put(&partial[row + p.first as usize..][..count], add, gradient);
            }
        });
    }
}
