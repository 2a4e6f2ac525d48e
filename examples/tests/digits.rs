//! The digits as processes: a server and its nodes over TLS.

#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

mod common;

use std::process::Command;

#[test]
fn nodes_are_processes_and_come_to_the_bits_of_a_simulation() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report");
    let mut command = Command::new(env!("CARGO_BIN_EXE_digits-transfer"));
    command.args(["--network", "--exchanges", "5"]);
    let (shown, json) = common::run(&mut command, &report, "network.json");
    assert!(shown.contains("64 rounds by 3 processes"), "{shown}");
    assert!(shown.contains("the same, bit by bit"), "{shown}");
    assert_eq!(json["same_bits"].as_bool(), Some(true));
    // An untrained model reads a tenth of them.
    assert!(json["aligned"].as_f64().unwrap() > 0.4, "{json}");
}
