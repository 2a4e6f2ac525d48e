//! What a run logs.

/// Losses of the steps of a [`Plan::run`](crate::Plan::run).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Losses {
    /// Loss by replica, then by step.
    pub by_replica: Vec<Vec<f32>>,
    /// Rows of each step's batch, by replica.
    pub rows: Vec<Vec<f32>>,
}

impl Losses {
    /// Loss of the last step, averaged over replicas; `None` if the plan has no loss.
    pub fn last(&self) -> Option<f32> {
        let last: Option<Vec<f32>> = self.by_replica.iter().map(|l| l.last().copied()).collect();
        last.filter(|l| !l.is_empty()).map(|l| l.iter().sum::<f32>() / l.len() as f32)
    }

    /// Mean over all steps and replicas, weighted by the rows of the batches; `None` if
    /// there are none.
    pub fn mean(&self) -> Option<f32> {
        mean(self.by_replica.iter().flatten(), self.rows.iter().flatten())
    }

    /// Mean over the steps of one replica, weighted likewise; `None` if it made none.
    pub fn mean_of(&self, replica: usize) -> Option<f32> {
        mean(self.by_replica.get(replica)?, self.rows.get(replica)?)
    }
}

fn mean<'a>(
    losses: impl IntoIterator<Item = &'a f32>,
    rows: impl IntoIterator<Item = &'a f32>,
) -> Option<f32> {
    let pairs = losses.into_iter().zip(rows);
    let pairs = pairs.map(|(l, r)| (f64::from(*l) * f64::from(*r), f64::from(*r)));
    let (sum, weight) = pairs.fold((0.0, 0.0), |(s, w), (l, r)| (s + l, w + r));
    (weight > 0.0).then(|| (sum / weight) as f32)
}
