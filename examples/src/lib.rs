//! What the demos share: reading text by speaker, word suggestions from a next-character model,
//! progress and reports, none of which needs a device; and the parts of the demos, whose commands
//! are in `src/bin/`.

pub mod adapters;
pub mod bars;
pub mod digits;
pub mod keyboard;
pub mod keystrokes;
pub mod network;
pub mod options;
pub mod progress;
pub mod public;
pub mod recommender;
pub mod report;
pub mod scatter;
pub mod shakespeare;
pub mod suggest;
pub mod teacher;
pub mod text;
pub mod users;

use std::io::Write;

use anyhow::Result;
use clap::Parser;

/// What the command of a demo does: reads its options and runs it, to standard output.
///
/// # Errors
/// What the demo fails with.
pub fn start<Options: Parser>(run: fn(&Options, &mut dyn Write) -> Result<()>) -> Result<()> {
    // SAFETY: this is the first that the process does: it has no other thread.
    unsafe { tern_fl::host::display::look_for_none() };
    run(&Options::parse(), &mut std::io::stdout())
}
