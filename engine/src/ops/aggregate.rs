//! Weighted 64-bit fixed-point accumulation: updates in any order, on any device, give the
//! same bits.
//!
//! ```rust
//! use tern_engine::ops::aggregate::Aggregator;
//! use tern_engine::{Data, Device, Element, Pass, Vector};
//!
//! # fn main() -> tern_engine::Result<()> {
//! let device = Device::cpu();
//! // The updates of two clients, which count three times and once.
//! let updates = Vector::upload(&device, &Data::F32(vec![1.0, 2.0, 4.0, 8.0]))?;
//! let mean = Vector::zeros(&device, Element::F32, 2)?;
//! let mut sum = Aggregator::new(&device, 2, 30)?;
//! let mut pass = Pass::new(&device);
//! sum.add(&mut pass, &updates, &[3, 1])?;
//! sum.finish(&mut pass, &mean)?;
//! pass.run()?;
//! assert_eq!(mean.read()?, Data::F32(vec![1.75, 3.5]));
//! # Ok(())
//! # }
//! ```

use tern_shaders::Element;
use tern_shaders::kernels::aggregate::{ACCUMULATE, Accumulate, FINISH, Finish};
use tern_shaders::kernels::fixed::MAX_FRACTION_BITS;
use tern_shaders::kernels::random::{pcg4d, uniform};

use super::Case;
use crate::pass::expect;
use crate::{Data, Device, Error, Pass, Result, Vector};

pub use crate::cpu::aggregate::{accumulate, divide};

/// Vectors that one call adds; a software device ends loops soon after.
const MAX_CLIENTS: usize = 65_000;

/// A weighted sum of vectors in the making.
pub struct Aggregator {
    total: Vector,
    n: usize,
    fraction_bits: u32,
    weight: u64,
}

impl Aggregator {
    /// An empty sum of vectors of `n` elements with `fraction_bits` bits after the binary point.
    /// |x| · weight · 2^fraction_bits, summed over all that is added, must stay below 2^63; a
    /// single term saturates at 2^62.
    ///
    /// # Errors
    /// [`Error::Value`] above 62 bits; [`Error::OutOfMemory`], device errors.
    pub async fn new_async(device: &Device, n: usize, fraction_bits: u32) -> Result<Self> {
        if fraction_bits > MAX_FRACTION_BITS {
            let expected = format!("at most {MAX_FRACTION_BITS}");
            return Err(Error::value("fraction bits", fraction_bits, expected));
        }
        let total = Vector::zeros_async(device, Element::U32, 2 * n).await?;
        Ok(Aggregator { total, n, fraction_bits, weight: 0 })
    }

    /// [`Aggregator::new_async`], waiting.
    ///
    /// # Errors
    /// As [`Aggregator::new_async`].
    #[cfg(feature = "blocking")]
    pub fn new(device: &Device, n: usize, fraction_bits: u32) -> Result<Self> {
        device.wait(Self::new_async(device, n, fraction_bits))
    }

    /// Records the addition of `weights.len()` vectors, `x` `[clients, n]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` has another length; [`Error::Value`] for no client or more than
    /// 65,000.
    pub fn add(&mut self, pass: &mut Pass, x: &Vector, weights: &[u32]) -> Result<()> {
        if weights.is_empty() || weights.len() > MAX_CLIENTS {
            let expected = format!("1 to {MAX_CLIENTS}");
            return Err(Error::value("number of weights", weights.len(), expected));
        }
        expect("aggregate", "x", x, weights.len() * self.n)?;
        let params = Accumulate {
            n: self.n as u32,
            stride: self.n as u32,
            clients: weights.len() as u32,
            fraction_bits: self.fraction_bits,
        };
        let given = pass.constant(Data::U32(weights.to_vec()));
        pass.call(&ACCUMULATE, &params, 1, &[x.into(), given, (&self.total).into()]);
        self.weight += weights.iter().map(|w| u64::from(*w)).sum::<u64>();
        Ok(())
    }

