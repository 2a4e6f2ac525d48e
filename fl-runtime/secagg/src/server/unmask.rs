//! What is left of the masks, from shares.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rayon::prelude::*;

use super::take;
use crate::error::{Culprit, Failure, Fault, Refusal, Secret};
use crate::keys::{OwnSeed, PairKey, commitment};
use crate::mask::Masks;
use crate::messages::{Commitment, Included, Reveal, Shares};
use crate::session::Cohort;
use crate::shamir::{Interpolation, Share, decode};

/// What each member committed to of the shares that it dealt: a holder's are known by it.
pub(super) struct Dealt(BTreeMap<u32, Vec<(u32, Commitment, Commitment)>>);

impl Dealt {
    pub(super) fn new(shares: &BTreeMap<u32, Shares>) -> Self {
        let of = |shares: &Shares| {
            let envelopes = shares.envelopes.iter();
            envelopes.map(|envelope| (envelope.member, envelope.pair, envelope.own)).collect()
        };
        Dealt(shares.iter().map(|(from, shares)| (*from, of(shares))).collect())
    }

    /// Whether a share of the secret of `from` is the one that `to` was dealt. What a member deals
    /// to itself it commits to towards nobody, and it lies about itself if it is wrong.
    fn is(&self, cohort: &Cohort, (from, to): (u32, u32), secret: Secret, share: &Share) -> bool {
        let committed = || {
            let dealt = self.0.get(&from)?;
            let (_, pair, own) = dealt[dealt.binary_search_by_key(&to, |(to, ..)| *to).ok()?];
            Some(if secret == Secret::PairKey { pair } else { own })
        };
        from == to || committed() == Some(commitment(cohort, (from, to), secret, share))
    }
}

/// Who is in the sum, and who only shares masks with those in it.
#[derive(Clone)]
pub(super) struct Sets {
    pub(super) cohort: Cohort,
    pub(super) dealt: Arc<Dealt>,
    pub(super) survivors: BTreeSet<u32>,
    /// Of each survivor.
    pub(super) included: BTreeMap<u32, Included>,
    pub(super) dropped: BTreeSet<u32>,
}

impl Sets {
    /// Those of a sorted list of members that are in a set.
    pub(super) fn among(members: Vec<u32>, set: &BTreeSet<u32>) -> Vec<u32> {
        members.into_iter().filter(|member| set.contains(member)).collect()
    }

    /// Survivors whose own masks a member holds a share of.
    pub(super) fn own_masks(&self, holder: u32) -> Vec<u32> {
        Self::among(self.cohort.graph.holders(holder), &self.survivors)
    }

    /// What the survivors around a member signed for it.
    pub(super) fn included(&self, holder: u32) -> Vec<(u32, [u8; 64])> {
        let others = self.own_masks(holder).into_iter().filter(|member| *member != holder);
        let signed = |member: u32| {
            let signatures = &self.included.get(&member)?.signatures;
            let at = signatures.binary_search_by_key(&holder, |(of, _)| *of).ok()?;
            Some((member, signatures[at].1))
        };
        others.filter_map(signed).collect()
    }

    /// Dropped members whose pair keys a member holds a share of.
    pub(super) fn pair_keys(&self, holder: u32) -> Vec<u32> {
        Self::among(self.cohort.graph.neighbors(holder), &self.dropped)
    }
}

/// Round 5: takes shares of what is to be removed from the sum.
#[derive(Clone)]
pub struct Unmasking {
    sets: Sets,
    asked: BTreeSet<u32>,
    reveals: BTreeMap<u32, Reveal>,
}

/// What a session ends with.
#[derive(Debug)]
pub struct Unmasked {
    /// Masks that, added to the sum of the survivors' words, leave the sum of their vectors mod
    /// 2^bits.
    pub masks: Masks,
    /// Identities of the survivors, ascending.
    pub survivors: Vec<[u8; 32]>,
}

impl Unmasking {
    pub(super) fn new(sets: Sets, asked: BTreeSet<u32>) -> Self {
        Unmasking { sets, asked, reveals: BTreeMap::new() }
    }

    /// Takes the shares that a member was asked for. If one of them isn't what it was dealt, that
    /// is given back, none of them is taken, and the member isn't asked any more.
    ///
    /// # Errors
    /// A [`Refusal`] for anyone who isn't asked, and another number of shares.
    pub fn reveal(&mut self, by: u32, reveal: Reveal) -> Result<Option<Culprit>, Refusal> {
        if !self.asked.contains(&by) {
            return Err(Refusal::NotExpected { member: by });
        }
        let (own_masks, pair_keys) = (self.sets.own_masks(by), self.sets.pair_keys(by));
        if reveal.own_masks.len() != own_masks.len() || reveal.pair_keys.len() != pair_keys.len() {
            return Err(Refusal::Revealed);
        }
        let Sets { cohort, dealt, .. } = &self.sets;
        let wrong = |secret, members: &[u32], shares: &[Share]| {
            let mut given = members.iter().zip(shares);
            let found = given.find(|(of, share)| !dealt.is(cohort, (**of, by), secret, share));
            found.map(|(of, _)| Fault::Share { of: *of, secret })
        };
        let fault = wrong(Secret::OwnMask, &own_masks, &reveal.own_masks)
            .or_else(|| wrong(Secret::PairKey, &pair_keys, &reveal.pair_keys));
        if let Some(fault) = fault
            && !self.reveals.contains_key(&by)
        {
            self.asked.remove(&by);
            return Ok(Some(Culprit { member: by, fault }));
        }
        take(&mut self.reveals, by, reveal)?;
        Ok(None)
    }

