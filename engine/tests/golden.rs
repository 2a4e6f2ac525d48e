//! What PyTorch computed, against the reference closely and every other device within `f32`.
//! See fixtures/README.md.
#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

mod common;

use common::fixture::file::path;
use common::fixture::{Fixture, all_devices, close, tolerance};
use tern_engine::nn::{Conv2dConfig, Input, LayerSpec, Mode, Model, ModelSpec};
use tern_engine::ops::lstm::{LstmOptions, LstmWeights};
use tern_engine::{
    Activation, Arena, Data, Element, Flat, Graph, Init, Optimizer, Param, Parameters, Tensor,
    Trainable, Training, load_model,
};

/// LSTM layers of a fixture.
#[derive(Clone, Copy)]
struct Layers {
    layers: usize,
    cifg: bool,
    bidirectional: bool,
    projection: Option<usize>,
}

impl Layers {
    fn new(layers: usize) -> Self {
        Layers { layers, cifg: false, bidirectional: false, projection: None }
    }

    fn weights(self, parameters: &mut Parameters) -> Vec<LstmWeights> {
        let directions: &[&str] = if self.bidirectional { &["", "_reverse"] } else { &[""] };
        let (rows, state) = (if self.cifg { 18 } else { 24 }, self.projection.unwrap_or(6));
        let each = (0..self.layers).flat_map(|layer| directions.iter().map(move |d| (layer, d)));
        let weights = each.map(|(layer, direction)| {
            let inputs = if layer == 0 { 5 } else { directions.len() * state };
            let mut add = |part: &str, shape: &[usize]| -> Param {
                let name = format!("lstm.{part}_l{layer}{direction}");
                parameters.add(&name, shape, Init::Zeros).unwrap()
            };
            LstmWeights {
                w_ih: add("weight_ih", &[rows, inputs]),
                w_hh: add("weight_hh", &[rows, state]),
                b_ih: add("bias_ih", &[rows]),
                b_hh: add("bias_hh", &[rows]),
                w_hr: self.projection.map(|outputs| add("weight_hr", &[outputs, 6])),
            }
        });
        weights.collect()
    }
}

fn lstm(name: &str, layers: Layers) {
    let fixture = Fixture::open(name);
    for device in all_devices() {
        let tolerance = if device.name().starts_with("Reference") { 1e-10 } else { 1e-5 };
        let mut parameters = Parameters::new();
        let weights = layers.weights(&mut parameters);
        let arena = Arena::new(&device, &parameters, &[1]).unwrap();
        arena.write(Flat::Parameters, 0, &fixture.flat(&parameters)).unwrap();

        let mut graph = Graph::new(&arena);
        let x = graph.input("x", &[7, 3, 5], Element::F32);
        let outputs = layers.projection.unwrap_or(6);
        let state: Vec<(Tensor, Tensor)> = weights
            .iter()
            .map(|_| {
                let h = graph.input("h0", &[3, outputs], Element::F32);
                (h, graph.input("c0", &[3, 6], Element::F32))
            })
            .collect();
        let Layers { cifg, bidirectional, .. } = layers;
        let initial = Some(state.clone());
        let options = LstmOptions { cifg, initial, bidirectional, dropout: 0.0 };
        let output = graph.lstm(x, &weights, &options).unwrap();
        let outputs: Vec<Tensor> = [output.y].into_iter().chain(output.h).chain(output.c).collect();
        let seeds: Vec<(Tensor, Tensor)> = outputs
            .iter()
            .map(|y| {
                graph.keep(*y);
                let shape = graph.shape(*y).to_vec();
                (*y, graph.input("k", &shape, Element::F32))
            })
            .collect();
        let mut sources = vec![x];
        sources.extend(state.iter().map(|s| s.0));
        sources.extend(state.iter().map(|s| s.1));
        let (mut plan, gradients) = graph.gradients(&seeds, &Trainable::All, &sources).unwrap();

        let mut write = |tensor: Tensor, values: &[f32]| {
            plan.write(tensor, &Data::F32(values.to_vec())).unwrap();
        };
        let by_layer = |name: &str| -> Vec<Vec<f32>> {
            let values = fixture.f32(name);
            values.chunks(values.len() / weights.len()).map(<[f32]>::to_vec).collect()
        };
        write(x, &fixture.f32("x"));
        for (layer, (h, c)) in state.iter().enumerate() {
            write(*h, &by_layer("h0")[layer]);
            write(*c, &by_layer("c0")[layer]);
        }
        let coefficients: Vec<Vec<f32>> =
            [vec![fixture.f32("ky")], by_layer("kh"), by_layer("kc")].concat();
        for ((_, k), values) in seeds.iter().zip(&coefficients) {
            write(*k, values);
        }
        plan.run(1).unwrap();

        let mut read = |tensors: &[Tensor]| -> Vec<f64> {
            tensors.iter().flat_map(|t| plan.read_f64(*t).unwrap()).collect()
        };
        let end = 1 + weights.len();
        let found = [&outputs[..1], &outputs[1..end], &outputs[end..]].map(&mut read);
        for (name, found) in ["y", "hn", "cn"].iter().zip(&found) {
            close(name, &device, found, &fixture.f64(name), tolerance);
        }
        let gradients: Vec<Tensor> = gradients.into_iter().map(Option::unwrap).collect();
        let found = [&gradients[..1], &gradients[1..end], &gradients[end..]].map(&mut read);
        for (name, found) in ["grad.x", "grad.h0", "grad.c0"].iter().zip(&found) {
            close(name, &device, found, &fixture.f64(name), tolerance);
        }
        let flat = arena.read_f64(Flat::Gradients, 0).unwrap();
        fixture.close_flat(("grad", &parameters), &device, &flat, tolerance);
    }
}

