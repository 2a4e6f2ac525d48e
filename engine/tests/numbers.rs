//! Values that lost their digits or their meaning on some device: large and many numbers, and what
//! is none.
#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

mod common;

use common::devices;
use tern_engine::nn::Fit;
use tern_engine::{
    Activation, Arena, Batching, Data, Device, Element, Error, Flat, Graph, IGNORE, Init,
    LossScale, Optimizer, Param, Parameters, Plan, Precision, RowData, Tensor, TextData,
    TextWindows, Trainable, Training,
};
use tern_shaders::schedule::{Decay, Schedule};

/// An arena with one parameter, w `[1, 4]` of halves.
fn arena(device: &Device) -> (Arena, Param) {
    let mut parameters = Parameters::new();
    let w = parameters.add("w", &[1, 4], Init::Constant(0.5)).unwrap();
    (Arena::new(device, &parameters, &[1]).unwrap(), w)
}

/// The loss `[1]` of a graph without parameters, from given inputs.
fn loss(
    device: &Device,
    inputs: &[(&[usize], Data)],
    record: impl Fn(&mut Graph, &[Tensor]) -> Tensor,
) -> f32 {
    let mut graph = Graph::new(&arena(device).0);
    let tensors: Vec<Tensor> = inputs
        .iter()
        .map(|(shape, data)| {
            let element = if matches!(data, Data::F32(_)) { Element::F32 } else { Element::U32 };
            graph.input("x", shape, element)
        })
        .collect();
    let loss = record(&mut graph, &tensors);
    graph.keep(loss);
    let mut plan = graph.forward().unwrap();
    for (tensor, (_, data)) in tensors.iter().zip(inputs) {
        plan.write(*tensor, data).unwrap();
    }
    plan.run(1).unwrap();
    plan.read(loss).unwrap().floats().unwrap()[0]
}

#[test]
fn an_offset_of_the_logits_changes_no_cross_entropy() {
    for device in devices() {
        for offset in [0.0, 1e4, 1e5, 1e7, 1e9, -1e9] {
            let inputs: [(&[usize], Data); 2] =
                [(&[1, 2], Data::F32(vec![offset; 2])), (&[1], Data::U32(vec![1]))];
            let loss = loss(&device, &inputs, |graph, x| graph.cross_entropy(x[0], x[1]).unwrap());
            assert!((loss - 2f32.ln()).abs() < 1e-6, "{} at {offset}: {loss}", device.name());
        }
    }
}

#[test]
fn means_over_many_rows_keep_their_digits() {
    for rows in [70_000, 1_100_000] {
        let inputs: [(&[usize], Data); 2] =
            [(&[rows, 2], Data::F32(vec![0.0; 2 * rows])), (&[rows], Data::U32(vec![0; rows]))];
        let loss =
            loss(&Device::cpu(), &inputs, |graph, x| graph.cross_entropy(x[0], x[1]).unwrap());
        assert!((loss - 2f32.ln()).abs() < 2e-6, "{rows} rows: {loss}");
    }
}

/// What w is after some steps on the loss factor² · Σ w · x for the same x.
fn trained(device: &Device, x: f32, factor: f32, training: &Training) -> Vec<f32> {
    let (arena, w) = arena(device);
    let mut graph = Graph::new(&arena);
    let input = graph.input("x", &[1, 4], Element::F32);
    let y = graph.linear(input, &w, None, Activation::Identity).unwrap();
    let loss = graph.sum(y);
    let loss = graph.scale(loss, factor);
    let loss = graph.scale(loss, factor);
    let mut plan = graph.train(loss, training).unwrap();
    plan.write(input, &Data::F32(vec![x; 4])).unwrap();
    plan.run(5).unwrap();
    arena.read(Flat::Parameters, 0).unwrap()[..4].to_vec()
}

fn adam(beta1: f64, beta2: f64) -> Optimizer {
    Optimizer::Adam { beta1, beta2, epsilon: 1e-8, weight_decay: 0.0, amsgrad: false }
}

