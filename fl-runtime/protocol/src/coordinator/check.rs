//! Secure aggregation, round 2: members open what their neighbors sent them and complain about
//! garbage, before masks are shared with anyone who sent it.

use std::collections::{BTreeMap, BTreeSet};

use tern_secagg::{Complaints, Message, server};

use super::collect::{Collect, Masked};
use super::secure::{Members, counted, decode, refused};
use super::{Coordinator, Effect, Phase};
use crate::masking::job;
use crate::wire::{self, instruction::What};
use crate::{ClientId, Millis, Refusal};

/// Waits for complaints, or word that there are none.
#[derive(Clone, Debug)]
pub(super) struct Check {
    pub(super) deadline: Millis,
    pub(super) members: Members,
    state: server::Checking,
    /// Envelopes for each member, by number.
    inboxes: BTreeMap<u32, Vec<u8>>,
    /// The most samples of a member of the roster.
    max_samples: u32,
    pub(super) checked: BTreeSet<ClientId>,
}

impl Check {
    pub(super) fn new(
        state: server::Checking,
        inboxes: BTreeMap<u32, Vec<u8>>,
        members: Members,
        max_samples: u32,
        deadline: Millis,
    ) -> Self {
        Check { deadline, members, state, inboxes, max_samples, checked: BTreeSet::new() }
    }

    pub(super) fn instruction(&self, client: &ClientId) -> Option<What> {
        self.members.expect(client).ok()?;
        if self.checked.contains(client) {
            return None;
        }
        let inbox = self.inboxes.get(&self.state.number(&client.0)?)?.clone();
        Some(What::CheckShares(wire::CheckShares { inbox }))
    }
}

impl Coordinator {
    pub(super) fn take_complaints(
        &mut self,
        now: Millis,
        client: ClientId,
        checked: wire::Checked,
    ) -> Result<Vec<Effect>, Refusal> {
        let Phase::Check(phase) = &mut self.phase else {
            return Err(self.unexpected("complaints"));
        };
        phase.members.expect(&client)?;
        let complaints: Complaints = decode(&checked.complaints)?;
        let number = phase.state.number(&client.0).ok_or(Refusal::NotSelected(client))?;
        let before = phase.state.members();
        let culprits = phase.state.check(number, complaints).map_err(refused)?;
        counted(before, phase.state.members())?;
        phase.checked.insert(client);
        if !culprits.is_empty() {
            let state = phase.state.clone();
            let out = self.exclude(&culprits, |member| state.identity(member));
            if let Phase::Check(phase) = &mut self.phase {
                phase.checked.retain(|client| !out.contains(client));
                phase.members.gone.extend(out);
            }
        }
        Ok(self.checked(now))
    }

    /// On to training, once everyone has checked or the time is over.
    pub(super) fn checked(&mut self, now: Millis) -> Vec<Effect> {
        let Phase::Check(phase) = &self.phase else { return Vec::new() };
        let answered = |client: &ClientId| phase.checked.contains(client);
        if !phase.members.all(answered) && now < phase.deadline {
            return Vec::new();
        }
        if phase.checked.len() < self.plan.cohort.minimum as usize {
            return self.repeat();
        }
        let members = phase.members.keep(answered);
        let job = job(&self.head.public, &self.head.scales);
        match phase.state.clone().close(job) {
            Ok((state, partners)) => {
                let partners = partners.into_iter().map(|(to, named)| (to, named.encode()));
                let (partners, samples) = (partners.collect(), members.asked.clone());
                let masked = (Masked { state, partners, samples }, phase.max_samples);
                let alone = self.known.meeting();
                self.phase =
                    Phase::Collect(Collect::secure(&self.plan, now, &members, alone, masked));
                Vec::new()
            }
            Err(failure) => self.insecure(&failure),
        }
    }
}