#[test]
fn lstm_of_one_layer() {
    lstm("lstm_1", Layers::new(1));
}

#[test]
fn lstm_of_two_layers() {
    lstm("lstm_2", Layers::new(2));
}

#[test]
fn lstm_with_coupled_gates() {
    lstm("cifg", Layers { cifg: true, ..Layers::new(1) });
}

#[test]
fn lstm_of_both_directions() {
    lstm("lstm_bidirectional", Layers { bidirectional: true, ..Layers::new(2) });
}

#[test]
fn lstm_with_projections() {
    let projected = Layers { projection: Some(4), ..Layers::new(2) };
    lstm("lstm_projected", projected);
    lstm("lstm_projected_bidirectional", Layers { bidirectional: true, ..projected });
}

/// The parameters of a model are PyTorch's by name and shape.
#[test]
fn recurrent_layers_have_pytorchs_names() {
    let gru = LayerSpec::Gru { hidden: 6, layers: 2, dropout: 0.0, bidirectional: true };
    let lstm = |bidirectional, projection| LayerSpec::Lstm {
        hidden: 6,
        layers: 2,
        coupled: false,
        dropout: 0.0,
        bidirectional,
        projection,
    };
    for (name, layer) in [
        ("lstm_bidirectional", lstm(true, None)),
        ("lstm_projected", lstm(false, Some(4))),
        ("lstm_projected_bidirectional", lstm(true, Some(4))),
        ("gru_bidirectional", gru),
    ] {
        let part = name.split('_').next().unwrap().to_string();
        let layers =
            vec![("embedding".into(), LayerSpec::Embedding { dimension: 5 }), (part, layer)];
        let spec = ModelSpec { input: Input::Tokens { vocabulary: 7 }, layers };
        let (parameters, _) = spec.build().unwrap();
        let of_layer = |name: &str| name.contains("_l0") || name.contains("_l1");
        let mut found: Vec<_> =
            parameters.iter().skip(1).map(|p| (p.name.to_string(), p.shape.clone())).collect();
        found.sort();
        let fixture = Fixture::open(name);
        let tensors = fixture.parse().tensors();
        let weights = tensors.iter().filter(|(n, _)| of_layer(n) && !n.starts_with("grad."));
        let mut expected: Vec<_> =
            weights.map(|(name, tensor)| (name.clone(), tensor.shape().to_vec())).collect();
        expected.sort();
        assert!(expected.len() >= 10, "{expected:?}");
        assert_eq!(found, expected, "{name}");
    }
}

