//! What PyTorch computes in single ops, as `golden.rs` holds layers and training steps against it.
#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

mod common;

use common::fixture::{Fixture, all_devices, close};
use tern_engine::ops::loss::{CrossEntropy, Reduction};
use tern_engine::{Activation, Arena, Data, Element, Graph, Init, Parameters, Trainable};

#[test]
fn activations_and_their_slopes() {
    let fixture = Fixture::open("activations");
    let x = fixture.f32("x");
    for device in all_devices() {
        let mut parameters = Parameters::new();
        parameters.add("unused", &[1], Init::Zeros).unwrap();
        let arena = Arena::new(&device, &parameters, &[1]).unwrap();
        for kind in Activation::ALL {
            let mut graph = Graph::new(&arena);
            let input = graph.input("x", &[x.len()], Element::F32);
            let output = graph.activation(input, kind);
            graph.keep(output);
            let seed = graph.input("dy", &[x.len()], Element::F32);
            let (mut plan, gradients) =
                graph.gradients(&[(output, seed)], &Trainable::All, &[input]).unwrap();
            plan.write(input, &Data::F32(x.clone())).unwrap();
            plan.write(seed, &Data::F32(vec![1.0; x.len()])).unwrap();
            plan.run(1).unwrap();
            let name = kind.name();
            let found = plan.read_f64(output).unwrap();
            close(name, &device, &found, &fixture.f64(&format!("{name}.y")), 1e-6);
            let slopes = plan.read_f64(gradients[0].unwrap()).unwrap();
            let expected = fixture.f64(&format!("{name}.slope"));
            close(&format!("slope of {name}"), &device, &slopes, &expected, 1e-6);
        }
    }
}

#[test]
fn cross_entropies_with_their_options() {
    let fixture = Fixture::open("cross_entropy");
    let (logits, target) = (fixture.f32("logits"), fixture.u32("target"));
    let weights = fixture.f32("weights");
    let classes = weights.len();
    for device in all_devices() {
        let mut parameters = Parameters::new();
        parameters.add("unused", &[1], Init::Zeros).unwrap();
        let arena = Arena::new(&device, &parameters, &[1]).unwrap();
        for (weighted, smoothing, sum) in
            (0..8).map(|i| (i & 1 != 0, [0.0, 0.125][i >> 1 & 1], i & 4 != 0))
        {
            let mut graph = Graph::new(&arena);
            let x = graph.input("logits", &[target.len(), classes], Element::F32);
            let t = graph.input("target", &[target.len()], Element::U32);
            let w = graph.input("weights", &[classes], Element::F32);
            let reduction = if sum { Reduction::Sum } else { Reduction::Mean };
            let options = CrossEntropy::new()
                .class_weights(weighted.then_some(w))
                .label_smoothing(smoothing)
                .reduction(reduction);
            let loss = graph.cross_entropy_with(x, t, &options).unwrap();
            graph.keep(loss);
            let seed = graph.input("dloss", &[1], Element::F32);
            let (mut plan, gradients) =
                graph.gradients(&[(loss, seed)], &Trainable::All, &[x]).unwrap();
            plan.write(x, &Data::F32(logits.clone())).unwrap();
            plan.write(t, &Data::U32(target.clone())).unwrap();
            plan.write(w, &Data::F32(weights.clone())).unwrap();
            plan.write(seed, &Data::F32(vec![1.0])).unwrap();
            plan.run(1).unwrap();
            let name = format!(
                "{}.{}.{}",
                if weighted { "weighted" } else { "plain" },
                if smoothing == 0.0 { "hard" } else { "smooth" },
                if sum { "sum" } else { "mean" },
            );
            let found = plan.read_f64(loss).unwrap();
            close(&name, &device, &found, &fixture.f64(&format!("{name}.loss")), 1e-6);
            let slopes = plan.read_f64(gradients[0].unwrap()).unwrap();
            let expected = fixture.f64(&format!("{name}.gradient"));
            close(&format!("gradient of {name}"), &device, &slopes, &expected, 1e-6);
        }
    }
}
