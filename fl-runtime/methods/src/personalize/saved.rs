//! A device's state as a file: a client goes on from it after its process has ended.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tern_engine::nn::{Input, ModelSpec};
use tern_engine::{Data, Device};
use tern_host::files::{self, Durability};
use tern_host::folder::FileLock;
use tern_protocol::{Digest, Error, Result};

use super::bytes::{self, Words};
use super::{Batch, Client, Personal, Public, Recipe, Round, Score, Shape};

/// What the words are: the public model, the customized one if there is one, the records, and
/// those held back.
#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    model: ModelSpec,
    note: String,
    customized: bool,
    expected: Score,
    rounds: Vec<Round>,
    records: Vec<Sizes>,
    held_back: Vec<Sizes>,
}

/// Words of a batch.
#[derive(Serialize, Deserialize)]
struct Sizes {
    inputs: usize,
    targets: usize,
    predicted: usize,
}

impl Sizes {
    fn of(batch: &Batch) -> Self {
        let Batch { inputs, targets, predicted, .. } = batch;
        Sizes { inputs: inputs.len(), targets: targets.len(), predicted: predicted.len() }
    }

    fn read(&self, input: Input, words: &mut Words) -> Option<Batch> {
        let inputs = match input {
            Input::Tokens { .. } => Data::U32(words.take(self.inputs)?),
            _ => Data::F32(words.floats(self.inputs)?),
        };
        let (targets, predicted) = (words.take(self.targets)?, words.take(self.predicted)?);
        Some(Batch { inputs, targets, predicted, kept: None })
    }
}

/// The words of a batch.
fn words(batch: &Batch) -> impl Iterator<Item = u32> {
    let inputs: Vec<u32> = match &batch.inputs {
        Data::U32(words) => words.clone(),
        Data::F32(floats) => floats.iter().map(|x| x.to_bits()).collect(),
    };
    inputs.into_iter().chain(batch.targets.iter().chain(&batch.predicted).copied())
}

/// What is in a device's file.
fn open(file: &Path) -> Result<(Header, Words)> {
    let whole = std::fs::read(file).map_err(|error| Error::file(file, error))?;
    let broken = || Error::file(file, "expected a device's state with its SHA-256 before it");
    let (digest, body) = whole.split_first_chunk().ok_or_else(broken)?;
    if Digest::of(body) != Digest(*digest) {
        return Err(broken());
    }
    bytes::decode("device", "what a client saved", body).map_err(|e| Error::file(file, e))
}

/// Words of the parameters of a model.
fn size(file: &Path, model: &ModelSpec) -> Result<usize> {
    Ok(model.build().map_err(|error| Error::file(file, error))?.0.words())
}

fn too_few(file: &Path) -> Error {
    Error::file(file, "another number of words than it says")
}

impl Public {
    /// The public model of a device as [`Client::save`] left it.
    ///
    /// # Errors
    /// [`Error::File`] for a file that can't be read, or isn't what was written.
    pub fn of_device(file: &Path) -> Result<Self> {
        let (Header { version, model, note, .. }, mut words) = open(file)?;
        let weights = words.floats(size(file, &model)?).ok_or_else(|| too_few(file))?;
        Ok(Public { version, model, note, weights })
    }
}

impl Client {
    /// Writes what the device must not lose to a file: both models, the records, those held back,
    /// and what became of all trainings. Only its owner may read it; it is replaced at once, so
    /// that a process that ends in the middle leaves the one before. A prediction whose targets
    /// haven't come is not in it, nor are activations. The file is this client's from then on, until
    /// it is dropped or saved to another.
    ///
    /// # Errors
    /// [`Error::File`], for a file that another client has, too.
    pub fn save(&mut self, file: &Path) -> Result<()> {
        if self.file.as_ref().is_none_or(|lock| lock.path() != file) {
            self.file = Some(FileLock::take(file)?);
        }
        let Public { version, model, note, weights } = &**self.public();
        let own = if self.is_customized() { self.weights() } else { &[] };
        let header = Header {
            version: *version,
            model: model.clone(),
            note: note.clone(),
            customized: self.is_customized(),
            expected: self.expected,
            rounds: self.rounds.clone(),
            records: self.records.iter().map(Sizes::of).collect(),
            held_back: self.held_back.iter().map(Sizes::of).collect(),
        };
        let floats = weights.iter().chain(own).map(|x| x.to_bits());
        let batches = self.records.iter().chain(&self.held_back).flat_map(words);
        let body = bytes::encode("a device", &header, floats.chain(batches))?;
        let whole = [&Digest::of(&body).0[..], &body].concat();
        files::replace(file, &whole, Durability::Power)
    }

    /// A device as [`Client::save`] left it, with the shape, recipe and preset number of
    /// [`Client::new`]. Given the same, it goes on as if it had never ended, to the bit; but for
    /// stale activations ([`Reuse::Within`](super::Reuse::Within)), which are computed anew. The
    /// file is this client's from then on, as after [`Client::save`].
    ///
    /// # Errors
    /// [`Error::File`] for a file that can't be read, that isn't what was written, that another
    /// client has, or whose records have another shape; as [`Client::new`].
    pub fn load(
        device: &Device,
        file: &Path,
        shape: Shape,
        recipe: &Recipe,
        preset: usize,
    ) -> Result<Self> {
        // Where there is no device, none is taken.
        std::fs::metadata(file).map_err(|error| Error::file(file, error))?;
        let lock = FileLock::take(file)?;
        let (header, mut words) = open(file)?;
        let in_file = |error: Error| Error::file(file, error);
        let Header { version, model, note, customized, expected, rounds, records, held_back } =
            header;
        let number = size(file, &model)?;
        let input = model.input;
        let mut read = || {
            let weights = words.floats(number)?;
            let own = if customized { Some(words.floats(number)?) } else { None };
            let mut batches = |sizes: &[Sizes]| -> Option<Vec<Batch>> {
                sizes.iter().map(|sizes| sizes.read(input, &mut words)).collect()
            };
            let batches = (batches(&records)?, batches(&held_back)?);
            (words.len() == 0).then_some((weights, own, batches))
        };
        let (weights, own, (records, held_back)) = read().ok_or_else(|| too_few(file))?;
        let public = Arc::new(Public { version, model, note, weights });
        let mut client = Client::new(device, &public, shape, recipe, preset)?;
        if let Some(batch) = records.iter().chain(&held_back).find(|b| !client.learner.fits(b)) {
            let (inputs, targets) = (batch.inputs.len(), batch.targets.len());
            let found = format!("records of {inputs} inputs and {targets} targets");
            return Err(Error::file(file, format!("{found}, expected {shape:?}")));
        }
        for batch in records.iter().chain(&held_back) {
            client.learner.check(batch).map_err(in_file)?;
        }
        client.personal = Personal::with(&public, own);
        client.learner.set_weights(client.personal.weights())?;
        (client.records, client.held_back) = (records, held_back);
        (client.expected, client.rounds) = (expected, rounds);
        client.file = Some(lock);
        Ok(client)
    }
}
