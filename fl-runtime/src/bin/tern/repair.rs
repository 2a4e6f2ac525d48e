//! `tern repair`: what of a damaged run can be had back.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use tern_fl::config::Config;
use tern_fl::server::federation::Repair;

use super::server::{federation_options, initial};

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
    let config = Config::load(&options.config)?;
    let missing = |section: &str| format!("{}: no [{section}]", options.config.display());
    let plan = config.run.with_context(|| missing("run"))?;
    let config = config.server.with_context(|| missing("server"))?;
    let initial = initial(&plan, &plan.check()?, &config)?;
    let repair = Repair::examine(&config.folder, &plan, &initial, &federation_options(&config)?)?;
    super::say(format_args!("{repair}"));
    if repair.damage.is_empty() {
        return Ok(());
    }
    ensure!(repair.is_possible(), "{} is left as it is", config.folder.display());
    ensure!(options.apply, "nothing was changed, expected --apply to do so");
    let aside = repair.apply()?;
    super::say(format_args!("done; what was there before is in {}", aside.display()));
    Ok(())
}
