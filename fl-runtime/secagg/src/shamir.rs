//! Shamir's secret sharing (CACM 1979) of 32-byte secrets over the field of p = 2^61 − 1.
//!
//! A secret is cut into five limbs; each is the constant term of a polynomial of its own, whose
//! other coefficients are uniform over the whole field, zero included: leaving zero out, or any
//! other bias, would tell something about the secret to fewer holders than the threshold.
//! Arithmetic on secrets has no branches and no table look-ups.

use subtle::{Choice, ConstantTimeEq};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::decode::Points;
use crate::field::{P, add, inverse, mul, sub};
use crate::random::Random;

/// Limbs of a secret.
const LIMBS: usize = 5;
/// Bits of every limb but the last, which has 16.
const LIMB_BITS: u32 = 60;
const LIMB: u64 = (1 << LIMB_BITS) - 1;
const LAST_LIMB: u64 = (1 << 16) - 1;

/// One holder's share of a 32-byte secret. Where it was evaluated is the holder's to know.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Share([u64; LIMBS]);

impl Share {
    /// Bytes of a share.
    pub const BYTES: usize = 8 * LIMBS;

    /// The share as little-endian numbers of 64 bits.
    pub fn to_bytes(&self) -> Zeroizing<[u8; Self::BYTES]> {
        let mut bytes = Zeroizing::new([0; Self::BYTES]);
        for (to, limb) in bytes.chunks_exact_mut(8).zip(self.0) {
            to.copy_from_slice(&limb.to_le_bytes());
        }
        bytes
    }

    /// A share from its bytes; `None` if a number isn't an element of the field.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let mut share = Share([0; LIMBS]);
        for (limb, from) in share.0.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *limb = u64::from_le_bytes(*from);
        }
        share.0.iter().all(|limb| *limb < P).then_some(share)
    }
}

impl ConstantTimeEq for Share {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl PartialEq for Share {
    fn eq(&self, other: &Self) -> bool {
        self.ct_eq(other).into()
    }
}

impl Eq for Share {}

impl std::fmt::Debug for Share {
    /// Keeps the share out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Share(..)")
    }
}

fn limbs(secret: &[u8; 32]) -> Zeroizing<[u64; LIMBS]> {
    let word = |i: usize| {
        let mut bytes = Zeroizing::new([0; 8]);
        bytes.copy_from_slice(&secret[8 * i..8 * i + 8]);
        u64::from_le_bytes(*bytes)
    };
    let words = Zeroizing::new([word(0), word(1), word(2), word(3)]);
    // Limb i starts 4·i bits before word i.
    Zeroizing::new([
        words[0] & LIMB,
        (words[0] >> 60 | words[1] << 4) & LIMB,
        (words[1] >> 56 | words[2] << 8) & LIMB,
        (words[2] >> 52 | words[3] << 12) & LIMB,
        words[3] >> 48,
    ])
}

fn secret_of(limbs: &[u64; LIMBS]) -> Option<Zeroizing<[u8; 32]>> {
    let (last, others) = limbs.split_last()?;
    if *last > LAST_LIMB || others.iter().any(|limb| *limb > LIMB) {
        return None;
    }
    let mut secret = Zeroizing::new([0; 32]);
    for (i, to) in secret.chunks_exact_mut(8).enumerate() {
        let word = limbs[i] >> (4 * i) | limbs[i + 1] << (60 - 4 * i);
        to.copy_from_slice(&word.to_le_bytes());
    }
    Some(secret)
}

/// Shares of `secret`, one for each of `points`: any `threshold` of them give it back, fewer
/// tell nothing about it. Points are distinct and not zero.
pub(super) fn split(
    secret: &[u8; 32],
    threshold: usize,
    points: &[u32],
    random: &mut Random,
) -> Vec<Share> {
    debug_assert!(threshold >= 1 && points.iter().all(|point| *point != 0));
    // From the highest power down to the constant terms.
    let mut coefficients = Zeroizing::new(Vec::with_capacity(threshold));
    for _ in 1..threshold {
        coefficients.push(std::array::from_fn::<u64, LIMBS, _>(|_| random.element()));
    }
    coefficients.push(*limbs(secret));
    let share = |point: &u32| {
        let mut value = Share([0; LIMBS]);
        for coefficient in coefficients.iter() {
            for (value, coefficient) in value.0.iter_mut().zip(coefficient) {
                *value = add(mul(*value, u64::from(*point)), *coefficient);
            }
        }
        value
    };
    points.iter().map(share).collect()
}

/// What shares at some points are multiplied by to get the secret: Lagrange's basis at zero.
pub(super) struct Interpolation(Vec<u64>);

