use tern_shaders::Element;
use tern_shaders::kernels::lstm::gate_count;

use super::*;
use crate::ops::testing::{floats, gradient_check_with, run_cases, walks_agree};
use crate::{Arena, Data, Device, Flat, Init, Parameters, Trainable};

#[test]
fn cases_hold_on_every_device() {
    run_cases(&cases());
}

/// Layers to be tested.
#[derive(Clone, Copy)]
struct Layers {
    inputs: usize,
    hidden: usize,
    count: usize,
    cifg: bool,
    bidirectional: bool,
    projection: Option<usize>,
}

impl Layers {
    fn new([inputs, hidden]: [usize; 2], count: usize) -> Self {
        Layers { inputs, hidden, count, cifg: false, bidirectional: false, projection: None }
    }

    /// Floats that a step of a direction puts out.
    fn state(&self) -> usize {
        self.projection.unwrap_or(self.hidden)
    }

    fn weights(&self) -> (Parameters, Vec<LstmWeights>) {
        let mut parameters = Parameters::new();
        let (hidden, state) = (self.hidden, self.state());
        let rows = gate_count(self.cifg.into()) * hidden;
        let directions = if self.bidirectional { 2 } else { 1 };
        let weights = (0..self.count * directions)
            .map(|i| {
                let mut add = |name: &str, shape: &[usize]| {
                    let name = format!("{name}_l{i}");
                    parameters.add(&name, shape, Init::Uniform(0.6)).unwrap()
                };
                let inputs = if i < directions { self.inputs } else { directions * state };
                LstmWeights {
                    w_ih: add("weight_ih", &[rows, inputs]),
                    w_hh: add("weight_hh", &[rows, state]),
                    b_ih: add("bias_ih", &[rows]),
                    b_hh: add("bias_hh", &[rows]),
                    w_hr: self.projection.map(|outputs| add("weight_hr", &[outputs, hidden])),
                }
            })
            .collect();
        (parameters, weights)
    }

    fn options(&self, initial: Option<Vec<(Tensor, Tensor)>>) -> LstmOptions {
        let Layers { cifg, bidirectional, .. } = *self;
        LstmOptions { cifg, bidirectional, initial, dropout: 0.0 }
    }
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
    let plain = |count| Layers::new([2, 3], count);
    let projected = |count| Layers { projection: Some(2), ..plain(count) };
    for (layers, whole) in [
        (plain(1), true),
        (plain(2), false),
        (Layers { cifg: true, ..plain(1) }, false),
        (Layers { cifg: true, ..plain(2) }, true),
        (Layers { bidirectional: true, ..plain(2) }, true),
        (projected(2), true),
        (projected(1), false),
        (Layers { cifg: true, bidirectional: true, ..projected(2) }, true),
    ] {
        let (parameters, weights) = layers.weights();
        let (h, c) = ([2, layers.state()], [2, 3]);
        let mut shapes = vec![&[4, 2, 2][..]];
        shapes.extend(weights.iter().flat_map(|_| [&h[..], &c]));
        gradient_check_with(&parameters, &shapes, |graph, x| {
            let initial = x[1..].chunks(2).map(|s| (s[0], s[1])).collect();
            let options = layers.options(Some(initial));
            let output = graph.lstm_walking(x[0], &weights, &options, whole)?;
            everything(graph, &output)
        });
    }
}

#[test]
fn gradients_of_the_outputs_alone_start_from_a_zero_state() {
    for projection in [None, Some(2)] {
        let layers = Layers { projection, ..Layers::new([3, 4], 2) };
        let (parameters, weights) = layers.weights();
        gradient_check_with(&parameters, &[&[3, 2, 3]], |graph, x| {
            Ok(graph.lstm(x[0], &weights, &LstmOptions::default())?.y)
        });
    }
}

