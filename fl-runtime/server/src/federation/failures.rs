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
    /// Who was asked and did not answer, or was put out.
    pub missing: Vec<Missing>,
}

/// A client that did not answer.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Missing {
    /// Who.
    pub client: ClientId,
    /// Its reason in its own words, or how it broke the protocol; nothing if it was silent.
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
        let FailedAttempt { turn, phase, reason, members, excluded } = failed;
        let missing = members.into_iter().filter(|(client, _)| !excluded.contains_key(client));
        let missing = missing.filter_map(|(client, progress)| match progress {
            Progress::Answered => None,
            Progress::Asked => Some(Missing { client, reason: None }),
            Progress::Declined => {
                let reason = self.declined.remove(&client).unwrap_or_default();
                Some(Missing { client, reason: Some(reason) })
            }
        });
        let mut missing: Vec<Missing> = missing.collect();
        // Whoever was put out in an earlier phase, too.
        let excluded = excluded.into_iter();
        missing.extend(excluded.map(|(client, how)| Missing { client, reason: Some(how) }));
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

#[cfg(test)]
mod tests {
    use tern_protocol::Turn;

    use super::*;

    #[test]
    fn who_was_put_out_is_shown_with_how_it_broke_the_protocol() {
        let id = |number| ClientId([number; 32]);
        let how = "its complaint about the envelope of member 0 is false".to_string();
        let mut failures = Failures::default();
        failures.add(FailedAttempt {
            turn: Turn::new(2, 1),
            phase: "collect",
            reason: "too few".into(),
            // One was put out in this phase, one in an earlier one.
            members: vec![
                (id(1), Progress::Answered),
                (id(2), Progress::Asked),
                (id(3), Progress::Declined),
            ],
            excluded: [3, 4].map(|number| (id(number), how.clone())).into(),
        });
        let [failed] = &failures.last()[..] else { panic!("one attempt") };
        let missing = |number, reason| Missing { client: id(number), reason };
        let expected = [missing(2, None), missing(3, Some(how.clone())), missing(4, Some(how))];
        assert_eq!(failed.missing, expected);
    }
}
