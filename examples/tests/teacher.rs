//! The teacher ensemble as processes: a server with the teachers, and its students over TLS.

#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

mod common;

use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn run(data: &Path, report: &Path, more: &[&str]) -> (String, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_teacher-ensemble"));
    command
        .args(["--quick", "--teachers", "10", "--queries", "60"])
        .args(["--epsilon", "20", "--label", "class"])
        .args(more)
        .arg("--data")
        .arg(data);
    common::run(&mut command, report, "results.json")
}

/// (2.4, 2.5) Labels, refusals and their price are the same over the network.
#[test]
fn students_are_processes_that_learn_what_those_of_the_simulation_learn() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("own.csv");
    let mut text = "x,y,class\n".to_owned();
    for i in 0..600u32 {
        let [a, b, ..] = tern_shaders::kernels::random::pcg4d([i, 1, 2, 3]).map(|n| n % 1000);
        text += &format!("{a},{b},{}\n", ["no", "yes"][usize::from(a + b > 1000)]);
    }
    std::fs::write(&data, text).unwrap();
    let (_, simulated) = run(&data, &folder.path().join("simulation"), &[]);
    let report = folder.path().join("network");
    let (shown, network) = run(&data, &report, &["--network"]);
    assert!(shown.contains("4 processes over TLS"), "{shown}");
    let [simulated, network] = [simulated, network].map(|json| json["sets"][0]["lessons"].clone());
    assert_eq!(simulated[0]["students"].as_array().unwrap().len(), 3);
    assert!(simulated[0]["students"][0]["refusal"].is_string(), "{simulated}");
    // Each student's model is where the student is.
    let models = |mut sets: Value| {
        let students = sets[0]["students"].as_array_mut().unwrap().iter_mut();
        let files = students.map(|student| student["file"].take());
        let bytes = files.map(|file| std::fs::read(file.as_str().unwrap()).unwrap());
        (bytes.collect::<Vec<_>>(), sets)
    };
    assert!(models(simulated) == models(network));
}

/// The bundled sets are there and can be taught, in a fraction of the quick run.
#[test]
fn a_short_run_on_the_bundled_sets_ends_well() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report");
    let mut command = Command::new(env!("CARGO_BIN_EXE_teacher-ensemble"));
    command.args(["--quick", "--teachers", "20", "--queries", "60"]);
    let (shown, json) = common::run(&mut command, &report, "results.json");
    for (set, name) in ["MNIST 8×8", "Adult"].into_iter().enumerate() {
        assert_eq!(json["sets"][set]["name"], name, "{shown}");
        let lesson = &json["sets"][set]["lessons"][0];
        assert!(lesson["ensemble"].as_f64().unwrap() > 0.8, "{lesson}");
    }
}
