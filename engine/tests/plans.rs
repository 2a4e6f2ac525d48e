//! Parameter groups, several plans on one arena, passes run separately, memory, and bad input.
#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

mod common;

use common::{devices, floats, tokens};
use tern_engine::nn::{Fit, LayerSpec, Mode, ModelSpec, Stop};
use tern_engine::{
    Activation, Arena, Batching, Data, Device, Element, Error, Flat, Graph, Interrupt, Optimizer,
    Parameters, Plan, RowData, Tensor, TextData, TextWindows, Trainable, Training,
};

/// Two classes of points in a plane: inside and outside of a circle.
fn circle(device: &Device, n: usize, key: u32) -> RowData {
    let features = floats(2 * n, key);
    let inside = |p: &[f32]| u32::from(p[0] * p[0] + p[1] * p[1] < 0.6);
    let labels: Vec<u32> = features.chunks(2).map(inside).collect();
    RowData::upload(device, &features, 2, &labels, 2).unwrap()
}

fn mlp() -> ModelSpec {
    ModelSpec::mlp(2, &[16, 16], 2)
}

fn classifier(graph: &mut Graph, x: Tensor, labels: Tensor) -> Tensor {
    let (_, model) = mlp().build().unwrap();
    let logits = model.forward(graph, x, Mode::Train).unwrap().output;
    graph.cross_entropy(logits, labels).unwrap()
}

#[test]
fn a_stream_that_starts_over_carries_nothing_across() {
    const WINDOWS: usize = 4;
    let spec = ModelSpec::language_model(11, 4, 6, 2);
    for device in devices() {
        let (parameters, model) = spec.build().unwrap();
        let arena = Arena::new(&device, &parameters, &[1, 2]).unwrap();
        let text = tokens(3 * WINDOWS * 7 + 1, 11, 3);
        let data = TextData::upload(&device, &[text], TextWindows::new(11, 7)).unwrap();
        let losses = |mode| {
            let mut graph = Graph::new(&arena);
            let (inputs, targets) = graph.stream_batch(&data, 3).unwrap();
            let logits = model.forward(&mut graph, inputs, mode).unwrap().output;
            let loss = graph.cross_entropy(logits, targets).unwrap();
            let mut plan = graph.evaluate(loss).unwrap();
            plan.run(3 * WINDOWS).unwrap().by_replica
        };
        let (carried, apart) = (losses(Mode::EvaluateCarrying), losses(Mode::Evaluate));
        for (carried, apart) in carried.iter().zip(&apart) {
            let (first, rest) = carried.split_at(WINDOWS);
            assert!(rest == [first, first].concat(), "{}: {carried:?}", device.name());
            // The first window has nothing before it, the others have.
            assert!(first[0] == apart[0] && (1..WINDOWS).all(|i| first[i] != apart[i]));
        }
    }
}

#[test]
fn training_stops_early_and_keeps_the_best() {
    for device in devices() {
        let (parameters, _) = mlp().build().unwrap();
        let arena = Arena::new(&device, &parameters, &[1]).unwrap();
        // 61 samples in batches of 8: the last batch is short.
        let (training, held_out) = (circle(&device, 61, 1), circle(&device, 50, 2));
        let mut graph = Graph::new(&arena);
        let (x, labels) = graph.row_batch(&training, &Batching::shuffled(8)).unwrap();
        let loss = classifier(&mut graph, x, labels);
        let mut train = graph.train(loss, &Training::new(Optimizer::adam(), 0.02)).unwrap();
        let mut graph = Graph::new(&arena);
        let (x, labels) = graph.row_batch(&held_out, &Batching::in_order(8)).unwrap();
        let loss = classifier(&mut graph, x, labels);
        let mut evaluate = graph.evaluate(loss).unwrap();

        let fit = Fit::new(60, 8).evaluation_steps(7).patience(3);
        let (epochs, stop) = fit.run(&mut train, Some(&mut evaluate), |_| true).unwrap();
        let losses: Vec<f32> = epochs.iter().map(|e| e.evaluation.unwrap()).collect();
        let best = losses.iter().copied().fold(f32::INFINITY, f32::min);
        assert!(best < 0.6 * losses[0], "{}: {losses:?}", device.name());
        assert!(stop == Stop::Patience || epochs.len() == 60);
        evaluate.rewind().unwrap();
        let kept = evaluate.run(7).unwrap().mean().unwrap();
        assert!((kept - best).abs() < 1e-6, "{}: {kept}, best {best}", device.name());
    }
}

