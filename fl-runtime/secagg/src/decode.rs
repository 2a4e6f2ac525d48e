//! Polynomials from values some of which are wrong: Reed–Solomon codes over the field of
//! 2^61 − 1, decoded by Gao, "A New Algorithm for Decoding Reed-Solomon Codes" (2003), which
//! takes a square of the number of values where Berlekamp and Welch solve a linear system.
//!
//! Of n values of a polynomial with t coefficients up to ⌊(n − t) / 2⌋ may be wrong. With more of
//! them there is no answer, or another polynomial's, which only its use can tell. How long it
//! takes depends on the values: whoever decodes may know them.

use zeroize::Zeroizing;

use crate::field::{add, inverse, mul, sub};

/// Coefficients from the constant term up; the last isn't zero.
type Polynomial = Zeroizing<Vec<u64>>;

/// Where a polynomial was evaluated.
pub(crate) struct Points {
    points: Vec<u64>,
    /// Π (x − x_i).
    product: Polynomial,
    /// 1 / Π (x_i − x_j) over j ≠ i.
    weights: Vec<u64>,
}

impl Points {
    /// For values at `points`, which are distinct.
    pub(crate) fn new(points: &[u32]) -> Self {
        let points: Vec<u64> = points.iter().map(|point| u64::from(*point)).collect();
        let mut product = Zeroizing::new(vec![1]);
        for point in &points {
            // Times x, less the point times it.
            product.insert(0, 0);
            for i in 0..product.len() - 1 {
                product[i] = sub(product[i], mul(*point, product[i + 1]));
            }
        }
        let weight = |point: &u64| {
            let others = points.iter().filter(|other| *other != point);
            inverse(others.fold(1, |product, other| mul(product, sub(*point, *other))))
        };
        let weights = points.iter().map(weight).collect();
        Points { points, product, weights }
    }

    /// The polynomial of degree below the number of points that has these values.
    fn through(&self, values: &[u64]) -> Polynomial {
        let mut sum = Zeroizing::new(vec![0; self.points.len()]);
        for ((point, weight), value) in self.points.iter().zip(&self.weights).zip(values) {
            let scale = mul(*weight, *value);
            // The product without this point's factor, from the highest power down.
            let mut coefficient = 0;
            for i in (0..self.points.len()).rev() {
                coefficient = add(self.product[i + 1], mul(*point, coefficient));
                sum[i] = add(sum[i], mul(scale, coefficient));
            }
        }
        trim(&mut sum);
        sum
    }

    /// The constant term of the polynomial with `coefficients` coefficients that has all but up to
    /// ⌊(n − `coefficients`) / 2⌋ of the n values; `None` if there is none.
    pub(crate) fn constant_term(&self, values: &[u64], coefficients: usize) -> Option<u64> {
        let n = self.points.len();
        debug_assert!(values.len() == n && coefficients <= n);
        let (mut before, mut rest) = (self.product.clone(), self.through(values));
        let (mut locator_before, mut locator) = (Zeroizing::new(Vec::new()), one());
        // Euclid's algorithm, stopped halfway: rest = locator · through mod product.
        while 2 * rest.len() > n + coefficients + 1 {
            let (quotient, remainder) = divide(before, &rest);
            let next = subtract(locator_before, &quotient, &locator);
            (before, rest) = (rest, remainder);
            (locator_before, locator) = (locator, next);
        }
        let (found, remainder) = divide(rest, &locator);
        let fits = remainder.is_empty() && found.len() <= coefficients;
        fits.then(|| found.first().copied().unwrap_or(0))
    }
}

fn one() -> Polynomial {
    Zeroizing::new(vec![1])
}

fn trim(polynomial: &mut Vec<u64>) {
    while polynomial.last() == Some(&0) {
        polynomial.pop();
    }
}