/// Outputs and gradients of layers on a device.
fn run(layers: &Layers, device: &Device, whole: bool) -> (Vec<f64>, Vec<f64>) {
    let (parameters, weights) = layers.weights();
    let arena = Arena::new(device, &parameters, &[3, 4]).unwrap();
    let mut graph = Graph::new(&arena);
    let x = graph.input("x", &[6, 3, 5], Element::F32);
    let output = graph.lstm_walking(x, &weights, &layers.options(None), whole).unwrap();
    graph.keep(output.y);
    let shape = graph.shape(output.y).to_vec();
    let seed = graph.input("dy", &shape, Element::F32);
    let (mut plan, _) = graph.gradients(&[(output.y, seed)], &Trainable::All, &[]).unwrap();
    if layers.projection.is_none() && !layers.bidirectional {
        // Load, store and a product each, and one dispatch a step and direction or one in all.
        let steps = if whole { 1 } else { 6 };
        assert!(plan.dispatches() <= 2 * (2 * steps + 3 + 5), "{} dispatches", plan.dispatches());
    }
    plan.write(x, &Data::F32(floats(2 * 6 * 3 * 5, 1.0, 1))).unwrap();
    let n = 2 * shape.iter().product::<usize>();
    plan.write(seed, &Data::F32(floats(n, 1.0, 2))).unwrap();
    plan.run(1).unwrap();
    let gradients = [0, 1].map(|r| arena.read_f64(Flat::Gradients, r).unwrap()).concat();
    (plan.read_f64(output.y).unwrap(), gradients)
}

#[test]
fn steps_sequences_and_devices_agree() {
    let plain = Layers::new([5, 12], 2);
    let both = Layers { bidirectional: true, ..plain };
    // Of an odd size, too, which is no multiple of what a vector holds.
    for layers in [plain, both, Layers { hidden: 13, projection: Some(7), ..both }] {
        walks_agree(|device, whole| run(&layers, device, whole));
    }
}

/// Gradients and outputs of a layer from given states, which the graph overwrites or not.
fn from_states(layers: &Layers, precision: Precision, carries: bool) -> Vec<f32> {
    let (parameters, weights) = layers.weights();
    let (batch, state, hidden) = (3, layers.state(), layers.hidden);
    let arena = Arena::new(&Device::cpu(), &parameters, &[1, 2]).unwrap();
    let mut g = Graph::new(&arena);
    let x = g.input("x", &[4, batch, layers.inputs], Element::F32);
    let given =
        [("h", state), ("c", hidden)].map(|(name, n)| g.input(name, &[batch, n], Element::F32));
    let options = layers.options(Some(vec![(given[0], given[1])]));
    let record = |g: &mut Graph| g.lstm(x, &weights, &options).unwrap();
    let output = g.in_precision(precision, record);
    if carries {
        g.copy_into(output.h[0], given[0]).unwrap();
        g.copy_into(output.c[0], given[1]).unwrap();
    }
    let ones = g.constant(1.0, &[4, batch, state]);
    g.keep(output.y);
    let (mut plan, _) = g.gradients(&[(output.y, ones)], &Trainable::All, &[]).unwrap();
    let inputs = [(x, 4 * layers.inputs), (given[0], state), (given[1], hidden)];
    for (key, (tensor, width)) in (1..).zip(inputs) {
        plan.write(tensor, &Data::F32(floats(2 * batch * width, 0.9, key))).unwrap();
    }
    plan.run(1).unwrap();
    let Data::F32(mut all) = plan.read(output.y).unwrap() else { unreachable!("floats") };
    (0..2).for_each(|r| all.extend(arena.read(Flat::Gradients, r).unwrap()));
    all
}

#[test]
fn states_may_be_overwritten_before_the_backward_pass() {
    for projection in [None, Some(4)] {
        let layers = Layers { projection, ..Layers::new([4, 8], 1) };
        let [kept, overwritten] =
            [false, true].map(|carries| from_states(&layers, Precision::Single, carries));
        assert!(kept == overwritten, "{projection:?}");
    }
}

