//! Ends that clients were told of and the server forgot.
//!
//! A server whose files are put back as they were some time ago may know nothing of the end of its
//! run. Who was told of it takes part in no round up to the last one, and says which model it was
//! told ([`crate::participant`]). Once more than half say the same of the clients that are there or
//! are counted in the model, the run is over, with that model: few can't end a run, also where they
//! are alone for a while, and none goes on without its clients.

use std::collections::{BTreeMap, BTreeSet};

use super::{Candidate, Coordinator, Effect, Phase, event};
use crate::{ClientId, Ended, Refusal, Turn, wire};

/// What clients said of an end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ends {
    /// Each client's last word.
    told: BTreeMap<ClientId, Ended>,
    /// What was found to be true.
    pub is: Option<Ended>,
}

impl Ends {
    /// What more than half of these say, of this round or a later one.
    fn agreed(&self, round: u32, clients: &BTreeSet<ClientId>) -> Option<Ended> {
        let mut counts = BTreeMap::<Ended, usize>::new();
        for ended in clients.iter().filter_map(|client| self.told.get(client)) {
            *counts.entry(*ended).or_default() += 1;
        }
        let half = clients.len() / 2;
        let most = |(ended, count): &(Ended, usize)| *count > half && ended.round >= round;
        counts.into_iter().find(most).map(|(ended, _)| ended)
    }

    pub fn to_wire(&self) -> Vec<wire::ToldEnd> {
        let told = |(client, ended): (&ClientId, &Ended)| wire::ToldEnd {
            client: client.0.to_vec(),
            ended: Some((*ended).into()),
        };
        self.told.iter().map(told).collect()
    }

    pub fn from_wire(told: &[wire::ToldEnd], is: Option<&wire::Ended>) -> Result<Self, Refusal> {
        let said = |told: &wire::ToldEnd| {
            let ended = told.ended.as_ref().ok_or(Refusal::Malformed("end of a run"))?;
            Ok((event::client(&told.client)?, ended.try_into()?))
        };
        Ok(Ends {
            told: told.iter().map(said).collect::<Result<_, Refusal>>()?,
            is: is.map(Ended::try_from).transpose()?,
        })
    }
}

impl Coordinator {
    /// The end that clients were told of, where this server didn't know it.
    pub fn told_end(&self) -> Option<Ended> {
        self.ends.is
    }

    /// Takes a client's word of an end.
    pub(super) fn hear_of_end(&mut self, client: ClientId, ended: Ended) {
        tracing::warn!(%client, round = ended.round, model = %ended.model, "was told of the run's end");
        self.ends.told.insert(client, ended);
    }

    /// Ends the run if more than half of those who are there or were counted say so.
    pub(super) fn end_as_told(&mut self, there: &[Candidate]) -> Option<Vec<Effect>> {
        let counted = self.counted.keys().filter(|client| !self.excluded.contains_key(*client));
        let there = there.iter().map(|candidate| &candidate.client);
        let ended = self.ends.agreed(self.turn.round, &there.chain(counted).copied().collect())?;
        let Ended { round, model } = ended;
        let failed = self.fail(format_args!(
            "clients were told that the run is over after round {round}, with model {model}"
        ));
        self.ends.is = Some(ended);
        let round = round.min(self.plan.rounds);
        if round > self.turn.round {
            self.turn = Turn::new(round, 1);
        }
        self.phase = Phase::Finished;
        Some(self.told(failed))
    }
}
