//! What holds the journal together: each write is a link of a chain of SHA-256 digests, so that
//! one that is changed, lost or out of its place is found when the chain is followed.

use tern_protocol::coordinator::Standing;
use tern_protocol::{ClientId, Digest};

use super::rounds::RoundRow;

/// What comes before the first link.
pub(super) const NONE: Digest = Digest([0; 32]);

/// SHA-256 over the digest before, the kind of the write and its parts, each with its length.
pub(super) fn link(before: &Digest, kind: &str, parts: &[&[u8]]) -> Digest {
    let mut bytes = before.0.to_vec();
    for part in std::iter::once(&kind.as_bytes()).chain(parts) {
        bytes.extend((part.len() as u64).to_le_bytes());
        bytes.extend(*part);
    }
    Digest::of(&bytes)
}

/// Of a value by name.
pub(super) fn meta(name: &str, value: &[u8]) -> Digest {
    link(&NONE, "meta", &[name.as_bytes(), value])
}

/// Where the chain is after a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// Writes so far.
    pub sequence: u64,
    /// The chain's digest after the last of them, and before it.
    pub chain: Digest,
    pub before: Digest,
    /// Of the chains of clients and of committed rounds.
    pub clients: Digest,
    pub rounds: Digest,
    /// The last committed round, and the model it left.
    pub round: u32,
    pub model: Digest,
    /// By the state between attempts.
    pub standing: Standing,
}

impl Position {
    /// Before the first write of a run that starts from this model.
    pub fn first(model: Digest) -> Self {
        let [chain, before, clients, rounds] = [NONE; 4];
        let standing = Standing::default();
        Position { sequence: 0, chain, before, clients, rounds, round: 0, model, standing }
    }

    fn next(self, kind: &str, parts: &[&[u8]]) -> Self {
        let sequence = self.sequence + 1;
        let number = sequence.to_le_bytes();
        let chain = link(&self.chain, kind, &[&[&number[..]], parts].concat());
        Position { sequence, chain, before: self.chain, ..self }
    }

    /// After an event.
    pub fn event(self, body: &[u8]) -> Self {
        self.next("event", &[body])
    }

    /// After a client was registered.
    pub fn client(mut self, registration: &Registration) -> Self {
        self.clients = registration.link(&self.clients);
        self.registered()
    }

    /// Likewise, with the chain of clients that has it.
    pub fn registered(self) -> Self {
        let clients = self.clients.0;
        self.next("client", &[&clients])
    }

    /// After the state between attempts was stored, which all that follows builds upon.
    pub fn base(self, run: &[u8], initial: &[u8], snapshot: &[u8]) -> Self {
        let (clients, rounds) = (self.clients.0, self.rounds.0);
        let next = self.next("base", &[run, initial, snapshot, &clients, &rounds]);
        Position { standing: Standing::of(snapshot), ..next }
    }

    /// With one more committed round, which is stored with the state after it.
    pub fn round(mut self, row: &RoundRow, model: Digest) -> Self {
        self.rounds = row.link(&self.rounds);
        Position { round: row.round, model, ..self }
    }
}

/// A row of the table of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Registration {
    pub client: ClientId,
    /// When, in milliseconds.
    pub enrolled: i64,
    /// SHA-256 of the token that it came with.
    pub token: Option<Digest>,
}

impl Registration {
    /// The chain of clients after this one.
    pub(super) fn link(&self, before: &Digest) -> Digest {
        let token = self.token.as_ref().map_or(&[][..], |token| &token.0);
        link(before, "client", &[&self.client.0, &self.enrolled.to_le_bytes(), token])
    }
}

/// The state between attempts, as it is stored with its place in the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Base {
    pub sequence: u64,
    pub before: Digest,
    pub chain: Digest,
}

impl Base {
    pub fn of(position: &Position) -> Self {
        let Position { sequence, before, chain, .. } = *position;
        Base { sequence, before, chain }
    }

    pub fn to_bytes(self) -> Vec<u8> {
        [&self.sequence.to_le_bytes()[..], &self.before.0, &self.chain.0].concat()
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (sequence, digests) = bytes.split_first_chunk::<8>()?;
        let (before, chain) = digests.split_at_checked(32)?;
        Some(Base {
            sequence: u64::from_le_bytes(*sequence),
            before: Digest::from_slice(before)?,
            chain: Digest::from_slice(chain)?,
        })
    }
}
