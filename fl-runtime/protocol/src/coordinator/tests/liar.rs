//! What a client sends that breaks the protocol of secure aggregation, made of what an honest one
//! would send. Statements are put together here from the messages' bytes alone.

#![allow(clippy::unwrap_used, reason = "tests share it")]

use ed25519_dalek::{Signer, SigningKey};
use sha2::{Digest, Sha256};
use tern_secagg::{
    Complaint, Complaints, Envelope, Inbox, Message, Reveal, Roster, Session, Shares,
};

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Sends envelopes that don't open, signed as they should be.
    Garbage,
    /// Complains about the first envelope that it got.
    Accuses,
    /// Reveals shares that it wasn't dealt.
    Reveals,
}

/// What a client deals to others, and what its signatures of it are about.
pub struct Dealt<'a> {
    pub session: [u8; 32],
    /// Of the roster.
    pub digest: [u8; 32],
    /// The dealer's number in it.
    pub from: u32,
    pub key: &'a SigningKey,
}

impl<'a> Dealt<'a> {
    pub fn new(session: &Session, roster: &[u8], key: &'a SigningKey) -> Self {
        let (session, roster) = (session.id(), Roster::decode(roster).unwrap());
        let mut digest = Sha256::new().chain_update(b"tern secagg roster\0").chain_update(session);
        for keys in &roster.members {
            let signed = keys.encode();
            digest.update(&signed[..signed.len() - 64]);
        }
        let own = key.verifying_key().to_bytes();
        let from = roster.members.iter().position(|keys| keys.identity == own).unwrap() as u32;
        Dealt { session, digest: digest.finalize().into(), from, key }
    }

    /// Signs an envelope anew.
    pub fn sign(&self, envelope: &mut Envelope) {
        let statement = Sha256::new()
            .chain_update(b"tern secagg envelope\0")
            .chain_update(self.session)
            .chain_update(self.digest)
            .chain_update(self.from.to_le_bytes())
            .chain_update(envelope.member.to_le_bytes())
            .chain_update(envelope.sealed)
            .chain_update(envelope.pair)
            .chain_update(envelope.own);
        envelope.signature = self.key.sign(&statement.finalize()).to_bytes();
    }
}

/// The shares of an honest client with other ciphertexts, signed again.
pub fn garbage(session: &Session, roster: &[u8], key: &SigningKey, shares: &[u8]) -> Vec<u8> {
    let dealt = Dealt::new(session, roster, key);
    let mut shares = Shares::decode(shares).unwrap();
    for envelope in &mut shares.envelopes {
        envelope.sealed[17] ^= 4;
        dealt.sign(envelope);
    }
    shares.encode()
}

/// A complaint about the first envelope of an inbox that shows nothing.
pub fn accusation(inbox: &[u8]) -> Vec<u8> {
    let inbox = Inbox::decode(inbox).unwrap();
    let about = |member| Complaint { member, shared: [0; 32], proof: [0; 64] };
    let first = inbox.envelopes.first().map(|envelope| about(envelope.member));
    Complaints { complaints: first.into_iter().collect() }.encode()
}

/// The shares that were asked for, in another order.
pub fn other_shares(reveal: &[u8]) -> Vec<u8> {
    let mut reveal = Reveal::decode(reveal).unwrap();
    reveal.own_masks.rotate_left(1);
    reveal.encode()
}
