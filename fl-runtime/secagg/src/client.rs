//! A client's part of a session, a type a round. Each step takes the state that it leaves, so
//! that no key, share or signature serves twice, and an error ends the session: what the state
//! held is wiped.
//!
//! ```
//! use ed25519_dalek::SigningKey;
//! use tern_secagg::{Abort, Assumptions, History, Packing, Seed, Session, client};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let session = Session {
//!     run: [7; 32],
//!     task: [8; 32],
//!     round: 1,
//!     attempt: 0,
//!     assumptions: Assumptions::new(0.0, 0.4),
//!     packing: Packing::new(64, 20)?,
//! };
//! let identity = SigningKey::from_bytes(&[1; 32]);
//! let mut history = History::default();
//! let (_client, keys) =
//!     client::join(session.clone(), &identity, 1, Seed::from_system()?, &mut history)?;
//! assert_eq!(keys.identity, identity.verifying_key().to_bytes());
//!
//! // A session is joined once.
//! let again = client::join(session, &identity, 1, Seed::from_system()?, &mut history);
//! assert!(matches!(again, Err(Abort::Replay { .. })));
//! # Ok(())
//! # }
//! ```

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::SigningKey;

use super::error::{Abort, Secret};
use super::keys::{Held, Secrets, confirm, is_advertised, is_confirmed, usable};
use super::mask::Masks;
use super::messages::{
    Advertisement, Complaints, Confirmation, Inbox, Included, Partners, Request, Reveal, Roster,
    Shares, Survivors,
};
use super::pack::Packing;
use super::random::Seed;
use super::session::{Cohort, History, Session};
use super::shamir::{Share, split};

/// Enters a session: gives the keys to advertise, with the samples that the vector is to count for
/// in the sum. `history` is to be on disk before they leave.
///
/// # Errors
/// [`Abort::Replay`] if the session or a later one of its run was joined before, [`Abort::Revealed`]
/// if shares were revealed in its round.
pub fn join(
    session: Session,
    identity: &SigningKey,
    samples: u32,
    seed: Seed,
    history: &mut History,
) -> Result<(Advertised, Advertisement), Abort> {
    history.enter(&session)?;
    let id = session.id();
    let secrets = Secrets::new(seed, &id);
    let keys = secrets.advertise(&id, identity, samples);
    let state = Advertised { session, identity: identity.clone(), secrets, keys: keys.clone() };
    Ok((state, keys))
}

/// Keys are out; waits for the roster.
pub struct Advertised {
    session: Session,
    identity: SigningKey,
    secrets: Secrets,
    keys: Advertisement,
}

/// What stays with a client from the roster on.
struct Me {
    packing: Packing,
    identity: SigningKey,
    cohort: Cohort,
    number: u32,
    /// Ascending.
    neighbors: Vec<u32>,
}

impl Me {
    /// Checks that a list names neighbors, each once.
    fn neighbors_in(&self, named: &[u32]) -> Result<BTreeSet<u32>, Abort> {
        let set = self.cohort.set(named)?;
        match set.iter().find(|member| !self.cohort.graph.adjacent(self.number, **member)) {
            Some(member) => Err(Abort::WrongGraph { member: *member }),
            None => Ok(set),
        }
    }

    /// Checks that of this client's holders enough are there: neighbors, and itself.
    fn enough_holders(&self, neighbors: usize) -> Result<(), Abort> {
        let (have, need) = (neighbors + 1, self.cohort.parameters.threshold);
        if have < need { Err(Abort::TooFewHolders { have, need }) } else { Ok(()) }
    }
}

