//! What a session is, who takes part in it, and which ones a client has joined.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::Abort;
use super::graph::Graph;
use super::messages::{Advertisement, Envelope, Roster};
use super::pack::Packing;
use super::parameters::{Assumptions, ParameterError, Parameters};

/// What server and clients agree on before a session. Its id covers all of it and goes into
/// every key derivation, signature and ciphertext: who assumes something else is in another
/// session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// The run.
    pub run: [u8; 32],
    /// Digest of all that the run's clients are told once: what they train, and how vectors are
    /// made of it.
    pub task: [u8; 32],
    /// The round.
    pub round: u64,
    /// Which attempt at the round.
    pub attempt: u32,
    /// What the cohort withstands. Whether that's enough is for a client to say before it joins.
    pub assumptions: Assumptions,
    /// The vectors.
    pub packing: Packing,
}

impl Session {
    /// SHA-256 over all fields.
    pub fn id(&self) -> [u8; 32] {
        let Session { run, task, round, attempt, assumptions, packing } = self;
        let Assumptions { corrupt, dropout, security_bits, failure_bits, honest } = assumptions;
        let hash = Sha256::new()
            .chain_update(b"tern secagg session\0")
            .chain_update(run)
            .chain_update(task)
            .chain_update(round.to_le_bytes())
            .chain_update(attempt.to_le_bytes())
            .chain_update(corrupt.to_bits().to_le_bytes())
            .chain_update(dropout.to_bits().to_le_bytes())
            .chain_update(security_bits.to_le_bytes())
            .chain_update(failure_bits.to_le_bytes())
            .chain_update(honest.to_le_bytes())
            .chain_update((packing.words() as u64).to_le_bytes())
            .chain_update(packing.bits().to_le_bytes());
        hash.finalize().into()
    }
}

/// The last session of each run that a client joined. Kept on disk by the client, written
/// before its keys go out: a session that is joined twice is refused, and so is an earlier one.
///
/// It also has the last round in which the client revealed shares, written before they go out. The
/// server may have the sum then, and a sum over others that make nearly the same vectors would
/// tell it the difference: no other attempt at that round is joined.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    last: Vec<Joined>,
}

/// The last session of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Joined {
    run: [u8; 32],
    round: u64,
    attempt: u32,
    /// The last round in which shares were revealed.
    revealed: Option<u64>,
}

impl History {
    /// Notes that a session is joined.
    ///
    /// # Errors
    /// [`Abort::Replay`] unless it is after the last one of its run, [`Abort::Revealed`] if shares
    /// were revealed in its round or a later one.
    pub(super) fn enter(&mut self, session: &Session) -> Result<(), Abort> {
        let Session { run, round, attempt, .. } = *session;
        let Some(last) = self.last.iter_mut().find(|last| last.run == run) else {
            self.last.push(Joined { run, round, attempt, revealed: None });
            return Ok(());
        };
        let joined = (last.round, last.attempt);
        if (round, attempt) <= joined {
            return Err(Abort::Replay { round, attempt, last: joined });
        }
        if last.revealed >= Some(round) {
            return Err(Abort::Revealed { round });
        }
        (last.round, last.attempt) = (round, attempt);
        Ok(())
    }

    /// Notes that shares of a session are about to be revealed: what this leaves is to be on disk
    /// before they are.
    pub fn reveal(&mut self, session: &Session) {
        let Session { run, round, .. } = *session;
        if let Some(last) = self.last.iter_mut().find(|last| last.run == run) {
            last.revealed = last.revealed.max(Some(round));
        }
    }
}

/// A session once everyone's keys are known: members are numbered in the order of their
/// identities.
#[derive(Clone)]
pub(super) struct Cohort {
    pub(super) session: [u8; 32],
    /// SHA-256 over session id, identities and keys.
    pub(super) digest: [u8; 32],
    pub(super) members: Vec<Advertisement>,
    pub(super) parameters: Parameters,
    pub(super) graph: Graph,
}

impl Cohort {
    /// `roster` is in strictly ascending order.
    pub(super) fn new(session: &Session, roster: &Roster) -> Result<Self, ParameterError> {
        let id = session.id();
        let parameters = Parameters::choose(roster.members.len(), &session.assumptions)?;
        let mut hash = Sha256::new().chain_update(b"tern secagg roster\0").chain_update(id);
        for member in &roster.members {
            hash.update(member.signed_part());
        }
        let digest: [u8; 32] = hash.finalize().into();
        let graph = Graph::new(&digest, parameters.members, parameters.neighbors);
        let members = roster.members.clone();
        Ok(Cohort { session: id, digest, members, parameters, graph })
    }

    pub(super) fn number(&self, identity: &[u8; 32]) -> Option<u32> {
        let found = self.members.binary_search_by(|member| member.identity.cmp(identity));
        found.ok().map(|number| number as u32)
    }