#[test]
fn a_group_trains_while_the_rest_is_frozen_and_gradients_flow_through() {
    for device in devices() {
        let (parameters, _) = mlp().build().unwrap();
        let data = circle(&device, 64, 1);
        let change = |prefixes: &[&str]| -> Vec<bool> {
            let arena = Arena::new(&device, &parameters, &[1]).unwrap();
            let before = arena.read(Flat::Parameters, 0).unwrap();
            let mut graph = Graph::new(&arena);
            let (x, labels) = graph.row_batch(&data, &Batching::shuffled(8)).unwrap();
            let loss = classifier(&mut graph, x, labels);
            let trainable =
                Trainable::Prefixes(prefixes.iter().map(|p| (*p).to_string()).collect());
            let training = Training::new(Optimizer::sgd(), 0.1).trainable(trainable);
            graph.train(loss, &training).unwrap().run(4).unwrap();
            let after = arena.read(Flat::Parameters, 0).unwrap();
            let gradients = arena.read(Flat::Gradients, 0).unwrap();
            parameters
                .iter()
                .map(|p| {
                    let range = p.offset..p.offset + p.len();
                    let changed = after[range.clone()] != before[range.clone()];
                    let computed = gradients[range].iter().any(|g| *g != 0.0);
                    assert_eq!(changed, computed, "{}: a gradient nobody wants", p.name);
                    changed
                })
                .collect()
        };
        // Layers 0, 1, 2 with weight and bias each.
        assert_eq!(change(&["0."]), [true, true, false, false, false, false]);
        assert_eq!(change(&["2."]), [false, false, false, false, true, true]);
        assert_eq!(change(&["0.", "2."]), [true, true, false, false, true, true]);
    }
}

#[test]
fn a_plan_that_trains_nothing_is_refused() {
    let (parameters, _) = mlp().build().unwrap();
    let device = Device::cpu();
    let arena = Arena::new(&device, &parameters, &[1]).unwrap();
    let mut graph = Graph::new(&arena);
    let (x, labels) = graph.row_batch(&circle(&device, 8, 1), &Batching::shuffled(8)).unwrap();
    let loss = classifier(&mut graph, x, labels);
    let trainable = Trainable::Prefixes(vec!["nothing".into()]);
    let training = Training::new(Optimizer::sgd(), 0.1).trainable(trainable);
    assert!(matches!(graph.train(loss, &training), Err(Error::Value { .. })));
}

#[test]
fn passes_apart_equal_a_step_and_saved_activations_train_later() {
    for device in devices() {
        let (parameters, model) = mlp().build().unwrap();
        let batches: Vec<(Vec<f32>, Vec<u32>)> =
            (0..2).map(|i| (floats(10, i), tokens(5, 2, i))).collect();
        let new = || {
            let arena = Arena::new(&device, &parameters, &[1]).unwrap();
            let mut graph = Graph::new(&arena);
            let x = graph.input("x", &[5, 2], Element::F32);
            let labels = graph.input("labels", &[5], Element::U32);
            let logits = model.forward(&mut graph, x, Mode::Train).unwrap().output;
            let loss = graph.cross_entropy(logits, labels).unwrap();
            let plan = graph.train(loss, &Training::new(Optimizer::sgd(), 0.5)).unwrap();
            (arena, plan, x, labels)
        };
        let (whole, mut plan, x, labels) = new();
        let write = |plan: &mut Plan, [x, labels]: [Tensor; 2], i: usize| {
            plan.write(x, &Data::F32(batches[i].0.clone())).unwrap();
            plan.write(labels, &Data::U32(batches[i].1.clone())).unwrap();
        };
        write(&mut plan, [x, labels], 0);
        plan.run(1).unwrap();

        let (apart, mut plan, x, labels) = new();
        write(&mut plan, [x, labels], 0);
        plan.forward().unwrap();
        let saved = plan.save().unwrap();
        assert!(saved.bytes() > 0);
        // Another batch passes through before the first one's gradient is taken.
        write(&mut plan, [x, labels], 1);
        plan.forward().unwrap();
        plan.restore(&saved).unwrap();
        plan.backward().unwrap();
        let [a, b] = [&whole, &apart].map(|arena| arena.read(Flat::Parameters, 0).unwrap());
        assert!(a == b, "{}", device.name());
    }
}

