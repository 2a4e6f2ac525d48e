//! Times of runs.

use std::time::Duration;

use anyhow::Result;
use tern_engine::ops::{CaseTiming, quantile};
use web_time::Instant;

use crate::report::Times;

/// Runs after which the median moves no more.
const ENOUGH: usize = 101;

/// The times of runs, one at least, in seconds each.
pub fn times(mut seconds: Vec<f64>) -> Times {
    seconds.sort_by(f64::total_cmp);
    let [least, first, median, third, most] =
        [0.0, 0.25, 0.5, 0.75, 1.0].map(|share| quantile(&seconds, share));
    Times { median, least, most, quartiles: [first, third], runs: seconds.len() }
}

/// The times of a case.
pub fn of_case(t: &CaseTiming) -> Times {
    let CaseTiming { median, least, most, quartiles, runs, .. } = *t;
    Times { median, least, most, quartiles, runs }
}

/// The times of [`pace_seconds`].
///
/// # Errors
/// Those of `steps`.
pub async fn pace(
    each: usize,
    runs: usize,
    budget: Duration,
    steps: impl AsyncFnMut(usize) -> Result<()>,
) -> Result<Times> {
    pace_seconds(each, runs, budget, steps).await.map(times)
}

/// Seconds a step: `steps` runs that many. A warm-up, then runs of `each` steps until the
/// budget is used, `runs` at least.
///
/// # Errors
/// Those of `steps`.
pub async fn pace_seconds(
    each: usize,
    runs: usize,
    budget: Duration,
    mut steps: impl AsyncFnMut(usize) -> Result<()>,
) -> Result<Vec<f64>> {
    steps(each).await?;
    let begin = Instant::now();
    let mut seconds = Vec::new();
    while seconds.len() < runs.max(1) || (seconds.len() < ENOUGH && begin.elapsed() < budget) {
        let start = Instant::now();
        steps(each).await?;
        seconds.push(start.elapsed().as_secs_f64() / each as f64);
    }
    Ok(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_the_fastest_and_the_slowest() {
        let t = times((0..101).rev().map(f64::from).collect());
        assert_eq!((t.least, t.median, t.most, t.runs), (0.0, 50.0, 100.0, 101));
        assert_eq!(t.quartiles, [25.0, 75.0]);
        // Of few runs, too.
        let two = times(vec![296.0, 280.0]);
        assert_eq!((two.median, two.quartiles), (288.0, [284.0, 292.0]));
        let one = times(vec![3.0]);
        assert_eq!((one.least, one.most, one.quartiles), (3.0, 3.0, [3.0, 3.0]));
    }

    #[test]
    fn at_least_so_many_runs_are_made() {
        let mut made = Vec::new();
        let steps = async |n| {
            made.push(n);
            Ok(())
        };
        let t = pollster::block_on(pace(4, 3, Duration::ZERO, steps));
        assert_eq!(t.unwrap().runs, 3);
        assert_eq!(made, [4; 4]);
    }
}
