//! The server's part of a session, a type a round. Messages are taken in any order and as often
//! as they come; a round is closed by whoever keeps the time. An error of `close` ends the
//! session.
//!
//! ```
//! use tern_secagg::{Assumptions, Packing, Session, server::Advertising};
//! # let packing = Packing::new(64, 20).unwrap();
//! # let (round, attempt, assumptions) = (1, 0, Assumptions::new(0.0, 0.4));
//! # let session = Session { run: [7; 32], task: [8; 32], round, attempt, assumptions, packing };
//! let failure = Advertising::new(session).close().unwrap_err();
//! assert_eq!(failure.to_string(), "0 members, expected 3 to 16384");
//! ```

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;

use super::error::{Failure, Refusal, Secret};
use super::keys::{OwnSeed, PairKey, is_advertised, is_confirmed, usable};
use super::mask::Masks;
use super::messages::{
    Advertisement, Confirmation, Envelope, Inbox, Included, Request, Reveal, Roster, Shares,
    Survivors,
};
use super::parameters::{MAX_MEMBERS, Parameters};
use super::session::{Cohort, Session};
use super::shamir::{Interpolation, Share};

/// Takes a message, or the same one again.
fn take<K: Ord, M: PartialEq>(
    taken: &mut BTreeMap<K, M>,
    by: K,
    message: M,
) -> Result<(), Refusal> {
    match taken.get(&by) {
        Some(before) if *before != message => Err(Refusal::Changed),
        Some(_) => Ok(()),
        None => {
            taken.insert(by, message);
            Ok(())
        }
    }
}

fn enough(phase: &'static str, have: usize, need: usize) -> Result<(), Failure> {
    if have < need { Err(Failure::TooFew { phase, have, need }) } else { Ok(()) }
}

/// Round 0: takes keys.
#[derive(Clone)]
pub struct Advertising {
    session: Session,
    id: [u8; 32],
    keys: BTreeMap<[u8; 32], Advertisement>,
}

impl Advertising {
    /// A session without members yet.
    pub fn new(session: Session) -> Self {
        let id = session.id();
        Advertising { session, id, keys: BTreeMap::new() }
    }

    /// Takes a client's keys. That the client may take part is for the caller to know.
    ///
    /// # Errors
    /// A [`Refusal`] for keys that aren't properly signed or of low order, other keys than
    /// before, and a full cohort.
    pub fn advertise(&mut self, keys: Advertisement) -> Result<(), Refusal> {
        if self.keys.len() == MAX_MEMBERS && !self.keys.contains_key(&keys.identity) {
            return Err(Refusal::Full { limit: MAX_MEMBERS });
        }
        if !is_advertised(&self.id, &keys) {
            return Err(Refusal::Signature);
        }
        if !usable(&keys.cipher) || !usable(&keys.pair) {
            return Err(Refusal::WeakKey);
        }
        take(&mut self.keys, keys.identity, keys)
    }

    /// Leaves a client out of the session.
    pub fn leave_out(&mut self, identity: &[u8; 32]) {
        self.keys.remove(identity);
    }

    /// Clients that advertised.
    pub fn members(&self) -> usize {
        self.keys.len()
    }

    /// Fixes the cohort: the roster goes to every member.
    ///
    /// # Errors
    /// [`Failure::Parameters`] if the cohort can't be served.
    pub fn close(self) -> Result<(Sharing, Roster), Failure> {
        let roster = Roster { members: self.keys.into_values().collect() };
        let cohort = Cohort::new(&self.session, &roster)?;
        Ok((Sharing { cohort, shares: BTreeMap::new() }, roster))
    }
}

/// Round 1: takes shares.
#[derive(Clone)]
pub struct Sharing {
    cohort: Cohort,
    shares: BTreeMap<u32, Shares>,
}

impl Sharing {
    /// The number of a client in the roster.
    pub fn number(&self, identity: &[u8; 32]) -> Option<u32> {
        self.cohort.number(identity)
    }

    /// What the cohort runs by.
    pub fn parameters(&self) -> Parameters {
        self.cohort.parameters
    }

    /// Takes a member's shares.
    ///
    /// # Errors
    /// A [`Refusal`] unless they are for its neighbors, in order.
    pub fn share(&mut self, by: u32, shares: Shares) -> Result<(), Refusal> {
        if by as usize >= self.cohort.members.len() {
            return Err(Refusal::NotExpected { member: by });
        }
        let neighbors = self.cohort.graph.neighbors(by);
        if !shares.envelopes.iter().map(|envelope| envelope.member).eq(neighbors.iter().copied()) {
            let (have, need) = (shares.envelopes.len(), neighbors.len());
            return Err(Refusal::Receivers { have, need });
        }
        take(&mut self.shares, by, shares)
    }

