//! What the demos share: reading text by speaker, characters as tokens, word suggestions from
//! a next-character model, progress and reports. Nothing here needs a device; the demos
//! themselves are in `src/bin/`.

pub mod alphabet;
pub mod keystrokes;
pub mod progress;
pub mod report;
pub mod suggest;
pub mod text;
pub mod users;