#[test]
fn optimizers_stay_finite_where_pytorchs_do() {
    for device in devices() {
        for optimizer in [Optimizer::adam(), Optimizer::adamw()] {
            // The square of the gradient is past the largest number: torch.optim steps by nothing.
            let w = trained(&device, 1e22, 1.0, &Training::new(optimizer, 0.1));
            assert!(w.iter().all(|w| w.is_finite()), "{} {optimizer:?}: {w:?}", device.name());
        }
        let beta = adam(0.0, 0.0);
        let w = trained(&device, 2.0, 1.0, &Training::new(beta, 0.01));
        // The sign of the gradient, five times.
        assert!(w.iter().all(|w| (w - 0.45).abs() < 1e-5), "{}: {w:?}", device.name());
    }
}

#[test]
fn no_gradient_that_is_no_number_reaches_a_clipped_model() {
    for device in devices() {
        let training = Training::new(Optimizer::sgd(), 0.1).clip_norm(1e-3);
        // The gradient is 0 · ∞.
        let w = trained(&device, 0.0, 1e30, &training);
        assert_eq!(w, [0.5; 4], "{}", device.name());
    }
}

/// Two models whose loss is Σ y² − Σ y² of y = w · x, which is no number once y² is infinite, and
/// Σ y², by which w grows where x is large: its plan and its input.
fn diverging(device: &Device, training: &Training) -> (Plan, Tensor) {
    let mut parameters = Parameters::new();
    let w = parameters.add("layer.w", &[1, 4], Init::Constant(0.5)).unwrap();
    let arena = Arena::new(device, &parameters, &[1, 2]).unwrap();
    let mut graph = Graph::new(&arena);
    let x = graph.input("x", &[1, 4], Element::F32);
    let y = graph.linear(x, &w, None, Activation::Identity).unwrap();
    let square = graph.multiply(y, y).unwrap();
    let again = graph.multiply(y, y).unwrap();
    let nothing = graph.subtract(square, again).unwrap();
    let both = graph.add(square, nothing).unwrap();
    let loss = graph.sum(both);
    (graph.train(loss, training).unwrap(), x)
}

#[test]
fn a_model_that_meets_what_is_no_number_rests_as_it_was_and_the_tensor_has_a_name() {
    for device in devices() {
        for clip in [None, Some(f64::from(f32::MAX))] {
            let training = Training::new(Optimizer::sgd(), 0.125).clip_norm(clip);
            let (mut plan, x) = diverging(&device, &training);
            // The first model's w · x goes to 0, the second's grows by a million each step.
            let (small, large) = ([0.5f32; 4], [1e3f32; 4]);
            plan.write(x, &Data::F32([small, large].concat())).unwrap();
            let losses = plan.run(300).unwrap();
            let name = device.name();
            let step = losses.failed[1].unwrap();
            assert_eq!(losses.failed, [None, Some(step)], "{name}");
            assert!((3..6).contains(&step), "{name}: step {step}");
            assert_eq!(losses.by_replica[0].len(), 300, "{name}");
            assert!(losses.by_replica[0].iter().all(|loss| loss.is_finite()), "{name}");
            let (last, before) = losses.by_replica[1].split_last().unwrap();
            assert!(last.is_nan() && !before.iter().any(|loss| loss.is_nan()), "{name}");
            assert_eq!(before.len() as u32, step - 1, "{name}");
            let w = plan.arena().read(Flat::Parameters, 1).unwrap();
            assert!(w[..4].iter().all(|w| w.is_finite() && w.abs() > 1e9), "{name}: {w:?}");

            assert_eq!(plan.find_not_finite(0).unwrap(), None, "{name}");
            let found = plan.find_not_finite(1).unwrap().unwrap();
            assert_eq!(found.kernel.as_deref(), Some("pointwise/binary_forward"), "{name}");
            assert!(found.tensor.ends_with("[1, 1]") && found.value == f32::INFINITY, "{name}");
            assert!(plan.find_not_finite(2).is_err());

            // Once more from the start, in epochs.
            plan.rewind().unwrap();
            plan.arena().write(Flat::Parameters, 1, &plan.arena().parameters().initial(1)).unwrap();
            let error = Fit::new(2, 100).run(&mut plan, None, |_| true).unwrap_err();
            let Error::NotFinite { replica: 1, step: again, .. } = &error else {
                panic!("{name}: {error}");
            };
            assert_eq!(*again, step, "{name}");
            let text = error.to_string();
            assert!(text.contains("pointwise/binary_forward"), "{name}: {text}");
        }
    }
}

