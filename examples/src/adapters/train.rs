//! What clients train: one copy of the model, whose weights are the same for all of them, by turns.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use anyhow::Result;
use tern_engine::nn::{LORA, Mode};
use tern_engine::{
    Arena, Batching, Device, Flat, Graph, Optimizer, Plan, TextData, TextWindows, Trainable,
    Training,
};
use tern_fl::TaskSpec;
use tern_fl::metrics::Metrics;
use tern_fl::plan::LocalTraining;
use tern_fl::trainer::{Job, Trained, Trainer, state_record};

use super::base::{Base, adapters};

/// Windows of a step that measures.
const MEASURED: usize = 8;

/// A copy of the model, and the plans that train its adapters and measure it.
pub struct Bench {
    arena: Arena,
    /// Weights and adapters.
    flat: Vec<f32>,
    /// Where the adapters begin.
    first: usize,
    train: Plan,
    measure: (Plan, usize),
}

/// What each client trains on, and what measures the model: tokens.
pub struct Texts {
    /// By client.
    pub train: Vec<Vec<u32>>,
    /// The lines that none of them trains on.
    pub held_back: Vec<Vec<u32>>,
}

impl Bench {
    /// For the clients of these texts; gives the windows of each, too.
    pub fn new(
        device: &Device,
        base: &Base,
        texts: &Texts,
        window: usize,
        local: &LocalTraining,
        seed: u32,
    ) -> Result<(Self, Vec<Range<usize>>)> {
        let arena = Arena::new(device, &base.parameters, &[seed])?;
        arena.write(Flat::Parameters, 0, &base.weights)?;
        let windows = TextWindows::new(base.vocabulary(), window);
        let data = TextData::upload(device, &texts.train, windows)?;
        let trainable = Trainable::Prefixes(vec![LORA.into()]);
        let training = Training::new(local.optimizer, local.learning_rate)
            .clip_norm(local.clip_gradient)
            .trainable(trainable);
        let train = plan(&arena, base, &data, local.batch as usize, &training)?;
        let held_back = TextData::upload(device, &texts.held_back, windows)?;
        let mut graph = Graph::new(&arena);
        let batch = held_back.len().min(MEASURED);
        let (inputs, targets) = graph.text_batch(&held_back, &Batching::in_order(batch))?;
        let logits = base.model.forward(&mut graph, inputs, Mode::Evaluate)?.output;
        let loss = graph.cross_entropy(logits, targets)?;
        let measure = (graph.evaluate(loss)?, held_back.len().div_ceil(batch));
        let (flat, first) = (base.weights.clone(), adapters(&base.parameters).1);
        Ok((Bench { arena, flat, first, train, measure }, data.parts().to_vec()))
    }

    fn take(&mut self, adapters: &[f32]) -> tern_engine::Result<()> {
        self.flat[self.first..].copy_from_slice(adapters);
        self.arena.write(Flat::Parameters, 0, &self.flat)
    }

    /// Trains adapters on some of the windows: their change, and the mean loss on the way.
    fn train(
        &mut self,
        local: &LocalTraining,
        job: &Job,
        part: Range<usize>,
    ) -> tern_engine::Result<(Vec<f32>, Option<f32>)> {
        self.take(&job.model)?;
        self.train.rewind()?;
        let steps = local.steps.unwrap_or(1);
        let record = state_record(local, job.turn.round, job.seed, part, steps, 0);
        self.train.set_states(&[record])?;
        let loss = self.train.run(steps as usize)?.mean();
        let mut update = self.arena.read(Flat::Parameters, 0)?.split_off(self.first);
        update.iter_mut().zip(&*job.model).for_each(|(after, before)| *after -= before);
        Ok((update, loss))
    }

    /// Mean loss of the model with these adapters on the lines that are held back.
    pub fn measure(&mut self, adapters: &[f32]) -> Result<f64> {
        self.take(adapters)?;
        let (plan, steps) = &mut self.measure;
        plan.rewind()?;
        Ok(plan.run(*steps)?.mean().map_or(f64::NAN, f64::from))
    }
}

/// A plan of training steps.
fn plan(
    arena: &Arena,
    base: &Base,
    data: &TextData,
    batch: usize,
    training: &Training,
) -> Result<Plan> {
    let mut graph = Graph::new(arena);
    let (inputs, targets) = graph.text_batch(data, &Batching::shuffled(batch))?;
    let logits = base.model.forward(&mut graph, inputs, Mode::Train)?.output;
    let loss = graph.cross_entropy(logits, targets)?;
    Ok(graph.train(loss, training)?)
}

/// Trains all weights but the adapters on a text, and gives the last step's loss.
pub fn train_weights(
    device: &Device,
    base: &mut Base,
    text: &[u32],
    window: usize,
    steps: usize,
    seed: u32,
) -> Result<f32> {
    let arena = Arena::new(device, &base.parameters, &[seed])?;
    arena.write(Flat::Parameters, 0, &base.weights)?;
    let data = TextData::upload(device, &[text], TextWindows::new(base.vocabulary(), window))?;
    let names = base.parameters.iter().map(|p| p.name.to_string());
    let weights = Trainable::Prefixes(names.filter(|name| !name.starts_with(LORA)).collect());
    let training = Training::new(Optimizer::adamw(), 2e-3).clip_norm(1.0).trainable(weights);
    let losses = plan(&arena, base, &data, 8, &training.seed(seed))?.run(steps)?;
    base.weights = arena.read(Flat::Parameters, 0)?;
    Ok(losses.last().unwrap_or(f32::NAN))
}

/// A client.
pub struct Speaker {
    bench: Rc<RefCell<Bench>>,
    windows: Range<usize>,
}

impl Speaker {
    /// Of some windows.
    pub fn new(bench: &Rc<RefCell<Bench>>, windows: Range<usize>) -> Self {
        Speaker { bench: bench.clone(), windows }
    }
}

impl Trainer for Speaker {
    fn samples(&self) -> u32 {
        self.windows.len() as u32
    }

    fn train(&mut self, task: &TaskSpec, job: &Job) -> tern_fl::Result<Trained> {
        let mut bench = self.bench.borrow_mut();
        let (update, loss) = bench.train(&task.training, job, self.windows.clone())?;
        let loss = loss.map(|loss| ("loss".to_owned(), f64::from(loss)));
        Ok(Trained::new(update, self.samples(), loss.into_iter().collect()))
    }

    fn evaluate(&mut self, _: &TaskSpec, _: &[f32]) -> tern_fl::Result<(u32, Metrics)> {
        // The demo measures each round's model itself, on all clients' lines.
        Ok((self.samples(), Metrics::new()))
    }
}
