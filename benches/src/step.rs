//! Training steps: time, dispatches, submits, memory, and the time of each kernel.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use tern_engine::{Device, Memory, Plan};

use crate::measure::{Spread, pace};
use crate::models::{WORKLOADS, Workload};
use crate::peers::{self, Peers};
use crate::table::{Table, bytes, digits, seconds};
use crate::{Devices, Output, heap};

/// What to train.
#[derive(Args)]
pub struct Options {
    /// Workloads whose name contains this: char-lstm, word-lm, mlp; all if left out.
    filter: Option<String>,
    #[command(flatten)]
    devices: Devices,
    #[command(flatten)]
    output: Output,
    /// Print the time of each kernel within a step.
    #[arg(long)]
    profile: bool,
    /// Time a workload for about this many seconds.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    #[command(flatten)]
    peers: Peers,
}

/// A workload on a device.
#[derive(Serialize)]
struct StepResult {
    workload: &'static str,
    device: String,
    parameters: usize,
    /// Seconds a step.
    step: Spread,
    loss_first: f32,
    loss_last: f32,
    dispatches: usize,
    /// Submits of a run of one step, read-back of the losses included.
    submits_of_1: u64,
    /// The same of ten steps.
    submits_of_10: u64,
    /// GPU objects created after the first run.
    created_later: u64,
    memory_predicted: u64,
    /// GPU buffers allocated, or most that the heap grew on the CPU.
    memory_measured: u64,
    /// Seconds by kernel in one step.
    kernels: BTreeMap<String, (usize, f64)>,
}

/// Times, counts and prints.
///
/// # Errors
/// If a device can't be opened, a workload fails, or a peer that was asked for doesn't run.
pub fn run(options: &Options) -> Result<()> {
    let devices = options.devices.open()?;
    let wanted: Vec<&Workload> = WORKLOADS
        .iter()
        .filter(|w| options.filter.as_ref().is_none_or(|f| w.name.contains(f.as_str())))
        .collect();
    if wanted.is_empty() {
        bail!("no workload's name contains {:?}", options.filter.as_deref().unwrap_or_default());
    }
    let mut results = Vec::new();
    for device in &devices {
        println!("{}", device.name());
        for workload in &wanted {
            let result = measure(workload, device, options.seconds)
                .with_context(|| format!("{} on {}", workload.name, device.name()))?;
            print(workload, &result, options.profile);
            results.push(result);
        }
        println!();
    }
    let compared = match options.peers.run()? {
        Some(found) => {
            let ours: Vec<peers::Ours<'_>> = results
                .iter()
                .map(|r| peers::Ours {
                    name: r.workload,
                    device: &r.device,
                    seconds: r.step.median,
                })
                .collect();
            Some(peers::compare(&found, &ours, &devices)?)
        }
        None => None,
    };
    #[derive(Serialize)]
    struct Results {
        steps: Vec<StepResult>,
        #[serde(skip_serializing_if = "Option::is_none")]
        peers: Option<Vec<peers::Ratio>>,
    }
    options.output.write(&Results { steps: results, peers: compared })
}

fn measure(workload: &Workload, device: &Device, budget: f64) -> Result<StepResult> {
    let (heap_before, allocated_before) = (heap::mark(), device.allocated());
    let mut plan = workload.plan(device)?;
    let memory: Memory = plan.memory();
    let loss_first = plan.run(1)?.last().unwrap_or(f32::NAN);
    let created = device.created();
    let allocated = device.allocated() - allocated_before;
    let submits = |plan: &mut Plan, steps: usize| -> Result<u64> {
        let before = device.submits();
        plan.run(steps)?;
        Ok(device.submits() - before)
    };
    // How long steps take is learned before submits are counted.
    plan.run(10)?;
    let submits_of_1 = submits(&mut plan, 1)?;
    let submits_of_10 = submits(&mut plan, 10)?;
    let mut loss_last = loss_first;
    let first = pace(1, Duration::ZERO, |n| {
        plan.run(n)?;
        Ok(())
    })?;
    let each = (0.1 * budget / first.median).clamp(1.0, 50.0) as usize;
    let step = pace(each, Duration::from_secs_f64(budget), |n| {
        loss_last = plan.run(n)?.last().unwrap_or(f32::NAN);
        Ok(())
    })?;
    let created_later = device.created() - created;
    let memory_measured = if allocated > 0 { allocated } else { heap::peak() - heap_before };
    let mut kernels: BTreeMap<String, (usize, f64)> = BTreeMap::new();
    for timing in plan.profile()? {
        let entry = kernels.entry(timing.kernel).or_default();
        *entry = (entry.0 + 1, entry.1 + timing.seconds);
    }
    Ok(StepResult {
        workload: workload.name,
        device: device.name(),
        parameters: plan.arena().parameters().count(),
        step,
        loss_first,
        loss_last,
        dispatches: plan.dispatches(),
        submits_of_1,
        submits_of_10,
        created_later,
        memory_predicted: memory.total(),
        memory_measured,
        kernels,
    })
}

fn print(workload: &Workload, r: &StepResult, profile: bool) {
    println!("\n{}: {} ({} parameters)", workload.name, workload.what, r.parameters);
    println!(
        "  {} a step (median of {}; {} to {}), {} steps a second",
        seconds(r.step.median),
        r.step.runs,
        seconds(r.step.least),
        seconds(r.step.most),
        digits(1.0 / r.step.median),
    );
    println!(
        "  loss {} at first, {} at last",
        digits(r.loss_first.into()),
        digits(r.loss_last.into())
    );
    println!(
        "  {} dispatches a step; submits for 1 step {}, for 10 steps {} (read-back of losses \
         included); GPU objects created after the first run: {}",
        r.dispatches, r.submits_of_1, r.submits_of_10, r.created_later,
    );
    let (predicted, measured) = (bytes(r.memory_predicted), bytes(r.memory_measured));
    println!("  memory predicted {predicted}, measured {measured}");
    if !profile {
        return;
    }
    let mut kernels: Vec<_> = r.kernels.iter().collect();
    kernels.sort_by(|a, b| b.1.1.total_cmp(&a.1.1));
    let sum: f64 = kernels.iter().map(|k| k.1.1).sum();
    let mut table = Table::new(&["kernel", "calls", "time", "share"]);
    for (name, (calls, took)) in kernels {
        let share = format!("{:.1} %", 100.0 * took / sum);
        table.row([name.clone(), calls.to_string(), seconds(*took), share]);
    }
    table.row(["all, each apart".into(), r.dispatches.to_string(), seconds(sum), String::new()]);
    println!("\n{table}");
}
