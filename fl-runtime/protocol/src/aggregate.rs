//! Sums of updates as they come in: addition of integers is associative, so neither the order
//! of arrival nor a restart changes a bit.

use tern_engine::ops::aggregate;

/// A weighted sum of vectors in 64-bit fixed point: the same bits as
/// [`Aggregator`](tern_engine::ops::aggregate::Aggregator) gives on any device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Total {
    /// Pairs of words, low word first.
    sum: Vec<u32>,
    fraction_bits: u32,
    weight: u64,
}

impl Total {
    /// An empty sum of vectors of `elements`. |x| · weight · 2^fraction_bits, summed over all
    /// that is added, must stay below 2^63.
    pub fn new(elements: usize, fraction_bits: u32) -> Self {
        Total { sum: vec![0; 2 * elements], fraction_bits, weight: 0 }
    }

    /// Counts the weight of a vector whose parts are to be added.
    pub fn begin(&mut self, weight: u32) {
        self.weight += u64::from(weight);
    }

    /// Adds a part of a vector, from element `at` on.
    pub fn add(&mut self, at: usize, part: &[f32], weight: u32) {
        let sum = &mut self.sum[2 * at..2 * (at + part.len())];
        aggregate::accumulate(sum, part, weight, self.fraction_bits);
    }

    /// Adds a sum of other vectors. Whether it could: it is of as many elements in as many fraction
    /// bits.
    pub fn merge(&mut self, other: &Total) -> bool {
        let alike = self.sum.len() == other.sum.len() && self.fraction_bits == other.fraction_bits;
        if alike {
            let pairs = self.sum.as_chunks_mut::<2>().0.iter_mut();
            for (sum, other) in pairs.zip(other.sum.as_chunks::<2>().0) {
                let joined = |[low, high]: [u32; 2]| u64::from(low) | u64::from(high) << 32;
                let both = joined(*sum).wrapping_add(joined(*other));
                *sum = [both as u32, (both >> 32) as u32];
            }
            self.weight += other.weight;
        }
        alike
    }

    /// Its words: pairs, low word first.
    pub fn words(&self) -> &[u32] {
        &self.sum
    }

    /// A sum from its words and its weight.
    pub fn from_words(words: Vec<u32>, fraction_bits: u32, weight: u64) -> Self {
        Total { sum: words, fraction_bits, weight }
    }

    /// The sum of weights.
    pub fn weight(&self) -> u64 {
        self.weight
    }

    /// The mean, each element correctly rounded; zeros if nothing was added.
    pub fn mean(&self) -> Vec<f32> {
        let mut mean = vec![0.0; self.sum.len() / 2];
        aggregate::divide(&self.sum, self.weight, self.fraction_bits, &mut mean);
        mean
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tern_shaders::kernels::aggregate::{Accumulate, Finish, accumulate, finish};

    proptest! {
        #[test]
        fn equals_the_reference_in_any_order(
            updates in proptest::collection::vec(
                (proptest::array::uniform7(-8f32..8.0), 1u32..2_000_000), 1..9),
            cut in 0usize..7,
            turn in 0usize..8,
        ) {
            let x: Vec<f32> = updates.iter().flat_map(|u| u.0).collect();
            let weights: Vec<u32> = updates.iter().map(|u| u.1).collect();
            let clients = weights.len() as u32;
            let p = Accumulate { n: 7, stride: 7, clients, fraction_bits: 30 };
            let mut total = vec![0; 14];
            accumulate(&p, 1, &x, &weights, &mut total);
            let weight: u64 = weights.iter().map(|w| u64::from(*w)).sum();
            let p = Finish {
                n: 7,
                stride: 7,
                weight_low: weight as u32,
                weight_high: (weight >> 32) as u32,
                fraction_bits: 30,
            };
            let mut mean = vec![0f32; 7];
            finish(&p, 1, &total, &mut mean);

            let mut ours = Total::new(7, 30);
            let mut turned = updates.clone();
            turned.rotate_left(turn % updates.len());
            for (x, weight) in turned {
                ours.begin(weight);
                ours.add(cut, &x[cut..], weight);
                ours.add(0, &x[..cut], weight);
            }
            prop_assert_eq!(&ours.sum, &total);
            prop_assert_eq!(ours.weight(), weight);
            prop_assert_eq!(ours.mean(), mean);

            // In two parts, through their words.
            let mut parts = [Total::new(7, 30), Total::new(7, 30)];
            for (at, (x, weight)) in updates.into_iter().enumerate() {
                let part = &mut parts[usize::from(at < turn)];
                part.begin(weight);
                part.add(0, &x, weight);
            }
            let [mut sum, other] = parts;
            prop_assert!(sum.merge(&Total::from_words(other.words().to_vec(), 30, other.weight())));
            prop_assert_eq!(&sum, &ours);
            prop_assert!(!sum.merge(&Total::new(6, 30)) && !sum.merge(&Total::new(7, 29)));
        }
    }
}
