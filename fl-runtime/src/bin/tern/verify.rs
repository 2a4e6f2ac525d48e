//! `tern verify`: a run's models recomputed from the updates that it recorded.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use tern_fl::config::Config;
use tern_fl::server::federation::audit;

use super::server::{federation_options, initial};

/// Recomputes the model of every round from the updates that the run recorded as counted, and
/// compares it bit for bit. The run must have kept them (`keep_uploads`).
#[derive(Args, Debug)]
pub struct Options {
    /// The server's configuration.
    #[arg(long, default_value = "tern.toml")]
    config: PathBuf,
}

/// Prints a line a round; fails if a bit differs.
pub fn run(options: &Options) -> Result<()> {
    let config = Config::load(&options.config)?;
    let missing = |section: &str| format!("{}: no [{section}]", options.config.display());
    let plan = config.run.with_context(|| missing("run"))?;
    let config = config.server.with_context(|| missing("server"))?;
    let initial = initial(&plan, &plan.check()?, &config)?;
    let audits = audit(&config.folder, &initial, &federation_options(&config)?)?;
    for audit in &audits {
        let verdict = if audit.holds() { "same" } else { "DIFFERS" };
        super::say(format_args!(
            "round {:>5}  {:>5} updates  {}  {verdict}",
            audit.round, audit.updates, audit.made
        ));
    }
    let wrong = audits.iter().filter(|audit| !audit.holds()).count();
    ensure!(wrong == 0, "{wrong} of {} rounds are not what their updates make", audits.len());
    super::say(format_args!("{} rounds, every bit the same", audits.len()));
    Ok(())
}
