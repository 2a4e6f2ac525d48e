//! Instructions that a training step executes, counted by Valgrind and held against recorded
//! numbers: what becomes slower by computing more shows on any machine, without a clock.
//!
//! A model is trained for a few steps in a process of its own, and for more in another one; the
//! difference is that of the steps, whatever start-up takes. Valgrind doesn't know AVX-512, and
//! shows every machine the same processor with AVX2. It computes each multiply-add of a vector by
//! a call, so that the models are reduced.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use tern_engine::{Device, Isa};

use crate::host::output;
use crate::models::{WORKLOADS, Workload};
use crate::processor::Processor;
use crate::table::{Table, digits};

/// What a count may differ by from the recorded one, either way: hash maps and how long threads
/// spin before they sleep make up a thousandth.
const TOLERANCE: f64 = 0.03;
/// Steps of the two runs.
const STEPS: [usize; 2] = [1, 3];
/// The set that steps are counted on.
const ISA: Isa = Isa::Avx2;
/// The profile that this program is built in. In `dev`, too, the engine is optimized in full.
const PROFILE: &str = if cfg!(debug_assertions) { "dev" } else { "release" };

/// What to count.
#[derive(Args)]
pub struct Options {
    /// Models whose name contains this; all if left out.
    filter: Option<String>,
    /// Write what is counted to the file, instead of comparing with it.
    #[arg(long)]
    record: bool,
    /// The recorded numbers. Default: `benches/instructions.json`.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// What a process that is counted does.
#[derive(Args)]
pub struct Steps {
    /// Name of the model.
    model: String,
    /// Steps to train it for.
    steps: usize,
    #[command(flatten)]
    processor: Processor,
}

/// The recorded numbers.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Recorded {
    /// Profile of the program that counted.
    profile: String,
    /// Its instruction set.
    isa: String,
    /// The compiler.
    compiler: String,
    /// Instructions of a step, by model.
    steps: BTreeMap<String, u64>,
}

impl Recorded {
    fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {shown}"))?;
        let recorded: Recorded = serde_json::from_str(&text)
            .with_context(|| format!("{shown} has no recorded instructions"))?;
        if recorded.profile != PROFILE {
            bail!(
                "{shown} is of the profile {}, this program of {PROFILE}: build it as that",
                recorded.profile
            );
        }
        Ok(recorded)
    }
}

/// A count that is held against the recorded one.
struct Compared {
    model: String,
    now: u64,
    recorded: Option<u64>,
}

impl Compared {
    /// By how much of the recorded count this one is more.
    fn change(&self) -> Option<f64> {
        self.recorded.map(|recorded| self.now as f64 / recorded as f64 - 1.0)
    }

    fn fault(&self) -> Option<String> {
        let (model, now) = (&self.model, self.now);
        match self.change() {
            None => Some(format!("{model}: {now} instructions a step, none recorded")),
            Some(change) if change.abs() > TOLERANCE => Some(format!(
                "{model}: {now} instructions a step are {:+.1} % of those recorded, expected \
                 within {:.0} %",
                100.0 * change,
                100.0 * TOLERANCE
            )),
            Some(_) => None,
        }
    }
}

/// Counts, and records or compares.
///
/// # Errors
/// If Valgrind isn't there or fails, the file can't be read or written, or a count is off.
pub fn run(options: &Options) -> Result<()> {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.json");
    let path = options.file.clone().unwrap_or_else(default);
    let filter = options.filter.as_deref().unwrap_or_default();
    let wanted: Vec<&Workload> = WORKLOADS.iter().filter(|w| w.name.contains(filter)).collect();
    if wanted.is_empty() {
        bail!("no model's name contains {filter:?}");
    }
    let before = if options.record { None } else { Some(Recorded::read(&path)?) };
    let mut all = Vec::new();
    for workload in wanted {
        let recorded = before.as_ref().and_then(|r| r.steps.get(workload.name)).copied();
        all.push(Compared { model: workload.name.into(), now: count(workload.name)?, recorded });
    }
    print(&all);
    let compiler = output("rustc", &["--version"]).unwrap_or_else(|| "unknown".into());
    let Some(before) = before else {
        let steps = all.into_iter().map(|c| (c.model, c.now)).collect();
        let recorded = Recorded { profile: PROFILE.into(), isa: ISA.to_string(), compiler, steps };
        let text = serde_json::to_string_pretty(&recorded)? + "\n";
        return std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()));
    };
    let faults: Vec<String> = all.iter().filter_map(Compared::fault).collect();
    if !faults.is_empty() {
        bail!(
            "{}\nrecorded with {}, now {compiler}; if the change is meant, run this with --record",
            faults.join("\n"),
            before.compiler
        );
    }
    Ok(())
}

