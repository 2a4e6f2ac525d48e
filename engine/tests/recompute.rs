//! Activation checkpointing: what is recomputed changes memory, and not a bit of what is computed.
#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

mod common;

use common::{devices, floats, tokens};
use tern_engine::nn::{Input, LayerSpec, Mode, Model, ModelSpec};
use tern_engine::ops::normalize::groups::BatchNormWeights;
use tern_engine::{
    Activation, Arena, Batching, Data, Device, Element, Flat, Graph, Init, LossScale, Operand,
    Optimizer, Param, Parameters, Plan, Result, RowData, Tensor, TextData, TextWindows, Training,
};
use tern_shaders::kernels::pointwise::{COPY, Copy, SCALE, Scale};
use tern_shaders::kernels::random::pcg4d;
use tern_shaders::{AnyKernel, Kernel};

/// What some steps leave: losses and all parameters of all replicas, bit by bit.
fn bits(arena: &Arena, plan: &mut Plan, steps: usize) -> Vec<u32> {
    let losses = plan.run(steps).unwrap();
    let mut bits: Vec<u32> = losses.by_replica.iter().flatten().map(|x| x.to_bits()).collect();
    assert!(losses.last().unwrap().is_finite(), "{losses:?}");
    for replica in 0..arena.replicas() {
        let flat = arena.read(Flat::Parameters, replica).unwrap();
        bits.extend(flat.into_iter().map(f32::to_bits));
    }
    bits
}

/// Trains a model as it is and with its blocks recomputed; gives the bytes of activations of both.
fn of_model(
    device: &Device,
    spec: &ModelSpec,
    seeds: &[u32],
    record: impl Fn(&mut Graph, &Model) -> Result<Tensor>,
) -> [u64; 2] {
    let (parameters, model) = spec.build().unwrap();
    let training = Training::new(Optimizer::adam(), 0.01).clip_norm(1.0);
    let run = |recompute: bool| {
        let arena = Arena::new(device, &parameters, seeds).unwrap();
        let mut graph = Graph::new(&arena);
        let loss = record(&mut graph, &model.clone().recomputing(recompute)).unwrap();
        let mut plan = graph.train(loss, &training).unwrap();
        (bits(&arena, &mut plan, 3), plan.memory().activations)
    };
    let (expected, all) = run(false);
    let (found, less) = run(true);
    assert!(found == expected, "{}", device.name());
    [all, less]
}

#[test]
fn blocks_of_a_decoder_take_the_memory_of_one() {
    let spec = |layers| {
        let config = tern_engine::nn::DecoderConfig::new(layers, 4, 8, 64).key_value_heads(2);
        ModelSpec::decoder(17, 32, config, true)
    };
    for device in devices() {
        let text = TextData::upload(&device, &[tokens(900, 17, 1)], TextWindows::new(17, 24));
        let text = text.unwrap();
        let train = |layers, seeds: &[u32]| {
            of_model(&device, &spec(layers), seeds, |graph, model| {
                let (inputs, targets) = graph.text_batch(&text, &Batching::shuffled(4))?;
                let logits = model.forward(graph, inputs, Mode::Train)?.output;
                graph.cross_entropy(logits, targets)
            })
        };
        let [all, less] = train(8, &[3]);
        assert!(3 * less < all, "{}: {less} of {all} bytes", device.name());
        // Of each block more what came in alone: positions × batch × dimension.
        let [_, of_twelve] = train(12, &[3]);
        assert_eq!(of_twelve - less, 4 * 4 * (24 * 4 * 32), "{}", device.name());
        train(2, &[5, 6, 7]);
    }
}

#[test]
fn running_moments_of_a_residual_network_move_once() {
    let layers = [
        ("stem", LayerSpec::BasicBlock { outputs: 4, stride: 1 }),
        // Large enough to be products of what taps see on a GPU.
        ("first", LayerSpec::BasicBlock { outputs: 16, stride: 2 }),
        ("second", LayerSpec::BasicBlock { outputs: 16, stride: 1 }),
        ("third", LayerSpec::BasicBlock { outputs: 16, stride: 1 }),
        ("pool", LayerSpec::GlobalAveragePool),
        ("output", LayerSpec::Linear { outputs: 3, activation: Activation::Identity }),
    ];
    let spec = ModelSpec {
        input: Input::Image { channels: 2, height: 12, width: 12 },
        layers: layers.map(|(name, layer)| (name.into(), layer)).into(),
    };
    for device in devices() {
        let (features, labels) = (floats(20 * 288, 1), tokens(20, 3, 2));
        let data = RowData::upload(&device, &features, 288, &labels, 3).unwrap();
        let [all, less] = of_model(&device, &spec, &[3, 4], |graph, model| {
            let (x, labels) = graph.row_batch(&data, &Batching::shuffled(8))?;
            let logits = model.forward(graph, x, Mode::Train)?.output;
            graph.cross_entropy(logits, labels)
        });
        assert!(3 * less < 2 * all, "{}: {less} of {all} bytes", device.name());
    }
}

