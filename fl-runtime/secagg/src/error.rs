//! Why a client gives up a session, a server refuses a message, or a session gives no sum.

use super::parameters::ParameterError;

/// A kind of secret that is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secret {
    /// The key of a client's pair masks, asked for when it dropped out.
    PairKey,
    /// The seed of a client's own mask, asked for when its vector is in the sum.
    OwnMask,
}

impl std::fmt::Display for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Secret::PairKey => "pair key",
            Secret::OwnMask => "own mask",
        })
    }
}

/// Bytes that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Fewer or more bytes than the message takes.
    #[error("{bytes} bytes of a {message}, expected {expected}")]
    Length {
        /// The kind of message.
        message: &'static str,
        /// Bytes given.
        bytes: usize,
        /// Bytes that its head or its counts say, or the most it may have.
        expected: usize,
    },
    /// A number of entries beyond the largest cohort's.
    #[error("{count} entries in a {message}, expected {limit} at most")]
    Count {
        /// The kind of message.
        message: &'static str,
        /// The count.
        count: u32,
        /// The most.
        limit: usize,
    },
    /// A member's number beyond the largest cohort's.
    #[error("member {member} in a {message}, expected less than {limit}")]
    Member {
        /// The kind of message.
        message: &'static str,
        /// The number.
        member: u32,
        /// Past the largest.
        limit: usize,
    },
    /// A share with a number that is no element of the field.
    #[error("a share in a {message} isn't in the field of 2^61 - 1")]
    Field {
        /// The kind of message.
        message: &'static str,
    },
}

/// Why a client leaves a session. Its secrets are wiped; nothing more can be had from it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Abort {
    /// The session, or a later one of its run, was joined before.
    #[error(
        "round {round}, attempt {attempt} of the run isn't after round {}, attempt {}, the last \
         one joined", .last.0, .last.1
    )]
    Replay {
        /// Round of the session.
        round: u64,
        /// Attempt of the session.
        attempt: u32,
        /// Round and attempt of the last session that was joined.
        last: (u64, u32),
    },
    /// Shares were revealed in this round of the run: the server may have its sum.
    #[error("shares were revealed in round {round}, in which no other session is joined")]
    Revealed {
        /// Round of the session.
        round: u64,
    },
    /// The cohort can't be served under the session's assumptions.
    #[error(transparent)]
    Parameters(#[from] ParameterError),
    /// The roster isn't in strictly ascending order of identities.
    #[error("member {member} of the roster isn't after the one before it")]
    Unordered {
        /// The member out of order.
        member: u32,
    },
    /// The roster lacks this client, or has other keys for it.
    #[error("the roster doesn't hold the keys that this client advertised")]
    OwnKeys,
    /// A signature that doesn't fit: of a neighbor's keys or envelope, or of the set of survivors,
    /// which is also what a signature for another roster or of another set looks like.
    #[error("the signature of member {member} isn't valid for what it is said to sign")]
    Signature {
        /// The signer.
        member: u32,
    },
    /// Keys of which nothing secret comes.
    #[error("the keys of member {member} are of low order")]
    WeakKey {
        /// Whose.
        member: u32,
    },
    /// A number that isn't in the roster.
    #[error("member {member} was named, of a cohort of {members}")]
    Unknown {
        /// The number.
        member: u32,
        /// Members of the roster.
        members: usize,
    },
    /// The same member twice in a list.
    #[error("member {member} was named twice")]
    Duplicate {
        /// Which.
        member: u32,
    },
    /// Someone named as a neighbor who isn't one on the graph of this roster.
    #[error("member {member} isn't this client's neighbor: the server keeps to another graph")]
    WrongGraph {
        /// Who.
        member: u32,
    },
    /// Too few of those who hold this client's shares are there.
    #[error("{have} holders of this client's shares are there, expected {need}")]
    TooFewHolders {
        /// Neighbors that are there, and itself.
        have: usize,
        /// The threshold.
        need: usize,
    },
    /// A vector of another length than the session's.
    #[error("{words} words to mask, expected {expected}")]
    Length {
        /// Words given.
        words: usize,
        /// The session's.
        expected: usize,
    },
    /// This client isn't among the survivors, though it uploaded.
    #[error("this client isn't among the survivors")]
    Excluded,
    /// Fewer survivors than the session's least.
    #[error("{have} survivors, expected {need} at least")]
    TooFewSurvivors {
        /// Survivors named.
        have: usize,
        /// The least.
        need: usize,
    },
    /// A survivor that never sent this client its shares.
    #[error("member {member} is named a survivor, but never shared its secrets")]
    DeadNamedAlive {
        /// Who.
        member: u32,
    },
    /// Too few neighbors signed the same set of survivors.
    #[error("{have} signatures of the set of survivors, expected {need}")]
    TooFewSignatures {
        /// Signatures, its own included.
        have: usize,
        /// The threshold.
        need: usize,
    },
    /// Both secrets of one client are asked for.
    #[error("both secrets of member {member} are asked for")]
    BothShares {
        /// Whose.
        member: u32,
    },
    /// The own mask of a neighbor that didn't sign that it shares masks with this client: the
    /// server may have kept this client's shares from it.
    #[error("member {member} hasn't signed that it shares masks with this client")]
    NotIncluded {
        /// Whose.
        member: u32,
    },
    /// The secret of a neighbor that never sent this client a share of it.
    #[error("this client holds no share of member {member}, which it is asked for")]
    NothingHeld {
        /// Whose.
        member: u32,
    },
    /// The secret of a survivor that is only asked for when one dropped out, or the reverse.
    #[error("the {secret} of member {member} is asked for, which the set of survivors forbids")]
    WrongShare {
        /// Whose.
        member: u32,
        /// Which.
        secret: Secret,
    },
}

