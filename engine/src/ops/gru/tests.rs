use tern_shaders::Element;
use tern_shaders::kernels::gru::GATES;

use super::*;
use crate::ops::testing::{floats, gradient_check_with, run_cases, walks_agree};
use crate::{Arena, Data, Device, Flat, Init, Parameters, Trainable};

#[test]
fn cases_hold_on_every_device() {
    run_cases(&cases());
}

/// `count` layers of hidden size `hidden`, of one direction or two.
fn layers(
    [inputs, hidden]: [usize; 2],
    count: usize,
    directions: usize,
) -> (Parameters, Vec<GruWeights>) {
    let mut parameters = Parameters::new();
    let rows = GATES * hidden;
    let weights = (0..count * directions)
        .map(|i| {
            let mut add = |name: &str, shape: &[usize]| {
                parameters.add(&format!("{name}_l{i}"), shape, Init::Uniform(0.6)).unwrap()
            };
            let inputs = if i < directions { inputs } else { directions * hidden };
            GruWeights {
                w_ih: add("weight_ih", &[rows, inputs]),
                w_hh: add("weight_hh", &[rows, hidden]),
                b_ih: add("bias_ih", &[rows]),
                b_hh: add("bias_hh", &[rows]),
            }
        })
        .collect();
    (parameters, weights)
}

#[test]
fn gradients_match_finite_differences() {
    for (count, directions, whole) in [(1, 1, true), (2, 1, false), (2, 1, true), (2, 2, true)] {
        let (parameters, weights) = layers([2, 3], count, directions);
        let mut shapes = vec![&[4, 2, 2][..]];
        shapes.extend(vec![&[2, 3][..]; count * directions]);
        gradient_check_with(&parameters, &shapes, |graph, x| {
            let (initial, bidirectional) = (Some(x[1..].to_vec()), directions == 2);
            let options = GruOptions { initial, dropout: 0.0, bidirectional };
            let output = graph.gru_walking(x[0], &weights, &options, whole)?;
            // Outputs and final states in one tensor, so that all have upstream gradients.
            let n = graph.len(output.y);
            let mut all = graph.reshape(output.y, &[n])?;
            for h in output.h {
                let h = graph.reshape(h, &[6])?;
                all = graph.concat(&[all, h], 0)?;
            }
            Ok(all)
        });
    }
}

#[test]
fn gradients_of_the_last_state_alone_start_from_a_zero_state() {
    let (parameters, weights) = layers([3, 4], 2, 1);
    gradient_check_with(&parameters, &[&[3, 2, 3]], |graph, x| {
        Ok(graph.gru(x[0], &weights, &GruOptions::default())?.h[1])
    });
}

/// Outputs and gradients of two layers on a device.
fn run(directions: usize, device: &Device, whole: bool) -> (Vec<f64>, Vec<f64>) {
    let (parameters, weights) = layers([5, 12], 2, directions);
    let arena = Arena::new(device, &parameters, &[3, 4]).unwrap();
    let mut graph = Graph::new(&arena);
    let x = graph.input("x", &[6, 3, 5], Element::F32);
    let options = GruOptions { bidirectional: directions == 2, ..GruOptions::default() };
    let output = graph.gru_walking(x, &weights, &options, whole).unwrap();
    graph.keep(output.y);
    let seed = graph.input("dy", &[6, 3, 12 * directions], Element::F32);
    let (mut plan, _) = graph.gradients(&[(output.y, seed)], &Trainable::All, &[]).unwrap();
    // Of a layer a product, a fill and a copy forward, a fill, three products and two sums backward, one
    // dispatch a step forward and backward or one in all, and what turns a direction around.
    let steps = if whole { 1 } else { 6 };
    let around = if directions == 2 { 8 } else { 0 };
    let most = 2 * directions * (2 * steps + 3 + 6) + 2 * around;
    assert!(plan.dispatches() <= most, "{} dispatches", plan.dispatches());
    plan.write(x, &Data::F32(floats(2 * 6 * 3 * 5, 1.0, 1))).unwrap();
    plan.write(seed, &Data::F32(floats(2 * 6 * 3 * 12 * directions, 1.0, 2))).unwrap();
    plan.run(1).unwrap();
    let gradients = [0, 1].map(|r| arena.read_f64(Flat::Gradients, r).unwrap()).concat();
    (plan.read_f64(output.y).unwrap(), gradients)
}

#[test]
fn steps_sequences_and_devices_agree() {
    for directions in [1, 2] {
        walks_agree(|device, whole| run(directions, device, whole));
    }
}

#[test]
fn shapes_that_do_not_fit_are_named() {
    let (parameters, weights) = layers([2, 3], 1, 1);
    let arena = Arena::new(&Device::reference(), &parameters, &[0]).unwrap();
    let mut graph = Graph::new(&arena);
    let x = graph.input("x", &[4, 2, 5], Element::F32);
    let flat = graph.input("x", &[4, 2], Element::F32);
    let state = graph.input("h", &[1, 3], Element::F32);
    let fit = graph.input("x", &[4, 2, 2], Element::F32);
    let plain = GruOptions::default();
    let mut message =
        |x, options: &GruOptions| graph.gru(x, &weights, options).unwrap_err().to_string();
    assert!(message(x, &plain).contains("weight_ih_l0 [9, 2], expected [9, 5]"));
    assert!(message(flat, &plain).contains("expected [T, B, I]"));
    let initial = |states| GruOptions { initial: Some(states), ..plain.clone() };
    assert!(message(fit, &initial(vec![state])).contains("initial state [1, 3]"));
    assert!(message(fit, &initial(vec![])).contains("0 initial states for 1 layers"));
}
