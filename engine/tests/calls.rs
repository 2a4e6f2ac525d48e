//! Random sequences of calls of the public API, mixed up as nobody should: every one is answered or
//! refused, none panics.

#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;
use tern_engine::nn::{Conv2dConfig, DecoderConfig, Input, LayerSpec, Mode, ModelSpec};
use tern_engine::ops::attention::{AttentionOptions, Keys};
use tern_engine::ops::convolution::Window;
use tern_engine::ops::reduce::Reduction;
use tern_engine::{
    Activation, Arena, Batching, Data, Device, Element, Flat, Graph, Optimizer, Param, Plan,
    Precision, RowData, Tensor, TextData, TextWindows, Trainable, Training, Vector,
};
use tern_shaders::state::StateRecord;

mod common;

/// Kinds of calls.
const KINDS: u8 = 50;

/// Numbers that a call makes its arguments of.
type Draw = [u8; 6];

struct World {
    arenas: Vec<Arena>,
    rows: Vec<RowData>,
    texts: Vec<TextData>,
    specs: Vec<ModelSpec>,
    params: Vec<Param>,
    graphs: Vec<Graph>,
    plans: Vec<Plan>,
    /// Of all graphs, those that became plans and those that are gone; and their lengths.
    tensors: Vec<(Tensor, usize)>,
    vectors: Vec<Vector>,
    /// Calls that were taken.
    taken: u32,
}

/// A size: mostly small, sometimes absurd.
fn size(draw: u8) -> usize {
    match draw {
        0..240 => usize::from(draw % 8),
        240..250 => 150,
        _ => usize::MAX / usize::from(draw),
    }
}

fn number(draw: u8) -> f32 {
    match draw {
        0..240 => f32::from(draw % 16) / 16.0,
        240..245 => f32::NAN,
        245..250 => f32::INFINITY,
        _ => -1e30,
    }
}

fn element(draw: u8) -> Element {
    if draw.is_multiple_of(2) { Element::F32 } else { Element::U32 }
}

fn data(draw: u8, n: usize) -> Data {
    let n = n.min(1 << 16);
    match element(draw) {
        Element::F32 => Data::F32(vec![number(draw / 2); n]),
        Element::U32 => Data::U32(vec![u32::from(draw); n]),
    }
}

/// Images of one by three pixels.
fn image() -> ModelSpec {
    let filters = LayerSpec::Conv2d(Conv2dConfig::new(2, 1).activation(Activation::Relu));
    let classes = LayerSpec::Linear { outputs: 2, activation: Activation::Identity };
    ModelSpec {
        input: Input::Image { channels: 1, height: 1, width: 3 },
        layers: vec![
            ("filters".into(), filters),
            ("flat".into(), LayerSpec::Flatten),
            ("norm".into(), LayerSpec::LayerNorm),
            ("scale".into(), LayerSpec::RmsNorm),
            ("classes".into(), classes),
        ],
    }
}

impl World {
    fn new(devices: &[Device]) -> Self {
        let specs = vec![
            ModelSpec::mlp(3, &[4], 2),
            ModelSpec::mlp(3, &[], 5),
            ModelSpec::language_model(7, 3, 4, 1),
            image(),
            ModelSpec::decoder(7, 4, DecoderConfig::new(1, 1, 4, 8), true),
        ];
        let mut world = World {
            arenas: Vec::new(),
            rows: Vec::new(),
            texts: Vec::new(),
            params: Vec::new(),
            graphs: Vec::new(),
            plans: Vec::new(),
            tensors: Vec::new(),
            vectors: Vec::new(),
            taken: 0,
            specs,
        };
        for (number, device) in devices.iter().enumerate() {
            for spec in &world.specs {
                let (parameters, _) = spec.build().unwrap();
                world.params.extend(parameters.iter().cloned());
                let seeds = &[1, 2][..1 + number % 2];
                world.arenas.push(Arena::new(device, &parameters, seeds).unwrap());
            }
            let rows = RowData::upload(device, &[0.5; 12], 3, &[0, 1, 0, 1], 2).unwrap();
            world.rows.push(rows);
            world.texts.push(
                TextData::upload(device, &[[1u32, 2, 3, 4, 5]], TextWindows::new(7, 2)).unwrap(),
            );
        }
        world
    }

    /// One of the latest, most of the time, and its length.
    fn tensor(&self, draw: u8) -> Option<(Tensor, usize)> {
        let back = if draw < 200 { usize::from(draw % 4) } else { usize::from(draw) };
        self.tensors.len().checked_sub(1 + back).map(|at| self.tensors[at])
    }

