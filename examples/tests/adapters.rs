//! Federated adapters as a command.

#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

mod common;

use std::process::Command;

#[test]
fn a_short_run_on_the_bundled_addresses_ends_well() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_adapters"));
    let small = ["--plays", "4", "--rounds", "1", "--steps", "1", "--window", "16"];
    command.args(small).args(["--speakers", "4", "--rank", "2", "--only", "half,secure"]);
    let (shown, found) = common::run(&mut command, folder.path(), "results.json");
    assert!(shown.contains("4 clients") && shown.contains("of adapters of rank 2"), "{shown}");
    let ways = found["ways"].as_array().unwrap();
    assert_eq!(ways.len(), 2);
    // Masked words are as long as floats, and metrics come after them.
    assert!(ways[1]["bytes"].as_u64() > ways[0]["bytes"].as_u64().map(|bytes| 2 * bytes));
}
