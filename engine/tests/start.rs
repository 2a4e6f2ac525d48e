//! What a GPU's second start finds done: self-tests, and on Vulkan pipelines.
#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

mod common;

use std::path::{Path, PathBuf};

use common::models::classifier;
use tern_engine::nn::ModelSpec;
use tern_engine::{Device, DeviceOptions, Kind, Outcome, Select};

/// The device as `common::software` opens it, with what it learns kept in a folder.
fn start(folder: &Path) -> Device {
    let options = DeviceOptions::new(Select::Kind(Kind::Software)).checked(true).cache(folder);
    pollster::block_on(Device::open(&options)).unwrap()
}

/// Losses of three steps, and how many self-tests came before them.
fn train(device: &Device) -> (Vec<Vec<f32>>, usize) {
    let mut plan = classifier(device, &ModelSpec::mlp(784, &[16], 10), 8);
    (plan.run(3).unwrap().by_replica, device.self_tests_run())
}

/// The one file of a kind, if there is something to keep.
fn file(folder: &Path, what: &str) -> Option<PathBuf> {
    let files = std::fs::read_dir(folder.join(what)).into_iter().flatten();
    let files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    assert!(files.len() < 2, "{files:?}: one file of an adapter");
    files.into_iter().next()
}

#[test]
fn a_second_start_runs_no_self_test_again() {
    if common::software(false).is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (losses, tested) = train(&start(folder));
    // Only what the plan takes is tested, not each that needs a feature.
    let all = start(folder).self_tests();
    let passed = || all.iter().filter(|t| matches!(t.outcome, Outcome::Passed(_)));
    assert_eq!(passed().count(), tested, "{all:?}");
    assert!(tested < all.len(), "{tested} self-tests of {}", all.len());
    assert_eq!(train(&start(folder)), (losses.clone(), 0));
    // A device may have no feature that the plan could use; llvmpipe has.
    let Some(kept) = file(folder, "self-tests-checked") else {
        assert_eq!(tested, 0, "{all:?}");
        assert!(!start(folder).summary().name.contains("llvmpipe"), "{all:?}");
        return;
    };
    assert!(tested > 0);

    // Without a folder all is done anew, as it is where a file is damaged or another driver's.
    assert_eq!(train(&common::software(false).unwrap()), (losses.clone(), tested));
    let text = std::fs::read_to_string(&kept).unwrap();
    for damaged in
        [text.replace("passed", "failed"), text.replace("# Tern", "# tern"), String::new()]
    {
        std::fs::write(&kept, damaged).unwrap();
        assert_eq!(train(&start(folder)), (losses.clone(), tested));
        assert_eq!(std::fs::read_to_string(&kept).unwrap(), text, "written anew");
    }
}

/// What a driver gives away is its own, if it does; that it takes it back, and goes on without where
/// there is something wrong with it, is held here.
#[test]
fn pipelines_are_kept_and_damaged_ones_left_out() {
    let Some(device) = common::software(false) else { return };
    let (losses, _) = train(&device);
    if device.summary().backend != "Vulkan" {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    assert_eq!(train(&start(folder)).0, losses);
    let Some(kept) = file(folder, "pipelines") else {
        // llvmpipe and SwiftShader give nothing away.
        assert_eq!(train(&start(folder)).0, losses);
        assert_eq!(file(folder, "pipelines"), None);
        return;
    };
    let whole = std::fs::read(&kept).unwrap();
    assert_eq!(train(&start(folder)).0, losses);
    assert_eq!(std::fs::read(&kept).unwrap(), whole, "the same pipelines");
    let mut damaged = whole.clone();
    *damaged.last_mut().unwrap() ^= 1;
    for content in [damaged, whole[..whole.len() / 2].to_vec(), Vec::new()] {
        std::fs::write(&kept, content).unwrap();
        assert_eq!(train(&start(folder)).0, losses);
        assert_eq!(std::fs::read(&kept).unwrap(), whole, "written anew");
    }
}
