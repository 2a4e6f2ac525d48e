//! What can go wrong: [`Error`] for the one who runs the program, [`Refusal`] for the one who
//! sent a message.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub use tern_engine::Cause;

use crate::{ClientId, Turn};

/// An error of the federated runtime.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option outside of what is allowed.
    #[error("{name} is {value}, expected {expected}")]
    Value {
        /// Name of the option or input.
        name: String,
        /// The value given.
        value: String,
        /// What would do.
        expected: String,
    },
    /// A file or folder that can't be read or written.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong: an error of the system or of the format.
        reason: Cause,
    },
    /// The journal of a run.
    #[error("journal {}: {reason}", path.display())]
    Journal {
        /// The database.
        path: PathBuf,
        /// What is wrong: an error of the database or of what it holds.
        reason: Cause,
    },
    /// The engine's.
    #[error(transparent)]
    Engine(#[from] tern_engine::Error),
    /// A message that wasn't taken, where nobody else is there to be told.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The system has no entropy to give.
    #[error("no entropy: {0}")]
    Entropy(#[from] getrandom::Error),
    /// A client left a session of secure aggregation: what the server did wrong, or that the
    /// client itself was away.
    #[error("secure aggregation: {0}")]
    Aborted(Aborted),
    /// A configuration's.
    #[error(transparent)]
    Config(Box<dyn std::error::Error + Send + Sync>),
    /// An answer that would cost more privacy than is left.
    #[error(
        "the privacy budget is ε = {budget:.3} at δ = {delta:e}: {spent:.3} is spent, and the \
         answer could cost {asked:.3} more"
    )]
    Budget {
        /// ε spent.
        spent: f64,
        /// ε that the answer could add.
        asked: f64,
        /// ε that may be spent.
        budget: f64,
        /// δ of all three.
        delta: f64,
    },
    /// A trainer's.
    #[error("training: {0}")]
    Trainer(Cause),
    /// A round that too few took part in, at every attempt.
    #[error(
        "{turn}: too few updates that can be counted, expected at least {needed}{}",
        why(absent)
    )]
    TooFew {
        /// The round, and its last attempt.
        turn: Turn,
        /// Updates that were needed.
        needed: usize,
        /// Why those who are missing are, as far as it is known.
        absent: Vec<(ClientId, String)>,
    },
    /// A round that a bug left open.
    #[error("{0} is still open after all were handled")]
    Open(Turn),
}

fn why(absent: &[(ClientId, String)]) -> String {
    const SHOWN: usize = 5;
    let mut text: String =
        absent.iter().take(SHOWN).map(|(id, why)| format!("; {id}: {why}")).collect();
    if let Some(more) = absent.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        text += &format!("; and {more} more");
    }
    text
}

/// Why a client left a session of secure aggregation.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Aborted {
    /// What the server sent can't be right.
    #[error(transparent)]
    Session(#[from] tern_secagg::Abort),
    /// A message that can't be read.
    #[error(transparent)]
    Malformed(#[from] tern_secagg::Malformed),
    /// A masked vector that can't be packed.
    #[error(transparent)]
    Packing(#[from] tern_secagg::PackError),
    /// Sums of fewer clients than this client takes part with.
    #[error(
        "a session of {members} clients, whose sums may be of {honest} beside the corrupt, \
         expected {least} at least"
    )]
    Few {
        /// Members of the session.
        members: usize,
        /// Survivors less the corrupt, at least.
        honest: usize,
        /// As many as this client expects.
        least: usize,
    },
    /// One member would be most of the sum.
    #[error(
        "a member's {samples} samples are more than {share} of {all}, all but those of corrupt ones"
    )]
    Share {
        /// Samples of the member that has most.
        samples: u32,
        /// Its samples, and those of the others that aren't taken to be corrupt.
        all: u64,
        /// The largest part that this client takes part with.
        share: f64,
    },
    /// A sum of this model was revealed over other clients: the two would tell vectors apart.
    #[error("shares for a sum of this model were revealed, over a set that differs by {differ}")]
    OneSum {
        /// Clients that are in one of the two sums.
        differ: usize,
        /// Whose sum was revealed.
        summed: BTreeSet<ClientId>,
    },
    /// A sum was revealed over nearly the same clients.
    #[error(
        "shares for a sum were revealed over a set that differs by {differ}, expected {least} or none"
    )]
    TooClose {
        /// Clients that are in one of the two sums.
        differ: usize,
        /// The fewest.
        least: usize,
        /// Whose sum was revealed.
        summed: BTreeSet<ClientId>,
    },
    /// The client is at another step of the session, or in none.
    #[error("no part in the session of {0}")]
    Elsewhere(Turn),
    /// The server named another model or other scales than before.
    #[error("another model or scales than before")]
    Changed,
}

