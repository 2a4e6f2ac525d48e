//! What the server does with the mean update of a round.
//!
//! A strategy is a small object; a host program brings its own by implementing [`Strategy`] and
//! naming it in the plan as [`StrategySpec::Custom`].
//!
//! ```
//! use tern_protocol::{Strategy, StrategyState};
//!
//! /// Follows the sign of the mean update only (signSGD).
//! struct Sign(f32);
//!
//! impl Strategy for Sign {
//!     fn name(&self) -> &str {
//!         "sign"
//!     }
//!     fn step(&self, model: &mut [f32], direction: &[f32], _: &mut StrategyState) {
//!         for (x, d) in model.iter_mut().zip(direction) {
//!             *x += if *d == 0.0 { 0.0 } else { self.0.copysign(*d) };
//!         }
//!     }
//! }
//! ```

mod adaptive;
mod average;

use std::sync::Arc;

pub use adaptive::Adaptive;
pub use average::Average;

use crate::plan::{StrategySpec, UpdateKind};
use crate::{Error, Layout, Result};

/// Vectors that a strategy keeps from round to round, each as long as the model, and the number
/// of rounds it has seen. They are stored with every round.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StrategyState {
    /// Steps done.
    pub steps: u32,
    /// The vectors; none before the first step.
    pub vectors: Vec<Vec<f32>>,
}

impl StrategyState {
    /// As bytes: steps, number of vectors, length (each `u32`), then the floats, little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        let length = self.vectors.first().map_or(0, Vec::len);
        let header = [self.steps, self.vectors.len() as u32, length as u32];
        let floats = self.vectors.iter().flatten().map(|x| x.to_bits());
        header.into_iter().chain(floats).flat_map(u32::to_le_bytes).collect()
    }

    /// Back from bytes; `None` if they are something else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (words, []) = bytes.as_chunks::<4>() else { return None };
        let words: Vec<u32> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
        let ([steps, count, length], floats) = words.split_first_chunk()?;
        if floats.len() as u64 != u64::from(*count) * u64::from(*length) {
            return None;
        }
        let vectors = floats
            .chunks_exact((*length as usize).max(1))
            .map(|vector| vector.iter().map(|bits| f32::from_bits(*bits)).collect());
        Some(StrategyState { steps: *steps, vectors: vectors.collect() })
    }
}

/// What the server does with the mean update. It must give the same bits for the same input, so
/// that a restarted round comes out the same.
pub trait Strategy: Send + Sync {
    /// Its name, as in the plan.
    fn name(&self) -> &str;

    /// Moves the model. `direction` is where clients want it to go: the mean delta, or the
    /// mean gradient negated. Padding is zero in both.
    fn step(&self, model: &mut [f32], direction: &[f32], state: &mut StrategyState);
}

impl StrategySpec {
    /// The strategy, one that the host brought for [`StrategySpec::Custom`].
    ///
    /// # Errors
    /// [`Error::Value`] if it brought none of that name.
    pub fn build(&self, own: Option<&Arc<dyn Strategy>>) -> Result<Arc<dyn Strategy>> {
        Ok(match self {
            StrategySpec::Average { learning_rate } => {
                Arc::new(Average { learning_rate: *learning_rate as f32 })
            }
            StrategySpec::Adam { learning_rate, beta1, beta2, tau } => {
                Arc::new(Adaptive::adam(*learning_rate, *beta1, *beta2, *tau))
            }
            StrategySpec::Yogi { learning_rate, beta1, beta2, tau } => {
                Arc::new(Adaptive::yogi(*learning_rate, *beta1, *beta2, *tau))
            }
            StrategySpec::Custom(name) => match own {
                Some(own) if own.name() == name => own.clone(),
                other => {
                    let given = other.map_or("none", |own| own.name());
                    return Err(Error::value("strategy brought by the program", given, name));
                }
            },
        })
    }
}

