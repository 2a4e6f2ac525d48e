//! GRU layers and ops on shapes, as PyTorch computes them; see fixtures/README.md.
#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

mod common;

use common::fixture::file::path;
use common::fixture::{Fixture, all_devices, close, tolerance};
use tern_engine::nn::{Conv2dConfig, Input, LayerSpec, Mode, ModelSpec};
use tern_engine::ops::gru::{GruOptions, GruWeights};
use tern_engine::ops::reduce::Reduction;
use tern_engine::{
    Activation, Arena, Data, Device, Element, Flat, Graph, Init, LossScale, Optimizer, Parameters,
    Precision, Result, Tensor, Trainable, Training, load_model,
};

fn gru(name: &str, layers: usize, bidirectional: bool) {
    let fixture = Fixture::open(name);
    for device in all_devices() {
        let tolerance = if device.name().starts_with("Reference") { 1e-10 } else { 1e-5 };
        let mut parameters = Parameters::new();
        let directions: &[&str] = if bidirectional { &["", "_reverse"] } else { &[""] };
        let weights: Vec<GruWeights> = (0..layers)
            .flat_map(|layer| directions.iter().map(move |direction| (layer, direction)))
            .map(|(layer, direction)| {
                let mut add = |part: &str, shape: &[usize]| {
                    let name = format!("gru.{part}_l{layer}{direction}");
                    parameters.add(&name, shape, Init::Zeros).unwrap()
                };
                let inputs = if layer == 0 { 5 } else { 6 * directions.len() };
                GruWeights {
                    w_ih: add("weight_ih", &[18, inputs]),
                    w_hh: add("weight_hh", &[18, 6]),
                    b_ih: add("bias_ih", &[18]),
                    b_hh: add("bias_hh", &[18]),
                }
            })
            .collect();
        let arena = Arena::new(&device, &parameters, &[1]).unwrap();
        arena.write(Flat::Parameters, 0, &fixture.flat(&parameters)).unwrap();

        let mut graph = Graph::new(&arena);
        let x = graph.input("x", &[7, 3, 5], Element::F32);
        let initial: Vec<Tensor> =
            weights.iter().map(|_| graph.input("h0", &[3, 6], Element::F32)).collect();
        let initial_states = Some(initial.clone());
        let options = GruOptions { initial: initial_states, dropout: 0.0, bidirectional };
        let output = graph.gru(x, &weights, &options).unwrap();
        let outputs: Vec<Tensor> = [output.y].into_iter().chain(output.h).collect();
        let seeds: Vec<(Tensor, Tensor)> = outputs
            .iter()
            .map(|y| {
                graph.keep(*y);
                let shape = graph.shape(*y).to_vec();
                (*y, graph.input("k", &shape, Element::F32))
            })
            .collect();
        let sources: Vec<Tensor> = [x].into_iter().chain(initial.iter().copied()).collect();
        let (mut plan, gradients) = graph.gradients(&seeds, &Trainable::All, &sources).unwrap();
        let values = |name: &str| -> Vec<Vec<f32>> {
            fixture.f32(name).chunks(18).map(<[f32]>::to_vec).collect()
        };
        let inputs = [vec![fixture.f32("x")], values("h0")].concat();
        let upstream = [vec![fixture.f32("ky")], values("kh")].concat();
        let tensors = sources.iter().copied().chain(seeds.iter().map(|(_, k)| *k));
        for (tensor, values) in tensors.zip(inputs.into_iter().chain(upstream)) {
            plan.write(tensor, &Data::F32(values)).unwrap();
        }
        plan.run(1).unwrap();
        let mut read = |tensors: &[Tensor]| -> Vec<f64> {
            tensors.iter().flat_map(|t| plan.read_f64(*t).unwrap()).collect()
        };
        let gradients: Vec<Tensor> = gradients.into_iter().map(Option::unwrap).collect();
        for (name, tensors) in [
            ("y", &outputs[..1]),
            ("hn", &outputs[1..]),
            ("grad.x", &gradients[..1]),
            ("grad.h0", &gradients[1..]),
        ] {
            close(name, &device, &read(tensors), &fixture.f64(name), tolerance);
        }
        let flat = arena.read_f64(Flat::Gradients, 0).unwrap();
        fixture.close_flat(("grad", &parameters), &device, &flat, tolerance);
    }
}

