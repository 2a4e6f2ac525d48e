//! A node: a source with labels, or the target.

use tern_engine::{Arena, Device, Flat, IGNORE, Interrupt, RowData};
use tern_protocol::metrics::Metrics;
use tern_protocol::trainer::{Job, Trained, Trainer};
use tern_protocol::{Error, Result, TaskSpec};

use super::probe::Probe;
use super::record::{Recorder, Run, Step};
use super::{Model, Objective, Phase, Settings, TaskModel};

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It has labels, and teaches.
    Source,
    /// It is taught.
    Target,
}

impl Role {
    /// What D is to say of its features.
    pub(super) fn domain(self) -> f32 {
        match self {
            Role::Source => 0.0,
            Role::Target => 1.0,
        }
    }
}

/// Weight of a node unless it is given another, see [`Node::with_weight`].
const WEIGHT: u32 = 1000;

/// A node with its data. As a [`Trainer`] it does what the phase of a round asks for; what
/// leaves it is the change of the parameters (4.8), its weight and its losses.
///
/// [`Node::features`], [`Node::predict`] and their like are for whoever is at the node.
pub struct Node {
    model: Model,
    settings: Settings,
    role: Role,
    weight: u32,
    arena: Arena,
    /// Of sources.
    warm_up: Option<Step>,
    discriminate: Step,
    adapt: Step,
    probe: Probe,
    interrupt: Interrupt,
    /// Samples and classes that a model is evaluated on.
    held_out: Option<(Vec<f32>, Vec<u32>)>,
}

impl Node {
    /// A source: samples `[N, inputs]` with a class each.
    ///
    /// # Errors
    /// [`Error::Value`] for settings that make no sense and for labels of one class only; the
    /// engine's for samples that the model can't take, or none.
    pub fn source(
        device: &Device,
        model: &Model,
        settings: &Settings,
        samples: &[f32],
        labels: &[u32],
    ) -> Result<Self> {
        let known = || labels.iter().filter(|label| **label != IGNORE);
        let first = known().next();
        if known().all(|label| Some(label) == first) {
            let given = first.map_or("none".to_string(), |label| format!("class {label} only"));
            return Err(Error::value("labels of a source", given, "two classes or more"));
        }
        Node::new(device, model, settings, Role::Source, samples, Some(labels))
    }

    /// The target: samples `[N, inputs]`, with classes where they are known
    /// ([`IGNORE`] elsewhere), if any are. They are learned from with
    /// [`TaskModel::WithTarget`].
    ///
    /// # Errors
    /// As [`Node::source`], but for the labels.
    pub fn target(
        device: &Device,
        model: &Model,
        settings: &Settings,
        samples: &[f32],
        labels: Option<&[u32]>,
    ) -> Result<Self> {
        Node::new(device, model, settings, Role::Target, samples, labels)
    }

    fn new(
        device: &Device,
        model: &Model,
        settings: &Settings,
        role: Role,
        samples: &[f32],
        labels: Option<&[u32]>,
    ) -> Result<Self> {
        settings.check()?;
        let unknown = vec![IGNORE; samples.len() / model.inputs()];
        let labels = labels.unwrap_or(&unknown);
        let data = RowData::upload(device, samples, model.inputs(), labels, model.classes())?;
        let arena = Arena::new(device, model.parameters(), &[settings.seed])?;
        let interrupt = Interrupt::new();
        let recorder =
            Recorder { arena: &arena, model, settings, data: &data, role, interrupt: &interrupt };
        let labeled = labels.iter().any(|label| *label != IGNORE);
        let (warm_up, task) = match role {
            Role::Source => (Some(recorder.warm_up()?), true),
            Role::Target => (None, labeled && settings.task == TaskModel::WithTarget),
        };
        Ok(Node {
            warm_up,
            discriminate: recorder.discriminate()?,
            adapt: recorder.adapt(task)?,
            probe: Probe::new(&arena, model)?,
            interrupt: interrupt.clone(),
            model: model.clone(),
            settings: settings.clone(),
            role,
            weight: WEIGHT,
            arena,
            held_out: None,
        })
    }

    /// With another weight in aggregates: 1000 unless given. Its samples would be the weight of
    /// federated averaging; three sources and a target with thrice their weight balance the
    /// domains.
    #[must_use]
    pub fn with_weight(mut self, weight: u32) -> Self {
        self.weight = weight.max(1);
        self
    }

    /// With samples and classes that models are evaluated on.
    #[must_use]
    pub fn with_held_out(mut self, samples: &[f32], labels: &[u32]) -> Self {
        self.held_out = Some((samples.to_vec(), labels.to_vec()));
        self
    }

    /// What it is.
    pub fn role(&self) -> Role {
        self.role
    }

    fn load(&mut self, model: &[f32]) -> Result<()> {
        Ok(self.arena.write(Flat::Parameters, 0, model)?)
    }

