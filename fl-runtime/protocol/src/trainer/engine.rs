//! Training by the engine: the model from the task, the data on the device.

use tern_engine::{Arena, Device, Flat, Interrupt, Plan, Tensor};
use tern_shaders::state;

use super::record::{LocalData, Recorder, evaluation_metrics, evaluation_steps, state_record};
use super::{Job, OptimizerState, Trained, Trainer, clip_norm};
use crate::layout::Layout;
use crate::metrics::Metrics;
use crate::{Error, Result, TaskSpec};

/// Trains the layers that a task describes, with softmax cross-entropy, on a device. Plans are
/// recorded once a run; a round with the same seed gives the same bits.
pub struct EngineTrainer {
    device: Device,
    training: Option<LocalData>,
    evaluation: Option<LocalData>,
    interrupt: Interrupt,
    plans: Option<Plans>,
}

/// What is recorded for a task.
struct Plans {
    /// What they are for.
    task: TaskSpec,
    arena: Arena,
    /// A step, and the gradient of a batch where the task asks for it.
    train: Option<(Plan, Option<Plan>)>,
    /// A step of evaluation, and what it counts.
    evaluate: Option<(Plan, Tensor)>,
}

impl EngineTrainer {
    /// Trains and evaluates on the same data.
    pub fn new(device: &Device, data: LocalData) -> Self {
        Self::with_evaluation(device, data.clone(), data)
    }

    /// Trains on one set and evaluates on another.
    pub fn with_evaluation(device: &Device, training: LocalData, evaluation: LocalData) -> Self {
        Self::of(device, Some(training), Some(evaluation))
    }

    /// Trains, and declines to evaluate.
    pub fn for_training(device: &Device, training: LocalData) -> Self {
        Self::of(device, Some(training), None)
    }

    /// Evaluates, and has no samples to train on.
    pub fn for_evaluation(device: &Device, evaluation: LocalData) -> Self {
        Self::of(device, None, Some(evaluation))
    }

    fn of(device: &Device, training: Option<LocalData>, evaluation: Option<LocalData>) -> Self {
        let (device, interrupt) = (device.clone(), Interrupt::new());
        EngineTrainer { device, training, evaluation, interrupt, plans: None }
    }

    /// Ends by this interrupt instead of one of its own.
    pub fn with_interrupt(self, interrupt: Interrupt) -> Self {
        EngineTrainer { interrupt, plans: None, ..self }
    }

    fn plans(&mut self, task: &TaskSpec) -> Result<&mut Plans> {
        let plans = match self.plans.take() {
            Some(plans) if plans.task == *task => plans,
            _ => self.record(task)?,
        };
        Ok(self.plans.insert(plans))
    }

    fn record(&self, task: &TaskSpec) -> Result<Plans> {
        let recorder = Recorder::new(&task.model)?;
        let layout = Layout::new(recorder.parameters().clone())?.digest();
        if layout != task.layout {
            return Err(Error::value("layout of the model", layout, task.layout.to_string()));
        }
        let arena = Arena::new(&self.device, recorder.parameters(), &[task.seed])?;
        let kind = task.updates.kind;
        let train = self.training.as_ref();
        let train = train.map(|data| recorder.training(&arena, data, &task.training, kind));
        let evaluate = self.evaluation.as_ref().map(|data| recorder.evaluation(&arena, data));
        let (mut train, mut evaluate) = (train.transpose()?, evaluate.transpose()?);
        if let Some((train, gradient)) = &mut train {
            train.set_interrupt(&self.interrupt);
            gradient.iter_mut().for_each(|gradient| gradient.set_interrupt(&self.interrupt));
        }
        if let Some((evaluate, _)) = &mut evaluate {
            evaluate.set_interrupt(&self.interrupt);
        }
        Ok(Plans { task: task.clone(), train, evaluate, arena })
    }
}

