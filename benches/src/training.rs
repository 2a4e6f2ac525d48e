//! Training steps: time, dispatches, submits, memory, and the time of each kernel.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use tern_engine::{Device, Plan};
use web_time::Instant;

use crate::Watch;
use crate::budget::Budget;
use crate::measure::{pace, times};
use crate::models::Workload;
use crate::report::{KernelTime, Times, Training};

/// Steps of a run whose losses are read once, at most: what a plan keeps on the device is more.
const STREAM: f64 = 50.0;

/// Times models.
///
/// # Errors
/// Device errors, with the model's name; if who watches fails.
pub async fn measure(
    device: &Device,
    budget: Budget,
    models: &[&Workload],
    watch: &mut impl Watch,
) -> Result<Vec<Training>> {
    let mut measured = Vec::new();
    for (done, workload) in models.iter().enumerate() {
        watch.step(done, models.len(), workload.name);
        let timed = step(workload, device, budget, watch).await;
        measured.push(timed.with_context(|| workload.name)?);
        let asked = ("training", workload.name);
        watch.timed(device, asked, budget.training(), workload.name)?;
    }
    Ok(measured)
}

/// A model's plan, and the loss of its last step.
struct Trained {
    plan: Plan,
    last: f32,
    budget: Budget,
}

impl Trained {
    async fn run(&mut self, steps: usize) -> Result<()> {
        self.last = self.plan.run_async(steps).await?.last().unwrap_or(f32::NAN);
        Ok(())
    }

    /// Seconds a step where losses are read once for `each`.
    async fn time(&mut self, each: usize) -> Result<Times> {
        let (runs, time) = (if self.budget.quick { 2 } else { 7 }, self.budget.training());
        pace(each, runs, time, async |n| self.run(n).await).await
    }

    /// Submits of some steps, and seconds of one of them.
    async fn submits(&mut self, device: &Device, steps: usize) -> Result<(u64, f64)> {
        let (before, begin) = (device.submits(), Instant::now());
        self.plan.run_async(steps).await?;
        Ok((device.submits() - before, begin.elapsed().as_secs_f64() / steps as f64))
    }
}

async fn step(
    workload: &Workload,
    device: &Device,
    budget: Budget,
    watch: &mut impl Watch,
) -> Result<Training> {
    let (heap_before, allocated_before) = (watch.mark(), device.allocated());
    let plan = workload.plan(device, 1).await?;
    let predicted = plan.memory().total();
    let mut trained = Trained { plan, last: f32::NAN, budget };
    trained.run(1).await?;
    let first = trained.last;
    let created = device.created();
    let allocated = device.allocated() - allocated_before;
    // How long steps take is learned before submits are counted.
    let step = trained.time(1).await?;
    let (one, _) = trained.submits(device, 1).await?;
    let (ten, streamed) = trained.submits(device, 10).await?;
    let streamed = if budget.quick {
        times(vec![streamed])
    } else {
        let each = (0.1 * budget.training().as_secs_f64() / step.median).clamp(2.0, STREAM);
        trained.time(each as usize).await?
    };
    let Trained { mut plan, last, .. } = trained;
    let created_later = device.created() - created;
    let measured = if allocated > 0 { allocated } else { watch.peak() - heap_before };
    let kernels = by_kernel(&mut plan, if budget.quick { 1 } else { 3 }).await?;
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
async fn by_kernel(plan: &mut Plan, steps: usize) -> Result<Vec<KernelTime>> {
    let mut fastest: Vec<KernelTime> = Vec::new();
    let sum = |kernels: &[KernelTime]| kernels.iter().map(|k| k.seconds).sum::<f64>();
    for _ in 0..steps {
        let mut kernels: BTreeMap<String, (usize, f64)> = BTreeMap::new();
        for timing in plan.profile_async().await? {
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