/// The weights of a batch norm of eight channels, with moments that a step moves.
fn norm(parameters: &mut Parameters) -> BatchNormWeights {
    let mut add = |name: &str, init| parameters.add(name, &[8], init).unwrap();
    BatchNormWeights {
        gamma: add("gamma", Init::Constant(0.9)),
        beta: add("beta", Init::Constant(0.1)),
        running_mean: add("mean", Init::Constant(0.2)),
        running_var: add("variance", Init::Constant(2.0)),
    }
}

/// Holds what a scope is trained to against what it is when it isn't recomputed.
fn same_with_and_without(
    device: &Device,
    parameters: &Parameters,
    record: impl Fn(&mut Graph, Tensor) -> Result<Tensor>,
) {
    let run = |recompute: bool| {
        let arena = Arena::new(device, parameters, &[1]).unwrap();
        let mut graph = Graph::new(&arena);
        let x = graph.input("x", &SHAPE, Element::F32);
        let record = |graph: &mut Graph| record(graph, x);
        let y = if recompute { graph.recomputed(record) } else { record(&mut graph) }.unwrap();
        let target = graph.constant(0.25, &SHAPE);
        let loss = graph.mse(y, target, None).unwrap();
        let training = Training::new(Optimizer::adam(), 0.05);
        let mut plan = graph.train(loss, &training).unwrap();
        plan.write(x, &Data::F32(floats(48, 3))).unwrap();
        (bits(&arena, &mut plan, 4), plan.dispatches())
    };
    let ((expected, calls), (found, more)) = (run(false), run(true));
    assert!(found == expected && more > calls, "{}: {calls}, {more}", device.name());
}

/// Running moments that are read before the same scope's batch moves them, the weights of both norms
/// being the same.
#[test]
fn running_moments_that_have_moved_are_not_read_again() {
    let mut parameters = Parameters::new();
    let weights = norm(&mut parameters);
    for device in devices() {
        same_with_and_without(&device, &parameters, |graph, x| {
            let y = graph.batch_norm(x, &weights, 1e-5, None)?;
            let y = graph.activation(y, Activation::Tanh);
            let y = graph.batch_norm(y, &weights, 1e-5, Some(0.5))?;
            Ok(graph.activation(y, Activation::Tanh))
        });
    }
}

/// The same of a kernel that Tern doesn't know, which reads what it will of the parameters.
#[test]
fn running_moments_that_a_kernel_from_outside_reads_are_not_read_again() {
    let AnyKernel { fields, bindings, variants, reference_f32, reference_f64, .. } = *COPY.any();
    let name = "outside/copy";
    let own = AnyKernel { name, fields, bindings, variants, reference_f32, reference_f64 };
    let own: &'static Kernel<Copy> = Box::leak(Box::new(Kernel::new(own)));
    let mut parameters = Parameters::new();
    let weights = norm(&mut parameters);
    for device in devices() {
        same_with_and_without(&device, &parameters, |graph, x| {
            let mean = graph.tensor("mean", &[8], Element::F32);
            let copy = Copy {
                rows: 1,
                width: 8,
                x_offset: weights.running_mean.offset as u32,
                x_row: 8,
                x_stride: graph.parameter_stride() as u32,
                y_offset: 0,
                y_row: 8,
                y_stride: 8,
                accumulate: 0,
            };
            graph.dispatch(own, &copy, &[Operand::Flat(Flat::Parameters), mean.into()]);
            let y = graph.batch_norm(x, &weights, 1e-5, Some(0.5))?;
            let y = graph.activation(y, Activation::Tanh);
            graph.multiply(y, mean)
        });
    }
}

