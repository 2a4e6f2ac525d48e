//! Recording a task's model: the same plans for one client and for many side by side.

use std::ops::Range;

use tern_engine::nn::{Mode, Model};
use tern_engine::{
    Arena, Batching, Graph, Parameters, Plan, RowData, Schedule, Tensor, TextData, Trainable,
    Training,
};
use tern_shaders::state::StateRecord;

use crate::layout::ModelKind;
use crate::metrics::Metrics;
use crate::plan::{LocalTraining, UpdateKind};
use crate::{Error, Result};

/// Rows of a batch in evaluation. The last one is masked, so that the size changes nothing.
pub const EVALUATION_BATCH: usize = 256;

/// Classes that are looked at for the metric `top3`.
const TOP: u32 = 3;
/// Names of what [`evaluation_metrics`] measures; of training there is the `loss` alone.
pub const METRICS: [&str; 3] = ["accuracy", "loss", "top3"];

/// Data of a client, on its device.
#[derive(Clone)]
pub enum LocalData {
    /// Rows with a class each.
    Rows(RowData),
    /// Windows of texts.
    Text(TextData),
}

impl LocalData {
    /// Number of samples.
    pub fn len(&self) -> usize {
        match self {
            LocalData::Rows(rows) => rows.len(),
            LocalData::Text(text) => text.len(),
        }
    }

    /// Whether there are none; there never are.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next batch: inputs and targets, as [`Graph::row_batch`] and [`Graph::text_batch`] have
    /// them.
    ///
    /// # Errors
    /// The engine's.
    pub fn batch(&self, graph: &mut Graph, batching: &Batching) -> Result<(Tensor, Tensor)> {
        Ok(match self {
            LocalData::Rows(rows) => graph.row_batch(rows, batching)?,
            LocalData::Text(text) => graph.text_batch(text, batching)?,
        })
    }
}

/// A task's layers, to be recorded with softmax cross-entropy on an arena of one model or of many
/// side by side. Which samples a replica takes and how many steps is up to its state record.
pub struct Recorder {
    parameters: Parameters,
    model: Model,
}

impl Recorder {
    /// Of the layers that a task describes.
    ///
    /// # Errors
    /// [`Error::Value`] for a model of tensors alone; the engine's for layers that make no sense.
    pub fn new(model: &ModelKind) -> Result<Self> {
        let ModelKind::Layers(spec) = model else {
            let expected = "layers, or a trainer of its own";
            return Err(Error::value("model of the task", "tensors alone", expected));
        };
        let (parameters, model) = spec.build()?;
        Ok(Recorder { parameters, model })
    }

    /// The model's parameters.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Loss, logits and targets of the next batch.
    fn loss(
        &self,
        graph: &mut Graph,
        data: &LocalData,
        batching: &Batching,
        mode: Mode,
    ) -> Result<(Tensor, Tensor, Tensor)> {
        let (inputs, targets) = data.batch(graph, batching)?;
        let logits = self.model.forward(graph, inputs, mode)?.output;
        Ok((graph.cross_entropy(logits, targets)?, logits, targets))
    }

    /// A training step, and where updates are gradients the gradient of a batch.
    ///
    /// # Errors
    /// The engine's, for tokens or classes that the model doesn't have, and for data of another
    /// shape.
    pub fn training(
        &self,
        arena: &Arena,
        data: &LocalData,
        local: &LocalTraining,
        kind: UpdateKind,
    ) -> Result<(Plan, Option<Plan>)> {
        let batching = Batching::shuffled(local.batch as usize);
        let mut graph = Graph::new(arena);
        let (loss, ..) = self.loss(&mut graph, data, &batching, Mode::Train)?;
        let training = Training::new(local.optimizer, local.learning_rate)
            .clip_norm(local.clip_gradient)
            .proximal(local.proximal);
        let train = graph.train(loss, &training)?;
        if kind == UpdateKind::Delta {
            return Ok((train, None));
        }
        let mut graph = Graph::new(arena);
        let (loss, ..) = self.loss(&mut graph, data, &batching, Mode::Train)?;
        let one = graph.constant(1.0, &[1]);
        let (gradient, _) = graph.gradients(&[(loss, one)], &Trainable::All, &[])?;
        Ok((train, Some(gradient)))
    }

    /// A step of evaluation, and the counts that [`evaluation_metrics`] reads.
    ///
    /// # Errors
    /// As of [`Recorder::training`].
    pub fn evaluation(&self, arena: &Arena, data: &LocalData) -> Result<(Plan, Tensor)> {
        let mut graph = Graph::new(arena);
        let batching = Batching::in_order(data.len().min(EVALUATION_BATCH));
        let (loss, logits, targets) = self.loss(&mut graph, data, &batching, Mode::Evaluate)?;
        let counts = graph.accuracy(logits, targets, TOP)?;
        Ok((graph.evaluate(loss)?, counts))
    }
}

/// The record of a replica that is about to train `steps` steps on a part of the samples, with an
/// optimizer that has made `done` steps before: its moments count then. The round says how far the
/// learning rate has fallen.
pub fn state_record(
    local: &LocalTraining,
    round: u32,
    seed: u32,
    part: Range<usize>,
    steps: u32,
    done: u32,
) -> StateRecord {
    let part = part.start as u32..part.end as u32;
    let schedule = Schedule::constant(local.learning_rate);
    let record = StateRecord::new(seed, part, local.batch, steps, &schedule);
    record.scaled(local.scale(round) as f32).resumed(done)
}

/// Steps in which [`Recorder::evaluation`] sees each of so many samples, of which there are some,
/// once.
pub fn evaluation_steps(samples: usize) -> usize {
    samples.div_ceil(samples.clamp(1, EVALUATION_BATCH))
}

/// `accuracy` and `top3` from the counts of [`Graph::accuracy`], and `loss`.
pub fn evaluation_metrics(counts: &[u32], loss: Option<f32>) -> Metrics {
    let rows = f64::from(counts[2].max(1));
    let mut metrics = Metrics::from([
        ("accuracy".to_string(), f64::from(counts[0]) / rows),
        (format!("top{TOP}"), f64::from(counts[1]) / rows),
    ]);
    if let Some(loss) = loss {
        metrics.insert("loss".into(), loss.into());
    }
    metrics
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_evaluation_sees_every_sample() {
        let steps = [0, 1, 255, 256, 257, 512, 513].map(evaluation_steps);
        assert_eq!(steps, [0, 1, 1, 1, 2, 2, 3]);
    }

    #[test]
    fn the_names_of_metrics_are_those_that_are_measured() {
        let measured = evaluation_metrics(&[3, 4, 5], Some(0.5));
        assert_eq!(measured.keys().collect::<Vec<_>>(), METRICS);
        let expected = [0.6, 0.5, 0.8];
        assert!(measured.values().zip(expected).all(|(x, y)| *x == y), "{measured:?}");
        // Of nothing there is nothing to measure.
        assert!(evaluation_metrics(&[0; 3], None).values().all(|x| *x == 0.0));
    }
}
