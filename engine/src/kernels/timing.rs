//! Timing of cases, for the benches.

use std::time::{Duration, Instant};

use super::Case;
use crate::{Device, Result};

/// Shortest run that is timed: long against a fence and a clock.
const SHORTEST: Duration = Duration::from_millis(10);
/// Runs after which the median moves no more.
const ENOUGH: usize = 25;

/// How long one call of a kernel takes, by wall clock with the device's fence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CaseTiming {
    /// Median seconds a call, over the runs.
    pub median: f64,
    /// Fastest run.
    pub least: f64,
    /// Slowest run.
    pub most: f64,
    /// Runs timed.
    pub runs: usize,
    /// Calls a run, recorded into one submit where the device allows.
    pub calls: usize,
}

impl Case {
    /// Times the case: warms up, then runs it until `budget` is used, three times at least.
    /// Calls follow each other without the host in between, so that what is timed is the
    /// kernel and not the submit. Says nothing about the result: check first.
    ///
    /// # Errors
    /// Device errors.
    pub async fn time_async(&self, device: &Device, budget: Duration) -> Result<CaseTiming> {
        let (program, _buffers) = self.compile(device).await?;
        let mut calls = 1;
        // The first run compiles; the next ones find out how many calls make a run long enough.
        device.replay(&program, 1).await?;
        loop {
            let start = Instant::now();
            device.replay(&program, calls).await?;
            let took = start.elapsed();
            if took >= SHORTEST || calls >= 1 << 14 {
                break;
            }
            let wanted = SHORTEST.as_secs_f64() / took.as_secs_f64().max(1e-7);
            calls = (calls as f64 * (1.2 * wanted).clamp(2.0, 64.0)) as usize;
        }
        let mut seconds = Vec::new();
        let start = Instant::now();
        while seconds.len() < 3 || (seconds.len() < ENOUGH && start.elapsed() < budget) {
            let start = Instant::now();
            device.replay(&program, calls).await?;
            seconds.push(start.elapsed().as_secs_f64() / calls as f64);
        }
        seconds.sort_by(f64::total_cmp);
        let runs = seconds.len();
        let (least, most) = (seconds[0], seconds[runs - 1]);
        Ok(CaseTiming { median: seconds[runs / 2], least, most, runs, calls })
    }

    /// [`Case::time_async`], waiting.
    ///
    /// # Errors
    /// As there.
    #[cfg(feature = "blocking")]
    pub fn time(&self, device: &Device, budget: Duration) -> Result<CaseTiming> {
        device.wait(self.time_async(device, budget))
    }
}