impl Plans {
    /// Trains from the start of a job. What the optimizer goes on from is empty unless the task
    /// keeps it.
    async fn train(
        &mut self,
        task: &TaskSpec,
        job: &Job,
        samples: usize,
        steps: usize,
    ) -> Result<Trained> {
        let local = &task.training;
        let Some((train, gradient)) = &mut self.train else { return Err(nothing("train")) };
        self.arena.write_async(Flat::Parameters, 0, &job.model).await?;
        if local.proximal.is_some() {
            self.arena.write_async(Flat::Reference, 0, &job.model).await?;
        }
        // At step 0 the optimizer takes its moments for zeros, whatever they are.
        let kept = job.optimizer.moments.chunks_exact(job.model.len());
        for (moment, kept) in local.optimizer.moments().iter().zip(kept) {
            self.arena.write_async(*moment, 0, kept).await?;
        }
        train.rewind()?;
        let (round, done) = (job.turn.round, job.optimizer.steps);
        let record = state_record(local, round, job.seed, 0..samples, steps as u32, done);
        train.set_states(&[record])?;
        let losses = train.run_async(steps).await?;
        let mut optimizer = OptimizerState::default();
        if local.keep_optimizer {
            for moment in local.optimizer.moments() {
                optimizer.moments.extend(self.arena.read_async(*moment, 0).await?);
            }
            optimizer.steps = train.states_async().await?[0].steps();
        }
        let mut update = match gradient {
            Some(plan) => {
                // The batch that would be next: the steps are over, but one more is taken.
                let mut record = train.states_async().await?[0];
                record[state::ACTIVE] = 1;
                plan.set_states(&[record])?;
                plan.run_async(1).await?;
                self.arena.read_async(Flat::Gradients, 0).await?
            }
            None => {
                let mut update = self.arena.read_async(Flat::Parameters, 0).await?;
                update.iter_mut().zip(&*job.model).for_each(|(x, start)| *x -= start);
                update
            }
        };
        if let Some(most) = local.clip_update {
            clip_norm(&mut update, most);
        }
        let loss = losses.mean().map(|loss| ("loss".to_string(), f64::from(loss)));
        let samples = u32::try_from(samples).unwrap_or(u32::MAX);
        Ok(Trained { update, samples, metrics: loss.into_iter().collect(), optimizer })
    }
}

fn nothing(to: &str) -> Error {
    Error::value(format!("samples to {to} on").as_str(), 0, "at least one")
}

impl EngineTrainer {
    /// [`Trainer::train`] that gives way while the device works: in a browser no thread may wait
    /// for a GPU.
    ///
    /// # Errors
    /// As of it.
    pub async fn train_async(&mut self, task: &TaskSpec, job: &Job) -> Result<Trained> {
        let samples = self.training.as_ref().map_or(0, LocalData::len);
        let local = &task.training;
        let epoch = samples.div_ceil(local.batch as usize);
        let steps = local.steps.map_or(epoch * local.epochs as usize, |steps| steps as usize);
        let plans = self.plans(task)?;
        job.optimizer.check(local, job.model.len())?;
        plans.train(task, job, samples, steps).await
    }

    /// [`Trainer::evaluate`], likewise.
    ///
    /// # Errors
    /// As of it.
    pub async fn evaluate_async(
        &mut self,
        task: &TaskSpec,
        model: &[f32],
    ) -> Result<(u32, Metrics)> {
        let samples = self.evaluation.as_ref().map_or(0, LocalData::len);
        let plans = self.plans(task)?;
        let Some((evaluate, counts)) = &mut plans.evaluate else { return Err(nothing("evaluate")) };
        plans.arena.write_async(Flat::Parameters, 0, model).await?;
        evaluate.rewind()?;
        let losses = evaluate.run_async(evaluation_steps(samples)).await?;
        let counts = evaluate.read_async(*counts).await?.words()?;
        let metrics = evaluation_metrics(&counts, losses.mean());
        Ok((u32::try_from(samples).unwrap_or(u32::MAX), metrics))
    }
}

impl Trainer for EngineTrainer {
    fn samples(&self) -> u32 {
        let samples = self.training.as_ref().map_or(0, LocalData::len);
        u32::try_from(samples).unwrap_or(u32::MAX)
    }

    fn train(&mut self, task: &TaskSpec, job: &Job) -> Result<Trained> {
        let device = self.device.clone();
        device.wait(self.train_async(task, job))
    }

