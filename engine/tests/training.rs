//! Options of training: batches in parts, groups of parameters, averages of the weights.
#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

mod common;

use common::fixture::file::path;
use common::fixture::{Fixture, all_devices, close, tolerance};
use common::{floats, tokens};
use tern_engine::nn::{Input, LayerSpec, Mode, Model, ModelSpec};
use tern_engine::ops::loss::{CrossEntropy, Reduction};
use tern_engine::{
    Activation, Arena, Batching, Data, Device, Element, Flat, Graph, Optimizer, ParameterGroup,
    Parameters, Plan, Result, RowData, Tensor, TextData, TextWindows, Training, load_model,
};

/// What a plan of some steps leaves: losses, rows of the batches, parameters, and activations' bytes.
fn ran(arena: &Arena, plan: Result<Plan>, steps: usize) -> (Vec<f64>, Vec<f32>, u64) {
    let mut plan = plan.unwrap();
    let bytes = plan.memory().activations;
    let losses = plan.run(steps).unwrap();
    let mut numbers: Vec<f64> =
        losses.by_replica.iter().flatten().map(|loss| f64::from(*loss)).collect();
    for replica in 0..arena.replicas() {
        numbers.extend(arena.read_f64(Flat::Parameters, replica).unwrap());
    }
    (numbers, losses.rows.concat(), bytes)
}

/// Batches as a whole and in parts, from the same weights: the model's numbers are the same, the
/// memory of its activations is not.
fn in_parts(
    device: &Device,
    (parameters, model): &(Parameters, Model),
    parts: usize,
    training: &Training,
    record: impl Fn(&mut Graph, &Model, usize) -> Result<Tensor>,
) {
    let whole = Arena::new(device, parameters, &[3, 4]).unwrap();
    let mut graph = Graph::new(&whole);
    let loss = record(&mut graph, model, 12).unwrap();
    let (expected, rows, bytes) = ran(&whole, graph.train(loss, training), 7);
    let arena = Arena::new(device, parameters, &[3, 4]).unwrap();
    let plan = Graph::new(&arena)
        .train_in_parts(parts, training, |graph| record(graph, model, 12 / parts));
    let (found, rows_in_parts, bytes_in_parts) = ran(&arena, plan, 7);
    assert_eq!(rows, rows_in_parts);
    assert!(bytes_in_parts < bytes, "{bytes_in_parts} of {bytes} bytes in {parts} parts");
    // The ring holds f32.
    let tolerance = if device.name().starts_with("Reference") { 1e-6 } else { 2e-5 };
    close(&format!("{parts} parts"), device, &found, &expected, tolerance);
}

#[test]
fn batches_in_parts_give_the_numbers_of_whole_ones() {
    let clipped = Training::new(Optimizer::adamw(), 0.01).clip_norm(0.5);
    for device in all_devices() {
        // 41 samples: the last batch of an epoch has five, and parts of it have none.
        let labels = tokens(41, 5, 2);
        let data = RowData::upload(&device, &floats(41 * 6, 1), 6, &labels, 5).unwrap();
        let mlp = ModelSpec::mlp(6, &[40], 5).build().unwrap();
        for parts in [2, 3, 12] {
            in_parts(&device, &mlp, parts, &clipped, |graph, model, batch| {
                let (x, labels) = graph.row_batch(&data, &Batching::shuffled(batch))?;
                let y = model.forward(graph, x, Mode::Train)?.output;
                graph.cross_entropy(y, labels)
            });
        }
        // Sums, weighted means, and errors of the rows that hold a sample.
        let plain = Training::new(Optimizer::sgd(), 0.02);
        for kind in 0..3 {
            in_parts(&device, &mlp, 3, &plain, |graph, model, batch| {
                let (x, labels) = graph.row_batch(&data, &Batching::in_order(batch))?;
                let y = model.forward(graph, x, Mode::Train)?.output;
                let weights = Data::F32(vec![0.1, 0.2, 0.4, 0.3, 0.05]);
                let weights = graph.values("weights", &[5], weights)?;
                let options = match kind {
                    0 => CrossEntropy::new().reduction(Reduction::Sum),
                    1 => CrossEntropy::new().class_weights(weights).label_smoothing(0.1),
                    _ => {
                        let rows = graph.batch_rows(batch);
                        let goal = graph.constant(0.5, &[batch, 5]);
                        return graph.mse(y, goal, Some(rows));
                    }
                };
                graph.cross_entropy_with(y, labels, &options)
            });
        }
        // Windows of texts, whose last ones are short: parts have different numbers of targets.
        let texts = [tokens(50, 9, 3), tokens(23, 9, 4), tokens(90, 9, 5)];
        let data = TextData::upload(&device, &texts, TextWindows::new(9, 8)).unwrap();
        let lstm = ModelSpec::language_model(9, 4, 6, 1).build().unwrap();
        in_parts(&device, &lstm, 4, &clipped, |graph, model, batch| {
            let (x, targets) = graph.text_batch(&data, &Batching::shuffled(batch))?;
            let y = model.forward(graph, x, Mode::Train)?.output;
            graph.cross_entropy(y, targets)
        });
    }
}

