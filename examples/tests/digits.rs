//! The digits as processes: a server and its nodes over TLS.

#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

use std::process::Command;

#[test]
fn nodes_are_processes_and_come_to_the_bits_of_a_simulation() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report");
    let run = Command::new(env!("CARGO_BIN_EXE_digits-transfer"))
        .args(["--network", "--quick", "--device", "cpu", "--exchanges", "5"])
        .arg("--out")
        .arg(&report)
        .output()
        .unwrap();
    let (shown, errors) =
        (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{shown}{errors}");
    assert!(shown.contains("64 rounds by 3 processes"), "{shown}{errors}");
    assert!(shown.contains("the same, bit by bit"), "{shown}{errors}");
    let json = std::fs::read(report.join("network.json")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["same_bits"].as_bool(), Some(true));
    // An untrained model reads a tenth of them.
    assert!(json["aligned"].as_f64().unwrap() > 0.4, "{json}");
}
