//! The digits as processes: a server and its nodes over TLS.

#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

mod common;

use std::process::Command;

#[test]
fn nodes_are_processes_and_come_to_the_bits_of_a_simulation() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report");
    let mut command = Command::new(env!("CARGO_BIN_EXE_digits-transfer"));
    command.args(["--quick", "--network", "--exchanges", "5"]);
    let (shown, json) = common::run(&mut command, &report, "network.json");
    for (at, (by, processes)) in [("a third node", 3), ("the target", 2)].into_iter().enumerate() {
        let line = format!("added up by {by}: 64 rounds by {processes} processes");
        assert!(shown.contains(&line), "{shown}");
        assert_eq!(json[at]["same_bits"].as_bool(), Some(true), "{shown}");
        // An untrained model reads a tenth of them.
        assert!(json[at]["aligned"].as_f64().unwrap() > 0.4, "{json}");
    }
    assert_eq!(shown.matches("the same, bit by bit").count(), 2, "{shown}");
    assert_eq!(json[1]["aggregator"], "target");
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let header = "added up by no adaptation Align gain";
    assert!(shown.lines().any(|line| words(line) == header), "{shown}");
    assert!(report.join("loss.svg").exists());
    // The target took part where it served: nobody else was started for it.
    let log = |place: &str| report.join("network").join(place).join("1.log").exists();
    assert_eq!([log("third-node"), log("target")], [true, false]);
}
