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

/// Whose measurements make a model the best.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scores {
    /// The server's own, on samples that it has; without such no model has a score.
    #[default]
    Server,
    /// The clients': a mean over the middle of what they say of the new model, each counted once,
    /// or of their training where they don't evaluate ([`crate::metrics::middle`]). A minority
    /// that lies shifts it within what the others measured; where clients' data differ so much
    /// that a few are right against the rest, these few are left out, too.
    Clients,
}

/// What makes a model the best, and when to stop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Evaluation {
    /// The metric that counts.
    pub metric: String,
    /// Whose measurements of it count.
    pub scores: Scores,
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
        let scores = Scores::Server;
        Evaluation { metric, scores, goal: Goal::Minimize, patience: None, on_clients: false }
    }
}