/// Halves of a layer whose input is beyond them, a factor on the loss of 1, and a batch that may go in
/// parts: the first tensor that isn't finite has a name still.
#[test]
fn a_scaled_loss_hides_no_tensor() {
    let scale = LossScale { initial: 1.0, ..LossScale::default() };
    let training = Training::new(Optimizer::sgd(), 0.1).loss_scale(scale);
    for (device, parts) in devices().iter().flat_map(|d| [(d, None), (d, Some(1))]) {
        let mut parameters = Parameters::new();
        let w = parameters.add("layer.w", &[4, 4], Init::Constant(0.5)).unwrap();
        let arena = Arena::new(device, &parameters, &[1]).unwrap();
        let mut graph = Graph::new(&arena);
        let x = graph.input("x", &[4, 4], Element::F32);
        let loss = |graph: &mut Graph| {
            let layer = |graph: &mut Graph| graph.linear(x, &w, None, Activation::Identity);
            let y = graph.in_precision(Precision::Half, layer)?;
            let y = graph.multiply(y, y)?;
            Ok(graph.sum(y))
        };
        let mut plan = match parts {
            None => {
                let loss = loss(&mut graph).unwrap();
                graph.train(loss, &training).unwrap()
            }
            Some(parts) => graph.train_in_parts(parts, &training, loss).unwrap(),
        };
        // The product's gradient, 2 · 60,000 a number, is infinite as a half.
        plan.write(x, &Data::F32(vec![3e4; 16])).unwrap();
        assert_eq!(plan.run(1).unwrap().failed, [Some(1)], "{}", device.name());
        let found = plan.find_not_finite(0).unwrap().unwrap();
        let kernel = found.kernel.as_deref();
        assert_eq!(kernel, Some("half/nt"), "{} {parts:?}: {found}", device.name());
    }
}

#[test]
fn a_parameter_that_is_not_finite_is_named() {
    for device in devices() {
        let (mut plan, x) = diverging(&device, &Training::new(Optimizer::sgd(), 0.1));
        plan.write(x, &Data::F32(vec![0.5; 8])).unwrap();
        let mut w = plan.arena().parameters().initial(1);
        w[2] = f32::NAN;
        // What a program of one's own wrote.
        if plan.arena().write(Flat::Parameters, 1, &w).is_err() {
            continue;
        }
        assert_eq!(plan.run(1).unwrap().failed, [None, Some(1)]);
        let found = plan.find_not_finite(1).unwrap().unwrap();
        assert_eq!((found.tensor.as_str(), found.at), ("parameter layer.w", 2));
    }
}