    /// Members that shared.
    pub fn members(&self) -> usize {
        self.shares.len()
    }

    /// Gives each member that shared the shares for it. `job` is what clients are told to make
    /// their vectors by.
    ///
    /// # Errors
    /// [`Failure::TooFew`] if fewer shared than the session's least survivors.
    pub fn close(self, job: [u8; 32]) -> Result<(Collecting, Vec<(u32, Inbox)>), Failure> {
        let Sharing { cohort, shares } = self;
        enough("shared secrets", shares.len(), cohort.parameters.survivors)?;
        let mut inboxes: BTreeMap<u32, Vec<Envelope>> =
            shares.keys().map(|member| (*member, Vec::new())).collect();
        for (from, shares) in &shares {
            for Envelope { member, sealed } in &shares.envelopes {
                if let Some(inbox) = inboxes.get_mut(member) {
                    inbox.push(Envelope { member: *from, sealed: *sealed });
                }
            }
        }
        let inboxes = inboxes.into_iter().map(|(to, envelopes)| (to, Inbox { envelopes }));
        let sharers = shares.into_keys().collect();
        let state = Collecting { cohort, job, sharers, uploaded: BTreeMap::new() };
        Ok((state, inboxes.collect()))
    }
}

/// Round 2: notes whose masked vectors are in the sum.
#[derive(Clone)]
pub struct Collecting {
    cohort: Cohort,
    job: [u8; 32],
    sharers: BTreeSet<u32>,
    uploaded: BTreeMap<u32, Included>,
}

impl Collecting {
    /// Whether what comes with a member's masked vector would be taken.
    ///
    /// # Errors
    /// As [`Collecting::upload`].
    pub fn check(&self, by: u32, included: &Included) -> Result<(), Refusal> {
        if !self.sharers.contains(&by) {
            return Err(Refusal::NotExpected { member: by });
        }
        if self.uploaded.contains_key(&by) {
            return Err(Refusal::Changed);
        }
        let senders = Sets::among(self.cohort.graph.neighbors(by), &self.sharers);
        if !included.signatures.iter().map(|(member, _)| *member).eq(senders.iter().copied()) {
            let (have, need) = (included.signatures.len(), senders.len());
            return Err(Refusal::Included { have, need });
        }
        // What a neighbor would not believe would end the session for it.
        let signer = self.cohort.member(by);
        let signed = |(of, signature): &(u32, [u8; 64])| {
            is_confirmed(signer, &self.cohort.inclusion(&self.job, by, *of), signature)
        };
        if included.signatures.par_iter().all(signed) { Ok(()) } else { Err(Refusal::Signature) }
    }

    /// Notes that a member's masked vector was taken, and with whom it shares masks. Only vectors
    /// noted before [`Collecting::close`] are in the sum.
    ///
    /// # Errors
    /// [`Refusal::NotExpected`] for a client that didn't share secrets, [`Refusal::Changed`] for
    /// a second vector, [`Refusal::Included`] unless it shares masks with the senders of its
    /// inbox, [`Refusal::Signature`] if that isn't signed.
    pub fn upload(&mut self, by: u32, included: Included) -> Result<(), Refusal> {
        self.check(by, &included)?;
        self.note(by, included);
        Ok(())
    }

    /// What [`Collecting::upload`] does with what [`Collecting::check`] found right: for a caller
    /// that journals an upload between the two, and shall not check its signatures twice.
    pub fn note(&mut self, by: u32, included: Included) {
        self.uploaded.insert(by, included);
    }

    /// The number of a client in the roster.
    pub fn number(&self, identity: &[u8; 32]) -> Option<u32> {
        self.cohort.number(identity)
    }

    /// Members whose vectors are in.
    pub fn members(&self) -> usize {
        self.uploaded.len()
    }

    /// Members that shared secrets, and may upload.
    pub fn expected(&self) -> usize {
        self.sharers.len()
    }

