//! Gradients from seeds that a caller gives, on outputs of any place, once and several times.
#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

mod common;

use common::devices;
use tern_engine::{Arena, Data, Device, Element, Graph, Init, Parameters, Tensor, Trainable};

/// y = W · x and z = 10 · y of ones, and what dW is in each of three runs of one plan.
fn gradients(device: &Device, seeds: impl Fn(&mut Graph, [Tensor; 2]) -> Vec<(Tensor, Tensor)>) {
    let mut parameters = Parameters::new();
    let w = parameters.add("w", &[1, 1], Init::Constant(3.0)).unwrap();
    let arena = Arena::new(device, &parameters, &[1]).unwrap();
    let mut graph = Graph::new(&arena);
    let x = graph.input("x", &[1, 1], Element::F32);
    let y = graph.linear(x, &w, None, tern_engine::Activation::Identity).unwrap();
    let z = graph.scale(y, 10.0);
    let seeds = seeds(&mut graph, [y, z]);
    let (mut plan, found) = graph.gradients(&seeds, &Trainable::All, &[x]).unwrap();
    let dx = found[0].unwrap();
    plan.write(x, &Data::F32(vec![1.0])).unwrap();
    for (_, seed) in &seeds {
        // Constants are as they are.
        let _ = plan.write(*seed, &Data::F32(vec![1.0]));
    }
    for _ in 0..3 {
        plan.run(1).unwrap();
        let dw = arena.read(tern_engine::Flat::Gradients, 0).unwrap();
        assert_eq!(dw[0], 11.0, "{}", device.name());
        assert_eq!(plan.read(dx).unwrap().floats().unwrap(), [33.0], "{}", device.name());
    }
}

#[test]
fn a_seed_of_an_inner_output_is_the_same_in_every_run() {
    for device in devices().into_iter().chain([Device::reference_f64()]) {
        gradients(&device, |graph, outputs| {
            outputs.map(|output| (output, graph.input("seed", &[1, 1], Element::F32))).into()
        });
    }
}

#[test]
fn one_tensor_can_be_the_seed_of_two_outputs() {
    for device in devices() {
        gradients(&device, |graph, [y, z]| {
            let one = graph.constant(1.0, &[1, 1]);
            vec![(y, one), (z, one)]
        });
    }
}

#[test]
fn seeds_of_one_output_are_added_up() {
    for device in devices() {
        gradients(&device, |graph, [y, _]| {
            let (one, five) = (graph.constant(1.0, &[1, 1]), graph.constant(5.0, &[1, 1]));
            // 1 + 5 + 5 for y, in whatever order.
            vec![(y, five), (y, one), (y, five)]
        });
    }
}
