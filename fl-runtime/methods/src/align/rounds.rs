//! The runs: as a plan for a third node, and driven by the target itself.

use tern_protocol::layout::Layout;
use tern_protocol::metrics::{self, Metrics};
use tern_protocol::plan::{Scores, StrategySpec, UpdateKind, Updates};
use tern_protocol::strategy::advance;
use tern_protocol::trainer::{Job, Trained, Trainer, training_seed};
use tern_protocol::update::limit;
use tern_protocol::{ClientId, Error, Refusal, Result, RunId, RunPlan, StrategyState, Total, Turn};

use super::{Fusion, Model, Phase, Settings};

/// Milliseconds that a round waits for a node that is away.
const GATHER: u64 = 1000;

/// What nodes report.
const METRICS: [&str; 5] = ["accuracy", "adversarial", "discriminator", "loss", "task"];

/// The run as a server on a third node serves it (4.4), with [`Fusion`] as its own strategy.
/// It has to be started from [`Model::initial`]. All nodes take part in every round; a round goes
/// on without those that fail, as long as two are left. For one that is away it waits a second:
/// the nodes are few and ask all the time, so who didn't by then won't, and every round would
/// wait as long again.
///
/// The loss says when adapting gets no further, not which model is best. So it is the plan's
/// metric only with a [`Settings::patience`]; without, clients end with the last model.
pub fn plan(name: &str, model: &Model, settings: &Settings, nodes: u32) -> RunPlan {
    let mut plan = RunPlan::new(name, model.kind(), settings.rounds());
    plan.seed = settings.seed;
    (plan.cohort.size, plan.cohort.minimum) = (nodes, nodes.min(2));
    plan.cohort.gather_ms = GATHER;
    plan.strategy = StrategySpec::Custom(Fusion::NAME.into());
    let metric = if settings.patience.is_some() { "loss" } else { "accuracy" };
    plan.evaluation.metrics = METRICS.map(String::from).into();
    plan.evaluation.metric = metric.into();
    plan.evaluation.scores = Scores::Clients;
    plan.evaluation.patience = settings.patience;
    // The target weighs as much as all sources.
    plan.updates.max_over_median = Updates::ANY_OVER_MEDIAN;
    plan
}

/// An exchange that is over.
#[derive(Clone, Debug, PartialEq)]
pub struct Round {
    /// Its number, from 1.
    pub number: u32,
    /// What it was for.
    pub phase: Phase,
    /// The nodes' losses, averaged by their weights.
    pub metrics: Metrics,
    /// Nodes that failed, and why.
    pub absent: Vec<(ClientId, String)>,
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The loss fell no more.
    Converged,
    /// The rounds are spent.
    Spent,
}

/// What a run comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The aggregated G, T and D: what the target uses (4.7).
    pub model: Vec<f32>,
    /// Rounds that there were.
    pub rounds: u32,
    /// Why there were no more.
    pub ended: Ended,
}

/// Runs a plan of [`plan`] from a first model, with the target as the aggregator: the nodes'
/// changes come here, and the same sums are made of them as on a server. `observe` sees every
/// round, with the model after it. A node that fails sits the round out.
///
/// # Errors
/// [`Error::Value`] for a plan that makes no sense; [`Error::TooFew`] for a round that fewer
/// nodes than `cohort.minimum` come through.
pub fn run<T: Trainer>(
    plan: &RunPlan,
    strategy: &Fusion,
    initial: &[f32],
    nodes: &mut [(ClientId, T)],
    mut observe: impl FnMut(&Round, &[f32]),
) -> Result<Outcome> {
    let (layout, task) = (plan.check()?, plan.task(RunId([0; 16]))?);
    if initial.len() != layout.elements() {
        let expected = layout.elements().to_string();
        return Err(Error::value("elements of the first model", initial.len(), expected));
    }
    let mut model = initial.to_vec();
    let mut state = StrategyState::default();
    let mut best: Option<(f64, u32)> = None;
    for number in 1..=plan.rounds {
        let mut total = Total::new(layout.elements(), plan.fraction_bits());
        let (mut reports, mut absent) = (Vec::new(), Vec::new());
        let start = std::sync::Arc::new(model.clone());
        for (id, node) in nodes.iter_mut() {
            let seed = training_seed(plan.seed, number, id);
            let job = Job::new(Turn::new(number, 1), start.clone(), seed);
            match node.train(&task, &job).and_then(|trained| usable(trained, plan, &layout)) {
                Ok(trained) => {
                    total.begin(trained.samples);
                    total.add(0, &trained.update, trained.samples);
                    reports.push((trained.samples, trained.metrics));
                }
                Err(error) => absent.push((*id, error.to_string())),
            }
        }
        let needed = plan.cohort.minimum as usize;
        if reports.len() < needed {
            return Err(Error::TooFew { turn: Turn::new(number, 1), needed, absent });
        }
        advance(strategy, UpdateKind::Delta, &layout, &mut model, total.mean(), &mut state)?;
        let metrics = metrics::mean(reports.iter().map(|(samples, metrics)| (*samples, metrics)));
        let reported = metrics::middle(reports.iter().map(|(_, metrics)| metrics));
        let loss = reported.get(&plan.evaluation.metric).copied();
        observe(&Round { number, phase: strategy.phase(number), metrics, absent }, &model);
        // As the coordinator does it: only rounds with a loss count.
        if let Some(loss) = loss {
            if best.is_none_or(|(least, _)| loss < least) {
                best = Some((loss, number));
            }
            let stale = best.map_or(0, |(_, round)| number - round);
            if plan.evaluation.patience.is_some_and(|patience| stale >= patience) {
                return Ok(Outcome { model, rounds: number, ended: Ended::Converged });
            }
        }
    }
    Ok(Outcome { model, rounds: plan.rounds, ended: Ended::Spent })
}

/// What a client would send and a server would take.
fn usable(mut trained: Trained, plan: &RunPlan, layout: &Layout) -> Result<Trained> {
    let Trained { update, samples, .. } = &mut trained;
    if update.len() != layout.elements() {
        let expected = format!("{}", layout.elements());
        return Err(Error::value("elements of the update", update.len(), expected));
    }
    let (most, bound) = (plan.updates.max_samples, plan.updates.bound);
    if !(1..=most).contains(&*samples) {
        return Err(Refusal::Samples { given: *samples, most }.into());
    }
    if let Some(at) = update.iter().position(|x| !x.is_finite()) {
        return Err(Refusal::Number { at, value: update[at], bound }.into());
    }
    plan.updates.clip(update);
    if let Some(most) = plan.updates.max_norm {
        limit(update, most);
    }
    Ok(trained)
}
