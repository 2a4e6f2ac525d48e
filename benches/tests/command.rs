//! The command as it is called. That there is such a test has `cargo test` build the command,
//! which CI runs then.
#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

use std::process::Command;

fn refused(arguments: &[&str]) -> String {
    let command = env!("CARGO_BIN_EXE_tern-benches");
    let output = Command::new(command).args(arguments).output().unwrap();
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn wrong_options_are_refused_by_name() {
    for (arguments, expected) in [
        (&["--isa", "avx9"][..], "avx512, avx2, neon or base"),
        (&["rounds", "--threads", "0"], "--threads"),
        (&["steps", "resnet", "1"], "\"resnet\", expected one of char-lstm"),
        (&["instructions", "resnet"], "no model's name contains \"resnet\""),
        (&["instructions", "--file", "/nowhere/counts.json"], "/nowhere/counts.json"),
        (&["report", "--compilers", "/nowhere/a.md", "--html", "page.html"], "/nowhere/a.md"),
        (&["report"], "<REPORTS>"),
    ] {
        let said = refused(arguments);
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
}

#[test]
fn compilers_tables_alone_make_a_page() {
    let page = std::env::temp_dir().join(format!("tern-page-{}.html", std::process::id()));
    let tables = concat!(env!("CARGO_MANIFEST_DIR"), "/reports/compilers");
    let output = Command::new(env!("CARGO_BIN_EXE_tern-benches"))
        .args(["report", "--compilers", tables, "--html", page.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = std::fs::read_to_string(&page).unwrap();
    std::fs::remove_file(&page).unwrap();
    assert!(text.contains("<th>RADV NAVI31</th>"));
    assert!(!text.contains("id=\"devices\""), "nothing was measured");
}
