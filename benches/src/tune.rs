//! Measuring which variants compute products and recurrences fastest, for the models here.

use anyhow::{Context, Result, bail};
use clap::Args;
use tern_engine::{Choice, Device};

use crate::Devices;
use crate::models::WORKLOADS;
use crate::progress::Progress;
use crate::table::{Table, seconds};

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// Models whose name contains this; all if left out.
    filter: Option<String>,
    #[command(flatten)]
    devices: Devices,
    /// Measure what is in the table already, too.
    #[arg(long)]
    again: bool,
    /// Print the choices as rows of the table that Tern ships.
    #[arg(long)]
    rows: bool,
}

/// Measures, prints, and keeps the choices in the user's cache folder (unless `TERN_TUNE=off`).
///
/// # Errors
/// If a device can't be opened, a model fails, or the filter fits none.
pub fn run(options: &Options) -> Result<()> {
    let wanted = |name: &str| options.filter.as_ref().is_none_or(|f| name.contains(f.as_str()));
    if !WORKLOADS.iter().any(|w| wanted(w.name)) {
        bail!("no model's name contains {:?}", options.filter.as_deref().unwrap_or_default());
    }
    let progress = Progress::new();
    for device in options.devices.open()? {
        println!("{}", device.name());
        let mut choices: Vec<Choice> = Vec::new();
        for workload in WORKLOADS.iter().filter(|w| wanted(w.name)) {
            progress.part(workload.name);
            let mut tune = || -> Result<()> {
                if let Some(sizes) = workload.recurrence() {
                    choices.extend(device.tune_lstm(sizes, false)?);
                }
                // Recorded after that choice, which decides what the plan's calls are.
                choices.extend(device.wait(workload.plan(&device, 1))?.tune(options.again)?);
                Ok(())
            };
            tune().with_context(|| workload.name)?;
        }
        match options.rows {
            true => rows(&device, &choices),
            false => table(&choices),
        }
    }
    Ok(())
}

/// Rows of `engine/src/tuning/shipped.tsv`.
fn rows(device: &Device, choices: &[Choice]) {
    let summary = device.summary();
    let adapter = summary.name.split(" (").next().unwrap_or(&summary.name);
    for c in choices {
        println!("{adapter}\t{}\t{}\t{}", c.kernel, c.class, c.variant);
    }
}

fn table(choices: &[Choice]) {
    if choices.is_empty() {
        println!("  nothing to choose that the table doesn't have\n");
        return;
    }
    let mut table = Table::new(&["kernel", "sizes", "fastest", "time", "untuned"]);
    for c in choices {
        let [own, untuned] = c.seconds.map_or(["–".into(), "–".into()], |s| s.map(seconds));
        table.row([c.kernel.into(), c.class.clone(), c.variant.into(), own, untuned]);
    }
    println!("{table}");
}
