//! Metrics: ranks of targets, counts of hits, the largest of each row. No gradients.
//!
//! ```rust
//! # use tern_engine::{Arena, Device, Init, Parameters};
//! use tern_engine::{Data, Element, Graph};
//!
//! # fn main() -> tern_engine::Result<()> {
//! # let mut parameters = Parameters::new();
//! # parameters.add("weight", &[1], Init::Zeros)?;
//! # let arena = Arena::new(&Device::cpu(), &parameters, &[1])?;
//! let mut graph = Graph::new(&arena);
//! let logits = graph.input("logits", &[2, 3], Element::F32);
//! let targets = graph.input("targets", &[2], Element::U32);
//! let counts = graph.accuracy(logits, targets, 2)?;
//! let mut plan = graph.forward()?;
//! plan.write(logits, &Data::F32(vec![0.1, 0.7, 0.2, 0.1, 0.7, 0.2]))?;
//! plan.write(targets, &Data::U32(vec![1, 2]))?;
//! plan.run(1)?;
//! // The first row is a hit, the second one only among the best two; both have a target.
//! assert_eq!(plan.read(counts)?, Data::U32(vec![1, 2, 2]));
//! # Ok(())
//! # }
//! ```

use tern_shaders::Element;
use tern_shaders::kernels::metrics::{ACCURACY, Accuracy, MAX_K, RANK, Rank, TOP_K, TopK};

use super::{Case, codes, noise};
use crate::{Data, Error, Graph, Result, Tensor};

impl Graph {
    /// How many classes come before each row's target: a larger logit, or an equal one of a
    /// lower index; `u32::MAX` for rows whose target is `u32::MAX`. Words of the targets'
    /// shape.
    ///
    /// # Errors
    /// As [`Graph::cross_entropy`].
    pub fn rank(&mut self, logits: Tensor, targets: Tensor) -> Result<Tensor> {
        let (rows, classes) = self.check_targets("rank", logits, targets)?;
        let shape = self.shape(targets).to_vec();
        let ranks = self.tensor("ranks", &shape, Element::U32);
        let args = [logits.into(), targets.into(), ranks.into()];
        self.dispatch(&RANK, &Rank { rows, classes }, &args);
        Ok(ranks)
    }

    /// Counts `[top-1 hits, top-k hits, rows with a target]` as words `[3]`, which grow with
    /// every run of the plan: read them by [`Plan::read`](crate::Plan::read), and write zeros
    /// to start over.
    ///
    /// # Errors
    /// As [`Graph::cross_entropy`].
    pub fn accuracy(&mut self, logits: Tensor, targets: Tensor, k: u32) -> Result<Tensor> {
        let ranks = self.rank(logits, targets)?;
        let counts = self.input("counts", &[3], Element::U32);
        let params = Accuracy { rows: self.len(ranks) as u32, k, accumulate: 1 };
        self.dispatch(&ACCURACY, &params, &[ranks.into(), counts.into()]);
        Ok(counts)
    }

    /// Values and places of the `k` largest of each row `[..., classes]`, largest first, ties
    /// by the lower place: floats and words `[..., k]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if a row has fewer than `k` elements, [`Error::Value`] unless `k` is
    /// between 1 and 16.
    pub fn top_k(&mut self, x: Tensor, k: u32) -> Result<(Tensor, Tensor)> {
        let (rows, classes) = self.check_rows("top_k", x)?;
        if !(1..=MAX_K).contains(&k) {
            return Err(Error::value("k of top_k", k, format!("1 to {MAX_K}")));
        }
        if k > classes {
            return Err(Error::shape("top_k", format!("{k} of each row of {:?}", self.shape(x))));
        }
        let mut shape = self.shape(x).to_vec();
        if let Some(last) = shape.last_mut() {
            *last = k as usize;
        }
        let values = self.tensor("values", &shape, Element::F32);
        let places = self.tensor("places", &shape, Element::U32);
        let args = [x.into(), values.into(), places.into()];
        self.dispatch(&TOP_K, &TopK { rows, classes, k }, &args);
        Ok((values, places))
    }
}