    /// Records mean `[n]` = the sum over the sum of weights, correctly rounded; 0 if nothing was
    /// added.
    ///
    /// # Errors
    /// [`Error::Shape`] if `mean` has another length.
    pub fn finish(&self, pass: &mut Pass, mean: &Vector) -> Result<()> {
        expect("aggregate", "mean", mean, self.n)?;
        let params = Finish {
            n: self.n as u32,
            stride: self.n as u32,
            weight_low: self.weight as u32,
            weight_high: (self.weight >> 32) as u32,
            fraction_bits: self.fraction_bits,
        };
        pass.call(&FINISH, &params, 1, &[(&self.total).into(), mean.into()]);
        Ok(())
    }

    /// The sum so far as pairs of words, low word first: with [`Aggregator::weight`], all that an aggregator
    /// needs to go on after a restart.
    pub fn total(&self) -> &Vector {
        &self.total
    }

    /// The sum of weights.
    pub fn weight(&self) -> u64 {
        self.weight
    }

    /// Goes on from the sum and the weight of another with as many bits.
    ///
    /// # Errors
    /// [`Error::Shape`] if `total` has another length.
    pub fn resume(&mut self, total: &Data, weight: u64) -> Result<()> {
        self.total.write(total)?;
        self.weight = weight;
        Ok(())
    }
}

/// Cases of this family.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    // The last is past 65,535 workgroups of 64.
    for (n, clients, replicas) in [(1, 1, 1), (67, 5, 3), (9, 5_000, 1), (4_200_000, 1, 1)] {
        for fraction_bits in [0, 30] {
            let x = numbers(n * clients * replicas);
            let weights = (0..clients * replicas).map(|i| (i as u32).wrapping_mul(0x9e37_79b9));
            let weights = Data::U32(weights.collect());
            let total = words(2 * n * replicas);
            let (n, label) = (n as u32, format!("{n} from {clients}, {fraction_bits} bits"));
            let p = Accumulate { n, stride: n, clients: clients as u32, fraction_bits };
            let buffers = vec![Data::F32(x), weights, Data::U32(total.clone())];
            cases.push(Case::new(&ACCUMULATE, &label, &p, replicas, buffers).tolerance(0.0));
            // Rows of the mean are longer than what is written of them.
            let stride = n + 3;
            let weight_high = clients as u32 % 3;
            let p = Finish { n, stride, weight_low: 12_345, weight_high, fraction_bits };
            let mean = Data::F32(vec![9.0; stride as usize * replicas]);
            let buffers = vec![Data::U32(total), mean];
            cases.push(Case::new(&FINISH, &label, &p, replicas, buffers).tolerance(0.0));
        }
    }
    cases
}

/// Floats of every magnitude and both signs, zeros, and what is not finite.
pub(super) fn numbers(n: usize) -> Vec<f32> {
    let odd = [0.0, -0.0, 0.5, -1.5, 2.5, f32::NAN, f32::INFINITY, 1e-40, f32::MAX, -1e9];
    let number = |i: usize| match odd.get(i % 37) {
        Some(x) => *x,
        None => {
            let [bits, scale, ..] = pcg4d([i as u32, 3, 1, 4]);
            (uniform(bits) - 0.5) * f32::powi(2.0, (scale % 40) as i32 - 30)
        }
    };
    (0..n).map(number).collect()
}

