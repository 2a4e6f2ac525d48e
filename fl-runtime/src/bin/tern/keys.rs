//! `tern keys`: a device's key.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use tern_fl::host::key_file;

/// Makes a device's key, or reads one, and prints its public half for the server's list.
#[derive(Args, Debug)]
pub struct Options {
    /// File of the key; made if it isn't there.
    #[arg(default_value = "client.key")]
    file: PathBuf,
}

/// Prints the public key alone, so that it can be appended to a list.
pub fn run(options: &Options) -> Result<()> {
    let identity = key_file::load_or_create(&options.file)?;
    super::say(format_args!("{}", identity.client()));
    Ok(())
}
