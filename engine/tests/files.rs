//! Model files and checkpoints: what is saved comes back, and what is broken is named.
#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

mod common;

use std::path::Path;

use common::{devices, tokens};
use tern_engine::nn::{Mode, ModelSpec};
use tern_engine::{
    Arena, Batching, Device, Error, Flat, Graph, Optimizer, Parameters, Plan, TextData,
    TextWindows, Training, load_checkpoint, load_model, save_checkpoint, save_model,
};
use tern_shaders::state::STEP;

fn parameters() -> Parameters {
    ModelSpec::language_model(11, 4, 6, 1).build().unwrap().0
}

fn plan(arena: &Arena, mode: Mode) -> Plan {
    let (_, model) = ModelSpec::language_model(11, 4, 6, 1).build().unwrap();
    let data =
        TextData::upload(arena.device(), &[tokens(500, 11, 3)], TextWindows::new(11, 7)).unwrap();
    let mut graph = Graph::new(arena);
    let (inputs, targets) = match mode.carries() {
        true => graph.stream_batch(&data, 3).unwrap(),
        false => graph.text_batch(&data, &Batching::shuffled(3)).unwrap(),
    };
    let logits = model.forward(&mut graph, inputs, mode).unwrap().output;
    let loss = graph.cross_entropy(logits, targets).unwrap();
    graph.train(loss, &Training::new(Optimizer::adam(), 0.01)).unwrap()
}

#[test]
fn a_checkpoint_resumes_to_the_same_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    for device in devices() {
        for mode in [Mode::Train, Mode::TrainCarrying] {
            let arena = Arena::new(&device, &parameters(), &[1, 2]).unwrap();
            let mut whole = plan(&arena, mode);
            whole.run(5).unwrap();
            save_checkpoint(&path, &mut whole).unwrap();
            let losses = whole.run(30).unwrap();

            let other = Arena::new(&device, &parameters(), &[8, 9]).unwrap();
            let mut resumed = plan(&other, mode);
            load_checkpoint(&path, &mut resumed).unwrap();
            assert!(resumed.run(30).unwrap() == losses, "{} {mode:?}", device.name());
            for replica in 0..2 {
                let found = other.read(Flat::Parameters, replica).unwrap();
                assert!(found == arena.read(Flat::Parameters, replica).unwrap());
            }
            // Back to where the plan began, not to where the checkpoint was.
            resumed.rewind().unwrap();
            assert_eq!(resumed.states().unwrap()[0][STEP], 0);
        }
    }
}

#[test]
fn a_model_goes_on_on_another_device() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let devices = devices();
    let Some(gpu) = devices.get(1) else { return };
    let arena = Arena::new(gpu, &parameters(), &[1]).unwrap();
    let mut lost = plan(&arena, Mode::Train);
    lost.run(5).unwrap();
    save_checkpoint(&path, &mut lost).unwrap();
    let expected = lost.run(5).unwrap().by_replica.remove(0);

    let broken = common::software(false).unwrap();
    let arena = Arena::new(&broken, &parameters(), &[1]).unwrap();
    let mut plan_on_broken = plan(&arena, Mode::Train);
    plan_on_broken.run(1).unwrap();
    broken.destroy();
    let error = plan_on_broken.run(1).unwrap_err();
    assert!(matches!(error, Error::DeviceLost(_)), "{error}");

    let arena = Arena::new(&Device::cpu(), &parameters(), &[1]).unwrap();
    let mut resumed = plan(&arena, Mode::Train);
    load_checkpoint(&path, &mut resumed).unwrap();
    let found = resumed.run(5).unwrap().by_replica.remove(0);
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() < 1e-4, "{found} {expected}");
    }
}

#[test]
fn a_model_file_round_trips() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let parameters = parameters();
    let flat = parameters.initial(5);
    save_model(&path, &parameters, &flat).unwrap();
    assert!(load_model(&path, &parameters).unwrap() == flat);
}

fn refused(path: &Path, expected: &str) {
    let error = load_model(path, &parameters()).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::File { .. }), "{text}");
    let file = path.file_name().unwrap().to_str().unwrap();
    assert!(text.contains(expected) && text.contains(file), "{text}");
}

#[test]
fn broken_model_files_are_named_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    refused(&path, "No such file");

    std::fs::write(&path, b"").unwrap();
    refused(&path, "is empty");

    let parameters = parameters();
    let flat = parameters.initial(5);
    save_model(&path, &parameters, &flat).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    for cut in [4, 8, 100, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        refused(&path, "no complete safetensors file");
    }
    std::fs::write(&path, b"PK\x03\x04 something else entirely").unwrap();
    refused(&path, "no complete safetensors file");

    let (wider, _) = ModelSpec::language_model(11, 5, 6, 1).build().unwrap();
    save_model(&path, &wider, &wider.initial(1)).unwrap();
    refused(&path, "`embedding.weight` is [11, 5], expected [11, 4]");

    let (deeper, _) = ModelSpec::language_model(11, 4, 6, 2).build().unwrap();
    save_model(&path, &deeper, &deeper.initial(1)).unwrap();
    refused(&path, "which the model lacks");

    let mut spec = ModelSpec::language_model(11, 4, 6, 1);
    spec.layers[2].0 = "head".into();
    let (renamed, _) = spec.build().unwrap();
    save_model(&path, &renamed, &renamed.initial(1)).unwrap();
    refused(&path, "has no `output.weight`, `output.bias`, but `head.bias`");

    let mut poisoned = flat;
    poisoned[3] = f32::NAN;
    save_model(&path, &parameters, &poisoned).unwrap();
    refused(&path, "not finite");
}

#[test]
fn a_foreign_checkpoint_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let (foreign, _) = ModelSpec::language_model(11, 4, 6, 2).build().unwrap();
    save_model(&path, &foreign, &foreign.initial(1)).unwrap();
    let arena = Arena::new(&Device::cpu(), &parameters(), &[1]).unwrap();
    let mut plan = plan(&arena, Mode::Train);
    let before = arena.read(Flat::Parameters, 0).unwrap();
    let error = load_checkpoint(&path, &mut plan).unwrap_err().to_string();
    assert!(error.contains("expected tern-checkpoint"), "{error}");
    assert!(arena.read(Flat::Parameters, 0).unwrap() == before);
}
