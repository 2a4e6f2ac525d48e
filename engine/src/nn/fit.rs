//! Training in epochs, with evaluation and early stopping.

use crate::{Error, Flat, Plan, Result};

/// How long to train.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fit {
    /// Most epochs.
    pub epochs: usize,
    /// Training steps an epoch.
    pub steps: usize,
    /// Evaluation steps after each epoch: batches of the evaluation plan's data set.
    pub evaluation_steps: usize,
    /// Epochs without a better evaluation loss after which training stops; `None`: never.
    pub patience: Option<usize>,
}

/// Result of an epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Epoch {
    /// Counted from 1.
    pub epoch: usize,
    /// Mean loss of its training steps, over all replicas.
    pub training: f32,
    /// Evaluation loss after it, over all replicas; `None` without an evaluation plan.
    pub evaluation: Option<f32>,
}

/// Why training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stop {
    /// All epochs are done.
    Done,
    /// The evaluation loss did not improve for as long as patience lasts.
    Patience,
    /// The caller asked for it.
    Asked,
}

impl Fit {
    /// At most so many epochs of so many steps, without evaluation.
    pub fn new(epochs: usize, steps: usize) -> Self {
        Fit { epochs, steps, evaluation_steps: 0, patience: None }
    }

    /// With batches to evaluate after each epoch.
    pub fn evaluation_steps(mut self, steps: usize) -> Self {
        self.evaluation_steps = steps;
        self
    }

    /// With an end after so many epochs without a better evaluation loss.
    pub fn patience(mut self, epochs: impl Into<Option<usize>>) -> Self {
        self.patience = epochs.into();
        self
    }

    /// Trains; `each` sees every epoch and returns whether to go on. With an evaluation plan
    /// (one that [`Graph::evaluate`](crate::Graph::evaluate) made, on the same arena) the
    /// models of the best epoch are put back at the end.
    ///
    /// # Errors
    /// [`Error::Value`] for no steps or a loss that isn't finite; [`Error::NotFinite`] where a
    /// replica fails, with the step and the tensor where it began; device errors.
    pub async fn run_async(
        &self,
        training: &mut Plan,
        mut evaluation: Option<&mut Plan>,
        mut each: impl FnMut(&Epoch) -> bool,
    ) -> Result<(Vec<Epoch>, Stop)> {
        if self.steps == 0 || (evaluation.is_some() && self.evaluation_steps == 0) {
            return Err(Error::value("steps of an epoch", 0, "at least 1"));
        }
        let mut epochs = Vec::new();
        let mut best: Option<(usize, f32, Vec<Vec<f32>>)> = None;
        let mut stop = Stop::Done;
        for epoch in 1..=self.epochs {
            let losses = training.run_async(self.steps).await?;
            if let Some(failure) = training.failure(&losses.failed).await? {
                return Err(failure);
            }
            let mean = finite(losses.mean(), epoch)?;
            let loss = match &mut evaluation {
                Some(plan) => {
                    plan.rewind()?;
                    let loss = plan.run_async(self.evaluation_steps).await?.mean();
                    Some(finite(loss, epoch)?)
                }
                None => None,
            };
            let result = Epoch { epoch, training: mean, evaluation: loss };
            epochs.push(result);
            if let Some(loss) = loss
                && best.as_ref().is_none_or(|(_, least, _)| loss < *least)
            {
                best = Some((epoch, loss, models(training).await?));
            }
            if !each(&result) {
                stop = Stop::Asked;
                break;
            }
            let since = best.as_ref().map_or(0, |(at, ..)| epoch - at);
            if self.patience.is_some_and(|patience| loss.is_some() && since >= patience.max(1)) {
                stop = Stop::Patience;
                break;
            }
        }
        if let Some((at, _, models)) = best
            && at < epochs.len()
        {
            for (replica, model) in models.iter().enumerate() {
                training.arena().write_async(Flat::Parameters, replica, model).await?;
            }
        }
        Ok((epochs, stop))
    }

    /// [`Fit::run_async`], waiting.
    ///
    /// # Errors
    /// As [`Fit::run_async`].
    #[cfg(feature = "blocking")]
    pub fn run(
        &self,
        training: &mut Plan,
        evaluation: Option<&mut Plan>,
        each: impl FnMut(&Epoch) -> bool,
    ) -> Result<(Vec<Epoch>, Stop)> {
        let device = training.arena().device().clone();
        device.wait(self.run_async(training, evaluation, each))
    }
}

fn finite(loss: Option<f32>, epoch: usize) -> Result<f32> {
    let loss = loss.unwrap_or(f32::NAN);
    if loss.is_finite() {
        return Ok(loss);
    }
    Err(Error::value(format!("loss of epoch {epoch}"), loss, "a finite number"))
}

async fn models(plan: &Plan) -> Result<Vec<Vec<f32>>> {
    let mut models = Vec::new();
    for replica in 0..plan.arena().replicas() {
        models.push(plan.arena().read_async(Flat::Parameters, replica).await?);
    }
    Ok(models)
}
