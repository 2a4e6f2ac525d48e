//! `tern verify`: a run's models recomputed from the updates that it recorded.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;
use tern_fl::server::federation::{Audit, audit};

use super::server::{Configured, federation_options};

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
    let configured = Configured::load(&options.config)?;
    let audits = audits(&configured)?;
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

fn audits(configured: &Configured) -> Result<Vec<Audit>> {
    #[cfg(feature = "fleet")]
    if let Some(fleet) = &configured.fleet {
        return super::fleet::audits(configured, fleet);
    }
    let Configured { server, initial, .. } = configured;
    Ok(audit(&server.folder, initial, &federation_options(server)?)?)
}