#[test]
fn a_state_that_the_forward_pass_moves_on_is_not_read_again() {
    let lstm = |projection| LayerSpec::Lstm {
        hidden: 12,
        layers: 2,
        coupled: false,
        dropout: 0.3,
        bidirectional: false,
        projection,
    };
    let gated = LayerSpec::Gru { hidden: 10, layers: 2, dropout: 0.3, bidirectional: false };
    let layers = [lstm(None), lstm(Some(5)), gated];
    for (device, layer) in devices().iter().flat_map(|d| layers.map(|layer| (d, layer))) {
        let output = LayerSpec::Linear { outputs: 11, activation: Activation::Identity };
        let layers = [("embedding", LayerSpec::Embedding { dimension: 6 }), ("r", layer)];
        let layers = layers.into_iter().chain([("dropout", LayerSpec::Dropout { p: 0.2 })]);
        let layers = layers.chain([("output", output)]);
        let spec = ModelSpec {
            input: Input::Tokens { vocabulary: 11 },
            layers: layers.map(|(name, layer)| (name.into(), layer)).collect(),
        };
        let (parameters, model) = spec.build().unwrap();
        let text = TextData::upload(device, &[tokens(200, 11, 3)], TextWindows::new(11, 7));
        let text = text.unwrap();
        for mode in [Mode::Train, Mode::TrainCarrying] {
            let run = |recompute: bool| {
                let arena = Arena::new(device, &parameters, &[1, 2]).unwrap();
                let mut graph = Graph::new(&arena);
                let (inputs, targets) = graph.stream_batch(&text, 3).unwrap();
                let record = |graph: &mut Graph| model.forward(graph, inputs, mode).unwrap();
                let forward = if recompute { graph.recomputed(record) } else { record(&mut graph) };
                let loss = graph.cross_entropy(forward.output, targets).unwrap();
                let training = Training::new(Optimizer::adam(), 0.01);
                let mut plan = graph.train(loss, &training).unwrap();
                (bits(&arena, &mut plan, 9), plan.dispatches())
            };
            let ((expected, calls), (found, more)) = (run(false), run(true));
            assert!(found == expected, "{}: {layer:?}, {mode:?}", device.name());
            assert!(more > calls, "{}: {layer:?}, {mode:?}", device.name());
        }
    }
}

/// Records are read by random ops and by the factor alike: a factor on the loss keeps nothing.
#[test]
fn dropout_is_recomputed_with_a_scaled_loss_too() {
    let spec = ModelSpec::mlp(8, &[32], 4);
    let (parameters, model) = spec.build().unwrap();
    for device in devices() {
        let run = |scale: Option<LossScale>, recompute: bool| {
            let arena = Arena::new(&device, &parameters, &[3]).unwrap();
            let mut graph = Graph::new(&arena);
            let x = graph.input("x", &[64, 8], Element::F32);
            let labels = graph.input("labels", &[64], Element::U32);
            let record = |graph: &mut Graph| {
                let y = graph.dropout(x, 0.25)?;
                let y = graph.dropout(y, 0.25)?;
                model.forward(graph, y, Mode::Train)
            };
            let forward = if recompute { graph.recomputed(record) } else { record(&mut graph) };
            let loss = graph.cross_entropy(forward.unwrap().output, labels).unwrap();
            let training = Training::new(Optimizer::adam(), 0.01).loss_scale(scale);
            let mut plan = graph.train(loss, &training).unwrap();
            plan.write(x, &Data::F32(floats(512, 1))).unwrap();
            plan.write(labels, &Data::U32(tokens(64, 4, 2))).unwrap();
            let activations = plan.memory().activations;
            (bits(&arena, &mut plan, 4), activations, plan.dispatches())
        };
        let scale = Some(LossScale { initial: 64.0, ..LossScale::default() });
        let [(kept, _, calls), (again, of_scaled, more)] =
            [false, true].map(|recompute| run(scale, recompute));
        assert!(kept == again, "{}", device.name());
        // As many calls are made again as without the factor.
        let [(_, _, plain), (_, of_plain, most)] =
            [false, true].map(|recompute| run(None, recompute));
        assert_eq!(more - calls, most - plain, "{}", device.name());
        assert!(of_scaled <= of_plain + 512, "{}: {of_scaled}, {of_plain}", device.name());
    }
}