/// Floats on a coarse grid, so that there are ties.
fn coarse(n: usize, key: u32) -> Data {
    match noise(n, 50.0, key) {
        Data::F32(x) => Data::F32(x.into_iter().map(f32::round).collect()),
        words => words,
    }
}

/// Cases of this family.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, classes, replicas) in [
        (1u32, 1u32, 1usize),
        (3, 7, 2),
        (800, 90, 1),
        (65, 1025, 2),
        (3, 60_000, 1),
        (133, 2, 2),
        (67, 31, 3),
    ] {
        let (n, all) = (rows as usize * replicas, (rows * classes) as usize * replicas);
        let size = format!("{rows} x {classes}");
        let logits = coarse(all, 1);
        let buffers = vec![logits.clone(), codes(n, classes + 1, 2), Data::U32(vec![7; n])];
        cases.push(Case::new(&RANK, &size, &Rank { rows, classes }, replicas, buffers));
        for k in [1, 3, MAX_K] {
            if k > classes {
                continue;
            }
            let found = n * k as usize;
            let buffers = vec![logits.clone(), noise(found, 1.0, 3), Data::U32(vec![7; found])];
            let label = format!("{k} of {size}");
            cases.push(Case::new(&TOP_K, label, &TopK { rows, classes, k }, replicas, buffers));
        }
    }
    for (rows, replicas) in [(1u32, 1usize), (100, 3), (59_000, 1), (70_000, 1)] {
        for accumulate in [0, 1] {
            let buffers =
                vec![codes(rows as usize * replicas, 9, rows), Data::U32(vec![5; 3 * replicas])];
            let label = format!("{rows} accumulate {accumulate}");
            let params = Accuracy { rows, k: 3, accumulate };
            cases.push(Case::new(&ACCURACY, label, &params, replicas, buffers));
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::run_cases;
    use crate::{Arena, Device, Init, Parameters};

    #[test]
    fn cases_hold_on_every_device() {
        run_cases(&cases());
    }

    fn graph() -> Graph {
        let mut parameters = Parameters::new();
        parameters.add("w", &[1], Init::Zeros).unwrap();
        Graph::new(&Arena::new(&Device::cpu(), &parameters, &[1]).unwrap())
    }

    #[test]
    fn counts_grow_until_zeros_are_written() {
        let mut g = graph();
        let logits = g.input("logits", &[3, 4], Element::F32);
        let targets = g.input("targets", &[3], Element::U32);
        let counts = g.accuracy(logits, targets, 2).unwrap();
        let (_, places) = g.top_k(logits, 2).unwrap();
        g.keep(places);
        let mut plan = g.forward().unwrap();
        let rows = [[0.0, 3.0, 1.0, 2.0], [0.0, 3.0, 1.0, 2.0], [9.0, 0.0, 0.0, 0.0]];
        plan.write(logits, &Data::F32(rows.concat())).unwrap();
        plan.write(targets, &Data::U32(vec![3, 1, u32::MAX])).unwrap();
        plan.run(2).unwrap();
        assert_eq!(plan.read(counts).unwrap(), Data::U32(vec![2, 4, 4]));
        assert_eq!(plan.read(places).unwrap(), Data::U32(vec![1, 3, 1, 3, 0, 1]));
        plan.write(counts, &Data::U32(vec![0; 3])).unwrap();
        plan.run(1).unwrap();
        assert_eq!(plan.read(counts).unwrap(), Data::U32(vec![1, 2, 2]));
    }

    #[test]
    fn wrong_shapes_and_numbers_are_refused() {
        let mut g = graph();
        let x = g.input("x", &[3, 4], Element::F32);
        let targets = g.input("targets", &[4], Element::U32);
        assert!(g.accuracy(x, targets, 1).is_err());
        let message = g.top_k(x, 5).unwrap_err().to_string();
        assert_eq!(message, "top_k: 5 of each row of [3, 4]");
        assert_eq!(g.top_k(x, 17).unwrap_err().to_string(), "k of top_k is 17, expected 1 to 16");
    }
}
