//! Models trained side by side: how the rate grows with their number.

use anyhow::{Context, Result};
use tern_engine::{Device, Error, Kind};

use crate::budget::Budget;
use crate::measure::pace;
use crate::models::{WORKLOADS, Workload};
use crate::progress::Progress;
use crate::report::{Replicas, Times};
use crate::table::{bytes, seconds};

/// Numbers of models.
const COUNTS: [usize; 4] = [1, 8, 64, 512];

/// Memory that models on the CPU, or on a device in software, may take.
const HOST_MEMORY: u64 = 4 << 30;

/// Times the small models whose name is wanted, 1 to 512 of each.
///
/// # Errors
/// Device errors, with the model's name.
pub fn measure(
    device: &Device,
    budget: Budget,
    wanted: impl Fn(&str) -> bool,
    progress: &Progress,
) -> Result<Vec<Replicas>> {
    let models: Vec<&Workload> = WORKLOADS.iter().filter(|w| w.small && wanted(w.name)).collect();
    let mut measured = Vec::new();
    for (at, workload) in models.iter().enumerate() {
        // What one model of the largest number so far takes.
        let mut last: Option<(usize, f64)> = None;
        let mut alone = None;
        for (i, replicas) in COUNTS.into_iter().enumerate() {
            let (done, all) = (at * COUNTS.len() + i, models.len() * COUNTS.len());
            progress.step(done, all, &format!("{replicas} × {}", workload.name));
            let estimate = last.map_or(0.0, |(n, seconds)| seconds * (replicas / n) as f64);
            let (tile, result) = if estimate > budget.longest_step() {
                (0, Err(format!("a step would take about {}", seconds(estimate))))
            } else {
                several(workload, device, replicas, budget)
                    .with_context(|| format!("{replicas} × {}", workload.name))?
            };
            let step = result.as_ref().ok().copied();
            if let Some(step) = step {
                last = Some((replicas, step.median));
                alone = alone.or(Some(step.median));
            }
            let growth = alone.zip(step).map(|(one, s)| replicas as f64 * one / s.median);
            let reason = result.err().unwrap_or_default();
            let workload = workload.name.into();
            measured.push(Replicas { workload, replicas, tile, step, growth, reason });
        }
    }
    Ok(measured)
}

/// Models of a tile, and seconds a step of all or why they were not run.
fn several(
    workload: &Workload,
    device: &Device,
    replicas: usize,
    budget: Budget,
) -> Result<(usize, Result<Times, String>)> {
    let mut plan = device.wait(workload.plan(device, replicas))?;
    let memory = plan.memory();
    let host = matches!(device.profile().kind, Kind::Cpu | Kind::Software);
    if host && memory.total() > HOST_MEMORY {
        return Ok((memory.tile, Err(format!("would take {}", bytes(memory.total())))));
    }
    match plan.prepare() {
        Err(e @ Error::OutOfMemory { .. }) => return Ok((memory.tile, Err(e.to_string()))),
        prepared => prepared?,
    }
    let runs = if budget.quick { 2 } else { 5 };
    let steps = async |n| Ok(plan.run(n).map(|_| ())?);
    let step = pollster::block_on(pace(1, runs, budget.training() / 2, steps))?;
    Ok((memory.tile, Ok(step)))
}
