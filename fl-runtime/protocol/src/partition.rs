//! Dealing the rows of one data set out to many clients.
//!
//! ```
//! use tern_protocol::partition::{Partition, by_value, partition};
//!
//! # fn main() -> tern_protocol::Result<()> {
//! // A hundred rows of ten classes, for five clients that see few classes each.
//! let labels: Vec<u32> = (0..100).map(|row| row % 10).collect();
//! let parts = partition(&labels, 5, Partition::Dirichlet(0.3), 1)?;
//! assert_eq!(parts.len(), 5);
//! assert_eq!(parts.iter().map(Vec::len).sum::<usize>(), 100);
//!
//! // Or a client for each user.
//! assert_eq!(by_value(&["ann", "bob", "ann"]), [vec![0, 2], vec![1]]);
//! # Ok(())
//! # }
//! ```

use tern_shaders::kernels::data::permute;
use tern_shaders::kernels::random::pcg4d;

use crate::{Error, Result};

/// How rows are dealt out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Partition {
    /// At random, to each client as many as to the next.
    Iid,
    /// The rows of each class at random, in shares from a symmetric Dirichlet distribution: the
    /// smaller the concentration, the fewer classes a client sees (Hsu et al. 2019, "Measuring
    /// the Effects of Non-Identical Data Distribution for Federated Visual Classification").
    Dirichlet(f64),
}

/// The rows of each client, every row once. `labels` has the class of each row. Some clients of
/// a skewed partition may have none.
///
/// # Errors
/// [`Error::Value`] for no client, more clients than rows, or a concentration that isn't
/// positive.
pub fn partition(
    labels: &[u32],
    clients: usize,
    how: Partition,
    seed: u32,
) -> Result<Vec<Vec<usize>>> {
    if clients == 0 || clients > labels.len() {
        let expected = format!("1 to {} (the rows)", labels.len());
        return Err(Error::value("clients", clients, expected));
    }
    let mut parts = vec![Vec::new(); clients];
    match how {
        Partition::Iid => {
            for (place, row) in
                shuffled(&(0..labels.len()).collect::<Vec<_>>(), seed, 0).enumerate()
            {
                parts[place * clients / labels.len()].push(row);
            }
        }
        Partition::Dirichlet(alpha) => {
            if !(alpha > 0.0 && alpha.is_finite()) {
                return Err(Error::value("concentration", alpha, "above 0"));
            }
            let mut classes: std::collections::BTreeMap<u32, Vec<usize>> = Default::default();
            for (row, label) in labels.iter().enumerate() {
                classes.entry(*label).or_default().push(row);
            }
            for (class, rows) in classes {
                let mut draws = Draws::new(seed, class);
                let shares: Vec<f64> = (0..clients).map(|_| draws.gamma(alpha)).collect();
                let total: f64 = shares.iter().sum::<f64>().max(f64::MIN_POSITIVE);
                let mut shuffled =
                    shuffled(&rows, seed, class.wrapping_add(1)).enumerate().peekable();
                let mut end = 0.0;
                for (client, share) in shares.iter().enumerate() {
                    end += share / total * rows.len() as f64;
                    let last = client + 1 == clients;
                    while let Some((_, row)) =
                        shuffled.next_if(|(place, _)| last || (*place as f64) < end.round())
                    {
                        parts[client].push(row);
                    }
                }
            }
        }
    }
    for part in &mut parts {
        part.sort_unstable();
    }
    Ok(parts)
}

/// Rows grouped by a value: a client for each, in the order in which the values first occur.
pub fn by_value<T: Ord>(values: &[T]) -> Vec<Vec<usize>> {
    let mut client: std::collections::BTreeMap<&T, usize> = Default::default();
    let mut parts: Vec<Vec<usize>> = Vec::new();
    for (row, value) in values.iter().enumerate() {
        let at = *client.entry(value).or_insert_with(|| {
            parts.push(Vec::new());
            parts.len() - 1
        });
        parts[at].push(row);
    }
    parts
}

/// The rows in a random order.
fn shuffled(rows: &[usize], seed: u32, stream: u32) -> impl Iterator<Item = usize> {
    let count = rows.len() as u32;
    (0..count).map(move |i| rows[permute(i, count, [seed, stream]) as usize])
}

/// Random numbers of a stream.
struct Draws {
    key: [u32; 2],
    next: u32,
}

impl Draws {
    fn new(seed: u32, stream: u32) -> Self {
        Draws { key: [seed, stream], next: 0 }
    }

    /// Uniform in (0, 1).
    fn uniform(&mut self) -> f64 {
        let [a, b, ..] = pcg4d([self.next, 0x5e11, self.key[0], self.key[1]]);
        self.next += 1;
        ((f64::from(a) * 4_294_967_296.0 + f64::from(b)) + 0.5) / f64::powi(2.0, 64)
    }

