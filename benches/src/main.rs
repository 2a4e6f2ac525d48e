//! Checks and times Tern: every kernel against its reference, then the clock; training steps; the
//! same steps in other frameworks on the same machine; and reports of all that.

#![allow(clippy::print_stdout, reason = "a command prints its tables")]

mod devices;
mod heap;
mod host;
mod instructions;
mod pages;
mod pairs;
mod peers;
mod print;
mod processor;
mod progress;
mod replicas;
mod rounds;
mod suite;
mod table;
mod tune;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use report::Report;
use tern_benches::{Watch, budget, device, kernels, measure, models, report, rows};

/// Checks and times Tern's kernels and training steps. Without a command, runs the suite.
#[derive(Parser)]
#[command(version, about, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    suite: suite::Options,
}

#[derive(Subcommand)]
enum Command {
    /// List the devices with their kind, driver, limits and features.
    Devices,
    /// Make one page or Markdown text of reports.
    Report {
        /// Reports as JSON.
        #[arg(required_unless_present = "compilers")]
        reports: Vec<PathBuf>,
        #[command(flatten)]
        files: suite::Files,
    },
    /// Print what changed from one report to another, and mark what became slower.
    Compare {
        /// The report from before.
        before: PathBuf,
        /// The report from after.
        after: PathBuf,
        /// Fail if something became slower by more than the noise.
        #[arg(long)]
        strict: bool,
    },
    /// Measure which variants compute products and recurrences fastest, and keep the choice.
    Tune(tune::Options),
    /// Time federated rounds, in simulation and beside Flower's.
    Rounds(rounds::Options),
    /// Count the instructions of training steps by Valgrind, and compare with recorded numbers.
    Instructions(instructions::Options),
    /// Train a model for some steps: what `instructions` counts.
    #[command(hide = true)]
    Steps(instructions::Steps),
}

/// Which devices to use.
#[derive(Args)]
struct Devices {
    /// `cpu`, `gpu`, `discrete`, `integrated`, `software`, an index or a part of a name, once
    /// for each. Default: what `TERN_DEVICE` names, else the best.
    #[arg(long, value_name = "DEVICE")]
    device: Vec<String>,
    /// Every device there is.
    #[arg(long, conflicts_with = "device")]
    all: bool,
}

fn main() -> Result<()> {
    // SAFETY: this is the first that the process does: it has no other thread.
    unsafe { tern_fl::host::display::look_for_none() };
    let cli = Cli::parse();
    match &cli.command {
        None => suite::run(&cli.suite),
        Some(Command::Devices) => {
            devices::list();
            Ok(())
        }
        Some(Command::Report { reports, files }) => suite::merge(reports, files),
        Some(Command::Compare { before, after, strict }) => {
            pages::compare::print(&Report::read(before)?, &Report::read(after)?, *strict)
        }
        Some(Command::Tune(options)) => tune::run(options),
        Some(Command::Rounds(options)) => rounds::run(options),
        Some(Command::Instructions(options)) => instructions::run(options),
        Some(Command::Steps(options)) => instructions::steps(options),
    }
}