    pub(super) fn member(&self, number: u32) -> &Advertisement {
        &self.members[number as usize]
    }

    /// What a member signs of an envelope.
    pub(super) fn envelope(&self, (from, to): (u32, u32), envelope: &Envelope) -> [u8; 32] {
        let mut hash = Sha256::new().chain_update(b"tern secagg envelope\0");
        hash.update(self.session);
        hash.update(self.digest);
        hash.update(from.to_le_bytes());
        hash.update(to.to_le_bytes());
        hash.update(envelope.sealed);
        hash.update(envelope.pair);
        hash.update(envelope.own);
        hash.finalize().into()
    }

    /// What a member signs for each neighbor that it shares masks with, by `job` what its vector
    /// is made.
    pub(super) fn inclusion(&self, job: &[u8; 32], by: u32, of: u32) -> [u8; 32] {
        let mut hash = Sha256::new().chain_update(b"tern secagg included\0");
        hash.update(self.session);
        hash.update(self.digest);
        hash.update(job);
        hash.update(by.to_le_bytes());
        hash.update(of.to_le_bytes());
        hash.finalize().into()
    }

    /// What survivors sign.
    pub(super) fn statement(&self, job: &[u8; 32], survivors: &BTreeSet<u32>) -> [u8; 32] {
        let mut hash = Sha256::new().chain_update(b"tern secagg survivors\0");
        hash.update(self.session);
        hash.update(self.digest);
        hash.update(job);
        for survivor in survivors {
            hash.update(survivor.to_le_bytes());
        }
        hash.finalize().into()
    }

    /// The set of the members that a list names.
    pub(super) fn set(&self, named: &[u32]) -> Result<BTreeSet<u32>, Abort> {
        let mut set = BTreeSet::new();
        for member in named {
            if *member as usize >= self.members.len() {
                return Err(Abort::Unknown { member: *member, members: self.members.len() });
            }
            if !set.insert(*member) {
                return Err(Abort::Duplicate { member: *member });
            }
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        Session {
            run: [1; 32],
            task: [5; 32],
            round: 3,
            attempt: 1,
            assumptions: Assumptions::new(0.1, 0.2),
            packing: Packing::new(64, 20).unwrap(),
        }
    }

    #[test]
    fn the_id_covers_every_field() {
        let assumed = session().assumptions;
        let others = [
            session(),
            Session { run: [2; 32], ..session() },
            Session { task: [2; 32], ..session() },
            Session { round: 4, ..session() },
            Session { attempt: 2, ..session() },
            Session { assumptions: Assumptions { corrupt: 0.2, ..assumed }, ..session() },
            Session { assumptions: Assumptions { dropout: 0.1, ..assumed }, ..session() },
            Session { assumptions: Assumptions { security_bits: 41, ..assumed }, ..session() },
            Session { assumptions: Assumptions { failure_bits: 21, ..assumed }, ..session() },
            Session { assumptions: Assumptions { honest: 4, ..assumed }, ..session() },
            Session { packing: Packing::new(65, 20).unwrap(), ..session() },
            Session { packing: Packing::new(64, 21).unwrap(), ..session() },
        ];
        let ids: BTreeSet<[u8; 32]> = others.iter().map(Session::id).collect();
        assert_eq!(ids.len(), others.len());
    }

    #[test]
    fn only_later_sessions_of_a_run_are_joined() {
        let mut history = History::default();
        let at = |round, attempt| Session { round, attempt, ..session() };
        history.enter(&at(3, 1)).unwrap();
        for (round, attempt) in [(3, 1), (3, 0), (2, 9)] {
            let refused = history.enter(&at(round, attempt));
            assert_eq!(refused, Err(Abort::Replay { round, attempt, last: (3, 1) }));
        }
        let kept = serde_json::to_string(&history).unwrap();
        let mut history: History = serde_json::from_str(&kept).unwrap();
        assert!(history.enter(&at(3, 1)).is_err());
        history.enter(&at(3, 2)).unwrap();
        history.enter(&at(4, 0)).unwrap();
        history.enter(&Session { run: [9; 32], ..at(1, 0) }).unwrap();
        assert!(history.enter(&at(4, 0)).is_err());
    }

    #[test]
    fn no_attempt_is_joined_after_a_reveal_in_its_round() {
        let mut history = History::default();
        let at = |round, attempt| Session { round, attempt, ..session() };
        history.enter(&at(3, 1)).unwrap();
        history.enter(&at(3, 2)).unwrap();
        history.reveal(&at(3, 2));
        let kept = serde_json::to_string(&history).unwrap();
        let mut history: History = serde_json::from_str(&kept).unwrap();
        assert_eq!(history.enter(&at(3, 3)), Err(Abort::Revealed { round: 3 }));
        history.enter(&at(4, 1)).unwrap();
        history.enter(&at(4, 2)).unwrap();
    }
}