#[test]
fn gru_of_one_layer() {
    gru("gru_1", 1, false);
}

#[test]
fn gru_of_two_layers() {
    gru("gru_2", 2, false);
}

#[test]
fn gru_of_both_directions() {
    gru("gru_bidirectional", 2, true);
}

/// An input's name and shape.
type Source = (&'static str, &'static [usize]);

/// What an op makes of tensors.
type Record = fn(&mut Graph, &Fixture, &[Tensor]) -> Result<Tensor>;

/// Holds an op's result and the gradients of its inputs against PyTorch's.
fn op(device: &Device, fixture: &Fixture, name: &str, inputs: &[Source], record: Record) {
    let tolerance = if device.name().starts_with("Reference") { 1e-10 } else { 1e-5 };
    let mut parameters = Parameters::new();
    parameters.add("unused", &[1], Init::Zeros).unwrap();
    let arena = Arena::new(device, &parameters, &[1]).unwrap();
    let mut graph = Graph::new(&arena);
    let tensors: Vec<Tensor> =
        inputs.iter().map(|(name, shape)| graph.input(name, shape, Element::F32)).collect();
    let y = record(&mut graph, fixture, &tensors).unwrap();
    graph.keep(y);
    let shape = graph.shape(y).to_vec();
    let ky = graph.input("ky", &shape, Element::F32);
    let (mut plan, gradients) = graph.gradients(&[(y, ky)], &Trainable::None, &tensors).unwrap();
    plan.write(ky, &Data::F32(fixture.f32(&format!("{name}.ky")))).unwrap();
    for (tensor, (input, _)) in tensors.iter().zip(inputs) {
        plan.write(*tensor, &Data::F32(fixture.f32(input))).unwrap();
    }
    plan.run(1).unwrap();
    let expected = |what: &str| fixture.f64(&format!("{name}.{what}"));
    close(name, device, &plan.read_f64(y).unwrap(), &expected("y"), tolerance);
    for ((input, _), gradient) in inputs.iter().zip(gradients) {
        let found = plan.read_f64(gradient.unwrap()).unwrap();
        let what = format!("grad.{input}");
        close(&format!("{name}.{what}"), device, &found, &expected(&what), tolerance);
    }
}

#[test]
fn ops_on_shapes() {
    let fixture = Fixture::open("shapes");
    let (x, row): (Source, Source) = (("x", &[3, 4, 5, 2]), ("row", &[4, 1, 2]));
    let other: Source = ("other", &[3, 1, 5, 1]);
    let (left, right): (Source, Source) = (("left", &[2, 3, 4, 5]), ("right", &[3, 5, 2]));
    let ops: [(&str, &[Source], Record); 13] = [
        ("permute", &[x], |g, _, x| g.permute(x[0], &[2, 0, 3, 1])),
        ("flip", &[x], |g, _, x| g.flip(x[0], 1)),
        ("pad", &[x], |g, _, x| g.pad(x[0], 2, [2, 1])),
        ("add", &[x, row], |g, _, x| g.add(x[0], x[1])),
        ("subtract", &[row, x], |g, _, x| g.subtract(x[0], x[1])),
        ("multiply", &[other, row], |g, _, x| g.multiply(x[0], x[1])),
        ("sum", &[x], |g, _, x| g.reduce(x[0], &[0, 2], Reduction::Sum)),
        ("mean", &[x], |g, _, x| g.reduce(x[0], &[3, 1], Reduction::Mean)),
        ("max", &[x], |g, _, x| g.reduce(x[0], &[1, 2], Reduction::Max)),
        ("where", &[x, row], |g, fixture, x| {
            let condition = Data::U32(fixture.u32("condition"));
            let condition = g.values("condition", &[3, 4, 5, 2], condition)?;
            let row = g.broadcast_to(x[1], &[3, 4, 5, 2])?;
            g.select(condition, x[0], row)
        }),
        ("select", &[x], |g, fixture, x| {
            let index = g.values("index", &[2, 4], Data::U32(fixture.u32("index")))?;
            g.index_select(x[0], index)
        }),
        ("scatter", &[x], |g, fixture, x| {
            let index = fixture.u32("index").into_iter().map(|i| 2 * i).collect();
            let index = g.values("index", &[2, 4], Data::U32(index))?;
            let rows = g.slice(x[0], 0, 0..2)?;
            g.scatter_add(rows, index, 5)
        }),
        ("matmul", &[left, right], |g, _, x| g.matmul(x[0], x[1])),
    ];
    for device in all_devices() {
        for (name, inputs, record) in ops {
            op(&device, &fixture, name, inputs, record);
        }
    }
}

