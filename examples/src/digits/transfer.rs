//! One transfer: without adaptation, aligned, and with the target's labels.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, ensure};
use serde::Serialize;
use tern_engine::Device;
use tern_fl::methods::align::{Fusion, Model, Node, Phase, Settings, plan, run};
use tern_fl::metrics::Metrics;
use tern_fl::server::local::{self, Client};
use tern_fl::{ClientId, RunPlan};

use super::data::{Images, Transfer};
use crate::progress::Progress;

/// Rounds between two measurements of the curve.
const EVERY: u32 = 20;

/// Samples of each domain whose features are drawn, or that a discriminator is measured on.
const SHOWN: usize = 300;

/// A transfer with a seed.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// Seed.
    pub seed: u32,
    /// Target accuracy of the aggregate after warming up: no adaptation.
    pub without: f64,
    /// The same, trained on as many batches as the aligned model, without a discriminator.
    pub longer: f64,
    /// Aligned.
    pub aligned: f64,
    /// Trained on the target's own labels.
    pub ceiling: f64,
    /// Share of features that the discriminator tells apart before G is trained against it.
    pub told_apart: f64,
    /// The same at the end.
    pub told_apart_after: f64,
    /// Whether a third node came to the same model, bit by bit, if one ran.
    pub third_agrees: Option<bool>,
    /// Rounds of the aligned run.
    pub rounds: u32,
    /// Target accuracy by exchange.
    pub curve: Vec<(f64, f64)>,
    /// What the pictures show.
    #[serde(skip)]
    pub features: [Features; 2],
    /// 4.7: what the target uses in the end.
    #[serde(skip)]
    pub model: Vec<f32>,
}

/// Features of both domains by a model.
#[derive(Clone, Debug, Default)]
pub struct Features {
    /// Of the first source.
    pub source: Vec<f32>,
    /// Of the target.
    pub target: Vec<f32>,
    /// What the digits are: the source's, then the target's, which only the picture knows.
    pub labels: [Vec<u32>; 2],
}

/// For looking at models beside the run.
pub struct Judge<'a> {
    source: Node,
    target: Node,
    transfer: &'a Transfer,
}

impl<'a> Judge<'a> {
    /// Of a transfer, by its own copies of the first source and the target.
    pub fn new(bench: Bench<'_>, settings: &Settings, transfer: &'a Transfer) -> Result<Self> {
        Ok(Judge {
            source: bench.source(settings, &transfer.sources[0].1)?,
            target: bench.target(settings, &transfer.target)?,
            transfer,
        })
    }

    /// Share of the test digits that a model reads right.
    pub fn accuracy(&mut self, model: &[f32]) -> Result<f64> {
        let test = &self.transfer.test;
        Ok(self.target.accuracy(model, &test.pixels, &test.labels)?)
    }

    fn shown(&self) -> [&[f32]; 2] {
        let first =
            |images: &'_ Images| SHOWN.min(images.len()) * images.pixels.len() / images.len();
        let (source, target) = (&self.transfer.sources[0].1, &self.transfer.target);
        [&source.pixels[..first(source)], &target.pixels[..first(target)]]
    }

    fn told_apart(&mut self, model: &[f32]) -> Result<f64> {
        let [source, target] = self.shown().map(<[f32]>::to_vec);
        let shares =
            [self.source.recognized(model, &source)?, self.target.recognized(model, &target)?];
        Ok(shares.iter().sum::<f64>() / 2.0)
    }

    fn features(&mut self, model: &[f32]) -> Result<Features> {
        let [source, target] = self.shown().map(<[f32]>::to_vec);
        let source = self.source.features(model, &source)?;
        let target = self.target.features(model, &target)?;
        let of = |images: &Images| images.labels.iter().take(SHOWN).copied().collect();
        let labels = [&self.transfer.sources[0].1, &self.transfer.target].map(of);
        Ok(Features { source, target, labels })
    }
}

/// Where transfers run.
#[derive(Clone, Copy)]
pub struct Bench<'a> {
    /// The nodes' device.
    pub device: &'a Device,
    /// G, T and D.
    pub model: &'a Model,
}

/// What sees every round: its number, the nodes' losses, the model after it.
pub type Look<'a> = dyn FnMut(u32, &Metrics, &[f32]) -> Result<()> + 'a;

