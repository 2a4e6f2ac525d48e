//! A client's part in secure aggregation. Its secrets are in memory only: a client that ends in
//! the middle of a session has dropped out of it, and never joins the same one again.

use std::collections::BTreeSet;

use ed25519_dalek::SigningKey;
use tern_secagg::{
    Abort, Complaints, Confirmation, Inbox, Masks, Message, Partners, Reveal, Roster, Seed, Shares,
    Survivors, client,
};
use zeroize::Zeroize;

use super::sums::{self, KnownSum};
use super::{Action, Participant, RequiredSecurity, decline, declined, message};
use crate::wire::{self, instruction::What, message::Body};
use crate::{Aborted, ClientId, Digest, Error, Masking, Result, Turn, masking, weights};

/// What a client needs for secure aggregation.
pub(super) struct Secure {
    pub masking: Masking,
    /// Digest of the task.
    task: Digest,
    /// What it asks of a session that it joins.
    pub required: RequiredSecurity,
    identity: SigningKey,
    pub entropy: Entropy,
    pub(super) session: Option<Session>,
}

/// Where a session's randomness comes from.
pub type Entropy = Box<dyn FnMut() -> Result<Seed> + Send>;

/// The open session.
pub(super) struct Session {
    turn: Turn,
    /// What it is.
    is: tern_secagg::Session,
    state: State,
    /// The last message, to be sent again until the server has it, and what it answered.
    last: (Stage, wire::Message),
    /// The samples that this client signed.
    samples: u32,
    /// Everyone, with the samples that they signed.
    roster: Vec<(ClientId, u32)>,
    /// What the vector is made by: the model, and all of it.
    model: Digest,
    job: [u8; 32],
    /// Whose vectors are in the sum.
    survivors: BTreeSet<ClientId>,
    /// What goes with the masked vector, encoded.
    included: Vec<u8>,
}

impl Drop for Session {
    /// Revealed shares are the server's to know, and nobody else's.
    fn drop(&mut self) {
        if let Some(Body::Reveal(reveal)) = &mut self.last.1.body {
            reveal.reveal.zeroize();
        }
    }
}

/// Instructions of a session, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Advertise,
    Share,
    Check,
    Confirm,
    Unmask,
}

enum State {
    Advertised(client::Advertised),
    Shared(client::Shared),
    Checked(client::Checked),
    Masking(client::Masking),
    Masked(client::Masked),
    Confirmed(client::Confirmed),
    /// Done, or given up.
    Over,
}

impl Session {
    fn members(&self) -> BTreeSet<ClientId> {
        self.roster.iter().map(|(client, _)| *client).collect()
    }

    /// Notes everyone's keys and samples, which the state has found to be signed.
    fn meet(&mut self, roster: &Roster) {
        let member = |keys: &tern_secagg::Advertisement| (ClientId(keys.identity), keys.samples);
        self.roster = roster.members.iter().map(member).collect();
    }

    /// Notes who is in the sum, which the state has found to be members.
    fn survive(&mut self, survivors: &Survivors) -> Vec<u32> {
        let named = survivors.members.iter().filter_map(|at| self.roster.get(*at as usize));
        let (clients, samples): (BTreeSet<ClientId>, Vec<u32>) = named.copied().unzip();
        self.survivors = clients;
        samples
    }

    fn sum(&self) -> KnownSum {
        KnownSum { model: self.model, members: self.survivors.clone() }
    }
}

impl Secure {
    pub fn new(masking: Masking, task: Digest, identity: SigningKey) -> Self {
        let required = RequiredSecurity::default();
        let entropy = Box::new(|| Ok(Seed::from_system()?));
        Secure { masking, task, required, identity, entropy, session: None }
    }

    fn at(&self, turn: Turn) -> Option<&Session> {
        self.session.as_ref().filter(|session| session.turn == turn)
    }

    /// What goes with this attempt's masked vector; empty if the session is another.
    pub fn included(&self, turn: Turn) -> Vec<u8> {
        self.at(turn).map(|session| session.included.clone()).unwrap_or_default()
    }

    /// This client's samples of this attempt, and the most of a member.
    pub fn samples(&self, turn: Turn) -> Option<(u32, u32)> {
        let session = self.at(turn)?;
        let most = weights::most(session.roster.iter().map(|(_, samples)| *samples));
        Some((session.samples, most))
    }

    /// Ends the session of another attempt, and one whose shares the server has, so that nothing of
    /// it stays in memory.
    pub fn forget(&mut self, turn: Turn, what: Option<&What>) {
        let unmasks = matches!(what, Some(What::Unmask(_)));
        let over = |session: &Session| session.last.0 == Stage::Unmask && !unmasks;
        if self.session.as_ref().is_some_and(|session| session.turn != turn || over(session)) {
            self.session = None;
        }
    }

    /// The session of this attempt, with its state taken out.
    fn take(&mut self, turn: Turn) -> Option<(&mut Session, State)> {
        let session = self.session.as_mut().filter(|session| session.turn == turn)?;
        let state = std::mem::replace(&mut session.state, State::Over);
        Some((session, state))
    }
}

