//! A model on a user's device that predicts, keeps the activations of its predictions, and is
//! trained from them.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use tern_engine::nn::{Forward, LayerSpec, Mode, ModelSpec};
use tern_engine::{
    Activation, Activations, Arena, Data, Device, Flat, Graph, Optimizer, Param, Parameters, Plan,
    Schedule, Tensor, Trainable, Training,
};
use tern_protocol::{Error, Result};
use tern_shaders::kernels::random::pcg4d;
use tern_shaders::state::StateRecord;

use super::batch::Domain;
use super::score::inputs;
use super::{Batch, Score, Scorer, Shape};

/// Whether a training may use activations of predictions (Prediction Results Reuse, DeepType,
/// IMWUT 2018).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reuse {
    /// Each update computes forward and backward.
    #[default]
    Never,
    /// Activations of weights that were updated so many times since, at most. With 0 they are
    /// those that the forward pass would compute, and so are the gradients. Where the last layer
    /// is trained alone, activations before it stay exact, and all updates use them.
    Within(u32),
}

impl Reuse {
    /// Activations of the present weights alone.
    pub const EXACT: Reuse = Reuse::Within(0);

    /// Whether it allows activations of this age, in updates.
    fn allows(self, age: u64) -> bool {
        matches!(self, Reuse::Within(most) if age <= u64::from(most))
    }
}

/// How a personal model is trained.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// How gradients change parameters.
    pub optimizer: Optimizer,
    /// Learning rate by update.
    pub schedule: Schedule,
    /// Times each batch is trained on.
    pub passes: usize,
    /// Which parameters change: all, or on a weak device those of the last layers.
    pub trainable: Trainable,
    /// Whether activations of predictions are used.
    pub reuse: Reuse,
    /// Seed of the order of batches.
    pub seed: u32,
}

impl Default for Recipe {
    /// Adam at 0.001, 4 passes over all parameters, no reuse.
    fn default() -> Self {
        Recipe {
            optimizer: Optimizer::adam(),
            schedule: Schedule::constant(1e-3),
            passes: 4,
            trainable: Trainable::All,
            reuse: Reuse::Never,
            seed: 0,
        }
    }
}

/// Activations of a forward pass, on the device.
pub struct KeptActivations {
    activations: Activations,
    /// Which weights were loaded, and how often they had been updated.
    weights: (u64, u64),
}

impl KeptActivations {
    /// Bytes they take.
    pub fn bytes(&self) -> u64 {
        self.activations.bytes()
    }
}

/// What a training took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainingCost {
    /// Updates of the weights.
    pub updates: u32,
    /// Of these, from activations that were there already.
    pub reused: u32,
    /// Most bytes of activations that were kept at a time.
    pub kept_bytes: u64,
    /// Seconds.
    pub seconds: f64,
}

/// A model that predicts batches and is trained on them, forward and backward passes run separately.
pub struct Learner {
    arena: Arena,
    plan: Plan,
    inputs: Tensor,
    targets: Tensor,
    places: Tensor,
    scorer: Scorer,
    recipe: Recipe,
    /// The state record that a training starts from.
    start: Vec<StateRecord>,
    /// Whether the last layer is trained alone. Then it is computed in the backward pass, from
    /// activations before it, which no update makes older.
    head_alone: bool,
    /// Weights loaded so far, and updates of those loaded last.
    weights: (u64, u64),
    domain: Domain,
    /// Words of a batch's inputs and targets.
    words: [usize; 2],
}

impl Learner {
    /// A model on a device. Layers predict without dropout, and so they train: a training may
    /// start from the activations of a prediction.
    ///
    /// # Errors
    /// [`Error::Value`] for a shape without rows; the engine's, among them one
    /// for a recipe that trains nothing.
    pub fn new(device: &Device, spec: &ModelSpec, shape: Shape, recipe: &Recipe) -> Result<Self> {
        let (parameters, model) = spec.build()?;
        let arena = Arena::new(device, &parameters, &[0])?;
        let head = head(spec, &parameters, &recipe.trainable)?;
        let mut graph = Graph::new(&arena);
        let (inputs, targets) = inputs(&mut graph, spec, shape)?;
        let words = [inputs, targets].map(|tensor| graph.len(tensor));
        let Forward { output: mut logits, features, .. } =
            model.forward(&mut graph, inputs, Mode::Evaluate)?;
        let domain = Domain::of(spec, &graph, logits);
        let (_, places) = graph.top_k(logits, domain.top() as u32)?;
        let places = graph.keep(places);
        graph.end_forward();
        if let Some((weight, bias, activation)) = &head {
            logits = graph.linear(features, weight, Some(bias), *activation)?;
        }
        let loss = graph.cross_entropy(logits, targets)?;
        let options = Training::new(recipe.optimizer, recipe.schedule.base)
            .schedule(recipe.schedule)
            .trainable(recipe.trainable.clone());
        let mut plan = graph.train(loss, &options)?;
        Ok(Learner {
            start: plan.states()?,
            scorer: Scorer::new(&arena, spec, shape)?,
            domain,
            arena,
            plan,
            inputs,
            targets,
            places,
            recipe: recipe.clone(),
            head_alone: head.is_some(),
            weights: (0, 0),
            words,
        })
    }