#[test]
fn rates_and_strengths_that_make_no_sense_are_refused_by_name() {
    let base = || Training::new(Optimizer::sgd(), 0.1);
    let rate = |rate| Training::new(Optimizer::sgd(), rate);
    let decay = |decay| base().schedule(Schedule { base: 0.1, warmup: 0, decay });
    let cases = [
        ("learning rate", rate(f64::NAN)),
        ("learning rate", rate(-1.0)),
        ("learning rate", rate(f64::INFINITY)),
        ("gamma", decay(Decay::Exponential { gamma: -1.0 })),
        ("gamma", decay(Decay::Step { gamma: f64::NAN, period: 3 })),
        ("floor", decay(Decay::Cosine { total: 5, floor: -0.1 })),
        ("proximal", base().proximal(f64::NAN)),
        ("proximal", base().proximal(-1.0)),
        ("clip_norm", base().clip_norm(0.0)),
        ("beta1", Training::new(adam(1.0, 0.9), 0.1)),
    ];
    for (name, training) in cases {
        let mut graph = Graph::new(&arena(&Device::cpu()).0);
        let loss = graph.constant(0.0, &[1]);
        let error = graph.train(loss, &training).err().unwrap();
        assert!(matches!(error, Error::Value { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(name) && text.len() < 120, "{name}: {text}");
    }
}

#[test]
fn gradients_of_norms_over_many_rows_are_whole() {
    let rows = 530_000;
    for device in devices() {
        let mut parameters = Parameters::new();
        let gamma = parameters.add("gamma", &[2], Init::Constant(1.0)).unwrap();
        let beta = parameters.add("beta", &[2], Init::Zeros).unwrap();
        let arena = Arena::new(&device, &parameters, &[1]).unwrap();
        let mut graph = Graph::new(&arena);
        let x = graph.input("x", &[rows, 2], Element::F32);
        let y = graph.layer_norm(x, &gamma, &beta, 1e-12).unwrap();
        let seed = graph.input("dy", &[rows, 2], Element::F32);
        let (mut plan, _) = graph.gradients(&[(y, seed)], &Trainable::All, &[]).unwrap();
        plan.write(x, &Data::F32([1.0, -1.0].repeat(rows))).unwrap();
        plan.write(seed, &Data::F32(vec![1.0; 2 * rows])).unwrap();
        plan.run(1).unwrap();
        let gradients = arena.read(Flat::Gradients, 0).unwrap();
        let sum = rows as f32;
        assert_eq!(gradients[gamma.offset..][..2], [sum, -sum], "{}", device.name());
        assert_eq!(gradients[beta.offset..][..2], [sum, sum], "{}", device.name());
    }
}

#[test]
fn words_past_the_classes_or_the_vocabulary_are_refused_by_name() {
    let device = Device::cpu();
    let mut parameters = Parameters::new();
    let table = parameters.add("table", &[5, 2], Init::Zeros).unwrap();
    let arena = Arena::new(&device, &parameters, &[1]).unwrap();

    // What a program writes: PyTorch's ignore index as a word, a class and a token too many.
    let mut graph = Graph::new(&arena);
    let targets = graph.input("targets", &[2, 2], Element::U32);
    let tokens = graph.input("tokens", &[4], Element::U32);
    let row = graph.reshape(targets, &[4]).unwrap();
    let logits = graph.embedding(tokens, &table).unwrap();
    let loss = graph.cross_entropy(logits, row).unwrap();
    graph.keep(loss);
    let mut plan = graph.forward().unwrap();
    let ignored = -100i32 as u32;
    for (tensor, words, name) in [
        (targets, [0, 1, ignored, ignored], "targets at 2 is 4294967196, expected below 2"),
        (targets, [0, 1, IGNORE, 2], "targets at 3 is 2, expected below 2"),
        (tokens, [0, 5, 7, IGNORE], "tokens at 1 is 5, expected below 5"),
    ] {
        let error = plan.write(tensor, &Data::U32(words.to_vec())).unwrap_err().to_string();
        assert!(error.starts_with(name), "{error}");
        assert!(error.contains("of 4 are not"), "{error}");
    }
    plan.write(targets, &Data::U32(vec![0, 1, IGNORE, 1])).unwrap();
    plan.write(tokens, &Data::U32(vec![0, 4, IGNORE, 1])).unwrap();
    plan.run(1).unwrap();

    // What a data set holds, against the model that is to be trained with it.
    let rows = RowData::upload(&device, &[1.0; 6], 2, &[0, 2, IGNORE], 3).unwrap();
    let mut graph = Graph::new(&arena);
    let (x, labels) = graph.row_batch(&rows, &Batching::in_order(2)).unwrap();
    let error = graph.cross_entropy(x, labels).unwrap_err().to_string();
    assert_eq!(error, "largest of the data set's labels is 2, expected below the 2 classes");
    let error = graph.accuracy(x, labels, 1).unwrap_err().to_string();
    assert!(error.contains("below the 2 classes"), "{error}");
    let text = TextData::upload(&device, &[[0u32, 5, 1, 2]], TextWindows::new(9, 3)).unwrap();
    for stream in [false, true] {
        let mut graph = Graph::new(&arena);
        let (inputs, _) = match stream {
            true => graph.stream_batch(&text, 1).unwrap(),
            false => graph.text_batch(&text, &Batching::in_order(1)).unwrap(),
        };
        let error = graph.embedding(inputs, &table).unwrap_err().to_string();
        assert!(error.contains("inputs is 5, expected below the 5 tokens"), "{error}");
    }
}

/// Small whole numbers, whose products and short sums are exact.
fn whole(n: usize, key: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 31 + key * 17) % 13) as f32 - 6.0).collect()
}

