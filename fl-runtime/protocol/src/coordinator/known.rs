//! What clients may know of secure sums and attempts.
//!
//! A client never gives up what it knows: of one model it helps to sum one set of clients, and it
//! joins no attempt that isn't after its last one ([`crate::participant`]). So the server keeps of
//! which sums that may be, and lets the same clients meet again. If its journal was lost and is
//! repaired from what was left, it may know less than its clients do. Then they refuse, and say what
//! they know when they do; it is nothing that this server didn't tell them. What more clients say
//! than are assumed to be corrupt is taken to be true, so that those can't choose who meets; what
//! fewer say keeps but them away from the others.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::{Coordinator, Effect, Phase, event};
use crate::{ClientId, Digest, Ended, Millis, Refusal, Turn, wire};

/// Sums that are remembered; clients remember as many.
const MOST: usize = 16;

/// With whom clients take part where sums may be known.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Company<'a> {
    /// Those whose sum it was, alone.
    Set(&'a BTreeSet<ClientId>),
    /// Everyone else.
    Others,
}

/// What clients may know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// Whose sums of changes of this model may be known, the latest last.
    sums: Vec<BTreeSet<ClientId>>,
    /// What clients said of such sums: the digest of their members.
    told: BTreeMap<ClientId, Digest>,
    /// The last attempts that clients joined, where these aren't before the open one.
    ahead: BTreeMap<ClientId, Turn>,
    /// Who is to be summed in the open attempt, if it is a set that meets again.
    alone: Option<BTreeSet<ClientId>>,
}

impl Known {
    /// A sum of these clients may be known.
    pub fn add(&mut self, members: BTreeSet<ClientId>) {
        self.sums.retain(|known| *known != members);
        if self.sums.len() >= MOST {
            self.sums.remove(0);
        }
        self.sums.push(members);
    }

    /// The model is another one from now on.
    pub fn clear(&mut self) {
        *self = Known::default();
    }

    /// Whose sums may be known.
    pub fn sums(&self) -> &[BTreeSet<ClientId>] {
        &self.sums
    }

    /// Whether a client is in a sum that may be known, or says so.
    pub fn holds(&self, client: &ClientId) -> bool {
        let is_in = |members: &BTreeSet<ClientId>| members.contains(client);
        self.told.contains_key(client) || self.sums.iter().any(is_in)
    }

    /// Who takes part with whom in an attempt: by turns each set, the others if they are `enough`,
    /// and, for `None`, whomever chance brings.
    pub fn company(&self, attempt: u32, enough: bool) -> Option<Company<'_>> {
        let (sums, some) = (self.sums.len(), !self.sums.is_empty() || !self.told.is_empty());
        let turn = attempt.saturating_sub(1) as usize % (sums + 2);
        match turn.cmp(&sums) {
            Ordering::Less => self.sums.iter().rev().nth(turn).map(Company::Set),
            Ordering::Equal if enough && some => Some(Company::Others),
            Ordering::Equal => self.sums.last().map(Company::Set),
            Ordering::Greater => None,
        }
    }

    /// These are to be summed in the open attempt, if it is not whoever is there.
    pub fn meet(&mut self, alone: Option<BTreeSet<ClientId>>) {
        self.alone = alone;
    }

    /// Who is.
    pub fn meeting(&self) -> Option<&BTreeSet<ClientId>> {
        self.alone.as_ref()
    }

    /// The attempt is over. Returns which one more than `doubted` of its clients have joined, if
    /// it isn't before this one.
    pub fn end_attempt(&mut self, doubted: usize) -> Option<Turn> {
        self.alone = None;
        let mut joined: Vec<Turn> = std::mem::take(&mut self.ahead).into_values().collect();
        joined.sort_unstable_by(|a, b| b.cmp(a));
        joined.get(doubted).copied()
    }

    pub fn sums_to_wire(&self) -> Vec<wire::Members> {
        let keys = |members: &BTreeSet<ClientId>| wire::Members {
            clients: members.iter().map(|client| client.0.to_vec()).collect(),
        };
        self.sums.iter().map(keys).collect()
    }

    pub fn told_to_wire(&self) -> Vec<wire::ToldSum> {
        let told = |(client, members): (&ClientId, &Digest)| wire::ToldSum {
            client: client.0.to_vec(),
            members: members.0.to_vec(),
        };
        self.told.iter().map(told).collect()
    }

    /// Back from a snapshot, between attempts.
    pub fn from_wire(sums: &[wire::Members], told: &[wire::ToldSum]) -> Result<Self, Refusal> {
        let members =
            |of: &wire::Members| of.clients.iter().map(|key| event::client(key)).collect();
        let said = |told: &wire::ToldSum| {
            Ok((event::client(&told.client)?, event::digest(&told.members)?))
        };
        Ok(Known {
            sums: sums.iter().map(members).collect::<Result<_, Refusal>>()?,
            told: told.iter().map(said).collect::<Result<_, Refusal>>()?,
            ..Known::default()
        })
    }
}