/// Batch norms and their running moments, residual blocks, a group norm: ten steps of SGD, then logits
/// by the running moments.
#[test]
fn a_residual_network() {
    let fixture = Fixture::open("residual_sgd");
    let conv = LayerSpec::Conv2d(Conv2dConfig::new(4, 3).padding(1).bias(false));
    let layers = [
        ("conv1", conv),
        ("bn1", LayerSpec::BatchNorm),
        ("relu", LayerSpec::Activation { kind: Activation::Relu }),
        ("block1", LayerSpec::BasicBlock { outputs: 4, stride: 1 }),
        ("block2", LayerSpec::BasicBlock { outputs: 6, stride: 2 }),
        ("norm", LayerSpec::GroupNorm { groups: 3 }),
        ("pool", LayerSpec::GlobalAveragePool),
        ("fc", LayerSpec::Linear { outputs: 3, activation: Activation::Identity }),
    ];
    let spec = ModelSpec {
        input: Input::Image { channels: 2, height: 7, width: 6 },
        layers: layers.map(|(name, layer)| (name.into(), layer)).to_vec(),
    };
    let (parameters, model) = spec.build().unwrap();
    for device in all_devices() {
        let tolerance = tolerance(&device);
        let arena = Arena::new(&device, &parameters, &[1]).unwrap();
        let flat = load_model(&path("residual_weights"), &parameters).unwrap();
        arena.write(Flat::Parameters, 0, &flat).unwrap();
        let mut graph = Graph::new(&arena);
        let x = graph.input("x", &[4, 84], Element::F32);
        let targets = graph.input("targets", &[4], Element::U32);
        let y = model.forward(&mut graph, x, Mode::Train).unwrap().output;
        let loss = graph.cross_entropy(y, targets).unwrap();
        let training = Training::new(Optimizer::sgd(), fixture.number("lr"));
        let mut plan = graph.train(loss, &training).unwrap();
        let batch = |step: usize| Data::F32(fixture.f32("x")[step * 336..][..336].to_vec());
        let mut losses = Vec::new();
        for step in 0..10 {
            plan.write(x, &batch(step)).unwrap();
            let target = fixture.u32("target")[step * 4..][..4].to_vec();
            plan.write(targets, &Data::U32(target)).unwrap();
            losses.push(f64::from(plan.run(1).unwrap().last().unwrap()));
        }
        close("loss", &device, &losses, &fixture.f64("losses"), tolerance.max(1e-6));
        let flat = arena.read_f64(Flat::Parameters, 0).unwrap();
        fixture.close_flat(("final", &parameters), &device, &flat, tolerance);
        let mut graph = Graph::new(&arena);
        let x = graph.input("x", &[4, 84], Element::F32);
        let y = model.forward(&mut graph, x, Mode::Evaluate).unwrap().output;
        graph.keep(y);
        let mut plan = graph.forward().unwrap();
        plan.write(x, &batch(0)).unwrap();
        plan.run(1).unwrap();
        close("y", &device, &plan.read_f64(y).unwrap(), &fixture.f64("evaluated"), tolerance);
    }
}

