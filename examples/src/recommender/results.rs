//! The numbers of a run, as a table, as JSON and as curves.

use anyhow::Result;
use serde::Serialize;

use super::arms::Arm;
use super::device::{Hits, Recommendation};
use super::options::Scale;
use super::train::{Point, Run};
use crate::report::{Report, Series, Table, mean_and_spread, spread};

/// Everything a run found out.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    /// What ran.
    pub device: String,
    /// `quick` or `full`.
    pub scale: String,
    /// Terminals that took part.
    pub terminals: usize,
    /// Those that could not, and why.
    pub refused: Vec<(String, String)>,
    /// Lines of nobody's that were left out, and why.
    pub left_out: Vec<String>,
    /// Samples that were trained on.
    pub training: usize,
    /// Samples that were measured.
    pub held_out: usize,
    /// Rounds.
    pub rounds: u32,
    /// t: local steps.
    pub steps: u32,
    /// Terminals of a round.
    pub cohort: u32,
    /// Parameters of the model.
    pub parameters: usize,
    /// Products by how many own them: the floor.
    pub popularity: Hits,
    /// The ways to train.
    pub arms: Vec<ArmResult>,
    /// For a held-out customer, by the model of the second way: ternary changes.
    pub example: Example,
    /// Seconds of all.
    pub seconds: f64,
}

/// A way to train and its runs.
#[derive(Clone, Debug, Serialize)]
pub struct ArmResult {
    /// What it is.
    pub arm: Arm,
    /// A run a seed.
    pub runs: Vec<Run>,
}

/// What a device recommends a customer.
#[derive(Clone, Debug, Serialize)]
pub struct Example {
    /// What they own.
    pub owns: Vec<String>,
    /// What they are offered.
    pub offers: Vec<(String, Recommendation)>,
}

impl ArmResult {
    /// Mean and standard deviation over the seeds.
    fn spread(&self, value: impl Fn(&Run) -> f64) -> (f64, f64) {
        spread(&self.runs.iter().map(value).collect::<Vec<_>>())
    }

    fn percent(&self, value: impl Fn(&Hits) -> f64) -> String {
        let values: Vec<f64> = self.runs.iter().map(|run| 100.0 * value(&run.hits)).collect();
        mean_and_spread(&values, 1)
    }

    fn kilobytes(&self, value: impl Fn(&Run) -> f64) -> String {
        format!("{:.1}", self.spread(value).0 / 1e3)
    }

    /// The curve of the first seed: x and percent of first recommendations that were right.
    fn curve(&self, x: impl Fn(&Point) -> f64) -> Vec<(f64, f64)> {
        let points = self.runs.first().map_or(&[][..], |run| &run.curve);
        points.iter().map(|point| (x(point), 100.0 * point.hits.hit1)).collect()
    }
}

impl Results {
    /// The table that ends a run: percent, and kilobytes a round.
    pub fn table(&self) -> Table {
        let mut table = Table::new([
            "",
            "hit@1 %",
            "hit@3 %",
            "MRR %",
            "up kB/round",
            "down kB/round",
            "protocol kB/round",
        ]);
        let floor = &self.popularity;
        let cells = [floor.hit1, floor.hit3, floor.mrr].map(|x| format!("{:.1}", 100.0 * x));
        table.row(["popularity".to_string()].into_iter().chain(cells));
        for arm in &self.arms {
            let messages = arm.runs.iter().all(|run| run.messages.is_some());
            table.row([
                arm.arm.name.to_string(),
                arm.percent(|hits| hits.hit1),
                arm.percent(|hits| hits.hit3),
                arm.percent(|hits| hits.mrr),
                arm.kilobytes(|run| run.up),
                arm.kilobytes(|run| run.down),
                match messages {
                    true => arm.kilobytes(|run| run.messages.unwrap_or(0.0)),
                    false => String::new(),
                },
            ]);
        }
        table
    }

    /// Writes `results.json` and the curves: `rounds.svg` by rounds, `bytes.svg` by what went
    /// over the network until then.
    pub fn write(&self, report: &Report) -> Result<()> {
        report.json("results.json", self)?;
        self.plot(report, "rounds.svg", "round", |point| f64::from(point.round))?;
        self.plot(report, "bytes.svg", "megabytes, up and down", |point| point.bytes as f64 / 1e6)
    }

    fn plot(
        &self,
        report: &Report,
        file: &str,
        axis: &str,
        x: impl Fn(&Point) -> f64,
    ) -> Result<()> {
        let curves: Vec<_> = self.arms.iter().map(|arm| (arm.arm.name, arm.curve(&x))).collect();
        let mut series: Vec<_> =
            curves.iter().map(|(name, points)| Series { name, points }).collect();
        let last = |points: &Vec<(f64, f64)>| points.last().map_or(0.0, |point| point.0);
        let end = curves.iter().map(|(_, points)| last(points)).fold(0.0, f64::max);
        let floor = [0.0, end].map(|x| (x, 100.0 * self.popularity.hit1));
        series.push(Series { name: "popularity", points: &floor });
        let title = "Masked products that were the first recommendation";
        report.plot(file, title, (axis, "hit@1 (%)"), &series)?;
        Ok(())
    }

    /// Facts of the scale.
    pub fn described(scale: &Scale) -> String {
        let Scale { rounds, steps, cohort, .. } = scale;
        format!("{rounds} rounds of {cohort} terminals, {steps} local steps each")
    }
}