    fn evaluate(&mut self, task: &TaskSpec, model: &[f32]) -> Result<(u32, Metrics)> {
        let device = self.device.clone();
        device.wait(self.evaluate_async(task, model))
    }

    fn interrupt(&self) -> Option<Interrupt> {
        Some(self.interrupt.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::ModelKind;
    use crate::plan::{RateDecay, RunPlan, UpdateKind};
    use crate::{ClientId, Digest, RunId, Turn};
    use std::sync::Arc;
    use tern_engine::nn::ModelSpec;
    use tern_engine::{Optimizer, RowData, TextData, TextWindows};

    /// Two classes that a line parts.
    fn rows(device: &Device) -> LocalData {
        let points: Vec<f32> = (0..80).map(|i| ((i * 37 % 80) as f32 / 40.0) - 1.0).collect();
        let labels: Vec<u32> = points.chunks(2).map(|p| u32::from(p[0] > p[1])).collect();
        LocalData::Rows(RowData::upload(device, &points, 2, &labels, 2).unwrap())
    }

    fn task(change: impl FnOnce(&mut RunPlan)) -> TaskSpec {
        let model = ModelKind::Layers(ModelSpec::mlp(2, &[8], 2));
        let mut plan = RunPlan::new("test", model, 1);
        plan.training.batch = 40;
        plan.training.learning_rate = 0.5;
        change(&mut plan);
        plan.task(RunId([1; 16])).unwrap()
    }

    fn job() -> Job {
        let (parameters, _) = ModelSpec::mlp(2, &[8], 2).build().unwrap();
        let seed = crate::trainer::training_seed(1, 1, &ClientId([1; 32]));
        Job::new(Turn::new(1, 1), Arc::new(parameters.initial(3)), seed)
    }

    fn update(change: impl FnOnce(&mut RunPlan)) -> Vec<f32> {
        let device = Device::cpu();
        let mut trainer = EngineTrainer::new(&device, rows(&device));
        let task = task(change);
        let trained = trainer.train(&task, &job()).unwrap();
        assert_eq!((trained.samples, trained.update.len()), (40, job().model.len()));
        // A job done before changes nothing.
        assert_eq!(trainer.train(&task, &job()).unwrap(), trained);
        trained.update
    }

    fn norm(x: &[f32]) -> f32 {
        x.iter().map(|x| x * x).sum::<f32>().sqrt()
    }

    #[test]
    fn training_lowers_the_loss_and_raises_the_accuracy() {
        let device = Device::cpu();
        assert!(!rows(&device).is_empty());
        let mut trainer = EngineTrainer::new(&device, rows(&device));
        let task = task(|plan| {
            plan.training.epochs = 60;
            plan.training.batch = 7;
        });
        let job = job();
        let (samples, before) = trainer.evaluate(&task, &job.model).unwrap();
        let trained = trainer.train(&task, &job).unwrap();
        let after: Vec<f32> = job.model.iter().zip(&trained.update).map(|(x, d)| x + d).collect();
        let (_, after) = trainer.evaluate(&task, &after).unwrap();
        assert_eq!(samples, 40);
        assert!(after["loss"] < 0.5 * before["loss"], "{before:?} {after:?}");
        assert!(after["accuracy"] > 0.9, "{after:?}");
    }

    #[test]
    fn each_task_is_trained_by_its_own_plan() {
        let device = Device::cpu();
        let tasks = [0.5, 0.25].map(|rate| {
            task(|plan| {
                plan.training.optimizer = Optimizer::sgd();
                plan.training.learning_rate = rate;
                plan.updates.kind = UpdateKind::Delta;
                plan.training.epochs = 2;
            })
        });
        let alone = tasks.clone().map(|task| {
            EngineTrainer::new(&device, rows(&device)).train(&task, &job()).unwrap().update
        });
        let mut trainer = EngineTrainer::new(&device, rows(&device));
        for (task, update) in tasks.iter().zip(&alone) {
            assert_eq!(trainer.train(task, &job()).unwrap().update, *update);
        }
        // Two epochs of batches of 40 are two steps, four of 20.
        let steps = |batch, epochs, steps| {
            update(|plan| {
                (plan.training.batch, plan.training.epochs) = (batch, epochs);
                plan.training.steps = steps;
            })
        };
        assert_eq!(steps(40, 2, None), steps(40, 1, Some(2)));
        assert_eq!(steps(20, 2, None), steps(20, 1, Some(4)));
        assert_ne!(steps(20, 2, None), steps(20, 1, Some(3)));
    }

    #[test]
    fn training_and_evaluating_end_by_the_interrupt() {
        let device = Device::cpu();
        let mut trainer = EngineTrainer::new(&device, rows(&device));
        // It would train for hours.
        let task = task(|plan| plan.training.steps = Some(u32::MAX));
        trainer.interrupt().unwrap().set();
        let trained = trainer.train(&task, &job()).map(drop);
        let evaluated = trainer.evaluate(&task, &job().model).map(drop);
        for ended in [trained, evaluated] {
            let error = ended.unwrap_err();
            assert!(matches!(error, Error::Engine(tern_engine::Error::Interrupted)), "{error}");
        }
    }

    #[test]
    fn the_gradient_is_that_of_the_next_step() {
        let one = update(|plan| plan.training.steps = Some(1));
        let two = update(|plan| plan.training.steps = Some(2));
        let gradient = update(|plan| {
            plan.training.steps = Some(1);
            plan.updates.kind = UpdateKind::Gradient;
        });
        assert!(norm(&gradient) > 0.01);
        for ((one, two), gradient) in one.iter().zip(&two).zip(&gradient) {
            assert!((two - one + 0.5 * gradient).abs() < 1e-5, "{one} {two} {gradient}");
        }
    }

    #[test]
    fn the_rate_falls_from_round_to_round() {
        let device = Device::cpu();
        let update = |rate: f64, round: u32| {
            let task = task(|plan| {
                plan.training.learning_rate = rate;
                plan.training.steps = Some(5);
                plan.training.decay = Some(RateDecay::Every { factor: 0.5, rounds: 3 });
            });
            let job = Job { turn: Turn::new(round, 1), ..job() };
            EngineTrainer::new(&device, rows(&device)).train(&task, &job).unwrap().update
        };
        // Halves are exact.
        assert_eq!(update(0.5, 3), update(0.5, 1));
        assert_eq!(update(0.5, 4), update(0.25, 1));
        assert_eq!(update(0.5, 9), update(0.125, 1));
        assert_ne!(update(0.5, 4), update(0.5, 1));
    }

    #[test]
    fn fedprox_pulls_and_clipping_shortens() {
        let epochs = |plan: &mut RunPlan| plan.training.epochs = 20;
        let free = norm(&update(epochs));
        let pulled = norm(&update(|plan| {
            epochs(plan);
            plan.training.proximal = Some(1.0);
        }));
        assert!(pulled < 0.9 * free, "{pulled} {free}");
        let clipped = norm(&update(|plan| {
            epochs(plan);
            plan.training.clip_update = Some(0.25);
        }));
        assert!((clipped - 0.25).abs() < 1e-4, "{clipped}");
    }

    #[test]
    fn a_kept_optimizer_goes_on_as_if_it_had_not_stopped() {
        let device = Device::cpu();
        let task = |steps: u32, keep: bool| {
            task(|plan| {
                // One batch is all the data: two jobs of a step are one of two.
                plan.training.optimizer = Optimizer::adam();
                plan.training.learning_rate = 0.01;
                plan.training.steps = Some(steps);
                plan.training.keep_optimizer = keep;
            })
        };
        let train = |task: &TaskSpec, job: &Job| {
            EngineTrainer::new(&device, rows(&device)).train(task, job).unwrap()
        };
        let after = |job: &Job, trained: &Trained| {
            job.model.iter().zip(&trained.update).map(|(x, d)| x + d).collect::<Vec<_>>()
        };
        let start = job();
        let whole = train(&task(2, true), &start);
        let expected = after(&start, &whole);
        let mut ends = [true, false].map(|keep| {
            let first = train(&task(1, keep), &start);
            let model = Arc::new(after(&start, &first));
            let second =
                Job { model, optimizer: Arc::new(first.optimizer.clone()), ..start.clone() };
            let trained = train(&task(1, keep), &second);
            (after(&second, &trained), trained.optimizer)
        });
        let distance =
            |x: &[f32]| norm(&x.iter().zip(&expected).map(|(a, b)| a - b).collect::<Vec<_>>());
        assert!(distance(&ends[0].0) < 1e-6, "{}", distance(&ends[0].0));
        assert!(distance(&ends[1].0) > 1e-4, "{}", distance(&ends[1].0));
        assert_eq!((ends[0].1.steps, ends[0].1.moments.len()), (2, 2 * start.model.len()));
        assert_eq!(ends[1].1, OptimizerState::default());
        // Of another model.
        ends[0].1.moments.pop();
        let optimizer = Arc::new(std::mem::take(&mut ends[0].1));
        let foreign = Job { optimizer, ..start.clone() };
        let error = EngineTrainer::new(&device, rows(&device)).train(&task(1, true), &foreign);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("moments of the optimizer"), "{error}");
    }

    #[test]
    fn classes_and_tokens_that_the_model_lacks_are_refused() {
        let device = Device::cpu();
        let mut labels = vec![0; 40];
        labels[7] = 2;
        let rows = RowData::upload(&device, &[0.5; 80], 2, &labels, 9).unwrap();
        let mut trainer = EngineTrainer::new(&device, LocalData::Rows(rows));
        let error = trainer.train(&task(|_| ()), &job()).unwrap_err().to_string();
        assert!(error.contains("labels is 2, expected below the 2 classes"), "{error}");
        let spec = ModelSpec::language_model(5, 2, 4, 1);
        let plan = RunPlan::new("test", ModelKind::Layers(spec.clone()), 1);
        let task = plan.task(RunId([1; 16])).unwrap();
        let job = Job::new(Turn::new(1, 1), spec.build().unwrap().0.initial(3).into(), 1);
        for (most, sound) in [(4, true), (5, false)] {
            let texts = [[0, 1, 2, most, 0]];
            let text =
                LocalData::Text(TextData::upload(&device, &texts, TextWindows::new(9, 4)).unwrap());
            let trained = EngineTrainer::new(&device, text).train(&task, &job);
            assert_eq!(trained.is_ok(), sound);
            let error = trained.err().map_or_else(String::new, |error| error.to_string());
            assert_eq!(error.contains("inputs is 5, expected below the 5 tokens"), !sound);
        }
    }

    #[test]
    fn training_and_evaluation_have_samples_of_their_own() {
        let device = Device::cpu();
        let (task, job) = (task(|_| ()), job());
        let of = |label: u32| {
            let rows = RowData::upload(&device, &[1.0; 20], 2, &[label; 10], 2).unwrap();
            LocalData::Rows(rows)
        };
        let mut trainer = EngineTrainer::with_evaluation(&device, rows(&device), of(0));
        let (samples, zeros) = trainer.evaluate(&task, &job.model).unwrap();
        assert_eq!((trainer.samples(), samples), (40, 10));
        let mut evaluator = EngineTrainer::for_evaluation(&device, of(1));
        let (_, ones) = evaluator.evaluate(&task, &job.model).unwrap();
        // What is right for the one is wrong for the other.
        assert_eq!(zeros["accuracy"] + ones["accuracy"], 1.0);
        assert_eq!(evaluator.samples(), 0);
        let error = evaluator.train(&task, &job).unwrap_err().to_string();
        assert!(error.contains("samples to train on is 0"), "{error}");
        let mut alone = EngineTrainer::for_training(&device, rows(&device));
        assert_eq!(alone.train(&task, &job).unwrap(), trainer.train(&task, &job).unwrap());
        let error = alone.evaluate(&task, &job.model).unwrap_err().to_string();
        assert!(error.contains("samples to evaluate on is 0"), "{error}");
    }

    #[test]
    fn a_model_of_another_layout_is_refused() {
        let device = Device::cpu();
        let mut trainer = EngineTrainer::new(&device, rows(&device));
        let mut other = task(|_| ());
        other.layout = Digest([0; 32]);
        let error = trainer.train(&other, &job()).unwrap_err().to_string();
        assert!(error.contains("layout"), "{error}");
    }
}
