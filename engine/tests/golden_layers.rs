//! GRU layers, as PyTorch computes them; see fixtures/README.md.
#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

mod common;

use common::fixture::{Fixture, all_devices, close};
use tern_engine::ops::gru::{GruOptions, GruWeights};
use tern_engine::{Arena, Data, Element, Flat, Graph, Init, Parameters, Tensor, Trainable};

fn gru(name: &str, layers: usize) {
    let fixture = Fixture::open(name);
    for device in all_devices() {
        let tolerance = if device.name().starts_with("Reference") { 1e-10 } else { 1e-5 };
        let mut parameters = Parameters::new();
        let weights: Vec<GruWeights> = (0..layers)
            .map(|layer| {
                let mut add = |part: &str, shape: &[usize]| {
                    parameters.add(&format!("gru.{part}_l{layer}"), shape, Init::Zeros).unwrap()
                };
                GruWeights {
                    w_ih: add("weight_ih", &[18, if layer == 0 { 5 } else { 6 }]),
                    w_hh: add("weight_hh", &[18, 6]),
                    b_ih: add("bias_ih", &[18]),
                    b_hh: add("bias_hh", &[18]),
                }
            })
            .collect();
        let arena = Arena::new(&device, &parameters, &[1]).unwrap();
        let mut flat = vec![0.0; parameters.words()];
        for p in parameters.iter() {
            flat[p.offset..][..p.len()].copy_from_slice(&fixture.f32(&p.name));
        }
        arena.write(Flat::Parameters, 0, &flat).unwrap();

        let mut graph = Graph::new(&arena);
        let x = graph.input("x", &[7, 3, 5], Element::F32);
        let initial: Vec<Tensor> =
            (0..layers).map(|_| graph.input("h0", &[3, 6], Element::F32)).collect();
        let options = GruOptions { initial: Some(initial.clone()), dropout: 0.0 };
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
        for p in parameters.iter() {
            let name = format!("grad.{}", p.name);
            let found = &flat[p.offset..][..p.len()];
            close(&name, &device, found, &fixture.f64(&name), tolerance);
        }
    }
}

#[test]
fn gru_of_one_layer() {
    gru("gru_1", 1);
}

#[test]
fn gru_of_two_layers() {
    gru("gru_2", 2);
}
