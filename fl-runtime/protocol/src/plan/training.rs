//! What clients do in a round.

use serde::{Deserialize, Serialize};
use tern_engine::Optimizer;

use super::check::within;
use crate::{Error, Result};

/// What clients do in a round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct LocalTraining {
    /// Passes over the client's data.
    pub epochs: u32,
    /// Optimizer steps instead of epochs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u32>,
    /// Samples of a batch.
    pub batch: u32,
    /// Optimizer.
    pub optimizer: Optimizer,
    /// Whether a client's optimizer goes on from where its last counted update left it, moments
    /// and steps; else it starts anew each round.
    pub keep_optimizer: bool,
    /// Learning rate.
    pub learning_rate: f64,
    /// How the rate falls from round to round.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decay: Option<RateDecay>,
    /// Global norm that gradients are scaled down to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_gradient: Option<f64>,
    /// Global norm that the update is scaled down to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_update: Option<f64>,
    /// μ of FedProx: the pull to the round's model (Li et al. 2020, equation 2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proximal: Option<f64>,
}

impl Default for LocalTraining {
    fn default() -> Self {
        LocalTraining {
            epochs: 1,
            steps: None,
            batch: 10,
            optimizer: Optimizer::sgd(),
            keep_optimizer: false,
            learning_rate: 0.1,
            decay: None,
            clip_gradient: None,
            clip_update: None,
            proximal: None,
        }
    }
}

impl LocalTraining {
    /// Whether clients can train so: a client asks, too, since it can't trust a server.
    ///
    /// # Errors
    /// [`Error::Value`] for the first option that is out of range.
    pub fn check(&self) -> Result<()> {
        let most = 1e9;
        within("training.epochs", self.epochs, 1..=1_000_000)?;
        within("training.steps", self.steps.unwrap_or(1), 1..=u32::MAX)?;
        within("training.batch", self.batch, 1..=1_000_000)?;
        within("training.learning_rate", self.learning_rate, 0.0..=most)?;
        if let Some(RateDecay::Every { factor, .. } | RateDecay::After { factor, .. }) = self.decay
        {
            within("training.decay.factor", factor, 0.0..=1.0)?;
        }
        if let Some(RateDecay::Every { rounds, .. }) = self.decay {
            within("training.decay.rounds", rounds, 1..=u32::MAX)?;
        }
        for (name, option) in [
            ("training.clip_gradient", self.clip_gradient),
            ("training.clip_update", self.clip_update),
        ] {
            within(name, option.unwrap_or(1.0), f64::MIN_POSITIVE..=most)?;
        }
        if self.keep_optimizer && self.optimizer.moments().is_empty() {
            let expected = "false for an optimizer without moments";
            return Err(Error::value("training.keep_optimizer", true, expected));
        }
        within("training.proximal", self.proximal.unwrap_or(0.0), 0.0..=most)
    }

    /// What the learning rate is multiplied by in a round, counted from 1.
    pub fn scale(&self, round: u32) -> f64 {
        let (factor, times) = match &self.decay {
            None => return 1.0,
            Some(RateDecay::Every { factor, rounds }) => {
                (factor, round.saturating_sub(1) / rounds.max(&1))
            }
            Some(RateDecay::After { factor, rounds }) => {
                (factor, rounds.iter().filter(|last| **last < round).count() as u32)
            }
        };
        factor.powf(f64::from(times))
    }
}

/// A learning rate that falls from round to round, by a factor from 0 to 1 (McMahan et al. 2017
/// train on CIFAR-10 so).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RateDecay {
    /// After so many rounds, and again after as many.
    Every {
        /// Factor.
        factor: f64,
        /// Rounds, at least 1.
        rounds: u32,
    },
    /// After each of these rounds.
    After {
        /// Factor.
        factor: f64,
        /// Rounds.
        rounds: Vec<u32>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_fall_after_their_rounds() {
        let scales = |decay| {
            let training = LocalTraining { decay, ..LocalTraining::default() };
            [1, 2, 3, 4, 5, 7].map(|round| training.scale(round))
        };
        assert_eq!(scales(None), [1.0; 6]);
        let every = RateDecay::Every { factor: 0.5, rounds: 2 };
        assert_eq!(scales(Some(every)), [1.0, 1.0, 0.5, 0.5, 0.25, 0.125]);
        let after = RateDecay::After { factor: 0.5, rounds: vec![1, 4] };
        assert_eq!(scales(Some(after)), [1.0, 0.5, 0.5, 0.5, 0.25, 0.25]);
    }
}
