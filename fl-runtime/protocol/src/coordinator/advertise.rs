//! Secure aggregation, round 0: keys come in; the first ones make up the session.

use std::collections::BTreeSet;

use tern_secagg::{Advertisement, Message, Session, server};

use super::secure::{Members, counted, decode, refused};
use super::share::Share;
use super::{Candidate, Coordinator, Effect, Phase};
use crate::wire::{self, instruction::What};
use crate::{Breach, ClientId, Code, Millis, Refusal, weights};

/// Waits for keys.
#[derive(Clone, Debug)]
pub(super) struct Advertise {
    pub(super) deadline: Millis,
    pub(super) members: Members,
    state: server::Advertising,
    pub(super) advertised: BTreeSet<ClientId>,
}

impl Advertise {
    pub(super) fn new(session: Session, cohort: &[Candidate], deadline: Millis) -> Self {
        let asked = cohort.iter().map(|member| (member.client, member.samples)).collect();
        Advertise {
            deadline,
            members: Members { asked, ..Members::default() },
            state: server::Advertising::new(session),
            advertised: BTreeSet::new(),
        }
    }

    pub(super) fn instruction(&self, client: &ClientId) -> Option<What> {
        self.members.expect(client).ok()?;
        let missing = !self.advertised.contains(client);
        missing.then_some(What::Advertise(wire::Advertise {}))
    }
}

impl Coordinator {
    pub(super) fn take_keys(
        &mut self,
        now: Millis,
        client: ClientId,
        keys: wire::Keys,
    ) -> Result<Vec<Effect>, Refusal> {
        let Phase::Advertise(phase) = &mut self.phase else {
            return Err(self.unexpected("keys"));
        };
        phase.members.expect(&client)?;
        let keys: Advertisement = decode(&keys.advertisement)?;
        if keys.identity != client.0 {
            return Err(Refusal::Protocol(Breach::Identity));
        }
        let (samples, most) = (keys.samples, self.plan.updates.max_samples);
        if !(1..=most).contains(&samples) {
            return Err(Refusal::Samples { given: samples, most });
        }
        let before = phase.state.members();
        phase.state.advertise(keys).map_err(refused)?;
        counted(before, phase.state.members())?;
        phase.members.asked.insert(client, samples);
        phase.advertised.insert(client);
        Ok(self.advertised(now))
    }

    /// On to shares, once enough keys are in.
    pub(super) fn advertised(&mut self, now: Millis) -> Vec<Effect> {
        let Phase::Advertise(phase) = &self.phase else { return Vec::new() };
        let answered = |client: &ClientId| phase.advertised.contains(client);
        let full = phase.advertised.len() >= self.plan.cohort.size as usize;
        if !full && !phase.members.all(answered) && now < phase.deadline {
            return Vec::new();
        }
        let (mut members, mut state) = (phase.members.keep(answered), phase.state.clone());
        // Of one that would be most of the sum all others would want no part.
        while let Some(client) = self.outweighs(&members) {
            let samples = members.asked.remove(&client);
            tracing::warn!(%client, samples, "left out: it would be most of the sum");
            state.leave_out(&client.0);
        }
        if members.asked.len() < self.plan.cohort.minimum as usize {
            return self.repeat();
        }
        match state.close() {
            Ok((state, roster)) => {
                let deadline = now.after(self.plan.cohort.step_ms);
                self.phase = Phase::Share(Share::new(state, roster.encode(), members, deadline));
                Vec::new()
            }
            Err(failure) => self.insecure(&failure),
        }
    }

    /// Whoever would be more of a weighted sum than clients take part with.
    fn outweighs(&self, members: &Members) -> Option<ClientId> {
        let (secure, masking) = (self.plan.secure.as_ref()?, self.masking.as_ref()?);
        let Code::Fixed(_) = masking.code else { return None };
        let samples = members.asked.values().copied().collect();
        weights::check(samples, secure.corrupt, weights::MAX_SHARE).err()?;
        members.asked.iter().max_by_key(|(_, samples)| **samples).map(|(client, _)| *client)
    }
}