    /// Fixes the set of survivors, which goes to each of them.
    ///
    /// # Errors
    /// [`Failure::TooFew`] if fewer uploaded than the session's least survivors.
    pub fn close(self) -> Result<(Confirming, Survivors), Failure> {
        let Collecting { cohort, job, sharers, uploaded } = self;
        enough("uploaded", uploaded.len(), cohort.parameters.survivors)?;
        let survivors: BTreeSet<u32> = uploaded.keys().copied().collect();
        let named = Survivors { members: survivors.iter().copied().collect() };
        let statement = cohort.statement(&job, &survivors);
        let dropped = sharers.difference(&survivors).copied().collect();
        let sets = Sets { cohort, survivors, included: uploaded, dropped };
        Ok((Confirming { sets, statement, confirmations: BTreeMap::new() }, named))
    }
}

/// Who is in the sum, and who only shares masks with those in it.
#[derive(Clone)]
struct Sets {
    cohort: Cohort,
    survivors: BTreeSet<u32>,
    /// Of each survivor.
    included: BTreeMap<u32, Included>,
    dropped: BTreeSet<u32>,
}

impl Sets {
    /// Those of a sorted list of members that are in a set.
    fn among(members: Vec<u32>, set: &BTreeSet<u32>) -> Vec<u32> {
        members.into_iter().filter(|member| set.contains(member)).collect()
    }

    /// Survivors whose own masks a member holds a share of.
    fn own_masks(&self, holder: u32) -> Vec<u32> {
        Self::among(self.cohort.graph.holders(holder), &self.survivors)
    }

    /// What the survivors around a member signed for it.
    fn included(&self, holder: u32) -> Vec<(u32, [u8; 64])> {
        let others = self.own_masks(holder).into_iter().filter(|member| *member != holder);
        let signed = |member: u32| {
            let signatures = &self.included.get(&member)?.signatures;
            let at = signatures.binary_search_by_key(&holder, |(of, _)| *of).ok()?;
            Some((member, signatures[at].1))
        };
        others.filter_map(signed).collect()
    }

    /// Dropped members whose pair keys a member holds a share of.
    fn pair_keys(&self, holder: u32) -> Vec<u32> {
        Self::among(self.cohort.graph.neighbors(holder), &self.dropped)
    }
}

/// Round 3: takes signatures of the set of survivors.
#[derive(Clone)]
pub struct Confirming {
    sets: Sets,
    statement: [u8; 32],
    confirmations: BTreeMap<u32, Confirmation>,
}

impl Confirming {
    /// Takes a survivor's signature.
    ///
    /// # Errors
    /// A [`Refusal`] for anyone else's, and one that doesn't fit.
    pub fn confirm(&mut self, by: u32, confirmation: Confirmation) -> Result<(), Refusal> {
        if !self.sets.survivors.contains(&by) {
            return Err(Refusal::NotExpected { member: by });
        }
        let member = self.sets.cohort.member(by);
        if !is_confirmed(member, &self.statement, &confirmation.signature) {
            return Err(Refusal::Signature);
        }
        take(&mut self.confirmations, by, confirmation)
    }

    /// The number of a client in the roster.
    pub fn number(&self, identity: &[u8; 32]) -> Option<u32> {
        self.sets.cohort.number(identity)
    }

    /// Members that confirmed.
    pub fn members(&self) -> usize {
        self.confirmations.len()
    }

    /// Asks each member that confirmed, and has enough neighbors that did, for its shares.
    ///
    /// # Errors
    /// [`Failure::TooFew`] if fewer than the threshold can be asked.
    pub fn close(self) -> Result<(Unmasking, Vec<(u32, Request)>), Failure> {
        let Confirming { sets, confirmations, .. } = self;
        let threshold = sets.cohort.parameters.threshold;
        let request = |member: u32| {
            let signers = sets.cohort.graph.neighbors(member).into_iter();
            let signed = signers
                .filter_map(|other| confirmations.get(&other).map(|c| (other, c.signature)))
                .collect::<Vec<_>>();
            let request = Request {
                confirmations: signed,
                included: sets.included(member),
                own_masks: sets.own_masks(member),
                pair_keys: sets.pair_keys(member),
            };
            (request.confirmations.len() + 1 >= threshold).then_some((member, request))
        };
        let requests: Vec<(u32, Request)> =
            confirmations.keys().filter_map(|member| request(*member)).collect();
        enough("confirmed the survivors", requests.len(), threshold)?;
        let asked = requests.iter().map(|(member, _)| *member).collect();
        Ok((Unmasking { sets, asked, reveals: BTreeMap::new() }, requests))
    }
}

