//! A user's device: what it predicted, what really came, and in time a model of its own.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tern_engine::{Data, Device, IGNORE};
use tern_host::folder::FileLock;
use tern_protocol::{Error, Result};

use super::score::{count, number};
use super::{Batch, Learner, Merge, Personal, Public, Recipe, Reuse, Score, Shape, TrainingCost};

/// One batch in this many, the latest of a collection, is held back from training.
const HELD_BACK: usize = 8;

/// A customization.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// Records of the collection.
    pub records: usize,
    /// Of these, trained on; the others were held back.
    pub trained: usize,
    /// How well they had been expected when they came; the loss wasn't recorded.
    pub expected: Score,
    /// Mean loss of the model in use on the records held back.
    #[serde(deserialize_with = "number")]
    pub loss_before: f64,
    /// Mean loss of the public model on them.
    #[serde(deserialize_with = "number")]
    pub loss_public: f64,
    /// Mean loss of the customized model on them.
    #[serde(deserialize_with = "number")]
    pub loss_after: f64,
    /// Whether the customized model was adopted.
    pub adopted: bool,
    /// What the training took.
    pub work: TrainingCost,
}

/// A user's device. A record is a target that came: the next character, the product bought. Its
/// records are private to it, and none of its methods returns them or anything they can be
/// rebuilt from, but for [`Client::weights`], which stay on the device as they do.
pub struct Client {
    pub(super) learner: Learner,
    pub(super) personal: Personal,
    preset: usize,
    /// A prediction whose targets haven't come yet.
    open: Option<Batch>,
    pub(super) records: Vec<Batch>,
    pub(super) expected: Score,
    /// Held back from trainings, the latest of them: about a collection's.
    pub(super) held_back: Vec<Batch>,
    pub(super) rounds: Vec<Round>,
    /// The file that it was saved to or loaded from, which is its alone.
    pub(super) file: Option<FileLock>,
}

impl Client {
    /// A device that has downloaded a public model, predicts batches of this shape, and trains
    /// once it has `preset` records.
    ///
    /// # Errors
    /// [`Error::Value`] for no records; as [`Learner::new`] and [`Public::parameters`].
    pub fn new(
        device: &Device,
        public: &Arc<Public>,
        shape: Shape,
        recipe: &Recipe,
        preset: usize,
    ) -> Result<Self> {
        if preset == 0 {
            return Err(Error::value("records to train on", preset, "1 or more"));
        }
        public.parameters()?;
        let mut learner = Learner::new(device, &public.model, shape, recipe)?;
        learner.set_weights(&public.weights)?;
        Ok(Client {
            learner,
            personal: Personal::new(public),
            preset,
            open: None,
            records: Vec::new(),
            expected: Score::default(),
            held_back: Vec::new(),
            rounds: Vec::new(),
            file: None,
        })
    }

    /// Parameters of the model in use.
    pub fn weights(&self) -> &[f32] {
        self.personal.weights()
    }

    /// The public model in use, or that the one in use comes from.
    pub fn public(&self) -> &Arc<Public> {
        self.personal.public()
    }

    /// Whether a customized model was adopted.
    pub fn is_customized(&self) -> bool {
        self.personal.is_customized()
    }

    /// Records collected since the last training.
    pub fn collected(&self) -> usize {
        self.records.iter().map(Batch::counted).sum()
    }

    /// Whether the preset number of records is there, and something to hold back.
    pub fn is_ready(&self) -> bool {
        self.records.len() > 1 && self.collected() >= self.preset
    }

    /// Records still missing to the preset number.
    pub fn missing(&self) -> usize {
        self.preset.saturating_sub(self.collected())
    }

    /// Batches of a collection that a training uses; the others, the latest, are held back.
    pub fn trained_of(batches: usize) -> usize {
        batches.saturating_sub((batches / HELD_BACK).max(1))
    }

    /// Trainings so far.
    pub fn rounds(&self) -> &[Round] {
        &self.rounds
    }

    /// How well the model in use expected what came since the last training.
    pub fn expected(&self) -> Score {
        self.expected
    }

    /// Predicts a batch with the model in use: the most probable classes of each place, the most
    /// probable first ([`Learner::predict`]). Its activations are kept where the recipe uses them.
    ///
    /// # Errors
    /// As [`Learner::predict`]; the prediction before it still waits for its targets then.
    pub fn predict(&mut self, inputs: Data) -> Result<Vec<u32>> {
        let predicted = self.learner.predict(&inputs)?;
        let kept = match self.learner.recipe().reuse {
            Reuse::Never => None,
            Reuse::Within(_) => Some(self.learner.keep()?),
        };
        self.open = Some(Batch { inputs, targets: Vec::new(), predicted: predicted.clone(), kept });
        Ok(predicted)
    }

