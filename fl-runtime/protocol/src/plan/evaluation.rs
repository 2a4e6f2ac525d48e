//! How a run tells a better model from a worse one.

use serde::{Deserialize, Serialize};

/// Which scores are better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// Small ones.
    #[default]
    Minimize,
    /// Large ones.
    Maximize,
}

/// What makes a model the best, and when to stop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Evaluation {
    /// The metric that counts: of the central evaluation if it has it, else of the clients'
    /// evaluation, else of their training.
    pub metric: String,
    /// Which scores are better.
    pub goal: Goal,
    /// Rounds without a better model after which the run stops.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patience: Option<u32>,
    /// Whether the clients whose updates were counted evaluate the new model, and those that have
    /// no samples to train on.
    pub on_clients: bool,
}

impl Default for Evaluation {
    fn default() -> Self {
        let metric = "loss".into();
        Evaluation { metric, goal: Goal::Minimize, patience: None, on_clients: false }
    }
}
