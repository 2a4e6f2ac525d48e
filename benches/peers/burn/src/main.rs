//! Times in burn's wgpu backend, on the software adapter, what `tern-benches step` times in
//! Tern: the same sizes, the loss read in every step. Prints one JSON object.
//! Arguments are parts of the names to time; without one, all are but those that take minutes.

mod decoder;
mod residual;

use std::time::{Duration, Instant};

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig, Lstm, LstmConfig, Relu};
use burn::optim::{GradientsParams, SgdConfig};
use burn::prelude::*;
use burn::tensor::{DeviceKind, Distribution, Int};

use decoder::Decoder;
use residual::ResNet;

/// `embedding`, LSTM layers, `output` over the vocabulary.
#[derive(Module, Debug)]
struct LanguageModel {
    embedding: Embedding,
    lstm: Vec<Lstm>,
    output: Linear,
}

impl LanguageModel {
    fn new(sizes: &Sizes, device: &Device) -> Self {
        let width = |layer| if layer == 0 { sizes.dimension } else { sizes.hidden };
        let lstm = |layer| LstmConfig::new(width(layer), sizes.hidden, true).init(device);
        LanguageModel {
            embedding: EmbeddingConfig::new(sizes.vocabulary, sizes.dimension).init(device),
            lstm: (0..sizes.layers).map(lstm).collect(),
            output: LinearConfig::new(sizes.hidden, sizes.vocabulary).init(device),
        }
    }

    fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<2> {
        let mut x = self.embedding.forward(tokens);
        for layer in &self.lstm {
            x = layer.forward(x, None).0;
        }
        let y = self.output.forward(x);
        let [batch, steps, classes] = y.dims();
        y.reshape([batch * steps, classes])
    }
}

struct Sizes {
    vocabulary: usize,
    dimension: usize,
    hidden: usize,
    layers: usize,
    steps: usize,
    batch: usize,
}

/// A multilayer perceptron with ReLU between its layers.
#[derive(Module, Debug)]
struct Perceptron {
    layers: Vec<Linear>,
    activation: Relu,
}

impl Perceptron {
    fn forward(&self, mut x: Tensor<2>) -> Tensor<2> {
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(x);
            if i + 1 < self.layers.len() {
                x = self.activation.forward(x);
            }
        }
        x
    }
}

/// Median seconds of a run: two to warm up, then three at least.
fn median_seconds(budget: f64, mut run: impl FnMut()) -> f64 {
    run();
    run();
    let begin = Instant::now();
    let mut seconds = Vec::new();
    while seconds.len() < 3
        || (seconds.len() < 200 && begin.elapsed() < Duration::from_secs_f64(budget))
    {
        let start = Instant::now();
        run();
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

/// Seconds of a training step by SGD.
fn step_seconds<M: Module>(
    mut model: M,
    targets: Tensor<1, Int>,
    forward: impl Fn(&M) -> Tensor<2>,
) -> f64 {
    let mut optimizer = SgdConfig::new().init();
    let losses = CrossEntropyLossConfig::new().init(&targets.device());
    median_seconds(10.0, || {
        let loss = losses.forward(forward(&model), targets.clone());
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(0.01, model.clone(), gradients);
        // Reading it waits for everything before.
        let _ = loss.into_scalar::<f32>();
    })
}

fn tokens(n: usize, below: usize, device: &Device) -> Tensor<1, Int> {
    let words: Vec<i32> = (0..n).map(|i| ((i * 7919) % below) as i32).collect();
    Tensor::from_ints(words.as_slice(), device)
}

fn language_model(sizes: &Sizes, device: &Device) -> f64 {
    let n = sizes.steps * sizes.batch;
    let inputs = tokens(n, sizes.vocabulary, device).reshape([sizes.batch, sizes.steps]);
    let model = LanguageModel::new(sizes, device);
    step_seconds(model, tokens(n, sizes.vocabulary, device), |m| m.forward(inputs.clone()))
}

fn perceptron(device: &Device) -> f64 {
    let sizes = [784, 256, 128, 10];
    let layers = sizes.windows(2).map(|w| LinearConfig::new(w[0], w[1]).init(device)).collect();
    let model = Perceptron { layers, activation: Relu::new() };
    let x = Tensor::random([64, 784], Distribution::Default, device);
    step_seconds(model, tokens(64, 10, device), |m| m.forward(x.clone()))
}

fn smollm2(batch: usize, device: &Device) -> f64 {
    let (vocabulary, steps) = (49_152, 128);
    let inputs = tokens(batch * steps, vocabulary, device).reshape([batch, steps]);
    let model = Decoder::smollm2(vocabulary, steps, device);
    step_seconds(model, tokens(batch * steps, vocabulary, device), |m| m.forward(inputs.clone()))
}

fn resnet(device: &Device) -> f64 {
    let (batch, side, classes) = (8, 64, 1000);
    let x = Tensor::random([batch, 3, side, side], Distribution::Default, device);
    let model = ResNet::eighteen(classes, device);
    step_seconds(model, tokens(batch, classes, device), |m| m.forward(x.clone()))
}

fn matmul(n: usize, device: &Device) -> f64 {
    let random = || Tensor::<2>::random([n, n], Distribution::Default, device);
    let (a, b) = (random(), random());
    let run = || {
        let _ = a.clone().matmul(b.clone());
        device.sync().expect("the device is there");
    };
    median_seconds(3.0, run)
}

fn main() {
    let plain = Device::wgpu(DeviceKind::Cpu);
    let device = Device::wgpu(DeviceKind::Cpu).autodiff();
    let characters =
        Sizes { vocabulary: 90, dimension: 8, hidden: 256, layers: 2, steps: 80, batch: 10 };
    let words =
        Sizes { vocabulary: 10_000, dimension: 128, hidden: 256, layers: 1, steps: 20, batch: 16 };
    // Its tuning takes minutes on a software adapter: each row is told as it is known.
    let mut seconds = serde_json::Map::new();
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    const LARGE: [&str; 2] = ["resnet-18", "smollm2-135m"];
    let mut row = |name: &str, measure: &dyn Fn() -> f64| {
        let is_named = wanted.iter().any(|part| name.contains(part.as_str()));
        if is_named || (wanted.is_empty() && !LARGE.contains(&name)) {
            let time = measure();
            eprintln!("burn: {name} {:.1} ms", 1e3 * time);
            seconds.insert(name.into(), time.into());
        }
    };
    row("matmul-512", &|| matmul(512, &plain));
    row("matmul-1024", &|| matmul(1024, &plain));
    row("matmul-2048", &|| matmul(2048, &plain));
    row("mlp", &|| perceptron(&device));
    row("word-lm", &|| language_model(&words, &device));
    row("resnet-18", &|| resnet(&device));
    row("smollm2-135m", &|| smollm2(1, &device));
    row("char-lstm", &|| language_model(&characters, &device));
    let peer = "burn 0.22, wgpu on the software adapter";
    println!("{}", serde_json::json!({ "peer": peer, "software": true, "seconds": seconds }));
}
