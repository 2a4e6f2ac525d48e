//! PyTorch's attention, rotary positions and SwiGLU, and a decoder of Llama's shape that it trained.
#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

mod common;

use common::fixture::file::path;
use common::fixture::{Fixture, all_devices, close};
use tern_engine::nn::{DecoderConfig, Mode, ModelSpec};
use tern_engine::ops::attention::{AttentionOptions, Keys};
use tern_engine::{
    Arena, Data, Device, Element, Flat, Graph, Init, Optimizer, Parameters, Result, Tensor,
    Trainable, Training, load_model,
};

/// Holds an op of inputs of the fixture's against what PyTorch computed under `name`: y, and the
/// gradient of each input.
fn op(
    name: &str,
    inputs: &[(&str, &[usize])],
    record: impl Fn(&mut Graph, &[Tensor]) -> Result<Tensor>,
) {
    let fixture = Fixture::open("attention");
    for device in all_devices() {
        let mut parameters = Parameters::new();
        parameters.add("unused", &[1], Init::Zeros).unwrap();
        let mut graph = Graph::new(&Arena::new(&device, &parameters, &[1]).unwrap());
        let x: Vec<Tensor> =
            inputs.iter().map(|(name, shape)| graph.input(name, shape, Element::F32)).collect();
        let y = record(&mut graph, &x).unwrap();
        graph.keep(y);
        let shape = graph.shape(y).to_vec();
        let seed = graph.input("ky", &shape, Element::F32);
        let (mut plan, gradients) = graph.gradients(&[(y, seed)], &Trainable::All, &x).unwrap();
        plan.write(seed, &Data::F32(fixture.f32("ky"))).unwrap();
        for ((input, shape), tensor) in inputs.iter().zip(&x) {
            // The causal run has the first positions of keys and values alone.
            let values = fixture.f32(input)[..shape.iter().product()].to_vec();
            plan.write(*tensor, &Data::F32(values)).unwrap();
        }
        plan.run(1).unwrap();
        let tolerance = if device.name().starts_with("Reference") { 1e-7 } else { 1e-6 };
        let found = plan.read_f64(y).unwrap();
        close(name, &device, &found, &fixture.f64(&format!("{name}.y")), tolerance);
        for ((input, _), gradient) in inputs.iter().zip(gradients) {
            let what = format!("{name}.grad.{input}");
            let found = plan.read_f64(gradient.unwrap()).unwrap();
            close(&what, &device, &found, &fixture.f64(&what), tolerance);
        }
    }
}

const Q: (&str, &[usize]) = ("q", &[5, 2, 4, 8]);
const K: (&str, &[usize]) = ("k", &[7, 2, 2, 8]);
const V: (&str, &[usize]) = ("v", &[7, 2, 2, 8]);

#[test]
fn attention_with_and_without_order_and_with_keys_left_out() {
    op("all", &[Q, K, V], |g, x| g.attention(x[0], x[1], x[2], &AttentionOptions::new(Keys::All)));
    let short: &[usize] = &[5, 2, 2, 8];
    op("causal", &[Q, ("k", short), ("v", short)], |g, x| {
        g.attention(x[0], x[1], x[2], &AttentionOptions::causal())
    });
    let words = Fixture::open("attention").u32("windows");
    op("windows", &[Q, K, V], |g, x| {
        let windows = g.values("windows", &[5, 2, 2], Data::U32(words.clone()))?;
        g.attention(x[0], x[1], x[2], &AttentionOptions::new(Keys::Windows(windows)))
    });
}

#[test]
fn rotary_positions() {
    op("rotary", &[Q], |g, x| {
        let table = g.rotary_table(5, 8, 100.0)?;
        let positions = g.positions(5, 2)?;
        g.rotary(x[0], table, positions)
    });
}

#[test]
fn swiglu() {
    op("swiglu", &[("gate", &[5, 2, 4, 8]), ("up", &[5, 2, 4, 8])], |g, x| g.swiglu(x[0], x[1]));
}

fn llama() -> ModelSpec {
    let config = DecoderConfig::new(2, 4, 8, 24).key_value_heads(2).base(100.0);
    ModelSpec::decoder(17, 16, config, true)
}

