//! Fast fold: the same integers as the twin's, through `f64` where that is exact.

use rayon::prelude::*;
use tern_shaders::cpu::fixed;
use tern_shaders::cpu::fold::{Accumulate, Finish};
use tern_shaders::{Arg, TwinFn};

pub(super) static TABLE: super::Table =
    &[("fold/accumulate", run_accumulate as TwinFn<f32>), ("fold/finish", run_finish)];

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
/// [`Fold`](crate::kernels::fold::Fold) does on a device, on the calling thread. `x` `[n]`,
/// `total` `[n, 2]`.
pub fn accumulate(total: &mut [u32], x: &[f32], weight: u32, fraction_bits: u32) {
    let pairs = total.chunks_exact_mut(2).zip(x);
    let sum = |pair: &mut [u32], term: u64| {
        let sum = (u64::from(pair[0]) | u64::from(pair[1]) << 32).wrapping_add(term);
        pair[0] = sum as u32;
        pair[1] = (sum >> 32) as u32;
    };
    // What is not finite has the largest bits of all, so that it shows in the maximum.
    let largest = x.iter().fold(0, |most, x| most.max(x.to_bits() & 0x7fff_ffff));
    let factor = f64::from(weight) * f64::powi(2.0, fraction_bits as i32);
    // 24 bits of the float and 28 of the weight: the product is exact. The largest float is
    // below 2^51, and so is what isn't finite above it.
    let exact = weight < 1 << 28 && largest < 0x7f80_0000;
    if exact && f64::from(f32::from_bits(largest)) * factor < f64::powi(2.0, 51) {
        for (pair, x) in pairs {
            let shifted = f64::from(*x) * factor + MAGIC;
            sum(pair, shifted.to_bits().wrapping_sub(MAGIC.to_bits()));
        }
    } else {
        for (pair, x) in pairs {
            sum(pair, fixed::fixed64(*x, weight, fraction_bits) as u64);
        }
    }
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
    let divisor = Divisor::new(weight, fraction_bits);
    for (mean, pair) in mean.iter_mut().zip(total.chunks_exact(2)) {
        let sum = (u64::from(pair[0]) | u64::from(pair[1]) << 32) as i64;
        *mean = divisor.divide(sum);
    }
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

    /// [`fixed::mean`], by `f64` unless its error could change the rounding.
    fn divide(&self, total: i64) -> f32 {
        let quotient = total as f64 / self.product;
        // Three roundings of half a unit in the last place each.
        let slack = quotient * (4.0 * f64::EPSILON);
        let (low, high) = ((quotient - slack) as f32, (quotient + slack) as f32);
        // Not a number, and so not equal, if the weight is 0.
        if low == high { low } else { fixed::mean(total, self.weight, self.fraction_bits) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_float_and_weight_adds_as_the_twin_does(
            bits in proptest::collection::vec(any::<u32>(), 3),
            weight: u32,
            fraction_bits in 0..=fixed::MAX_FRACTION_BITS,
        ) {
            let x: Vec<f32> = bits.iter().map(|b| f32::from_bits(*b)).collect();
            let mut total = [u32::MAX, 7, 0, 0, 5, 5];
            let mut expected = total;
            accumulate(&mut total, &x, weight, fraction_bits);
            for (pair, x) in expected.chunks_exact_mut(2).zip(&x) {
                let sum = u64::from(pair[0]) | u64::from(pair[1]) << 32;
                let sum = sum.wrapping_add(fixed::fixed64(*x, weight, fraction_bits) as u64);
                pair.copy_from_slice(&[sum as u32, (sum >> 32) as u32]);
            }
            prop_assert_eq!(total, expected);
        }

        #[test]
        fn halves_go_to_even_here_too(twice in -1_000_000i32..1_000_000, weight in 1u32..3) {
            let x = twice as f32 / 2.0;
            let mut total = [0; 2];
            accumulate(&mut total, &[x], weight, 0);
            let sum = u64::from(total[0]) | u64::from(total[1]) << 32;
            prop_assert_eq!(sum as i64, fixed::fixed64(x, weight, 0));
        }

        #[test]
        fn division_rounds_as_the_exact_one(
            total: i64, shift in 0u32..64, weight in 0u64..1 << 63, by in 0u32..63, f in 0u32..=62,
        ) {
            let (total, weight) = (total >> shift, weight >> by);
            prop_assert_eq!(
                Divisor::new(weight, f).divide(total).to_bits(),
                fixed::mean(total, weight, f).to_bits()
            );
        }
    }
}
