//! Training steps: time, dispatches, submits, memory, and the time of each kernel.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result};
use tern_engine::{Device, Plan};

use crate::budget::Budget;
use crate::heap;
use crate::measure::{pace, times};
use crate::models::Workload;
use crate::peers::Torch;
use crate::progress::Progress;
use crate::report::{KernelTime, Training};

/// Steps of a run whose losses are read once, at most: what a plan keeps on the device is more.
const STREAM: f64 = 50.0;

/// Times models, and right after each the peer's.
///
/// # Errors
/// Device errors, with the model's name; if the peer fails.
pub fn measure(
    device: &Device,
    budget: Budget,
    models: &[&Workload],
    mut torch: Option<&mut Torch>,
    progress: &Progress,
) -> Result<Vec<Training>> {
    let mut measured = Vec::new();
    for (done, workload) in models.iter().enumerate() {
        progress.step(done, models.len(), workload.name);
        measured.push(step(workload, device, budget).with_context(|| workload.name)?);
        if let Some(torch) = &mut torch {
            let asked = ("training", workload.name);
            torch.keep(device, asked, budget.training(), workload.name)?;
        }
    }
    Ok(measured)
}

fn step(workload: &Workload, device: &Device, budget: Budget) -> Result<Training> {
    let (heap_before, allocated_before) = (heap::mark(), device.allocated());
    let mut plan = workload.plan(device, 1)?;
    let predicted = plan.memory().total();
    let first = plan.run(1)?.last().unwrap_or(f32::NAN);
    let created = device.created();
    let allocated = device.allocated() - allocated_before;
    let mut last = first;
    let runs = if budget.quick { 2 } else { 7 };
    let mut time = |plan: &mut Plan, each: usize| {
        pace(each, runs, budget.training(), |n| {
            last = plan.run(n)?.last().unwrap_or(f32::NAN);
            Ok(())
        })
    };
    // How long steps take is learned before submits are counted.
    let step = time(&mut plan, 1)?;
    let submits = |plan: &mut Plan, steps: usize| -> Result<(u64, f64)> {
        let (before, begin) = (device.submits(), Instant::now());
        plan.run(steps)?;
        Ok((device.submits() - before, begin.elapsed().as_secs_f64() / steps as f64))
    };
    let ((one, _), (ten, streamed)) = (submits(&mut plan, 1)?, submits(&mut plan, 10)?);
    let streamed = if budget.quick {
        times(vec![streamed])
    } else {
        let each = (0.1 * budget.training().as_secs_f64() / step.median).clamp(2.0, STREAM);
        time(&mut plan, each as usize)?
    };
    let created_later = device.created() - created;
    let measured = if allocated > 0 { allocated } else { heap::peak() - heap_before };
    let kernels = by_kernel(&mut plan, if budget.quick { 1 } else { 3 })?;
    let within: f64 = kernels.iter().map(|k| k.seconds).sum();
    Ok(Training {
        workload: workload.name.into(),
        sizes: workload.what.into(),
        parameters: plan.arena().parameters().count(),
        step,
        streamed,
        losses: [first, last],
        dispatches: plan.dispatches(),
        submits: [one, ten],
        bytes_bound: plan.bytes_bound(),
        created_later,
        memory: [predicted, measured],
        kernels,
        between: (streamed.median - within).max(0.0),
    })
}

/// Seconds of each kernel in one step, the longest first: of some steps the fastest, since
/// what disturbs a single call is no part of it.
fn by_kernel(plan: &mut Plan, steps: usize) -> Result<Vec<KernelTime>> {
    let mut fastest: Vec<KernelTime> = Vec::new();
    let sum = |kernels: &[KernelTime]| kernels.iter().map(|k| k.seconds).sum::<f64>();
    for _ in 0..steps {
        let mut kernels: BTreeMap<String, (usize, f64)> = BTreeMap::new();
        for timing in plan.profile()? {
            let entry = kernels.entry(timing.kernel).or_default();
            *entry = (entry.0 + 1, entry.1 + timing.seconds);
        }
        let times: Vec<KernelTime> = kernels
            .into_iter()
            .map(|(kernel, (calls, seconds))| KernelTime { kernel, calls, seconds })
            .collect();
        if fastest.is_empty() || sum(&times) < sum(&fastest) {
            fastest = times;
        }
    }
    fastest.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    Ok(fastest)
}
