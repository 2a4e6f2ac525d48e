//! The command as it is called. That there is such a test has `cargo test` build the command.
#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    let command = env!("CARGO_BIN_EXE_tern-compilers");
    // No driver, whatever the machine has.
    Command::new(command)
        .args(arguments)
        .env("VK_DRIVER_FILES", "/nowhere.json")
        .env("VK_ICD_FILENAMES", "/nowhere.json")
        .output()
        .unwrap()
}

#[test]
fn without_a_driver_it_says_so() {
    let output = run(&["pointwise/scale"]);
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("no driver"), "{said}");
}

#[test]
fn another_program_that_compiles_is_started_and_named() {
    let output = run(&["pointwise/scale", "--through", "/nowhere/compilers"]);
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("starting /nowhere/compilers"), "{said}");
}

#[test]
fn a_filter_that_fits_nothing_is_named() {
    let output = run(&["pointwise/scalar"]);
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("no kernel's name contains \"pointwise/scalar\""), "{said}");
}

#[test]
fn every_variant_is_dumped_in_the_languages_of_drivers() {
    let folder = std::env::temp_dir().join(format!("tern-shaders-{}", std::process::id()));
    let output = run(&["--dump", folder.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    let names: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    std::fs::remove_dir_all(&folder).unwrap();
    for name in [
        "matmul-nt.tiled_32x32.vk11.spv",
        "matmul-nt.tiled_32x32.checked.sm66.hlsl",
        "matmul-nt.tiled_32x32.comp",
    ] {
        assert!(names.iter().any(|n| n == name), "{name}");
    }
    // Four languages of most, each with checks and without.
    let variants: usize = tern_shaders::kernels().map(|k| k.variants.len()).sum();
    assert!(names.len() > 9 * variants, "{} files of {variants} variants", names.len());
}
