//! `src/wire.rs` is what prost makes of `src/wire.proto`. To make it anew:
//! `TERN_WRITE=1 cargo test -p tern-protocol --test wire`.

#![allow(clippy::disallowed_methods, reason = "a test reads and writes files")]

use std::path::Path;

#[test]
fn the_schema_and_its_code_agree() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let descriptors = protox::compile(["wire.proto"], [&source]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    prost_build::Config::new()
        // Sorted, so that the same message always has the same bytes.
        .btree_map(["."])
        .out_dir(folder.path())
        .compile_fds(descriptors)
        .unwrap();
    let made = std::fs::read_to_string(folder.path().join("tern.v1.rs")).unwrap();
    // What prost adds on its own has no comments.
    let made = format!(
        "//! Messages, made from `wire.proto`; see `tests/wire.rs`.\n\n#![allow(missing_docs)]\n\n{made}"
    );
    let path = source.join("wire.rs");
    if std::env::var_os("TERN_WRITE").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap();
    assert!(made == kept, "src/wire.rs is out of date: run with TERN_WRITE=1");
}