/// Sixteen steps of Adam of a perceptron whose products multiply 16 bits, the batch whole or in parts; of
/// halves the loss is scaled, and steps are skipped where it is too much.
fn mixed(name: &str, precision: Precision, scale: Option<LossScale>) {
    for parts in [1, 2] {
        mixed_in_parts(name, precision, scale, parts);
    }
}

fn mixed_in_parts(name: &str, precision: Precision, scale: Option<LossScale>, parts: usize) {
    let rows = 8 / parts;
    let fixture = Fixture::open(name);
    let input = Input::Features { width: 12 };
    let layers = [
        ("0", LayerSpec::Linear { outputs: 16, activation: Activation::Tanh }),
        ("2", LayerSpec::Linear { outputs: 4, activation: Activation::Identity }),
    ];
    let layers = layers.map(|(name, layer)| (name.into(), layer)).to_vec();
    let (parameters, model) = ModelSpec { input, layers }.build().unwrap();
    let model = model.precision(precision);
    let factors = fixture.f64("factors");
    for device in all_devices() {
        let arena = Arena::new(&device, &parameters, &[1]).unwrap();
        arena.write(Flat::Parameters, 0, &fixture.flat_of("start.", &parameters)).unwrap();
        let mut graph = Graph::new(&arena);
        let training = Training::new(Optimizer::adam(), fixture.number("lr")).loss_scale(scale);
        let mut inputs = Vec::new();
        let mut record = |graph: &mut Graph| {
            let x = graph.input("x", &[rows, 12], Element::F32);
            let targets = graph.input("targets", &[rows], Element::U32);
            inputs.push((x, targets));
            let y = model.forward(graph, x, Mode::Train)?.output;
            graph.cross_entropy(y, targets)
        };
        let plan = if parts == 1 {
            let loss = record(&mut graph).unwrap();
            graph.train(loss, &training)
        } else {
            graph.train_in_parts(parts, &training, record)
        };
        let mut plan = plan.unwrap();
        let mut losses = Vec::new();
        let mut skipped = 0;
        for step in 0..16 {
            for (part, (x, targets)) in inputs.iter().enumerate() {
                let first = step * 8 + part * rows;
                let values = fixture.f32("x")[12 * first..][..12 * rows].to_vec();
                plan.write(*x, &Data::F32(values)).unwrap();
                let values = fixture.u32("target")[first..][..rows].to_vec();
                plan.write(*targets, &Data::U32(values)).unwrap();
            }
            losses.push(f64::from(plan.run(1).unwrap().last().unwrap()));
            let record = plan.states().unwrap()[0];
            let factor = record.loss_scale().map_or(1.0, f64::from);
            assert_eq!(factor, factors[step], "{} after step {step}", device.name());
            let before =
                if step == 0 { scale.map_or(1.0, |s| s.initial.into()) } else { factors[step - 1] };
            skipped += u32::from(factor < before);
            assert_eq!(record.skipped(), skipped);
        }
        assert_eq!(skipped > 3, precision == Precision::Half);
        // What is rounded to one side by a device's last bits, and to the other here, is a digit of 16
        // bits off.
        close("loss", &device, &losses, &fixture.f64("losses"), 1e-4);
        let flat = arena.read_f64(Flat::Parameters, 0).unwrap();
        fixture.close_flat(("final", &parameters), &device, &flat, 1e-3);
    }
}

#[test]
fn mixed_precision_with_a_scaled_loss() {
    let scale = LossScale { initial: 4_194_304.0, interval: 4, ..LossScale::default() };
    mixed("mixed_half", Precision::Half, Some(scale));
}

#[test]
fn mixed_precision_of_bfloat16() {
    mixed("mixed_bf16", Precision::Bf16, None);
}
