//! What PyTorch computes in single ops, as `golden.rs` holds layers and training steps against it.
#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

mod common;

use common::fixture::{Fixture, all_devices, close};
use tern_engine::nn::{Conv2d, Conv2dConfig, ConvTranspose2d};
use tern_engine::ops::convolution::{Placement, Window};
use tern_engine::ops::loss::{CrossEntropy, Reduction};
use tern_engine::{
    Activation, Arena, Data, Element, Flat, Graph, Init, Parameters, Result, Tensor, Trainable,
};

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

/// What a layer's parameters make of its input.
type Recorded = Box<dyn Fn(&mut Graph, Tensor) -> Result<Tensor>>;

fn convolution(name: &str, parameters: &mut Parameters) -> (Vec<usize>, Recorded) {
    let (shape, config) = match name {
        "dilated" => {
            let config =
                Conv2dConfig::new(4, [3, 2]).stride([1, 2]).padding([2, 1]).dilation([2, 1]);
            (vec![2, 3, 9, 6], config)
        }
        "grouped" => (vec![2, 4, 5, 7], Conv2dConfig::new(6, 3).padding(1).groups(2)),
        "depthwise" => {
            (vec![2, 4, 6, 7], Conv2dConfig::new(8, [2, 3]).stride(2).padding(1).groups(4))
        }
        "transposed" => {
            let config = Conv2dConfig::new(3, [3, 2]).stride([2, 3]).padding([1, 0]);
            (vec![2, 4, 4, 3], config.output_padding([1, 2]))
        }
        "spread" => {
            let config = Conv2dConfig::new(6, 3).stride(2).padding(1).dilation(2).groups(2);
            (vec![2, 4, 3, 5], config)
        }
        _ => {
            let init = Init::Zeros;
            let weight = parameters.add("line.weight", &[6, 2, 3], init).unwrap();
            let bias = parameters.add("line.bias", &[6], init).unwrap();
            let placement = Placement::from(Window::line(2, 2)).dilation([1, 2]).groups(2);
            let record =
                move |graph: &mut Graph, x| graph.conv1d(x, &weight, Some(&bias), placement);
            return (vec![2, 4, 11], Box::new(record));
        }
    };
    let record: Recorded = match name {
        "transposed" | "spread" => {
            let layer = ConvTranspose2d::new(parameters, name, shape[1], config).unwrap();
            Box::new(move |graph, x| layer.forward(graph, x))
        }
        _ => {
            let layer = Conv2d::new(parameters, name, shape[1], config).unwrap();
            Box::new(move |graph, x| layer.forward(graph, x))
        }
    };
    (shape, record)
}

#[test]
fn convolutions_as_their_filters_lie() {
    let fixture = Fixture::open("convolutions");
    for device in all_devices() {
        for name in ["dilated", "grouped", "depthwise", "line", "transposed", "spread"] {
            let mut parameters = Parameters::new();
            let (shape, record) = convolution(name, &mut parameters);
            let arena = Arena::new(&device, &parameters, &[1]).unwrap();
            arena.write(Flat::Parameters, 0, &fixture.flat(&parameters)).unwrap();
            let mut graph = Graph::new(&arena);
            let x = graph.input("x", &shape, Element::F32);
            let y = record(&mut graph, x).unwrap();
            graph.keep(y);
            let shape = graph.shape(y).to_vec();
            let seed = graph.input("ky", &shape, Element::F32);
            let (mut plan, gradients) =
                graph.gradients(&[(y, seed)], &Trainable::All, &[x]).unwrap();
            let of = |key: &str| format!("{name}.{key}");
            plan.write(x, &Data::F32(fixture.f32(&of("x")))).unwrap();
            plan.write(seed, &Data::F32(fixture.f32(&of("ky")))).unwrap();
            plan.run(1).unwrap();
            let found = plan.read_f64(y).unwrap();
            close(name, &device, &found, &fixture.f64(&of("y")), 2e-6);
            let slopes = plan.read_f64(gradients[0].unwrap()).unwrap();
            let what = format!("input's gradient of {name}");
            close(&what, &device, &slopes, &fixture.f64(&of("grad.x")), 2e-6);
            let found = arena.read_f64(Flat::Gradients, 0).unwrap();
            fixture.close_flat(("grad", &parameters), &device, &found, 5e-6);
        }
    }
}
