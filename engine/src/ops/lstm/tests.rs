use tern_shaders::Element;
use tern_shaders::kernels::lstm::gate_count;

use super::*;
use crate::ops::testing::{floats, gradient_check_with, run_cases, walks_agree};
use crate::{Arena, Data, Device, Flat, Init, Parameters, Trainable};

#[test]
fn cases_hold_on_every_device() {
    run_cases(&cases());
}

/// Layers of hidden size `hidden`.
fn layers(
    inputs: usize,
    hidden: usize,
    count: usize,
    cifg: bool,
) -> (Parameters, Vec<LstmWeights>) {
    let mut parameters = Parameters::new();
    let rows = gate_count(cifg.into()) * hidden;
    let weights = (0..count)
        .map(|layer| {
            let mut add = |name: &str, shape: &[usize]| {
                parameters.add(&format!("{name}_l{layer}"), shape, Init::Uniform(0.6)).unwrap()
            };
            LstmWeights {
                w_ih: add("weight_ih", &[rows, if layer == 0 { inputs } else { hidden }]),
                w_hh: add("weight_hh", &[rows, hidden]),
                b_ih: add("bias_ih", &[rows]),
                b_hh: add("bias_hh", &[rows]),
            }
        })
        .collect();
    (parameters, weights)
}

/// Outputs and final states in one tensor, so that all of them have upstream gradients.
fn everything(graph: &mut Graph, output: &LstmOutput) -> Result<Tensor> {
    let mut flat = Vec::new();
    for tensor in [&[output.y][..], &output.h, &output.c].concat() {
        let n = graph.len(tensor);
        flat.push(graph.reshape(tensor, &[n])?);
    }
    let mut all = flat[0];
    for next in &flat[1..] {
        all = graph.concat(&[all, *next], 0)?;
    }
    Ok(all)
}

#[test]
fn gradients_match_finite_differences() {
    for (cifg, count, whole) in
        [(false, 1, true), (false, 2, false), (true, 1, false), (true, 2, true)]
    {
        let (parameters, weights) = layers(2, 3, count, cifg);
        let state: &[usize] = &[2, 3];
        let mut shapes = vec![&[4, 2, 2][..]];
        shapes.extend(vec![state; 2 * count]);
        gradient_check_with(&parameters, &shapes, |graph, x| {
            let initial = x[1..].chunks(2).map(|s| (s[0], s[1])).collect();
            let options = LstmOptions { cifg, initial: Some(initial), dropout: 0.0 };
            let output = graph.lstm_walking(x[0], &weights, &options, whole)?;
            everything(graph, &output)
        });
    }
}

#[test]
fn gradients_of_the_outputs_alone_start_from_a_zero_state() {
    let (parameters, weights) = layers(3, 4, 2, false);
    gradient_check_with(&parameters, &[&[3, 2, 3]], |graph, x| {
        Ok(graph.lstm(x[0], &weights, &LstmOptions::default())?.y)
    });
}

/// Outputs and gradients of two layers on a device.
fn run(device: &Device, whole: bool) -> (Vec<f64>, Vec<f64>) {
    let (parameters, weights) = layers(5, 12, 2, false);
    let arena = Arena::new(device, &parameters, &[3, 4]).unwrap();
    let mut graph = Graph::new(&arena);
    let x = graph.input("x", &[6, 3, 5], Element::F32);
    let output = graph.lstm_walking(x, &weights, &LstmOptions::default(), whole).unwrap();
    graph.keep(output.y);
    let seed = graph.input("dy", &[6, 3, 12], Element::F32);
    let (mut plan, _) = graph.gradients(&[(output.y, seed)], &Trainable::All, &[]).unwrap();
    // Load, store and a product each, and one dispatch a step and direction or one in all.
    let steps = if whole { 1 } else { 6 };
    assert!(plan.dispatches() <= 2 * (2 * steps + 3 + 5), "{} dispatches", plan.dispatches());
    plan.write(x, &Data::F32(floats(2 * 6 * 3 * 5, 1.0, 1))).unwrap();
    plan.write(seed, &Data::F32(floats(2 * 6 * 3 * 12, 1.0, 2))).unwrap();
    plan.run(1).unwrap();
    let gradients = [0, 1].map(|r| arena.read_f64(Flat::Gradients, r).unwrap()).concat();
    (plan.read_f64(output.y).unwrap(), gradients)
}

#[test]
fn steps_sequences_and_devices_agree() {
    walks_agree(run);
}

#[test]
fn shapes_that_do_not_fit_are_named() {
    let (parameters, weights) = layers(2, 3, 1, false);
    let arena = Arena::new(&Device::reference(), &parameters, &[0]).unwrap();
    let mut graph = Graph::new(&arena);
    let x = graph.input("x", &[4, 2, 5], Element::F32);
    let flat = graph.input("x", &[4, 2], Element::F32);
    let state = graph.input("h", &[1, 3], Element::F32);
    let fit = graph.input("x", &[4, 2, 2], Element::F32);
    let plain = LstmOptions::default();
    let mut message =
        |x, options: &LstmOptions| graph.lstm(x, &weights, options).unwrap_err().to_string();
    assert!(message(x, &plain).contains("weight_ih_l0 [12, 2], expected [12, 5]"));
    assert!(message(flat, &plain).contains("expected [T, B, I]"));
    let coupled = LstmOptions { cifg: true, ..plain.clone() };
    assert!(message(fit, &coupled).contains("expected [9, 2]"));
    let initial = |states| LstmOptions { initial: Some(states), ..plain.clone() };
    assert!(message(fit, &initial(vec![(state, state)])).contains("initial state [1, 3]"));
    assert!(message(fit, &initial(vec![])).contains("0 initial states for 1 layers"));
}
