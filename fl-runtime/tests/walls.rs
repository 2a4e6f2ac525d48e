//! What each crate may never depend on, however indirectly (see ARCHITECTURE.md, "Crates").

#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

use std::collections::BTreeSet;
use std::process::Command;

const NETWORK: &[&str] = &["axum", "hyper", "quinn", "reqwest", "rustls", "tokio"];
const STORAGE: &[&str] = &["rusqlite"];
const TERMINAL: &[&str] = &["clap", "plotters", "ratatui", "tracing-subscriber"];

/// A crate, and what it must not depend on.
const WALLS: &[(&str, &[&[&str]])] = &[
    ("tern-shaders", &[NETWORK, STORAGE, TERMINAL, &["naga", "tern-engine", "wgpu"]]),
    ("tern-engine", &[NETWORK, STORAGE, TERMINAL, &["tern-protocol", "tern-secagg", "tern-fl"]]),
    (
        "tern-secagg",
        &[
            NETWORK,
            STORAGE,
            TERMINAL,
            &["prost", "tern-engine", "tern-protocol", "tern-fl", "wgpu"],
        ],
    ),
    ("tern-protocol", &[NETWORK, STORAGE, TERMINAL, &["naga", "tern-fl", "wgpu"]]),
];

/// All that a crate is built from, itself included.
fn dependencies(of: &str) -> BTreeSet<String> {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command.args(["tree", "--package", of, "--edges", "normal", "--prefix", "none"]);
    let output = command.args(["--format", "{p}", "--locked", "--offline"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().filter_map(|line| line.split(' ').next()).map(String::from).collect()
}

#[test]
fn crates_stay_on_their_side() {
    for (name, forbidden) in WALLS {
        let found = dependencies(name);
        assert!(found.contains(*name), "{name} isn't in its own tree");
        for crate_name in forbidden.iter().copied().flatten() {
            assert!(!found.contains(*crate_name), "{name} depends on {crate_name}");
        }
    }
    // The tree is looked at, not something empty.
    assert!(dependencies("tern-protocol").contains("tern-secagg"));
}
