//! Teachers and students: classifiers that are trained side by side, as replicas of one plan.

use std::collections::BTreeSet;

use tern_engine::nn::{Mode, Model, ModelSpec, Predictor};
use tern_engine::{Arena, Device, Element, Flat, Graph, RowData, Schedule};
use tern_protocol::ClientId;
use tern_protocol::layout::ModelKind;
use tern_protocol::plan::{LocalTraining, UpdateKind};
use tern_protocol::trainer::{EVALUATION_BATCH, LocalData, Recorder, training_seed};
use tern_protocol::{Error, Result};
use tern_shaders::state::StateRecord;

/// Steps between two reports of progress.
const REPORT: usize = 100;

/// Samples: rows of features with a class each.
#[derive(Clone, Copy, Debug)]
pub struct Samples<'a> {
    /// `[N, width]`.
    pub features: &'a [f32],
    /// Features of a row.
    pub width: usize,
    /// `[N]`.
    pub labels: &'a [u32],
}

/// How a classifier is trained.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// Layers, from features to a logit for each class.
    pub model: ModelSpec,
    /// Classes.
    pub classes: usize,
    /// Optimizer, batch, passes; the same for every model.
    pub training: LocalTraining,
    /// Seed of first weights and shuffling; each model has its own from it.
    pub seed: u32,
}

/// The rows that a model is trained on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its number among the parts, which its seed comes from: other parts may come and go.
    pub number: usize,
    /// The rows.
    pub rows: Vec<usize>,
}

/// A part that no teacher can be trained on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Its number among the parts.
    pub part: usize,
    /// Why.
    pub reason: String,
}

/// The parts with two classes or more, and those that are left out; the others go on without
/// them.
pub fn usable(labels: &[u32], parts: Vec<Vec<usize>>) -> (Vec<Part>, Vec<LeftOut>) {
    let (mut sound, mut left_out) = (Vec::new(), Vec::new());
    for (number, rows) in parts.into_iter().enumerate() {
        let classes: Option<BTreeSet<u32>> =
            rows.iter().map(|row| labels.get(*row).copied()).collect();
        let reason = match classes.as_ref().map(BTreeSet::len) {
            None => "a row that isn't there".into(),
            Some(0) => "no samples".into(),
            Some(1) => format!("{} samples of one class", rows.len()),
            Some(_) => {
                sound.push(Part { number, rows });
                continue;
            }
        };
        left_out.push(LeftOut { part: number, reason });
    }
    (sound, left_out)
}

/// Classifiers of one architecture: the teachers (2.2), or a student alone (2.6).
pub struct Models {
    arena: Arena,
    predictor: Predictor,
    width: usize,
    classes: usize,
}