impl From<Aborted> for Error {
    fn from(reason: Aborted) -> Self {
        Error::Aborted(reason)
    }
}

impl Error {
    /// A [`Error::Value`].
    pub fn value(
        name: impl Into<String>,
        value: impl std::fmt::Display,
        expected: impl Into<String>,
    ) -> Self {
        Error::Value { name: name.into(), value: value.to_string(), expected: expected.into() }
    }

    /// A [`Error::Journal`].
    pub fn journal(path: &Path, reason: impl Into<Cause>) -> Self {
        Error::Journal { path: path.to_path_buf(), reason: reason.into() }
    }

    /// A [`Error::Trainer`].
    pub fn trainer(reason: impl Into<Cause>) -> Self {
        Error::Trainer(reason.into())
    }

    /// A [`Error::File`].
    pub fn file(path: &Path, reason: impl Into<Cause>) -> Self {
        Error::File { path: path.to_path_buf(), reason: reason.into() }
    }
}

/// Result of the runtime's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a message is not taken. Nothing changed by it, and the round goes on.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The client is not enrolled.
    #[error("client {0} is not enrolled")]
    Unknown(ClientId),
    /// Another process came with the client's key, and this one goes on: one of them has a copy of
    /// its folder.
    #[error(
        "client {0} runs twice, from a copy of its folder: the other process goes on, this one ends"
    )]
    Copied(ClientId),
    /// The token or key is not on the operator's list.
    #[error("the token or key is not known to the operator")]
    NotAdmitted,
    /// As many clients have enrolled with the token as it is for.
    #[error("the token was used by the {0} clients that it is for")]
    TokenUsed(u32),
    /// As many clients are enrolled as the operator lets.
    #[error("{0} clients are enrolled, which is all that may be")]
    Full(usize),
    /// The client is not in the cohort of the open attempt.
    #[error("client {0} is not in the cohort")]
    NotSelected(ClientId),
    /// For an attempt that is closed.
    #[error("{given} is closed, {open} is open")]
    Late {
        /// What the message is for.
        given: Turn,
        /// What is open.
        open: Turn,
    },
    /// For an attempt that isn't open yet.
    #[error("{given} is not open yet, {open} is")]
    Early {
        /// What the message is for.
        given: Turn,
        /// What is open.
        open: Turn,
    },
    /// Not expected in this phase.
    #[error("{message} is not expected in phase {phase}")]
    Unexpected {
        /// The message.
        message: &'static str,
        /// The phase.
        phase: &'static str,
    },
    /// Taken before: the sender is told that all is well.
    #[error("the same message was taken before")]
    Repeated,
    /// Another message of the kind was taken before.
    #[error("another {0} was taken before")]
    Conflict(&'static str),
    /// A body of another length.
    #[error("the body has {given} bytes, expected {expected}")]
    Length {
        /// Bytes of the body.
        given: u64,
        /// Bytes that were expected.
        expected: u64,
    },
    /// An upload that goes on where the server isn't.
    #[error("offset {given}, expected {expected}")]
    Offset {
        /// The offset given.
        given: u64,
        /// Bytes the server has.
        expected: u64,
    },
    /// The body is not what was announced.
    #[error("the body's SHA-256 is another one")]
    Hash,
    /// A number that isn't finite or is above the bound of the plan.
    #[error("element {at} is {value}, expected a finite number within ±{bound}")]
    Number {
        /// The element.
        at: usize,
        /// Its value.
        value: f32,
        /// The bound.
        bound: f32,
    },
    /// A scale of a tensor that is no scale.
    #[error("scale {at} is {value}, expected {expected}")]
    Scale {
        /// The tensor.
        at: usize,
        /// The scale.
        value: f32,
        /// What would do.
        expected: String,
    },
    /// Two bits that are no ternary code.
    #[error("element {0} has code 3, expected 0, 1 or 2")]
    Code(usize),
    /// A message that can't be read.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// Samples outside of what the plan allows.
    #[error("{given} samples, expected 1 to {most}")]
    Samples {
        /// Samples announced.
        given: u32,
        /// Most that count.
        most: u32,
    },
    /// A metric that the plan doesn't name.
    #[error("metric {name:?}, expected one that the plan names: {expected}")]
    Metric {
        /// Its name, or the beginning of it.
        name: String,
        /// Names of the plan.
        expected: String,
    },
    /// Another number of samples than the client signed with its keys.
    #[error("{given} samples, expected the {signed} that were signed with the keys")]
    Weight {
        /// Samples announced with the upload.
        given: u32,
        /// Samples of the keys.
        signed: u32,
    },
    /// Metrics: a number that isn't finite or is too large.
    #[error("metrics: {0}")]
    Metrics(&'static str),
    /// Too few clients to start.
    #[error("{online} clients are online, expected at least {needed}")]
    TooFew {
        /// Clients online.
        online: usize,
        /// Clients needed.
        needed: usize,
    },
    /// Nothing to do now.
    #[error("no deadline has passed")]
    NotDue,
    /// A message of secure aggregation that breaks the protocol.
    #[error("secure aggregation: {0}")]
    Protocol(Breach),
    /// The run is over.
    #[error("the run is over")]
    Finished,
    /// The server can't store it now; the sender may try again.
    #[error("not stored: {0}")]
    Storage(String),
}

/// How a message breaks the protocol of secure aggregation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Breach {
    /// It can't be read.
    #[error(transparent)]
    Malformed(#[from] tern_secagg::Malformed),
    /// It can't be right.
    #[error(transparent)]
    Refused(#[from] tern_secagg::Refusal),
    /// The keys in it are another client's.
    #[error("keys of another client")]
    Identity,
}

impl Refusal {
    /// Names of those after which an upload goes on, with the same bytes, from where the server
    /// has it.
    pub const RESUMED: [&str; 3] = ["offset", "length", "hash"];

    /// Names of those by which a client hears that the round went on without it, as it does where
    /// more are asked than are needed.
    pub const OVERTAKEN: [&str; 4] = ["finished", "late", "repeated", "unexpected"];

    /// A stable name, for counting.
    pub fn name(&self) -> &'static str {
        match self {
            Refusal::Unknown(_) => "unknown",
            Refusal::Copied(_) => "copied",
            Refusal::NotAdmitted => "not_admitted",
            Refusal::TokenUsed(_) => "token_used",
            Refusal::Full(_) => "full",
            Refusal::NotSelected(_) => "not_selected",
            Refusal::Late { .. } => "late",
            Refusal::Early { .. } => "early",
            Refusal::Unexpected { .. } => "unexpected",
            Refusal::Repeated => "repeated",
            Refusal::Conflict(_) => "conflict",
            Refusal::Length { .. } => "length",
            Refusal::Offset { .. } => "offset",
            Refusal::Hash => "hash",
            Refusal::Number { .. } => "number",
            Refusal::Scale { .. } => "scale",
            Refusal::Code(_) => "code",
            Refusal::Malformed(_) => "malformed",
            Refusal::Samples { .. } => "samples",
            Refusal::Weight { .. } => "weight",
            Refusal::Metric { .. } | Refusal::Metrics(_) => "metrics",
            Refusal::TooFew { .. } => "too_few",
            Refusal::NotDue => "not_due",
            Refusal::Protocol(_) => "protocol",
            Refusal::Finished => "finished",
            Refusal::Storage(_) => "storage",
        }
    }

    /// Whether the same message may be taken later.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Refusal::Storage(_) | Refusal::Early { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_of_many_reasons_are_said() {
        let absent = |count: u8| -> Vec<_> {
            (1..=count).map(|n| (ClientId([n; 32]), format!("reason {n}"))).collect()
        };
        assert_eq!(why(&absent(0)), "");
        let five = why(&absent(5));
        assert!((1..=5).all(|n| five.contains(&format!(": reason {n}"))), "{five}");
        assert!(!five.contains("more"), "{five}");
        assert_eq!(why(&absent(7)), format!("{five}; and 2 more"));
    }

    #[test]
    fn only_what_may_be_taken_later_is_worth_another_try() {
        let (given, open) = (Turn::new(2, 1), Turn::new(1, 1));
        let temporary = [Refusal::Storage("full".into()), Refusal::Early { given, open }];
        assert!(temporary.iter().all(Refusal::is_temporary));
        let lasting = [Refusal::Finished, Refusal::Repeated, Refusal::Late { given, open }];
        assert!(!lasting.iter().any(Refusal::is_temporary));
    }
}
