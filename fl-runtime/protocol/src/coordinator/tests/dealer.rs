//! A client that deals wrong shares and commits to them, so that no holder can tell. Its envelopes are
//! opened and sealed here apart from `tern-secagg`'s code.

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use tern_secagg::{Advertisement, Envelope, Message, Roster, Shares};
use x25519_dalek::{PublicKey, StaticSecret};

use super::liar::Dealt;
use crate::ClientId;

/// HKDF-SHA-256 with the session as salt.
fn derive(secret: &[u8; 32], session: &[u8; 32], info: &[u8]) -> [u8; 32] {
    let mut key = [0; 32];
    Hkdf::<Sha256>::new(Some(session), secret).expand(info, &mut key).unwrap();
    key
}

/// An envelope with another share of the dealer's own mask in it, where `seed` is what all its keys
/// come of.
fn deal_wrong(dealt: &Dealt<'_>, seed: [u8; 32], holder: &Advertisement, envelope: &mut Envelope) {
    let own = StaticSecret::from(derive(&seed, &dealt.session, b"cipher key\0"));
    let (from, to) = (dealt.from.to_le_bytes(), envelope.member.to_le_bytes());
    let shared = own.diffie_hellman(&PublicKey::from(holder.cipher)).to_bytes();
    let key = derive(&shared, &dealt.session, &[b"shares\0", &from[..], &to].concat());
    let cipher = ChaCha20Poly1305::new(&key.into());
    let aad = [&dealt.session[..], &dealt.digest, &from, &to].concat();
    let sealed = Payload { msg: &envelope.sealed[..], aad: &aad };
    let mut shares = cipher.decrypt(&[0; 12].into(), sealed).unwrap();
    let half = shares.len() / 2;
    shares[half] ^= 1;
    let commitment = Sha256::new()
        .chain_update(b"tern secagg share\0")
        .chain_update(&aad)
        .chain_update([1])
        .chain_update(&shares[half..])
        .finalize();
    let sealed = cipher.encrypt(&[0; 12].into(), Payload { msg: &shares, aad: &aad }).unwrap();
    envelope.sealed = sealed.try_into().unwrap();
    envelope.own.copy_from_slice(&commitment[..16]);
    dealt.sign(envelope);
}

/// The shares of an honest client, of which those for some are wrong.
pub fn wrong_shares(
    dealt: &Dealt<'_>,
    seed: [u8; 32],
    roster: &[u8],
    to: &[ClientId],
    shares: &[u8],
) -> Vec<u8> {
    let (roster, mut shares) = (Roster::decode(roster).unwrap(), Shares::decode(shares).unwrap());
    for envelope in &mut shares.envelopes {
        let holder = &roster.members[envelope.member as usize];
        if to.contains(&ClientId(holder.identity)) {
            deal_wrong(dealt, seed, holder, envelope);
        }
    }
    shares.encode()
}