    /// Layout of the parameters.
    pub fn parameters(&self) -> &Parameters {
        self.arena.parameters()
    }

    /// How it is trained.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// Predictions given for each target: [`TOP`](super::TOP), or fewer where there are fewer
    /// classes.
    pub fn top(&self) -> usize {
        self.domain.top()
    }

    /// Whether a batch has the shape that this one takes.
    pub(super) fn fits(&self, batch: &Batch) -> bool {
        let Batch { inputs, targets, predicted, .. } = batch;
        let whole = [0, self.top() * self.words[1]].contains(&predicted.len());
        [inputs.len(), targets.len()] == self.words && whole
    }

    /// Refuses classes that the model doesn't have, and another number than places in a batch.
    pub(super) fn check_targets(&self, targets: &[u32]) -> Result<()> {
        let places = self.words[1];
        if targets.len() != places {
            let expected = places.to_string();
            return Err(Error::value("number of targets", targets.len(), expected));
        }
        self.domain.check_targets(targets)
    }

    /// Refuses tokens and classes that the model doesn't have, and features that are no finite
    /// numbers.
    pub(super) fn check(&self, batch: &Batch) -> Result<()> {
        self.domain.check(batch)
    }

    /// The parameters as they are, a flat vector.
    ///
    /// # Errors
    /// The device's.
    pub fn weights(&self) -> Result<Vec<f32>> {
        Ok(self.arena.read(Flat::Parameters, 0)?)
    }

    /// The gradient of the last update, a flat vector; zero for parameters that aren't trained.
    ///
    /// # Errors
    /// The device's.
    pub fn gradient(&self) -> Result<Vec<f32>> {
        Ok(self.arena.read(Flat::Gradients, 0)?)
    }

    /// Other parameters from now on. Activations kept of those before are not used.
    ///
    /// # Errors
    /// The engine's for another number of values.
    pub fn set_weights(&mut self, weights: &[f32]) -> Result<()> {
        self.arena.write(Flat::Parameters, 0, weights)?;
        self.weights = (self.weights.0 + 1, 0);
        Ok(())
    }

    /// Predicts a batch: the most probable classes of each place, [`TOP`](super::TOP) of them or as
    /// many as there are classes, the most probable first.
    ///
    /// # Errors
    /// [`Error::Value`] for a token that the model doesn't have, or a feature
    /// that is no finite number; the engine's for inputs of another shape.
    pub fn predict(&mut self, inputs: &Data) -> Result<Vec<u32>> {
        self.domain.check_inputs(inputs)?;
        self.plan.write(self.inputs, inputs)?;
        self.plan.forward()?;
        Ok(self.plan.read(self.places)?.words()?)
    }

    /// Keeps the activations of the forward pass that was computed last.
    ///
    /// # Errors
    /// The device's.
    pub fn keep(&mut self) -> Result<KeptActivations> {
        Ok(KeptActivations { activations: self.plan.save()?, weights: self.weights })
    }

    /// Updates that kept activations have missed; `None` if they are of other weights.
    fn age(&self, kept: &KeptActivations) -> Option<u64> {
        let missed =
            if self.head_alone { 0 } else { self.weights.1.saturating_sub(kept.weights.1) };
        (kept.weights.0 == self.weights.0).then_some(missed)
    }

    /// Starts a training: the schedule at its beginning, the optimizer's moments at zero.
    ///
    /// # Errors
    /// The device's.
    pub fn start(&mut self) -> Result<()> {
        let zeros = vec![0.0; self.parameters().words()];
        for flat in self.recipe.optimizer.moments() {
            self.arena.write(*flat, 0, &zeros)?;
        }
        Ok(self.plan.set_states(&self.start)?)
    }

