//! Who looks on while the suite runs.

use std::time::Duration;

use anyhow::Result;
use tern_engine::Device;

use crate::report::Check;

/// What the suite tells while it runs, and asks of where it runs.
pub trait Watch {
    /// A part has begun.
    fn part(&mut self, _what: &str) {}

    /// Something within a part has begun: `done` of `all`.
    fn step(&mut self, _done: usize, _all: usize, _what: &str) {}

    /// The cases of a kernel are done.
    fn checked(&mut self, _check: &Check) {}

    /// A kernel of these sizes, or a model, was timed: the moment to time a peer's, in about the
    /// same time, and to keep it under a name.
    ///
    /// # Errors
    /// If the peer fails, which ends the run.
    fn timed(
        &mut self,
        _device: &Device,
        _what: (&str, &str),
        _budget: Duration,
        _name: &str,
    ) -> Result<()> {
        Ok(())
    }

    /// Bytes that the process holds now; what [`Watch::peak`] says is counted from here.
    fn mark(&mut self) -> u64;

    /// Most bytes held at once since [`Watch::mark`].
    fn peak(&mut self) -> u64;
}
