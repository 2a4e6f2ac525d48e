//! Times of runs.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

/// What several runs took.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    /// Median seconds.
    pub median: f64,
    /// Fastest.
    pub least: f64,
    /// Slowest.
    pub most: f64,
    /// Runs.
    pub runs: usize,
}

impl Spread {
    /// Of the seconds of each run, one at least.
    pub fn of(mut seconds: Vec<f64>) -> Self {
        seconds.sort_by(f64::total_cmp);
        let runs = seconds.len();
        let at = |i: usize| seconds.get(i).copied().unwrap_or(f64::NAN);
        Spread { median: at(runs / 2), least: at(0), most: at(runs.saturating_sub(1)), runs }
    }
}

/// Seconds a step: `steps` runs that many. A warm-up, then runs of `each` steps until the
/// budget is used, five at least.
pub fn pace(
    each: usize,
    budget: Duration,
    mut steps: impl FnMut(usize) -> Result<()>,
) -> Result<Spread> {
    steps(each)?;
    let begin = Instant::now();
    let mut seconds = Vec::new();
    while seconds.len() < 5 || (seconds.len() < 101 && begin.elapsed() < budget) {
        let start = Instant::now();
        steps(each)?;
        seconds.push(start.elapsed().as_secs_f64() / each as f64);
    }
    Ok(Spread::of(seconds))
}
