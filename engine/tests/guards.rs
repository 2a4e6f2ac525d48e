//! What a training step costs besides its time: dispatches, submits, GPU objects, memory. None
//! of it depends on the clock, so that a change that makes steps slow shows in any run.
#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

mod common;

use common::models::{char_lstm, classifier, convolutions, language_model};
use common::software;
use tern_engine::nn::ModelSpec;
use tern_engine::{Device, Plan};

/// What a step of a model may take.
struct Guard {
    model: &'static str,
    plan: fn(&Device) -> Plan,
    /// Dispatches on the CPU and on a software GPU.
    dispatches: [usize; 2],
    /// Mebibytes that they bind, each binding counted, rounded up.
    bound: [u64; 2],
}

/// The models of the benches. The first is that of FedAvg's Shakespeare task (McMahan et al.
/// 2017): 2 × 256, 80 characters.
const GUARDS: &[Guard] = &[
    Guard {
        model: "char-lstm",
        plan: |device| char_lstm(device, 256, 80),
        dispatches: [36, 352],
        bound: [208, 4292],
    },
    Guard {
        model: "word-lm",
        plan: |device| language_model(device, [10_000, 128, 256, 1], 20, 16),
        dispatches: [26, 64],
        bound: [427, 1192],
    },
    Guard {
        model: "mlp",
        plan: |device| classifier(device, &ModelSpec::mlp(784, &[256, 128], 10), 64),
        dispatches: [23, 23],
        bound: [17, 17],
    },
    Guard {
        model: "cnn",
        plan: |device| classifier(device, &convolutions(), 32),
        // On a GPU the second convolution is products of what its taps see.
        dispatches: [31, 37],
        bound: [33, 57],
    },
];

/// Fewer are welcome: lower the number. More make every step slower, on hardware most.
#[test]
fn steps_take_no_more_dispatches_and_bytes_than_they_did() {
    let mut over = Vec::new();
    let devices = [Some(Device::cpu()), software(false)];
    for (i, device) in devices.iter().enumerate().filter_map(|(i, d)| Some((i, d.as_ref()?))) {
        for guard in GUARDS {
            let plan = (guard.plan)(device);
            let (dispatches, bound) = (plan.dispatches(), plan.bytes_bound().div_ceil(1 << 20));
            let what = format!("{} on {}", guard.model, device.name());
            if dispatches > guard.dispatches[i] || bound > guard.bound[i] {
                over.push(format!("{what}: {dispatches} dispatches bind {bound} MiB"));
            }
        }
    }
    assert!(over.is_empty(), "{}", over.join("\n"));
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
