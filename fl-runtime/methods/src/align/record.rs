//! The plans of a node: one for each phase, on one arena.

use tern_engine::nn::Mode;
use tern_engine::{
    Arena, Batching, Data, Element, Flat, Graph, Interrupt, Losses, Optimizer, Plan, RowData,
    Schedule, Tensor, Training,
};
use tern_protocol::Result;
use tern_shaders::state::StateRecord;

use super::{Group, Model, Objective, Role, Settings};

/// What the plans of a node are recorded from.
pub(super) struct Recorder<'a> {
    pub arena: &'a Arena,
    pub model: &'a Model,
    pub settings: &'a Settings,
    pub data: &'a RowData,
    pub role: Role,
    /// What ends training.
    pub interrupt: &'a Interrupt,
}

/// A phase's training step.
pub(super) struct Step {
    plan: Plan,
    optimizer: Optimizer,
    /// Weight of the adversarial loss.
    strength: Option<Tensor>,
    /// Task loss and adversarial loss of the last step.
    parts: Vec<(&'static str, Tensor)>,
    samples: u32,
    batch: u32,
    rate: f64,
}

/// A job of a step.
pub(super) struct Run {
    pub seed: u32,
    pub steps: u32,
    pub strength: f32,
}

impl Recorder<'_> {
    fn step(
        &self,
        graph: Graph,
        loss: Tensor,
        groups: &[Group],
        optimizer: Optimizer,
        rate: f64,
    ) -> Result<Step> {
        let training = Training::new(optimizer, rate).trainable(Model::trainable(groups));
        let mut plan = graph.train(loss, &training)?;
        plan.set_interrupt(self.interrupt);
        Ok(Step {
            plan,
            optimizer,
            strength: None,
            parts: Vec::new(),
            samples: u32::try_from(self.data.len()).unwrap_or(u32::MAX),
            batch: self.settings.batch,
            rate,
        })
    }

    fn batch(&self, graph: &mut Graph) -> Result<(Tensor, Tensor)> {
        Ok(graph.row_batch(self.data, &Batching::shuffled(self.settings.batch as usize))?)
    }

    /// 4.1: G and T on the task.
    pub fn warm_up(&self) -> Result<Step> {
        let mut graph = Graph::new(self.arena);
        let (x, labels) = self.batch(&mut graph)?;
        let features = self.model.extract(&mut graph, x, Mode::Train)?;
        let logits = self.model.classify(&mut graph, features, Mode::Train)?;
        let loss = graph.cross_entropy(logits, labels)?;
        let groups = [Group::Extractor, Group::Task];
        self.step(graph, loss, &groups, Optimizer::adam(), self.settings.warm_up_rate)
    }

    /// Cross-entropy of the discriminator's logits with a domain, over the rows of the batch.
    fn domain_loss(&self, graph: &mut Graph, logits: Tensor, domain: f32) -> Result<Tensor> {
        let rows = self.settings.batch as usize;
        let targets = graph.constant(domain, &[rows, 1]);
        let count = graph.batch_rows(rows);
        Ok(graph.binary_cross_entropy(logits, targets, Some(count))?)
    }

    /// 4.3: D on the node's own features.
    pub fn discriminate(&self) -> Result<Step> {
        let mut graph = Graph::new(self.arena);
        let (x, _) = self.batch(&mut graph)?;
        let features = self.model.extract(&mut graph, x, Mode::Evaluate)?;
        let classes = self.model.classify(&mut graph, features, Mode::Evaluate)?;
        let seen = self.model.seen(&mut graph, features, classes)?;
        let logits = self.model.discriminate(&mut graph, seen, Mode::Train)?;
        let loss = self.domain_loss(&mut graph, logits, self.role.domain())?;
        let groups = [Group::Discriminator];
        self.step(graph, loss, &groups, Optimizer::sgd(), self.settings.local_rate)
    }

    /// 4.5: G against D; with `task` G and T on the task, too.
    pub fn adapt(&self, task: bool) -> Result<Step> {
        let mut graph = Graph::new(self.arena);
        let (x, labels) = self.batch(&mut graph)?;
        let features = self.model.extract(&mut graph, x, Mode::Train)?;
        let classes = self.model.classify(&mut graph, features, Mode::Train)?;
        let seen = self.model.seen(&mut graph, features, classes)?;
        let (seen, wanted) = match self.settings.objective {
            Objective::Invert => (seen, 1.0 - self.role.domain()),
            Objective::Reverse => (graph.gradient_reversal(seen, 1.0), self.role.domain()),
        };
        let logits = self.model.discriminate(&mut graph, seen, Mode::Evaluate)?;
        let adversarial = self.domain_loss(&mut graph, logits, wanted)?;
        let strength = graph.input("strength", &[1], Element::F32);
        let mut loss = graph.scale_by(adversarial, strength, 1.0)?;
        let mut parts = vec![("adversarial", graph.keep(adversarial))];
        let mut groups = vec![Group::Extractor];
        if task {
            let task = graph.cross_entropy(classes, labels)?;
            loss = graph.add(loss, task)?;
            parts.push(("task", graph.keep(task)));
            groups.push(Group::Task);
        }
        let rate = self.settings.local_rate;
        let step = self.step(graph, loss, &groups, Optimizer::sgd(), rate)?;
        Ok(Step { strength: Some(strength), parts, ..step })
    }
}

impl Step {
    /// Makes steps from the arena's parameters; the same job gives the same bits.
    pub fn run(&mut self, run: &Run) -> Result<(Losses, Vec<(&'static str, f64)>)> {
        let arena = self.plan.arena().clone();
        for moment in self.optimizer.moments() {
            arena.write(*moment, 0, &vec![0.0; arena.parameters().words()])?;
        }
        self.plan.rewind()?;
        if let Some(strength) = self.strength {
            self.plan.write(strength, &Data::F32(vec![run.strength]))?;
        }
        let schedule = Schedule::constant(self.rate);
        let record = StateRecord::new(run.seed, 0..self.samples, self.batch, run.steps, &schedule);
        self.plan.set_states(&[record])?;
        let losses = self.plan.run(run.steps as usize)?;
        let mut parts = Vec::with_capacity(self.parts.len());
        for (name, tensor) in &self.parts {
            let values = self.plan.read(*tensor)?.floats()?;
            parts.extend(values.first().map(|value| (*name, f64::from(*value))));
        }
        Ok((losses, parts))
    }

    /// The parameters that the steps led to.
    pub fn parameters(&self) -> Result<Vec<f32>> {
        Ok(self.plan.arena().read(Flat::Parameters, 0)?)
    }
}
