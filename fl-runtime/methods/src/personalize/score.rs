//! How well a model expects what came.

use serde::{Deserialize, Deserializer, Serialize};
use tern_engine::nn::{Mode, ModelSpec};
use tern_engine::{Arena, Data, Element, Graph, IGNORE, Plan, Tensor};
use tern_protocol::{Error, Result};

use super::batch::Domain;
use super::{Batch, Shape};

/// Predictions given for each target, the most probable first, where there are so many classes.
pub const TOP: usize = 3;

/// How well targets were expected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Targets counted.
    pub targets: usize,
    /// Of these, the most probable class.
    pub top1: usize,
    /// Of these, among the [`TOP`] most probable.
    pub top3: usize,
    /// Mean loss, in nats.
    #[serde(deserialize_with = "number")]
    pub loss: f64,
}

impl Score {
    /// Part of the targets that were the most probable class; 0 of none.
    pub fn top1_rate(&self) -> f64 {
        self.top1 as f64 / self.targets.max(1) as f64
    }

    /// Part of the targets that were among the [`TOP`] most probable; 0 of none.
    pub fn top3_rate(&self) -> f64 {
        self.top3 as f64 / self.targets.max(1) as f64
    }

    /// Both together.
    pub(super) fn and(self, other: Score) -> Score {
        let targets = self.targets + other.targets;
        let sum = |s: Score| s.loss * s.targets as f64;
        let loss = if targets == 0 { 0.0 } else { (sum(self) + sum(other)) / targets as f64 };
        Score { targets, top1: self.top1 + other.top1, top3: self.top3 + other.top3, loss }
    }
}

/// Scores the model in an arena, with the weights that are there at the time.
pub struct Scorer {
    plan: Plan,
    inputs: Tensor,
    targets: Tensor,
    loss: Tensor,
    places: Tensor,
    domain: Domain,
}

impl Scorer {
    /// For batches of a shape, with the first replica of an arena, whose parameters are the
    /// model's. Layers predict without dropout.
    ///
    /// # Errors
    /// [`Error::Value`] for a shape without rows; the engine's.
    pub fn new(arena: &Arena, spec: &ModelSpec, shape: Shape) -> Result<Self> {
        let (_, model) = spec.build()?;
        let mut graph = Graph::new(arena);
        let (inputs, targets) = inputs(&mut graph, spec, shape)?;
        let logits = model.forward(&mut graph, inputs, Mode::Evaluate)?.output;
        let domain = Domain::of(spec, &graph, logits);
        let (_, places) = graph.top_k(logits, domain.top() as u32)?;
        let loss = graph.cross_entropy(logits, targets)?;
        let (loss, places) = (graph.keep(loss), graph.keep(places));
        Ok(Scorer { plan: graph.forward()?, inputs, targets, loss, places, domain })
    }

    /// How well the weights as they are expect the targets of batches.
    ///
    /// # Errors
    /// [`Error::Value`] for a token or class that the model doesn't have, or a feature that is no
    /// finite number; the engine's for a batch of another shape.
    pub fn score(&mut self, batches: &[Batch]) -> Result<Score> {
        let mut score = Score::default();
        for batch in batches {
            self.domain.check(batch)?;
            self.plan.write(self.inputs, &batch.inputs)?;
            self.plan.write(self.targets, &Data::U32(batch.targets.clone()))?;
            self.plan.run(1)?;
            let loss = self.plan.read(self.loss)?.floats()?;
            let predicted = self.plan.read(self.places)?.words()?;
            let mut one = count(&batch.targets, &predicted, self.domain.top());
            one.loss = loss.first().copied().unwrap_or(f32::NAN).into();
            score = score.and(one);
        }
        Ok(score)
    }
}

/// The inputs of a model and the targets, in batches of a shape.
pub(super) fn inputs(
    graph: &mut Graph,
    spec: &ModelSpec,
    shape: Shape,
) -> Result<(Tensor, Tensor)> {
    let Shape { rows, length } = shape;
    if rows == 0 || length == 0 {
        let given = format!("{rows} rows of {length}");
        return Err(Error::value("shape of a batch", given, "at least one row of one"));
    }
    let Some(width) = spec.input.floats() else {
        let inputs = graph.input("inputs", &[length, rows], Element::U32);
        return Ok((inputs, graph.input("targets", &[length, rows], Element::U32)));
    };
    let inputs = graph.input("inputs", &[rows, width], Element::F32);
    Ok((inputs, graph.input("targets", &[rows], Element::U32)))
}

/// How often `predicted`, `top` of each target, had it.
pub(super) fn count(targets: &[u32], predicted: &[u32], top: usize) -> Score {
    let mut score = Score::default();
    for (target, predicted) in targets.iter().zip(predicted.chunks(top)) {
        if *target != IGNORE {
            score.targets += 1;
            score.top1 += usize::from(predicted[0] == *target);
            score.top3 += usize::from(predicted.contains(target));
        }
    }
    score
}

/// A loss: JSON has `null` for one that is no number.
pub(super) fn number<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}
