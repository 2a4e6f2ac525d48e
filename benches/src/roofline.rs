//! What a device can do at most, measured before anything is held against it.

use std::time::Duration;

use anyhow::Result;
use tern_engine::ops::{Case, Costs, quantile, roofline};
use tern_engine::{Device, Kind};

use crate::budget::Budget;
use crate::report::Roofline;

/// Measures the roofline.
///
/// # Errors
/// Device errors; a probe that computes wrong is a fault of the roofline.
pub async fn measure(device: &Device, budget: Budget) -> Result<Roofline> {
    // Buffers that no cache holds, and computing that lasts some milliseconds; on the CPU one, so
    // that some calls are over before another program gets the core.
    let words = if budget.quick { 1 << 22 } else { 1 << 24 };
    let (n, rounds) = match device.profile().kind {
        Kind::Cpu => (1 << 10, 1024),
        Kind::Software => (1 << 12, 4096),
        _ => (1 << 20, 512),
    };
    let time = Duration::from_millis(if budget.quick { 150 } else { 1_000 });
    let mut probes = Probes { device, time, faults: Vec::new() };
    let bandwidth = probes.rate(roofline::copy(1000, 1), roofline::copy(words, 1)).await?;
    let single = probes.rate(roofline::single(100, 16), roofline::single(n, rounds)).await?;
    let half = match device.summary().features.iter().any(|f| f.contains("F16")) {
        true => probes.rate(roofline::half(100, 16), roofline::half(n, rounds)).await?,
        false => None,
    };
    let Costs { dispatch, submit, read_back } = device.costs_async().await?;
    let faults = probes.faults;
    Ok(Roofline { bandwidth, single, half, dispatch, submit, read_back, faults })
}

struct Probes<'a> {
    device: &'a Device,
    /// For each.
    time: Duration,
    faults: Vec<String>,
}

impl Probes<'_> {
    /// Operations, or bytes where there are none, a second; `None` if the small case is wrong.
    async fn rate(&mut self, small: Case, large: Case) -> Result<Option<f64>> {
        if let Err(e) = small.check_async(self.device).await {
            self.faults.push(e.to_string());
            return Ok(None);
        }
        let timing = large.time_async(self.device, self.time).await?;
        // The roofline is what the device does when nothing disturbs it: where other programs run,
        // one call has the better chance of that. Not the fastest of all: of hundreds, one was
        // over in half the time of the others.
        let mut alone = timing.alone_each;
        alone.sort_by(f64::total_cmp);
        let fastest = quantile(&alone, 0.05).min(timing.least);
        let work = if large.flops == 0 { large.bytes } else { large.flops };
        Ok(Some(work as f64 / fastest))
    }
}