impl Coordinator {
    /// A client takes no part in this attempt, and may say what it knows that keeps it from it.
    pub(super) fn take_refusal(
        &mut self,
        now: Millis,
        client: ClientId,
        declined: &wire::Declined,
    ) -> Result<Vec<Effect>, Refusal> {
        let ended = declined.ended.as_ref().map(Ended::try_from).transpose()?;
        let before = self.known.clone();
        self.learn(client, declined)?;
        let effects = self.declined(now, client).inspect_err(|_| self.known = before)?;
        if let Some(ended) = ended {
            self.hear_of_end(client, ended);
        }
        Ok(effects)
    }

    /// Takes a client's word of what it knows; nothing changed if it makes no sense.
    fn learn(&mut self, client: ClientId, declined: &wire::Declined) -> Result<(), Refusal> {
        let Some(secure) = &self.plan.secure else { return Ok(()) };
        let asks_for_a_sum = matches!(self.phase, Phase::Collect(_) | Phase::Confirm(_));
        if !declined.summed.is_empty() && asks_for_a_sum {
            let keys = declined.summed.iter().map(|key| event::client(key));
            let keys: Vec<ClientId> = keys.collect::<Result<_, Refusal>>()?;
            let (least, most) = (self.plan.cohort.minimum as usize, self.plan.cohort.size as usize);
            let in_order = keys.is_sorted_by(|a, b| a < b);
            if !in_order || !(least..=most).contains(&keys.len()) || !keys.contains(&client) {
                return Err(Refusal::Malformed("members of a sum"));
            }
            let bytes: Vec<u8> = keys.iter().flat_map(|key| key.0).collect();
            let members: BTreeSet<ClientId> = keys.into_iter().collect();
            let digest = Digest::of(&bytes);
            self.known.told.insert(client, digest);
            let says = |(who, said): &(&ClientId, &Digest)| {
                **said == digest && !self.excluded.contains_key(*who)
            };
            let agree = self.known.told.iter().filter(says).count();
            if agree > secure.assumptions().corrupt_of(most) {
                tracing::warn!(members = members.len(), "a sum is known that this server forgot");
                self.known.add(members);
            }
        }
        if let Some(joined) = declined.joined.map(Turn::from)
            && joined > self.turn
        {
            self.known.ahead.insert(client, joined);
        }
        Ok(())
    }

    /// After an attempt of so many clients that failed: to the one after the last that they joined,
    /// where that is later than the open one. A third of them may be liars here, whatever the
    /// plan takes to be corrupt: without as many a round goes on.
    pub(super) fn catch_up(&mut self, asked: usize) {
        let corrupt =
            self.plan.secure.as_ref().map(|secure| secure.assumptions().corrupt_of(asked));
        let joined = self.known.end_attempt(corrupt.unwrap_or(0).max(asked / 3));
        let Some(joined) = joined.filter(|joined| *joined >= self.turn) else { return };
        tracing::warn!(%joined, "clients took part in attempts that this server forgot");
        let last = Turn::new(self.plan.rounds, u32::MAX);
        self.turn = joined.min(last);
        match self.turn.attempt.checked_add(1) {
            Some(next) => self.turn.attempt = next,
            None => self.proceed(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_of_a_sum_the_others_and_whoever_is_there_meet_by_turns() {
        let set = |clients: &[u8]| -> BTreeSet<ClientId> {
            clients.iter().map(|client| ClientId([*client; 32])).collect()
        };
        let (older, newer) = (set(&[1, 2, 3]), set(&[2, 3, 4]));
        let mut known = Known::default();
        assert_eq!((known.company(1, true), known.company(2, true)), (None, None));
        known.add(older.clone());
        known.add(newer.clone());
        let turns =
            |enough| -> Vec<_> { (1..=5).map(|attempt| known.company(attempt, enough)).collect() };
        let of = |set| Some(Company::Set(set));
        let expected = [of(&newer), of(&older), Some(Company::Others), None, of(&newer)];
        assert_eq!(turns(true), expected);
        // Too few others.
        let expected = [of(&newer), of(&older), of(&newer), None, of(&newer)];
        assert_eq!(turns(false), expected);
        // A sum that clients only tell of has no members that are known.
        let mut told = Known::default();
        told.told.insert(ClientId([1; 32]), Digest([0; 32]));
        assert_eq!(told.company(1, true), Some(Company::Others));
        assert_eq!((told.company(1, false), told.company(2, true)), (None, None));
    }
}
