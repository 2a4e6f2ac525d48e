//! The models whose training steps are timed.

use anyhow::Result;
use tern_engine::nn::{Conv2dConfig, DecoderConfig, Input, LayerSpec, Mode, ModelSpec};
use tern_engine::{
    Activation, Arena, Batching, Device, Graph, Optimizer, Plan, Precision, RowData, TextData,
    TextWindows, Training,
};
use tern_shaders::kernels::random::{pcg4d, uniform};

/// Batches of the made-up data sets: more than a run needs before it repeats doesn't matter.
const BATCHES: usize = 16;

/// A training step with its sizes.
#[derive(Clone, Copy)]
pub struct Workload {
    /// Name in tables and in the peers' results.
    pub name: &'static str,
    /// Sizes in words.
    pub what: &'static str,
    /// Rows of a batch.
    batch: usize,
    /// Whether it is small enough for many side by side.
    pub small: bool,
    /// Whether its blocks are computed once more in the backward pass.
    recomputes: bool,
    /// What the products of its linear layers multiply.
    precision: Precision,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Language { vocabulary: usize, dimension: usize, hidden: usize, layers: usize, steps: usize },
    Perceptron { width: usize, hidden: &'static [usize], classes: usize },
    Convolution { side: usize, channels: [usize; 2], classes: usize },
    Decoder { vocabulary: usize, dimension: usize, config: fn() -> DecoderConfig, steps: usize },
    Residual { side: usize, classes: usize },
}

impl Workload {
    /// A plan that trains `replicas` of it by SGD, their losses taken at every position.
    ///
    /// # Errors
    /// Device errors.
    pub async fn plan(&self, device: &Device, replicas: usize) -> Result<Plan> {
        let batching = Batching::in_order(self.batch);
        let training = Training::new(Optimizer::sgd(), 0.01);
        let seeds: Vec<u32> = (1..=replicas as u32).collect();
        let (parameters, model) = self.spec().build()?;
        let model = model.recomputing(self.recomputes).precision(self.precision);
        let arena = Arena::new(device, &parameters, &seeds)?;
        let mut graph = Graph::new(&arena);
        let samples = BATCHES * self.batch;
        let (x, targets) = match self.kind {
            Kind::Language { vocabulary, steps, .. } | Kind::Decoder { vocabulary, steps, .. } => {
                let text = words(samples * steps + 1, vocabulary as u32);
                let windows = TextWindows::new(vocabulary, steps);
                let data = TextData::upload_async(device, &[text], windows).await?;
                graph.text_batch(&data, &batching)?
            }
            Kind::Perceptron { width, classes, .. } => {
                let data = images(device, samples, width, classes).await?;
                graph.row_batch(&data, &batching)?
            }
            Kind::Convolution { side, classes, .. } => {
                let data = images(device, samples, side * side, classes).await?;
                graph.row_batch(&data, &batching)?
            }
            Kind::Residual { side, classes } => {
                let data = images(device, samples, 3 * side * side, classes).await?;
                graph.row_batch(&data, &batching)?
            }
        };
        let forward = model.forward(&mut graph, x, Mode::Train)?;
        let loss = graph.cross_entropy(forward.output, targets)?;
        Ok(graph.train(loss, &training)?)
    }

    /// The same model, small enough for a processor that is emulated: the same kernels, on whole
    /// vectors, with a hundredth of the arithmetic.
    pub fn reduced(mut self) -> Self {
        match &mut self.kind {
            Kind::Language { vocabulary, dimension, hidden, steps, .. } => {
                *vocabulary = (*vocabulary).min(1_000);
                *dimension = (*dimension).min(32);
                (*hidden, *steps) = (*hidden / 4, *steps / 5);
            }
            Kind::Decoder { vocabulary, steps, .. } => {
                (*vocabulary, *steps) = ((*vocabulary).min(1_000), *steps / 8);
            }
            Kind::Perceptron { .. } | Kind::Convolution { .. } | Kind::Residual { .. } => {
                self.batch /= 4
            }
        }
        self
    }