#[test]
fn what_has_no_parts_is_refused() {
    let device = Device::cpu();
    let (parameters, model) = ModelSpec::language_model(9, 4, 6, 1).build().unwrap();
    let arena = Arena::new(&device, &parameters, &[1]).unwrap();
    let data = TextData::upload(&device, &[tokens(90, 9, 1)], TextWindows::new(9, 8)).unwrap();
    let training = Training::new(Optimizer::sgd(), 0.1);
    let message = |parts, record: &mut dyn FnMut(&mut Graph) -> Result<Tensor>| {
        let plan = Graph::new(&arena).train_in_parts(parts, &training, record);
        plan.err().map(|error| error.to_string()).unwrap_or_default()
    };
    let loss = |graph: &mut Graph, (x, targets): (Tensor, Tensor)| {
        let y = model.forward(graph, x, Mode::Train)?.output;
        graph.cross_entropy(y, targets)
    };
    let found = message(0, &mut |_| unreachable!("no part"));
    assert!(found.contains("parts of a batch is 0"), "{found}");
    let found = message(2, &mut |graph| {
        let batch = graph.stream_batch(&data, 2)?;
        loss(graph, batch)
    });
    assert!(found.contains("a text in order has no parts"), "{found}");
    let mut size = 1;
    let found = message(2, &mut |graph| {
        size += 1;
        let batch = graph.text_batch(&data, &Batching::in_order(size))?;
        loss(graph, batch)
    });
    assert!(found.contains("those of the first part"), "{found}");
    let found = message(2, &mut |graph| {
        graph.text_batch(&data, &Batching::in_order(2))?;
        let batch = graph.text_batch(&data, &Batching::in_order(2))?;
        loss(graph, batch)
    });
    assert!(found.contains("data sets of a graph"), "{found}");
    let mut graph = Graph::new(&arena);
    graph.text_batch(&data, &Batching::in_order(2)).unwrap();
    let error = graph.train_in_parts(2, &training, |_| unreachable!("refused before"));
    assert!(error.err().unwrap().to_string().contains("ops before the parts"));
}

fn mlp() -> (Parameters, Model) {
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
    spec.build().unwrap()
}

/// PyTorch's parameter groups and its averaged model.
#[test]
fn groups_and_averages_are_pytorchs() {
    let (data, result) = (Fixture::open("mlp_data"), Fixture::open("mlp_groups"));
    let (parameters, model) = mlp();
    let betas = result.setting("betas");
    let optimizer = Optimizer::AdamW {
        beta1: betas[0].as_f64().unwrap(),
        beta2: betas[1].as_f64().unwrap(),
        epsilon: result.number("eps"),
        weight_decay: result.number("weight_decay"),
        amsgrad: false,
    };
    let training = Training::new(optimizer, result.number("lr"))
        .group(ParameterGroup::prefixes(["linear1."]).rate(0.25))
        .group(ParameterGroup::suffixes([".bias"]).weight_decay(0.0))
        .group(ParameterGroup::prefixes(["norm."]).weight_decay(0.0))
        .average(0.75);
    for device in all_devices() {
        let arena = Arena::new(&device, &parameters, &[1]).unwrap();
        let flat = load_model(&path("mlp_weights"), &parameters).unwrap();
        arena.write(Flat::Parameters, 0, &flat).unwrap();
        let mut graph = Graph::new(&arena);
        let x = graph.input("x", &[5, 7], Element::F32);
        let targets = graph.input("targets", &[5], Element::U32);
        let y = model.forward(&mut graph, x, Mode::Train).unwrap().output;
        let loss = graph.cross_entropy(y, targets).unwrap();
        let mut plan = graph.train(loss, &training).unwrap();
        let mut losses = Vec::new();
        for step in 0..10 {
            plan.write(x, &Data::F32(data.f32("x")[step * 35..][..35].to_vec())).unwrap();
            let target = data.u32("target")[step * 5..][..5].to_vec();
            plan.write(targets, &Data::U32(target)).unwrap();
            losses.push(f64::from(plan.run(1).unwrap().last().unwrap()));
        }
        let tolerance = tolerance(&device);
        close("loss", &device, &losses, &result.f64("losses"), tolerance.max(1e-6));
        for (flat, name) in [(Flat::Parameters, "final"), (Flat::Average, "average")] {
            let flat = arena.read_f64(flat, 0).unwrap();
            result.close_flat((name, &parameters), &device, &flat, tolerance);
        }
    }
}

#[test]
fn groups_that_name_nothing_and_numbers_out_of_range_are_refused() {
    let (parameters, model) = mlp();
    let arena = Arena::new(&Device::cpu(), &parameters, &[1]).unwrap();
    let plain = || Training::new(Optimizer::adamw(), 0.1);
    for (training, expected) in [
        (plain().group(ParameterGroup::prefixes(["linear9."])), "parameter group"),
        (plain().group(ParameterGroup::prefixes([""]).rate(-1.0)), "rate of a parameter group"),
        (
            plain().group(ParameterGroup::prefixes([""]).weight_decay(f64::NAN)),
            "weight decay of a parameter group",
        ),
        (
            // The second has nothing left.
            plain()
                .group(ParameterGroup::prefixes(["norm.", "linear"]))
                .group(ParameterGroup::suffixes([".bias"])),
            "in no group before",
        ),
        (plain().average(1.0), "decay of the average"),
    ] {
        let mut graph = Graph::new(&arena);
        let x = graph.input("x", &[5, 7], Element::F32);
        let targets = graph.input("targets", &[5], Element::U32);
        let y = model.forward(&mut graph, x, Mode::Train).unwrap().output;
        let loss = graph.cross_entropy(y, targets).unwrap();
        let error = graph.train(loss, &training).err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
