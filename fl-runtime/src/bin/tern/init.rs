//! `tern init`: a configuration to start from.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use tern_fl::config::template;

/// Writes a commented configuration with every option and a token of its own.
#[derive(Args, Debug)]
pub struct Options {
    /// The file; it must not exist.
    #[arg(default_value = "tern.toml")]
    file: PathBuf,
}

/// Writes the template, and never over a file.
pub fn run(options: &Options) -> Result<()> {
    let (file, text) = (&options.file, template()?);
    let mut made = std::fs::File::create_new(file)
        .with_context(|| format!("{}: a new file is written", file.display()))?;
    std::io::Write::write_all(&mut made, text.as_bytes())
        .with_context(|| file.display().to_string())?;
    super::say(format_args!(
        "wrote {}; next: tern certs HOST, tern server --config {}, tern client --config {}",
        file.display(),
        file.display(),
        file.display(),
    ));
    Ok(())
}
