//! The three models of a node as one vector.

use tern_engine::nn::{self, Mode, ModelSpec};
use tern_engine::{Arena, Device, Element, Graph, Parameters, Tensor, Trainable};
use tern_protocol::layout::{ModelKind, TensorSpec};
use tern_protocol::{Error, Result};

/// One of the three models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Feature extractor, G.
    Extractor,
    /// Task model, T.
    Task,
    /// Domain discriminator, D.
    Discriminator,
}

impl Group {
    /// All of them, in the order of the vector.
    pub const ALL: [Group; 3] = [Group::Extractor, Group::Task, Group::Discriminator];

    /// What the names of its tensors start with.
    pub fn prefix(self) -> &'static str {
        match self {
            Group::Extractor => "extractor.",
            Group::Task => "task.",
            Group::Discriminator => "discriminator.",
        }
    }
}

/// A feature extractor, a task model and a domain discriminator: what the nodes exchange is one
/// vector with the tensors of the three.
#[derive(Clone, Debug)]
pub struct Model {
    parameters: Parameters,
    extractor: nn::Model,
    task: nn::Model,
    discriminator: nn::Model,
    inputs: usize,
    features: usize,
    classes: usize,
    conditional: bool,
}

impl Model {
    /// Of three descriptions: the task model and the discriminator take the extractor's output,
    /// and the discriminator gives one logit, positive for the target's domain.
    ///
    /// # Errors
    /// [`Error::Value`] for models that don't fit together or take tokens; the engine's for one
    /// that can't be built.
    pub fn new(extractor: ModelSpec, task: ModelSpec, discriminator: ModelSpec) -> Result<Self> {
        Self::build(extractor, task, discriminator, false)
    }

    /// As [`Model::new`], with a discriminator that sees features class by class: it takes the
    /// products of every feature with every class's probability, features × classes of them
    /// (CDAN, Long et al. 2018), so that domains are aligned class by class.
    ///
    /// # Errors
    /// As [`Model::new`].
    pub fn conditional(
        extractor: ModelSpec,
        task: ModelSpec,
        discriminator: ModelSpec,
    ) -> Result<Self> {
        Self::build(extractor, task, discriminator, true)
    }

    fn build(
        extractor: ModelSpec,
        task: ModelSpec,
        discriminator: ModelSpec,
        conditional: bool,
    ) -> Result<Self> {
        let Some(inputs) = extractor.input.floats() else {
            return Err(Error::value("input of the extractor", "tokens", "features or images"));
        };
        let mut parameters = Parameters::new();
        let mut register =
            |spec: &ModelSpec, group: Group| spec.register(&mut parameters, group.prefix());
        let models = [
            register(&extractor, Group::Extractor)?,
            register(&task, Group::Task)?,
            register(&discriminator, Group::Discriminator)?,
        ];
        let [extractor, task, discriminator] = models;
        let (features, classes) = (0, 0);
        let mut model = Model {
            parameters,
            extractor,
            task,
            discriminator,
            inputs,
            features,
            classes,
            conditional,
        };
        model.measure()?;
        Ok(model)
    }

    /// Records it once, to see that the parts fit and how wide they are.
    fn measure(&mut self) -> Result<()> {
        let arena = Arena::new(&Device::cpu(), &self.parameters, &[0])?;
        let mut graph = Graph::new(&arena);
        let x = graph.input("x", &[1, self.inputs], Element::F32);
        let features = self.extractor.forward(&mut graph, x, Mode::Evaluate)?.output;
        let logits = self.task.forward(&mut graph, features, Mode::Evaluate)?.output;
        let seen = self.seen(&mut graph, features, logits)?;
        let domain = self.discriminate(&mut graph, seen, Mode::Evaluate)?;
        if graph.len(domain) != 1 {
            let expected = "1, the logit of the target's domain";
            return Err(Error::value("outputs of the discriminator", graph.len(domain), expected));
        }
        (self.features, self.classes) = (graph.len(features), graph.len(logits));
        if self.classes < 2 {
            return Err(Error::value("outputs of the task model", self.classes, "2 or more"));
        }
        Ok(())
    }

    /// The tensors of the three, in one vector.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// What the runtime's server needs to know of it.
    pub fn kind(&self) -> ModelKind {
        let tensor = |p: &tern_engine::Param| TensorSpec {
            name: p.name.to_string(),
            shape: p.shape.clone(),
        };
        ModelKind::Tensors(self.parameters.iter().map(tensor).collect())
    }

    /// A model to start from.
    pub fn initial(&self, seed: u32) -> Vec<f32> {
        self.parameters.initial(seed)
    }

    /// Numbers a sample.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Numbers a sample's features have.
    pub fn features(&self) -> usize {
        self.features
    }

    /// Classes of the task.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The elements of a group in the vector, padding included.
    pub fn range(&self, group: Group) -> std::ops::Range<usize> {
        let mut own = self.parameters.iter().filter(|p| p.name.starts_with(group.prefix()));
        match own.next() {
            None => 0..0,
            Some(first) => {
                let last = own.next_back().unwrap_or(first);
                first.offset..last.offset + last.padded()
            }
        }
    }

    /// The names of these groups' tensors, as a plan takes them.
    pub(super) fn trainable(groups: &[Group]) -> Trainable {
        Trainable::Prefixes(groups.iter().map(|group| group.prefix().to_string()).collect())
    }

    /// Records G.
    pub(super) fn extract(
        &self,
        graph: &mut Graph,
        x: Tensor,
        mode: Mode,
    ) -> tern_engine::Result<Tensor> {
        Ok(self.extractor.forward(graph, x, mode)?.output)
    }

    /// Records T.
    pub(super) fn classify(
        &self,
        graph: &mut Graph,
        f: Tensor,
        mode: Mode,
    ) -> tern_engine::Result<Tensor> {
        Ok(self.task.forward(graph, f, mode)?.output)
    }

    /// What D sees of features and the logits of classes.
    pub(super) fn seen(
        &self,
        graph: &mut Graph,
        f: Tensor,
        logits: Tensor,
    ) -> tern_engine::Result<Tensor> {
        if !self.conditional {
            return Ok(f);
        }
        let &[_, width] = graph.shape(f) else {
            let what = format!("features {:?}, expected a row a sample", graph.shape(f));
            return Err(tern_engine::Error::Shape { op: "discriminator", what });
        };
        let probabilities = graph.softmax(logits)?;
        let ones = graph.constant(1.0, &[1, width]);
        let mut seen = Vec::new();
        for class in 0..graph.shape(logits)[1] {
            let column = graph.slice(probabilities, 1, class..class + 1)?;
            let spread = graph.matmul(column, ones)?;
            seen.push(graph.multiply(f, spread)?);
        }
        graph.concat(&seen, 1)
    }

    /// Records D on what it sees.
    pub(super) fn discriminate(
        &self,
        graph: &mut Graph,
        seen: Tensor,
        mode: Mode,
    ) -> tern_engine::Result<Tensor> {
        Ok(self.discriminator.forward(graph, seen, mode)?.output)
    }
}
