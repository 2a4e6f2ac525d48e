//! Sums of what clients measured, under the masks of their updates: words behind a vector's.
//!
//! For each metric that the plan names there are two numbers, the value times the client's samples,
//! with 32 bits after the binary point, and the samples, which are zero for who has no such metric.
//! A number is 128 bits, of two's complement, in limbs that leave room for the sum over the cohort,
//! a limb a word: the sums of the words give the sum of the numbers, mod 2^128, and nothing of a
//! single client's. |value| is at most 10^12, below 2^40; samples are below 2^32, and cohorts have
//! at most 2^14 members, so that no sum reaches 2^127.

use tern_secagg::Packing;

use crate::metrics::{Metrics, is_measured};

/// Bits after the binary point.
const FRACTION_BITS: i32 = 32;
/// Bits of a number.
const BITS: u32 = 128;

/// Where the numbers are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    names: Vec<String>,
    limb_bits: u32,
}

impl Measured {
    /// Behind vectors of this packing, for the sum of up to `cohort` clients.
    pub(crate) fn new(names: &[String], packing: Packing, cohort: u32) -> Self {
        // ⌈log2 cohort⌉ bits more than those of a limb: cohort · (2^limb − 1) < 2^bits.
        let room = cohort.max(1).next_power_of_two().trailing_zeros();
        let limb_bits = packing.bits().saturating_sub(room).max(1);
        Measured { names: names.to_vec(), limb_bits }
    }

    fn limbs(&self) -> usize {
        BITS.div_ceil(self.limb_bits) as usize
    }

    /// Words of all numbers.
    pub fn words(&self) -> usize {
        2 * self.limbs() * self.names.len()
    }

    /// The words of a client.
    pub fn encode(&self, samples: u32, metrics: &Metrics) -> Vec<u32> {
        let mut words = Vec::with_capacity(self.words());
        let mut write = |number: u128| {
            let limb = |at: u32| (number >> (at * self.limb_bits)) & ((1 << self.limb_bits) - 1);
            words.extend((0..self.limbs() as u32).map(|at| limb(at) as u32));
        };
        for name in &self.names {
            let (value, samples) = match metrics.get(name) {
                Some(value) if is_measured(*value) => (*value, samples),
                _ => (0.0, 0),
            };
            let fixed = (value * f64::powi(2.0, FRACTION_BITS)).round() as i128;
            write((fixed * i128::from(samples)) as u128);
            write(samples.into());
        }
        words
    }

    /// The means over clients that have `samples` together, weighted by samples. One that no clients
    /// could have measured is left out: somebody sent other words.
    pub fn means(&self, sums: &[u32], samples: u64) -> Metrics {
        let number = |limbs: &[u32]| {
            let shifted =
                (0..).zip(limbs).map(|(at, limb)| u128::from(*limb) << (at * self.limb_bits));
            shifted.fold(0, u128::wrapping_add)
        };
        let mut means = Metrics::new();
        for (name, sums) in self.names.iter().zip(sums.chunks_exact(2 * self.limbs())) {
            let (values, weights) = sums.split_at(self.limbs());
            let (value, weight) = (number(values) as i128, number(weights));
            if weight == 0 {
                continue;
            }
            // In whole numbers, so that no mean is beyond what was measured.
            let mean = match i128::try_from(weight) {
                Ok(divisor) if weight <= samples.into() => value / divisor,
                _ => i128::MAX,
            };
            let mean = mean as f64 / f64::powi(2.0, FRACTION_BITS);
            if is_measured(mean) {
                means.insert(name.clone(), mean);
            } else {
                tracing::warn!(name, mean, weight, samples, "no sum of a metric");
            }
        }
        means
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn measured(words: usize, bits: u32, cohort: u32) -> (Packing, Measured) {
        let packing = Packing::new(words, bits).unwrap();
        let names = ["loss", "accuracy"].map(String::from);
        (packing, Measured::new(&names, packing, cohort))
    }

    /// The words of so many clients with the same, added up as words of a packing are.
    fn sum(packing: Packing, words: &[u32], clients: u32) -> Vec<u32> {
        words.iter().map(|word| word.wrapping_mul(clients) & packing.modulus_mask()).collect()
    }

    #[test]
    fn the_largest_sums_of_the_largest_cohorts_fit() {
        // Words of fixed point, and of lanes with the fewest bits.
        for (bits, cohort) in [(32, 1 << 14), (32, 1), (30, 3), (22, 1_023), (32, 12_345)] {
            let (packing, measured) = measured(64, bits, cohort);
            for value in [1e12, -1e12, 0.0, -0.375] {
                let metrics = Metrics::from([("loss".to_string(), value)]);
                let words = measured.encode(u32::MAX, &metrics);
                assert_eq!(words.len(), measured.words());
                let samples = u64::from(u32::MAX) * u64::from(cohort);
                let means = measured.means(&sum(packing, &words, cohort), samples);
                assert_eq!(means, metrics, "{bits} {cohort}");
            }
        }
    }

    #[test]
    fn what_cannot_be_a_sum_is_left_out() {
        let (_, measured) = measured(64, 32, 10);
        let metrics = Metrics::from([("loss".to_string(), 2.0), ("accuracy".to_string(), 0.5)]);
        let mut words = measured.encode(5, &metrics);
        assert_eq!(measured.means(&words, 5), metrics);
        // More samples than there are.
        assert!(measured.means(&words, 4).is_empty());
        // A mean beyond all that is measured.
        words[measured.limbs() - 1] = 1 << 10;
        assert_eq!(measured.means(&words, 5).keys().collect::<Vec<_>>(), ["accuracy"]);
        // A name that the plan hasn't is not sent, nor is what is no number.
        let others = Metrics::from([("age".to_string(), 2.0), ("loss".to_string(), f64::NAN)]);
        assert_eq!(measured.encode(5, &others), vec![0; measured.words()]);
    }

    proptest! {
        #[test]
        fn means_are_those_of_the_clear(
            clients in proptest::collection::vec((1u32..1 << 20, -1e3f64..1e3, any::<bool>()), 1..9),
            bits in 22u32..=32,
        ) {
            let (packing, measured) = measured(64, bits, 8);
            let mut sum = vec![0u32; measured.words()];
            let mut all = Vec::new();
            for (samples, loss, has) in &clients {
                let mut metrics = Metrics::from([("loss".to_string(), *loss)]);
                if *has {
                    metrics.insert("accuracy".to_string(), loss / 7.0);
                }
                let words = measured.encode(*samples, &metrics);
                sum.iter_mut().zip(words).for_each(|(sum, word)| *sum = sum.wrapping_add(word));
                all.push((*samples, metrics));
            }
            sum.iter_mut().for_each(|word| *word &= packing.modulus_mask());
            let samples = clients.iter().map(|(samples, ..)| u64::from(*samples)).sum();
            let ours = measured.means(&sum, samples);
            let clear = crate::metrics::mean(all.iter().map(|(samples, m)| (*samples, m)));
            prop_assert_eq!(ours.len(), clear.len());
            for (name, mean) in clear {
                prop_assert!((ours[&name] - mean).abs() < 1e-9, "{} {} {}", name, ours[&name], mean);
            }
        }
    }
}
