//! What a simulated run leaves in its folder.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tern_engine::save_model;
use tern_fl::host::files::open_log;
use tern_fl::host::folder::FolderLock;
use tern_fl::metrics::Metrics;
use tern_fl::server::plot::{Panel, Series, draw};
use tern_fl::simulate::Simulation;
use tern_fl::{Layout, RunPlan};

use super::Row;

/// The folder of a run, which is this process' alone.
pub struct Folder {
    path: PathBuf,
    _lock: FolderLock,
}

impl Folder {
    /// A new folder, or to go on the one of a run.
    pub fn open(path: &Path, resume: bool) -> Result<Self> {
        let saved = path.join("state/state.json").exists();
        let there = saved || path.join("metrics.jsonl").exists();
        ensure!(!resume || saved, "{}: no run is there to go on with", path.display());
        ensure!(
            resume || !there,
            "{}: a run is there already, expected a new folder, or --resume",
            path.display()
        );
        std::fs::create_dir_all(path).with_context(|| path.display().to_string())?;
        let lock = FolderLock::take(path)?;
        Ok(Folder { path: path.to_path_buf(), _lock: lock })
    }

    /// Where the simulation is saved.
    pub fn state(&self) -> PathBuf {
        self.path.join("state")
    }

    fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// Begins, or goes on after so many rounds: returns what was told of them. Rounds after those
    /// are made again.
    pub fn begin(&self, plan: &RunPlan, done: u32) -> Result<Vec<Row>> {
        let text = toml::to_string(plan).context("writing the plan")?;
        let at = self.path.join("plan.toml");
        std::fs::write(&at, text).with_context(|| at.display().to_string())?;
        let mut rows = Vec::new();
        open_log(&self.metrics(), |line| {
            let row: Row = serde_json::from_str(line).ok()?;
            (row.round <= done).then(|| rows.push(row))
        })?;
        Ok(rows)
    }

    /// Adds a round.
    pub fn add(&self, row: &Row) -> Result<()> {
        let (path, line) = (self.metrics(), serde_json::to_string(row)? + "\n");
        let written = OpenOptions::new().append(true).create(true).open(&path);
        let written = written.and_then(|mut file| file.write_all(line.as_bytes()));
        written.with_context(|| path.display().to_string())
    }

    /// Leaves the models and a plot.
    pub fn finish(self, layout: &Layout, simulation: &Simulation, rounds: &[Row]) -> Result<()> {
        for (name, model) in [("model", simulation.model()?), ("best", simulation.best_model()?)] {
            let path = self.path.join(format!("{name}.safetensors"));
            save_model(&path, layout.parameters(), &model)?;
        }
        plot(&self.path.join("plot.svg"), rounds)?;
        super::super::say(format_args!("wrote {}", self.path.display()));
        Ok(())
    }
}

/// Some metrics of a round.
type Source = fn(&Row) -> &Metrics;

/// Losses and accuracies over the rounds.
fn plot(path: &Path, rounds: &[Row]) -> Result<()> {
    let points = |of: Source, name: &str| -> Vec<(f64, f64)> {
        let point = |row: &Row| of(row).get(name).map(|value| (f64::from(row.round), *value));
        rounds.iter().filter_map(point).collect()
    };
    let sources: [(&str, Source); 3] = [
        ("training", |row| &row.training),
        ("held out", |row| &row.central),
        ("clients", |row| &row.clients),
    ];
    let lines = |name: &'static str| {
        let of = sources.iter().map(|(source, of)| (*source, points(*of, name)));
        of.filter(|(_, points)| !points.is_empty()).collect::<Vec<_>>()
    };
    let (losses, accuracies) = (lines("loss"), lines("accuracy"));
    let mut panels = Vec::new();
    for (title, lines) in [("Loss", &losses), ("Accuracy", &accuracies)] {
        if !lines.is_empty() {
            let series = lines.iter().map(|(name, points)| Series { name, points });
            panels.push(Panel { title, axes: ("round", ""), series: series.collect() });
        }
    }
    Ok(draw(path, &panels)?)
}
