//! What drivers' compilers make of the kernels, with or without their hardware: pipelines of every
//! variant, how long each takes, registers, spills, occupancy; and rules that CI holds.

#![allow(clippy::print_stdout, reason = "a command prints its tables")]

mod languages;
mod rules;
mod sheet;
mod statistics;
mod vulkan;
mod worker;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;

use sheet::Sheet;

/// Has the Vulkan driver that the loader finds (`VK_DRIVER_FILES` names one) compile every kernel,
/// and prints what it says of them: registers, spills, occupancy, and how long it took.
#[derive(Parser)]
#[command(version, about)]
struct Options {
    /// Kernels whose name contains this; all if left out.
    #[arg(default_value = "")]
    filter: String,
    /// Seconds that a pipeline may take, after which the next one's turn comes.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Compile in processes of this program, which starts this command with the arguments that it is
    /// given: where a driver needs libraries that the system doesn't have.
    #[arg(long, value_name = "PROGRAM")]
    through: Option<PathBuf>,
    /// Write all that the driver said to this file as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Hold the variants that hardware takes by itself to the rules, and all to this table.
    #[arg(long, value_name = "FILE")]
    hold: Option<PathBuf>,
    /// Write the table that `--hold` names anew.
    #[arg(long, requires = "hold")]
    record: bool,
    /// Compile nothing; write every variant in the languages of drivers to this folder, for other
    /// compilers and validators.
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["json", "hold", "record"])]
    dump: Option<PathBuf>,
    /// Compile from this pipeline on and write what becomes of each, as a process of its own.
    #[arg(long, hide = true)]
    worker: Option<usize>,
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

fn main() -> Result<()> {
    let options = Options::parse();
    if let Some(folder) = &options.dump {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        println!("{} files in {}", languages::dump(folder)?, folder.display());
        return Ok(());
    }
    if let Some(first) = options.worker {
        return worker::work(&options.filter, first);
    }
    let limit = Duration::from_secs(options.limit);
    let program = match &options.through {
        Some(program) => program.clone(),
        None => std::env::current_exe()?,
    };
    let (about, outcomes) = worker::compile(&program, &options.filter, limit)?;
    let sheet = Sheet::new(about, outcomes);
    println!("{}", sheet.with_times());
    if let Some(path) = &options.json {
        write(path, &(serde_json::to_string_pretty(&sheet)? + "\n"))?;
    }
    let mut faults = sheet.faults.clone();
    if let Some(path) = &options.hold {
        let verdict = rules::judge(&sheet, options.filter.is_empty());
        verdict.excepted.iter().for_each(|text| println!("excepted: {text}"));
        faults.extend(verdict.broken);
        if options.record {
            write(path, &sheet.markdown())?;
        } else {
            let shown = path.display();
            let kept = std::fs::read_to_string(path).with_context(|| format!("reading {shown}"))?;
            match sheet.differences(&kept).with_context(|| format!("in {shown}"))? {
                Some(differences) => faults.extend(differences),
                None => println!("{shown} is of another driver: its figures hold nothing here"),
            }
        }
    }
    if faults.is_empty() {
        return Ok(());
    }
    bail!("{}:\n{}", sheet.about.name, faults.join("\n"))
}