    /// A loss of a model, recorded as it should be, and all on the way to it.
    fn model(&mut self, [a, b, c, ..]: Draw) -> Option<()> {
        let at = usize::from(a) % self.arenas.len();
        let (device, kind) = (at / self.specs.len(), at % self.specs.len());
        let mut graph = Graph::new(&self.arenas[at]);
        let batching = Batching::shuffled(1 + size(b) % 9);
        let (x, targets) = match self.specs[kind].input {
            Input::Tokens { .. } => graph.text_batch(&self.texts[device], &batching).ok()?,
            _ => graph.row_batch(&self.rows[device], &batching).ok()?,
        };
        let (_, model) = self.specs[kind].build().unwrap();
        let mode = [Mode::Train, Mode::TrainCarrying, Mode::Evaluate][usize::from(c % 3)];
        let forward = model.forward(&mut graph, x, mode).ok()?;
        let loss = graph.cross_entropy(forward.output, targets).ok()?;
        let made = [x, targets, forward.features, forward.output, loss];
        self.tensors.extend(made.map(|tensor| (tensor, graph.len(tensor))));
        self.graphs.push(graph);
        self.taken += 1;
        Some(())
    }

    /// One call, of kind `kind`.
    fn call(&mut self, kind: u8, draw: Draw) -> Option<()> {
        let [a, b, c, d, e, f] = draw;
        let pick = |n: usize, draw: u8| usize::from(draw) % n.max(1);
        let [x, y, z] = [a, b, c].map(|draw| self.tensor(draw).map(|(tensor, _)| tensor));
        let weight = self.params[pick(self.params.len(), c)].clone();
        let bias = self.params[pick(self.params.len(), d)].clone();
        if self.graphs.is_empty() || kind == 0 {
            let arena = &self.arenas[pick(self.arenas.len(), a)];
            self.graphs.push(Graph::new(arena));
            return Some(());
        }
        // The latest, most of the time.
        let last = self.graphs.len() - 1;
        let at = if f < 220 { last } else { pick(self.graphs.len(), f) };
        let graph = &mut self.graphs[at];
        let made = match kind {
            1 => {
                let shape: Vec<usize> = [a, b, c][..pick(4, d)].iter().map(|n| size(*n)).collect();
                Ok(vec![graph.input("input", &shape, element(e))])
            }
            2 => {
                let rows = &self.rows[pick(self.rows.len(), a)];
                let batching = Batching::shuffled(size(b));
                graph.row_batch(rows, &batching).map(|(x, y)| vec![x, y])
            }
            3 => {
                let text = &self.texts[pick(self.texts.len(), a)];
                match b % 2 {
                    0 => graph.text_batch(text, &Batching::in_order(size(c))),
                    _ => graph.stream_batch(text, size(c)),
                }
                .map(|(x, y)| vec![x, y])
            }
            4 => {
                let (_, model) = self.specs[pick(self.specs.len(), a)].build().unwrap();
                let mode = [Mode::Train, Mode::Evaluate, Mode::TrainCarrying][pick(3, b)];
                model.forward(graph, x?, mode).map(|forward| vec![forward.output])
            }
            5 => graph.linear(x?, &weight, Some(&bias), Activation::Tanh).map(|y| vec![y]),
            6 => {
                let (x, precision) = (x?, [Precision::Half, Precision::Bf16][pick(2, c)]);
                let record = |graph: &mut Graph| {
                    graph.linear(x, &weight, None, Activation::Relu).map(|y| vec![y])
                };
                graph.in_precision(precision, record)
            }
            7 => match f % 3 {
                0 => graph.embedding(x?, &weight),
                1 => graph.index_select(x?, z?),
                _ => graph.scatter_add(x?, z?, size(c)),
            }
            .map(|y| vec![y]),
            8 => match f % 3 {
                0 => graph.layer_norm(x?, &weight, &bias, number(e)),
                1 => graph.group_norm(x?, size(c), &weight, &bias, number(e)),
                _ => graph.rms_norm(x?, &weight, number(e)),
            }
            .map(|y| vec![y]),
            9 | 10 => {
                let x = x?;
                let shape = [graph.len(x) / 3, 1, 1, 3];
                let x = if f < 128 { graph.reshape(x, &shape).unwrap_or(x) } else { x };
                let window = Window { stride: [size(d), 1], padding: [size(e), size(c) % 2] };
                let filters = self.params.iter().find(|param| param.shape.len() == 4)?;
                match kind {
                    9 => graph.conv2d(x, filters, (b < 128).then_some(&bias), window),
                    _ => graph.max_pool2d(x, [size(b) % 2, size(c)], window),
                }
                .map(|y| vec![y])
            }
            11 => graph.matmul(x?, y?).map(|y| vec![y]),
            12 => graph.add(x?, y?).map(|y| vec![y]),
            13 => match f % 2 {
                0 => graph.multiply(x?, y?),
                _ => graph.swiglu(x?, y?),
            }
            .map(|y| vec![y]),
            14 => match f % 4 {
                0 => graph.softmax(x?).map(|y| vec![y]),
                1 => {
                    let quads = |graph: &mut Graph, x| {
                        let shape = [graph.len(x) / 4, 1, 1, 4];
                        graph.reshape(x, &shape).unwrap_or(x)
                    };
                    let [q, k] = [x?, y?].map(|x| quads(graph, x));
                    let keys = [Keys::All, Keys::Causal, Keys::Windows(z?)][pick(3, d)];
                    let options = AttentionOptions::new(keys).scale((e > 99).then(|| number(e)));
                    graph.attention(q, k, if e % 2 == 0 { k } else { q }, &options).map(|y| vec![y])
                }
                2 => match graph.rotary_table(size(d), size(e), f64::from(number(b))) {
                    Ok(table) => graph.rotary(x?, table, z?).map(|y| vec![table, y]),
                    Err(error) => Err(error),
                },
                _ => {
                    let n = size(d).min(9);
                    graph.values("values", &[n, size(b)], data(c, n)).map(|y| vec![y])
                }
            },
            15 => match f % 7 {
                0 => graph.transpose(x?, size(c)),
                1 => graph.permute(x?, &[size(c), size(d), size(e)]),
                2 => graph.flip(x?, size(c)),
                3 => graph.pad(x?, size(c), [size(d), size(e)]),
                4 => graph.broadcast_to(x?, &[size(c), size(d), size(e)]),
                5 => graph.reduce(x?, &[size(c), size(d)], Reduction::Mean),
                _ => graph.select(z?, x?, y?),
            }
            .map(|y| vec![y]),
            16 => graph.concat(&[x?, y?], size(c)).map(|y| vec![y]),
            17 => graph.slice(x?, size(c), size(d)..size(e)).map(|y| vec![y]),
            18 => {
                let shape: Vec<usize> = [b, c, d][..pick(4, e)].iter().map(|n| size(*n)).collect();
                graph.reshape(x?, &shape).map(|y| vec![y])
            }
            19 => graph.cross_entropy(x?, y?).map(|y| vec![y]),
            20 => graph.mse(x?, y?, None).map(|y| vec![y]),
            21 => graph.dropout(x?, number(c)).map(|y| vec![y]),
            22 => graph.top_k(x?, u32::from(c)).map(|(x, y)| vec![x, y]),
            23 => graph.accuracy(x?, y?, u32::from(c)).map(|y| vec![y]),
            24 => match f % 2 {
                0 => graph.copy_into(x?, y?),
                _ => graph.store_rows(x?, z?, y?),
            }
            .map(|()| vec![]),
            25 => graph.scale_by(x?, y?, number(c)).map(|y| vec![y]),
            26 => Ok(match c % 6 {
                0 => vec![graph.sum(x?)],
                1 => vec![graph.mean(x?)],
                2 => vec![graph.relu(x?)],
                3 => vec![graph.scale(x?, number(d))],
                4 => vec![graph.keep(x?)],
                _ => vec![graph.gradient_reversal(x?, number(d))],
            }),
            27 => {
                graph.end_forward();
                Ok(vec![])
            }
            28 => {
                let graph = self.graphs.swap_remove(at);
                return self.plan(graph.forward());
            }
            29 => {
                let graph = self.graphs.swap_remove(at);
                let optimizer = [Optimizer::sgd(), Optimizer::adam()][pick(2, c)];
                let mut training = Training::new(optimizer, f64::from(number(d)));
                training.clip_norm = (e > 128).then(|| number(e).into());
                return self.plan(graph.train(x?, &training));
            }
            30 => {
                let graph = self.graphs.swap_remove(at);
                return self.plan(graph.evaluate(x?));
            }
            31 => {
                let mut graph = self.graphs.swap_remove(at);
                let one = if c > 128 { y? } else { graph.constant(1.0, &[1]) };
                let made = graph.gradients(&[(x?, one)], &Trainable::All, &[x?, y?]);
                let (plan, sources) = made.ok()?;
                self.tensors.extend(sources.into_iter().flatten().map(|tensor| (tensor, 1)));
                return self.plan(Ok::<_, ()>(plan));
            }
            32..36 => return self.model(draw),
            _ => return self.use_plans(kind, draw),
        };
        let graph = &self.graphs[at];
        let made = made.ok()?.into_iter().map(|tensor| (tensor, graph.len(tensor)));
        self.tensors.extend(made);
        self.taken += 1;
        Some(())
    }

