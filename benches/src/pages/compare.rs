//! Two reports side by side: ratios, and what became slower by more than the noise.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use crate::report::{Outcome, Report, Times};
use crate::table::{Table, seconds};

/// Least change that counts, whatever the spread says: clocks and caches wander that much.
const LEAST: f64 = 0.05;

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Slower by more than the noise, or wrong where it was right.
    Slower,
    /// Faster by more than the noise.
    Faster,
    /// Within the noise.
    Same,
}

/// A row that both reports have.
pub struct Compared {
    /// Device and row.
    pub name: String,
    /// Before and after; `None`: failed.
    pub times: [Option<Times>; 2],
    /// Time after by time before.
    pub ratio: f64,
    /// What to make of it.
    pub verdict: Verdict,
}

/// Half the distance between the quartiles, by the median.
fn noise(t: &Times) -> f64 {
    0.5 * (t.quartiles[1] - t.quartiles[0]) / t.median
}

fn judge(before: &Times, after: &Times) -> (f64, Verdict) {
    let ratio = after.median / before.median;
    // Three times what either varies by, as far from one both ways.
    let margin = 1.0 + LEAST.max(3.0 * noise(before).max(noise(after)));
    let verdict = match ratio {
        r if r > margin => Verdict::Slower,
        r if r < 1.0 / margin => Verdict::Faster,
        _ => Verdict::Same,
    };
    (ratio, verdict)
}

/// Times of everything in a report, by device and row; `None`: failed.
fn times(report: &Report) -> BTreeMap<(String, String), Option<Times>> {
    let mut all = BTreeMap::new();
    for device in &report.devices {
        let mut add = |row: String, times| {
            all.insert((device.adapter.short().to_string(), row), times);
        };
        for row in &device.kernels {
            let name = format!("{} {}", row.kernel, row.sizes);
            match &row.outcome {
                Outcome::Timed(timed) => add(name, Some(timed.times)),
                Outcome::Failed { .. } => add(name, None),
                Outcome::NotRun { .. } => {}
            }
        }
        for training in &device.training {
            add(format!("step of {}", training.workload), Some(training.step));
            add(format!("streamed step of {}", training.workload), Some(training.streamed));
        }
        for pair in &device.pairs {
            add(format!("{}: {} {}", pair.group, pair.what, pair.sizes), Some(pair.ours));
        }
        for row in device.replicas.iter().filter(|r| r.step.is_some()) {
            add(format!("{} × {}", row.replicas, row.workload), row.step);
        }
    }
    all
}

/// The rows that both reports have. Devices are matched by name, or, where each report has one,
/// with each other.
pub fn compare(before: &Report, after: &Report) -> Vec<Compared> {
    let alone = before.devices.len() == 1 && after.devices.len() == 1;
    let old = times(before);
    let find = |device: &str, row: &str| {
        old.iter().find(|((d, r), _)| r == row && (alone || d == device)).map(|(_, times)| *times)
    };
    let mut rows = Vec::new();
    for ((device, row), new) in times(after) {
        let Some(old) = find(&device, &row) else { continue };
        let (ratio, verdict) = match (&old, &new) {
            (Some(old), Some(new)) => judge(old, new),
            (Some(_), None) => (f64::NAN, Verdict::Slower),
            (None, Some(_)) => (f64::NAN, Verdict::Faster),
            (None, None) => (f64::NAN, Verdict::Same),
        };
        rows.push(Compared { name: format!("{device}: {row}"), times: [old, new], ratio, verdict });
    }
    rows
}

/// Prints the ratios; regressions are marked.
///
/// # Errors
/// If the reports have nothing in common, or, with `strict`, if there is a regression.
pub fn print(before: &Report, after: &Report, strict: bool) -> Result<()> {
    let rows = compare(before, after);
    if rows.is_empty() {
        bail!("the reports have no row in common");
    }
    if before.quick != after.quick {
        println!("One of the two is a quick run: its times are noisier.\n");
    }
    println!("before: {} of {}", before.commit, before.tool);
    println!("after:  {} of {}\n", after.commit, after.tool);
    let mut table = Table::new(&["row", "before", "after", "after/before", ""]);
    for row in &rows {
        let time = |t: &Option<Times>| t.map_or("FAIL".into(), |t| seconds(t.median));
        let ratio = if row.ratio.is_nan() { "–".into() } else { format!("{:.2}", row.ratio) };
        let verdict = match row.verdict {
            Verdict::Slower => "SLOWER",
            Verdict::Faster => "faster",
            Verdict::Same => "",
        };
        table.row([
            row.name.clone(),
            time(&row.times[0]),
            time(&row.times[1]),
            ratio,
            verdict.into(),
        ]);
    }
    println!("{table}");
    let count = |v: Verdict| rows.iter().filter(|r| r.verdict == v).count();
    let slower = count(Verdict::Slower);
    println!(
        "{} rows: {slower} slower, {} faster, {} within the noise (5 %, or three times half the \
         distance between quartiles)",
        rows.len(),
        count(Verdict::Faster),
        count(Verdict::Same)
    );
    if strict && slower > 0 {
        bail!("{slower} rows became slower");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;

    #[test]
    fn what_is_beyond_the_noise_is_marked() {
        let verdict = |seconds: f64| {
            let rows = compare(&sample(1e-3), &sample(seconds));
            rows.into_iter().find(|r| r.name.contains("matmul/nn")).unwrap().verdict
        };
        // Quartiles 3 % from the median allow for 9.4 %.
        assert_eq!(verdict(1.08e-3), Verdict::Same);
        assert_eq!(verdict(1.2e-3), Verdict::Slower);
        assert_eq!(verdict(0.8e-3), Verdict::Faster);
    }

    #[test]
    fn a_row_that_fails_now_is_a_regression() {
        let (before, mut after) = (sample(1e-3), sample(1e-3));
        after.devices[0].kernels[0].outcome = Outcome::Failed { reason: "wrong".into() };
        let slower: Vec<String> = compare(&before, &after)
            .into_iter()
            .filter(|r| r.verdict == Verdict::Slower)
            .map(|r| r.name)
            .collect();
        assert_eq!(slower, ["Test GPU: matmul/nn 8 × 8"]);
        assert!(print(&before, &after, true).is_err());
        assert!(print(&before, &before, true).is_ok());
    }
}