#[test]
fn targets_may_come_after_the_prediction() {
    for device in devices() {
        let (parameters, model) = mlp().build().unwrap();
        let new = |apart: bool| {
            let arena = Arena::new(&device, &parameters, &[1]).unwrap();
            let mut graph = Graph::new(&arena);
            let x = graph.input("x", &[5, 2], Element::F32);
            let labels = graph.input("labels", &[5], Element::U32);
            let logits = model.forward(&mut graph, x, Mode::Evaluate).unwrap().output;
            if apart {
                graph.end_forward();
            }
            let loss = graph.cross_entropy(logits, labels).unwrap();
            let plan = graph.train(loss, &Training::new(Optimizer::adam(), 0.5)).unwrap();
            (arena, plan, x, labels)
        };
        let labels_seen = Data::U32(tokens(5, 2, 1));
        let (whole, mut plan, x, labels) = new(false);
        plan.write(x, &Data::F32(floats(10, 1))).unwrap();
        plan.write(labels, &labels_seen).unwrap();
        plan.run(1).unwrap();

        let (apart, mut plan, x, labels) = new(true);
        plan.write(x, &Data::F32(floats(10, 1))).unwrap();
        plan.forward().unwrap();
        let saved = plan.save().unwrap();
        plan.write(x, &Data::F32(floats(10, 2))).unwrap();
        plan.forward().unwrap();
        plan.restore(&saved).unwrap();
        plan.write(labels, &labels_seen).unwrap();
        plan.backward().unwrap();
        for flat in [Flat::Gradients, Flat::Parameters] {
            let [a, b] = [&whole, &apart].map(|arena| arena.read(flat, 0).unwrap());
            assert!(a == b, "{} {flat:?}", device.name());
        }
    }
}

#[test]
fn memory_is_known_before_and_too_little_is_named() {
    let (parameters, model) = ModelSpec::language_model(90, 8, 64, 2).build().unwrap();
    for device in devices() {
        let arena = Arena::new(&device, &parameters, &[1, 2]).unwrap();
        let text =
            TextData::upload(&device, &[tokens(900, 90, 1)], TextWindows::new(90, 20)).unwrap();
        let mut graph = Graph::new(&arena);
        let (inputs, targets) = graph.text_batch(&text, &Batching::shuffled(10)).unwrap();
        let logits = model.forward(&mut graph, inputs, Mode::Train).unwrap().output;
        let loss = graph.cross_entropy(logits, targets).unwrap();
        let plan = graph.train(loss, &Training::new(Optimizer::adam(), 0.01)).unwrap();
        let memory = plan.memory();
        let flat = 4 * 2 * parameters.words() as u64;
        assert_eq!((memory.parameters, memory.gradients, memory.optimizer), (flat, flat, 2 * flat));
        assert!(memory.activations < memory.activations_unshared);
    }
    let Some(device) = common::software(true) else { return };
    let mut big = Parameters::new();
    big.add("big", &[40_000_000], tern_engine::Init::Zeros).unwrap();
    let error = Arena::new(&device, &big, &[1]).err().unwrap().to_string();
    assert!(error.contains("160000000 bytes") && error.contains("25782272 short"), "{error}");
    let arena = Arena::new(&device, &parameters, &[1]).unwrap();
    let mut graph = Graph::new(&arena);
    let x = graph.input("too large", &[64, 1_000_000], Element::F32);
    graph.activation(x, Activation::Relu);
    let error = graph.forward().err().unwrap().to_string();
    assert!(error.contains("too large"), "{error}");
}

