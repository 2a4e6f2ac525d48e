//! Loops over slices in vectors, one source for all instruction sets, and exp, sigmoid and tanh
//! of vectors.
//!
//! Functions here take a token `s: S` that stands for the instruction set
//! ([`with_vectors!`](super::isa::with_vectors)), and work on vectors of its native width: a
//! compiler can't turn them into something else. What fills no vector is padded
//! ([`load_part`]).
//!
//! Errors, over all arguments: `exp` 2 units in the last place (results below 2.5e-38 become
//! zero), `sigmoid` 3, `tanh` 3, `ln` and `ln_1p` 3; the tests measure them on every instruction
//! set.

use fearless_simd::prelude::*;
use fearless_simd::{Select, Simd};

pub(super) use super::part::{load_part, store_part};

/// Lanes of the widest vectors.
pub(super) const MAX_LANES: usize = 16;

/// Lanes of a vector of 32-bit elements.
#[inline(always)]
pub(super) const fn lanes<S: Simd>() -> usize {
    <S::f32s as SimdBase<S>>::LEN
}

/// A vector of one number.
#[inline(always)]
pub(super) fn splat<S: Simd>(s: S, x: f32) -> S::f32s {
    S::f32s::splat(s, x)
}

/// The vector at the start of a slice.
#[inline(always)]
pub(super) fn load<S: Simd, V: SimdBase<S>>(s: S, x: &[V::Element]) -> V {
    V::from_slice(s, &x[..V::LEN])
}

/// Writes a vector to the start of a slice.
#[inline(always)]
pub(super) fn store<S: Simd, V: SimdBase<S>>(y: &mut [V::Element], vector: V) {
    vector.store_slice(&mut y[..V::LEN]);
}

/// An array of what a closure gives for each place. Unlike the one of the standard library it is
/// always inlined, and with it the closure: otherwise that is compiled without the vectors.
#[inline(always)]
pub(super) fn from_fn<T: Copy, const N: usize>(f: impl Fn(usize) -> T) -> [T; N] {
    if N == 0 {
        return std::array::from_fn(|_| unreachable!("an array without places"));
    }
    let mut all = [f(0); N];
    for i in 1..N {
        all[i] = f(i);
    }
    all
}

/// A closure as it is: an attribute may stand at an argument but not at the value of a `let`.
#[inline(always)]
pub(super) fn inlined<F>(f: F) -> F {
    f
}

/// Rewrites `O` slices by `f`, a vector of each at a time: `f` gets those of the `I` inputs and
/// of the outputs as they are, and gives the outputs as they shall be. All are of the length of
/// the first output, or longer.
#[inline(always)]
pub(super) fn rewrite<S: Simd, const I: usize, const O: usize>(
    s: S,
    inputs: [&[f32]; I],
    outputs: [&mut [f32]; O],
    f: impl Fn([S::f32s; I], [S::f32s; O]) -> [S::f32s; O],
) {
    let (n, width) = (outputs[0].len(), lanes::<S>());
    let inputs = inputs.map(|x| &x[..n]);
    outputs.iter().for_each(|y| assert!(y.len() >= n, "outputs are of one length"));
    let whole = n - n % width;
    for at in (0..whole).step_by(width) {
        let x = from_fn(
            #[inline(always)]
            |i| load(s, &inputs[i][at..]),
        );
        let y = from_fn(
            #[inline(always)]
            |o| load(s, &outputs[o][at..]),
        );
        // By number: an iterator over an array of vectors can keep it in memory.
        let y = f(x, y);
        for o in 0..O {
            store(&mut outputs[o][at..], y[o]);
        }
    }
    if whole < n {
        let rest = n - whole;
        let x = from_fn(
            #[inline(always)]
            |i| load_part(s, &inputs[i][whole..], rest, 0.0),
        );
        let y = from_fn(
            #[inline(always)]
            |o| load_part(s, &outputs[o][whole..], rest, 0.0),
        );
        let y = f(x, y);
        for o in 0..O {
            store_part(&mut outputs[o][whole..], rest, y[o]);
        }
    }
}

