//! Secure aggregation, round 4: survivors sign who is in the sum.

use std::collections::{BTreeMap, BTreeSet};

use tern_secagg::{Confirmation, Message, server};

use super::secure::{Members, counted, decode, refused};
use super::unmask::Unmask;
use super::{Coordinator, Effect, Phase, Upload};
use crate::wire::{self, instruction::What};
use crate::{ClientId, Millis, Refusal};

/// Waits for signatures.
#[derive(Clone, Debug)]
pub(super) struct Confirm {
    pub(super) deadline: Millis,
    pub(super) members: Members,
    pub(super) uploads: BTreeMap<ClientId, Upload>,
    pub(super) max_samples: u32,
    state: server::Confirming,
    /// Who is in the sum.
    survivors: Vec<u8>,
    pub(super) confirmed: BTreeSet<ClientId>,
}

impl Confirm {
    pub(super) fn instruction(&self, client: &ClientId) -> Option<What> {
        self.members.expect(client).ok()?;
        let confirm = || What::ConfirmSet(wire::ConfirmSet { survivors: self.survivors.clone() });
        (!self.confirmed.contains(client)).then(confirm)
    }
}

impl Coordinator {
    /// The sum is complete: on to signatures.
    pub(super) fn confirm(
        &mut self,
        now: Millis,
        state: server::Collecting,
        uploads: BTreeMap<ClientId, Upload>,
        max_samples: u32,
    ) -> Vec<Effect> {
        match state.close() {
            Ok((state, survivors)) => {
                let asked = uploads.iter().map(|(client, upload)| (*client, upload.samples));
                self.phase = Phase::Confirm(Confirm {
                    deadline: now.after(self.plan.cohort.step_ms),
                    members: Members { asked: asked.collect(), ..Members::default() },
                    uploads,
                    max_samples,
                    state,
                    survivors: survivors.encode(),
                    confirmed: BTreeSet::new(),
                });
                Vec::new()
            }
            Err(failure) => self.insecure(&failure),
        }
    }

    pub(super) fn take_confirmation(
        &mut self,
        now: Millis,
        client: ClientId,
        confirmation: wire::Confirmation,
    ) -> Result<Vec<Effect>, Refusal> {
        let Phase::Confirm(phase) = &mut self.phase else {
            return Err(self.unexpected("confirmation"));
        };
        phase.members.expect(&client)?;
        let confirmation: Confirmation = decode(&confirmation.confirmation)?;
        let number = phase.state.number(&client.0).ok_or(Refusal::NotSelected(client))?;
        let before = phase.state.members();
        phase.state.confirm(number, confirmation).map_err(refused)?;
        counted(before, phase.state.members())?;
        phase.confirmed.insert(client);
        Ok(self.confirmed(now))
    }

    /// On to unmasking, once everyone has signed or the time is over.
    pub(super) fn confirmed(&mut self, now: Millis) -> Vec<Effect> {
        let Phase::Confirm(phase) = &self.phase else { return Vec::new() };
        let answered = |client: &ClientId| phase.confirmed.contains(client);
        if !phase.members.all(answered) && now < phase.deadline {
            return Vec::new();
        }
        match phase.state.clone().close() {
            Ok((state, requests)) => {
                let deadline = now.after(self.plan.cohort.step_ms);
                let requests = requests.into_iter().map(|(to, request)| (to, request.encode()));
                let unmask = Unmask::new(phase, state, requests.collect(), deadline);
                self.phase = Phase::Unmask(unmask);
                Vec::new()
            }
            Err(failure) => self.insecure(&failure),
        }
    }
}
