//! What a client does with its data: the trait, and a trainer on the engine.
//!
//! ```
//! # use std::sync::Arc;
//! # use tern_protocol::layout::{ModelKind, TensorSpec};
//! use tern_protocol::trainer::{Job, Trained, Trainer};
//! use tern_protocol::{Result, RunId, RunPlan, TaskSpec, Turn, metrics::Metrics};
//!
//! /// Its model is one number, the mean of the samples.
//! struct Mean(Vec<f32>);
//!
//! impl Trainer for Mean {
//!     fn samples(&self) -> u32 {
//!         self.0.len() as u32
//!     }
//!     fn train(&mut self, _: &TaskSpec, job: &Job) -> Result<Trained> {
//!         let mut update = vec![0.0; job.model.len()];
//!         update[0] = self.0.iter().sum::<f32>() / self.0.len() as f32 - job.model[0];
//!         Ok(Trained::new(update, self.samples(), Metrics::new()))
//!     }
//!     fn evaluate(&mut self, _: &TaskSpec, _: &[f32]) -> Result<(u32, Metrics)> {
//!         Ok((self.samples(), Metrics::new()))
//!     }
//! }
//!
//! # fn main() -> Result<()> {
//! # let tensor = TensorSpec { name: "mean".into(), shape: vec![1] };
//! # let task = RunPlan::new("mean", ModelKind::Tensors(vec![tensor]), 1).task(RunId::draw()?)?;
//! let job = Job::new(Turn::new(1, 1), Arc::new(vec![0.0; 64]), 0);
//! let trained = Mean(vec![1.0, 2.0, 6.0]).train(&task, &job)?;
//! assert_eq!(trained.update[0], 3.0);
//! # Ok(())
//! # }
//! ```

mod engine;
mod record;

use std::sync::Arc;

pub use engine::EngineTrainer;
pub use record::{
    EVALUATION_BATCH, LocalData, METRICS, Recorder, evaluation_metrics, evaluation_steps,
    state_record,
};
use sha2::{Digest as _, Sha256};
use tern_engine::Interrupt;

use crate::metrics::Metrics;
use crate::plan::LocalTraining;
use crate::{ClientId, Error, Result, RunId, TaskSpec, Turn};

/// A round's work for a client.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// The attempt it is for; [`LocalTraining::scale`] of its round goes with the learning rate.
    pub turn: Turn,
    /// The model, a flat vector.
    pub model: Arc<Vec<f32>>,
    /// Seed of shuffling and dropout.
    pub seed: u32,
    /// What the optimizer goes on from; a new one unless the task keeps it.
    pub optimizer: Arc<OptimizerState>,
}

impl Job {
    /// With a new optimizer.
    pub fn new(turn: Turn, model: Arc<Vec<f32>>, seed: u32) -> Self {
        Job { turn, model, seed, optimizer: Arc::default() }
    }
}

/// An optimizer's state from one counted update to the next, where the task keeps it
/// ([`LocalTraining::keep_optimizer`]).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OptimizerState {
    /// Steps so far.
    pub steps: u32,
    /// The moments, a flat vector each, one after the other; empty before the first step.
    pub moments: Vec<f32>,
}

impl OptimizerState {
    /// Whether it is one of this training, for a flat vector of so many elements.
    ///
    /// # Errors
    /// [`Error::Value`] for moments of another length.
    pub fn check(&self, local: &LocalTraining, elements: usize) -> Result<()> {
        let whole = match local.keep_optimizer {
            true => local.optimizer.moments().len() * elements,
            false => 0,
        };
        match [0, whole].contains(&self.moments.len()) {
            true => Ok(()),
            false => {
                let expected = format!("none or {whole} elements");
                Err(Error::value("moments of the optimizer", self.moments.len(), expected))
            }
        }
    }
}

/// An update.
#[derive(Clone, Debug, PartialEq)]
pub struct Trained {
    /// A flat vector: parameters after training less those before, or a gradient, as the task
    /// asks. Padding is zero.
    pub update: Vec<f32>,
    /// Samples it was trained on.
    pub samples: u32,
    /// What was measured on the way, `loss` say.
    pub metrics: Metrics,
    /// What the optimizer goes on from if this update is counted; a new one unless the task keeps
    /// it.
    pub optimizer: OptimizerState,
}

