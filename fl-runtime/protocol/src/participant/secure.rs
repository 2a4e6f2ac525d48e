//! A client's part in secure aggregation. Its secrets are in memory only: a client that ends in
//! the middle of a session has dropped out of it, and never joins the same one again.

use ed25519_dalek::SigningKey;
use tern_secagg::{
    Complaints, Confirmation, Inbox, Masks, Message, Partners, Reveal, Roster, Seed, Shares, client,
};

use super::{Action, Participant, RequiredSecurity, decline, message};
use crate::wire::{self, instruction::What, message::Body};
use crate::{Aborted, Digest, Error, Masking, Result, Turn};

/// What a client needs for secure aggregation.
pub(super) struct Secure {
    pub masking: Masking,
    /// Digest of the task.
    task: Digest,
    /// What it asks of a session that it joins.
    pub required: RequiredSecurity,
    identity: SigningKey,
    pub entropy: Entropy,
    session: Option<Session>,
}

/// Where a session's randomness comes from.
pub type Entropy = Box<dyn FnMut() -> Result<[u8; 32]> + Send>;

/// The open session.
struct Session {
    turn: Turn,
    state: State,
    /// The last message, to be sent again until the server has it, and what it answered.
    last: (Stage, wire::Message),
    /// What the vector is made by.
    job: [u8; 32],
    /// What goes with the masked vector, encoded.
    included: Vec<u8>,
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

impl Secure {
    pub fn new(masking: Masking, task: Digest, identity: SigningKey, entropy: Entropy) -> Self {
        let required = RequiredSecurity::default();
        Secure { masking, task, required, identity, entropy, session: None }
    }

    /// What goes with this attempt's masked vector; empty if the session is another.
    pub fn included(&self, turn: Turn) -> Vec<u8> {
        let session = self.session.as_ref().filter(|session| session.turn == turn);
        session.map(|session| session.included.clone()).unwrap_or_default()
    }

    /// The session of this attempt, with its state taken out.
    fn take(&mut self, turn: Turn) -> Option<(&mut Session, State)> {
        let session = self.session.as_mut().filter(|session| session.turn == turn)?;
        let state = std::mem::replace(&mut session.state, State::Over);
        Some((session, state))
    }
}

/// The system's randomness.
pub(super) fn system() -> Entropy {
    Box::new(|| {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)?;
        Ok(seed)
    })
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
        let (required, assumed) = (secure.required, *secure.masking.assumptions());
        let answered = match what {
            What::Advertise(_) => self.advertise(turn),
            What::ShareKeys(wire::ShareKeys { roster }) => self.advance(turn, |state| {
                let State::Advertised(state) = state else { return Ok(None) };
                let roster: Roster = decode(&roster)?;
                required.check_session(roster.members.len(), &assumed)?;
                let (state, shares) = state.roster(&roster)?;
                let shares = Shares::encode(&shares);
                Ok(Some((State::Shared(state), Body::Shares(wire::Shares { shares }))))
            }),
            What::CheckShares(wire::CheckShares { inbox }) => self.advance(turn, |state| {
                let State::Shared(state) = state else { return Ok(None) };
                let inbox: Inbox = decode(&inbox)?;
                let (state, complaints) = state.inbox(&inbox)?;
                let about: Vec<u32> = complaints.complaints.iter().map(|c| c.member).collect();
                if !about.is_empty() {
                    tracing::warn!(%turn, ?about, "envelopes of these members are garbage");
                }
                let complaints = Complaints::encode(&complaints);
                Ok(Some((State::Checked(state), Body::Checked(wire::Checked { complaints }))))
            }),
            What::ConfirmSet(wire::ConfirmSet { survivors }) => self.advance(turn, |state| {
                let State::Masked(state) = state else { return Ok(None) };
                let (state, signed) = state.survivors(&decode(&survivors)?)?;
                let confirmation =
                    wire::Confirmation { confirmation: Confirmation::encode(&signed) };
                Ok(Some((State::Confirmed(state), Body::Confirmation(confirmation))))
            }),
            What::Unmask(wire::Unmask { request }) => self.advance(turn, |state| {
                let State::Confirmed(state) = state else { return Ok(None) };
                let reveal = Reveal::encode(&state.reveal(&decode(&request)?)?);
                Ok(Some((State::Over, Body::Reveal(wire::Reveal { reveal }))))
            }),
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
                    Stage::Advertise => vec![Action::Save, Action::Send(message)],
                    _ => vec![Action::Send(message)],
                }
            }
            Err(error) => vec![abort(turn, &error)],
        }
    }

    fn advertise(&mut self, turn: Turn) -> Result<wire::Message> {
        let Some(secure) = &mut self.secure else { return Err(nothing(turn)) };
        secure.required.check(&self.task)?;
        let session = secure.masking.session(&self.task.run, &secure.task, turn);
        let seed = Seed::from_bytes((secure.entropy)()?);
        let joined = client::join(session, &secure.identity, seed, &mut self.kept.history);
        let (state, keys) = joined.map_err(Aborted::from)?;
        let keys = wire::Keys { advertisement: keys.encode() };
        let message = message(turn, Body::Keys(keys));
        let last = (Stage::Advertise, message.clone());
        let (state, job, included) = (State::Advertised(state), [0; 32], Vec::new());
        secure.session = Some(Session { turn, state, last, job, included });
        Ok(message)
    }

    fn advance(
        &mut self,
        turn: Turn,
        step: impl FnOnce(State) -> Result<Option<(State, Body)>, Aborted>,
    ) -> Result<wire::Message> {
        let taken = self.secure.as_mut().and_then(|secure| secure.take(turn));
        let Some((session, state)) = taken else { return Err(nothing(turn)) };
        match step(state) {
            Ok(Some((state, body))) => {
                session.state = state;
                Ok(message(turn, body))
            }
            Ok(None) => Err(nothing(turn)),
            Err(reason) => Err(reason.into()),
        }
    }

    /// The neighbors that are left are named: masks are known, for a vector made by `job`.
    pub(super) fn partners(&mut self, turn: Turn, partners: &[u8], job: [u8; 32]) -> Result<()> {
        let taken = self.secure.as_mut().and_then(|secure| secure.take(turn));
        let Some((session, state)) = taken else { return Err(nothing(turn)) };
        session.state = match state {
            State::Checked(state) => {
                let partners: Partners = decode(partners)?;
                let (state, included) = state.partners(&partners, job).map_err(Aborted::from)?;
                session.job = job;
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

/// The round goes on without this client.
pub(super) fn abort(turn: Turn, error: &Error) -> Action {
    tracing::warn!(%turn, %error, "out of the session");
    decline(turn, &error.to_string())
}