#[test]
fn a_projection_is_in_single_precision_as_the_recurrence() {
    let layers = Layers { projection: Some(4), ..Layers::new([4, 8], 1) };
    let [single, half] =
        [Precision::Single, Precision::Half].map(|precision| from_states(&layers, precision, true));
    assert!(single == half);
}

/// One step multiplies zeros by the product of both matrices, which isn't made.
#[test]
fn steps_one_by_one_are_those_of_a_sequence() {
    let layers = Layers { projection: Some(3), ..Layers::new([2, 5], 1) };
    let (parameters, weights) = layers.weights();
    let arena = Arena::new(&Device::reference(), &parameters, &[1]).unwrap();
    let of = |steps: std::ops::Range<usize>, states: [Vec<f32>; 2]| {
        let mut g = Graph::new(&arena);
        let x = g.input("x", &[steps.len(), 2, 2], Element::F32);
        let given = [3, 5].map(|n| g.input("state", &[2, n], Element::F32));
        let options = layers.options(Some(vec![(given[0], given[1])]));
        let output = g.lstm(x, &weights, &options).unwrap();
        let outputs = [output.y, output.h[0], output.c[0]];
        for tensor in outputs {
            g.keep(tensor);
        }
        let products = g.calls.iter().filter(|call| call.label.contains("matmul/nn")).count();
        assert_eq!(products, usize::from(steps.len() > 1));
        let mut plan = g.forward().unwrap();
        let all = floats(5 * 4, 0.8, 3);
        plan.write(x, &Data::F32(all[4 * steps.start..4 * steps.end].to_vec())).unwrap();
        for (tensor, state) in given.iter().zip(states) {
            plan.write(*tensor, &Data::F32(state)).unwrap();
        }
        plan.run(1).unwrap();
        outputs.map(|t| match plan.read(t).unwrap() {
            Data::F32(x) => x,
            Data::U32(_) => unreachable!("floats"),
        })
    };
    let start = [vec![0.3; 6], vec![-0.2; 10]];
    let [expected, ..] = of(0..5, start.clone());
    let (mut states, mut found) = (start, Vec::new());
    for t in 0..5 {
        let [y, h, c] = of(t..t + 1, states);
        found.extend(y);
        states = [h, c];
    }
    let near = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-6;
    assert!(found.len() == expected.len() && found.iter().zip(&expected).all(near));
}

#[test]
fn shapes_that_do_not_fit_are_named() {
    let (parameters, weights) = Layers::new([2, 3], 1).weights();
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
    let both = LstmOptions { bidirectional: true, ..plain.clone() };
    assert!(message(fit, &both).contains("1 weights, expected two directions of each layer"));

    let layers = Layers { projection: Some(2), ..Layers::new([2, 3], 1) };
    let (parameters, mut weights) = layers.weights();
    let arena = Arena::new(&Device::reference(), &parameters, &[0]).unwrap();
    let mut graph = Graph::new(&arena);
    let x = graph.input("x", &[4, 2, 2], Element::F32);
    let [h, c] = [[2, 2], [2, 3]].map(|shape| graph.input("state", &shape, Element::F32));
    let mut message = |weights: &[LstmWeights], states| {
        graph.lstm(x, weights, &layers.options(Some(states))).map(|_| ()).map_err(|e| e.to_string())
    };
    assert_eq!(message(&weights, vec![(h, c)]), Ok(()));
    let told = message(&weights, vec![(c, c)]).unwrap_err();
    assert!(told.contains("initial state [2, 3], expected [2, 2]"), "{told}");
    let told = message(&weights, vec![(h, h)]).unwrap_err();
    assert!(told.contains("initial state [2, 2], expected [2, 3]"), "{told}");
    weights[0].w_hr = Some(weights[0].w_hh.clone());
    let told = message(&weights, vec![(h, c)]).unwrap_err();
    assert!(told.contains("weight_hh_l0 [12, 2], expected [2, 3]"), "{told}");
}