/// One step of a strategy from a mean update, in place.
pub fn advance(
    strategy: &dyn Strategy,
    kind: UpdateKind,
    layout: &Layout,
    model: &mut [f32],
    mut mean: Vec<f32>,
    state: &mut StrategyState,
) -> Result<()> {
    layout.clear_padding(&mut mean);
    if kind == UpdateKind::Gradient {
        mean.iter_mut().for_each(|x| *x = -*x);
    }
    strategy.step(model, &mean, state);
    match model.iter().position(|x| !x.is_finite()) {
        None => Ok(()),
        Some(at) => {
            let name = format!("element {at} of the model by {}", strategy.name());
            Err(Error::value(name, model[at], "a finite number"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_survives_bytes() {
        for vectors in [vec![], vec![vec![1.5, -0.0]], vec![vec![f32::MIN_POSITIVE], vec![3.0]]] {
            let state = StrategyState { steps: 7, vectors };
            let bytes = state.to_bytes();
            assert_eq!(StrategyState::from_bytes(&bytes), Some(state));
            assert_eq!(StrategyState::from_bytes(&bytes[1..]), None);
        }
        assert_eq!(StrategyState::from_bytes(&[0; 8]), None);
        assert_eq!(StrategyState::from_bytes(&[1; 12]), None);
    }

    #[test]
    fn a_step_goes_where_clients_point_and_leaves_padding() {
        use crate::layout::{ModelKind, TensorSpec};
        let tensor = TensorSpec { name: "w".into(), shape: vec![3] };
        let layout = Layout::of(&ModelKind::Tensors(vec![tensor])).unwrap();
        let (half, mut state) = (Average { learning_rate: 0.5 }, StrategyState::default());
        let mean = |values: [f32; 3]| {
            // What is between tensors counts for nothing.
            let mut mean = vec![9.0; layout.elements()];
            mean[..3].copy_from_slice(&values);
            mean
        };
        let mut model = vec![0.0; layout.elements()];
        for (kind, expected) in [(UpdateKind::Delta, 1.0), (UpdateKind::Gradient, -1.0)] {
            model.fill(0.0);
            let mean = mean([2.0, -4.0, 0.0]);
            advance(&half, kind, &layout, &mut model, mean, &mut state).unwrap();
            assert_eq!(model[..3], [expected, -2.0 * expected, 0.0], "{kind:?}");
            assert!(model[3..].iter().all(|x| *x == 0.0));
        }
        assert_eq!(state.steps, 2);
        let far = mean([f32::INFINITY, 0.0, 0.0]);
        let error = advance(&half, UpdateKind::Delta, &layout, &mut model, far, &mut state);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("element 0 of the model by average"), "{error}");
    }

    #[test]
    fn strategies_have_the_plans_names() {
        let (learning_rate, beta1, beta2, tau) = (0.1, 0.9, 0.99, 0.01);
        for (spec, name) in [
            (StrategySpec::Average { learning_rate }, "average"),
            (StrategySpec::Adam { learning_rate, beta1, beta2, tau }, "adam"),
            (StrategySpec::Yogi { learning_rate, beta1, beta2, tau }, "yogi"),
        ] {
            assert_eq!(spec.build(None).unwrap().name(), name);
            let plan = toml::Value::try_from(&spec).unwrap();
            assert!(plan.as_table().unwrap().contains_key(name), "{plan}");
        }
    }

    #[test]
    fn custom_strategies_go_by_name() {
        struct Still;
        impl Strategy for Still {
            fn name(&self) -> &str {
                "still"
            }
            fn step(&self, _: &mut [f32], _: &[f32], _: &mut StrategyState) {}
        }
        let own: Arc<dyn Strategy> = Arc::new(Still);
        let spec = |name: &str| StrategySpec::Custom(name.into());
        assert_eq!(spec("still").build(Some(&own)).unwrap().name(), "still");
        assert!(spec("other").build(Some(&own)).is_err());
        assert!(spec("still").build(None).is_err());
    }
}
