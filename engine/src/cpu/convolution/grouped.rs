//! Convolutions of channels in groups: in an image the channels of a group lie together, as an image of its
//! own does. Where a filter is alone in its group, or almost, as in depthwise convolutions, there is no matrix
//! to multiply by: each vector of pixels is summed over the taps.

use fearless_simd::Simd;
use fearless_simd::prelude::*;
use rayon::prelude::*;
use tern_shaders::kernels::convolution::Convolution;

use super::images::Sizes;
use super::{convolve, spread, turn};
use crate::cpu::isa::with_vectors;
use crate::cpu::scratch::{LINE, lend};
use crate::cpu::vector::{lanes, load, splat, store};

/// Filters of a group from which a product takes less time.
const FEW: usize = 4;

/// y (+)= the convolution, by filters of each replica; where there is a bias, `y` has it.
pub(super) fn forward<'w>(
    p: &Convolution,
    x: &[f32],
    weights: impl Fn(usize) -> &'w [f32] + Sync,
    y: &mut [f32],
) {
    let sizes = Sizes::of(p);
    let images = y.par_chunks_exact_mut(sizes.output).zip(x.par_chunks_exact(sizes.input));
    images.enumerate().for_each(|(at, (y, x))| {
        let weights = of_group(p, sizes, &weights, at);
        one(sizes, x, weights, y, p.bias != 0);
    });
}

/// dx (+)= the gradient.
pub(super) fn input_backward<'w>(
    p: &Convolution,
    dy: &[f32],
    weights: impl Fn(usize) -> &'w [f32] + Sync,
    dx: &mut [f32],
    add: bool,
) {
    let sizes = Sizes::of(p);
    let images = dx.par_chunks_exact_mut(sizes.input).zip(dy.par_chunks_exact(sizes.output));
    images.enumerate().for_each(|(at, (dx, dy))| {
        let weights = of_group(p, sizes, &weights, at);
        let Some(backward) = sizes.backward().filter(|b| b.filters < FEW) else {
            return spread(sizes, (1, 1), dy, |_| weights, dx, add);
        };
        lend(weights.len(), |turned| {
            let turned = &mut turned[..weights.len()];
            turn(sizes, weights, turned);
            one(backward, dy, turned, dx, add);
        });
    });
}

/// Filters of a group, whose image is the one of this number.
fn of_group<'w>(
    p: &Convolution,
    sizes: Sizes,
    weights: impl Fn(usize) -> &'w [f32],
    number: usize,
) -> &'w [f32] {
    let (groups, batch) = (p.groups as usize, p.batch as usize);
    let count = sizes.filters * sizes.taps;
    &weights(number / groups / batch)[number % groups * count..][..count]
}

/// y (+)= the convolution of an image.
fn one(sizes: Sizes, x: &[f32], weights: &[f32], y: &mut [f32], add: bool) {
    if sizes.filters >= FEW || !sizes.is_dense() {
        return convolve(sizes, (1, 1), x, |_| weights, y, add);
    }
    let length = sizes.padded_image();
    lend(length + LINE, |padded| {
        sizes.pad(x, padded);
        padded[length..].fill(0.0);
        let filters = y.chunks_exact_mut(sizes.plane()).zip(weights.chunks_exact(sizes.taps));
        for (y, filter) in filters {
            with_vectors!(s => slide(s, sizes, padded, filter, y, add));
        }
    });
}

/// y (+)= a filter's sums at each pixel of an image with its padding and a line more.
#[inline(always)]
fn slide<S: Simd>(s: S, sizes: Sizes, padded: &[f32], filter: &[f32], y: &mut [f32], add: bool) {
    sizes.runs(
        0..sizes.plane(),
        #[inline(always)]
        |at, n, from| {
            for (first, y) in
                (0..).step_by(lanes::<S>()).zip(y[at..at + n].chunks_mut(lanes::<S>()))
            {
                let seen = &padded[from + first..];
                let mut sum: S::f32s = splat(s, 0.0);
                for (tap, weight) in sizes.places(0..sizes.taps).zip(filter) {
                    sum = load::<S, S::f32s>(s, &seen[tap..]).mul_add(splat(s, *weight), sum);
                }
                match y.len() == lanes::<S>() {
                    true if add => store(y, load::<S, S::f32s>(s, y) + sum),
                    true => store(y, sum),
                    false => {
                        let mut rest = [0.0; LINE];
                        store(&mut rest, sum);
                        let rest = y.iter_mut().zip(rest);
                        rest.for_each(|(y, x)| *y = if add { *y + x } else { x });
                    }
                }
            }
        },
    );
}
