//! Dropout.
//!
//! ```rust
//! # use tern_engine::{Arena, Device, Init, Parameters};
//! use tern_engine::Graph;
//!
//! # fn main() -> tern_engine::Result<()> {
//! # let mut parameters = Parameters::new();
//! # parameters.add("weight", &[1], Init::Zeros)?;
//! # let arena = Arena::new(&Device::cpu(), &parameters, &[1])?;
//! let mut graph = Graph::new(&arena);
//! let x = graph.constant(1.0, &[1000]);
//! let y = graph.dropout(x, 0.5)?;
//! graph.keep(y);
//! let mut plan = graph.forward()?;
//! plan.run(1)?;
//! // About half is dropped; the rest is doubled, so that the mean stays.
//! let y = plan.read(y)?.floats()?;
//! let kept = y.iter().filter(|y| **y == 2.0).count();
//! let dropped = y.iter().filter(|y| **y == 0.0).count();
//! assert_eq!(kept + dropped, 1000);
//! assert!((400..600).contains(&kept));
//! # Ok(())
//! # }
//! ```

use tern_shaders::kernels::dropout::{BACKWARD, Backward, FORWARD, Forward, threshold};
use tern_shaders::{Element, state};

use super::{Case, noise};
use crate::{Data, Error, Graph, Operand, Result, Tensor};

impl Graph {
    /// Drops elements with the probability `p` and scales the others by 1 / (1 − p). The mask
    /// depends on the replica's seed, its step and the place of the op in the graph, and is
    /// the same on every device. Leave the op out of plans that evaluate.
    ///
    /// # Errors
    /// [`Error::Value`] unless 0 ≤ p < 1.
    pub fn dropout(&mut self, x: Tensor, p: f32) -> Result<Tensor> {
        self.check_floats("dropout", x)?;
        if !(0.0..1.0).contains(&p) {
            return Err(Error::value("dropout's p", p, "0 up to but not 1"));
        }
        let (n, threshold, scale) = (self.len(x) as u32, threshold(p), 1.0 / (1.0 - p));
        let operation = self.random_op();
        let shape = self.shape(x).to_vec();
        let y = self.tensor("dropout", &shape, Element::F32);
        let params = Forward { n, threshold, scale, operation };
        self.dispatch(&FORWARD, &params, &[x.into(), Operand::State, y.into()]);
        self.on_backward(&[x], &[], &[y], move |b| {
            if let (Some(dy), Some((dx, accumulate))) = (b.gradient(y), b.target(x)) {
                let params = Backward { n, threshold, scale, operation, accumulate };
                b.dispatch(&BACKWARD, &params, &[dy.into(), Operand::State, dx.into()]);
            }
            Ok(())
        });
        Ok(y)
    }
}

/// Cases of this family.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (n, replicas, p) in [(1usize, 1, 0.5), (7, 3, 0.2), (5000, 2, 0.9), (40_000, 1, 0.0)] {
        let words = |i: u32| i.wrapping_mul(2_654_435_761);
        let state = Data::U32((0..(replicas * state::WORDS) as u32).map(words).collect());
        let (x, y) = (noise(n * replicas, 3.0, 1), noise(n * replicas, 1.0, 2));
        let (threshold, scale, operation) = (threshold(p), 1.0 / (1.0 - p), 3);
        let (label, n) = (format!("{n} at {p}"), n as u32);
        let buffers = vec![x, state, y];
        let params = Forward { n, threshold, scale, operation };
        cases.push(Case::new(&FORWARD, &label, &params, replicas, buffers.clone()));
        for accumulate in [0, 1] {
            let params = Backward { n, threshold, scale, operation, accumulate };
            let label = format!("{label} accumulate {accumulate}");
            cases.push(Case::new(&BACKWARD, label, &params, replicas, buffers.clone()));
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{gradient_check, run_cases};
    use crate::{Activation, Arena, Device, Init, Parameters};

    #[test]
    fn cases_hold_on_every_device() {
        run_cases(&cases());
    }

    #[test]
    fn gradients_match_finite_differences() {
        gradient_check(&[&[4, 15]], |g, x| {
            let mid = g.activation(x[0], Activation::Tanh);
            let left = g.dropout(mid, 0.4)?;
            let right = g.dropout(mid, 0.6)?;
            g.multiply(left, right)
        });
    }

    #[test]
    fn replicas_have_masks_of_their_own_and_wrong_probabilities_are_refused() {
        let mut parameters = Parameters::new();
        parameters.add("w", &[1], Init::Zeros).unwrap();
        let mut g = Graph::new(&Arena::new(&Device::cpu(), &parameters, &[1, 2]).unwrap());
        let x = g.constant(1.0, &[100]);
        for p in [-0.1, 1.0, f32::NAN] {
            assert!(g.dropout(x, p).is_err(), "{p}");
        }
        let y = g.dropout(x, 0.5).unwrap();
        g.keep(y);
        let mut plan = g.forward().unwrap();
        plan.run(1).unwrap();
        let values = plan.read_f64(y).unwrap();
        assert_ne!(values[..100], values[100..]);
    }
}
