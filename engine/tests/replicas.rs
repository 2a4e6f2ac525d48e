//! Replicas side by side against separate runs, tiles, parts of a data set, reruns.
#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

mod common;

use common::{devices, tokens};
use tern_engine::nn::{Mode, ModelSpec};
use tern_engine::{Arena, Batching, Device, Flat, Graph, Optimizer, Plan, TextData, Training};

const VOCABULARY: usize = 17;

fn text(device: &Device) -> TextData {
    let texts = [tokens(300, VOCABULARY as u32, 1), tokens(150, VOCABULARY as u32, 2)];
    TextData::upload(device, &texts, VOCABULARY, 12, 12).unwrap()
}

/// A char-LSTM plan with dropout-free Adam and clipping; replica r trains on `parts[r]`.
fn plan(arena: &Arena, data: &TextData, parts: Vec<std::ops::Range<usize>>, seed: u32) -> Plan {
    let (_, model) = ModelSpec::language_model(VOCABULARY, 5, 9, 2).build().unwrap();
    let mut graph = Graph::new(arena);
    let batching = Batching { parts, ..Batching::shuffled(4) };
    let (inputs, targets) = graph.text_batch(data, &batching).unwrap();
    let logits = model.forward(&mut graph, inputs, Mode::Train).unwrap().output;
    let loss = graph.cross_entropy(logits, targets).unwrap();
    let training =
        Training { clip_norm: Some(0.5), seed, ..Training::new(Optimizer::adam(), 0.01) };
    graph.train(loss, &training).unwrap()
}

fn arena(device: &Device, seeds: &[u32], tile: usize) -> Arena {
    let (parameters, _) = ModelSpec::language_model(VOCABULARY, 5, 9, 2).build().unwrap();
    Arena::with_tile(device, &parameters, seeds, tile).unwrap()
}

#[test]
fn replicas_give_the_bits_of_separate_runs_whatever_the_tile() {
    for device in devices() {
        let data = text(&device);
        let parts = [0..20, 5..9, 20..37];
        let seeds = [3, 4, 5];
        let alone: Vec<(Vec<f32>, Vec<f32>)> = (0..3)
            .map(|r| {
                let arena = arena(&device, &seeds[r..=r], 1);
                let mut plan = plan(&arena, &data, vec![parts[r].clone()], 100 + r as u32);
                let losses = plan.run(7).unwrap().by_replica.remove(0);
                (arena.read(Flat::Parameters, 0).unwrap(), losses)
            })
            .collect();
        for tile in [1, 2, 3] {
            let arena = arena(&device, &seeds, tile);
            let mut plan = plan(&arena, &data, parts.to_vec(), 100);
            assert_eq!(plan.memory().tile, tile);
            let losses = plan.run(7).unwrap().by_replica;
            for r in 0..3 {
                let name = device.name();
                assert_eq!(losses[r], alone[r].1, "{name}, tile {tile}: losses of replica {r}");
                let found = arena.read(Flat::Parameters, r).unwrap();
                assert!(found == alone[r].0, "{name}, tile {tile}: parameters of replica {r}");
            }
        }
    }
}

#[test]
fn a_rerun_is_bit_identical_and_another_seed_is_not() {
    for device in devices() {
        let data = text(&device);
        let run = |seed| {
            let arena = arena(&device, &[1], 1);
            let losses = plan(&arena, &data, Vec::new(), seed).run(9).unwrap();
            (arena.read(Flat::Parameters, 0).unwrap(), losses)
        };
        let first = run(7);
        assert!(first == run(7), "{}", device.name());
        assert!(first != run(8), "{}: the shuffle ignores its seed", device.name());
    }
}

#[test]
fn devices_agree() {
    let results: Vec<(String, Vec<f32>)> = devices()
        .iter()
        .map(|device| {
            let arena = arena(device, &[1], 1);
            let losses = plan(&arena, &text(device), Vec::new(), 7).run(20).unwrap();
            (device.name(), losses.by_replica[0].clone())
        })
        .collect();
    for (name, losses) in &results[1..] {
        for (step, (found, expected)) in losses.iter().zip(&results[0].1).enumerate() {
            assert!((found - expected).abs() < 1e-3, "{name}, step {step}: {found} {expected}");
        }
    }
}

#[test]
fn a_limit_rests_each_replica_on_its_own() {
    for device in devices() {
        let data = text(&device);
        let arena = arena(&device, &[1, 1], 2);
        let mut plan = plan(&arena, &data, vec![0..8, 0..8], 1);
        let mut states = plan.states().unwrap();
        states[1][tern_shaders::state::LIMIT] = 2;
        plan.set_states(&states).unwrap();
        let losses = plan.run(5).unwrap();
        assert_eq!(losses.by_replica.iter().map(Vec::len).collect::<Vec<_>>(), [5, 2]);
        let rested = arena.read(Flat::Parameters, 1).unwrap();
        plan.run(3).unwrap();
        assert!(arena.read(Flat::Parameters, 1).unwrap() == rested, "{}", device.name());
    }
}
