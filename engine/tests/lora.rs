//! Low-rank adapters: trained alone, and merged.
#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

mod common;

use common::{devices, tokens};
use tern_engine::nn::{DecoderConfig, LORA, LoraConfig, Mode, Model, ModelSpec};
use tern_engine::{
    Arena, Data, Element, Flat, Graph, Optimizer, Parameters, Plan, Trainable, Training,
};

const SHAPE: [usize; 2] = [6, 3];

fn build() -> (Parameters, Model) {
    let config = DecoderConfig::new(2, 4, 8, 24).key_value_heads(2).lora(LoraConfig::new(2));
    ModelSpec::decoder(13, 16, config, true).build().unwrap()
}

/// Logits of the arena's model for a text.
fn logits(arena: &Arena, model: &Model) -> Vec<f32> {
    let mut graph = Graph::new(arena);
    let x = graph.input("x", &SHAPE, Element::U32);
    let y = model.forward(&mut graph, x, Mode::Evaluate).unwrap().output;
    graph.keep(y);
    let mut plan = graph.forward().unwrap();
    plan.write(x, &Data::U32(tokens(18, 13, 1))).unwrap();
    plan.run(1).unwrap();
    plan.read(y).unwrap().floats().unwrap()
}

fn training(arena: &Arena, model: &Model) -> Plan {
    let mut graph = Graph::new(arena);
    let x = graph.input("x", &SHAPE, Element::U32);
    let targets = graph.input("targets", &SHAPE, Element::U32);
    let y = model.forward(&mut graph, x, Mode::Train).unwrap().output;
    let loss = graph.cross_entropy(y, targets).unwrap();
    let trainable = Trainable::Prefixes(vec![LORA.into()]);
    let training = Training::new(Optimizer::adam(), 0.05).trainable(trainable);
    let mut plan = graph.train(loss, &training).unwrap();
    plan.write(x, &Data::U32(tokens(18, 13, 1))).unwrap();
    plan.write(targets, &Data::U32(tokens(18, 13, 2))).unwrap();
    plan
}

#[test]
fn adapters_learn_alone_and_are_merged() {
    for device in devices() {
        let (parameters, model) = build();
        let arena = Arena::new(&device, &parameters, &[5]).unwrap();
        let before = arena.read(Flat::Parameters, 0).unwrap();
        let untrained = logits(&arena, &model);
        let losses = training(&arena, &model).run(40).unwrap().by_replica.remove(0);
        assert!(losses[39] < losses[0] - 0.05, "{}: {losses:?}", device.name());
        let mut flat = arena.read(Flat::Parameters, 0).unwrap();
        for p in parameters.iter() {
            let same = flat[p.offset..][..p.len()] == before[p.offset..][..p.len()];
            assert_eq!(same, !p.name.starts_with(LORA), "{}: {}", device.name(), p.name);
        }
        let trained = logits(&arena, &model);
        let furthest = |a: &[f32], b: &[f32]| {
            a.iter().zip(b).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()))
        };
        assert!(furthest(&trained, &untrained) > 1e-3);
        model.merge_adapters(&parameters, &mut flat).unwrap();
        arena.write(Flat::Parameters, 0, &flat).unwrap();
        let merged = logits(&arena, &model);
        let error = furthest(&merged, &trained);
        assert!(error < 1e-5, "{}: {error}", device.name());
        // A second time there is nothing left to merge.
        let again = flat.clone();
        model.merge_adapters(&parameters, &mut flat).unwrap();
        assert_eq!(flat, again);
        assert!(model.merge_adapters(&parameters, &mut [0.0]).is_err());
    }
}