fn print(all: &[Compared]) {
    let mut table = Table::new(&["model", "millions of instructions a step", "recorded", "change"]);
    let millions = |n: u64| digits(n as f64 * 1e-6);
    for c in all {
        table.row([
            c.model.clone(),
            millions(c.now),
            c.recorded.map_or("–".into(), millions),
            c.change().map_or("–".into(), |change| format!("{:+.2} %", 100.0 * change)),
        ]);
    }
    println!("{table}");
}

/// Instructions of a step.
fn count(model: &str) -> Result<u64> {
    let [few, many] = STEPS;
    let (first, second) = (counted(model, few)?, counted(model, many)?);
    Ok(second.saturating_sub(first) / (many - few) as u64)
}

/// Instructions of a process that trains for so many steps.
fn counted(model: &str, steps: usize) -> Result<u64> {
    let mut command = Command::new("valgrind");
    // Instructions alone: no caches are simulated and no file is left.
    command.args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]);
    command.arg(std::env::current_exe()?);
    command.args(["steps", model, &steps.to_string()]);
    command.args(["--isa", &ISA.to_string(), "--threads", "1"]);
    let output = command.output().context("starting valgrind, of the package of that name")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{command:?}: {}\n{said}", output.status);
    }
    references(&said).with_context(|| format!("no count of instructions in: {said}"))
}

/// The instructions in Cachegrind's summary: `==1== I   refs:      12,345`.
fn references(said: &str) -> Option<u64> {
    said.lines().find_map(|line| {
        let (name, count) = line.split_once("refs:")?;
        let name = name.split_whitespace().last()?;
        let count = count.trim().replace(',', "");
        (name == "I").then(|| count.parse().ok()).flatten()
    })
}

/// Trains a model of reduced size: what is counted.
///
/// # Errors
/// If there is no such model or the processor lacks the instruction set; device errors.
pub fn steps(options: &Steps) -> Result<()> {
    options.processor.apply()?;
    let Some(workload) = WORKLOADS.iter().find(|w| w.name == options.model) else {
        let names: Vec<&str> = WORKLOADS.iter().map(|w| w.name).collect();
        bail!("model is {:?}, expected one of {}", options.model, names.join(", "));
    };
    let device = Device::cpu();
    device.wait(workload.reduced().plan(&device, 1))?.run(options.steps)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_found_in_what_valgrind_says() {
        let said = "==7== Cachegrind\n==7== \n==7== I   refs:      1,234,567\n";
        assert_eq!(references(said), Some(1_234_567));
        assert_eq!(references("==7== I refs:  89\n"), Some(89));
        assert_eq!(references("==7== D   refs:      5\n"), None);
    }

    #[test]
    fn more_and_fewer_instructions_than_recorded_are_faults() {
        let fault = |now, recorded| Compared { model: "mlp".into(), now, recorded }.fault();
        assert_eq!(fault(1029, Some(1000)), None);
        assert_eq!(fault(971, Some(1000)), None);
        assert!(fault(1031, Some(1000)).unwrap().contains("+3.1 %"));
        assert!(fault(900, Some(1000)).unwrap().contains("-10.0 %"));
        assert!(fault(1, None).unwrap().contains("none recorded"));
    }

    #[test]
    fn what_is_recorded_is_read_back_and_another_profile_refused() {
        let path = std::env::temp_dir().join(format!("tern-counts-{}.json", std::process::id()));
        let write = |profile: &str| {
            let recorded = Recorded {
                profile: profile.into(),
                isa: "avx2".into(),
                compiler: "rustc 1".into(),
                steps: [("mlp".to_string(), 5)].into(),
            };
            std::fs::write(&path, serde_json::to_string(&recorded).unwrap()).unwrap();
            recorded
        };
        assert_eq!(write(PROFILE), Recorded::read(&path).unwrap());
        write("other");
        let error = Recorded::read(&path).unwrap_err().to_string();
        std::fs::remove_file(&path).unwrap();
        assert!(error.contains("the profile other"), "{error}");
    }
}
