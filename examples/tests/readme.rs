//! What the documentation promises: tests that the READMEs name, and examples of public modules.

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

    let texts = ["examples/README.md", "SECURITY.md"]
        .map(|name| std::fs::read_to_string(root.join(name)).unwrap());
    let (mut checked, mut missing) = (0, Vec::new());
    let lines = texts.iter().flat_map(|text| text.lines());
    for line in lines.filter(|line| line.starts_with('|')) {
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
    assert!(checked > 70, "{checked} names");
}

/// A module's file, and the folder of the modules in it.
fn module(folder: &Path, name: &str) -> Option<(PathBuf, PathBuf)> {
    let inner = folder.join(name);
    let file = [folder.join(format!("{name}.rs")), inner.join("mod.rs")];
    file.into_iter().find(|file| file.exists()).map(|file| (file, inner))
}

/// Whether the documentation of a module, or of what is in its private modules, has an example.
fn has_example(file: &Path, folder: &Path) -> bool {
    let text = std::fs::read_to_string(file).unwrap();
    let example = text.lines().any(|line| {
        let fence = line.trim_start().trim_start_matches("//!").trim_start_matches("///").trim();
        matches!(fence, "```" | "```rust") && line.trim_start().starts_with("//")
    });
    let inner = text.lines().filter_map(|line| line.trim().strip_prefix("mod ")?.strip_suffix(';'));
    example || inner.filter_map(|name| module(folder, name)).any(|(f, d)| has_example(&f, &d))
}

/// Whether a declaration has an example in the documentation before it.
fn declared_with_example(text: &str, name: &str) -> bool {
    let before: Vec<&str> =
        text.lines().take_while(|line| line.trim() != format!("pub mod {name};")).collect();
    let own =
        before.iter().rev().take_while(|line| line.starts_with("///") || line.starts_with("#["));
    own.into_iter().any(|line| line.trim() == "/// ```")
}

fn visit(file: &Path, folder: &Path, bare: &mut Vec<String>) {
    let text = std::fs::read_to_string(file).unwrap();
    let public =
        |line: &str| Some(line.trim().strip_prefix("pub mod ")?.strip_suffix(';')?.to_owned());
    for name in text.lines().filter_map(public) {
        let Some((file, folder)) = module(folder, &name) else { continue };
        if !has_example(&file, &folder) && !declared_with_example(&text, &name) {
            bare.push(file.display().to_string());
        }
        visit(&file, &folder, bare);
    }
}

#[test]
fn every_public_module_has_an_example() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let runtime = ["secagg", "protocol", "host", "server", "client", "simulate", "methods", "."];
    let crates = ["shaders".into(), "engine".into()]
        .into_iter()
        .chain(runtime.map(|name| format!("fl-runtime/{name}")));
    let mut bare = Vec::new();
    for name in crates {
        let source = root.join(name).join("src");
        if !has_example(&source.join("lib.rs"), &source) {
            bare.push(source.display().to_string());
        }
        visit(&source.join("lib.rs"), &source, &mut bare);
    }
    assert!(bare.is_empty(), "no example in the documentation of {bare:#?}");
}
