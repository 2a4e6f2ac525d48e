//! The weights' gradient of wide planes: inner products of the output's gradient and of what a tap sees.
//! In an image with its padding that is the same rows for all taps, shifted; the gradient's rows are
//! laid out as far apart, with zeros in between: of an image with infinite pixels, more sums are no
//! numbers than need be.

use std::ops::Range;

use fearless_simd::Simd;
use fearless_simd::prelude::*;

use super::images::Sizes;
use crate::cpu::scratch::lend;
use crate::cpu::vector::{from_fn, lanes, load, splat};

/// Filters by taps whose sums fit sixteen registers, with a vector of each tap.
const FILTERS: usize = 5;
const TAPS: usize = 2;

/// sums[filter][tap] (+)= over some pixels of one image, gradient[filter][pixel] · what the tap sees
/// there. The planes of `gradient` are whole, there are some pixels, and the stride is one. After the image
/// with its padding lies a line of zeros.
#[inline(always)]
pub(super) fn add<S: Simd>(
    s: S,
    sizes: &Sizes,
    padded: &[f32],
    (gradient, pixels): (&[f32], Range<usize>),
    (sums, columns, add): (&mut [f32], usize, bool),
) {
    let [pitch, width] = [sizes.pitch(), sizes.out[1]];
    let rows = pixels.start / width..pixels.end.div_ceil(width);
    let length = ((rows.len() - 1) * pitch + width).next_multiple_of(lanes::<S>());
    let count = sums.len() / columns;
    let image = &padded[rows.start * pitch..];
    lend(
        FILTERS.min(count) * length,
        #[inline(always)]
        |spread| {
            for first in (0..count).step_by(FILTERS) {
                let filters = FILTERS.min(count - first);
                let spread = &mut spread[..filters * length];
                for (filter, spread) in spread.chunks_exact_mut(length).enumerate() {
                    let plane = &gradient[(first + filter) * sizes.plane()..];
                    spread.fill(0.0);
                    for (row, to) in rows.clone().zip(spread.chunks_mut(pitch)) {
                        let seen = pixels.start.max(row * width)..pixels.end.min((row + 1) * width);
                        let to = &mut to[seen.start - row * width..][..seen.len()];
                        to.copy_from_slice(&plane[seen]);
                    }
                }
                let sums = &mut sums[first * columns..];
                let whole = sizes.taps / TAPS * TAPS;
                macro_rules! by_filters {
                    ($taps:expr, $t:expr, $($r:literal)*) => {
                        match filters {
                            $($r => tiles::<S, $r, $t>(s, sizes, image, spread, $taps, (sums, columns, add)),)*
                            filters => unreachable!("a tile of {filters} filters"),
                        }
                    };
                }
                by_filters!(0..whole, TAPS, 1 2 3 4 5);
                by_filters!(whole..sizes.taps, 1, 1 2 3 4 5);
            }
        },
    );
}

/// Sums of `R` filters by taps, `T` at a time.
#[inline(always)]
fn tiles<S: Simd, const R: usize, const T: usize>(
    s: S,
    sizes: &Sizes,
    image: &[f32],
    spread: &[f32],
    taps: Range<usize>,
    (sums, columns, add): (&mut [f32], usize, bool),
) {
    let length = spread.len() / R;
    let gradients: [&[f32]; R] = from_fn(
        #[inline(always)]
        |r| &spread[r * length..][..length],
    );
    for first in taps.step_by(T) {
        let seen: [&[f32]; T] = from_fn(
            #[inline(always)]
            |t| &image[sizes.tap(first + t)..][..length],
        );
        let mut products = [[splat(s, 0.0); T]; R];
        for at in (0..length).step_by(lanes::<S>()) {
            let x: [S::f32s; T] = from_fn(
                #[inline(always)]
                |t| load(s, &seen[t][at..]),
            );
            for r in 0..R {
                let y: S::f32s = load(s, &gradients[r][at..]);
                for t in 0..T {
                    products[r][t] = y.mul_add(x[t], products[r][t]);
                }
            }
        }
        for r in 0..R {
            let sums = &mut sums[r * columns + first..][..T];
            for t in 0..T {
                let product = products[r][t].reduce_sum();
                sums[t] = if add { sums[t] + product } else { product };
            }
        }
    }
}
