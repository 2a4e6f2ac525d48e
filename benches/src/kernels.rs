//! Every kernel: check first, then time.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;
use tern_engine::kernels::{Case, Expected, cases};
use tern_engine::{Device, Kind};

use crate::rows::{Size, fits, rate, rows};
use crate::table::{Table, digits, seconds};
use crate::{Devices, Output};

/// What to check and to time.
#[derive(Args)]
pub struct Options {
    /// Kernels whose name contains this; all if left out.
    filter: Option<String>,
    #[command(flatten)]
    devices: Devices,
    #[command(flatten)]
    output: Output,
    /// Only check.
    #[arg(long)]
    check: bool,
    /// Smaller rows and less time for each.
    #[arg(long)]
    quick: bool,
}

/// What a kernel's cases showed on a device.
#[derive(Serialize)]
struct Checked {
    device: String,
    /// Cases that the device computes.
    cases: usize,
    /// Largest error, relative to the largest magnitude of a result (at least 1).
    error: f64,
    /// Largest fraction of words that differ.
    words_differing: f64,
    faults: Vec<String>,
}

/// A kernel with all its cases.
#[derive(Serialize)]
struct KernelResult {
    kernel: &'static str,
    cases: usize,
    checked: Vec<Checked>,
}

/// A timed row on a device.
#[derive(Serialize)]
struct RowResult {
    kernel: &'static str,
    sizes: String,
    device: String,
    #[serde(flatten)]
    outcome: Outcome,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Failed(String),
    Timed {
        error: f64,
        median: f64,
        least: f64,
        most: f64,
        runs: usize,
        rate: f64,
        unit: &'static str,
    },
}

#[derive(Serialize)]
struct Results {
    devices: Vec<String>,
    kernels: Vec<KernelResult>,
    rows: Vec<RowResult>,
}

/// Checks, times and prints.
///
/// # Errors
/// If a device can't be opened, a filter fits nothing, or a check fails.
pub fn run(options: &Options) -> Result<()> {
    let devices = options.devices.open()?;
    for (i, device) in devices.iter().enumerate() {
        println!("[{i}] {}", device.name());
    }
    println!();
    let wanted = |name: &str| options.filter.as_ref().is_none_or(|f| name.contains(f.as_str()));
    let cases: Vec<Case> = cases().into_iter().filter(|c| wanted(c.kernel.name)).collect();
    let mut kernels = Vec::new();
    for kernel in tern_shaders::kernels().filter(|k| wanted(k.name)) {
        progress(kernel.name);
        let own: Vec<&Case> = cases.iter().filter(|c| c.kernel.name == kernel.name).collect();
        let expected: Vec<Expected> = own.iter().map(|c| c.expected()).collect();
        let checked = devices.iter().map(|d| check(d, &own, &expected)).collect();
        kernels.push(KernelResult { kernel: kernel.name, cases: own.len(), checked });
    }
    progress("");
    if kernels.is_empty() {
        bail!("no kernel's name contains {:?}", options.filter.as_deref().unwrap_or_default());
    }
    print_checks(&devices, &kernels);
    let mut timed = Vec::new();
    if !options.check {
        for case in timed_cases(&cases, options.quick, wanted) {
            let expected = case.expected();
            for (i, device) in devices.iter().enumerate() {
                progress(&format!("{} {} on [{i}]", case.kernel.name, case.label));
                let failed = kernels
                    .iter()
                    .find(|k| k.kernel == case.kernel.name)
                    .is_some_and(|k| !k.checked[i].faults.is_empty());
                let outcome = if failed {
                    Outcome::Failed("a case of the kernel failed".into())
                } else if device.profile().kind != Kind::Cpu && !fits(&case) {
                    continue;
                } else {
                    time(&case, &expected, device, options.quick)
                };
                let device = device.name();
                let (kernel, sizes) = (case.kernel.name, case.label.clone());
                timed.push(RowResult { kernel, sizes, device, outcome });
            }
        }
        progress("");
        print_rows(&devices, &timed);
    }
    let faults = kernels.iter().flat_map(|k| &k.checked).map(|c| c.faults.len()).sum::<usize>()
        + timed.iter().filter(|r| matches!(r.outcome, Outcome::Failed(_))).count();
    let devices = devices.iter().map(Device::name).collect();
    options.output.write(&Results { devices, kernels, rows: timed })?;
    if faults > 0 {
        bail!("{faults} checks failed");
    }
    Ok(())
}