#[test]
fn parts_of_a_batch_and_passes_apart_are_recomputed_too() {
    let spec = ModelSpec::mlp(6, &[40, 40, 40], 5);
    let (parameters, model) = spec.build().unwrap();
    for device in devices() {
        let labels = tokens(41, 5, 2);
        let data = RowData::upload(&device, &floats(41 * 6, 1), 6, &labels, 5).unwrap();
        let training = Training::new(Optimizer::adamw(), 0.01);
        let in_parts = |recompute: bool| {
            let arena = Arena::new(&device, &parameters, &[3, 4]).unwrap();
            let mut plan = Graph::new(&arena)
                .train_in_parts(3, &training, |graph| {
                    let (x, labels) = graph.row_batch(&data, &Batching::shuffled(4))?;
                    let record = |graph: &mut Graph| model.forward(graph, x, Mode::Train);
                    let forward = if recompute { graph.recomputed(record) } else { record(graph) };
                    graph.cross_entropy(forward?.output, labels)
                })
                .unwrap();
            (bits(&arena, &mut plan, 6), plan.dispatches())
        };
        let ((whole, calls), (found, more)) = (in_parts(false), in_parts(true));
        assert!(whole == found && more > calls, "{}: {calls}, {more}", device.name());

        let apart = |recompute: bool| {
            let arena = Arena::new(&device, &parameters, &[3, 4]).unwrap();
            let mut graph = Graph::new(&arena);
            let x = graph.input("x", &[4, 6], Element::F32);
            let labels = graph.input("labels", &[4], Element::U32);
            let record = |graph: &mut Graph| model.forward(graph, x, Mode::Train).unwrap();
            let forward = if recompute { graph.recomputed(record) } else { record(&mut graph) };
            graph.end_forward();
            let loss = graph.cross_entropy(forward.output, labels).unwrap();
            let mut plan = graph.train(loss, &training).unwrap();
            let mut see = |key| {
                plan.write(x, &Data::F32(floats(2 * 24, key))).unwrap();
                plan.write(labels, &Data::U32(tokens(2 * 4, 5, key))).unwrap();
                plan.forward().unwrap();
                plan.save().unwrap()
            };
            // Another batch passes through before the first one's gradient is taken.
            let saved = see(1);
            see(2);
            plan.restore(&saved).unwrap();
            plan.backward().unwrap();
            (arena.read(Flat::Parameters, 1).unwrap(), saved.bytes())
        };
        let ((expected, all), (found, less)) = (apart(false), apart(true));
        assert!(found == expected && less < all, "{}: {less}, {all}", device.name());
    }
}

/// Numbers that a program is drawn from.
struct Draws {
    seed: u32,
    count: u32,
}

impl Draws {
    fn below(&mut self, n: usize) -> usize {
        self.count += 1;
        pcg4d([self.seed, self.count, 5, 6])[0] as usize % n
    }
}

/// A graph of ops that are drawn, with scopes within scopes.
struct Program<'a> {
    draws: Draws,
    weights: &'a [Param],
    recompute: bool,
    tensors: Vec<Tensor>,
}

const SHAPE: [usize; 2] = [6, 8];