    fn plan<E>(&mut self, plan: Result<Plan, E>) -> Option<()> {
        self.plans.push(plan.ok()?);
        self.taken += 1;
        Some(())
    }

    /// Calls of plans, arenas and vectors.
    fn use_plans(&mut self, kind: u8, [a, b, c, d, e, _]: Draw) -> Option<()> {
        let pick = |n: usize, draw: u8| usize::from(draw) % n.max(1);
        let (tensor, len) = self.tensor(b).unzip();
        let at = self.plans.len().saturating_sub(1 + pick(3, a));
        let arena = self.arenas[pick(self.arenas.len(), a)].clone();
        let flats = [Flat::Parameters, Flat::Gradients, Flat::Moment1, Flat::Reference];
        let flat = flats[pick(4, c)];
        let taken = match kind {
            36 => self.plans.get_mut(at)?.run(pick(4, b)).is_ok(),
            37 => self.plans.get_mut(at)?.forward().is_ok(),
            38 => self.plans.get_mut(at)?.backward().is_ok(),
            39 => {
                let len = if d < 200 { len? } else { size(d) };
                self.plans.get_mut(at)?.write(tensor?, &data(c, len)).is_ok()
            }
            40 => self.plans.get_mut(at)?.read(tensor?).is_ok(),
            41 => self.plans.get_mut(at)?.rewind().is_ok(),
            42 => {
                let records = vec![StateRecord::from([u32::from(c); 64]); pick(4, d)];
                self.plans.get_mut(at)?.set_states(&records).is_ok()
            }
            43 => arena.read(flat, pick(3, b)).is_ok(),
            44 => {
                let len = if e < 200 { arena.parameters().words() } else { size(e) };
                arena.write(flat, pick(3, b), &vec![number(d); len.min(1 << 16)]).is_ok()
            }
            45 => {
                let vector = Vector::zeros(arena.device(), element(b), size(c));
                let vector = vector.or_else(|_| Vector::of_tile(&arena, pick(3, b), flat));
                vector.map(|vector| self.vectors.push(vector)).is_ok()
            }
            46 => {
                let vector = self.vectors.get(pick(self.vectors.len(), a))?;
                let part = vector.slice(64 * usize::from(b % 8), size(c));
                part.map(|part| self.vectors.push(part)).is_ok()
            }
            47 => {
                let at = |draw| self.vectors.get(pick(self.vectors.len(), draw));
                at(a)?.copy_from(at(b)?).is_ok()
            }
            48 => self.vectors.get(pick(self.vectors.len(), a))?.write(&data(b, size(c))).is_ok(),
            _ => self.vectors.get(pick(self.vectors.len(), a))?.read().is_ok(),
        };
        self.taken += u32::from(taken);
        Some(())
    }
}

