//! A device's room for a few models: reading with them and training them, side by side.

use std::sync::Arc;

use anyhow::{Result, ensure};
use tern_engine::nn::Mode;
use tern_engine::{
    Arena, Batching, Decay, Device, Flat, Graph, Kind, Optimizer, TextData, Training,
};
use tern_shaders::state;

use super::public::PublicModel;
use super::reader::{Passage, Reader, Reading};

/// Characters of a training window.
pub const WINDOW: usize = 80;
/// Windows read at a time.
const READ: usize = 32;
/// Part of the learning rate that is left at the end of a training: what is adopted should
/// not hang on the last records it saw.
pub const FLOOR: f64 = 0.05;
/// Steps between two reports of progress.
const REPORT: usize = 16;

/// How a model is trained on a user's records.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recipe {
    /// Adam's learning rate at first; it falls in a straight line to a twentieth of it.
    pub rate: f64,
    /// Times each record is trained on.
    pub passes: usize,
    /// Windows a step.
    pub batch: usize,
    /// Seed of the order.
    pub seed: u32,
}

impl Recipe {
    /// Steps that a text of `tokens` takes.
    pub fn steps(&self, tokens: usize) -> usize {
        self.passes * tokens.saturating_sub(1).div_ceil(WINDOW).div_ceil(self.batch.max(1))
    }
}

/// One arena, with as many models side by side as pay on the device.
pub struct Workbench {
    device: Device,
    public: Arc<PublicModel>,
    arena: Arena,
    reader: Reader,
}

impl Workbench {
    /// Room on a device: for 8 models on a GPU, which one model doesn't fill, and for one on
    /// the CPU, where side by side gains nothing.
    pub fn new(device: &Device, public: &Arc<PublicModel>) -> Result<Self> {
        let replicas = if device.profile().kind == Kind::Cpu { 1 } else { 8 };
        Self::with_replicas(device, public, replicas)
    }

    /// Room for a given number of models.
    pub fn with_replicas(
        device: &Device,
        public: &Arc<PublicModel>,
        replicas: usize,
    ) -> Result<Self> {
        let arena = public.arena(device, replicas)?;
        let reader = Reader::new(&arena, &public.model, READ)?;
        Ok(Workbench { device: device.clone(), public: public.clone(), arena, reader })
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The public model.
    pub fn public(&self) -> &Arc<PublicModel> {
        &self.public
    }

    /// Models side by side.
    pub fn replicas(&self) -> usize {
        self.arena.replicas()
    }

    fn place<'a>(&self, models: impl Iterator<Item = &'a [f32]>) -> Result<()> {
        for (replica, weights) in models.enumerate() {
            self.arena.write(Flat::Parameters, replica, weights)?;
        }
        Ok(())
    }

    /// Reads each model's passages with it.
    pub fn read(&mut self, jobs: &[(&[f32], &[Passage])]) -> Result<Vec<Reading>> {
        let mut readings = Vec::with_capacity(jobs.len());
        for jobs in jobs.chunks(self.replicas()) {
            self.place(jobs.iter().map(|job| job.0))?;
            let passages: Vec<_> = jobs.iter().map(|job| job.1).collect();
            readings.extend(self.reader.read(&passages)?);
        }
        Ok(readings)
    }

    /// Trains each model on its text and returns what became of it. `each` sees the steps done
    /// by a model of each of the groups that train side by side, and the loss.
    ///
    /// Texts must have the same length: models side by side take the same number of steps.
    pub fn train(
        &mut self,
        jobs: &[(&[f32], &[u32])],
        recipe: &Recipe,
        mut each: impl FnMut(usize, Option<f32>),
    ) -> Result<Vec<Vec<f32>>> {
        let mut trained = Vec::with_capacity(jobs.len());
        for jobs in jobs.chunks(self.replicas()) {
            trained.extend(self.train_group(jobs, recipe, &mut each)?);
        }
        Ok(trained)
    }

