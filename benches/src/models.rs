//! The training steps that are timed.

use anyhow::Result;
use tern_engine::nn::{Mode, ModelSpec};
use tern_engine::{Arena, Batching, Device, Graph, Optimizer, Plan, RowData, TextData, Training};
use tern_shaders::cpu::random::{pcg4d, uniform};

/// Samples of the made-up data sets: more than a run needs before it repeats doesn't matter.
const BATCHES: usize = 16;

/// A training step with its sizes.
pub struct Workload {
    /// Name in tables and in the peers' results.
    pub name: &'static str,
    /// Sizes in words.
    pub what: &'static str,
    kind: Kind,
}

enum Kind {
    Language { vocabulary: usize, dimension: usize, hidden: usize, layers: usize, steps: usize },
    Perceptron { width: usize, hidden: &'static [usize], classes: usize },
}

impl Workload {
    /// Rows of a batch.
    pub fn batch(&self) -> usize {
        match self.name {
            "char-lstm" => 10,
            "word-lm" => 16,
            _ => 64,
        }
    }

    /// A plan that trains it by SGD, its loss taken at every position.
    pub fn plan(&self, device: &Device) -> Result<Plan> {
        let batching = Batching::in_order(self.batch());
        let training = Training::new(Optimizer::sgd(), 0.01);
        match self.kind {
            Kind::Language { vocabulary, dimension, hidden, layers, steps } => {
                let spec = ModelSpec::language_model(vocabulary, dimension, hidden, layers);
                let (parameters, model) = spec.build()?;
                let arena = Arena::new(device, &parameters, &[1])?;
                let length = BATCHES * self.batch() * steps + 1;
                let text = words(length, vocabulary as u32);
                let data = TextData::upload(device, &[text], vocabulary, steps, steps)?;
                let mut graph = Graph::new(&arena);
                let (tokens, targets) = graph.text_batch(&data, &batching)?;
                let forward = model.forward(&mut graph, tokens, Mode::Train)?;
                let loss = graph.cross_entropy(forward.output, targets)?;
                Ok(graph.train(loss, &training)?)
            }
            Kind::Perceptron { width, hidden, classes } => {
                let (parameters, model) = ModelSpec::mlp(width, hidden, classes).build()?;
                let arena = Arena::new(device, &parameters, &[1])?;
                let samples = BATCHES * self.batch();
                let features = (0..samples * width).map(|i| random(i, 3)).collect::<Vec<_>>();
                let labels = words(samples, classes as u32);
                let data = RowData::upload(device, &features, width, &labels, classes)?;
                let mut graph = Graph::new(&arena);
                let (x, labels) = graph.row_batch(&data, &batching)?;
                let forward = model.forward(&mut graph, x, Mode::Train)?;
                let loss = graph.cross_entropy(forward.output, labels)?;
                Ok(graph.train(loss, &training)?)
            }
        }
    }
}

fn random(i: usize, key: u32) -> f32 {
    uniform(pcg4d([i as u32, key, 0, 0])[0])
}

fn words(n: usize, below: u32) -> Vec<u32> {
    (0..n as u32).map(|i| pcg4d([i, 11, 0, 0])[0] % below).collect()
}

/// The training steps, by falling fame.
pub static WORKLOADS: &[Workload] = &[
    Workload {
        name: "char-lstm",
        what: "vocabulary 90, embedding 8, LSTM 2 × 256, 80 steps, batch 10",
        kind: Kind::Language { vocabulary: 90, dimension: 8, hidden: 256, layers: 2, steps: 80 },
    },
    Workload {
        name: "word-lm",
        what: "vocabulary 10,000, embedding 128, LSTM 1 × 256, 20 steps, batch 16",
        kind: Kind::Language {
            vocabulary: 10_000,
            dimension: 128,
            hidden: 256,
            layers: 1,
            steps: 20,
        },
    },
    Workload {
        name: "mlp",
        what: "784-256-128-10, batch 64",
        kind: Kind::Perceptron { width: 784, hidden: &[256, 128], classes: 10 },
    },
];