impl Trained {
    /// By a trainer that keeps no optimizer.
    pub fn new(update: Vec<f32>, samples: u32, metrics: Metrics) -> Self {
        Trained { update, samples, metrics, optimizer: OptimizerState::default() }
    }
}

/// Trains and evaluates models on data that stays here. The same job must give the same update.
pub trait Trainer {
    /// Samples there are to train on; with none it is asked to evaluate only.
    fn samples(&self) -> u32;

    /// Trains.
    ///
    /// # Errors
    /// If it can't; the client then sits the round out.
    fn train(&mut self, task: &TaskSpec, job: &Job) -> Result<Trained>;

    /// Evaluates a model: samples, and what was measured.
    ///
    /// # Errors
    /// If it can't; the client then sits the evaluation out.
    fn evaluate(&mut self, task: &TaskSpec, model: &[f32]) -> Result<(u32, Metrics)>;

    /// What ends its training and evaluating between two steps, with an error, if it has such a
    /// thing. Who is asked to stop in the middle sets it.
    fn interrupt(&self) -> Option<Interrupt> {
        None
    }
}

/// Scales a vector down to a global norm. Summed in order, in `f64`.
pub fn clip_norm(x: &mut [f32], most: f64) {
    let norm = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    if norm > most {
        let factor = (most / norm) as f32;
        x.iter_mut().for_each(|x| *x *= factor);
    }
}

/// The seed of a client's training in a round: the same in every attempt.
pub fn training_seed(seed: u32, round: u32, client: &ClientId) -> u32 {
    let [word, ..] =
        words(b"tern training", &[&seed.to_le_bytes(), &round.to_le_bytes(), &client.0]);
    word
}

/// The key of a client's drawn codes: step, salt and seed of the stream.
pub fn coding_key(run: &RunId, turn: Turn, client: &ClientId) -> [u32; 3] {
    let (round, attempt) = (turn.round.to_le_bytes(), turn.attempt.to_le_bytes());
    words(b"tern codes", &[&run.0, &round, &attempt, &client.0])
}

fn words(label: &[u8], parts: &[&[u8]]) -> [u32; 3] {
    let mut hasher = Sha256::new_with_prefix(label);
    parts.iter().for_each(|part| hasher.update(part));
    let digest = hasher.finalize();
    let (words, _) = digest.as_chunks::<4>();
    std::array::from_fn(|i| u32::from_le_bytes(words[i]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_vectors_are_scaled_down() {
        let mut x = [3.0, 4.0];
        clip_norm(&mut x, 10.0);
        assert_eq!(x, [3.0, 4.0]);
        clip_norm(&mut x, 2.5);
        assert_eq!(x, [1.5, 2.0]);
    }

    /// Who brings no interrupt has none that anybody could set in vain.
    #[test]
    fn a_trainer_without_an_interrupt_says_so() {
        struct Still;
        impl Trainer for Still {
            fn samples(&self) -> u32 {
                1
            }
            fn train(&mut self, _: &TaskSpec, job: &Job) -> Result<Trained> {
                Ok(Trained::new(vec![0.0; job.model.len()], 1, Metrics::new()))
            }
            fn evaluate(&mut self, _: &TaskSpec, _: &[f32]) -> Result<(u32, Metrics)> {
                Ok((1, Metrics::new()))
            }
        }
        assert!(Still.interrupt().is_none());
    }

    #[test]
    fn seeds_differ_by_what_they_are_for() {
        let (ann, bob) = (ClientId([1; 32]), ClientId([2; 32]));
        let seeds = [(1, 1, ann), (2, 1, ann), (1, 2, ann), (1, 1, bob)]
            .map(|(s, r, c)| training_seed(s, r, &c));
        for (i, seed) in seeds.iter().enumerate() {
            assert!(!seeds[..i].contains(seed));
        }
        let key = |attempt| coding_key(&RunId([0; 16]), Turn::new(1, attempt), &ann);
        assert_ne!(key(1), key(2));
    }
}