#[test]
fn products_and_sums_are_whole_past_a_grids_side() {
    // Rows of a layer; outputs of a layer and their bias; columns of a product.
    for (rows, inputs, outputs) in [(300_000, 4, 2), (3, 1, 600_000), (1, 2, 2_100_000)] {
        let mut parameters = Parameters::new();
        let w = parameters.add("w", &[outputs, inputs], Init::Zeros).unwrap();
        let b = parameters.add("b", &[outputs], Init::Zeros).unwrap();
        let (x, dy) = (whole(rows * inputs, 1), whole(rows * outputs, 2));
        let (weights, bias) = (whole(outputs * inputs, 3), whole(outputs, 4));
        for device in devices() {
            let arena = Arena::new(&device, &parameters, &[1]).unwrap();
            let mut flat = vec![0.0; parameters.words()];
            flat[w.offset..][..weights.len()].copy_from_slice(&weights);
            flat[b.offset..][..bias.len()].copy_from_slice(&bias);
            arena.write(Flat::Parameters, 0, &flat).unwrap();
            let mut graph = Graph::new(&arena);
            let input = graph.input("x", &[rows, inputs], Element::F32);
            let seed = graph.input("dy", &[rows, outputs], Element::F32);
            let y = graph.linear(input, &w, Some(&b), Activation::Identity).unwrap();
            graph.keep(y);
            let (mut plan, gradients) =
                graph.gradients(&[(y, seed)], &Trainable::All, &[input]).unwrap();
            plan.write(input, &Data::F32(x.clone())).unwrap();
            plan.write(seed, &Data::F32(dy.clone())).unwrap();
            plan.run(1).unwrap();

            let name = format!("{}, {rows} x {inputs} to {outputs}", device.name());
            let y = plan.read(y).unwrap().floats().unwrap();
            for (at, y) in y.iter().enumerate() {
                let (row, output) = (at / outputs, at % outputs);
                let terms = (0..inputs).map(|i| x[row * inputs + i] * weights[output * inputs + i]);
                assert_eq!(*y, bias[output] + terms.sum::<f32>(), "{name}: y {at}");
            }
            let flat = arena.read(Flat::Gradients, 0).unwrap();
            for output in 0..outputs {
                let sum = |factor: &dyn Fn(usize) -> f32| -> f64 {
                    let term = |row: usize| f64::from(factor(row) * dy[row * outputs + output]);
                    (0..rows).map(term).sum()
                };
                let found = f64::from(flat[b.offset + output]);
                assert_eq!(found, sum(&|_| 1.0), "{name}: bias {output}");
                for i in 0..inputs {
                    let found = f64::from(flat[w.offset + output * inputs + i]);
                    let expected = sum(&|row| x[row * inputs + i]);
                    assert_eq!(found, expected, "{name}: weight {output}, {i}");
                }
            }
            let dx = plan.read(gradients[0].unwrap()).unwrap().floats().unwrap();
            for (at, dx) in dx.iter().enumerate().filter(|_| rows > 3) {
                let (row, i) = (at / inputs, at % inputs);
                let terms = (0..outputs).map(|o| dy[row * outputs + o] * weights[o * inputs + i]);
                assert_eq!(*dx, terms.sum::<f32>(), "{name}: dx {at}");
            }
        }
    }
}
