//! What the suite is at, on standard error: a line that the next one replaces on a terminal,
//! and elsewhere a line for each part.

use std::io::{IsTerminal, Write};
use std::time::Instant;

/// Shows what is going on.
pub struct Progress {
    start: Instant,
    terminal: bool,
}

impl Progress {
    /// Starts the clock.
    pub fn new() -> Self {
        Progress { start: Instant::now(), terminal: std::io::stderr().is_terminal() }
    }

    /// A new part has begun.
    pub fn part(&self, what: &str) {
        self.clear();
        eprintln!("[{:4.0} s] {what}", self.start.elapsed().as_secs_f64());
    }

    /// Something within a part has begun: `done` of `all`.
    pub fn step(&self, done: usize, all: usize, what: &str) {
        if self.terminal {
            let mut err = std::io::stderr();
            // Progress that can't be shown is no reason to stop.
            let _ = write!(err, "\r\x1b[K  {done}/{all} {what}").and_then(|()| err.flush());
        }
    }

    /// Takes the last line away.
    pub fn clear(&self) {
        if self.terminal {
            let mut err = std::io::stderr();
            let _ = write!(err, "\r\x1b[K").and_then(|()| err.flush());
        }
    }
}
