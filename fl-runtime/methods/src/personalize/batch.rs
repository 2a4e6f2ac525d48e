//! Rows that a model predicts and trains on together.

use tern_engine::nn::{Input, ModelSpec};
use tern_engine::{Data, Graph, IGNORE, Tensor};
use tern_protocol::{Error, Result};

use super::{KeptActivations, TOP};

/// Rows that are predicted and trained on together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Rows of a batch.
    pub rows: usize,
    /// Tokens of a row where the model reads tokens; 1 otherwise.
    pub length: usize,
}

/// What was predicted, what came, and what is left of the prediction.
pub struct Batch {
    /// Tokens `[length, rows]` (time first), or features `[rows, width]`.
    pub inputs: Data,
    /// Class of each place `[length, rows]`, or of each row; [`IGNORE`] counts nowhere.
    pub targets: Vec<u32>,
    /// What was predicted: the most probable classes of each place, as
    /// [`Learner::predict`](super::Learner::predict) gives them. Empty if nothing was; training
    /// doesn't read it.
    pub predicted: Vec<u32>,
    /// Activations of the prediction.
    pub kept: Option<KeptActivations>,
}

impl Batch {
    /// Windows of tokens, each with its targets, as a batch: rows that are missing, and places
    /// past the end of a window, count nowhere.
    ///
    /// # Errors
    /// [`Error::Value`] for more windows than rows, a window that is too long, or one with
    /// another number of targets than tokens.
    pub fn of_windows(shape: Shape, windows: &[(&[u32], &[u32])]) -> Result<Self> {
        let Shape { rows, length } = shape;
        if windows.len() > rows {
            return Err(Error::value("windows", windows.len(), format!("at most {rows}")));
        }
        let mut inputs = vec![0; length * rows];
        let mut targets = vec![IGNORE; length * rows];
        for (row, (tokens, expected)) in windows.iter().enumerate() {
            if tokens.len() > length || expected.len() != tokens.len() {
                let given = format!("{} tokens, {} targets", tokens.len(), expected.len());
                return Err(Error::value("window", given, format!("at most {length} of each")));
            }
            for (at, (token, target)) in tokens.iter().zip(*expected).enumerate() {
                inputs[at * rows + row] = *token;
                targets[at * rows + row] = *target;
            }
        }
        Ok(Batch { inputs: Data::U32(inputs), targets, predicted: Vec::new(), kept: None })
    }

    /// Targets that count.
    pub fn counted(&self) -> usize {
        self.targets.iter().filter(|target| **target != IGNORE).count()
    }
}

/// What a model can read and predict. Kernels would take other tokens and classes for the last one.
#[derive(Clone, Copy)]
pub(super) struct Domain {
    input: Input,
    classes: usize,
}

impl Domain {
    /// Of a model with these outputs, one for each class.
    pub fn of(spec: &ModelSpec, graph: &Graph, logits: Tensor) -> Self {
        let classes = graph.shape(logits).last().copied().unwrap_or(0);
        Domain { input: spec.input, classes }
    }

    /// Predictions that the model gives for each target: [`TOP`], or all classes.
    pub fn top(&self) -> usize {
        TOP.min(self.classes)
    }

    /// Refuses tokens past the vocabulary, and features that are no finite numbers.
    pub fn check_inputs(&self, inputs: &Data) -> Result<()> {
        match (self.input, inputs) {
            (Input::Tokens { vocabulary }, Data::U32(tokens)) => {
                check_words("token", tokens, vocabulary)
            }
            (_, Data::F32(features)) => match features.iter().position(|x| !x.is_finite()) {
                Some(at) => {
                    Err(Error::value(format!("feature {at}"), features[at], "a finite number"))
                }
                None => Ok(()),
            },
            // The engine refuses words for features.
            _ => Ok(()),
        }
    }

    /// Refuses a batch with either.
    pub fn check(&self, batch: &Batch) -> Result<()> {
        self.check_inputs(&batch.inputs)?;
        self.check_targets(&batch.targets)
    }

    /// Refuses classes that the model doesn't have.
    pub fn check_targets(&self, targets: &[u32]) -> Result<()> {
        check_words("target", targets, self.classes)
    }
}

/// Refuses words that are neither below the limit nor [`IGNORE`].
fn check_words(name: &str, words: &[u32], limit: usize) -> Result<()> {
    match words.iter().position(|word| *word != IGNORE && *word as usize >= limit) {
        Some(at) => {
            Err(Error::value(format!("{name} {at}"), words[at], format!("one below {limit}")))
        }
        None => Ok(()),
    }
}