    fn train_group(
        &mut self,
        jobs: &[(&[f32], &[u32])],
        recipe: &Recipe,
        each: &mut impl FnMut(usize, Option<f32>),
    ) -> Result<Vec<Vec<f32>>> {
        let tokens = jobs[0].1.len();
        ensure!(jobs.iter().all(|job| job.1.len() == tokens), "texts of different lengths");
        self.place(jobs.iter().map(|job| job.0))?;
        let zeros = vec![0.0; self.public.parameters.words()];
        let optimizer = Optimizer::adam();
        for flat in optimizer.moments() {
            for replica in 0..self.replicas() {
                self.arena.write(*flat, replica, &zeros)?;
            }
        }
        let texts: Vec<_> = jobs.iter().map(|job| job.1).collect();
        let vocabulary = self.public.card.alphabet.tokens();
        let data = TextData::upload(&self.device, &texts, vocabulary, WINDOW, WINDOW)?;
        let windows = data.len() / jobs.len();
        // Replicas without a job of their own repeat one.
        let parts = (0..jobs.len()).map(|job| job * windows..(job + 1) * windows).collect();
        let batching = Batching { batch: recipe.batch.min(windows), shuffle: true, parts };

        let mut graph = Graph::new(&self.arena);
        let (inputs, targets) = graph.text_batch(&data, &batching)?;
        let forward = self.public.model.forward(&mut graph, inputs, Mode::Train)?;
        let loss = graph.cross_entropy(forward.output, targets)?;
        let mut left = recipe.passes * windows.div_ceil(batching.batch);
        let mut training = Training::new(optimizer, recipe.rate);
        training.schedule.decay = Decay::Linear { total: left as u32, floor: FLOOR * recipe.rate };
        training.seed = recipe.seed;
        let mut plan = graph.train(loss, &training)?;
        // Each in the order that it has alone, on a device of its own.
        let mut states = plan.states()?;
        states.iter_mut().for_each(|state| state[state::SEED] = recipe.seed);
        plan.set_states(&states)?;
        while left > 0 {
            let now = left.min(REPORT);
            let losses = plan.run(now)?;
            left -= now;
            each(now, losses.last());
        }
        let read = |replica| Ok(self.arena.read(Flat::Parameters, replica)?);
        (0..jobs.len()).map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyboard::public::tiny;

    #[test]
    fn models_side_by_side_learn_what_they_learn_alone() {
        let public = Arc::new(tiny());
        let device = Device::cpu();
        let mut one = Workbench::with_replicas(&device, &public, 1).unwrap();
        let mut three = Workbench::with_replicas(&device, &public, 3).unwrap();
        let texts: Vec<Vec<u32>> = (3..7).map(|k| (0..700).map(|i| 1 + i % k).collect()).collect();
        let jobs: Vec<_> = texts.iter().map(|t| (public.weights(), &t[..])).collect();
        // Half of the steps' worth goes with the falling rate.
        let recipe = Recipe { rate: 1e-2, passes: 6, batch: 4, seed: 1 };
        let mut steps = 0;
        let together = three.train(&jobs, &recipe, |now, _| steps += now).unwrap();
        assert_eq!(steps, 2 * recipe.steps(700), "two groups");
        for (job, together) in jobs.iter().zip(&together) {
            let passages = [Passage { tokens: job.1.to_vec(), from: 1 }];
            let loss = |bench: &mut Workbench, weights: &[f32]| {
                bench.read(&[(weights, &passages)]).unwrap()[0].scores.loss()
            };
            let before = loss(&mut one, job.0);
            assert!(loss(&mut three, together) < before - 1.0);
        }
        for (job, together) in jobs.iter().zip(&together) {
            let alone = one.train(std::slice::from_ref(job), &recipe, |_, _| {}).unwrap();
            let off = alone[0].iter().zip(together).map(|(a, b)| (a - b).abs());
            assert!(off.fold(0.0, f32::max) < 1e-4);
        }
        let uneven = [jobs[0], (jobs[1].0, &jobs[1].1[1..])];
        assert!(three.train(&uneven, &recipe, |_, _| {}).is_err());
    }
}
