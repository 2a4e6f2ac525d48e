//! The recommender as processes: a server and its terminals over TLS.

#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

use std::fmt::Write as _;
use std::process::Command;

#[test]
fn terminals_are_processes() {
    let folder = tempfile::tempdir().unwrap();
    let mut text = String::from("town,MAGE,PCAR,PFIRE,PBOAT\n");
    for i in 0..120 {
        let [car, fire, boat] = [i % 3 != 2, i % 3 != 0, i % 7 == 0].map(i32::from);
        writeln!(text, "t{},{},{car},{fire},{boat}", i % 4, 3 * (i % 3)).unwrap();
    }
    let (data, report) = (folder.path().join("customers.csv"), folder.path().join("report"));
    std::fs::write(&data, text).unwrap();
    let run = Command::new(env!("CARGO_BIN_EXE_recommender"))
        .args(["--network", "--quick", "--device", "cpu", "--rounds", "25", "--cohort", "3"])
        .arg("--data")
        .arg(&data)
        .arg("--out")
        .arg(&report)
        .output()
        .unwrap();
    let (shown, errors) =
        (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{shown}{errors}");
    assert!(shown.contains("25 rounds of ternary delta by 5 processes"), "{shown}{errors}");
    let json = std::fs::read(report.join("network.json")).unwrap();
    let hits: serde_json::Value = serde_json::from_slice(&json).unwrap();
    // An untrained model ranks about two thirds of them first.
    assert!(hits["hit1"].as_f64().unwrap() > 0.85, "{hits}");
}
