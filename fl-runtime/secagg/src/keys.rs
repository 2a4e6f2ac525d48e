//! Keys of a session and what is derived from them. The session's id is the salt of every
//! derivation; what a key is for, and for whom, is in its info.

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tern_shaders::kernels::chacha::Mask;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::error::Secret;
use super::messages::{Advertisement, Commitment, Complaint, Envelope};
use super::proof;
use super::random::{Random, Seed};
use super::session::Cohort;
use super::shamir::Share;

type Key = Zeroizing<[u8; 32]>;

/// HKDF-SHA-256 (RFC 5869) of a secret for one purpose in one session.
fn derive(secret: &[u8; 32], session: &[u8; 32], purpose: &str, members: &[u32]) -> Key {
    let mut key = Zeroizing::new([0; 32]);
    let mut info = purpose.as_bytes().to_vec();
    info.push(0);
    info.extend(members.iter().flat_map(|member| member.to_le_bytes()));
    let expanded = Hkdf::<Sha256>::new(Some(&session[..]), secret).expand(&info, &mut *key);
    expanded.expect("a derivation gives up to 8160 bytes");
    key
}

/// What two members share, with whom exactly being a part of the purpose.
fn agree(secret: &StaticSecret, public: &[u8; 32]) -> Option<Key> {
    let shared = secret.diffie_hellman(&PublicKey::from(*public));
    shared.was_contributory().then(|| Zeroizing::new(shared.to_bytes()))
}

/// Whether something secret comes of a public key.
pub(super) fn usable(public: &[u8; 32]) -> bool {
    agree(&StaticSecret::from([1; 32]), public).is_some()
}

/// Whether agreements with a key for envelopes can be shown to others, too.
pub(super) fn provable(public: &[u8; 32]) -> bool {
    proof::point(public).is_some()
}

/// What a client keeps to itself.
pub(super) struct Secrets {
    /// Encrypts shares.
    cipher: StaticSecret,
    /// Makes pair masks.
    pub(super) pair: PairKey,
    /// Makes its own mask.
    pub(super) own: OwnSeed,
    /// Draws polynomials.
    pub(super) polynomials: Random,
}

impl Secrets {
    pub(super) fn new(seed: Seed, session: &[u8; 32]) -> Self {
        let of = |purpose| derive(&seed.0, session, purpose, &[]);
        Secrets {
            cipher: StaticSecret::from(*of("cipher key")),
            pair: PairKey(StaticSecret::from(*of("pair key"))),
            own: OwnSeed(of("own mask")),
            polynomials: Random::new(&of("polynomials")),
        }
    }

    /// The public parts, signed.
    pub(super) fn advertise(
        &self,
        session: &[u8; 32],
        identity: &SigningKey,
        samples: u32,
    ) -> Advertisement {
        let mut keys = Advertisement {
            identity: identity.verifying_key().to_bytes(),
            cipher: PublicKey::from(&self.cipher).to_bytes(),
            pair: self.pair.public(),
            commitment: *self.own.commitment(session),
            samples,
            signature: [0; 64],
        };
        keys.signature = identity.sign(&advertised(session, &keys)).to_bytes();
        keys
    }

    /// Seals shares of both secrets from member `from`, whose secrets these are, to `to`.
    pub(super) fn seal(
        &self,
        cohort: &Cohort,
        (from, to): (u32, u32),
        shares: &Held,
        identity: &SigningKey,
    ) -> Option<Envelope> {
        let shared = agree(&self.cipher, &cohort.member(to).cipher)?;
        let plain: Zeroizing<Vec<u8>> =
            Zeroizing::new([*shares.pair.to_bytes(), *shares.own.to_bytes()].concat());
        let bound = bound_to(cohort, (from, to));
        let payload = Payload { msg: &plain, aad: &bound };
        let cipher = envelope_cipher(&shared, cohort, (from, to));
        let sealed = cipher.encrypt(&NONCE.into(), payload).ok()?.try_into().ok()?;
        let commit = |secret, share| commitment(cohort, (from, to), secret, share);
        let pair = commit(Secret::PairKey, &shares.pair);
        let own = commit(Secret::OwnMask, &shares.own);
        let mut envelope = Envelope { member: to, sealed, pair, own, signature: [0; 64] };
        envelope.signature = confirm(identity, &cohort.envelope((from, to), &envelope));
        Some(envelope)
    }

    /// Opens what member `from` sealed for `to`, whose secrets these are: a complaint if the
    /// shares that it commits to aren't in it. `None` if its key is one of which nothing secret
    /// comes, or nothing can be shown.
    pub(super) fn open(
        &self,
        cohort: &Cohort,
        (from, to): (u32, u32),
        envelope: &Envelope,
    ) -> Option<Result<Held, Complaint>> {
        let other = &cohort.member(from).cipher;
        if let Some(held) = open(&*agree(&self.cipher, other)?, cohort, (from, to), envelope) {
            return Some(Ok(held));
        }
        let context = bound_to(cohort, (from, to));
        let (shared, proof) = proof::reveal(&self.cipher, other, &context)?;
        Some(Err(Complaint { member: from, shared, proof }))
    }
}

/// Whether a complaint of member `to` is right: it shows what opens the envelope that member
/// `from` signed, and the shares that it commits to aren't in it.
pub(super) fn is_garbage(
    cohort: &Cohort,
    (from, to): (u32, u32),
    envelope: &Envelope,
    complaint: &Complaint,
) -> bool {
    let (own, other) = (&cohort.member(to).cipher, &cohort.member(from).cipher);
    let Complaint { shared, proof, .. } = complaint;
    let shared = proof::verify(own, other, shared, proof, &bound_to(cohort, (from, to)));
    shared.is_some_and(|shared| open(&shared, cohort, (from, to), envelope).is_none())
}