#[test]
fn bad_input_is_named() {
    let device = Device::cpu();
    let text = |r: Result<TextData, Error>| r.err().unwrap().to_string();
    let error = text(TextData::upload(&device, &[vec![1, 2, 90]], TextWindows::new(90, 4)));
    assert!(error.contains("token 2 is 90"), "{error}");
    let error = text(TextData::upload(&device, &[vec![1]], TextWindows::new(90, 4)));
    assert!(error.contains("two tokens"), "{error}");
    let rows =
        |f: &[f32], l: &[u32]| RowData::upload(&device, f, 2, l, 3).err().unwrap().to_string();
    assert!(rows(&[1.0, 2.0, f32::NAN, 0.0], &[0, 1]).contains("feature 0 of sample 1 is NaN"));
    assert!(rows(&[1.0, 2.0], &[3]).contains("label of sample 0 is 3"));
    assert!(rows(&[1.0, 2.0, 3.0], &[1]).contains("3 features for 1 × 2"));

    let (parameters, model) = mlp().build().unwrap();
    let arena = Arena::new(&device, &parameters, &[1]).unwrap();
    let mut graph = Graph::new(&arena);
    let x = graph.input("x", &[5, 3], Element::F32);
    let error = model.forward(&mut graph, x, Mode::Train).err().unwrap().to_string();
    assert!(error.contains("[5, 3]"), "{error}");
    let x = graph.input("x", &[5, 2], Element::F32);
    let mut plan = graph.forward().unwrap();
    let error = plan.write(x, &Data::F32(vec![0.0; 9])).unwrap_err().to_string();
    assert!(error.contains("9 elements") && error.contains("[5, 2]"), "{error}");
    let mut values = vec![0.0; 10];
    values[4] = f32::INFINITY;
    let error = plan.write(x, &Data::F32(values)).unwrap_err().to_string();
    assert!(error.contains("x at 4 is inf"), "{error}");
    let sgd = |momentum, dampening| Optimizer::Sgd {
        momentum,
        dampening,
        nesterov: true,
        weight_decay: 0.0,
    };
    for (wrong, expected) in [
        (sgd(1.5, 0.0), "momentum is 1.5"),
        (sgd(0.9, f64::NAN), "dampening is NaN"),
        (sgd(0.9, 0.5), "dampening with nesterov is 0.5"),
    ] {
        let mut graph = Graph::new(&arena);
        let (x, labels) = graph.row_batch(&circle(&device, 8, 1), &Batching::shuffled(8)).unwrap();
        let loss = classifier(&mut graph, x, labels);
        let error = graph.train(loss, &Training::new(wrong, 0.1)).err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let spec = ModelSpec { layers: vec![("a".into(), LayerSpec::Flatten)], ..mlp() };
    assert!(spec.build().err().unwrap().to_string().contains("layer a"));
}

#[test]
fn devices_are_listed_and_chosen() {
    let all = pollster::block_on(tern_engine::adapters());
    assert!(all.iter().any(|a| a.name == "Cpu"));
    assert!(all.iter().enumerate().all(|(i, a)| a.index == i));
    let error = pollster::block_on(Device::open(&tern_engine::DeviceOptions::new(
        tern_engine::Select::Name("no such device".into()),
    )));
    let error = error.err().unwrap().to_string();
    assert!(error.contains("no such device") && error.contains("Cpu"), "{error}");
    let best = pollster::block_on(Device::open(&Default::default())).unwrap();
    assert_ne!(best.profile().kind, tern_engine::Kind::Software, "software must be asked for");
}

#[test]
fn an_interrupted_run_ends_between_two_steps_and_another_goes_on() {
    for device in devices() {
        let (parameters, _) = mlp().build().unwrap();
        let plan = || {
            let arena = Arena::new(&device, &parameters, &[1, 2, 3]).unwrap();
            let data = circle(&device, 64, 1);
            let mut graph = Graph::new(&arena);
            let (x, labels) = graph.row_batch(&data, &Batching::shuffled(16)).unwrap();
            let loss = classifier(&mut graph, x, labels);
            graph.train(loss, &Training::new(Optimizer::adam(), 0.01)).unwrap()
        };
        let models = |plan: &Plan| -> Vec<Vec<f32>> {
            (0..3).map(|replica| plan.arena().read(Flat::Parameters, replica).unwrap()).collect()
        };
        let mut whole = plan();
        whole.run(20).unwrap();

        let (mut cut, interrupt) = (plan(), Interrupt::new());
        cut.set_interrupt(&interrupt);
        let asked = interrupt.clone();
        // Without the interrupt it would not end.
        let running = std::thread::spawn(move || {
            let ended = cut.run(usize::MAX);
            (cut, ended)
        });
        asked.set();
        let (mut cut, ended) = running.join().unwrap();
        assert!(matches!(ended, Err(Error::Interrupted)), "{}", device.name());
        let before = models(&cut);
        assert!(matches!(cut.run(1), Err(Error::Interrupted)));
        assert_eq!(models(&cut), before, "none of a run that came later");

        // From the start again: what was cut left no step half made behind.
        cut.rewind().unwrap();
        cut.set_interrupt(&Interrupt::new());
        for (replica, seed) in [1, 2, 3].into_iter().enumerate() {
            let initial = parameters.initial(seed);
            cut.arena().write(Flat::Parameters, replica, &initial).unwrap();
        }
        cut.run(20).unwrap();
        assert_eq!(models(&cut), models(&whole), "{}", device.name());

        // Passes that are made apart look at it, too.
        cut.set_interrupt(&asked);
        for ended in [cut.forward(), cut.backward()] {
            assert!(matches!(ended, Err(Error::Interrupted)), "{}", device.name());
        }
        assert_eq!(models(&cut), models(&whole), "{}", device.name());
        cut.set_interrupt(&Interrupt::new());
        cut.forward().unwrap();
        cut.backward().unwrap();
        assert_ne!(models(&cut), models(&whole), "{}", device.name());
    }
}
