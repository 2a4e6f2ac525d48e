//! Rows that a model predicts and trains on together.

use tern_engine::{Data, IGNORE};

use super::Kept;
use crate::{Error, Result};

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
    pub kept: Option<Kept>,
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
