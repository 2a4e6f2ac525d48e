//! Fast sums of updates: the same integers as the reference's, through `f64` where that is exact.

use fearless_simd::Simd;
use fearless_simd::prelude::*;
use rayon::prelude::*;
use tern_shaders::kernels::aggregate::{Accumulate, Finish};
use tern_shaders::kernels::fixed;
use tern_shaders::{Arg, ReferenceFn};

use super::isa::with_vectors;
use super::mixed::{get, set};
use super::vector::{inlined, lanes};

pub(super) static TABLE: super::Table = &[
    ("aggregate/accumulate", run_accumulate as ReferenceFn<f32>),
    ("aggregate/finish", run_finish),
];

/// Elements a task takes: their sums stay in the first-level cache from client to client.
const CHUNK: usize = 2_048;
/// Added to a number below 2^51 it leaves no bit for the fraction: the sum's low bits are the
/// nearest integer, half to even, in two's complement.
pub(super) const MAGIC: f64 = 6_755_399_441_055_744.0;

fn run_accumulate(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Accumulate = bytemuck::from_bytes(p);
    let [x, weights, total] = args else { unreachable!("bindings were checked") };
    let (n, clients) = (p.n as usize, p.clients as usize);
    let (x, weights) = (x.real(), weights.word());
    let total = &mut total.word_mut()[..2 * replicas * n];
    for (r, total) in total.chunks_mut(2 * n).enumerate() {
        total.par_chunks_mut(2 * CHUNK).enumerate().for_each(|(chunk, total)| {
            for c in r * clients..(r + 1) * clients {
                let x = &x[c * p.stride as usize + chunk * CHUNK..][..total.len() / 2];
                accumulate(total, x, weights[c], p.fraction_bits);
            }
        });
    }
}

/// Adds round(x · weight · 2^fraction_bits) to pairs of words, low word first: what
/// [`Aggregator`](crate::ops::aggregate::Aggregator) does on a device, on the calling thread. `x` `[n]`,
/// `total` `[n, 2]`.
pub fn accumulate(total: &mut [u32], x: &[f32], weight: u32, fraction_bits: u32) {
    with_vectors!(s => accumulate_in(s, total, x, weight, fraction_bits));
}

#[inline(always)]
fn accumulate_in<S: Simd>(s: S, total: &mut [u32], x: &[f32], weight: u32, fraction_bits: u32) {
    let factor = f64::from(weight) * f64::powi(2.0, fraction_bits as i32);
    let largest = largest(s, x);
    // 24 bits of the float and 28 of the weight: the product is exact. The largest float is
    // below 2^51, and so is what isn't finite above it.
    let exact = weight < 1 << 28 && largest < f32::INFINITY.to_bits();
    if exact && f64::from(f32::from_bits(largest)) * factor < f64::powi(2.0, 51) {
        let term = inlined(
            #[inline(always)]
            |x: S::f64s| (x * factor + MAGIC).bitcast::<S::u64s>() - MAGIC.to_bits(),
        );
        let width = lanes::<S>();
        for (total, x) in total.chunks_mut(2 * width).zip(x.chunks(width)) {
            let (low, high) = get::<S, S::f32s>(s, x, x.len()).widen();
            for (total, x) in total.chunks_mut(width).zip([low, high]) {
                let n = total.len();
                let sum = get::<S, S::u32s>(s, total, n).bitcast::<S::u64s>() + term(x);
                set::<S, S::u32s>(total, n, sum.bitcast());
            }
        }
    } else {
        for (pair, x) in total.chunks_exact_mut(2).zip(x) {
            let sum = joined(pair).wrapping_add(fixed::fixed64(*x, weight, fraction_bits) as u64);
            pair.copy_from_slice(&[sum as u32, (sum >> 32) as u32]);
        }
    }
}

/// The bits of the largest magnitude; what is not finite has the largest of all.
#[inline(always)]
fn largest<S: Simd>(s: S, x: &[f32]) -> u32 {
    let width = lanes::<S>();
    let mut most = [S::u32s::splat(s, 0); 4];
    for x in x.chunks(4 * width) {
        for (most, x) in most.iter_mut().zip(x.chunks(width)) {
            let bits = get::<S, S::f32s>(s, x, x.len()).bitcast::<S::u32s>() & 0x7fff_ffff;
            *most = most.max(bits);
        }
    }
    most[0].max(most[1]).max(most[2].max(most[3])).reduce_max()
}

/// The number in two words, low word first.
fn joined(pair: &[u32]) -> u64 {
    u64::from(pair[0]) | u64::from(pair[1]) << 32
}

fn run_finish(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Finish = bytemuck::from_bytes(p);
    let [total, mean] = args else { unreachable!("bindings were checked") };
    let n = p.n as usize;
    let weight = u64::from(p.weight_high) << 32 | u64::from(p.weight_low);
    let totals = total.word()[..2 * replicas * n].chunks(2 * n);
    for (total, mean) in totals.zip(mean.real_mut().chunks_mut(p.stride as usize)) {
        mean[..n]
            .par_chunks_mut(CHUNK)
            .zip(total.par_chunks(2 * CHUNK))
            .for_each(|(mean, total)| divide(total, weight, p.fraction_bits, mean));
    }
}

