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

mod unmask;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rayon::prelude::*;

use super::error::{Culprit, Failure, Fault, Refusal};
use super::keys::{is_advertised, is_confirmed, is_garbage, provable, usable};
use super::messages::{
    Advertisement, Complaint, Complaints, Confirmation, Envelope, Inbox, Included, Partners,
    Request, Roster, Shares, Survivors,
};
use super::parameters::{MAX_MEMBERS, Parameters};
use super::session::{Cohort, Session};
use unmask::{Dealt, Sets};
pub use unmask::{Unmasked, Unmasking};

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
    /// A [`Refusal`] for keys that aren't properly signed or outside of the group, other keys than
    /// before, and a full cohort.
    pub fn advertise(&mut self, keys: Advertisement) -> Result<(), Refusal> {
        if self.keys.len() == MAX_MEMBERS && !self.keys.contains_key(&keys.identity) {
            return Err(Refusal::Full { limit: MAX_MEMBERS });
        }
        if !is_advertised(&self.id, &keys) {
            return Err(Refusal::Signature);
        }
        if !provable(&keys.cipher) || !usable(&keys.pair) {
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
    /// A [`Refusal`] unless they are for its neighbors, in order, and signed.
    pub fn share(&mut self, by: u32, shares: Shares) -> Result<(), Refusal> {
        if by as usize >= self.cohort.members.len() {
            return Err(Refusal::NotExpected { member: by });
        }
        let neighbors = self.cohort.graph.neighbors(by);
        if !shares.envelopes.iter().map(|envelope| envelope.member).eq(neighbors.iter().copied()) {
            let (have, need) = (shares.envelopes.len(), neighbors.len());
            return Err(Refusal::Receivers { have, need });
        }
        // A receiver would have to take it for the server's lie.
        let signer = self.cohort.member(by);
        let signed = |envelope: &Envelope| {
            let statement = self.cohort.envelope((by, envelope.member), envelope);
            is_confirmed(signer, &statement, &envelope.signature)
        };
        if !shares.envelopes.par_iter().all(signed) {
            return Err(Refusal::Signature);
        }
        take(&mut self.shares, by, shares)
    }

    /// Members that shared.
    pub fn members(&self) -> usize {
        self.shares.len()
    }

    /// Gives each member that shared the shares for it.
    ///
    /// # Errors
    /// [`Failure::TooFew`] if fewer shared than the session's least survivors.
    pub fn close(self) -> Result<(Checking, Vec<(u32, Inbox)>), Failure> {
        let Sharing { cohort, shares } = self;
        enough("shared secrets", shares.len(), cohort.parameters.survivors)?;
        let mut inboxes: BTreeMap<u32, Vec<Envelope>> =
            shares.keys().map(|member| (*member, Vec::new())).collect();
        for (from, shares) in &shares {
            for envelope in &shares.envelopes {
                if let Some(inbox) = inboxes.get_mut(&envelope.member) {
                    inbox.push(Envelope { member: *from, ..envelope.clone() });
                }
            }
        }
        let inboxes = inboxes.into_iter().map(|(to, envelopes)| (to, Inbox { envelopes }));
        let (checked, culprits) = (BTreeMap::new(), BTreeSet::new());
        let state = Checking { cohort, shares: Arc::new(shares), checked, culprits };
        Ok((state, inboxes.collect()))
    }
}

/// Round 2: takes complaints about shares. Nobody shares masks yet with those who turn out to have
/// broken the protocol.
#[derive(Clone)]
pub struct Checking {
    cohort: Cohort,
    /// By sender.
    shares: Arc<BTreeMap<u32, Shares>>,
    checked: BTreeMap<u32, Complaints>,
    culprits: BTreeSet<u32>,
}

impl Checking {
    /// The number of a client in the roster.
    pub fn number(&self, identity: &[u8; 32]) -> Option<u32> {
        self.cohort.number(identity)
    }

    /// The client of a number in the roster.
    pub fn identity(&self, member: u32) -> [u8; 32] {
        self.cohort.member(member).identity
    }

    /// Members that checked their shares.
    pub fn members(&self) -> usize {
        self.checked.len()
    }

    fn envelope(&self, from: u32, to: u32) -> Option<&Envelope> {
        let envelopes = &self.shares.get(&from)?.envelopes;
        let at = envelopes.binary_search_by_key(&to, |envelope| envelope.member).ok()?;
        Some(&envelopes[at])
    }

    /// Takes a member's complaints, none of which is to say that all is well. Each puts somebody
    /// out of the session: its subject, or whoever made it, if it is false. Gives those who are
    /// out now and weren't before.
    ///
    /// # Errors
    /// [`Refusal::NotExpected`] for a client that didn't share secrets or is out,
    /// [`Refusal::Changed`] for other complaints than before, [`Refusal::Complaints`] unless they
    /// are about senders of its inbox, in order.
    pub fn check(&mut self, by: u32, complaints: Complaints) -> Result<Vec<Culprit>, Refusal> {
        if !self.shares.contains_key(&by) || self.culprits.contains(&by) {
            return Err(Refusal::NotExpected { member: by });
        }
        let Complaints { complaints: listed } = &complaints;
        let sent = |complaint: &Complaint| self.envelope(complaint.member, by).is_some();
        if !listed.is_sorted_by(|a, b| a.member < b.member) || !listed.iter().all(sent) {
            return Err(Refusal::Complaints);
        }
        if let Some(before) = self.checked.get(&by) {
            return if *before == complaints { Ok(Vec::new()) } else { Err(Refusal::Changed) };
        }
        let mut found = Vec::new();
        for complaint in listed {
            let of = complaint.member;
            let Some(envelope) = self.envelope(of, by) else { continue };
            if !is_garbage(&self.cohort, (of, by), envelope, complaint) {
                found.push(Culprit { member: by, fault: Fault::Complaint { of } });
                // One that lies has nothing more to say.
                break;
            }
            found.push(Culprit { member: of, fault: Fault::Envelope { to: by } });
        }
        self.checked.insert(by, complaints);
        found.retain(|culprit| self.culprits.insert(culprit.member));
        Ok(found)
    }

    /// Names to each member that checked its shares, and is not out, those of its neighbors that
    /// did and aren't. `job` is what clients are told to make their vectors by.
    ///
    /// # Errors
    /// [`Failure::TooFew`] if there are fewer than the session's least survivors.
    pub fn close(self, job: [u8; 32]) -> Result<(Collecting, Vec<(u32, Partners)>), Failure> {
        let Checking { cohort, shares, checked, culprits } = self;
        let sharers: BTreeSet<u32> =
            checked.into_keys().filter(|member| !culprits.contains(member)).collect();
        enough("checked their shares", sharers.len(), cohort.parameters.survivors)?;
        let partners = |member: &u32| {
            let members = Sets::among(cohort.graph.neighbors(*member), &sharers);
            (*member, Partners { members })
        };
        let partners = sharers.iter().map(partners).collect();
        let dealt = Arc::new(Dealt::new(&shares));
        Ok((Collecting { cohort, job, dealt, sharers, uploaded: BTreeMap::new() }, partners))
    }
}

/// Round 3: notes whose masked vectors are in the sum.
#[derive(Clone)]
pub struct Collecting {
    cohort: Cohort,
    job: [u8; 32],
    dealt: Arc<Dealt>,
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
        let partners = Sets::among(self.cohort.graph.neighbors(by), &self.sharers);
        if !included.signatures.iter().map(|(member, _)| *member).eq(partners.iter().copied()) {
            let (have, need) = (included.signatures.len(), partners.len());
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
    /// [`Refusal::NotExpected`] for a client that dropped out or was put out,
    /// [`Refusal::Changed`] for a second vector, [`Refusal::Included`] unless it shares masks with
    /// its partners, [`Refusal::Signature`] if that isn't signed.
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

    /// Members that share masks, and may upload.
    pub fn expected(&self) -> usize {
        self.sharers.len()
    }

    /// Fixes the set of survivors, which goes to each of them.
    ///
    /// # Errors
    /// [`Failure::TooFew`] if fewer uploaded than the session's least survivors.
    pub fn close(self) -> Result<(Confirming, Survivors), Failure> {
        let Collecting { cohort, job, dealt, sharers, uploaded } = self;
        enough("uploaded", uploaded.len(), cohort.parameters.survivors)?;
        let survivors: BTreeSet<u32> = uploaded.keys().copied().collect();
        let named = Survivors { members: survivors.iter().copied().collect() };
        let statement = cohort.statement(&job, &survivors);
        let dropped = sharers.difference(&survivors).copied().collect();
        let sets = Sets { cohort, dealt, survivors, included: uploaded, dropped };
        Ok((Confirming::new(sets, statement), named))
    }
}

/// Round 4: takes signatures of the set of survivors.
#[derive(Clone)]
pub struct Confirming {
    sets: Sets,
    statement: [u8; 32],
    confirmations: BTreeMap<u32, Confirmation>,
}

impl Confirming {
    fn new(sets: Sets, statement: [u8; 32]) -> Self {
        Confirming { sets, statement, confirmations: BTreeMap::new() }
    }

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
        Ok((Unmasking::new(sets, asked), requests))
    }
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
    Checking: Checking::members;
    Collecting: Collecting::members;
    Confirming: Confirming::members;
    Unmasking: Unmasking::members;
}
