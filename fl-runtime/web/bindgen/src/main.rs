//! Makes a module of JavaScript of what the compiler made: `tern-web-bindgen FILE FOLDER`.

use anyhow::{Context, Result};
use wasm_bindgen_cli_support::Bindgen;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (file, folder) = arguments.next().zip(arguments.next()).context("a file and a folder")?;
    Bindgen::new()
        .input_path(file)
        .web(true)?
        .omit_default_module_path(true)
        .typescript(true)
        .out_name("bindings")
        .remove_name_section(true)
        .remove_producers_section(true)
        .generate(folder)
}