/// Ten training steps from PyTorch's weights: losses of each step, weights after the last.
fn steps(
    data: &str,
    weights: &str,
    result: &str,
    (parameters, model): (Parameters, Model),
    (element, shape): (Element, &[usize]),
    training: &Training,
) {
    let (data, result) = (Fixture::open(data), Fixture::open(result));
    for device in all_devices() {
        let tolerance = tolerance(&device);
        let arena = Arena::new(&device, &parameters, &[1]).unwrap();
        let flat = load_model(&path(weights), &parameters).unwrap();
        arena.write(Flat::Parameters, 0, &flat).unwrap();
        let mut graph = Graph::new(&arena);
        let x = graph.input("x", shape, element);
        let positions = match element {
            Element::U32 => shape.iter().product(),
            Element::F32 => shape[0],
        };
        let targets = graph.input("targets", &[positions], Element::U32);
        let logits = model.forward(&mut graph, x, Mode::Train).unwrap().output;
        let classes = *graph.shape(logits).last().unwrap();
        let logits = graph.reshape(logits, &[positions, classes]).unwrap();
        let loss = graph.cross_entropy(logits, targets).unwrap();
        let mut plan = graph.train(loss, training).unwrap();
        let mut losses = Vec::new();
        for step in 0..10 {
            let len: usize = shape.iter().product();
            let input = match element {
                Element::F32 => Data::F32(data.f32("x")[step * len..][..len].to_vec()),
                Element::U32 => Data::U32(data.u32("x")[step * len..][..len].to_vec()),
            };
            plan.write(x, &input).unwrap();
            let all = data.u32("target");
            plan.write(targets, &Data::U32(all[step * positions..][..positions].to_vec())).unwrap();
            losses.push(f64::from(plan.run(1).unwrap().last().unwrap()));
        }
        // The ring holds f32.
        close("loss", &device, &losses, &result.f64("losses"), tolerance.max(1e-6));
        let flat = arena.read_f64(Flat::Parameters, 0).unwrap();
        result.close_flat(("final", &parameters), &device, &flat, tolerance);
    }
}

fn char_lstm() -> (Parameters, Model) {
    let mut spec = ModelSpec::language_model(13, 6, 10, 2);
    spec.layers[2].0 = "linear".into();
    spec.build().unwrap()
}

fn char_lstm_steps(result: &str, optimizer: impl Fn(&Fixture) -> Optimizer) {
    let fixture = Fixture::open(result);
    let training = Training::new(optimizer(&fixture), fixture.number("lr"));
    let shape: &[usize] = &[9, 4];
    let weights = "char_lstm_weights";
    steps("char_lstm_data", weights, result, char_lstm(), (Element::U32, shape), &training);
}

#[test]
fn char_lstm_with_sgd() {
    char_lstm_steps("char_lstm_sgd", |_| Optimizer::sgd());
}

#[test]
fn char_lstm_with_momentum_and_weight_decay() {
    char_lstm_steps("char_lstm_momentum", |f| Optimizer::Sgd {
        momentum: f.number("momentum"),
        dampening: 0.0,
        nesterov: false,
        weight_decay: f.number("weight_decay"),
    });
}

#[test]
fn char_lstm_with_adam() {
    char_lstm_steps("char_lstm_adam", |f| Optimizer::Adam {
        beta1: f.setting("betas")[0].as_f64().unwrap(),
        beta2: f.setting("betas")[1].as_f64().unwrap(),
        epsilon: f.number("eps"),
        weight_decay: 0.0,
        amsgrad: false,
    });
}

#[test]
fn char_lstm_with_dampened_momentum() {
    char_lstm_steps("char_lstm_dampened", |f| Optimizer::Sgd {
        momentum: f.number("momentum"),
        dampening: f.number("dampening"),
        nesterov: false,
        weight_decay: 0.0,
    });
}

#[test]
fn char_lstm_with_nesterov() {
    char_lstm_steps("char_lstm_nesterov", |f| Optimizer::Sgd {
        momentum: f.number("momentum"),
        dampening: 0.0,
        nesterov: true,
        weight_decay: 0.0,
    });
}

#[test]
fn char_lstm_with_amsgrad() {
    char_lstm_steps("char_lstm_amsgrad", |f| Optimizer::Adam {
        beta1: f.setting("betas")[0].as_f64().unwrap(),
        beta2: f.setting("betas")[1].as_f64().unwrap(),
        epsilon: f.number("eps"),
        weight_decay: 0.0,
        amsgrad: true,
    });
}

#[test]
fn char_lstm_with_adamw() {
    char_lstm_steps("char_lstm_adamw", |f| Optimizer::AdamW {
        beta1: f.setting("betas")[0].as_f64().unwrap(),
        beta2: f.setting("betas")[1].as_f64().unwrap(),
        epsilon: f.number("eps"),
        weight_decay: f.number("weight_decay"),
        amsgrad: false,
    });
}

