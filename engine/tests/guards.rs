//! What a training step costs besides its time: dispatches, submits, GPU objects, memory. None
//! of it depends on the clock, so that a change that makes steps slow shows in any run.
#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

mod common;

use common::{software, tokens};
use tern_engine::nn::{Mode, ModelSpec};
use tern_engine::{Arena, Batching, Device, Graph, Optimizer, Plan, TextData, Training};

/// A character LSTM over `steps` characters in batches of 10, its loss taken at every position.
fn char_lstm(device: &Device, hidden: usize, steps: usize) -> Plan {
    let (parameters, model) = ModelSpec::language_model(90, 8, hidden, 2).build().unwrap();
    let arena = Arena::new(device, &parameters, &[1]).unwrap();
    let text = tokens(20 * steps + 1, 90, 1);
    let data = TextData::upload(device, &[text], 90, steps, steps).unwrap();
    let mut graph = Graph::new(&arena);
    let (inputs, targets) = graph.text_batch(&data, &Batching::in_order(10)).unwrap();
    let forward = model.forward(&mut graph, inputs, Mode::Train).unwrap();
    let loss = graph.cross_entropy(forward.output, targets).unwrap();
    graph.train(loss, &Training::new(Optimizer::sgd(), 0.1)).unwrap()
}

/// The model of FedAvg's Shakespeare task (McMahan et al. 2017): 2 × 256, 80 characters.
#[test]
fn a_step_of_the_character_model_takes_few_dispatches() {
    let cpu = char_lstm(&Device::cpu(), 256, 80);
    assert!(cpu.dispatches() <= 60, "{} dispatches on the CPU", cpu.dispatches());
    if let Some(device) = software(false) {
        let plan = char_lstm(&device, 256, 80);
        assert!(plan.dispatches() <= 600, "{} dispatches", plan.dispatches());
    }
}

#[test]
fn ten_steps_take_no_more_submits_than_one_and_create_nothing() {
    let Some(device) = software(false) else { return };
    // Small, so that ten steps stay within what a submit may take whatever the machine.
    let mut plan = char_lstm(&device, 32, 20);
    plan.run(1).unwrap();
    let created = device.created();
    // What a step takes is learned from the first submits.
    plan.run(10).unwrap();
    let mut submits = |steps: usize| {
        let before = device.submits();
        plan.run(steps).unwrap();
        device.submits() - before
    };
    let (one, ten) = (submits(1), submits(10));
    assert_eq!(one, ten, "submits of one and of ten steps");
    // The steps, and reading the step count before and after them and the losses.
    assert_eq!(ten, 4);
    assert_eq!(device.created(), created, "GPU objects created after the first run");
}

#[test]
fn predicted_memory_is_what_is_allocated() {
    for device in [software(false), software(true)].into_iter().flatten() {
        let before = device.allocated();
        let mut plan = char_lstm(&device, 64, 20);
        let predicted = plan.memory();
        plan.run(2).unwrap();
        assert_eq!(device.allocated() - before, predicted.total(), "{predicted:?}");
    }
}