/// mean = total / (weight · 2^fraction_bits), correctly rounded, on the calling thread; zeros if
/// the weight, which is below 2^63, is 0. `total` `[n, 2]`, `mean` `[n]`.
pub fn divide(total: &[u32], weight: u64, fraction_bits: u32, mean: &mut [f32]) {
    with_vectors!(s => Divisor::new(weight, fraction_bits).divide_all(s, total, mean));
}

/// What a sum is divided by.
struct Divisor {
    weight: u64,
    fraction_bits: u32,
    /// weight · 2^fraction_bits
    product: f64,
}

impl Divisor {
    fn new(weight: u64, fraction_bits: u32) -> Self {
        let product = weight as f64 * f64::powi(2.0, fraction_bits as i32);
        Divisor { weight, fraction_bits, product }
    }

    /// [`fixed::mean`] of pairs, by `f64` unless its error could change the rounding.
    #[inline(always)]
    fn divide_all<S: Simd>(&self, s: S, total: &[u32], mean: &mut [f32]) {
        let width = lanes::<S>();
        for (total, mean) in total.chunks(2 * width).zip(mean.chunks_mut(width)) {
            let (first, second) = total.split_at(total.len().min(width));
            let quotient = inlined(
                #[inline(always)]
                |total: &[u32]| {
                    let total: S::i64s = get::<S, S::u32s>(s, total, total.len()).bitcast();
                    total.to_float::<S::f64s>() / S::f64s::splat(s, self.product)
                },
            );
            let (first, second) = (quotient(first), quotient(second));
            // Three roundings of half a unit in the last place each.
            let (a, b) = (first * (4.0 * f64::EPSILON), second * (4.0 * f64::EPSILON));
            let low: S::f32s = (first - a).narrow(second - b);
            let high: S::f32s = (first + a).narrow(second + b);
            set(mean, mean.len(), low);
            // Not a number, and so not equal, if the weight is 0.
            if !low.simd_eq(high).all_true() {
                for (mean, pair) in mean.iter_mut().zip(total.chunks_exact(2)) {
                    *mean = fixed::mean(joined(pair) as i64, self.weight, self.fraction_bits);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::isa::Isa;
    use super::*;

    fn sums(isa: Isa, total: &[u32], x: &[f32], weight: u32, fraction_bits: u32) -> Vec<u32> {
        let mut total = total.to_vec();
        with_vectors!(isa.level().unwrap(), s => {
            accumulate_in(s, &mut total, x, weight, fraction_bits)
        });
        total
    }

    fn mean(isa: Isa, totals: &[i64], weight: u64, fraction_bits: u32) -> Vec<f32> {
        let mut mean = vec![7.0; totals.len()];
        let divisor = Divisor::new(weight, fraction_bits);
        let words = bytemuck::cast_slice(totals);
        with_vectors!(isa.level().unwrap(), s => divisor.divide_all(s, words, &mut mean));
        mean
    }

    proptest! {
        #[test]
        fn any_floats_and_weight_add_as_the_reference_does(
            bits in proptest::collection::vec(any::<u32>(), 1..40),
            weight: u32,
            shift in 0u32..32,
            fraction_bits in 0..=fixed::MAX_FRACTION_BITS,
            small: bool,
        ) {
            // Any floats are too large to be added by vectors.
            let float = |bits: &u32| match small {
                true => (*bits as i32) as f32 / 65536.0,
                false => f32::from_bits(*bits),
            };
            let x: Vec<f32> = bits.iter().map(float).collect();
            let weight = weight >> shift;
            let total: Vec<u32> = bits.iter().flat_map(|bits| [u32::MAX - 7, *bits]).collect();
            let mut expected = total.clone();
            for (pair, x) in expected.chunks_exact_mut(2).zip(&x) {
                let term = fixed::fixed64(*x, weight, fraction_bits) as u64;
                let sum = joined(pair).wrapping_add(term);
                pair.copy_from_slice(&[sum as u32, (sum >> 32) as u32]);
            }
            for isa in Isa::available() {
                prop_assert_eq!(&sums(isa, &total, &x, weight, fraction_bits), &expected);
            }
        }

        #[test]
        fn halves_go_to_even_here_too(twice in -1_000_000i32..1_000_000, weight in 1u32..3) {
            let x = twice as f32 / 2.0;
            for isa in Isa::available() {
                let sum = sums(isa, &[0; 2], &[x], weight, 0);
                prop_assert_eq!(joined(&sum) as i64, fixed::fixed64(x, weight, 0));
            }
        }

        #[test]
        fn division_rounds_as_the_exact_one(
            totals in proptest::collection::vec(any::<i64>(), 1..40),
            shift in 0u32..64,
            weight in 0u64..1 << 63,
            by in 0u32..63,
            f in 0u32..=62,
        ) {
            let totals: Vec<i64> = totals.iter().map(|total| total >> shift).collect();
            let weight = weight >> by;
            for isa in Isa::available() {
                for (mean, total) in mean(isa, &totals, weight, f).iter().zip(&totals) {
                    let expected = fixed::mean(*total, weight, f);
                    prop_assert_eq!(mean.to_bits(), expected.to_bits(), "{}", isa);
                }
            }
        }
    }
}
