//! A trainer as a session asks it: without being waited for by a thread.

use std::sync::Arc;

use tern_engine::Interrupt;
use tern_protocol::metrics::Metrics;
use tern_protocol::trainer::{Job, Trained};
use tern_protocol::{Result, TaskSpec};

/// Trains and evaluates. The outer error is one after which it can't go on.
pub(crate) trait Work {
    /// As [`Trainer::samples`](tern_protocol::trainer::Trainer::samples).
    fn samples(&self) -> u32;

    /// As [`Trainer::interrupt`](tern_protocol::trainer::Trainer::interrupt).
    fn interrupt(&self) -> Option<Interrupt>;

    /// As [`Trainer::train`](tern_protocol::trainer::Trainer::train).
    async fn train(&mut self, task: &TaskSpec, job: Job) -> Result<Result<Trained>>;

    /// As [`Trainer::evaluate`](tern_protocol::trainer::Trainer::evaluate).
    async fn evaluate(
        &mut self,
        task: &TaskSpec,
        model: Arc<Vec<f32>>,
    ) -> Result<Result<(u32, Metrics)>>;
}