    /// The number of a client in the roster.
    pub fn number(&self, identity: &[u8; 32]) -> Option<u32> {
        self.sets.cohort.number(identity)
    }

    /// The client of a number in the roster.
    pub fn identity(&self, member: u32) -> [u8; 32] {
        self.sets.cohort.member(member).identity
    }

    /// Members that revealed their shares.
    pub fn members(&self) -> usize {
        self.reveals.len()
    }

    /// Members that are asked to.
    pub fn expected(&self) -> usize {
        self.asked.len()
    }

    /// Whether every secret has as many shares as it takes.
    pub fn complete(&self) -> bool {
        let Sets { cohort, survivors, dropped, .. } = &self.sets;
        let revealed = |holder: &u32| self.reveals.contains_key(holder);
        let enough = |holders: Vec<u32>| {
            holders.iter().filter(|holder| revealed(holder)).count() >= cohort.parameters.threshold
        };
        survivors.iter().all(|member| enough(cohort.graph.holders(*member)))
            && dropped.iter().all(|member| enough(cohort.graph.neighbors(*member)))
    }

    /// Finds the masks that are left in the sum, and the members that dealt shares of something
    /// else than what they advertised, to some of their holders at least.
    ///
    /// # Errors
    /// [`Failure::TooFewShares`], and [`Failure::WrongShares`] if no secret that was advertised
    /// comes of those that were dealt.
    pub fn close(self) -> (Vec<Culprit>, Result<Unmasked, Failure>) {
        let Sets { cohort, survivors, dropped, .. } = &self.sets;
        // The shares of each secret, with their holders.
        let mut own: BTreeMap<u32, Vec<(u32, &Share)>> = BTreeMap::new();
        let mut pair: BTreeMap<u32, Vec<(u32, &Share)>> = BTreeMap::new();
        for (holder, reveal) in &self.reveals {
            for (member, share) in self.sets.own_masks(*holder).into_iter().zip(&reveal.own_masks) {
                own.entry(member).or_default().push((*holder, share));
            }
            for (member, share) in self.sets.pair_keys(*holder).into_iter().zip(&reveal.pair_keys) {
                pair.entry(member).or_default().push((*holder, share));
            }
        }
        let threshold = cohort.parameters.threshold;
        let own_mask = |member: &u32| {
            let found = find(&own, threshold, *member, Secret::OwnMask, |secret| {
                let seed = OwnSeed::from_secret(secret);
                let commitment = &cohort.member(*member).commitment;
                seed.is_committed(&cohort.session, commitment).then_some(seed)
            });
            found.map(|seed| Masks::from_iter([seed.mask(&cohort.session).negated()]))
        };
        let pair_masks = |member: &u32| {
            let found = find(&pair, threshold, *member, Secret::PairKey, |secret| {
                let key = PairKey::from_secret(&secret);
                (key.public() == cohort.member(*member).pair).then_some(key)
            });
            let partners = Sets::among(cohort.graph.neighbors(*member), survivors).into_iter();
            // What the dropped client would have added cancels what its partners did. Its keys
            // were found usable when they came.
            found.map(|key| partners.filter_map(|with| key.mask(cohort, *member, with)).collect())
        };
        let own: Vec<_> = survivors.par_iter().map(own_mask).collect();
        let pairs: Vec<_> = dropped.par_iter().map(pair_masks).collect();
        let mut masks = Masks::default();
        let mut culprits = Vec::new();
        let mut failure = None;
        // One after the other, so that the first failure is the same each time.
        for Found { fault, result } in own.into_iter().chain(pairs) {
            culprits.extend(fault);
            match result {
                Ok(found) => masks.extend(found.iter().copied()),
                Err(failed) => drop(failure.get_or_insert(failed)),
            }
        }
        let identities = survivors.iter().map(|member| cohort.member(*member).identity);
        let unmasked = Unmasked { masks, survivors: identities.collect() };
        (culprits, failure.map_or(Ok(unmasked), Err))
    }
}

/// What comes of the shares of a secret.
struct Found<T> {
    /// Of whoever dealt them.
    fault: Option<Culprit>,
    result: Result<T, Failure>,
}

impl<T> Found<T> {
    fn map<U>(self, f: impl FnOnce(T) -> U) -> Found<U> {
        Found { fault: self.fault, result: self.result.map(f) }
    }
}

/// The secret of a member from its shares. Each is what its holder was dealt: where they don't
/// give what is `wanted`, the member dealt wrong ones, and with shares to spare its secret is found
/// in spite of that.
fn find<T>(
    shares: &BTreeMap<u32, Vec<(u32, &Share)>>,
    threshold: usize,
    member: u32,
    secret: Secret,
    wanted: impl Fn(zeroize::Zeroizing<[u8; 32]>) -> Option<T>,
) -> Found<T> {
    let shares = shares.get(&member).map_or(&[][..], Vec::as_slice);
    let (have, need) = (shares.len(), threshold);
    if have < need {
        let failure = Failure::TooFewShares { member, secret, have, need };
        return Found { fault: None, result: Err(failure) };
    }
    let (points, shares): (Vec<u32>, Vec<&Share>) =
        shares.iter().map(|(by, share)| (by + 1, *share)).unzip();
    let interpolated = || {
        let first = Interpolation::new(&points[..threshold]);
        first.secret(shares[..threshold].iter().copied()).and_then(&wanted)
    };
    if let Some(found) = interpolated() {
        return Found { fault: None, result: Ok(found) };
    }
    let fault = Some(Culprit { member, fault: Fault::Dealt { secret } });
    let decoded = decode(&points, &shares, threshold).and_then(&wanted);
    Found { fault, result: decoded.ok_or(Failure::WrongShares { member, secret }) }
}
