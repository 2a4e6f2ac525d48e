//! Running a demo as a user would.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// What a command with these options prints, run on the Cpu, and a file of its report.
///
/// # Panics
/// If it fails, with all that it printed.
pub fn run(command: &mut Command, report: &Path, file: &str) -> (String, Value) {
    let run = command.args(["--device", "cpu", "--out"]).arg(report).output().unwrap();
    let [shown, errors] = [&run.stdout, &run.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(run.status.success(), "{shown}{errors}");
    let json = std::fs::read(report.join(file)).unwrap();
    (format!("{shown}{errors}"), serde_json::from_slice(&json).unwrap())
}
