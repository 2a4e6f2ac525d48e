//! Secure aggregation, round 5: shares come in that remove what is left of the masks.

use std::collections::{BTreeMap, BTreeSet};

use tern_secagg::{Reveal, server};

use super::combine::{Combine, Unmasking};
use super::confirm::Confirm;
use super::secure::{Members, counted, decode, refused};
use super::{Coordinator, Effect, Phase, Upload};
use crate::wire::{self, instruction::What};
use crate::{ClientId, Millis, Refusal};

/// Waits for shares.
#[derive(Clone, Debug)]
pub(super) struct Unmask {
    pub(super) deadline: Millis,
    pub(super) members: Members,
    pub(super) uploads: BTreeMap<ClientId, Upload>,
    max_samples: u32,
    state: server::Unmasking,
    /// What is asked of each, by number.
    requests: BTreeMap<u32, Vec<u8>>,
    pub(super) revealed: BTreeSet<ClientId>,
}

impl Unmask {
    pub(super) fn new(
        confirm: &Confirm,
        state: server::Unmasking,
        requests: BTreeMap<u32, Vec<u8>>,
        deadline: Millis,
    ) -> Self {
        let asked = |client: &ClientId| {
            state.number(&client.0).is_some_and(|number| requests.contains_key(&number))
        };
        Unmask {
            deadline,
            members: confirm.members.keep(asked),
            uploads: confirm.uploads.clone(),
            max_samples: confirm.max_samples,
            state,
            requests,
            revealed: BTreeSet::new(),
        }
    }

    pub(super) fn instruction(&self, client: &ClientId) -> Option<What> {
        self.members.expect(client).ok()?;
        if self.revealed.contains(client) {
            return None;
        }
        let request = self.requests.get(&self.state.number(&client.0)?)?.clone();
        Some(What::Unmask(wire::Unmask { request }))
    }
}

impl Coordinator {
    pub(super) fn take_reveal(
        &mut self,
        now: Millis,
        client: ClientId,
        reveal: wire::Reveal,
    ) -> Result<Vec<Effect>, Refusal> {
        let Phase::Unmask(phase) = &mut self.phase else {
            return Err(self.unexpected("reveal"));
        };
        phase.members.expect(&client)?;
        let reveal: Reveal = decode(&reveal.reveal)?;
        let number = phase.state.number(&client.0).ok_or(Refusal::NotSelected(client))?;
        let before = phase.state.members();
        match phase.state.reveal(number, reveal).map_err(refused)? {
            Some(culprit) => {
                phase.members.gone.insert(client);
                let state = phase.state.clone();
                self.exclude(&[culprit], |member| state.identity(member));
            }
            None => {
                counted(before, phase.state.members())?;
                phase.revealed.insert(client);
            }
        }
        Ok(self.revealed(now))
    }

    /// On to the new model, once all masks are known. Those who are slower needn't answer.
    pub(super) fn revealed(&mut self, now: Millis) -> Vec<Effect> {
        let Phase::Unmask(phase) = &self.phase else { return Vec::new() };
        let answered = |client: &ClientId| phase.revealed.contains(client);
        let over = phase.members.all(answered) || now >= phase.deadline;
        if !over && !phase.state.complete() {
            return Vec::new();
        }
        let state = phase.state.clone();
        let (culprits, unmasked) = phase.state.clone().close();
        match unmasked {
            Ok(unmasked) => {
                let masks = unmasked.masks.into();
                let unmasking = Unmasking { masks, max_samples: phase.max_samples };
                let uploads = phase.uploads.clone();
                self.exclude(&culprits, |member| state.identity(member));
                self.phase = Phase::Combine(Combine { uploads, unmasking: Some(unmasking) });
                vec![Effect::Aggregate]
            }
            // Shares that were dealt wrong may be put right by those still to come.
            Err(_) if !over => Vec::new(),
            Err(failure) => {
                self.exclude(&culprits, |member| state.identity(member));
                self.abandon(format_args!("secure aggregation: {failure}"))
            }
        }
    }
}
