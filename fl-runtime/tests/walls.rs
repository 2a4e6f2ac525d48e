//! What each crate may never depend on, however indirectly (see ARCHITECTURE.md, "Crates").

#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

use std::collections::BTreeSet;
use std::process::Command;

const NETWORK: &[&str] = &["axum", "hyper", "reqwest", "tokio"];
const TLS: &[&str] = &["rustls"];
const STORAGE: &[&str] = &["rusqlite"];
/// What only fleets are kept in.
const FLEET: &[&str] = &["object_store", "sqlx-core", "sqlx-postgres", "tern-fleet"];
const TERMINAL: &[&str] = &["clap", "ratatui", "tracing-subscriber"];
const GPU: &[&str] = &["naga", "wgpu"];
/// The runtime above its protocol.
const RUNTIME: &[&str] =
    &["tern-client", "tern-fl", "tern-host", "tern-methods", "tern-server", "tern-simulate"];

/// A crate, what it is built with, and what it must not depend on.
const WALLS: &[(&str, &str, &[&[&str]])] = &[
    ("tern-shaders", "", &[NETWORK, TLS, STORAGE, TERMINAL, GPU, RUNTIME, &["tern-engine"]]),
    ("tern-engine", "", &[NETWORK, TLS, STORAGE, TERMINAL, GPU, RUNTIME, &["tern-protocol"]]),
    ("tern-engine", "gpu", &[NETWORK, TLS, STORAGE, TERMINAL, RUNTIME, &["tern-protocol"]]),
    (
        "tern-secagg",
        "",
        &[
            NETWORK,
            TLS,
            STORAGE,
            TERMINAL,
            GPU,
            RUNTIME,
            &["prost", "tern-engine", "tern-protocol"],
        ],
    ),
    ("tern-protocol", "", &[NETWORK, TLS, STORAGE, TERMINAL, GPU, RUNTIME]),
    ("tern-host", "", &[NETWORK, TLS, STORAGE, TERMINAL, GPU, &["tern-server", "tern-client"]]),
    ("tern-host", "tls", &[NETWORK, STORAGE, TERMINAL, GPU]),
    ("tern-server", "", &[NETWORK, TLS, TERMINAL, GPU, &["tern-client", "tern-simulate"]]),
    (
        "tern-server",
        "http",
        &[GPU, FLEET, &["clap", "ratatui", "reqwest", "tern-client", "tern-methods"]],
    ),
    ("tern-fleet", "", &[TERMINAL, GPU, &["tern-client", "tern-simulate", "tern-methods"]]),
    ("tern-client", "", &[STORAGE, TERMINAL, GPU, &["axum", "tern-server", "tern-methods"]]),
    ("tern-simulate", "files", &[NETWORK, TLS, STORAGE, TERMINAL, GPU, &["tern-server"]]),
    ("tern-methods", "", &[NETWORK, TLS, STORAGE, TERMINAL, GPU, &["tern-simulate"]]),
    ("tern-methods", "client", &[STORAGE, TERMINAL, GPU, &["axum", "tern-server"]]),
    ("tern-methods", "server", &[GPU, &["reqwest", "tern-client", "tern-simulate"]]),
    // Without its command.
    ("tern-benches", "", &[NETWORK, TLS, STORAGE, TERMINAL, RUNTIME]),
    ("tern-fl", "local", &[NETWORK, TLS, TERMINAL, GPU]),
    ("tern-fl", "client,server,methods,simulate", &[GPU, &["clap", "ratatui"]]),
    ("tern-fl", "cli,gpu,methods", &[FLEET, &["parquet"]]),
];

/// All that a crate is built from with these features, itself included.
fn dependencies(of: &str, features: &str) -> BTreeSet<String> {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command.args(["tree", "--package", of, "--edges", "normal", "--prefix", "none"]);
    command.args(["--no-default-features", "--features", features]);
    let output = command.args(["--format", "{p}", "--locked", "--offline"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().filter_map(|line| line.split(' ').next()).map(String::from).collect()
}

#[test]
fn crates_stay_on_their_side() {
    for (name, features, forbidden) in WALLS {
        let found = dependencies(name, features);
        assert!(found.contains(*name), "{name} isn't in its own tree");
        for crate_name in forbidden.iter().copied().flatten() {
            assert!(
                !found.contains(*crate_name),
                "{name} with `{features}` depends on {crate_name}"
            );
        }
    }
    // The trees are looked at, not something empty, and no name is misspelled.
    let all = dependencies("tern-fl", "cli,fleet,gpu,methods,parquet");
    for crate_name in WALLS.iter().flat_map(|(.., forbidden)| forbidden.iter().copied().flatten()) {
        assert!(all.contains(*crate_name), "nothing depends on {crate_name}");
    }
}