static TAKEN: AtomicU32 = AtomicU32::new(0);
static PLANS: AtomicU32 = AtomicU32::new(0);

#[test]
fn no_sequence_of_calls_panics() {
    let mut devices = vec![Device::cpu(), Device::cpu(), Device::reference_f64()];
    devices.extend(common::software(true));
    devices.extend(common::software(true));
    let calls = prop::collection::vec((0u8..KINDS, any::<Draw>()), 1..200);
    // PROPTEST_CASES=20000 takes minutes and finds more.
    let config = ProptestConfig::default();
    let config = ProptestConfig { cases: 4 * config.cases, max_shrink_iters: 2000, ..config };
    proptest!(config, |(calls in calls)| {
        let mut world = World::new(&devices);
        for (kind, draw) in calls {
            world.call(kind, draw);
        }
        TAKEN.fetch_add(world.taken, Ordering::Relaxed);
        PLANS.fetch_add(world.plans.len() as u32, Ordering::Relaxed);
    });
    let (taken, plans) = (TAKEN.load(Ordering::Relaxed), PLANS.load(Ordering::Relaxed));
    assert!(taken > 10_000 && plans > 500, "{taken} calls were taken, {plans} plans made");
}

/// What a graph says, at once or when a plan is to be made of it.
fn refusal(arena: &Arena, record: impl FnOnce(&mut Graph) -> tern_engine::Result<()>) -> String {
    let mut graph = Graph::new(arena);
    let recorded = record(&mut graph);
    let made = recorded.and_then(|()| graph.forward().map(|_| ()));
    made.unwrap_err().to_string()
}