/// Round 4: takes shares of what is to be removed from the sum.
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
    /// Takes the shares that a member was asked for.
    ///
    /// # Errors
    /// A [`Refusal`] for anyone who wasn't asked, and another number of shares.
    pub fn reveal(&mut self, by: u32, reveal: Reveal) -> Result<(), Refusal> {
        if !self.asked.contains(&by) {
            return Err(Refusal::NotExpected { member: by });
        }
        if reveal.own_masks.len() != self.sets.own_masks(by).len()
            || reveal.pair_keys.len() != self.sets.pair_keys(by).len()
        {
            return Err(Refusal::Revealed);
        }
        take(&mut self.reveals, by, reveal)
    }

    /// The number of a client in the roster.
    pub fn number(&self, identity: &[u8; 32]) -> Option<u32> {
        self.sets.cohort.number(identity)
    }

    /// Members that revealed their shares.
    pub fn members(&self) -> usize {
        self.reveals.len()
    }

    /// Members that were asked to.
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

    /// Finds the masks that are left in the sum.
    ///
    /// # Errors
    /// [`Failure::TooFewShares`], and [`Failure::WrongShares`] if those that came don't fit what
    /// the client advertised.
    pub fn close(self) -> Result<Unmasked, Failure> {
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
        let own_mask = |member: &u32| -> Result<Masks, Failure> {
            let seed = find(&own, threshold, *member, Secret::OwnMask, |secret| {
                let seed = OwnSeed::from_secret(secret);
                let commitment = &cohort.member(*member).commitment;
                seed.is_committed(&cohort.session, commitment).then_some(seed)
            })?;
            Ok(Masks::from_iter([seed.mask(&cohort.session).negated()]))
        };
        let pair_masks = |member: &u32| -> Result<Masks, Failure> {
            let key = find(&pair, threshold, *member, Secret::PairKey, |secret| {
                let key = PairKey::from_secret(&secret);
                (key.public() == cohort.member(*member).pair).then_some(key)
            })?;
            let partners = Sets::among(cohort.graph.neighbors(*member), survivors).into_iter();
            // What the dropped client would have added cancels what its partners did.
            let masks = partners.map(|partner| key.mask(cohort, *member, partner));
            // Its keys were found usable when they came.
            Ok(masks.flatten().collect::<Masks>())
        };
        let own: Vec<_> = survivors.par_iter().map(own_mask).collect();
        let pairs: Vec<_> = dropped.par_iter().map(pair_masks).collect();
        let mut masks = Masks::default();
        // One after the other, so that the first failure is the same each time.
        for found in own.into_iter().chain(pairs) {
            masks.extend(found?.iter().copied());
        }
        let identities = survivors.iter().map(|member| cohort.member(*member).identity);
        Ok(Unmasked { masks, survivors: identities.collect() })
    }
}

/// The secret of a member from its shares. Where they don't give what is `wanted`, others are
/// left out: a holder that lies is outvoted while there are shares to spare.
fn find<T>(
    shares: &BTreeMap<u32, Vec<(u32, &Share)>>,
    threshold: usize,
    member: u32,
    secret: Secret,
    wanted: impl Fn(zeroize::Zeroizing<[u8; 32]>) -> Option<T>,
) -> Result<T, Failure> {
    let shares = shares.get(&member).map_or(&[][..], Vec::as_slice);
    let (have, need) = (shares.len(), threshold);
    if have < need {
        return Err(Failure::TooFewShares { member, secret, have, need });
    }
    let from = |first: usize| {
        let (points, shares): (Vec<u32>, Vec<&Share>) =
            shares.iter().cycle().skip(first).take(threshold).map(|(by, s)| (by + 1, *s)).unzip();
        Interpolation::new(&points).secret(shares).and_then(&wanted)
    };
    let starts = if have == need { 1 } else { have };
    (0..starts).find_map(from).ok_or(Failure::WrongShares { member, secret })
}

macro_rules! opaque {
    ($($state:ident: $members:expr;)+) => {
        $(
            impl std::fmt::Debug for $state {
                /// Says how far it is, and no share.
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    let members: fn(&$state) -> usize = $members;
                    write!(f, "{} of {} members", stringify!($state), members(self))
                }
            }
        )+
    };
}

opaque! {
    Advertising: Advertising::members;
    Sharing: Sharing::members;
    Collecting: Collecting::members;
    Confirming: Confirming::members;
    Unmasking: Unmasking::members;
}
