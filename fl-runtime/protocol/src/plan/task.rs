//! What a client is told of a plan, once a run.

use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{LocalTraining, Secure, Updates};
use crate::layout::ModelKind;
use crate::schema::Schema;
use crate::tokens::Tokens;
use crate::{Digest, Error, Result, RunId};

/// What a client needs to know of a plan, once a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// The run.
    pub run: RunId,
    /// Its name.
    pub name: String,
    /// What is trained.
    pub model: ModelKind,
    /// [`Layout::digest`](crate::Layout::digest) of it.
    pub layout: Digest,
    /// Seed of clients' training.
    pub seed: u32,
    /// What clients do in a round.
    pub training: LocalTraining,
    /// How updates and models travel.
    pub updates: Updates,
    /// Secure aggregation.
    pub secure: Option<Secure>,
    /// Most clients of a secure session.
    pub cohort: u32,
    /// Names of what is measured: [`Evaluation::metrics`](super::Evaluation::metrics).
    pub metrics: Vec<String>,
    /// What the columns of clients' tables mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Schema>,
    /// How clients' text becomes tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Tokens>,
}

/// A task, and the text by which the server tells it. Secure sessions are of the text: whoever
/// reads something else in it than another, or skips a field that it doesn't know, is still in a
/// session with those alone who were told the same.
///
/// ```
/// use tern_engine::nn::ModelSpec;
/// use tern_protocol::plan::Task;
/// use tern_protocol::{Digest, RunId, RunPlan, layout::ModelKind};
///
/// # fn main() -> tern_protocol::Result<()> {
/// let plan = RunPlan::new("lines", ModelKind::Layers(ModelSpec::mlp(2, &[], 1)), 1);
/// let told = Task::from(plan.task(RunId([1; 16]))?);
/// let read = Task::read(told.text())?;
/// assert_eq!(read.digest(), told.digest());
/// assert_eq!(read.digest(), Digest::of(told.text().as_bytes()));
/// assert_eq!(read.name, "lines");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    spec: TaskSpec,
    text: Arc<str>,
}

impl Task {
    /// What a text says.
    ///
    /// # Errors
    /// [`Error::Value`] if it says no task.
    pub fn read(text: &str) -> Result<Self> {
        let spec = serde_json::from_str(text)
            .map_err(|error| Error::value("task", error, "one of this version"))?;
        Ok(Task { spec, text: text.into() })
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// SHA-256 of the text.
    pub fn digest(&self) -> Digest {
        Digest::of(self.text.as_bytes())
    }
}

impl Deref for Task {
    type Target = TaskSpec;

    fn deref(&self) -> &TaskSpec {
        &self.spec
    }
}

impl From<TaskSpec> for Task {
    fn from(spec: TaskSpec) -> Self {
        // Nothing in it fails to be written: maps have text keys.
        let text = serde_json::to_string(&spec).unwrap_or_default();
        Task { spec, text: text.into() }
    }
}
