//! Attempts that failed: the journal has nothing of them, but those who watch want to know why.

use std::collections::{BTreeMap, VecDeque};

use tern_protocol::ClientId;
use tern_protocol::coordinator::{FailedAttempt, Progress};

/// Attempts that are kept.
const MOST: usize = 16;
/// Characters that are kept of what a client says.
const LONGEST: usize = 200;

/// An attempt at a round that failed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Failed {
    /// The round.
    pub round: u32,
    /// The attempt.
    pub attempt: u32,
    /// The phase in which it failed.
    pub phase: &'static str,
    /// Why.
    pub reason: String,
    /// Who was asked and did not answer.
    pub missing: Vec<Missing>,
}

/// A client that did not answer.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Missing {
    /// Who.
    pub client: ClientId,
    /// Its reason in its own words; nothing if it was silent.
    pub reason: Option<String>,
}

/// The last of them since the process started, and what clients of the open attempt say.
#[derive(Debug, Default)]
pub(super) struct Failures {
    last: VecDeque<Failed>,
    declined: BTreeMap<ClientId, String>,
}

impl Failures {
    /// Another attempt begins.
    pub fn begin(&mut self) {
        self.declined.clear();
    }

    /// A client won't take part.
    pub fn declined(&mut self, client: ClientId, reason: &str) {
        self.declined.insert(client, reason.chars().take(LONGEST).collect());
    }

    pub fn add(&mut self, failed: FailedAttempt) {
        let FailedAttempt { turn, phase, reason, members } = failed;
        let missing = members.into_iter().filter_map(|(client, progress)| match progress {
            Progress::Answered => None,
            Progress::Asked => Some(Missing { client, reason: None }),
            Progress::Declined => {
                let reason = self.declined.remove(&client).unwrap_or_default();
                Some(Missing { client, reason: Some(reason) })
            }
        });
        let missing = missing.collect();
        if self.last.len() == MOST {
            self.last.pop_front();
        }
        let (round, attempt) = (turn.round, turn.attempt);
        self.last.push_back(Failed { round, attempt, phase, reason, missing });
    }

    pub fn last(&self) -> Vec<Failed> {
        self.last.iter().cloned().collect()
    }
}
