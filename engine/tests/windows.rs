//! Models whose flat vectors are larger than a binding of the device, beside the Cpu, which has no such
//! limit. What a binding doesn't cover reads as zero, and a binding that is too large is refused.
#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

mod common;

use common::{floats, tokens};
use tern_engine::nn::{Conv2dConfig, DecoderConfig, Input, LayerSpec, LoraConfig, Mode, ModelSpec};
use tern_engine::{
    Activation, Arena, Data, Device, DeviceOptions, Element, Error, Flat, Graph, Kind, LossScale,
    Optimizer, ParameterGroup, Precision, Select, Training,
};

/// Software Vulkan with bindings of so many bytes.
fn small(bytes: u64) -> Option<Device> {
    common::software(false)?;
    let options = DeviceOptions::new(Select::Kind(Kind::Software)).portable(true);
    // What is beyond a binding reads as zero, whatever the driver does of itself.
    let options = options.checked(true).max_binding(bytes);
    Some(pollster::block_on(Device::open(&options)).unwrap())
}

/// A parameter with a gradient moves by about four times as much in four steps of AdamW.
const RATE: f64 = 5e-3;

/// Losses of four steps, and parameters, gradients and averages after them, of two replicas.
fn train(device: &Device, spec: &ModelSpec, precision: Precision, training: &Training) -> Vec<f64> {
    let (parameters, model) = spec.build().unwrap();
    let model = model.precision(precision).recomputing(true);
    let arena = Arena::new(device, &parameters, &[1, 2]).unwrap();
    let mut graph = Graph::new(&arena);
    let (x, rows, input) = match model.input() {
        Input::Tokens { vocabulary } => {
            let x = graph.input("x", &[6, 2], Element::U32);
            (x, 12, Data::U32(tokens(24, vocabulary as u32, 1)))
        }
        other => {
            let width = other.floats().unwrap();
            (graph.input("x", &[4, width], Element::F32), 4, Data::F32(floats(8 * width, 1)))
        }
    };
    let targets = graph.input("targets", &[rows], Element::U32);
    let logits = model.forward(&mut graph, x, Mode::Train).unwrap().output;
    let classes = *graph.shape(logits).last().unwrap();
    let logits = graph.reshape(logits, &[rows, classes]).unwrap();
    let loss = graph.cross_entropy(logits, targets).unwrap();
    let mut plan = graph.train(loss, training).unwrap();
    plan.write(x, &input).unwrap();
    plan.write(targets, &Data::U32(tokens(2 * rows, classes as u32, 2))).unwrap();
    let losses = plan.run(4).unwrap();
    let mut all: Vec<f64> = losses.by_replica.concat().into_iter().map(f64::from).collect();
    for flat in [Flat::Parameters, Flat::Gradients, Flat::Average] {
        for replica in 0..2 {
            all.extend(arena.read_f64(flat, replica).unwrap());
        }
    }
    all
}

#[test]
fn models_larger_than_a_binding_train_as_on_the_cpu() {
    let linear = |outputs| LayerSpec::Linear { outputs, activation: Activation::Tanh };
    let named = |layers: &[(&str, LayerSpec)]| -> Vec<(String, LayerSpec)> {
        layers.iter().map(|(name, layer)| ((*name).into(), *layer)).collect()
    };
    let recurrent = named(&[
        ("embedding", LayerSpec::Embedding { dimension: 12 }),
        ("lstm", LayerSpec::lstm(24, 2)),
        ("gru", LayerSpec::gru(20, 1)),
        ("norm", LayerSpec::LayerNorm),
        ("output", linear(40)),
    ]);
    let conv = LayerSpec::Conv2d(Conv2dConfig::new(16, 3).padding(1).activation(Activation::Relu));
    let images = named(&[
        ("conv", conv),
        ("batch_norm", LayerSpec::BatchNorm),
        ("block", LayerSpec::BasicBlock { outputs: 24, stride: 2 }),
        ("group_norm", LayerSpec::GroupNorm { groups: 3 }),
        ("pool", LayerSpec::GlobalAveragePool),
        ("output", linear(32)),
    ]);
    let decoder = DecoderConfig::new(2, 4, 16, 96).lora(Some(LoraConfig::new(4)));
    // With four channels the convolution with a bias is one of products, too.
    let image = Input::Image { channels: 4, height: 8, width: 8 };
    let specs = [
        ModelSpec { input: Input::Tokens { vocabulary: 40 }, layers: recurrent },
        ModelSpec { input: image, layers: images },
        ModelSpec::decoder(50, 64, decoder, true),
    ];
    let training = Training::new(Optimizer::adamw(), RATE)
        .clip_norm(0.5)
        .proximal(0.1)
        .average(0.9)
        .group(ParameterGroup::suffixes([".bias", "norm.weight"]).weight_decay(0.0).rate(0.5));
    let scaled = training.clone().loss_scale(LossScale { initial: 64.0, ..LossScale::default() });
    for spec in &specs {
        let (parameters, _) = spec.build().unwrap();
        let largest = parameters.iter().map(|p| 4 * p.padded() as u64).max().unwrap();
        // All of a step's tensors and logs are at most as large.
        let limit = largest.max(16 << 10);
        assert!(4 * parameters.words() as u64 > 3 * limit / 2, "{limit} is a limit");
        let Some(device) = small(limit) else { return };
        for (precision, training) in [(Precision::Single, &training), (Precision::Bf16, &scaled)] {
            let found = train(&device, spec, precision, training);
            let expected = train(&Device::cpu(), spec, precision, training);
            assert_eq!(found.len(), expected.len());
            // What is rounded to 16 bits may be rounded to the other side; four steps move parameters by
            // much more.
            let tolerance = if precision == Precision::Single { 4e-4 } else { 0.6 * RATE };
            for (at, (a, b)) in found.iter().zip(&expected).enumerate() {
                assert!((a - b).abs() < tolerance, "{:?} {precision:?} {at}: {a} {b}", spec.layers);
            }
        }
    }
}

#[test]
fn a_parameter_that_no_binding_holds_is_named() {
    let Some(device) = small(16 << 10) else { return };
    let (parameters, _) = ModelSpec::mlp(64, &[65], 2).build().unwrap();
    match Arena::new(&device, &parameters, &[1]).map(|_| ()) {
        Err(Error::OutOfMemory { what, needed, available }) => {
            assert_eq!((what.as_str(), available), ("parameter 0.weight", 16 << 10));
            assert!(needed > available);
        }
        other => panic!("{other:?}"),
    }
}