impl Interpolation {
    /// For shares at `points`, distinct and not zero, as many as the threshold.
    pub(super) fn new(points: &[u32]) -> Self {
        let weight = |i: usize| {
            let (mut above, mut below) = (1, 1);
            for (j, point) in points.iter().enumerate() {
                if j != i {
                    above = mul(above, u64::from(*point));
                    below = mul(below, sub(u64::from(*point), u64::from(points[i])));
                }
            }
            mul(above, inverse(below))
        };
        Interpolation((0..points.len()).map(weight).collect())
    }

    /// The secret of shares in the order of the points; `None` if they aren't shares of one
    /// 32-byte secret, which most wrong shares aren't.
    pub(super) fn secret<'a>(
        &self,
        shares: impl IntoIterator<Item = &'a Share>,
    ) -> Option<Zeroizing<[u8; 32]>> {
        let mut sum = Zeroizing::new([0; LIMBS]);
        for (weight, share) in self.0.iter().zip(shares) {
            for (sum, limb) in sum.iter_mut().zip(share.0) {
                *sum = add(*sum, mul(*weight, limb));
            }
        }
        secret_of(&sum)
    }
}

/// The secret of shares at `points`, distinct and not zero, of which ⌊(n − t) / 2⌋ of n may be
/// wrong, t being the threshold. `None` if there is none; that one is right has to be seen from
/// something else, as any t shares are those of some secret.
pub(super) fn decode(
    points: &[u32],
    shares: &[&Share],
    threshold: usize,
) -> Option<Zeroizing<[u8; 32]>> {
    let points = Points::new(points);
    let mut constants = Zeroizing::new([0; LIMBS]);
    for (limb, constant) in constants.iter_mut().enumerate() {
        let values: Zeroizing<Vec<u64>> =
            Zeroizing::new(shares.iter().map(|share| share.0[limb]).collect());
        *constant = points.constant_term(&values, threshold)?;
    }
    secret_of(&constants)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn element() -> impl Strategy<Value = u64> {
        prop_oneof![0..P, Just(0), Just(1), Just(P - 1), Just(P - 2)]
    }

    fn random(seed: u8) -> Random {
        Random::new(&[seed; 32])
    }

    /// Shares of `secret` at points 1 to `holders`.
    fn shares(secret: &[u8; 32], threshold: usize, holders: u32) -> Vec<Share> {
        let points: Vec<u32> = (1..=holders).collect();
        split(secret, threshold, &points, &mut random(7))
    }

    #[test]
    fn the_extreme_secrets_come_back() {
        for secret in [[0; 32], [0xff; 32], std::array::from_fn(|i| i as u8)] {
            for (threshold, holders) in [(1, 1), (1, 5), (3, 5), (5, 5)] {
                let shares = shares(&secret, threshold, holders);
                let points: Vec<u32> = (1..=threshold as u32).collect();
                let back = Interpolation::new(&points).secret(&shares).unwrap();
                assert_eq!(*back, secret, "{threshold} of {holders}");
            }
        }
    }

    #[test]
    fn numbers_that_are_too_large_for_a_secret_give_none() {
        let largest = [LIMB, LIMB, LIMB, LIMB, LAST_LIMB];
        assert_eq!(secret_of(&largest).map(|secret| *secret), Some([0xff; 32]));
        for limb in 0..LIMBS {
            let mut limbs = largest;
            limbs[limb] += 1;
            assert!(secret_of(&limbs).is_none(), "limb {limb}");
        }
    }

    #[test]
    fn one_share_less_than_the_threshold_fits_every_secret() {
        // Two of three shares, and for each candidate secret a third point that completes them:
        // the polynomial through them exists, so that the two tell nothing.
        let given = shares(&[9; 32], 3, 2);
        for candidate in [0, 1, 12_345, LIMB] {
            // Through (0, candidate), (1, a), (2, b): the value at 3 is an element of the field
            // like any other, and interpolation from 1, 2, 3 gives the candidate.
            let (a, b) = (given[0].0[0], given[1].0[0]);
            let at_three = add(candidate, sub(mul(3, b), mul(3, a)));
            let weights = Interpolation::new(&[1, 2, 3]).0;
            let back = add(add(mul(weights[0], a), mul(weights[1], b)), mul(weights[2], at_three));
            assert_eq!(back, candidate);
        }
    }

    #[test]
    fn coefficients_are_uniform_over_the_field_with_zero() {
        // With threshold 2 the share at 1 less the secret is the coefficient. Sixteen ranges of
        // equal width, 16,000 draws: a range's deviation is 31, six of them are 186.
        let mut random = random(1);
        let mut counts = [0u32; 16];
        for _ in 0..3_200 {
            for limb in split(&[0; 32], 2, &[1], &mut random)[0].0 {
                counts[(limb >> 57) as usize] += 1;
            }
        }
        for count in counts {
            assert!((814..1_186).contains(&count), "{counts:?}");
        }
    }

    #[test]
    fn bytes_beyond_the_field_are_no_share() {
        let mut bytes = [0; Share::BYTES];
        bytes[..8].copy_from_slice(&(P - 1).to_le_bytes());
        assert!(Share::from_bytes(&bytes).is_some());
        bytes[..8].copy_from_slice(&P.to_le_bytes());
        assert!(Share::from_bytes(&bytes).is_none());
        assert!(Share::from_bytes(&[0xff; Share::BYTES]).is_none());
    }

    #[test]
    fn debug_says_nothing() {
        assert_eq!(format!("{:?}", shares(&[3; 32], 1, 1)[0]), "Share(..)");
    }

    proptest! {
        #[test]
        fn the_field_is_that_of_exact_arithmetic(a in element(), b in element()) {
            let p = u128::from(P);
            let (wide_a, wide_b) = (u128::from(a), u128::from(b));
            prop_assert_eq!(u128::from(add(a, b)), (wide_a + wide_b) % p);
            prop_assert_eq!(u128::from(sub(a, b)), (wide_a + p - wide_b) % p);
            prop_assert_eq!(u128::from(mul(a, b)), wide_a * wide_b % p);
            prop_assert_eq!(mul(a, inverse(a)), u64::from(a != 0));
        }

        #[test]
        fn any_threshold_many_shares_give_the_secret(
            secret: [u8; 32],
            (holders, threshold) in (1usize..40).prop_flat_map(|n| (Just(n), 1..=n)),
            shuffle: u64,
        ) {
            let mut points: Vec<u32> = (0..holders as u32).map(|i| 1 + i * 977).collect();
            let shares = split(&secret, threshold, &points, &mut random(3));
            // Any subset, in any order.
            let mut order: Vec<usize> = (0..holders).collect();
            order.sort_by_key(|i| (*i as u64 + 1).wrapping_mul(shuffle | 1));
            order.truncate(threshold);
            points = order.iter().map(|i| points[*i]).collect();
            let chosen = order.iter().map(|i| &shares[*i]);
            let back = Interpolation::new(&points).secret(chosen);
            prop_assert_eq!(back.map(|secret| *secret), Some(secret));
        }

        #[test]
        fn a_wrong_share_never_gives_the_secret(secret: [u8; 32], limb in 0..LIMBS, delta in 1..P) {
            let mut shares = shares(&secret, 3, 3);
            shares[1].0[limb] = add(shares[1].0[limb], delta);
            let back = Interpolation::new(&[1, 2, 3]).secret(&shares);
            prop_assert_ne!(back.map(|secret| *secret), Some(secret));
        }

        #[test]
        fn half_of_the_spare_shares_may_be_wrong_and_no_more(
            secret: [u8; 32],
            (threshold, spare) in (1usize..20, 1usize..20),
            delta in 1..P,
            shuffle: u64,
        ) {
            let holders = threshold + spare;
            let points: Vec<u32> = (1..=holders as u32).collect();
            let shares = split(&secret, threshold, &points, &mut random(5));
            let mut order: Vec<usize> = (0..holders).collect();
            order.sort_by_key(|i| (*i as u64 + 1).wrapping_mul(shuffle | 1));
            let with = |wrong: usize| {
                let mut given = shares.clone();
                for (count, liar) in order.iter().take(wrong).enumerate() {
                    // Each in another limb, and by another number.
                    let limb = &mut given[*liar].0[count % LIMBS];
                    *limb = add(*limb, mul(delta, count as u64 + 1));
                }
                let given: Vec<&Share> = given.iter().collect();
                decode(&points, &given, threshold).map(|secret| *secret)
            };
            for wrong in 0..=spare / 2 {
                prop_assert_eq!(with(wrong), Some(secret), "{} of {} wrong", wrong, holders);
            }
            // All in one limb, one more than can be put right: never taken for the secret.
            let mut given = shares.clone();
            for liar in order.iter().take(spare / 2 + 1) {
                given[*liar].0[4] = add(given[*liar].0[4], delta);
            }
            let given: Vec<&Share> = given.iter().collect();
            prop_assert_ne!(decode(&points, &given, threshold).map(|s| *s), Some(secret));
        }

        #[test]
        fn shares_survive_their_bytes(secret: [u8; 32]) {
            for share in shares(&secret, 2, 3) {
                prop_assert!(Share::from_bytes(&share.to_bytes()).is_some_and(|back| back == share));
            }
        }
    }
}