impl Models {
    /// Trains a model on each of `parts`, independently: no model changes with another's rows, or
    /// on the CPU with how many others there are (a GPU may choose other kernels then, which
    /// round otherwise, unless they are pinned: [`Device::pin`]). `progress` is told steps done,
    /// steps in all and the mean loss.
    ///
    /// # Errors
    /// [`Error::Value`] for a part without rows, a row that isn't there, or a model with another
    /// number of outputs than classes; the engine's for samples or a model that make no sense.
    pub fn train(
        device: &Device,
        recipe: &Recipe,
        samples: &Samples<'_>,
        parts: &[Part],
        progress: &mut dyn FnMut(u64, u64, Option<f32>),
    ) -> Result<Self> {
        let Samples { features, width, labels } = *samples;
        if features.len() != width * labels.len() {
            let expected = format!("{width} for each of {} labels", labels.len());
            return Err(Error::value("number of features", features.len(), expected));
        }
        if parts.is_empty() {
            return Err(Error::value("parts to train on", 0, "at least one"));
        }
        let order: Vec<usize> = parts.iter().flat_map(|part| &part.rows).copied().collect();
        if let Some(row) = order.iter().find(|row| **row >= labels.len()) {
            return Err(Error::value("row of a part", row, format!("below {}", labels.len())));
        }
        if let Some(Part { number, .. }) = parts.iter().find(|part| part.rows.is_empty()) {
            return Err(Error::value(format!("samples of part {number}"), 0, "at least one"));
        }
        // A part's rows side by side, so that a range names them.
        let x: Vec<f32> =
            order.iter().flat_map(|row| &features[row * width..][..width]).copied().collect();
        let y: Vec<u32> = order.iter().map(|row| labels[*row]).collect();
        let data = LocalData::Rows(RowData::upload(device, &x, width, &y, recipe.classes)?);

        let seed = |part: &Part| training_seed(recipe.seed, 0, &ClientId::numbered(part.number));
        let seeds: Vec<u32> = parts.iter().map(seed).collect();
        let recorder = Recorder::new(&ModelKind::Layers(recipe.model.clone()))?;
        let arena = Arena::new(device, recorder.parameters(), &seeds)?;
        let (_, model) = recipe.model.build()?;
        let outputs = outputs(&arena, &model, width)?;
        if outputs != recipe.classes {
            let expected = format!("{}, one for each class", recipe.classes);
            return Err(Error::value("outputs of the model", outputs, expected));
        }
        let local = &recipe.training;
        let (mut plan, _) = recorder.training(&arena, &data, local, UpdateKind::Delta)?;
        let schedule = Schedule::constant(local.learning_rate);
        let steps = |part: &Part| {
            let epoch = part.rows.len().div_ceil(local.batch as usize) as u32;
            local.steps.unwrap_or(epoch.saturating_mul(local.epochs))
        };
        let mut base = 0;
        let records = parts.iter().zip(&seeds).map(|(part, seed)| {
            let count = part.rows.len() as u32;
            base += count;
            StateRecord::new(*seed, base - count..base, local.batch, steps(part), &schedule)
        });
        plan.set_states(&records.collect::<Vec<_>>())?;
        let total = parts.iter().map(steps).max().unwrap_or(0) as usize;
        let mut done = 0;
        while done < total {
            let now = REPORT.min(total - done);
            let losses = plan.run(now)?;
            done += now;
            progress(done as u64, total as u64, losses.mean());
        }
        let predictor = Predictor::new(&arena, &model, EVALUATION_BATCH)?;
        Ok(Models { arena, predictor, width, classes: recipe.classes })
    }

    /// Number of models.
    pub fn len(&self) -> usize {
        self.arena.replicas()
    }

    /// Whether there are none; there never are.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Features of a sample.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The parameters of a model, a flat vector.
    ///
    /// # Errors
    /// The engine's, for a model that isn't there.
    pub fn parameters(&self, model: usize) -> Result<Vec<f32>> {
        Ok(self.arena.read(Flat::Parameters, model)?)
    }

    /// The class that each model gives each row of `features`, by model, then by row.
    ///
    /// # Errors
    /// The engine's, for rows of another width or features that are not finite.
    pub fn predict(&mut self, features: &[f32]) -> Result<Vec<Vec<u32>>> {
        let logits = self.predictor.predict(features)?;
        let by_model = logits.chunks(logits.len() / self.len());
        Ok(by_model.map(|logits| logits.chunks(self.classes).map(largest).collect()).collect())
    }
}

/// What a model gives for a row of features.
fn outputs(arena: &Arena, model: &Model, width: usize) -> Result<usize> {
    let mut graph = Graph::new(arena);
    let row = graph.input("features", &[1, width], Element::F32);
    let output = model.forward(&mut graph, row, Mode::Evaluate)?.output;
    Ok(graph.len(output))
}

fn largest(logits: &[f32]) -> u32 {
    let start = (0, f32::NEG_INFINITY);
    let (class, _) = (0..)
        .zip(logits)
        .fold(start, |best, (class, logit)| if *logit > best.1 { (class, *logit) } else { best });
    class
}

/// How many of the predictions are the labels.
pub fn accuracy(predicted: &[u32], labels: &[u32]) -> f64 {
    let right = predicted.iter().zip(labels).filter(|(a, b)| a == b).count();
    right as f64 / labels.len().max(1) as f64
}