/// Words with all bits in use.
pub(super) fn words(n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| pcg4d([i, 1, 5, 9])[0]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{run_cases, software};
    use proptest::prelude::*;

    #[test]
    fn cases_hold_on_every_device() {
        run_cases(&cases());
    }

    /// The mean of some updates on a device, as bits.
    fn mean(device: &Device, updates: &[(Vec<f32>, u32)]) -> Vec<u32> {
        let n = updates[0].0.len();
        let mut sum = Aggregator::new(device, n, 36).unwrap();
        let mean = Vector::zeros(device, Element::F32, n).unwrap();
        let mut pass = Pass::new(device);
        for (x, weight) in updates {
            let x = Vector::upload(device, &Data::F32(x.clone())).unwrap();
            sum.add(&mut pass, &x, &[*weight]).unwrap();
        }
        sum.finish(&mut pass, &mean).unwrap();
        pass.run().unwrap();
        let Data::F32(mean) = mean.read().unwrap() else { panic!("floats were asked for") };
        mean.iter().map(|x| x.to_bits()).collect()
    }

    #[test]
    fn every_device_and_order_gives_the_same_bits() {
        let update = |u: u32| {
            let x = (0..130).map(|i| uniform(pcg4d([i, u, 0, 0])[0]) - 0.5).collect();
            (x, 1 + u * u)
        };
        let mut updates: Vec<_> = (0..9).map(update).collect();
        let expected = mean(&Device::reference(), &updates);
        updates.reverse();
        assert_eq!(mean(&Device::cpu(), &updates), expected);
        for (name, device) in software() {
            updates.rotate_left(2);
            assert_eq!(mean(device, &updates), expected, "{name}");
        }
        let weight: u32 = updates.iter().map(|u| u.1).sum();
        for (i, bits) in expected.iter().enumerate() {
            let sum: f64 = updates.iter().map(|u| f64::from(u.0[i]) * f64::from(u.1)).sum();
            let exact = sum / f64::from(weight);
            assert!((f64::from(f32::from_bits(*bits)) - exact).abs() < 1e-7, "{i}");
        }
    }

    proptest! {
        #[test]
        fn a_fold_goes_on_where_another_stopped(
            x in proptest::collection::vec(-4f32..4.0, 12), cut in 1u32..3,
        ) {
            let device = Device::cpu();
            let clients = |range: std::ops::Range<u32>| -> Vec<(Vec<f32>, u32)> {
                range.map(|c| (x[4 * c as usize..][..4].to_vec(), c + 7)).collect()
            };
            let mut sum = Aggregator::new(&device, 4, 36).unwrap();
            for part in [0..cut, cut..3] {
                let (total, weight) = (sum.total().read().unwrap(), sum.weight());
                sum = Aggregator::new(&device, 4, 36).unwrap();
                sum.resume(&total, weight).unwrap();
                let (values, weights): (Vec<_>, Vec<_>) = clients(part).into_iter().unzip();
                let values = Vector::upload(&device, &Data::F32(values.concat())).unwrap();
                let mut pass = Pass::new(&device);
                sum.add(&mut pass, &values, &weights).unwrap();
                pass.run().unwrap();
            }
            let out = Vector::zeros(&device, Element::F32, 4).unwrap();
            let mut pass = Pass::new(&device);
            sum.finish(&mut pass, &out).unwrap();
            pass.run().unwrap();
            let Data::F32(out) = out.read().unwrap() else { panic!("floats were asked for") };
            let bits: Vec<u32> = out.iter().map(|x| x.to_bits()).collect();
            prop_assert_eq!(bits, mean(&device, &clients(0..3)));
        }
    }

    #[test]
    fn wrong_lengths_are_refused() {
        let device = Device::cpu();
        assert!(matches!(Aggregator::new(&device, 4, 63), Err(Error::Value { .. })));
        let mut sum = Aggregator::new(&device, 4, 30).unwrap();
        let x = Vector::zeros(&device, Element::F32, 9).unwrap();
        let mut pass = Pass::new(&device);
        assert!(matches!(sum.add(&mut pass, &x, &[1, 1]), Err(Error::Shape { .. })));
        assert!(matches!(sum.add(&mut pass, &x, &[]), Err(Error::Value { .. })));
        assert!(matches!(sum.finish(&mut pass, &x), Err(Error::Shape { .. })));
        assert!(sum.resume(&Data::F32(vec![0.0; 8]), 1).is_err());
        assert_eq!(sum.weight(), 0);
    }
}
