//! One run of one way to train.

use anyhow::{Context, Result};
use serde::Serialize;
use tern_engine::nn::ModelSpec;
use tern_engine::{Device, RowData};
use tern_fl::RunPlan;
use tern_fl::layout::ModelKind;
use tern_fl::server::local::{self, Client};
use tern_fl::simulate::{self, Downlink, Population, Simulation};
use tern_fl::trainer::{EngineTrainer, LocalData};

use super::arms::Arm;
use super::data::{Data, Sample};
use super::device::{Hits, Recommender};
use super::options::Scale;
use crate::progress::Progress;

/// Samples that are measured at a time.
pub(super) const ROWS: usize = 512;

/// A point of a run's curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// After this round.
    pub round: u32,
    /// Bytes of updates and models until then, of all terminals.
    pub bytes: u64,
    /// On held-out customers.
    pub hits: Hits,
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Run {
    /// Seed of everything random.
    pub seed: u32,
    /// On held-out customers of all terminals, in the end.
    pub hits: Hits,
    /// Bytes of updates, the mean of a round.
    pub up: f64,
    /// Bytes of models, the mean of a round.
    pub down: f64,
    /// Bytes of whatever else is said, the mean of a round; `None` where nobody says anything.
    pub messages: Option<f64>,
    /// As it went.
    pub curve: Vec<Point>,
    /// The model.
    #[serde(skip)]
    pub model: Vec<f32>,
}

/// The model's layers.
pub fn spec(data: &Data, scale: &Scale) -> ModelSpec {
    ModelSpec::mlp(data.width(), &[scale.hidden], data.products.len())
}

/// What goes on beside the rounds: measuring and counting.
struct Watch<'a> {
    data: &'a Data,
    held_out: Vec<Sample>,
    recommender: Recommender,
    scale: Scale,
    progress: Progress,
    curve: Vec<Point>,
    up: u64,
    down: u64,
}

impl Watch<'_> {
    fn round(&mut self, round: u32, up: u64, down: u64) {
        self.up += up;
        self.down += down;
        self.progress.update(u64::from(round), None);
    }

    fn measure(&mut self, round: u32, model: &[f32]) -> Result<()> {
        self.recommender.set_model(model)?;
        let hits = self.recommender.measure(self.data, &self.held_out)?;
        self.curve.push(Point { round, bytes: self.up + self.down, hits });
        Ok(())
    }

    fn end(self, seed: u32, messages: Option<u64>, model: Vec<f32>) -> Run {
        let rounds = f64::from(self.scale.rounds);
        self.progress.finish();
        Run {
            seed,
            hits: self.curve.last().map_or_else(Hits::default, |point| point.hits),
            up: self.up as f64 / rounds,
            down: self.down as f64 / rounds,
            messages: messages.map(|bytes| bytes as f64 / rounds),
            curve: self.curve,
            model,
        }
    }
}

/// Trains.
pub fn run(arm: &Arm, data: &Data, scale: &Scale, seed: u32, device: &Device) -> Result<Run> {
    let model = ModelKind::Layers(spec(data, scale));
    let plan = arm.plan(&model, scale, seed);
    let watch = Watch {
        data,
        held_out: data.held_out(),
        recommender: Recommender::new(device, &spec(data, scale), ROWS)?,
        scale: *scale,
        progress: Progress::new(arm.name, u64::from(scale.rounds)),
        curve: Vec::new(),
        up: 0,
        down: 0,
    };
    match arm.secure {
        true => run_local(&plan, watch, device),
        false => simulate(&plan, watch, device),
    }
}

/// Terminals as replicas side by side.
fn simulate(plan: &RunPlan, mut watch: Watch<'_>, device: &Device) -> Result<Run> {
    let data = watch.data;
    let samples: Vec<Sample> = data.terminals.iter().flat_map(|t| t.training.clone()).collect();
    let (features, labels) = data.rows(&samples);
    let mut end = 0;
    let parts = data.terminals.iter().map(|terminal| {
        end += terminal.training.len();
        (end - terminal.training.len()..end).collect()
    });
    let parts: Vec<Vec<usize>> = parts.collect();
    let rows = (features.as_slice(), data.width());
    let clients = Population::rows(device, rows, &labels, data.products.len(), &parts)?;
    let mut simulation = Simulation::new(plan, clients, simulate::Options::new(device))?;
    let mut downlink = Downlink::new(plan)?;
    while let Some(record) = simulation.round()? {
        let up = record.uploads.values().map(|upload| upload.bytes).sum();
        let round = record.turn.round;
        watch.round(round, up, downlink.round(record.uploads.keys().copied().collect()));
        if watch.scale.due(round) {
            watch.measure(round, &simulation.model()?)?;
        }
    }
    let model = simulation.model()?;
    Ok(watch.end(plan.seed, None, model))
}

/// The protocol itself, every terminal a client with its own trainer.
fn run_local(plan: &RunPlan, mut watch: Watch<'_>, device: &Device) -> Result<Run> {
    // Journal and models are of no use after the run.
    let folder = tempfile::tempdir()?;
    let mut clients = clients(watch.data, device)?;
    let options = local::Options::new(device, folder.path());
    let (mut messages, mut failed) = (0, None);
    let outcome = local::run(plan, None, &mut clients, options, |round, model| {
        let (number, traffic) = (round.committed.round, &round.traffic);
        messages += traffic.messages_up + traffic.messages_down;
        watch.round(number, traffic.uploaded, traffic.downloaded);
        if watch.scale.due(number) && failed.is_none() {
            failed = watch.measure(number, model).err();
        }
    });
    match failed {
        Some(error) => Err(error),
        None => Ok(watch.end(plan.seed, Some(messages), outcome?.model)),
    }
}

/// Every terminal with a trainer of its own.
pub fn clients(data: &Data, device: &Device) -> Result<Vec<Client<EngineTrainer>>> {
    (0..data.terminals.len()).map(|number| client(data, number, device)).collect()
}

/// A terminal, by number, with a trainer of its own.
pub fn client(data: &Data, number: usize, device: &Device) -> Result<Client<EngineTrainer>> {
    let terminals = data.terminals.len();
    let terminal = data.terminals.get(number);
    let terminal = terminal.with_context(|| format!("terminal {number} of {terminals}"))?;
    let (features, labels) = data.rows(&terminal.training);
    let rows = RowData::upload(device, &features, data.width(), &labels, data.products.len())
        .with_context(|| format!("terminal {}", terminal.name))?;
    Ok(Client::numbered(number, EngineTrainer::new(device, LocalData::Rows(rows))))
}