#[test]
fn what_does_not_belong_together_is_named() {
    let (parameters, _) = ModelSpec::mlp(3, &[], 2).build().unwrap();
    let arena = Arena::new(&Device::cpu(), &parameters, &[1]).unwrap();
    let mut other = Graph::new(&arena);
    let foreign = other.input("x", &[4, 3], Element::F32);

    let error = refusal(&arena, |graph| {
        graph.relu(foreign);
        Ok(())
    });
    assert_eq!(error, "tensor is a tensor of another graph, expected one of the graph's");

    // A parameter of another model, of the shape that the input asks for.
    let (others, _) = ModelSpec::mlp(5, &[], 2).build().unwrap();
    let error = refusal(&arena, |graph| {
        let x = graph.input("x", &[4, 5], Element::F32);
        graph.linear(x, others.get("0.weight")?, None, Activation::Identity).map(|_| ())
    });
    let expected = "parameter is 0.weight [2, 5] at 0, expected the arena's: 0.weight [2, 3] at 0";
    assert_eq!(error, expected);

    let rows = RowData::upload(&Device::reference_f64(), &[0.5; 6], 3, &[0, 1], 2).unwrap();
    let error = refusal(&arena, |graph| graph.row_batch(&rows, &Batching::in_order(2)).map(|_| ()));
    assert!(error.starts_with("device of the features is another, expected "), "{error}");

    let error = refusal(&arena, |graph| {
        graph.input("x", &[2, 0], Element::F32);
        Ok(())
    });
    assert_eq!(error, "shape of x is [2, 0], expected 1 to 4294967295 elements");

    let mut plan = other.forward().unwrap();
    assert!(plan.read(foreign).is_ok());
    let mut third = Graph::new(&arena);
    let x = third.input("x", &[4, 3], Element::F32);
    let error = plan.read(x).unwrap_err().to_string();
    assert_eq!(error, "tensor is one of another graph, expected one of the plan's");
    // A vector of another device, in a pass.
    let host = Vector::zeros(&Device::reference_f64(), Element::F32, 8).unwrap();
    let own = Vector::zeros(&Device::cpu(), Element::F32, 8).unwrap();
    assert!(own.copy_from(&host).unwrap_err().to_string().contains("device of a vector"));
    let huge = Vector::zeros(&Device::cpu(), Element::F32, usize::MAX / 8).map(|_| ());
    assert!(huge.unwrap_err().to_string().contains("out of memory: vector needs"));
}

#[test]
fn gradients_to_start_from_go_by_their_outputs_shape() {
    let (parameters, model) = ModelSpec::mlp(3, &[], 2).build().unwrap();
    let arena = Arena::new(&Device::cpu(), &parameters, &[1]).unwrap();
    let start = |shape: &[usize], element| {
        let mut graph = Graph::new(&arena);
        let x = graph.input("x", &[4, 3], Element::F32);
        let y = model.forward(&mut graph, x, Mode::Evaluate)?.output;
        let seed = graph.input("dy", shape, element);
        let (mut plan, gradients) = graph.gradients(&[(y, seed)], &Trainable::All, &[x])?;
        plan.write(x, &Data::F32(vec![0.5; 12]))?;
        plan.write(seed, &Data::F32((0..8).map(|i| i as f32).collect()))?;
        plan.run(1)?;
        plan.read(gradients[0].unwrap_or(x))?.floats()
    };
    let expected = start(&[4, 2], Element::F32).unwrap();
    assert!(expected.iter().any(|x| *x != 0.0));
    // The same elements under another shape, which reached past the gradient.
    for shape in [&[8][..], &[2, 4], &[8, 1]] {
        assert_eq!(start(shape, Element::F32).unwrap(), expected, "{shape:?}");
    }
    assert!(start(&[4, 3], Element::F32).is_err());
    let error = start(&[4, 2], Element::U32).unwrap_err().to_string();
    assert!(error.contains("U32"), "{error}");
}