    /// What really came of the batch predicted last: a class for each place, [`IGNORE`] where
    /// nothing did. The input, the prediction and this are records now.
    ///
    /// # Errors
    /// [`Error::Value`] without a prediction, for another number of targets, or for a class that
    /// the model doesn't have; the prediction still waits for its targets then.
    pub fn observe(&mut self, targets: Vec<u32>) -> Result<()> {
        self.learner.check_targets(&targets)?;
        let Some(mut batch) = self.open.take() else {
            return Err(Error::value("targets", "of no prediction", "those of the last one"));
        };
        if targets.iter().any(|target| *target != IGNORE) {
            let came = count(&targets, &batch.predicted, self.learner.top());
            self.expected = self.expected.and(came);
            batch.targets = targets;
            self.records.push(batch);
        }
        Ok(())
    }

    /// Trains the model in use on the records, the latest held back, adopts what comes of it if
    /// it does better on what was held back from this training and those before it (about the
    /// preset number of records) than the model in use and the public one, and starts collecting
    /// again. `None` while the preset number isn't reached. `each` is called after every update.
    ///
    /// # Errors
    /// The engine's. The records are still there then, and the model in use is what it was.
    pub fn customize(&mut self, each: &mut dyn FnMut()) -> Result<Option<Round>> {
        if !self.is_ready() {
            return Ok(None);
        }
        let (records, first) = (self.collected(), self.held_back.len());
        let last = Self::trained_of(self.records.len());
        let latest = self.records.drain(last..).map(|batch| Batch { kept: None, ..batch });
        self.held_back.extend(latest);
        let (losses, work, candidate) = match self.train(each) {
            Ok(trained) => trained,
            Err(error) => {
                self.records.extend(self.held_back.drain(first..));
                self.learner.set_weights(self.personal.weights())?;
                return Err(error);
            }
        };
        let train = std::mem::take(&mut self.records);
        let expected = std::mem::take(&mut self.expected);
        // What is held back is scored by other models from here on.
        self.held_back[first..].iter_mut().for_each(|batch| batch.predicted = Vec::new());
        self.forget();
        let [public, before, after] = losses;
        let adopted = self.personal.decide(candidate, [public, before], after);
        self.learner.set_weights(self.personal.weights())?;
        let round = Round {
            records,
            trained: train.iter().map(Batch::counted).sum(),
            expected,
            loss_before: before,
            loss_public: public,
            loss_after: after,
            adopted,
            work,
        };
        self.rounds.push(round);
        Ok(Some(round))
    }

    /// Forgets the oldest records held back that are more than a collection's.
    fn forget(&mut self) {
        let mut left: usize = self.held_back.iter().map(Batch::counted).sum();
        let old = self.held_back.iter().take_while(|batch| {
            left -= batch.counted();
            left >= self.preset
        });
        let old = old.count();
        self.held_back.drain(..old);
    }

    /// The losses of the public model, of the one in use and of the one that is trained from it
    /// on what is held back, what the training took, and the weights that came of it.
    fn train(&mut self, each: &mut dyn FnMut()) -> Result<([f64; 3], TrainingCost, Vec<f32>)> {
        let before = self.learner.score(&self.held_back)?.loss;
        let work = self.learner.train(&mut self.records, each)?;
        let after = self.learner.score(&self.held_back)?.loss;
        let candidate = self.learner.weights()?;
        let public = match self.personal.is_customized() {
            true => loss_of(&mut self.learner, &self.held_back, &self.personal.public().weights)?,
            false => before,
        };
        Ok(([public, before, after], work, candidate))
    }

    /// Puts the personal change on a newer public model, and goes on from there if that does
    /// better on the records held back than the model in use. A device without a customized
    /// model takes the newer one in any case.
    ///
    /// # Errors
    /// [`Error::Value`] unless it is newer and has the same layers; the engine's.
    pub fn merge(&mut self, newer: &Arc<Public>) -> Result<Merge> {
        newer.parameters()?;
        let merged = self.personal.merged(newer)?;
        let before = self.learner.score(&self.held_back)?.loss;
        let mut loss = |weights: &[f32]| loss_of(&mut self.learner, &self.held_back, weights);
        let losses = loss(&newer.weights).and_then(|public| Ok((public, loss(&merged)?)));
        let adopts = |(_, after): &(f64, f64)| self.personal.go_on(newer, merged, before, *after);
        let adopted = losses.as_ref().is_ok_and(adopts);
        // Whatever came of it, the learner has the weights of the model in use.
        self.learner.set_weights(self.personal.weights())?;
        let (public, after) = losses?;
        Ok(Merge {
            version: newer.version,
            loss_before: before,
            loss_public: public,
            loss_merged: after,
            adopted,
        })
    }
}

/// The loss of some weights, which are the learner's then, on what is held back.
fn loss_of(learner: &mut Learner, held_back: &[Batch], weights: &[f32]) -> Result<f64> {
    learner.set_weights(weights)?;
    Ok(learner.score(held_back)?.loss)
}