impl Advertised {
    /// Finds its neighbors on the graph of this roster, and shares its secrets with them.
    ///
    /// # Errors
    /// An [`Abort`] if the roster isn't in order, lacks this client's keys, is too small or too
    /// large for the session's assumptions, or has a member whose keys aren't properly signed.
    pub fn roster(mut self, roster: &Roster) -> Result<(Shared, Shares), Abort> {
        let pairs = roster.members.windows(2);
        if let Some(at) = pairs.into_iter().position(|pair| pair[0].identity >= pair[1].identity) {
            return Err(Abort::Unordered { member: at as u32 + 1 });
        }
        let cohort = Cohort::new(&self.session, roster)?;
        let number = cohort.number(&self.keys.identity).ok_or(Abort::OwnKeys)?;
        if *cohort.member(number) != self.keys {
            return Err(Abort::OwnKeys);
        }
        // Everyone's: keys that nobody signed would let a server try rosters until the graph,
        // which depends on all of them, suits it.
        for (member, keys) in (0..).zip(&cohort.members) {
            if !is_advertised(&cohort.session, keys) {
                return Err(Abort::Signature { member });
            }
        }
        let neighbors = cohort.graph.neighbors(number);
        if let Some(member) = neighbors.iter().find(|of| !usable(&cohort.member(**of).pair)) {
            return Err(Abort::WeakKey { member: *member });
        }
        let holders = cohort.graph.holders(number);
        // A holder's shares are those at its number, plus one: zero is where the secret is.
        let points: Vec<u32> = holders.iter().map(|holder| holder + 1).collect();
        let mut shared = |secret: &[u8; 32]| {
            split(secret, cohort.parameters.threshold, &points, &mut self.secrets.polynomials)
        };
        let pair = shared(self.secrets.pair.secret());
        let own = shared(self.secrets.own.secret());
        let mut envelopes = Vec::with_capacity(neighbors.len());
        let mut own_share = None;
        for ((member, pair), own) in holders.into_iter().zip(pair).zip(own) {
            if member == number {
                own_share = Some(own);
                continue;
            }
            let shares = Held { pair, own };
            let sealed = self.secrets.seal(&cohort, (number, member), &shares, &self.identity);
            envelopes.push(sealed.ok_or(Abort::WeakKey { member })?);
        }
        let packing = self.session.packing;
        let me = Me { packing, identity: self.identity, cohort, number, neighbors };
        let own_share = own_share.ok_or(Abort::OwnKeys)?;
        Ok((Shared { me, secrets: self.secrets, own_share }, Shares { envelopes }))
    }
}

/// Shares are out; waits for the neighbors'.
pub struct Shared {
    me: Me,
    secrets: Secrets,
    /// Its share of its own mask's seed.
    own_share: Share,
}

impl Shared {
    /// Opens the neighbors' envelopes. Whoever didn't send any has dropped out. Those that don't
    /// hold what they commit to are garbage, which their signature proves: a complaint shows it to
    /// anybody, and an envelope that its sender didn't sign so is no reason for one.
    ///
    /// # Errors
    /// An [`Abort`] if shares come from others than neighbors, twice from one, or not as their
    /// sender signed them.
    pub fn inbox(self, inbox: &Inbox) -> Result<(Checked, Complaints), Abort> {
        let Shared { me, secrets, own_share } = self;
        let named: Vec<u32> = inbox.envelopes.iter().map(|envelope| envelope.member).collect();
        me.neighbors_in(&named)?;
        let mut held = BTreeMap::new();
        let mut complaints = Vec::new();
        for envelope in &inbox.envelopes {
            let member = envelope.member;
            let statement = me.cohort.envelope((member, me.number), envelope);
            if !is_confirmed(me.cohort.member(member), &statement, &envelope.signature) {
                return Err(Abort::Signature { member });
            }
            let opened = secrets.open(&me.cohort, (member, me.number), envelope);
            match opened.ok_or(Abort::WeakKey { member })? {
                Ok(shares) => drop(held.insert(member, shares)),
                Err(complaint) => complaints.push(complaint),
            }
        }
        Ok((Checked { me, secrets, held, own_share }, Complaints { complaints }))
    }
}

/// Envelopes are opened; waits for the neighbors that are still there.
pub struct Checked {
    me: Me,
    secrets: Secrets,
    held: BTreeMap<u32, Held>,
    /// Its share of its own mask's seed.
    own_share: Share,
}