    /// Features of samples, `[N, features]`.
    ///
    /// # Errors
    /// [`Error::Value`] for samples of another width, or none; the engine's.
    pub fn features(&mut self, model: &[f32], samples: &[f32]) -> Result<Vec<f32>> {
        self.load(model)?;
        Ok(self.probe.run(samples)?.features)
    }

    /// Classes of samples: how the target uses what it was taught (4.7).
    ///
    /// # Errors
    /// As [`Node::features`].
    pub fn predict(&mut self, model: &[f32], samples: &[f32]) -> Result<Vec<u32>> {
        self.load(model)?;
        let logits = self.probe.run(samples)?.logits;
        let best = |row: &[f32]| {
            let by_value = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
            by_value.map_or(0, |(class, _)| class as u32)
        };
        Ok(logits.chunks(self.model.classes()).map(best).collect())
    }

    /// Share of samples whose class a model predicts.
    ///
    /// # Errors
    /// [`Error::Value`] if there isn't a class a sample; as [`Node::features`].
    pub fn accuracy(&mut self, model: &[f32], samples: &[f32], labels: &[u32]) -> Result<f64> {
        let classes = self.predict(model, samples)?;
        if classes.len() != labels.len() {
            return Err(Error::value("labels", labels.len(), format!("{}", classes.len())));
        }
        let right = classes.iter().zip(labels).filter(|(given, label)| given == label).count();
        Ok(right as f64 / labels.len() as f64)
    }

    /// D's logits of samples: positive for the target's domain.
    ///
    /// # Errors
    /// As [`Node::features`].
    pub fn domain(&mut self, model: &[f32], samples: &[f32]) -> Result<Vec<f32>> {
        self.load(model)?;
        Ok(self.probe.run(samples)?.domain)
    }

    /// Share of this node's samples whose features D takes for those of its domain.
    ///
    /// # Errors
    /// As [`Node::features`].
    pub fn recognized(&mut self, model: &[f32], samples: &[f32]) -> Result<f64> {
        let domain = self.domain(model, samples)?;
        let own = |logit: &&f32| (**logit > 0.0) == (self.role == Role::Target);
        Ok(domain.iter().filter(own).count() as f64 / domain.len() as f64)
    }
}

impl Trainer for Node {
    /// Its weight: how many samples it has is nobody's business.
    fn samples(&self) -> u32 {
        self.weight
    }

    fn train(&mut self, task: &TaskSpec, job: &Job) -> Result<Trained> {
        let words = self.model.parameters().words();
        if task.model != self.model.kind() || job.model.len() != words {
            let expected = format!("the node's, {words} elements");
            return Err(Error::value("model of the task", job.model.len(), expected));
        }
        let round = job.turn.round;
        let phase = self.settings.phase(round);
        self.load(&job.model)?;
        let step = match phase {
            Phase::WarmUp => self.warm_up.as_mut(),
            Phase::Discriminate => Some(&mut self.discriminate),
            Phase::Adapt => Some(&mut self.adapt),
        };
        // Who has nothing to train counts as little as can be.
        let Some(step) = step else {
            return Ok(Trained::new(vec![0.0; words], 1, Metrics::new()));
        };
        let run = Run {
            seed: job.seed,
            steps: self.settings.steps(phase),
            strength: self.settings.strength_in(round),
        };
        let (losses, parts) = step.run(&run)?;
        let mut update = step.parameters()?;
        update.iter_mut().zip(&*job.model).for_each(|(x, start)| *x -= start);
        let name = |name: &str| name.to_string();
        let loss = losses.mean().map(f64::from);
        let mut metrics = Metrics::new();
        match phase {
            Phase::WarmUp => metrics.extend(loss.map(|loss| (name("task"), loss))),
            Phase::Discriminate => metrics.extend(loss.map(|loss| (name("discriminator"), loss))),
            Phase::Adapt => {
                // Without the strength, which grows: what says whether it still gets better.
                let better = |(part, value): &(&str, f64)| match (*part, self.settings.objective) {
                    // Features are trained to raise it.
                    ("adversarial", Objective::Reverse) => -value,
                    _ => *value,
                };
                metrics.insert(name("loss"), parts.iter().map(better).sum());
                metrics.extend(parts.into_iter().map(|(part, value)| (name(part), value)));
            }
        }
        Ok(Trained::new(update, self.weight, metrics))
    }

    fn evaluate(&mut self, _: &TaskSpec, model: &[f32]) -> Result<(u32, Metrics)> {
        let Some((samples, labels)) = self.held_out.take() else {
            return Err(Error::value("samples held out", "none", "some to evaluate on"));
        };
        let accuracy = self.accuracy(model, &samples, &labels);
        let count = u32::try_from(labels.len()).unwrap_or(u32::MAX);
        self.held_out = Some((samples, labels));
        Ok((count, Metrics::from([("accuracy".to_string(), accuracy?)])))
    }

    fn interrupt(&self) -> Option<Interrupt> {
        Some(self.interrupt.clone())
    }
}
