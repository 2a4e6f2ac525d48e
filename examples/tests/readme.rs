//! The README's tables of requirements name tests: each of them is there.

#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The source files below a folder.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            sources(&path, found);
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

#[test]
fn tests_that_requirements_name_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    sources(root, &mut files);
    let mut tests = BTreeSet::new();
    for file in &files {
        let text = std::fs::read_to_string(file).unwrap();
        for attribute in ["#[test]", "#[tokio::test"] {
            let names = text.split(attribute).skip(1).filter_map(|after| {
                let name = after.split_once("fn ")?.1.split('(').next()?;
                Some(name.to_owned())
            });
            tests.extend(names);
        }
    }

    let readme = std::fs::read_to_string(root.join("examples/README.md")).unwrap();
    let (mut checked, mut missing) = (0, Vec::new());
    for line in readme.lines().filter(|line| line.starts_with('|')) {
        let quoted = line.split('`').skip(1).step_by(2);
        for name in quoted.filter(|name| !name.contains([' ', '-', '='])) {
            let test = name.rsplit("::").next().unwrap();
            if name.ends_with(".rs") {
                checked += 1;
                if !files.iter().any(|file| file.ends_with(name)) {
                    missing.push(name);
                }
            } else if test.matches('_').count() > 2 {
                checked += 1;
                if !tests.contains(test) {
                    missing.push(name);
                }
            }
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
    assert!(checked > 50, "{checked} names");
}
