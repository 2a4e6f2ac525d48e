//! What the demos share: reading text by speaker, word suggestions from
//! a next-character model, progress and reports, none of which needs a device; and the parts
//! of the demos, whose commands are in `src/bin/`.

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
