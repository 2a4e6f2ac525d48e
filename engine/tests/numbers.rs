//! Values that lost their digits or their meaning on some device: large and many numbers, and what
//! is none.
#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

mod common;

use common::devices;
use tern_engine::{
    Activation, Arena, Data, Device, Element, Error, Flat, Graph, Init, Optimizer, Param,
    Parameters, Tensor, Trainable, Training,
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

#[test]
fn optimizers_stay_finite_where_pytorchs_do() {
    for device in devices() {
        for optimizer in [Optimizer::adam(), Optimizer::adamw()] {
            // The square of the gradient is past the largest number: torch.optim steps by nothing.
            let w = trained(&device, 1e22, 1.0, &Training::new(optimizer, 0.1));
            assert!(w.iter().all(|w| w.is_finite()), "{} {optimizer:?}: {w:?}", device.name());
        }
        let beta = Optimizer::Adam { beta1: 0.0, beta2: 0.0, epsilon: 1e-8, weight_decay: 0.0 };
        let w = trained(&device, 2.0, 1.0, &Training::new(beta, 0.01));
        // The sign of the gradient, five times.
        assert!(w.iter().all(|w| (w - 0.45).abs() < 1e-5), "{}: {w:?}", device.name());
    }
}

#[test]
fn clipping_does_not_hide_a_gradient_that_is_no_number() {
    for device in devices() {
        let training = Training::new(Optimizer::sgd(), 0.1).clip_norm(1e-3);
        // The gradient is 0 · ∞.
        let w = trained(&device, 0.0, 1e30, &training);
        assert!(w.iter().all(|w| w.is_nan()), "{}: {w:?}", device.name());
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
        (
            "beta1",
            Training::new(
                Optimizer::Adam { beta1: 1.0, beta2: 0.9, epsilon: 1e-8, weight_decay: 0.0 },
                0.1,
            ),
        ),
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