impl Participant {
    /// An instruction of secure aggregation, other than to train.
    pub(super) fn protocol(&mut self, turn: Turn, what: What) -> Vec<Action> {
        let stage = match what {
            What::Advertise(_) => Stage::Advertise,
            What::ShareKeys(_) => Stage::Share,
            What::CheckShares(_) => Stage::Check,
            What::ConfirmSet(_) => Stage::Confirm,
            _ => Stage::Unmask,
        };
        let Some(secure) = &mut self.secure else {
            return vec![decline(turn, "a task without secure aggregation")];
        };
        if let Some(session) = secure.session.as_ref().filter(|session| session.turn == turn)
            && session.last.0 == stage
        {
            return vec![Action::Send(session.last.1.clone())];
        }
        let answered = match what {
            What::Advertise(_) => self.advertise(turn),
            What::ShareKeys(wire::ShareKeys { roster }) => self.share(turn, &roster),
            What::CheckShares(wire::CheckShares { inbox }) => self.check_shares(turn, &inbox),
            What::ConfirmSet(wire::ConfirmSet { survivors }) => self.confirm(turn, &survivors),
            What::Unmask(wire::Unmask { request }) => self.reveal(turn, &request),
            _ => return vec![Action::Wait],
        };
        match answered {
            Ok(message) => {
                let Some(session) = self.secure.as_mut().and_then(|s| s.session.as_mut()) else {
                    return vec![Action::Wait];
                };
                session.last = (stage, message.clone());
                match stage {
                    // On disk before anyone hears of it.
                    Stage::Advertise | Stage::Unmask => vec![Action::Save, Action::Send(message)],
                    _ => vec![Action::Send(message)],
                }
            }
            Err(error) => vec![out(turn, &error)],
        }
    }

    fn advertise(&mut self, turn: Turn) -> Result<wire::Message> {
        let most = self.task.updates.max_samples;
        let samples = self.samples;
        if !(1..=most).contains(&samples) {
            return Err(Error::value("samples", samples, format!("1 to {most}")));
        }
        let Some(secure) = &mut self.secure else { return Err(nothing(turn)) };
        secure.required.check(&self.task)?;
        let is = secure.masking.session(&self.task.run, &secure.task, turn);
        let (identity, seed) = (&secure.identity, (secure.entropy)()?);
        let joined = client::join(is.clone(), identity, samples, seed, &mut self.kept.history);
        let (state, keys) = joined.map_err(Aborted::from)?;
        let keys = wire::Keys { advertisement: keys.encode() };
        let message = message(turn, Body::Keys(keys));
        secure.session = Some(Session {
            turn,
            is,
            state: State::Advertised(state),
            last: (Stage::Advertise, message.clone()),
            samples,
            roster: Vec::new(),
            model: Digest([0; 32]),
            job: [0; 32],
            survivors: BTreeSet::new(),
            included: Vec::new(),
        });
        Ok(message)
    }

    /// The roster came: shares for neighbors.
    fn share(&mut self, turn: Turn, roster: &[u8]) -> Result<wire::Message> {
        let Some(required) = self.required() else { return Err(nothing(turn)) };
        let weighted = self.is_weighted();
        self.advance(turn, |session, state| {
            let State::Advertised(state) = state else { return Ok(None) };
            let roster: Roster = decode(roster)?;
            required.check_session(roster.members.len(), &session.is.assumptions)?;
            let (state, shares) = state.roster(&roster)?;
            session.meet(&roster);
            if weighted {
                let samples = roster.members.iter().map(|keys| keys.samples).collect();
                weights::check(samples, session.is.assumptions.corrupt, required.share)?;
            }
            let shares = Shares::encode(&shares);
            Ok(Some((State::Shared(state), Body::Shares(wire::Shares { shares }))))
        })
    }

    /// Envelopes came: complaints about garbage.
    fn check_shares(&mut self, turn: Turn, inbox: &[u8]) -> Result<wire::Message> {
        self.advance(turn, |_, state| {
            let State::Shared(state) = state else { return Ok(None) };
            let inbox: Inbox = decode(inbox)?;
            let (state, complaints) = state.inbox(&inbox)?;
            let about: Vec<u32> = complaints.complaints.iter().map(|c| c.member).collect();
            if !about.is_empty() {
                tracing::warn!(%turn, ?about, "envelopes of these members are garbage");
            }
            let complaints = Complaints::encode(&complaints);
            Ok(Some((State::Checked(state), Body::Checked(wire::Checked { complaints }))))
        })
    }

