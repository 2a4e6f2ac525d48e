//! Replicas side by side against separate runs, tiles, parts of a data set, reruns.
#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

mod common;

use common::{devices, tokens};
use tern_engine::nn::{Mode, ModelSpec};
use tern_engine::{
    Arena, Batching, Device, Flat, Graph, Kind, Optimizer, Plan, TextData, TextWindows, Training,
    Vector,
};
use tern_shaders::state::{self, StateRecord};

const VOCABULARY: usize = 17;

fn text(device: &Device) -> TextData {
    let texts = [tokens(300, VOCABULARY as u32, 1), tokens(150, VOCABULARY as u32, 2)];
    TextData::upload(device, &texts, TextWindows::new(VOCABULARY, 12)).unwrap()
}

/// A char-LSTM plan with dropout-free Adam and clipping; replica r trains on `parts[r]`.
fn plan(arena: &Arena, data: &TextData, parts: Vec<std::ops::Range<usize>>, seed: u32) -> Plan {
    let (_, model) = ModelSpec::language_model(VOCABULARY, 5, 9, 2).build().unwrap();
    let mut graph = Graph::new(arena);
    let batching = Batching::shuffled(4).parts(parts);
    let (inputs, targets) = graph.text_batch(data, &batching).unwrap();
    let logits = model.forward(&mut graph, inputs, Mode::Train).unwrap().output;
    let loss = graph.cross_entropy(logits, targets).unwrap();
    let training = Training::new(Optimizer::adam(), 0.01).clip_norm(0.5).seed(seed);
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
            // On the CPU, threads take whole replicas.
            let expected = if device.profile().kind == Kind::Cpu { 1 } else { tile };
            assert_eq!(plan.memory().tile, expected);
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
        states[1][state::LIMIT] = 2;
        plan.set_states(&states).unwrap();
        let losses = plan.run(5).unwrap();
        assert_eq!(losses.by_replica.iter().map(Vec::len).collect::<Vec<_>>(), [5, 2]);
        let rested = arena.read(Flat::Parameters, 1).unwrap();
        plan.run(3).unwrap();
        assert!(arena.read(Flat::Parameters, 1).unwrap() == rested, "{}", device.name());
    }
}

/// Large enough that one model alone is computed by several threads, where there are some.
#[test]
fn threads_that_take_whole_replicas_change_no_bit() {
    let device = Device::cpu();
    let (parameters, model) = ModelSpec::language_model(60, 16, 96, 1).build().unwrap();
    let texts: Vec<Vec<u32>> = (0..3).map(|i| tokens(900 + 400 * i, 60, i as u32)).collect();
    let data = TextData::upload(&device, &texts, TextWindows::new(60, 40)).unwrap();
    let train = |parts: &[std::ops::Range<usize>], seed: u32| {
        let arena = Arena::new(&device, &parameters, &vec![7; parts.len()]).unwrap();
        let mut graph = Graph::new(&arena);
        let batching = Batching::shuffled(10).parts(parts.to_vec());
        let (inputs, targets) = graph.text_batch(&data, &batching).unwrap();
        let logits = model.forward(&mut graph, inputs, Mode::Train).unwrap().output;
        let loss = graph.cross_entropy(logits, targets).unwrap();
        let training = Training::new(Optimizer::adam(), 0.01).seed(seed);
        let losses = graph.train(loss, &training).unwrap().run(3).unwrap().by_replica;
        let models: Vec<_> =
            (0..parts.len()).map(|r| arena.read(Flat::Parameters, r).unwrap()).collect();
        (losses, models)
    };
    let (losses, models) = train(data.parts(), 5);
    for r in 0..3 {
        let (alone, model) = train(&data.parts()[r..=r], 5 + r as u32);
        assert_eq!(losses[r], alone[0], "losses of replica {r}");
        assert!(models[r] == model[0], "parameters of replica {r}");
    }
}

#[test]
fn passes_run_apart_over_several_tiles() {
    for device in devices() {
        let data = text(&device);
        let run = |apart: bool| {
            let arena = arena(&device, &[3, 4, 5], 2);
            let mut plan = plan(&arena, &data, vec![0..20, 5..9, 20..37], 100);
            if apart {
                plan.forward().unwrap();
                let saved = plan.save().unwrap();
                plan.restore(&saved).unwrap();
                plan.backward().unwrap();
            } else {
                plan.run(1).unwrap();
            }
            // The whole step still finds what it needs.
            plan.run(1).unwrap();
            (0..3).map(|r| arena.read(Flat::Parameters, r).unwrap()).collect::<Vec<_>>()
        };
        assert!(run(true) == run(false), "{}", device.name());
    }
}

#[test]
fn another_round_takes_other_parts_and_limits_without_a_new_plan() {
    for device in devices() {
        let data = text(&device);
        let arena = arena(&device, &[1, 1], 2);
        let mut plan = plan(&arena, &data, vec![0..8, 0..8], 1);
        let schedule = tern_engine::Schedule::constant(0.01);
        let start = arena.read(Flat::Parameters, 0).unwrap();
        let mut round = |seed: u32| {
            for r in 0..2 {
                arena.write(Flat::Parameters, r, &start).unwrap();
            }
            let record = |part, limit| StateRecord::new(seed, part, 4, limit, &schedule);
            plan.set_states(&[record(5..9, 1), record(20..37, 5)]).unwrap();
            let losses = plan.run(5).unwrap();
            assert_eq!(losses.by_replica.iter().map(Vec::len).collect::<Vec<_>>(), [1, 5]);
            assert_eq!(losses.rows[1], [4.0, 4.0, 4.0, 4.0, 1.0]);
            (0..2).map(|r| arena.read(Flat::Parameters, r).unwrap()).collect::<Vec<_>>()
        };
        // Moments start anew with the first step, whatever the round before left.
        let first = round(9);
        assert!(first == round(9), "{}", device.name());
        assert!(first != round(10), "{}", device.name());
    }
}

#[test]
fn vectors_are_copied_on_their_device() {
    for device in devices() {
        let arena = arena(&device, &[3, 4], 2);
        let tile = Vector::of_tile(&arena, 0, Flat::Parameters).unwrap();
        let n = arena.parameters().words();
        let copy = Vector::zeros(&device, tern_engine::Element::F32, n).unwrap();
        copy.copy_from(&tile.slice(0, n).unwrap()).unwrap();
        let expected = tern_engine::Data::F32(arena.read(Flat::Parameters, 0).unwrap());
        assert!(copy.read().unwrap() == expected, "{}", device.name());
        assert!(copy.copy_from(&copy.slice(0, 64).unwrap()).is_err());
        assert!(copy.copy_from(&copy).is_err());
    }
}