    /// Standard normal (Box and Muller).
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Gamma with scale 1 (Marsaglia and Tsang 2000; shapes below 1 by their section 6).
    fn gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            let power = self.uniform().powf(1.0 / shape);
            return self.gamma(shape + 1.0) * power;
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && self.uniform().ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(rows: usize) -> Vec<u32> {
        (0..rows as u32).map(|i| i * 7 % 10).collect()
    }

    fn assert_every_row_once(parts: &[Vec<usize>], rows: usize) {
        let mut all = parts.concat();
        all.sort_unstable();
        assert_eq!(all, (0..rows).collect::<Vec<_>>());
    }

    #[test]
    fn an_even_partition_deals_every_row_once() {
        let labels = labels(1003);
        let parts = partition(&labels, 10, Partition::Iid, 1).unwrap();
        assert_every_row_once(&parts, 1003);
        assert!(parts.iter().all(|part| (100..=101).contains(&part.len())));
        assert_ne!(parts, partition(&labels, 10, Partition::Iid, 2).unwrap());
    }

    #[test]
    fn the_smaller_the_concentration_the_fewer_classes() {
        let labels = labels(10_000);
        // Mean share of a client's largest class.
        let skew = |alpha: f64| {
            let parts = partition(&labels, 50, Partition::Dirichlet(alpha), 3).unwrap();
            assert_every_row_once(&parts, 10_000);
            let largest = parts.iter().filter(|part| !part.is_empty()).map(|part| {
                let mut counts = [0; 10];
                part.iter().for_each(|row| counts[labels[*row] as usize] += 1);
                f64::from(*counts.iter().max().unwrap()) / part.len() as f64
            });
            let shares: Vec<f64> = largest.collect();
            shares.iter().sum::<f64>() / shares.len() as f64
        };
        let (even, skewed, single) = (skew(1000.0), skew(0.5), skew(0.01));
        assert!(even < 0.16, "{even}");
        assert!((0.3..0.6).contains(&skewed), "{skewed}");
        assert!(single > 0.85, "{single}");
    }

    #[test]
    fn gamma_draws_have_their_moments() {
        for shape in [0.3, 1.0, 4.5] {
            let mut draws = Draws::new(5, 6);
            let n = 20_000;
            let x: Vec<f64> = (0..n).map(|_| draws.gamma(shape)).collect();
            let mean = x.iter().sum::<f64>() / f64::from(n);
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / f64::from(n);
            assert!((mean - shape).abs() < 0.05 * (1.0 + shape), "{shape}: mean {mean}");
            assert!((variance - shape).abs() < 0.1 * (1.0 + shape), "{shape}: {variance}");
        }
    }

    /// Expected are the numbers of tests/fixtures/make_partition.py.
    #[test]
    fn draws_are_those_of_another_implementation() {
        let near = |x: f64, expected: f64| {
            assert!((x - expected).abs() <= 1e-12 * expected.abs(), "{x}, expected {expected}");
        };
        let mut draws = Draws::new(5, 6);
        for expected in [0.39715631351230035, 0.9209821463074439, 0.2595219665600744] {
            assert_eq!(draws.uniform(), expected);
        }
        // Where the last of 64 bits count.
        draws.next = 5_848_576;
        assert_eq!(draws.uniform(), 2.772577866631614e-07);
        let mut draws = Draws::new(5, 6);
        for expected in [1.1949084464188546, 0.7221345059015594, -1.3582730656771038] {
            near(draws.normal(), expected);
        }
        for (shape, sum, last) in [
            (0.3, 275.4157246522574, 0.1494954780107902),
            (1.0, 1016.6258241416366, 0.072863617434892),
            (4.5, 4485.617588080979, 3.711159847133649),
        ] {
            let mut draws = Draws::new(5, 6);
            let drawn: Vec<f64> = (0..1000).map(|_| draws.gamma(shape)).collect();
            near(drawn.iter().sum(), sum);
            near(drawn[999], last);
        }
        let parts = partition(&[0; 100], 7, Partition::Dirichlet(0.5), 3).unwrap();
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [37, 0, 42, 9, 1, 11, 0]);
    }

    #[test]
    fn no_row_is_lost_where_all_shares_are_zero() {
        let parts = partition(&labels(30), 3, Partition::Dirichlet(1e-7), 1).unwrap();
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [0, 0, 30]);
    }

    #[test]
    fn there_may_be_as_many_clients_as_rows() {
        for how in [Partition::Iid, Partition::Dirichlet(1.0)] {
            assert_every_row_once(&partition(&labels(10), 10, how, 1).unwrap(), 10);
        }
    }

    #[test]
    fn values_become_clients_in_their_order() {
        assert_eq!(by_value(&["b", "a", "b", "c", "a"]), [vec![0, 2], vec![1, 4], vec![3]]);
    }

    #[test]
    fn impossible_partitions_are_named() {
        for (clients, how) in
            [(0, Partition::Iid), (11, Partition::Iid), (2, Partition::Dirichlet(0.0))]
        {
            assert!(partition(&labels(10), clients, how, 1).is_err());
        }
    }
}