    /// Updates the weights once by a batch: from the activations kept with it if the recipe
    /// allows their age, else from a forward pass. Returns whether they were used.
    ///
    /// # Errors
    /// As [`Learner::predict`], and for a class that the model doesn't have.
    pub fn update(&mut self, batch: &Batch) -> Result<bool> {
        self.check_targets(&batch.targets)?;
        let usable = batch
            .kept
            .as_ref()
            .filter(|kept| self.age(kept).is_some_and(|age| self.recipe.reuse.allows(age)));
        let plan = &mut self.plan;
        match usable {
            Some(kept) => {
                // They come with the state of their own step, but this is the present one.
                let now = plan.states()?;
                plan.restore(&kept.activations)?;
                plan.set_states(&now)?;
            }
            None => {
                self.domain.check_inputs(&batch.inputs)?;
                plan.write(self.inputs, &batch.inputs)?;
                plan.forward()?;
            }
        }
        plan.write(self.targets, &Data::U32(batch.targets.clone()))?;
        plan.backward()?;
        self.weights.1 += 1;
        Ok(usable.is_some())
    }

    /// Trains on batches from the weights as they are, in an order that the seed draws anew for
    /// each pass. Activations are used, and kept for the next pass, as far as the recipe allows;
    /// in the end none are left. `each` is called after every update.
    ///
    /// # Errors
    /// As [`Learner::update`].
    pub fn train(&mut self, batches: &mut [Batch], each: &mut dyn FnMut()) -> Result<TrainingCost> {
        let started = Instant::now();
        self.start()?;
        let order = order(batches.len(), self.recipe.passes, self.recipe.seed);
        let mut work = TrainingCost::default();
        for (at, batch) in order.iter().enumerate() {
            let kept = batches.iter().flat_map(|b| &b.kept).map(KeptActivations::bytes).sum();
            work.kept_bytes = work.kept_bytes.max(kept);
            let again = order[at + 1..].iter().position(|b| b == batch);
            let batch = &mut batches[*batch];
            let before = self.weights;
            let reused = self.update(batch)?;
            work.updates += 1;
            work.reused += u32::from(reused);
            // Those of this pass serve the next one if they aren't too old by then.
            let serves = |from: u64, distance: usize| {
                let age = before.1 - from + 1 + distance as u64;
                self.recipe.reuse.allows(if self.head_alone { 0 } else { age })
            };
            let from = batch.kept.as_ref().filter(|_| reused).map_or(before.1, |k| k.weights.1);
            match again {
                Some(distance) if serves(from, distance) => {
                    if !reused {
                        let activations = self.plan.save()?;
                        batch.kept = Some(KeptActivations { activations, weights: before });
                    }
                }
                _ => batch.kept = None,
            }
            each();
        }
        work.seconds = started.elapsed().as_secs_f64();
        Ok(work)
    }

    /// How well the present weights expect the targets of batches.
    ///
    /// # Errors
    /// As [`Learner::update`].
    pub fn score(&mut self, batches: &[Batch]) -> Result<Score> {
        self.scorer.score(batches)
    }
}

/// Weight, bias and activation of the last layer, if no parameter but its own is trained.
fn head(
    spec: &ModelSpec,
    parameters: &Parameters,
    trainable: &Trainable,
) -> Result<Option<(Param, Param, Activation)>> {
    let Some((name, LayerSpec::Linear { activation, .. })) = spec.layers.last() else {
        return Ok(None);
    };
    let [weight, bias] = [format!("{name}.weight"), format!("{name}.bias")];
    let own = |param: &Param| [&weight, &bias].iter().any(|name| *param.name == ***name);
    if parameters.iter().any(|param| trainable.covers(&param.name) && !own(param)) {
        return Ok(None);
    }
    let (weight, bias) = (parameters.get(&weight)?, parameters.get(&bias)?);
    Ok(Some((weight.clone(), bias.clone(), *activation)))
}

/// The order of updates: `passes` times all of `batches`, each time drawn anew.
fn order(batches: usize, passes: usize, seed: u32) -> Vec<usize> {
    let pass = |pass: usize| {
        let mut order: Vec<usize> = (0..batches).collect();
        for i in (1..batches).rev() {
            let [random, ..] = pcg4d([i as u32, pass as u32, 0x0dd5, seed]);
            order.swap(i, random as usize % (i + 1));
        }
        order
    };
    (0..passes).flat_map(pass).collect()
}