    /// The set of survivors came: its signature.
    fn confirm(&mut self, turn: Turn, survivors: &[u8]) -> Result<wire::Message> {
        let Some(RequiredSecurity { share, difference, .. }) = self.required() else {
            return Err(nothing(turn));
        };
        let weighted = self.is_weighted();
        let known = self.kept.sums.clone();
        self.advance(turn, |session, state| {
            let State::Masked(state) = state else { return Ok(None) };
            let survivors: Survivors = decode(survivors)?;
            let (state, signed) = state.survivors(&survivors)?;
            let corrupt = session.is.assumptions.corrupt;
            let samples = session.survive(&survivors);
            let told = session.is.assumptions.corrupt_of(samples.len());
            if weighted {
                weights::check(samples, corrupt, share)?;
            }
            let least = if difference == 0 { 0 } else { difference as usize + told };
            sums::check(&known, &session.sum(), least)?;
            let confirmation = wire::Confirmation { confirmation: Confirmation::encode(&signed) };
            Ok(Some((State::Confirmed(state), Body::Confirmation(confirmation))))
        })
    }

    /// Shares are asked for. That they were given, and for which sum, is kept.
    fn reveal(&mut self, turn: Turn, request: &[u8]) -> Result<wire::Message> {
        let mut known = None;
        let message = self.advance(turn, |session, state| {
            let State::Confirmed(state) = state else { return Ok(None) };
            let reveal = Reveal::encode(&state.reveal(&decode(request)?)?);
            known = Some((session.is.clone(), session.sum()));
            Ok(Some((State::Over, Body::Reveal(wire::Reveal { reveal }))))
        })?;
        if let Some((session, sum)) = known {
            self.kept.history.reveal(&session);
            sums::remember(&mut self.kept.sums, sum);
        }
        Ok(message)
    }

    fn required(&self) -> Option<RequiredSecurity> {
        self.secure.as_ref().map(|secure| secure.required)
    }

    /// Whether updates count by samples.
    fn is_weighted(&self) -> bool {
        let code = self.secure.as_ref().map(|secure| secure.masking.code);
        matches!(code, Some(masking::Code::Fixed(_)))
    }

    fn advance(
        &mut self,
        turn: Turn,
        step: impl FnOnce(&mut Session, State) -> Result<Option<(State, Body)>, Aborted>,
    ) -> Result<wire::Message> {
        let taken = self.secure.as_mut().and_then(|secure| secure.take(turn));
        let Some((session, state)) = taken else { return Err(nothing(turn)) };
        match step(session, state) {
            Ok(Some((state, body))) => {
                session.state = state;
                Ok(message(turn, body))
            }
            Ok(None) => Err(nothing(turn)),
            Err(reason) => Err(reason.into()),
        }
    }

    /// The neighbors that are left are named: masks are known, for a change of `model` made by
    /// `job`.
    pub(super) fn partners(
        &mut self,
        turn: Turn,
        partners: &[u8],
        model: Digest,
        job: [u8; 32],
    ) -> Result<()> {
        let known = &self.kept.sums;
        let taken = self.secure.as_mut().and_then(|secure| secure.take(turn));
        let Some((session, state)) = taken else { return Err(nothing(turn)) };
        session.state = match state {
            State::Checked(state) => {
                sums::check_roster(known, &model, &session.members())?;
                let partners: Partners = decode(partners)?;
                let (state, included) = state.partners(&partners, job).map_err(Aborted::from)?;
                (session.model, session.job) = (model, job);
                session.included = included.encode();
                State::Masking(state)
            }
            // Known already: the model was not here yet.
            State::Masking(state) if session.job == job => State::Masking(state),
            State::Masking(_) => return Err(Aborted::Changed.into()),
            _ => return Err(nothing(turn)),
        };
        Ok(())
    }

    /// The masks of this attempt, once.
    pub(super) fn masks(&mut self, turn: Turn) -> Result<Masks> {
        let taken = self.secure.as_mut().and_then(|secure| secure.take(turn));
        let Some((session, State::Masking(state))) = taken else { return Err(nothing(turn)) };
        let (masks, state) = state.into_masks();
        session.state = State::Masked(state);
        Ok(masks)
    }
}

fn decode<M: Message>(bytes: &[u8]) -> Result<M, Aborted> {
    Ok(M::decode(bytes)?)
}

fn nothing(turn: Turn) -> Error {
    Aborted::Elsewhere(turn).into()
}

/// The round goes on without this client. Where that is because of what it took part in before, it
/// says what that was: this server told it, but may have been repaired since.
pub(super) fn out(turn: Turn, error: &Error) -> Action {
    tracing::warn!(%turn, %error, "out of the session");
    let mut message = declined(turn, &error.to_string());
    if let (Some(Body::Declined(declined)), Error::Aborted(reason)) = (&mut message.body, error) {
        match reason {
            Aborted::OneSum { summed, .. } | Aborted::TooClose { summed, .. } => {
                declined.summed = summed.iter().map(|client| client.0.to_vec()).collect();
            }
            Aborted::Session(Abort::Replay { last: (round, attempt), .. }) => {
                declined.joined = joined(*round, *attempt);
            }
            Aborted::Session(Abort::Revealed { round }) => {
                declined.joined = joined(*round, u32::MAX);
            }
            _ => {}
        }
    }
    Action::Send(message)
}

fn joined(round: u64, attempt: u32) -> Option<wire::Turn> {
    Some(wire::Turn { round: u32::try_from(round).ok()?, attempt })
}
