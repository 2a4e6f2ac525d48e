//! A client: somebody's device, with the public model, what they typed, and in time a model
//! of their own.
//!
//! A client collects (1.5) until it has the preset number of records (1.6), trains on them
//! (1.7, 1.8), adopts the customized model if that does better on records held back, and
//! collects again. 1.9: its records are private to this module, and none of its methods
//! returns them or anything they can be rebuilt from; what others see is how many there are
//! and how well the model expected them.

mod cohort;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tern_engine::Parameters;
use tern_fl::personalize::{Merge, Personal};

use super::public::PublicModel;
use super::reader::{CONTEXT, PREDICTIONS, Passage, Scores};

pub use cohort::{customize, merge, observe};

/// One record in this many, the latest of a collection, is held back from training.
const HELD_BACK: usize = 8;
/// Fewest records a training set is built from.
pub const LEAST_RECORDS: usize = 200;

/// 1.5: one character. The input is what was typed before it, which is in the records before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    /// What the model expected, the most probable first.
    predicted: [u32; PREDICTIONS],
    /// What the user really typed.
    typed: u32,
}

/// What a collection of records led to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// Records of the collection.
    pub records: usize,
    /// Of these, trained on; the others were held back.
    pub trained: usize,
    /// Part of them that the model in use expected most when they were typed.
    pub typed_top1: f64,
    /// Part of them among the three that it expected most.
    pub typed_top3: f64,
    /// Mean loss of the model in use on the records held back.
    pub loss_before: f64,
    /// Mean loss of the customized model on them.
    pub loss_after: f64,
    /// Whether the customized model was adopted.
    pub adopted: bool,
    /// Seconds that training and comparing took; models trained side by side share them.
    pub seconds: f64,
}

/// A user's device.
pub struct Client {
    name: String,
    public: Arc<PublicModel>,
    personal: Personal,
    preset: usize,
    records: Vec<Record>,
    /// What was typed before the first record.
    before: Vec<u32>,
    /// Records held back from all trainings so far.
    held_back: Vec<Passage>,
    rounds: Vec<Round>,
    merge: Option<Merge>,
}

impl Client {
    /// A client that has downloaded the public model and trains once it has `preset` records.
    pub fn new(name: &str, public: &Arc<PublicModel>, preset: usize) -> Self {
        Client {
            name: name.to_owned(),
            public: public.clone(),
            personal: Personal::new(&public.published),
            preset: preset.max(LEAST_RECORDS),
            records: Vec::new(),
            // A text begins as if a line had ended.
            before: vec![public.card.alphabet.token('\n')],
            held_back: Vec::new(),
            rounds: Vec::new(),
            merge: None,
        }
    }

    /// The user's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Layout of the parameters.
    pub fn parameters(&self) -> &Parameters {
        &self.public.parameters
    }

    /// Records of a collection of `preset` that a training uses.
    pub fn trained_of(preset: usize) -> usize {
        preset - preset / HELD_BACK
    }

    /// Parameters of the model in use: the customized one where one was adopted.
    pub fn weights(&self) -> &[f32] {
        self.personal.weights()
    }

    /// Whether a customized model was adopted.
    pub fn is_customized(&self) -> bool {
        self.personal.is_customized()
    }

    /// Records collected since the last training.
    pub fn collected(&self) -> usize {
        self.records.len()
    }

    /// 1.6: whether the preset count is reached.
    pub fn is_ready(&self) -> bool {
        self.records.len() >= self.preset
    }

    /// Records still missing to the preset count.
    pub fn missing(&self) -> usize {
        self.preset.saturating_sub(self.records.len())
    }

    /// Trainings so far.
    pub fn rounds(&self) -> &[Round] {
        &self.rounds
    }

    /// What became of a newer public model.
    pub fn merged(&self) -> Option<&Merge> {
        self.merge.as_ref()
    }

    /// How well the model in use expected what was typed since the last training.
    pub fn typed(&self) -> Scores {
        scores(&self.records)
    }

    /// 1.5: adds what was typed and what the model had expected.
    fn collect(&mut self, typed: &[u32], predicted: &[[u32; PREDICTIONS]]) {
        let pairs = typed.iter().zip(predicted);
        self.records.extend(pairs.map(|(typed, p)| Record { predicted: *p, typed: *typed }));
    }

    /// The text as it stands before the next record.
    fn context(&self) -> Vec<u32> {
        self.before.iter().copied().chain(self.records.iter().map(|r| r.typed)).collect()
    }

    /// 1.7: takes the preset number of records, and makes of them a text to train on and one
    /// to compare models on. Later records open the next collection.
    fn training_set(&mut self) -> TrainingSet {
        let typed = scores(&self.records[..self.preset]);
        let taken: Vec<u32> = self.records.drain(..self.preset).map(|r| r.typed).collect();
        let (train, held_back) = taken.split_at(Self::trained_of(self.preset));
        // The first character is predicted, too, from the one before it.
        let first = self.before.last().copied();
        let text = first.iter().chain(train).copied().collect();
        self.held_back.push(Passage::after(&[self.before.as_slice(), train].concat(), held_back));
        let whole = [self.before.as_slice(), &taken].concat();
        self.before = whole[whole.len().saturating_sub(CONTEXT)..].to_vec();
        TrainingSet { text, records: taken.len(), trained: train.len(), typed }
    }

    /// 1.8: adopts a candidate that does better than the model in use, and only that.
    fn decide(&mut self, candidate: Vec<f32>, mut round: Round) {
        round.adopted = self.personal.decide(candidate, round.loss_before, round.loss_after);
        self.rounds.push(round);
    }
}

/// 1.7: what a training is done with.
struct TrainingSet {
    text: Vec<u32>,
    records: usize,
    trained: usize,
    typed: Scores,
}

/// How well the typed characters were expected; their loss is not recorded.
fn scores(records: &[Record]) -> Scores {
    let mut scores = Scores::default();
    records.iter().for_each(|r| scores.count(r.typed, &r.predicted));
    scores
}
