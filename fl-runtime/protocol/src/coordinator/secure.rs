//! What the phases of a secure round share: the members of its session, and how the protocol's
//! state machines, of which each phase drives one, refuse.

use std::collections::{BTreeMap, BTreeSet};

use tern_secagg::{Culprit, Fault, Message};

use super::{Coordinator, Exclusion, Phase, Progress, Unmasking};
use crate::masking::Masking;
use crate::{ClientId, Refusal};

/// Those who were asked, and those of them who won't answer any more.
#[derive(Clone, Debug, Default)]
pub(super) struct Members {
    /// With their samples.
    pub asked: BTreeMap<ClientId, u32>,
    pub gone: BTreeSet<ClientId>,
}

impl Members {
    /// A member says that it drops out.
    pub fn decline(&mut self, client: ClientId, answered: bool) -> Result<(), Refusal> {
        if !self.asked.contains_key(&client) {
            return Err(Refusal::NotSelected(client));
        }
        if answered {
            return Err(Refusal::Conflict("answer"));
        }
        if self.gone.insert(client) { Ok(()) } else { Err(Refusal::Repeated) }
    }

    /// Refuses a client that wasn't asked or has dropped out.
    pub fn expect(&self, client: &ClientId) -> Result<(), Refusal> {
        if !self.asked.contains_key(client) {
            return Err(Refusal::NotSelected(*client));
        }
        match self.gone.contains(client) {
            true => Err(Refusal::Conflict("answer")),
            false => Ok(()),
        }
    }

    /// Whether nobody is left to wait for.
    pub fn all(&self, answered: impl Fn(&ClientId) -> bool) -> bool {
        self.asked.keys().all(|client| self.gone.contains(client) || answered(client))
    }

    /// Those who answered are the next phase's members.
    pub fn keep(&self, answered: impl Fn(&ClientId) -> bool) -> Self {
        let stay = self.asked.iter().filter(|(client, _)| answered(client));
        Members { asked: stay.map(|(c, samples)| (*c, *samples)).collect(), gone: BTreeSet::new() }
    }

    pub fn progress(&self, answered: impl Fn(&ClientId) -> bool) -> Vec<(ClientId, Progress)> {
        let progress = |client: &ClientId| match (answered(client), self.gone.contains(client)) {
            (true, _) => Progress::Answered,
            (false, true) => Progress::Declined,
            (false, false) => Progress::Asked,
        };
        self.asked.keys().map(|client| (*client, progress(client))).collect()
    }
}

impl Coordinator {
    /// Who takes no part any more, and why.
    pub fn excluded(&self) -> &BTreeMap<ClientId, Exclusion> {
        &self.excluded
    }

    /// How vectors are masked, if they are.
    pub fn masking(&self) -> Option<&Masking> {
        self.masking.as_ref()
    }

    /// What is to be removed from the total before it is a sum, in a secure round.
    pub fn unmasking(&self) -> Option<&Unmasking> {
        match &self.phase {
            Phase::Combine(combine) => combine.unmasking.as_ref(),
            _ => None,
        }
    }

    /// Those who broke the protocol are asked for nothing any more, in this round and later ones.
    /// `identity` says who they are. That a client did it twice adds nothing.
    pub(super) fn exclude(
        &mut self,
        culprits: &[Culprit],
        identity: impl Fn(u32) -> [u8; 32],
    ) -> Vec<ClientId> {
        let who = |member| ClientId(identity(member));
        let exclude = |culprit: &Culprit| {
            let (client, turn) = (who(culprit.member), self.turn);
            let reason = match culprit.fault {
                Fault::Envelope { to: other }
                | Fault::Complaint { of: other }
                | Fault::Share { of: other, .. } => {
                    format!("{}, client {}", culprit.fault, who(other))
                }
                Fault::Dealt { .. } => culprit.fault.to_string(),
            };
            tracing::warn!(%client, %turn, reason, "broke the protocol and is out");
            self.excluded.entry(client).or_insert(Exclusion { turn, reason });
            client
        };
        culprits.iter().map(exclude).collect()
    }
}

/// A message of the protocol.
pub(super) fn decode<M: Message>(bytes: &[u8]) -> Result<M, Refusal> {
    M::decode(bytes).map_err(|error| Refusal::Protocol(error.into()))
}

/// What the protocol refuses.
pub(super) fn refused(refusal: tern_secagg::Refusal) -> Refusal {
    match refusal {
        tern_secagg::Refusal::Changed => Refusal::Conflict("message"),
        other => Refusal::Protocol(other.into()),
    }
}

/// A message that changed nothing was there before.
pub(super) fn counted(before: usize, after: usize) -> Result<(), Refusal> {
    if before == after { Err(Refusal::Repeated) } else { Ok(()) }
}