#[test]
fn cnn_with_sgd() {
    let conv = |outputs, kernel, stride, padding| {
        LayerSpec::Conv2d(
            Conv2dConfig::new(outputs, kernel)
                .stride(stride)
                .padding(padding)
                .activation(Activation::Relu),
        )
    };
    let linear = LayerSpec::Linear { outputs: 3, activation: Activation::Identity };
    let layers = [
        ("conv1", conv(4, 3, 1, 1)),
        ("pool1", LayerSpec::MaxPool2d { kernel: 2.into(), stride: 2.into(), padding: 0.into() }),
        ("conv2", conv(5, 2, 2, 1)),
        ("pool2", LayerSpec::MaxPool2d { kernel: 2.into(), stride: 1.into(), padding: 0.into() }),
        ("flatten", LayerSpec::Flatten),
        ("linear", linear),
    ];
    let spec = ModelSpec {
        input: Input::Image { channels: 2, height: 11, width: 7 },
        layers: layers.map(|(name, layer)| (name.into(), layer)).to_vec(),
    };
    let training = Training::new(Optimizer::sgd(), Fixture::open("cnn_sgd").number("lr"));
    let input = (Element::F32, &[4, 2 * 11 * 7][..]);
    steps("cnn_data", "cnn_weights", "cnn_sgd", spec.build().unwrap(), input, &training);
}

#[test]
fn cnn_of_oblong_filters_without_bias_and_average_pools() {
    let layers = [
        (
            "conv",
            LayerSpec::Conv2d(
                Conv2dConfig::new(4, [3, 2])
                    .stride([2, 1])
                    .padding([1, 0])
                    .bias(false)
                    .activation(Activation::Tanh),
            ),
        ),
        (
            "pool",
            LayerSpec::AveragePool2d {
                kernel: [2, 3].into(),
                stride: [1, 2].into(),
                padding: 1.into(),
            },
        ),
        ("flatten", LayerSpec::Flatten),
        ("linear", LayerSpec::Linear { outputs: 3, activation: Activation::Identity }),
    ];
    let spec = ModelSpec {
        input: Input::Image { channels: 2, height: 11, width: 7 },
        layers: layers.map(|(name, layer)| (name.into(), layer)).to_vec(),
    };
    let training = Training::new(Optimizer::sgd(), Fixture::open("oblong_sgd").number("lr"));
    let input = (Element::F32, &[4, 2 * 11 * 7][..]);
    steps("oblong_data", "oblong_weights", "oblong_sgd", spec.build().unwrap(), input, &training);
}

#[test]
fn mlp_with_clipping() {
    let linear = |outputs, activation| LayerSpec::Linear { outputs, activation };
    let layers = [
        ("norm", LayerSpec::LayerNorm),
        ("linear1", linear(11, Activation::GeluTanh)),
        ("linear2", linear(3, Activation::Identity)),
    ];
    let spec = ModelSpec {
        input: Input::Features { width: 7 },
        layers: layers.map(|(name, layer)| (name.into(), layer)).to_vec(),
    };
    let fixture = Fixture::open("mlp_clipped");
    let training =
        Training::new(Optimizer::sgd(), fixture.number("lr")).clip_norm(fixture.number("clip"));
    let input = (Element::F32, &[5, 7][..]);
    steps("mlp_data", "mlp_weights", "mlp_clipped", spec.build().unwrap(), input, &training);
}

#[test]
fn rms_norm_with_sgd() {
    let linear = |outputs, activation| LayerSpec::Linear { outputs, activation };
    let layers = [
        ("norm1", LayerSpec::RmsNorm),
        ("linear1", linear(11, Activation::Tanh)),
        ("norm2", LayerSpec::RmsNorm),
        ("linear2", linear(3, Activation::Identity)),
    ];
    let spec = ModelSpec {
        input: Input::Features { width: 7 },
        layers: layers.map(|(name, layer)| (name.into(), layer)).to_vec(),
    };
    let training = Training::new(Optimizer::sgd(), Fixture::open("rms_sgd").number("lr"));
    let input = (Element::F32, &[5, 7][..]);
    steps("rms_data", "rms_weights", "rms_sgd", spec.build().unwrap(), input, &training);
}