impl Checked {
    /// Shares masks with these neighbors, and with nobody else. `job` is a digest of what this
    /// client's vector will be made by: all whose vectors are summed must have the same. Gives
    /// what is to be sent with the masked vector.
    ///
    /// # Errors
    /// An [`Abort`] if others than neighbors are named, or one twice, or one whose shares this
    /// client doesn't hold, or too few.
    pub fn partners(
        self,
        partners: &Partners,
        job: [u8; 32],
    ) -> Result<(Masking, Included), Abort> {
        let Checked { me, secrets, mut held, own_share } = self;
        let named = me.neighbors_in(&partners.members)?;
        if let Some(member) = named.iter().copied().find(|member| !held.contains_key(member)) {
            return Err(Abort::NothingHeld { member });
        }
        me.enough_holders(named.len())?;
        held.retain(|member, _| named.contains(member));
        let mut masks = Masks::default();
        masks.push(secrets.own.mask(&me.cohort.session));
        for member in named.iter().copied() {
            let mask = secrets.pair.mask(&me.cohort, me.number, member);
            masks.push(mask.ok_or(Abort::WeakKey { member })?);
        }
        let sign = |of: u32| (of, confirm(&me.identity, &me.cohort.inclusion(&job, me.number, of)));
        let included = Included { signatures: named.into_iter().map(sign).collect() };
        Ok((Masking { me, job, masks, held, own_share }, included))
    }
}

/// Masks are known; waits for the vector. Keys are gone already.
pub struct Masking {
    me: Me,
    job: [u8; 32],
    masks: Masks,
    held: BTreeMap<u32, Held>,
    own_share: Share,
}

impl Masking {
    /// Masks the session's vector in place, mod 2^bits, on the processor.
    ///
    /// # Errors
    /// [`Abort::Length`] for another length.
    pub fn mask(self, words: &mut [u32]) -> Result<Masked, Abort> {
        let packing = self.me.packing;
        if words.len() != packing.words() {
            return Err(Abort::Length { words: words.len(), expected: packing.words() });
        }
        let (masks, masked) = self.into_masks();
        masks.add_to(words);
        words.iter_mut().for_each(|word| *word &= packing.modulus_mask());
        Ok(masked)
    }

    /// The masks, to be added to one vector elsewhere: by the engine's
    /// `kernels::masked::Masker`.
    pub fn into_masks(self) -> (Masks, Masked) {
        let Masking { me, job, masks, held, own_share } = self;
        (masks, Masked { me, job, held, own_share })
    }
}

/// The masked vector is out; waits for the set of survivors.
pub struct Masked {
    me: Me,
    job: [u8; 32],
    held: BTreeMap<u32, Held>,
    own_share: Share,
}

impl Masked {
    /// Signs the set of survivors.
    ///
    /// # Errors
    /// An [`Abort`] if the set is smaller than the session allows, names a member that isn't
    /// known, twice, or never shared its secrets, lacks this client, or leaves it fewer holders
    /// than the threshold.
    pub fn survivors(self, survivors: &Survivors) -> Result<(Confirmed, Confirmation), Abort> {
        let Masked { me, job, held, own_share } = self;
        let survivors = me.cohort.set(&survivors.members)?;
        if !survivors.contains(&me.number) {
            return Err(Abort::Excluded);
        }
        let (have, need) = (survivors.len(), me.cohort.parameters.survivors);
        if have < need {
            return Err(Abort::TooFewSurvivors { have, need });
        }
        let alive: Vec<u32> =
            me.neighbors.iter().copied().filter(|member| survivors.contains(member)).collect();
        if let Some(member) = alive.iter().copied().find(|member| !held.contains_key(member)) {
            return Err(Abort::DeadNamedAlive { member });
        }
        me.enough_holders(alive.len())?;
        let statement = me.cohort.statement(&job, &survivors);
        let signature = confirm(&me.identity, &statement);
        let state = Confirmed { me, job, held, own_share, survivors, statement };
        Ok((state, Confirmation { signature }))
    }
}

