//! The keyboard as processes: a server and its users' devices over TLS.

#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

mod common;

use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn run(data: &Path, report: &Path, more: &[&str]) -> (String, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyboard"));
    command
        .args(["--quick", "--steps", "8", "--records", "700"])
        .args(more)
        .arg("--data")
        .arg(data);
    common::run(&mut command, report, "results.json")
}

/// Numbers that must be the same wherever they were found: all but times.
fn figures(results: &Value) -> Vec<f64> {
    fn collect(value: &Value, key: &str, into: &mut Vec<f64>) {
        match value {
            Value::Number(number) if key != "seconds" => into.push(number.as_f64().unwrap()),
            Value::Array(all) => all.iter().for_each(|value| collect(value, key, into)),
            Value::Object(all) => all.iter().for_each(|(key, value)| collect(value, key, into)),
            _ => {}
        }
    }
    let mut figures = Vec::new();
    collect(&results["users"], "", &mut figures);
    collect(&results["public"]["held_out"], "", &mut figures);
    figures
}

#[test]
fn devices_are_processes_that_find_what_the_simulation_finds() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("mine.txt");
    let said = |name: &str, what: &str| format!("@{name}\n{}", format!("{what}\n").repeat(120));
    let text = ["a", "b", "c", "d"].map(|name| said(name, "so it goes on and on"));
    let users = [said("5/ann", "to be or not to be so"), said("5/bob", "never say never again")];
    let plays = (1..5).map(|i| text[i - 1].replace('@', &format!("@{i}/")));
    // Somebody who says too little to learn from.
    let text = plays.collect::<String>() + &users.concat() + "@5/eve\nhi\nho\n";
    let line = text.lines().count() - 2;
    std::fs::write(&data, text).unwrap();

    let (told, simulated) = run(&data, &folder.path().join("simulation"), &["--study", "0"]);
    let report = folder.path().join("network");
    let (shown, network) = run(&data, &report, &["--network"]);
    assert!(shown.contains("3 processes over TLS"), "{shown}");
    assert_eq!(network["users"].as_array().unwrap().len(), 2, "{shown}");
    for (shown, results) in [(&told, &simulated), (&shown, &network)] {
        let refused = shown.lines().find(|line| line.starts_with("5/eve does not take part. "));
        let place = format!("mine.txt:{line}: 6 characters");
        assert!(refused.is_some_and(|refused| refused.contains(&place)), "{shown}");
        assert_eq!(results["refused"][0][0], "5/eve", "{results}");
    }
    assert_eq!(network["users"][0]["merge"]["version"], 2, "the newer model came, too");
    let [a, b] = [&simulated, &network].map(figures);
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(&b) {
        assert!((a - b).abs() <= 1e-12 * a.abs(), "{a} and {b}\n{simulated}\n{network}");
    }
}