impl Program<'_> {
    /// One of the tensors, of the last ones more often.
    fn pick(&mut self) -> Tensor {
        let last = self.draws.below(self.tensors.len()) + 1;
        self.tensors[self.tensors.len() - 1 - self.draws.below(last)]
    }

    /// x += a of one kernel, without a gradient.
    fn add_into(graph: &mut Graph, a: Tensor, x: Tensor, accumulate: u32) {
        let params = Scale { n: (SHAPE[0] * SHAPE[1]) as u32, factor: 0.5, accumulate };
        graph.dispatch(&SCALE, &params, &[Operand::from(a), x.into()]);
    }

    /// a / 2 + b / 2 in a tensor that is written twice.
    fn half_sum(graph: &mut Graph, a: Tensor, b: Tensor) -> Tensor {
        let y = graph.tensor("half sum", &SHAPE, Element::F32);
        Self::add_into(graph, a, y, 0);
        Self::add_into(graph, b, y, 1);
        graph.on_backward(&[a, b], &[], &[y], move |backward| {
            let Some(dy) = backward.gradient(y) else { return Ok(()) };
            for x in [a, b] {
                if let Some((dx, accumulate)) = backward.target(x) {
                    Self::add_into(backward, dy, dx, accumulate);
                }
            }
            Ok(())
        });
        y
    }

    fn op(&mut self, graph: &mut Graph) -> Result<()> {
        let (a, b) = (self.pick(), self.pick());
        let [gamma, beta, matrix] =
            [0, 1, 2].map(|kind| self.weights[kind + 3 * self.draws.below(3)].clone());
        let y = match self.draws.below(11) {
            0 => graph.activation(a, Activation::Tanh),
            1 => graph.add(a, b)?,
            2 => graph.multiply(a, b)?,
            3 => graph.dropout(a, 0.25)?,
            4 => graph.layer_norm(a, &gamma, &beta, 1e-5)?,
            5 => graph.linear(a, &matrix, None, Activation::Sigmoid)?,
            6 => graph.softmax(a)?,
            7 => {
                let rows = graph.reshape(a, &[3, 16])?;
                let rows = graph.activation(rows, Activation::Silu);
                graph.reshape(rows, &SHAPE)?
            }
            8 => Self::half_sum(graph, a, b),
            9 => {
                // Changes a tensor that others may have read.
                let y = graph.scale(a, 1.0);
                let z = graph.multiply(y, b)?;
                Self::add_into(graph, b, y, 1);
                graph.add(y, z)?
            }
            _ => {
                // Carried from step to step.
                let state = graph.input("state", &SHAPE, Element::F32);
                let y = graph.add(a, state)?;
                let next = graph.activation(y, Activation::Tanh);
                Self::add_into(graph, next, state, 0);
                y
            }
        };
        let y = graph.activation(y, Activation::Tanh);
        self.tensors.push(y);
        Ok(())
    }

    fn record(&mut self, graph: &mut Graph, depth: usize) -> Result<()> {
        for _ in 0..2 + self.draws.below(4) {
            let inner = depth < 3 && self.draws.below(2) == 0;
            match (inner, self.recompute) {
                (true, true) => graph.recomputed(|graph| self.record(graph, depth + 1))?,
                (true, false) => self.record(graph, depth + 1)?,
                (false, _) => self.op(graph)?,
            }
        }
        Ok(())
    }
}

/// Losses and parameters of a drawn program, and how many calls it is.
fn drawn(device: &Device, seed: u32, recompute: bool) -> (Vec<u32>, usize) {
    let mut parameters = Parameters::new();
    let mut weights = Vec::new();
    for i in 0..3 {
        let init = Init::Uniform(0.5);
        weights.push(parameters.add(&format!("gamma{i}"), &[8], init).unwrap());
        weights.push(parameters.add(&format!("beta{i}"), &[8], init).unwrap());
        weights.push(parameters.add(&format!("matrix{i}"), &[8, 8], init).unwrap());
    }
    let arena = Arena::new(device, &parameters, &[1, 2]).unwrap();
    let mut graph = Graph::new(&arena);
    let x = graph.input("x", &SHAPE, Element::F32);
    // So that some parameter is reached by whatever is drawn.
    let first = graph.linear(x, &weights[2], None, Activation::Tanh).unwrap();
    let draws = Draws { seed, count: 0 };
    let mut program = Program { draws, weights: &weights, recompute, tensors: vec![first] };
    program.record(&mut graph, 0).unwrap();
    let last = *program.tensors.last().unwrap();
    let sum = graph.add(last, first).unwrap();
    let target = graph.constant(0.25, &SHAPE);
    let loss = graph.mse(sum, target, None).unwrap();
    let mut plan = graph.train(loss, &Training::new(Optimizer::adam(), 0.02)).unwrap();
    plan.write(x, &Data::F32(floats(2 * 48, seed))).unwrap();
    (bits(&arena, &mut plan, 3), plan.dispatches())
}

#[test]
fn drawn_programs_are_computed_to_the_same_bits() {
    for device in devices() {
        let is_cpu = device.name() == Device::cpu().name();
        let (mut recomputed, seeds) = (0, if is_cpu { 400 } else { 20 });
        for seed in 0..seeds {
            let (expected, calls) = drawn(&device, seed, false);
            let (found, more) = drawn(&device, seed, true);
            assert!(found == expected, "seed {seed} on {}", device.name());
            recomputed += u32::from(more > calls);
        }
        assert!(2 * recomputed > seeds, "{recomputed} of {seeds} on {}", device.name());
    }
}
