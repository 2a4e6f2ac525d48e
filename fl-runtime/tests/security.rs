//! SECURITY.md names a test for each attack that it tells of.

#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

use std::path::{Path, PathBuf};

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => sources(&path, found),
            false if path.extension().is_some_and(|end| end == "rs") => found.push(path),
            false => {}
        }
    }
}

#[test]
fn every_attack_has_its_test() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(here.join("../SECURITY.md")).unwrap();
    let mut paths = Vec::new();
    sources(here, &mut paths);
    let code: Vec<String> =
        paths.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let mut tests = 0;
    for row in text.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        let quoted = cells.last().unwrap().split('`').skip(1).step_by(2);
        for name in quoted.filter(|name| name.contains('_') && !name.contains('.')) {
            let function = name.rsplit("::").next().unwrap();
            let is_test = |text: &String| {
                let at = text.find(&format!("fn {function}("));
                at.is_some_and(|at| {
                    let before: Vec<&str> = text[..at].trim_end().lines().rev().take(4).collect();
                    before.iter().any(|line| line.contains("#[test]") || line.contains("::test"))
                })
            };
            assert!(code.iter().any(is_test), "there is no test {name}, of {row}");
            tests += 1;
        }
    }
    assert!(tests > 25, "{tests} tests are named");
}
