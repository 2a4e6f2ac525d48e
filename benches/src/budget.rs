//! How long the parts of a run may take.

use std::time::Duration;

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// A look rather than figures.
    pub quick: bool,
}

impl Budget {
    /// Time for a row of a kernel.
    pub fn row(self) -> Duration {
        Duration::from_millis(if self.quick { 50 } else { 500 })
    }

    /// Time for a training step, each of the two ways.
    pub fn training(self) -> Duration {
        Duration::from_millis(if self.quick { 300 } else { 4_000 })
    }

    /// Time for each side of a pair.
    pub fn pair(self) -> Duration {
        Duration::from_millis(if self.quick { 200 } else { 1_000 })
    }

    /// Longest step of several models that is still run, in seconds.
    pub fn longest_step(self) -> f64 {
        if self.quick { 0.5 } else { 20.0 }
    }
}
