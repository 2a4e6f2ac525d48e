//! The numbers of a run, as a table, as JSON and as pictures.

use anyhow::Result;
use serde::Serialize;
use tern_engine::save_model;
use tern_fl::methods::align::Model;

use super::transfer::{Features, Measured};
use crate::report::{Report, Series, Table, mean_and_spread, spread};
use crate::scatter::{Cloud, Plane, scatter};

/// Everything a run found out.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    /// What ran.
    pub device: String,
    /// `quick` or `full`.
    pub scale: String,
    /// Exchanges of a run.
    pub exchanges: u32,
    /// Parameters of a node: of G, T and D.
    pub parameters: usize,
    /// Seconds of the whole run.
    pub seconds: f64,
    /// Sources that could not take part, and why.
    pub refused: Vec<(String, String)>,
    /// By transfer.
    pub transfers: Vec<TransferResult>,
}

/// A transfer, once a seed.
#[derive(Clone, Debug, Serialize)]
pub struct TransferResult {
    /// Its name.
    pub name: String,
    /// By seed.
    pub runs: Vec<Measured>,
}

impl TransferResult {
    fn of(&self, value: impl Fn(&Measured) -> f64) -> Vec<f64> {
        self.runs.iter().map(value).collect()
    }

    /// Points of accuracy that alignment gains, by seed.
    pub fn gains(&self) -> Vec<f64> {
        self.of(|run| 100.0 * (run.aligned - run.without))
    }
}

impl Results {
    /// A row a transfer: mean ± standard deviation over the seeds.
    pub fn table(&self) -> String {
        let headings =
            ["transfer", "no adaptation", "longer", "Align", "gain", "ceiling", "D at first"];
        let mut table = Table::new(headings);
        for transfer in &self.transfers {
            let percent = |value: &dyn Fn(&Measured) -> f64| {
                format!("{} %", mean_and_spread(&transfer.of(|run| 100.0 * value(run)), 1))
            };
            let gains = transfer.gains();
            let sign = if spread(&gains).0 < 0.0 { "" } else { "+" };
            table.row([
                transfer.name.clone(),
                percent(&|run| run.without),
                percent(&|run| run.longer),
                percent(&|run| run.aligned),
                format!("{sign}{}", mean_and_spread(&gains, 1)),
                percent(&|run| run.ceiling),
                percent(&|run| run.told_apart),
            ]);
        }
        table.to_string()
    }

    /// Writes `results.json`, `accuracy.svg` and, for each transfer, `features-<number>.svg` and
    /// the target's model, `aligned-<number>.safetensors`: all but the first of the first seed.
    pub fn write(&self, report: &Report, model: &Model) -> Result<()> {
        report.json("results.json", self)?;
        let series = self.transfers.iter().filter_map(|transfer| {
            let curve = &transfer.runs.first()?.curve;
            Some(Series { name: &transfer.name, points: curve })
        });
        let series: Vec<_> = series.collect();
        let axes = ("exchange", "accuracy at the target");
        report.plot("accuracy.svg", "Digits that the target reads", axes, &series)?;
        for (number, transfer) in (1..).zip(&self.transfers) {
            let Some(run) = transfer.runs.first() else { continue };
            let file = report.path(&format!("aligned-{number}.safetensors"));
            save_model(&file, model.parameters(), &run.model)?;
            let ([before, after], width) = (&run.features, model.features());
            let panels = [("before", clouds(before, width)), ("after", clouds(after, width))];
            let title = format!("Features, {}", transfer.name);
            scatter(report, &format!("features-{number}.svg"), &title, &panels)?;
        }
        Ok(())
    }
}

/// Both domains in the plane in which they spread most.
fn clouds(features: &Features, width: usize) -> Vec<Cloud> {
    let Features { source, target, labels } = features;
    let plane = Plane::of(&[source.as_slice(), target].concat(), width);
    let clouds = [("source", source), ("target", target)].into_iter().zip(labels);
    let cloud = |((name, rows), classes): ((&str, &Vec<f32>), &Vec<u32>)| Cloud {
        name: name.into(),
        points: plane.project(rows),
        classes: classes.clone(),
    };
    clouds.map(cloud).collect()
}