impl Bench<'_> {
    /// The nodes of a transfer, the target last. The domains balance: it weighs as much as all
    /// sources.
    pub fn nodes(&self, settings: &Settings, transfer: &Transfer) -> Result<Vec<Node>> {
        let mut all = Vec::new();
        for (_, images) in &transfer.sources {
            all.push(self.source(settings, images)?);
        }
        let weight = 1000 * all.len() as u32;
        all.push(self.target(settings, &transfer.target)?.with_weight(weight));
        Ok(all)
    }

    fn source(&self, settings: &Settings, images: &Images) -> Result<Node> {
        let Images { pixels, labels } = images;
        Ok(Node::source(self.device, self.model, settings, pixels, labels)?)
    }

    fn target(&self, settings: &Settings, images: &Images) -> Result<Node> {
        Ok(Node::target(self.device, self.model, settings, &images.pixels, None)?)
    }

    /// What nodes and aggregator have in common: plan, strategy and first model.
    pub fn agreed(&self, settings: &Settings, nodes: usize) -> (RunPlan, Fusion, Vec<f32>) {
        let plan = plan("digits", self.model, settings, nodes as u32);
        (plan, Fusion::new(self.model, settings), self.model.initial(settings.seed))
    }

    /// Runs nodes to the end, added up by the target. Returns the last model and its round.
    pub fn run(
        &self,
        settings: &Settings,
        nodes: &mut [(ClientId, Node)],
        look: &mut Look<'_>,
    ) -> Result<(Vec<f32>, u32)> {
        let (plan, fusion, initial) = self.agreed(settings, nodes.len());
        let mut failed = Ok(());
        let outcome = run(&plan, &fusion, &initial, nodes, |round, model| {
            if failed.is_ok() {
                failed = look(round.number, &round.metrics, model);
            }
        })?;
        failed.map(|()| (outcome.model, outcome.rounds))
    }

    /// The same, added up by a third node without data: the runtime's server, its journal in a
    /// folder.
    fn run_by_third(
        &self,
        settings: &Settings,
        nodes: Vec<Node>,
        folder: &Path,
        mut tell: impl FnMut(&Metrics),
    ) -> Result<Vec<f32>> {
        let (plan, fusion, initial) = self.agreed(settings, nodes.len());
        let mut options = local::Options::new(self.device, folder);
        options.strategy = Some(Arc::new(fusion));
        let mut clients: Vec<_> =
            nodes.into_iter().enumerate().map(|(at, node)| Client::numbered(at, node)).collect();
        let outcome = local::run(&plan, Some(&initial), &mut clients, options, |round, _| {
            tell(&round.committed.training);
        })?;
        Ok(outcome.model)
    }
}

/// Nodes under the names that they have as clients of a third node.
fn named(nodes: Vec<Node>) -> Vec<(ClientId, Node)> {
    let client = |(at, node)| {
        let client = Client::numbered(at, node);
        (client.id(), client.trainer)
    };
    nodes.into_iter().enumerate().map(client).collect()
}

/// What beside the aligned run there is to do.
#[derive(Clone, Debug, Default)]
pub struct Beside {
    /// A third node aggregates once more, with its journal in this folder.
    pub third: Option<PathBuf>,
    /// What training on the target's labels comes to, if it is known.
    pub ceiling: Option<f64>,
}

impl Beside {
    /// Rounds of [`measure`].
    pub fn rounds(&self, settings: &Settings) -> u64 {
        let [aligned, alone] = [settings, &alone(settings)].map(|s| u64::from(s.rounds()));
        let third = u64::from(self.third.is_some());
        aligned * (1 + third) + alone * (1 + u64::from(self.ceiling.is_none()))
    }
}

/// Runs and measures a transfer.
pub fn measure(
    bench: Bench<'_>,
    settings: &Settings,
    transfer: &Transfer,
    beside: &Beside,
    progress: &mut Progress,
) -> Result<Measured> {
    ensure!(!transfer.sources.is_empty(), "{}: no source", transfer.name);
    let mut judge = Judge::new(bench, settings, transfer)?;
    let mut done = 0;
    let mut tell = |metrics: &Metrics| {
        done += 1;
        progress.update(done, metrics.get("loss").map(|loss| *loss as f32));
    };

    // Aligned; the model after warming up is the one without adaptation.
    let mut curve = Vec::new();
    let (mut without, mut told_apart) = (0.0, 0.0);
    let mut before = Features::default();
    let mut nodes = named(bench.nodes(settings, transfer)?);
    let (last, rounds) = bench.run(settings, &mut nodes, &mut |round, metrics, x| {
        tell(metrics);
        if round == settings.warm_ups {
            without = judge.accuracy(x)?;
            before = judge.features(x)?;
            curve.push((0.0, without));
        }
        if round == settings.warm_ups + settings.head_start {
            told_apart = judge.told_apart(x)?;
        }
        let count = settings.count(round);
        if settings.phase(round) == Phase::Adapt && count.is_multiple_of(EVERY) {
            curve.push((f64::from(count), judge.accuracy(x)?));
        }
        Ok(())
    })?;
    let aligned = judge.accuracy(&last)?;
    let after = judge.features(&last)?;
    let told_apart_after = judge.told_apart(&last)?;
    if curve.last().is_none_or(|(count, _)| *count < f64::from(settings.exchanges)) {
        curve.push((f64::from(settings.exchanges), aligned));
    }
    let third_agrees = match &beside.third {
        None => None,
        Some(folder) => {
            let nodes = bench.nodes(settings, transfer)?;
            Some(bench.run_by_third(settings, nodes, folder, &mut tell)? == last)
        }
    };

    let alone = alone(settings);
    let own = vec![("target".to_string(), transfer.target.clone())];
    let own = Transfer { sources: own, ..transfer.clone() };
    let mut trained = |transfer: &Transfer| -> Result<f64> {
        let mut nodes = named(bench.nodes(&alone, transfer)?);
        let (model, _) = bench.run(&alone, &mut nodes, &mut |_, metrics, _| {
            tell(metrics);
            Ok(())
        })?;
        judge.accuracy(&model)
    };
    let longer = trained(transfer)?;
    let ceiling = match beside.ceiling {
        Some(known) => known,
        None => trained(&own)?,
    };
    Ok(Measured {
        seed: settings.seed,
        without,
        longer,
        aligned,
        ceiling,
        told_apart,
        told_apart_after,
        third_agrees,
        rounds,
        curve,
        features: [before, after],
        model: last,
    })
}

/// As long, without a discriminator.
fn alone(settings: &Settings) -> Settings {
    Settings { strength: 0.0, ..settings.clone() }
}