fn check(device: &Device, cases: &[&Case], expected: &[Expected]) -> Checked {
    let (device_name, faults) = (device.name(), Vec::new());
    let mut result =
        Checked { device: device_name, cases: 0, error: 0.0, words_differing: 0.0, faults };
    // A few sizes are for the CPU alone; graphs split them on a GPU.
    let computes = |case: &Case| device.profile().kind == Kind::Cpu || fits(case);
    for (case, expected) in cases.iter().zip(expected).filter(|(case, _)| computes(case)) {
        result.cases += 1;
        match case.check_against(device, expected) {
            Ok(check) => {
                result.error = result.error.max(check.error);
                result.words_differing = result.words_differing.max(check.words_differing);
            }
            Err(e) => result.faults.push(e.to_string()),
        }
    }
    result
}

/// The large rows, and for every other kernel the case that moves and computes most.
fn timed_cases(cases: &[Case], quick: bool, wanted: impl Fn(&str) -> bool) -> Vec<Case> {
    let large = rows(if quick { Size::Quick } else { Size::Full });
    let mut timed = Vec::new();
    for kernel in tern_shaders::kernels().filter(|k| wanted(k.name)) {
        let of = |case: &&Case| case.kernel.name == kernel.name;
        let own: Vec<Case> = large.iter().filter(of).cloned().collect();
        if own.is_empty() {
            timed.extend(cases.iter().filter(of).max_by_key(|c| c.bytes + c.flops).cloned());
        }
        timed.extend(own);
    }
    timed
}

fn time(case: &Case, expected: &Expected, device: &Device, quick: bool) -> Outcome {
    let budget = Duration::from_millis(if quick { 60 } else { 400 });
    let result = case
        .check_against(device, expected)
        .and_then(|check| Ok((check, case.time(device, budget)?)));
    match result {
        Ok((check, t)) => {
            let (rate, unit) = rate(case, t.median);
            let (error, median, least, most) = (check.error, t.median, t.least, t.most);
            Outcome::Timed { error, median, least, most, runs: t.runs, rate, unit }
        }
        Err(e) => Outcome::Failed(e.to_string()),
    }
}

/// One line on a terminal that the next one replaces.
fn progress(what: &str) {
    let mut err = std::io::stderr();
    if err.is_terminal() {
        // Progress that can't be shown is no reason to stop.
        let _ = write!(err, "\r\x1b[K{what}").and_then(|()| err.flush());
    }
}

fn print_checks(devices: &[Device], kernels: &[KernelResult]) {
    let mut heading = vec!["kernel".to_string(), "cases".into()];
    for i in 0..devices.len() {
        heading.extend([format!("[{i}] ran"), "error".into(), "words".into()]);
    }
    let mut table = Table::new(&heading);
    for k in kernels {
        let mut cells = vec![k.kernel.to_string(), k.cases.to_string()];
        for c in &k.checked {
            cells.push(c.cases.to_string());
            if c.faults.is_empty() {
                cells.extend([exponent(c.error), exponent(c.words_differing)]);
            } else {
                cells.extend(["FAIL".into(), c.faults.len().to_string()]);
            }
        }
        table.row(cells);
    }
    println!("{table}");
    let cases: usize = kernels.iter().map(|k| k.cases).sum();
    println!(
        "{} kernels, {cases} cases. error: largest error against the f64 twin, relative",
        kernels.len()
    );
    println!(
        "to the largest magnitude of the result (at least 1); words: largest share that differs.\n"
    );
    for (k, c) in kernels.iter().flat_map(|k| k.checked.iter().map(move |c| (k, c))) {
        for fault in &c.faults {
            println!("FAIL {} on {}: {fault}", k.kernel, c.device);
        }
    }
}

fn print_rows(devices: &[Device], rows: &[RowResult]) {
    for device in devices.iter().map(Device::name) {
        println!("{device}");
        let mut table = Table::new(&["kernel", "sizes", "error", "time", "spread", "rate", ""]);
        for row in rows.iter().filter(|r| r.device == device) {
            let (name, sizes) = (row.kernel.to_string(), row.sizes.clone());
            table.row(match &row.outcome {
                Outcome::Timed { error, median, least, most, rate, unit, .. } => [
                    name,
                    sizes,
                    exponent(*error),
                    seconds(*median),
                    format!("{:.0} %", 100.0 * (most - least) / median),
                    digits(*rate),
                    (*unit).to_string(),
                ],
                Outcome::Failed(_) => {
                    [name, sizes, "FAIL".into(), "–".into(), "–".into(), "–".into(), String::new()]
                }
            });
        }
        println!("{table}");
        for row in rows.iter().filter(|r| r.device == device) {
            if let Outcome::Failed(why) = &row.outcome {
                println!("FAIL {} {}: {why}", row.kernel, row.sizes);
            }
        }
    }
}

fn exponent(x: f64) -> String {
    if x == 0.0 { "0".into() } else { format!("{x:.1e}") }
}