/// What is in an envelope, if it is what it commits to.
fn open(
    shared: &[u8; 32],
    cohort: &Cohort,
    (from, to): (u32, u32),
    envelope: &Envelope,
) -> Option<Held> {
    let bound = bound_to(cohort, (from, to));
    let payload = Payload { msg: &envelope.sealed, aad: &bound };
    let cipher = envelope_cipher(shared, cohort, (from, to));
    let plain = Zeroizing::new(cipher.decrypt(&NONCE.into(), payload).ok()?);
    let (pair, own) = plain.split_at_checked(Share::BYTES)?;
    let share = |bytes: &[u8]| Share::from_bytes(bytes.try_into().ok()?);
    let held = Held { pair: share(pair)?, own: share(own)? };
    let commit = |secret, share| commitment(cohort, (from, to), secret, share);
    let kept = commit(Secret::PairKey, &held.pair) == envelope.pair
        && commit(Secret::OwnMask, &held.own) == envelope.own;
    kept.then_some(held)
}

/// One key a direction.
fn envelope_cipher(shared: &[u8; 32], cohort: &Cohort, (from, to): (u32, u32)) -> ChaCha20Poly1305 {
    let key = derive(shared, &cohort.session, "shares", &[from, to]);
    ChaCha20Poly1305::new(&(*key).into())
}

/// What member `from` commits to of the share that it deals to `to`.
pub(super) fn commitment(
    cohort: &Cohort,
    (from, to): (u32, u32),
    secret: Secret,
    share: &Share,
) -> Commitment {
    let mut hash = Sha256::new().chain_update(b"tern secagg share\0");
    hash.update(bound_to(cohort, (from, to)));
    hash.update([u8::from(secret == Secret::OwnMask)]);
    hash.update(share.to_bytes().as_slice());
    let digest: [u8; 32] = hash.finalize().into();
    let mut half = [0; 16];
    half.copy_from_slice(&digest[..16]);
    half
}

/// A key of an envelope encrypts one message.
const NONCE: [u8; 12] = [0; 12];

/// What a holder gets: a share of each secret of one client.
pub(super) struct Held {
    pub(super) pair: Share,
    pub(super) own: Share,
}

/// What an envelope is bound to besides its key.
fn bound_to(cohort: &Cohort, (from, to): (u32, u32)) -> Vec<u8> {
    [&cohort.session[..], &cohort.digest, &from.to_le_bytes(), &to.to_le_bytes()].concat()
}

/// The secret key of a client's pair masks.
pub(super) struct PairKey(StaticSecret);

impl PairKey {
    pub(super) fn from_secret(secret: &[u8; 32]) -> Self {
        PairKey(StaticSecret::from(*secret))
    }

    pub(super) fn secret(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    pub(super) fn public(&self) -> [u8; 32] {
        PublicKey::from(&self.0).to_bytes()
    }

    /// The mask that `of`, whose key this is, adds for its neighbor `with`. The lower member
    /// adds what the higher one subtracts.
    pub(super) fn mask(&self, cohort: &Cohort, of: u32, with: u32) -> Option<Mask> {
        let shared = agree(&self.0, &cohort.member(with).pair)?;
        let pair = [of.min(with), of.max(with)];
        let mask = Mask::new(&derive(&shared, &cohort.session, "pair mask", &pair), &NONCE);
        Some(if of < with { mask } else { mask.negated() })
    }
}

/// The seed of a client's own mask.
pub(super) struct OwnSeed(Key);

impl OwnSeed {
    pub(super) fn from_secret(secret: Key) -> Self {
        OwnSeed(secret)
    }

    pub(super) fn secret(&self) -> &[u8; 32] {
        &self.0
    }

    /// Tells the server whether it got the right seed, and nothing before.
    fn commitment(&self, session: &[u8; 32]) -> Key {
        derive(&self.0, session, "own mask commitment", &[])
    }

    pub(super) fn is_committed(&self, session: &[u8; 32], commitment: &[u8; 32]) -> bool {
        self.commitment(session).ct_eq(commitment).into()
    }

    pub(super) fn mask(&self, session: &[u8; 32]) -> Mask {
        Mask::new(&derive(&self.0, session, "own mask", &[]), &NONCE)
    }
}

/// What a client signs of its keys.
fn advertised(session: &[u8; 32], keys: &Advertisement) -> Vec<u8> {
    [&b"tern secagg keys\0"[..], session, &keys.signed_part()].concat()
}

/// Whether keys are signed by the identity they name, for this session.
pub(super) fn is_advertised(session: &[u8; 32], keys: &Advertisement) -> bool {
    verify(&keys.identity, &advertised(session, keys), &keys.signature)
}

fn verify(identity: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    let signature = Signature::from_bytes(signature);
    VerifyingKey::from_bytes(identity)
        .is_ok_and(|identity| identity.verify_strict(message, &signature).is_ok())
}

/// Signs a statement of a cohort: about an envelope, its survivors, or who is included.
pub(super) fn confirm(identity: &SigningKey, statement: &[u8; 32]) -> [u8; 64] {
    identity.sign(statement).to_bytes()
}

/// Whether a member signed a statement.
pub(super) fn is_confirmed(member: &Advertisement, statement: &[u8; 32], by: &[u8; 64]) -> bool {
    verify(&member.identity, statement, by)
}