impl Abort {
    /// A stable name for metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Abort::Replay { .. } => "replay",
            Abort::Revealed { .. } => "revealed",
            Abort::Parameters(_) => "parameters",
            Abort::Unordered { .. } => "unordered",
            Abort::OwnKeys => "own_keys",
            Abort::Signature { .. } => "signature",
            Abort::WeakKey { .. } => "weak_key",
            Abort::Unknown { .. } => "unknown",
            Abort::Duplicate { .. } => "duplicate",
            Abort::WrongGraph { .. } => "wrong_graph",
            Abort::TooFewHolders { .. } => "too_few_holders",
            Abort::Length { .. } => "length",
            Abort::Excluded => "excluded",
            Abort::TooFewSurvivors { .. } => "too_few_survivors",
            Abort::DeadNamedAlive { .. } => "dead_named_alive",
            Abort::TooFewSignatures { .. } => "too_few_signatures",
            Abort::BothShares { .. } => "both_shares",
            Abort::NotIncluded { .. } => "not_included",
            Abort::NothingHeld { .. } => "nothing_held",
            Abort::WrongShare { .. } => "wrong_share",
        }
    }
}

/// Why the server doesn't take a client's message. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A signature that doesn't fit.
    #[error("the signature isn't valid")]
    Signature,
    /// Keys of low order.
    #[error("the keys are of low order")]
    WeakKey,
    /// A full cohort.
    #[error("the cohort has {limit} members already")]
    Full {
        /// Largest cohort.
        limit: usize,
    },
    /// Another message of this kind came from the client before.
    #[error("another message of this kind was taken before")]
    Changed,
    /// A client that has no part in this phase.
    #[error("member {member} has no part in this phase")]
    NotExpected {
        /// Who.
        member: u32,
    },
    /// Shares to others than the client's neighbors, or not to all of them.
    #[error("shares for {have} members, expected the sender's {need} neighbors in order")]
    Receivers {
        /// Shares sent.
        have: usize,
        /// Neighbors.
        need: usize,
    },
    /// Complaints about others than senders of the client's inbox, or not in order.
    #[error("complaints about others than senders of the inbox, in order")]
    Complaints,
    /// Masks shared with others than the client's partners.
    #[error("masks shared with {have} members, expected the {need} partners in order")]
    Included {
        /// Members named.
        have: usize,
        /// Partners.
        need: usize,
    },
    /// Shares of others than those asked for.
    #[error("the shares aren't those that were asked for")]
    Revealed,
}

impl Refusal {
    /// A stable name for metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Refusal::Signature => "signature",
            Refusal::WeakKey => "weak_key",
            Refusal::Full { .. } => "full",
            Refusal::Changed => "changed",
            Refusal::NotExpected { .. } => "not_expected",
            Refusal::Receivers { .. } => "receivers",
            Refusal::Complaints => "complaints",
            Refusal::Included { .. } => "included",
            Refusal::Revealed => "revealed",
        }
    }
}

/// How a member broke the protocol, shown by what it signed and sent. Silence shows nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// An envelope without the shares that it commits to.
    #[error("its envelope for member {to} doesn't hold the shares that it commits to")]
    Envelope {
        /// The receiver.
        to: u32,
    },
    /// A complaint about an envelope that is as it should be, or one that shows nothing.
    #[error("its complaint about the envelope of member {of} is false")]
    Complaint {
        /// The envelope's sender.
        of: u32,
    },
    /// A share that isn't the one it was dealt.
    #[error("the share of the {secret} of member {of} that it revealed isn't the one it was dealt")]
    Share {
        /// Whose secret.
        of: u32,
        /// Which.
        secret: Secret,
    },
    /// Shares that don't belong to what it advertised.
    #[error("the shares that it dealt of its {secret} don't give what it advertised")]
    Dealt {
        /// Which.
        secret: Secret,
    },
}

/// A member that broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Culprit {
    /// Its number.
    pub member: u32,
    /// What it did.
    pub fault: Fault,
}

/// Why a session gives no sum.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum Failure {
    /// The cohort can't be served under the session's assumptions.
    #[error(transparent)]
    Parameters(#[from] ParameterError),
    /// Too few clients came through a phase.
    #[error("{have} members {phase}, expected {need}")]
    TooFew {
        /// What they did.
        phase: &'static str,
        /// How many did.
        have: usize,
        /// How many had to.
        need: usize,
    },
    /// Too few shares of a secret came back.
    #[error("{have} shares of the {secret} of member {member}, expected {need}")]
    TooFewShares {
        /// Whose.
        member: u32,
        /// Which.
        secret: Secret,
        /// Shares.
        have: usize,
        /// The threshold.
        need: usize,
    },
    /// Shares, each what the client dealt, that don't give what it advertised.
    #[error("the shares that member {member} dealt of its {secret} don't give what it advertised")]
    WrongShares {
        /// Whose.
        member: u32,
        /// Which.
        secret: Secret,
    },
}

impl Failure {
    /// A stable name for metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Failure::Parameters(_) => "parameters",
            Failure::TooFew { .. } => "too_few",
            Failure::TooFewShares { .. } => "too_few_shares",
            Failure::WrongShares { .. } => "wrong_shares",
        }
    }
}
