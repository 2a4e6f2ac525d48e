//! Checks and times Tern: every kernel against its twin, then the clock; training steps; and
//! the same steps in other frameworks on the same machine.

#![allow(clippy::print_stdout, reason = "a command prints its tables")]

mod devices;
mod heap;
mod kernels;
mod measure;
mod models;
mod peers;
mod rows;
mod step;
mod table;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use serde::Serialize;

/// Checks and times Tern's kernels and training steps.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the devices with their kind, driver, limits and features.
    Devices,
    /// Check every kernel against its f64 twin, then time it.
    Kernels(kernels::Options),
    /// Time training steps; count dispatches, submits and memory.
    Step(step::Options),
}

/// Which devices to use.
#[derive(Args)]
struct Devices {
    /// `cpu`, `gpu`, `discrete`, `integrated`, `software`, an index or a part of a name.
    /// Default: the CPU, and software Vulkan where there is one.
    #[arg(long, value_name = "DEVICE")]
    device: Vec<String>,
    /// Every device there is.
    #[arg(long, conflicts_with = "device")]
    all: bool,
}

/// Where results go besides the table.
#[derive(Args)]
struct Output {
    /// Write the results to this file as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Output {
    fn write(&self, results: &impl Serialize) -> Result<()> {
        let Some(path) = &self.json else { return Ok(()) };
        let text = serde_json::to_string_pretty(results)?;
        std::fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))
    }
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Devices => {
            devices::list();
            Ok(())
        }
        Command::Kernels(options) => kernels::run(&options),
        Command::Step(options) => step::run(&options),
    }
}