/// Quotient and remainder by a divisor that isn't zero.
fn divide(mut dividend: Polynomial, divisor: &[u64]) -> (Polynomial, Polynomial) {
    let Some(leading) = divisor.last().map(|leading| inverse(*leading)) else {
        return (Zeroizing::new(Vec::new()), dividend);
    };
    let terms = (dividend.len() + 1).saturating_sub(divisor.len());
    let mut quotient = Zeroizing::new(vec![0; terms]);
    for shift in (0..terms).rev() {
        let factor = mul(dividend[shift + divisor.len() - 1], leading);
        quotient[shift] = factor;
        for (to, coefficient) in dividend[shift..].iter_mut().zip(divisor) {
            *to = sub(*to, mul(factor, *coefficient));
        }
    }
    trim(&mut dividend);
    trim(&mut quotient);
    (quotient, dividend)
}

/// a − b · c.
fn subtract(a: Polynomial, b: &[u64], c: &[u64]) -> Polynomial {
    let length = a.len().max((b.len() + c.len()).saturating_sub(1));
    let mut difference = Zeroizing::new(vec![0; length]);
    difference[..a.len()].copy_from_slice(&a);
    for (i, b) in b.iter().enumerate() {
        for (to, c) in difference[i..].iter_mut().zip(c) {
            *to = sub(*to, mul(*b, *c));
        }
    }
    trim(&mut difference);
    difference
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::P;
    use proptest::prelude::*;

    fn value(polynomial: &[u64], point: u32) -> u64 {
        polynomial.iter().rev().fold(0, |sum, c| add(mul(sum, u64::from(point)), *c))
    }

    #[test]
    fn a_line_through_five_points_with_one_wrong() {
        // 3 + 2x, of which the value at 4 should be 11.
        let points = Points::new(&[1, 2, 3, 4, 5]);
        assert_eq!(points.constant_term(&[5, 7, 9, 0, 13], 2), Some(3));
        // Three of five could be on any line.
        assert_eq!(points.constant_term(&[5, 7, 0, 0, 14], 2), None);
        assert_eq!(points.constant_term(&[0; 5], 2), Some(0));
        assert_eq!(points.constant_term(&[P - 1; 5], 1), Some(P - 1));
    }

    /// Coefficients, points, and which of the values become wrong by how much.
    fn case(
        errors: impl Fn(usize) -> std::ops::RangeInclusive<usize> + Copy,
    ) -> impl Strategy<Value = (Vec<u64>, Vec<u32>, Vec<(usize, u64)>)> {
        (1usize..30, 0usize..30).prop_flat_map(move |(threshold, spare)| {
            let n = threshold + spare;
            let wrong = (errors(spare), prop::collection::vec(1..P, n));
            let places = Just((0..n).collect::<Vec<_>>()).prop_shuffle();
            let polynomial = prop::collection::vec(0..P, threshold);
            let steps = prop::collection::vec(1u32..500, n);
            (polynomial, steps, places, wrong).prop_map(|(polynomial, steps, places, wrong)| {
                let add = |sum: &mut u32, step| {
                    *sum += step;
                    Some(*sum)
                };
                let points = steps.into_iter().scan(0, add).collect();
                let (count, by) = wrong;
                (polynomial, points, places.into_iter().zip(by).take(count).collect())
            })
        })
    }

    fn values(polynomial: &[u64], points: &[u32], wrong: &[(usize, u64)]) -> Vec<u64> {
        let mut values: Vec<u64> = points.iter().map(|point| value(polynomial, *point)).collect();
        for (place, by) in wrong {
            values[*place] = add(values[*place], *by);
        }
        values
    }

    proptest! {
        #[test]
        fn up_to_half_of_the_spare_values_may_be_wrong(
            (polynomial, points, wrong) in case(|spare| 0..=spare / 2),
        ) {
            let values = values(&polynomial, &points, &wrong);
            let found = Points::new(&points).constant_term(&values, polynomial.len());
            prop_assert_eq!(found, Some(polynomial[0]));
        }

        #[test]
        fn one_more_gives_no_answer_or_another_polynomial(
            (polynomial, points, wrong) in case(|spare| spare / 2 + 1..=spare / 2 + 1),
        ) {
            // With no spare value any values are those of a polynomial.
            prop_assume!(points.len() > polynomial.len());
            let values = values(&polynomial, &points, &wrong);
            let found = Points::new(&points).constant_term(&values, polynomial.len());
            // A random other polynomial that fits as many values is next to impossible.
            prop_assert_eq!(found, None);
        }
    }
}
