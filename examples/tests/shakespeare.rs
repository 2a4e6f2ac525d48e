//! The Shakespeare experiment as a command.

#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

mod common;

use std::process::Command;

#[test]
fn a_short_run_on_the_bundled_roles_ends_well() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_shakespeare"));
    let small = ["--hidden", "8", "--cohort", "4", "--epochs", "1", "--test", "2000"];
    command.args(small).args(["--rounds", "2", "--target", "99"]);
    let (shown, found) = common::run(&mut command, folder.path(), "results.json");
    assert!(shown.contains("1280 clients, 4 a round") && shown.contains("Not 99 % after 2 rounds"));
    assert_eq!(
        (found["rounds"].as_array().unwrap().len(), found["tested"].as_u64()),
        (2, Some(2000))
    );
    // The keyboard's users can have it.
    let model = folder.path().join("public-v2.safetensors");
    let report = folder.path().join("keyboard");
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyboard"));
    command.args(["--quick", "--users", "1", "--study", "0", "--records", "30000", "--model"]);
    let (shown, _) = common::run(command.arg(&model), &report, "results.json");
    assert!(shown.contains("Public model v2") && shown.contains("Median of 1 speakers"), "{shown}");
}