/// The set of survivors is signed; waits to be asked for shares.
pub struct Confirmed {
    me: Me,
    job: [u8; 32],
    held: BTreeMap<u32, Held>,
    own_share: Share,
    survivors: BTreeSet<u32>,
    statement: [u8; 32],
}

impl Confirmed {
    /// Gives the shares asked for: of a survivor's own mask, of a dropped client's pair key.
    ///
    /// # Errors
    /// An [`Abort`] if fewer holders than the threshold signed the set that this client signed,
    /// with the same job, if the request is for anything that this set doesn't allow, or for the
    /// own mask of a survivor that hasn't signed that it shares masks with this client, and the
    /// job.
    ///
    /// [`History::reveal`] is to be called, and the history to be on disk, before the shares leave.
    pub fn reveal(mut self, request: &Request) -> Result<Reveal, Abort> {
        self.check_confirmations(&request.confirmations)?;
        let own_masks = self.me.cohort.set(&request.own_masks)?;
        let pair_keys = self.me.cohort.set(&request.pair_keys)?;
        if let Some(member) = own_masks.intersection(&pair_keys).next() {
            return Err(Abort::BothShares { member: *member });
        }
        if let Some(member) = own_masks.difference(&self.survivors).next() {
            return Err(Abort::WrongShare { member: *member, secret: Secret::OwnMask });
        }
        if let Some(member) = pair_keys.intersection(&self.survivors).next() {
            return Err(Abort::WrongShare { member: *member, secret: Secret::PairKey });
        }
        let included = request.included.iter().copied().collect();
        let mut reveal = Reveal { own_masks: Vec::new(), pair_keys: Vec::new() };
        for member in request.own_masks.iter().copied() {
            if member == self.me.number {
                reveal.own_masks.push(self.own_share.clone());
                continue;
            }
            let held = self.take(member)?;
            if !self.is_included(member, &included) {
                return Err(Abort::NotIncluded { member });
            }
            reveal.own_masks.push(held.own);
        }
        for member in request.pair_keys.iter().copied() {
            reveal.pair_keys.push(self.take(member)?.pair);
        }
        Ok(reveal)
    }

    /// The shares of a neighbor, which leave the state.
    fn take(&mut self, member: u32) -> Result<Held, Abort> {
        if !self.me.cohort.graph.adjacent(self.me.number, member) {
            return Err(Abort::WrongGraph { member });
        }
        self.held.remove(&member).ok_or(Abort::NothingHeld { member })
    }

    /// Whether a member signed that it shares masks with this client, for a vector made by the same
    /// job. What a client doesn't add to the sum together with it, it must not help to take away; and
    /// where the others' vectors are made to be nothing, the sum is one vector.
    fn is_included(&self, member: u32, included: &BTreeMap<u32, [u8; 64]>) -> bool {
        let cohort = &self.me.cohort;
        let statement = cohort.inclusion(&self.job, member, self.me.number);
        let signature = included.get(&member);
        signature.is_some_and(|by| is_confirmed(cohort.member(member), &statement, by))
    }

    /// Checks that enough holders signed the same set.
    fn check_confirmations(&self, confirmations: &[(u32, [u8; 64])]) -> Result<(), Abort> {
        let me = &self.me;
        let signers: Vec<u32> = confirmations.iter().map(|(member, _)| *member).collect();
        let signers = me.neighbors_in(&signers)?;
        // It signed the set itself.
        let (have, need) = (signers.len() + 1, me.cohort.parameters.threshold);
        if have < need {
            return Err(Abort::TooFewSignatures { have, need });
        }
        for (member, signature) in confirmations {
            let member = *member;
            if !self.survivors.contains(&member)
                || !is_confirmed(me.cohort.member(member), &self.statement, signature)
            {
                return Err(Abort::Signature { member });
            }
        }
        Ok(())
    }
}
