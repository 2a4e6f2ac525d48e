//! What two members share, shown to a third: the point of their X25519 agreement, and a proof
//! that its discrete logarithm is that of a public key (Chaum and Pedersen, "Wallet Databases with
//! Observers", CRYPTO 1992), made non-interactive by a hash of all that it is about.
//!
//! X25519 works on first coordinates of points; the proof needs points. Of the two that an
//! X25519 key stands for it takes the one of sign 0. Keys are asked to lie on the curve itself, in
//! the group of prime order, where clamped secrets are scalars like any other.

use curve25519_dalek::edwards::CompressedEdwardsY;
use curve25519_dalek::scalar::clamp_integer;
use curve25519_dalek::{EdwardsPoint, MontgomeryPoint, Scalar};
use sha2::{Digest, Sha512};
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

/// The point of an X25519 key; `None` if it has another encoding, too, lies on the curve's twist,
/// or outside of the group of prime order. Keys made as RFC 7748 says are in that group.
pub(super) fn point(public: &[u8; 32]) -> Option<EdwardsPoint> {
    let point = MontgomeryPoint(*public).to_edwards(0)?;
    (point.to_montgomery().0 == *public && point.is_torsion_free()).then_some(point)
}

fn hash(parts: &[&[u8]]) -> Scalar {
    let mut hash = Sha512::new();
    parts.iter().for_each(|part| hash.update(part));
    let digest = Zeroizing::new(<[u8; 64]>::from(hash.finalize()));
    Scalar::from_bytes_mod_order_wide(&digest)
}

/// What is shown, about which everything else is known.
struct Statement {
    own: EdwardsPoint,
    other: EdwardsPoint,
    shared: EdwardsPoint,
    bytes: Vec<u8>,
}

impl Statement {
    fn new(own: EdwardsPoint, other: EdwardsPoint, shared: EdwardsPoint, context: &[u8]) -> Self {
        let points = [own, other, shared].map(|point| point.compress().0);
        let bytes = [&b"tern secagg revealed\0"[..], context, &points.concat()].concat();
        Statement { own, other, shared, bytes }
    }

    fn challenge(&self, first: &EdwardsPoint, second: &EdwardsPoint) -> Scalar {
        hash(&[&self.bytes, first.compress().as_bytes(), second.compress().as_bytes()])
    }
}

/// What the owner of `secret` shares with the owner of the key `other`, and the proof: challenge
/// and response. `None` if the other key isn't one of [`point`]'s.
pub(super) fn reveal(
    secret: &StaticSecret,
    other: &[u8; 32],
    context: &[u8],
) -> Option<([u8; 32], [u8; 64])> {
    let other = point(other)?;
    let clamped = Zeroizing::new(clamp_integer(secret.to_bytes()));
    let mut secret = Zeroizing::new(Scalar::from_bytes_mod_order(*clamped));
    // Both signs have the same public key: the one whose point has sign 0.
    if EdwardsPoint::mul_base(&secret).compress().as_bytes()[31] >> 7 == 1 {
        *secret = -*secret;
    }
    let shared = other * *secret;
    let statement = Statement::new(EdwardsPoint::mul_base(&secret), other, shared, context);
    // Like a signature's of Ed25519: one secret and statement, one nonce.
    let nonce =
        Zeroizing::new(hash(&[b"tern secagg nonce\0", secret.as_bytes(), &statement.bytes]));
    let challenge = statement.challenge(&EdwardsPoint::mul_base(&nonce), &(other * *nonce));
    let response = *nonce + challenge * *secret;
    let mut proof = [0; 64];
    proof[..32].copy_from_slice(challenge.as_bytes());
    proof[32..].copy_from_slice(response.as_bytes());
    Some((shared.compress().0, proof))
}

/// The X25519 agreement of the keys `own` and `other`, if `proof` shows that the owner of `own`
/// revealed it as `shared`.
pub(super) fn verify(
    own: &[u8; 32],
    other: &[u8; 32],
    shared: &[u8; 32],
    proof: &[u8; 64],
    context: &[u8],
) -> Option<[u8; 32]> {
    let shared = CompressedEdwardsY(*shared).decompress()?;
    if !shared.is_torsion_free() {
        return None;
    }
    let (challenge, response) = proof.split_first_chunk::<32>()?;
    let challenge = Option::<Scalar>::from(Scalar::from_canonical_bytes(*challenge))?;
    let response = Scalar::from_canonical_bytes(response.try_into().ok()?);
    let response = Option::<Scalar>::from(response)?;
    let statement = Statement::new(point(own)?, point(other)?, shared, context);
    let first =
        EdwardsPoint::vartime_double_scalar_mul_basepoint(&-challenge, &statement.own, &response);
    let second = statement.other * response - statement.shared * challenge;
    let holds = statement.challenge(&first, &second) == challenge;
    holds.then(|| statement.shared.to_montgomery().0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use curve25519_dalek::constants::EIGHT_TORSION;
    use proptest::prelude::*;
    use x25519_dalek::PublicKey;

    fn key(seed: u8) -> (StaticSecret, [u8; 32]) {
        let secret = StaticSecret::from([seed; 32]);
        let public = PublicKey::from(&secret).to_bytes();
        (secret, public)
    }

    #[test]
    fn keys_outside_of_the_group_have_no_point() {
        let (_, public) = key(5);
        let inside = point(&public).unwrap();
        for torsion in &EIGHT_TORSION[1..] {
            let outside = (inside + torsion).to_montgomery().0;
            assert!(point(&outside).is_none());
            assert!(point(&torsion.to_montgomery().0).is_none());
        }
        // The same number in other bytes: the top bit isn't part of it.
        let mut padded = public;
        padded[31] |= 0x80;
        assert!(point(&padded).is_none());
        // −1, a first coordinate of the twist.
        let mut twisted = [0xff; 32];
        (twisted[0], twisted[31]) = (0xec, 0x7f);
        assert!(point(&twisted).is_none());
    }

    #[test]
    fn a_shared_point_beside_the_group_is_no_proof() {
        let ((secret, own), (_, other)) = (key(1), key(2));
        let (shared, proof) = reveal(&secret, &other, b"here").unwrap();
        let moved = CompressedEdwardsY(shared).decompress().unwrap() + EIGHT_TORSION[1];
        assert_eq!(verify(&own, &other, &moved.compress().0, &proof, b"here"), None);
    }

    proptest! {
        #[test]
        fn what_is_shown_is_the_agreement_and_nothing_else_is(
            a: [u8; 32],
            b: [u8; 32],
            bit in 0usize..768,
        ) {
            let [(own_secret, own), (_, other)] = [a, b].map(|bytes| {
                let secret = StaticSecret::from(bytes);
                let public = PublicKey::from(&secret).to_bytes();
                (secret, public)
            });
            let (mut shared, mut proof) = reveal(&own_secret, &other, b"here").unwrap();
            let expected = own_secret.diffie_hellman(&PublicKey::from(other)).to_bytes();
            prop_assert_eq!(verify(&own, &other, &shared, &proof, b"here"), Some(expected));
            prop_assert_eq!(verify(&own, &other, &shared, &proof, b"there"), None);
            if own != other {
                prop_assert_eq!(verify(&other, &own, &shared, &proof, b"here"), None);
            }
            match bit.checked_sub(256) {
                None => shared[bit / 8] ^= 1 << (bit % 8),
                Some(bit) => proof[bit / 8] ^= 1 << (bit % 8),
            }
            prop_assert_eq!(verify(&own, &other, &shared, &proof, b"here"), None);
        }
    }
}
