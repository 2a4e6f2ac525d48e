//! A user's device: the runtime's client, which sees what is typed as windows of characters.

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use tern_engine::{Decay, Device, Schedule};
use tern_fl::methods::personalize::{self, Batch, Client, Merge, Round, Shape};

use super::reader::batches;
use crate::public::PublicModel;
use crate::users::windows;

/// Characters of a training window.
pub const WINDOW: usize = 80;
/// Characters that the model reads before those of a window that count: it starts from nothing.
pub const CONTEXT: usize = 20;
/// Fewest records a training set is built from: three windows, of which one is held back.
pub const MIN_RECORDS: usize = 200;
/// Part of the learning rate that is left at the end of a training: what is adopted should not
/// hang on the last records it saw.
const FLOOR: f64 = 0.05;
/// Batches that a collection has at least, where it has as many windows.
const BATCHES: usize = 8;

/// How a model is trained on a user's records.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recipe {
    /// Adam's learning rate at first; it falls in a straight line to a twentieth of it.
    pub rate: f64,
    /// Times each record is trained on.
    pub passes: usize,
    /// Windows a step, at most.
    pub batch: usize,
    /// Seed of the order.
    pub seed: u32,
}

impl Recipe {
    /// Windows side by side: fewer where so many records are few windows.
    pub fn shape(&self, records: usize) -> Shape {
        let rows = self.batch.min(records / WINDOW / BATCHES).max(1);
        Shape { rows, length: CONTEXT + WINDOW }
    }

    /// Batches of so many records, typed at once.
    pub fn batches(&self, records: usize) -> usize {
        records.div_ceil(WINDOW).div_ceil(self.shape(records).rows)
    }

    /// The runtime's recipe for collections of so many batches.
    pub fn for_batches(&self, batches: usize) -> personalize::Recipe {
        let total = (self.passes * Client::trained_of(batches)) as u32;
        let decay = Decay::Linear { total, floor: FLOOR * self.rate };
        personalize::Recipe {
            schedule: Schedule { base: self.rate, warmup: 0, decay },
            passes: self.passes,
            seed: self.seed,
            ..personalize::Recipe::default()
        }
    }
}

/// What is typed after `before`, as batches.
pub fn typed(before: &[u32], text: &[u32], shape: Shape) -> Result<Vec<Batch>> {
    let before = &before[before.len().saturating_sub(CONTEXT)..];
    let stream = [before, text].concat();
    batches(&[windows(&stream, before.len(), shape.length, CONTEXT)], shape)
}

/// A user's device.
pub struct Keyboard {
    name: String,
    public: Arc<PublicModel>,
    client: Client,
    shape: Shape,
    /// The end of what was typed so far.
    before: Vec<u32>,
}

impl Keyboard {
    /// A device that has downloaded the public model and trains once it has `preset` records;
    /// these are about as many batches.
    pub fn new(
        device: &Device,
        name: &str,
        public: &Arc<PublicModel>,
        recipe: &Recipe,
        (preset, batches): (usize, usize),
    ) -> Result<Self> {
        let preset = preset.max(MIN_RECORDS);
        let (shape, recipe) = (recipe.shape(preset), recipe.for_batches(batches));
        let client = Client::new(device, &public.published, shape, &recipe, preset)?;
        Ok(Keyboard::of(name, public, client, shape))
    }

    /// A device as [`Keyboard::save`] left it, with what [`Keyboard::new`] takes. If the public
    /// model is newer than the one it has, what became of that.
    pub fn load(
        device: &Device,
        (name, file): (&str, &Path),
        public: &Arc<PublicModel>,
        recipe: &Recipe,
        (preset, batches): (usize, usize),
    ) -> Result<(Self, Option<Merge>)> {
        let preset = preset.max(MIN_RECORDS);
        let (shape, recipe) = (recipe.shape(preset), recipe.for_batches(batches));
        let mut client = Client::load(device, file, shape, &recipe, preset)?;
        let named = || format!("{}: a device with another public model", file.display());
        let merge = if client.public().version == public.card.version {
            ensure!(**client.public() == *public.published, named());
            None
        } else {
            Some(client.merge(&public.published).with_context(named)?)
        };
        Ok((Keyboard::of(name, public, client, shape), merge))
    }

    fn of(name: &str, public: &Arc<PublicModel>, client: Client, shape: Shape) -> Self {
        // A text begins as if a line had ended.
        let before = vec![public.card.alphabet.token('\n')];
        Keyboard { name: name.to_owned(), public: public.clone(), client, shape, before }
    }

    /// Writes what the device must not lose to a file, which nobody but the user should read.
    pub fn save(&mut self, file: &Path) -> Result<()> {
        Ok(self.client.save(file)?)
    }

    /// Records collected since the last training.
    pub fn collected(&self) -> usize {
        self.client.collected()
    }

    /// The user's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Parameters of the model in use.
    pub fn weights(&self) -> &[f32] {
        self.client.weights()
    }

    /// Whether a customized model was adopted.
    pub fn is_customized(&self) -> bool {
        self.client.is_customized()
    }

    /// Whether the preset count is reached.
    pub fn is_ready(&self) -> bool {
        self.client.is_ready()
    }

    /// Records still missing to the preset count, or to something to hold back.
    pub fn missing(&self) -> usize {
        self.client.missing().max(usize::from(!self.is_ready()))
    }

    /// Trainings so far.
    pub fn rounds(&self) -> &[Round] {
        self.client.rounds()
    }

    /// 1.5: the user types; the client predicts each character from those before it, and
    /// records what it expected with what was typed.
    pub fn type_text(&mut self, text: &[u32]) -> Result<()> {
        for Batch { inputs, targets, .. } in typed(&self.before, text, self.shape)? {
            self.client.predict(inputs)?;
            self.client.observe(targets)?;
        }
        self.before.extend(text);
        self.before.drain(..self.before.len().saturating_sub(CONTEXT));
        Ok(())
    }

    /// 1.6 to 1.8: trains on the records if the preset count is reached, and adopts what does
    /// better. `each` is called after every update.
    pub fn customize(&mut self, each: &mut dyn FnMut()) -> Result<Option<Round>> {
        Ok(self.client.customize(each)?)
    }

    /// Puts the user's change on a newer public model, and goes on from there where that does
    /// better on the records held back.
    pub fn merge(&mut self, newer: &PublicModel) -> Result<Merge> {
        Ok(self.client.merge(&newer.published)?)
    }

    /// Multiplications and additions of all trainings: those of every place of the batches,
    /// context included.
    pub fn training_flops(&self) -> u64 {
        let updates: u32 = self.rounds().iter().map(|round| round.work.updates).sum();
        let places = (self.shape.rows * self.shape.length) as u64;
        u64::from(updates) * places * self.public.training_flops()
    }
}
