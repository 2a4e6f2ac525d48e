//! Secure aggregation, round 1: shares for neighbors come in.

use std::collections::BTreeSet;

use tern_secagg::{Message, Shares, server};

use super::check::Check;
use super::secure::{Members, counted, decode, refused};
use super::{Coordinator, Effect, Phase};
use crate::wire::{self, instruction::What};
use crate::{ClientId, Millis, Refusal, weights};

/// Waits for shares.
#[derive(Clone, Debug)]
pub(super) struct Share {
    pub(super) deadline: Millis,
    pub(super) members: Members,
    state: server::Sharing,
    /// Everyone's keys.
    roster: Vec<u8>,
    pub(super) shared: BTreeSet<ClientId>,
}

impl Share {
    pub(super) fn new(
        state: server::Sharing,
        roster: Vec<u8>,
        members: Members,
        deadline: Millis,
    ) -> Self {
        Share { deadline, members, state, roster, shared: BTreeSet::new() }
    }

    pub(super) fn instruction(&self, client: &ClientId) -> Option<What> {
        self.members.expect(client).ok()?;
        let share = || What::ShareKeys(wire::ShareKeys { roster: self.roster.clone() });
        (!self.shared.contains(client)).then(share)
    }
}

impl Coordinator {
    pub(super) fn take_shares(
        &mut self,
        now: Millis,
        client: ClientId,
        shares: wire::Shares,
    ) -> Result<Vec<Effect>, Refusal> {
        let Phase::Share(phase) = &mut self.phase else {
            return Err(self.unexpected("shares"));
        };
        phase.members.expect(&client)?;
        let shares: Shares = decode(&shares.shares)?;
        let number = phase.state.number(&client.0).ok_or(Refusal::NotSelected(client))?;
        let before = phase.state.members();
        phase.state.share(number, shares).map_err(refused)?;
        counted(before, phase.state.members())?;
        phase.shared.insert(client);
        Ok(self.shared(now))
    }

    /// On to their check, once everyone has shared or the time is over.
    pub(super) fn shared(&mut self, now: Millis) -> Vec<Effect> {
        let Phase::Share(phase) = &self.phase else { return Vec::new() };
        let answered = |client: &ClientId| phase.shared.contains(client);
        if !phase.members.all(answered) && now < phase.deadline {
            return Vec::new();
        }
        if phase.shared.len() < self.plan.cohort.minimum as usize {
            return self.repeat();
        }
        let members = phase.members.keep(answered);
        // Of the whole roster, as its members work it out.
        let max_samples = weights::most(phase.members.asked.values().copied());
        match phase.state.clone().close() {
            Ok((state, inboxes)) => {
                let inboxes = inboxes.into_iter().map(|(to, inbox)| (to, inbox.encode())).collect();
                let deadline = now.after(self.plan.cohort.step_ms);
                self.phase =
                    Phase::Check(Check::new(state, inboxes, members, max_samples, deadline));
                Vec::new()
            }
            Err(failure) => self.insecure(&failure),
        }
    }
}
