//! `tern repair`: what of a damaged run can be had back.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;
use tern_fl::server::federation::Repair;

use super::server::{Configured, federation_options};

/// Says what is damaged in a server's folder and what can be had back. With `--apply` it does that:
/// the run goes on from a committed round whose models are whole, and the files that are replaced
/// are kept in a folder beside. The server must not be running.
#[derive(Args, Debug)]
pub struct Options {
    /// The server's configuration.
    #[arg(long, default_value = "tern.toml")]
    config: PathBuf,
    /// Does what can be done.
    #[arg(long)]
    apply: bool,
}

/// Prints what it finds; fails if there is damage that stays.
pub fn run(options: &Options) -> Result<()> {
    let Configured { plan, server, initial, .. } = Configured::load(&options.config)?;
    let repair = Repair::examine(&server.folder, &plan, &initial, &federation_options(&server)?)?;
    super::say(format_args!("{repair}"));
    if repair.damage.is_empty() {
        return Ok(());
    }
    ensure!(repair.is_possible(), "{} is left as it is", server.folder.display());
    ensure!(options.apply, "nothing was changed, expected --apply to do so");
    let aside = repair.apply()?;
    super::say(format_args!("done; what was there before is in {}", aside.display()));
    Ok(())
}