/// y (+)= f(x), where the flag says whether to add.
#[inline(always)]
pub(super) fn put<S: Simd, const I: usize>(
    s: S,
    x: [&[f32]; I],
    accumulate: bool,
    y: &mut [f32],
    f: impl Fn([S::f32s; I]) -> S::f32s,
) {
    if accumulate {
        rewrite(
            s,
            x,
            [y],
            #[inline(always)]
            |x, [y]| [y + f(x)],
        );
    } else {
        rewrite(
            s,
            x,
            [y],
            #[inline(always)]
            |x, _| [f(x)],
        );
    }
}

/// y (+)= x; `x` is of the length of `y`, or longer.
#[inline(always)]
pub(super) fn assign<S: Simd>(s: S, x: &[f32], accumulate: bool, y: &mut [f32]) {
    put(
        s,
        [x],
        accumulate,
        y,
        #[inline(always)]
        |[x]| x,
    );
}

/// Additions to a lane of one of the four sums before these are added up, and of such blocks
/// before the next level: rounding errors grow with a chain's length.
const CHAIN: usize = 64;

/// Σ f(x[i]), `N` slices of one length, in an order that depends on the length alone (and the
/// width of vectors).
#[inline(always)]
pub(super) fn sum<S: Simd, const N: usize>(
    s: S,
    x: [&[f32]; N],
    f: impl Fn([S::f32s; N]) -> S::f32s,
) -> f32 {
    let (n, width) = (x[0].len(), lanes::<S>());
    let x = x.map(|x| &x[..n]);
    let zero = splat(s, 0.0);
    let mut total = zero;
    let length = 4 * width * CHAIN;
    for first in (0..n).step_by(length * CHAIN) {
        let mut part = zero;
        for start in (first..n.min(first + length * CHAIN)).step_by(length) {
            let block = x.map(|x| &x[start..n.min(start + length)]);
            part += sum_block(s, block, zero, &f);
        }
        total += part;
    }
    let mut lanes = [0.0; MAX_LANES];
    store(&mut lanes, total);
    let mut half = width / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// [`sum`] of a short run, a sum a lane; four vectors at a time, that no addition waits for the
/// one before.
#[inline(always)]
fn sum_block<S: Simd, const N: usize>(
    s: S,
    x: [&[f32]; N],
    zero: S::f32s,
    f: &impl Fn([S::f32s; N]) -> S::f32s,
) -> S::f32s {
    let (n, width) = (x[0].len(), lanes::<S>());
    let at = inlined(
        #[inline(always)]
        |at| {
            f(from_fn(
                #[inline(always)]
                |i| load(s, &x[i][at..]),
            ))
        },
    );
    let mut sums = [zero; 4];
    let quads = n - n % (4 * width);
    for start in (0..quads).step_by(4 * width) {
        for k in 0..4 {
            sums[k] += at(start + k * width);
        }
    }
    let whole = n - n % width;
    for start in (quads..whole).step_by(width) {
        sums[0] += at(start);
    }
    if whole < n {
        let rest = n - whole;
        let last = f(from_fn(
            #[inline(always)]
            |i| load_part(s, &x[i][whole..], rest, 0.0),
        ));
        let inside = load_part::<S, S::f32s>(s, &[1.0; MAX_LANES], rest, 0.0);
        sums[1] += inside.simd_gt(zero).select(last, zero);
    }
    (sums[0] + sums[1]) + (sums[2] + sums[3])
}

/// The largest element; negative infinity for none. NaN is passed over.
#[inline(always)]
pub(super) fn largest<S: Simd>(s: S, x: &[f32]) -> f32 {
    largest_by(
        s,
        x,
        #[inline(always)]
        |most, x| x.simd_gt(most).select(x, most),
    )
}

/// The largest element, or NaN if one is; negative infinity for none.
#[inline(always)]
pub(super) fn largest_or_nan<S: Simd>(s: S, x: &[f32]) -> f32 {
    largest_by(
        s,
        x,
        #[inline(always)]
        |most, x| larger(s, most, x),
    )
}

/// The element that is left when `larger` has chosen between all.
#[inline(always)]
fn largest_by<S: Simd>(s: S, x: &[f32], larger: impl Fn(S::f32s, S::f32s) -> S::f32s) -> f32 {
    let (n, width) = (x.len(), lanes::<S>());
    let mut most = [splat(s, f32::NEG_INFINITY); 4];
    let quads = n - n % (4 * width);
    for start in (0..quads).step_by(4 * width) {
        for k in 0..4 {
            most[k] = larger(most[k], load(s, &x[start + k * width..]));
        }
    }
    let whole = n - n % width;
    for start in (quads..whole).step_by(width) {
        most[0] = larger(most[0], load(s, &x[start..]));
    }
    if whole < n {
        most[1] = larger(most[1], load_part(s, &x[whole..], n - whole, f32::NEG_INFINITY));
    }
    let most = larger(larger(most[0], most[1]), larger(most[2], most[3]));
    let all = most.as_slice().iter().copied();
    all.fold(f32::NEG_INFINITY, |most, x| if x <= most || most.is_nan() { most } else { x })
}

/// The larger of two vectors, element by element; NaN where one is.
#[inline(always)]
pub(super) fn larger<S: Simd>(_: S, most: S::f32s, x: S::f32s) -> S::f32s {
    (x.simd_le(most) | !most.simd_eq(most)).select(most, x)
}

/// How many elements `f` counts: it gives 1 or 0 for each of a vector's.
#[inline(always)]
pub(super) fn tally<S: Simd, V: SimdBase<S>>(
    s: S,
    x: &[V::Element],
    f: impl Fn(V) -> S::u32s,
) -> u32 {
    let mut counts = [S::u32s::splat(s, 0); 4];
    let width = lanes::<S>();
    let (quads, rest) = x.split_at(x.len() - x.len() % (4 * width));
    for quad in quads.chunks_exact(4 * width) {
        for k in 0..4 {
            counts[k] += f(load(s, &quad[k * width..]));
        }
    }
    let vectors = rest.chunks_exact(width);
    let last = vectors.remainder();
    for vector in vectors {
        counts[0] += f(load(s, vector));
    }
    let counts = (counts[0] + counts[1]) + (counts[2] + counts[3]);
    let mut sum = counts.as_slice().iter().sum();
    if let Some(filler) = last.first() {
        let last = f(load_part(s, last, last.len(), *filler));
        sum += last.as_slice()[..rest.len() % width].iter().sum::<u32>();
    }
    sum
}

// ln 2 in two parts; the first has few enough bits that its multiples by whole numbers up to
// 2^11 are exact.
const LN2_HIGH: f32 = 0.692_871_1;
const LN2_LOW: f32 = 0.000_276_086_8;
// Adding 1.5 · 2^23 rounds to a whole number, which then stands in the lowest bits.
const ROUND: f32 = 12_582_912.0;

/// x = n ln 2 + r with |r| ≤ ln 2 / 2: gives e^r − 1 and the bits of `ROUND + n`.
/// |x| must be below 2^20.
#[inline(always)]
fn reduce<S: Simd>(s: S, x: S::f32s) -> (S::f32s, S::u32s) {
    let shifted = x.mul_add(splat(s, std::f32::consts::LOG2_E), splat(s, ROUND));
    let n = shifted - ROUND;
    let r = n.mul_add(splat(s, -LN2_LOW), n.mul_add(splat(s, -LN2_HIGH), x));
    // (e^r − 1 − r) / r², interpolated at Chebyshev's points; relative error of e^r 1e-8.
    let q = r.mul_add(splat(s, 0.001_392_621_3), splat(s, 0.008_363_203));
    let q = r.mul_add(q, splat(s, 0.041_666_554));
    let q = r.mul_add(q, splat(s, 0.166_665_77));
    let q = r.mul_add(q, splat(s, 0.5));
    ((r * r).mul_add(q, r), shifted.bitcast())
}

/// 2^(n + shift) from the bits of `ROUND + n`, for n + shift from −126 to 127.
#[inline(always)]
fn power<S: Simd>(bits: S::u32s, shift: u32) -> S::f32s {
    // The upper bits of ROUND are shifted out.
    ((bits << 23) + (127u32.wrapping_add(shift) << 23)).bitcast()
}

/// e^x: 0 below −86.5, infinity above 88.73, NaN for NaN.
#[inline(always)]
pub(super) fn exp<S: Simd>(s: S, x: S::f32s) -> S::f32s {
    // Comparisons that leave a NaN as it is.
    let (low, high) = (splat(s, -86.5), splat(s, 88.73));
    let below = x.simd_lt(low);
    let bounded = below.select(low, x);
    let bounded = bounded.simd_gt(high).select(high, bounded);
    let (minus_one, bits) = reduce(s, bounded);
    // Half the power at first, since 2^128 is no f32 but e^88.7 is.
    let half = power::<S>(bits, u32::MAX);
    let y = minus_one.mul_add(half, half) * 2.0;
    let y = x.simd_gt(splat(s, 88.722_83)).select(splat(s, f32::INFINITY), y);
    below.select(splat(s, 0.0), y)
}

/// 1 / (1 + e^−x)
#[inline(always)]
pub(super) fn sigmoid<S: Simd>(s: S, x: S::f32s) -> S::f32s {
    let one = splat(s, 1.0);
    // Beyond ±88 the result has rounded to 0 or 1: no case of the exponential's ends is left.
    let limit = splat(s, 86.5);
    let low = x.simd_lt(-limit);
    let bounded = low.select(-limit, x);
    let bounded = bounded.simd_gt(limit).select(limit, bounded);
    let (minus_one, bits) = reduce(s, -bounded);
    let scale = power::<S>(bits, 0);
    let y = one / (one + minus_one.mul_add(scale, scale));
    low.select(splat(s, 0.0), y)
}

/// tanh x
#[inline(always)]
pub(super) fn tanh<S: Simd>(s: S, x: S::f32s) -> S::f32s {
    let magnitude = x.abs();
    // From 9.02 on the result rounds to 1.
    let limit = splat(s, 10.0);
    let bounded = magnitude.simd_gt(limit).select(limit, magnitude);
    let (minus_one, bits) = reduce(s, bounded + bounded);
    let scale = power::<S>(bits, 0);
    // e^2x − 1 without cancellation, so that small arguments keep their relative precision.
    let e = scale.mul_add(minus_one, scale - 1.0);
    (e / (e + 2.0)).copysign(x)
}

/// ln((1 + t) / (1 − t)) for |t| up to 1/3: twice the series of the area hyperbolic tangent, its
/// last coefficient raised for what is left out.
#[inline(always)]
fn ln_of_ratio<S: Simd>(s: S, t: S::f32s) -> S::f32s {
    let square = t * t;
    let mut q = splat(s, 0.17);
    for coefficient in [2.0 / 11.0, 2.0 / 9.0, 2.0 / 7.0, 2.0 / 5.0, 2.0 / 3.0] {
        q = q.mul_add(square, splat(s, coefficient));
    }
    (t * square).mul_add(q, t + t)
}

/// ln(1 + x) for x from 0 to 1, NaN for NaN.
#[inline(always)]
pub(super) fn ln_1p<S: Simd>(s: S, x: S::f32s) -> S::f32s {
    ln_of_ratio(s, x / (x + 2.0))
}

/// ln x for x from 1 to 2^126, NaN for NaN.
#[inline(always)]
pub(super) fn ln<S: Simd>(s: S, x: S::f32s) -> S::f32s {
    // x = 2^n m with m from √½ to √2: what is added carries the upper half into the exponent.
    let bits: S::u32s = x.bitcast();
    let one = 1f32.to_bits();
    let shifted = bits + (one - std::f32::consts::FRAC_1_SQRT_2.to_bits());
    let n: S::f32s = ((shifted >> 23) - 127).to_float();
    let m: S::f32s = (bits - (((shifted >> 23) << 23) - one)).bitcast();
    let y = ln_of_ratio(s, (m - 1.0) / (m + 1.0));
    let y = n.mul_add(splat(s, LN2_HIGH), n.mul_add(splat(s, LN2_LOW), y));
    x.simd_eq(x).select(y, x)
}

#[cfg(test)]
mod tests;