/// Losses of fifty steps of AdamW from PyTorch's weights, and the weights after the last, with blocks
/// that are recomputed and without.
#[test]
fn a_decoder_trains_as_pytorchs() {
    let (data, result) = (Fixture::open("llama_data"), Fixture::open("llama_adamw"));
    let beta = |i: usize| result.setting("betas")[i].as_f64().unwrap();
    let optimizer = Optimizer::AdamW {
        beta1: beta(0),
        beta2: beta(1),
        epsilon: result.number("eps"),
        weight_decay: result.number("weight_decay"),
        amsgrad: false,
    };
    let (steps, batch) = (9, 4);
    let (tokens, targets) = (data.u32("x"), data.u32("target"));
    for (device, recompute) in
        all_devices().into_iter().flat_map(|d| [(d.clone(), false), (d, true)])
    {
        let (parameters, model) = llama().build().unwrap();
        let model = model.recomputing(recompute);
        let arena = Arena::new(&device, &parameters, &[1]).unwrap();
        let flat = load_model(&path("llama_weights"), &parameters).unwrap();
        arena.write(Flat::Parameters, 0, &flat).unwrap();
        let mut graph = Graph::new(&arena);
        let x = graph.input("x", &[steps, batch], Element::U32);
        let target = graph.input("target", &[steps, batch], Element::U32);
        let logits = model.forward(&mut graph, x, Mode::Train).unwrap().output;
        let loss = graph.cross_entropy(logits, target).unwrap();
        let mut plan = graph.train(loss, &Training::new(optimizer, result.number("lr"))).unwrap();
        let mut losses = Vec::new();
        let batches = tokens.chunks(steps * batch).zip(targets.chunks(steps * batch));
        for (tokens, targets) in batches {
            plan.write(x, &Data::U32(tokens.to_vec())).unwrap();
            plan.write(target, &Data::U32(targets.to_vec())).unwrap();
            losses.push(f64::from(plan.run(1).unwrap().last().unwrap()));
        }
        let reference = device.name().starts_with("Reference");
        let expected = result.f64("losses");
        assert!(expected[49] < expected[0] - 0.4, "PyTorch learns: {expected:?}");
        close("loss", &device, &losses, &expected, if reference { 2e-6 } else { 1e-4 });
        let flat = arena.read_f64(Flat::Parameters, 0).unwrap();
        for p in parameters.iter() {
            let name = format!("final.{}", p.name);
            let tolerance = if reference { 2e-6 } else { 2e-3 };
            close(&name, &device, &flat[p.offset..][..p.len()], &result.f64(&name), tolerance);
        }
    }
}

/// A decoder that reads token by token, with its keys and values kept, says what one does that
/// reads a text at once.
#[test]
fn what_is_read_token_by_token_is_what_is_read_at_once() {
    let data = Fixture::open("llama_data");
    let (steps, batch) = (9, 4);
    let tokens = data.u32("x")[..steps * batch].to_vec();
    for device in common::devices().into_iter().chain([Device::reference()]) {
        let (parameters, model) = llama().build().unwrap();
        let arena = Arena::new(&device, &parameters, &[1]).unwrap();
        let flat = load_model(&path("llama_weights"), &parameters).unwrap();
        arena.write(Flat::Parameters, 0, &flat).unwrap();
        let mut graph = Graph::new(&arena);
        let x = graph.input("x", &[steps, batch], Element::U32);
        let logits = model.forward(&mut graph, x, Mode::Evaluate).unwrap().output;
        graph.keep(logits);
        let mut plan = graph.forward().unwrap();
        plan.write(x, &Data::U32(tokens.clone())).unwrap();
        plan.run(1).unwrap();
        let expected = plan.read(logits).unwrap().floats().unwrap();

        let mut generator = tern_engine::nn::Generator::new(&arena, &model, batch, steps).unwrap();
        // Twice: the second time over what the first one left.
        for _ in 0..2 {
            generator.clear();
            let mut at = vec![0; batch];
            // The texts go on at their own pace.
            for round in 0.. {
                let next: Vec<Option<u32>> = (0..batch)
                    .map(|text| {
                        let reads = at[text] < steps && round % (text + 1) == 0;
                        reads.then(|| tokens[at[text] * batch + text])
                    })
                    .collect();
                let found = generator.read(&next).unwrap();
                for (text, found) in found.chunks(17).enumerate() {
                    if next[text].is_none() {
                        continue;
                    }
                    let expected = &expected[(at[text] * batch + text) * 17..][..17];
                    let found: Vec<f64> = found.iter().map(|x| f64::from(*x)).collect();
                    let expected: Vec<f64> = expected.iter().map(|x| f64::from(*x)).collect();
                    close(&format!("text {text}"), &device, &found, &expected, 1e-5);
                    at[text] += 1;
                }
                if at.iter().all(|at| *at == steps) {
                    break;
                }
            }
            assert_eq!(generator.lengths(), [steps; 4]);
        }
        let error = generator.read(&[None, Some(1), None, None]).unwrap_err().to_string();
        assert!(error.contains("tokens of text 1 is 10, expected at most 9"), "{error}");
    }
}