    /// Time steps, batch and hidden units of its LSTM, if it has one.
    pub fn recurrence(&self) -> Option<[u32; 3]> {
        match self.kind {
            Kind::Language { steps, hidden, .. } => {
                Some([steps, self.batch, hidden].map(|n| n as u32))
            }
            _ => None,
        }
    }

    fn spec(&self) -> ModelSpec {
        match self.kind {
            Kind::Language { vocabulary, dimension, hidden, layers, .. } => {
                ModelSpec::language_model(vocabulary, dimension, hidden, layers)
            }
            Kind::Perceptron { width, hidden, classes } => ModelSpec::mlp(width, hidden, classes),
            Kind::Decoder { vocabulary, dimension, config, .. } => {
                ModelSpec::decoder(vocabulary, dimension, config(), true)
            }
            Kind::Residual { side, classes } => ModelSpec::resnet18(3, [side; 2], classes),
            Kind::Convolution { side, channels: [first, second], classes } => {
                let convolution = |outputs| {
                    LayerSpec::Conv2d(
                        Conv2dConfig::new(outputs, 3).padding(1).activation(Activation::Relu),
                    )
                };
                let pool =
                    LayerSpec::MaxPool2d { kernel: 2.into(), stride: 2.into(), padding: 0.into() };
                let output =
                    LayerSpec::Linear { outputs: classes, activation: Activation::Identity };
                let layers = [
                    ("conv1", convolution(first)),
                    ("pool1", pool),
                    ("conv2", convolution(second)),
                    ("pool2", pool),
                    ("flatten", LayerSpec::Flatten),
                    ("output", output),
                ];
                ModelSpec {
                    input: Input::Image { channels: 1, height: side, width: side },
                    layers: layers.map(|(name, layer)| (name.to_string(), layer)).to_vec(),
                }
            }
        }
    }
}

/// Made-up images of `width` numbers.
async fn images(device: &Device, samples: usize, width: usize, classes: usize) -> Result<RowData> {
    let random = |i: usize| uniform(pcg4d([i as u32, 3, 0, 0])[0]);
    let features: Vec<f32> = (0..samples * width).map(random).collect();
    let labels = words(samples, classes as u32);
    Ok(RowData::upload_async(device, &features, width, &labels, classes).await?)
}

fn words(n: usize, below: u32) -> Vec<u32> {
    (0..n as u32).map(|i| pcg4d([i, 11, 0, 0])[0] % below).collect()
}

/// The models: two from the literature on federated learning (McMahan et al. 2017, the
/// Shakespeare task; a word LSTM of the size of theirs), two that are small.
pub static WORKLOADS: &[Workload] = &[
    Workload {
        name: "char-lstm",
        what: "vocabulary 90, embedding 8, LSTM 2 × 256, 80 steps, batch 10",
        batch: 10,
        small: true,
        recomputes: false,
        precision: Precision::Single,
        kind: Kind::Language { vocabulary: 90, dimension: 8, hidden: 256, layers: 2, steps: 80 },
    },
    Workload {
        name: "word-lm",
        what: "vocabulary 10,000, embedding 128, LSTM 1 × 256, 20 steps, batch 16",
        batch: 16,
        small: false,
        recomputes: false,
        precision: Precision::Single,
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
        batch: 64,
        small: true,
        recomputes: false,
        precision: Precision::Single,
        kind: Kind::Perceptron { width: 784, hidden: &[256, 128], classes: 10 },
    },
    Workload {
        name: "cnn",
        what: "28 × 28, convolutions 3 × 3 to 16 and 32 channels, each pooled by 2, batch 32",
        batch: 32,
        small: true,
        recomputes: false,
        precision: Precision::Single,
        kind: Kind::Convolution { side: 28, channels: [16, 32], classes: 10 },
    },
];

/// SmolLM2-135M's shape.
const SMOLLM2: Workload = Workload {
    name: "smollm2-135m",
    what: "vocabulary 49,152, 30 blocks of 576, 9 heads of which 3 share keys, 128 positions",
    batch: 1,
    small: false,
    recomputes: false,
    precision: Precision::Single,
    kind: Kind::Decoder {
        vocabulary: 49_152,
        dimension: 576,
        config: || DecoderConfig::new(30, 9, 64, 1536).key_value_heads(3).base(1e5),
        steps: 128,
    },
};

/// Models that take seconds and gigabytes: only where a filter names them.
pub static LARGE: &[Workload] = &[
    SMOLLM2,
    Workload {
        name: "smollm2-135m-batch-8",
        what: "SmolLM2-135M's shape, 128 positions, batch 8",
        batch: 8,
        ..SMOLLM2
    },
    Workload {
        name: "smollm2-135m-recomputed",
        what: "SmolLM2-135M's shape, 128 positions, batch 8, its blocks computed once more in the backward pass",
        batch: 8,
        recomputes: true,
        ..SMOLLM2
    },
    Workload {
        name: "smollm2-135m-bf16",
        what: "SmolLM2-135M's shape, 128 positions, its linear layers in bfloat16",
        precision: Precision::Bf16,
        ..SMOLLM2
    },
    Workload {
        name: "resnet-18",
        what: "3 × 64 × 64, 1,000 classes, batch 8",
        batch: 8,
        small: false,
        recomputes: false,
        precision: Precision::Single,
        kind: Kind::Residual { side: 64, classes: 1000 },
    },
];

/// Whether a kernel or a model is one of a filter's: its name contains it or, after `!`, does not.
pub fn is_wanted(filter: Option<&str>, name: &str) -> bool {
    filter.is_none_or(|filter| match filter.strip_prefix('!') {
        Some(without) => !name.contains(without),
        None => name.contains(filter),
    })
}

/// The models of a filter, that of its name alone if there is one; the large ones only where it says what
/// names contain.
pub fn named(filter: Option<&str>) -> Vec<&'static Workload> {
    let large = LARGE.iter().filter(|_| filter.is_some_and(|filter| !filter.starts_with('!')));
    let all = || WORKLOADS.iter().chain(large.clone());
    let exact = all().find(|model| Some(model.name) == filter);
    match exact {
        Some(model) => vec![model],
        None => all().filter(|model| is_wanted(filter, model.name)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_says_what_names_contain_or_not() {
        let names = |filter| named(filter).into_iter().map(|model| model.name);
        assert_eq!(names(Some("resnet")).collect::<Vec<_>>(), ["resnet-18"]);
        assert_eq!(names(Some("smollm2-135m")).collect::<Vec<_>>(), ["smollm2-135m"]);
        assert_eq!(names(Some("smollm2")).count(), 4);
        assert!(names(Some("mlp")).count() > 0);
        assert_eq!(names(None).count(), names(Some("!nothing")).count());
        let (with, without) = (names(Some("mlp")), names(Some("!mlp")));
        assert_eq!(with.count() + without.count(), names(None).count());
        assert!(names(Some("nothing")).next().is_none());
    }

    /// Every model trains, and replicas of it stay what they are alone.
    #[test]
    fn every_model_trains() {
        for workload in WORKLOADS.iter().filter(|w| w.small && w.recurrence().is_none()) {
            let losses = |replicas: usize| {
                let mut plan = pollster::block_on(workload.plan(&Device::cpu(), replicas)).unwrap();
                plan.run(2 * BATCHES).unwrap().by_replica
            };
            let (one, two) = (losses(1), losses(2));
            assert_eq!(one[0], two[0], "{}", workload.name);
            assert!(one[0].iter().all(|loss| loss.is_finite()), "{}", workload.name);
        }
    }
}
