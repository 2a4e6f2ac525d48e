//! How a run tells a better model from a worse one.

use serde::{Deserialize, Serialize};

use super::check::within;
use crate::trainer::METRICS;
use crate::{Error, Result};

/// Most metrics of a run.
const MAX_METRICS: usize = 32;
/// Longest name of a metric, in bytes.
const MAX_NAME: usize = 64;

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

impl Goal {
    /// Whether a score is better than another.
    pub fn is_better(self, score: f64, than: f64) -> bool {
        match self {
            Goal::Minimize => score < than,
            Goal::Maximize => score > than,
        }
    }
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
    /// that a few are right against the rest, these few are left out, too. Of a secure round
    /// nothing is known but the mean of their training, which one that lies can shift.
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
    /// Names of what may be measured, that metric among them: what trainers and evaluations report
    /// beside these is left out. By default what the engine's trainer reports.
    pub metrics: Vec<String>,
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
        let (metric, metrics) = ("loss".into(), METRICS.map(String::from).into());
        let (scores, goal) = (Scores::Server, Goal::Minimize);
        Evaluation { metric, scores, metrics, goal, patience: None, on_clients: false }
    }
}

impl Evaluation {
    pub(super) fn check(&self) -> Result<()> {
        within("evaluation.metrics", self.metrics.len(), 1..=MAX_METRICS)?;
        let is_word = |name: &str| {
            (1..=MAX_NAME).contains(&name.len()) && !name.chars().any(char::is_control)
        };
        for (at, name) in self.metrics.iter().enumerate() {
            if !is_word(name) || self.metrics[..at].contains(name) {
                let expected = format!("names of 1 to {MAX_NAME} bytes, each once");
                return Err(Error::value("evaluation.metrics", format!("{name:?}"), expected));
            }
        }
        match self.metrics.contains(&self.metric) {
            true => Ok(()),
            false => {
                let expected = format!("one of evaluation.metrics: {}", self.metrics.join(", "));
                Err(Error::value("evaluation.metric", format!("{:?}", self.metric), expected))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_score_is_better_than_itself() {
        for (goal, better, worse) in [(Goal::Minimize, -1.0, 2.0), (Goal::Maximize, 2.0, -1.0)] {
            assert!(goal.is_better(better, worse), "{goal:?}");
            assert!(!goal.is_better(worse, better), "{goal:?}");
            assert!(!goal.is_better(worse, worse), "{goal:?}");
            assert!(!goal.is_better(f64::NAN, worse) && !goal.is_better(worse, f64::NAN));
        }
    }
}
