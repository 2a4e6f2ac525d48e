//! How many neighbors and which threshold a cohort needs, after Bell et al., "Secure
//! Single-Server Aggregation with (Poly)Logarithmic Overhead" (CCS 2020), sections 3.4 and 4.4.
//!
//! Of n members, C collude with the server and up to D drop out. The graph's order is random,
//! so that a set of d places holds a hypergeometric number of corrupt members. Each member's
//! secrets are shared among its k neighbors and itself, with threshold t.
//!
//! **Security.** Even a server that lies to each client and picks who drops out learns one sum,
//! which includes every honest client that it doesn't treat as dropped, with probability
//! 1 − 2^-σ over the graph:
//!
//! - *Never both secrets of a client.* Each honest holder gives one kind of share. For both
//!   kinds, t shares each, 2t ≤ k + 1 + (corrupt neighbors).
//! - *No sum of a part.* A part that doesn't share masks with the rest is an arc of the ring,
//!   with k/2 places on either side that hold only dropped and corrupt members. Shares of the
//!   own mask of the arc's first client can come from the k/2 behind it, from itself and from
//!   the corrupt before it; likewise the last one's. Both have t only if the k places beside
//!   the arc hold 2t − 2 − k corrupt members or more.
//!
//! Both count on this: an honest client that reveals a share of another's own mask shares a mask
//! with that client, whose signature says so ([`Included`](super::Included)). Otherwise a server
//! could keep envelopes from an arc's clients and have their own masks removed by those whose
//! envelopes it kept.
//!
//! Either asks for 2t − 2 − k corrupt members in k given places; there are at most n² pairs of
//! ends. So t is the smallest with n² · Pr[H(n − 2, C, k) ≥ 2t − 2 − k] ≤ 2^-σ. Among all pairs
//! there are no arcs, and 2t > n + C excludes the first without any chance.
//!
//! **Correctness.** When D random members drop out, in any phase, every secret that is needed
//! has t holders left with probability 1 − 2^-η: of a survivor's k neighbors at most k + 1 − t
//! dropped, of a dropped one's k − t; summed over the members.
//!
//! **Floor.** A sum has n − D members at least, of which C may be corrupt and take their own
//! vectors away: n − D − C are [`Assumptions::honest`] or more, or there is no session. A roster's
//! size says nothing of this.
//!
//! k is the smallest that does both. Cohorts of up to [`SMALL`] members, and those whose k would
//! come to n − 1, share among all pairs, with t = ⌊(n + C) / 2⌋ + 1.
//!
//! The order depends on everyone's signed keys, and the server knows them before it fixes the
//! roster. It is assumed not to try keys of corrupt members, or which honest ones to leave out,
//! until the order suits it: every doubling of its tries costs a bit of σ. Where t is beyond reach
//! of C members anyway, as for 100 members with a fifth corrupt, tries are of no use.
//!
//! ```
//! use tern_secagg::{Assumptions, Parameters};
//!
//! # fn main() -> Result<(), tern_secagg::ParameterError> {
//! // A fifth of 100 members colludes with the server, and a fifth drops out.
//! let hundred = Parameters::choose(100, &Assumptions::new(0.2, 0.2))?;
//! assert_eq!((hundred.neighbors, hundred.threshold, hundred.survivors), (62, 43, 80));
//!
//! // Few members share among all pairs.
//! assert!(Parameters::choose(5, &Assumptions::new(0.0, 0.4))?.all_pairs());
//! // Here four shares would give a secret, and three members are left.
//! assert!(Parameters::choose(5, &Assumptions::new(0.2, 0.4)).is_err());
//! # Ok(())
//! # }
//! ```

use serde::{Deserialize, Serialize};

/// Largest cohort of a session.
pub const MAX_MEMBERS: usize = 1 << 14;
/// Largest cohort that shares among all pairs whatever its rates are.
pub const SMALL: usize = 32;
/// Fewest honest members of a sum unless something else is asked for. Of two, either could take
/// its own vector away and read the other's; of three, one more that is corrupt than was assumed
/// still leaves two.
pub const HONEST: u32 = 3;

/// What a cohort is built to withstand.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Assumptions {
    /// Largest fraction of the members that colludes with the server.
    pub corrupt: f64,
    /// Largest fraction of the members that drops out once keys are advertised.
    pub dropout: f64,
    /// σ: privacy fails with probability 2^-σ at most.
    pub security_bits: u32,
    /// η: a round with as many dropouts fails with probability 2^-η at most.
    pub failure_bits: u32,
    /// Fewest members in a sum beside the corrupt ones, however many drop out.
    pub honest: u32,
}

impl Assumptions {
    /// These fractions at σ = 40 and η = 20, and [`HONEST`] members in a sum.
    pub const fn new(corrupt: f64, dropout: f64) -> Self {
        Assumptions { corrupt, dropout, security_bits: 40, failure_bits: 20, honest: HONEST }
    }

    /// The most corrupt ones among so many members.
    pub fn corrupt_of(&self, members: usize) -> usize {
        // A fifth of 100 is 20, though 0.2 isn't a fifth.
        (self.corrupt * members as f64 - 1e-9).ceil() as usize
    }
}

/// What a cohort of a certain size runs by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameters {
    /// Members that advertised keys.
    pub members: usize,
    /// k: neighbors of each.
    pub neighbors: usize,
    /// t: shares that give a secret, and signatures that confirm a set of survivors.
    pub threshold: usize,
    /// Members whose vectors must be in a sum for a client to help unmask it.
    pub survivors: usize,
}

/// Why there are no parameters.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum ParameterError {
    /// A fraction that isn't one, or more bits than can be computed with.
    #[error(
        "corrupt {corrupt} and dropout {dropout} at 2^-{security_bits} and 2^-{failure_bits}: \
         expected fractions from 0 to below 1 and at most 128 bits"
    )]
    Range {
        /// As in [`Assumptions`].
        corrupt: f64,
        /// As in [`Assumptions`].
        dropout: f64,
        /// As in [`Assumptions`].
        security_bits: u32,
        /// As in [`Assumptions`].
        failure_bits: u32,
    },
    /// Too few or too many members.
    #[error("{members} members, expected 3 to 16384")]
    Members {
        /// The number.
        members: usize,
    },
    /// A sum could have too few members that aren't corrupt.
    #[error(
        "{members} members with {corrupt} corrupt and {dropped} dropped: a sum may be of \
         {survivors}, expected {honest} at least beside the corrupt"
    )]
    Exposed {
        /// Members.
        members: usize,
        /// Corrupt ones.
        corrupt: usize,
        /// Dropped ones.
        dropped: usize,
        /// Members without those that dropped.
        survivors: usize,
        /// Fewest honest ones in a sum.
        honest: u32,
    },
    /// With these many no threshold is both safe and reachable.
    #[error(
        "{members} members with {corrupt} corrupt and {dropped} dropped: the threshold would be \
         {threshold}, and {survivors} are left"
    )]
    Unreachable {
        /// Members.
        members: usize,
        /// Corrupt ones.
        corrupt: usize,
        /// Dropped ones.
        dropped: usize,
        /// The smallest safe threshold.
        threshold: usize,
        /// Members without those that dropped.
        survivors: usize,
    },
}

impl Parameters {
    /// The fewest neighbors, and their threshold, for a cohort of `members`. Every machine gets
    /// the same: additions, multiplications and divisions of `f64`, and nothing else.
    ///
    /// # Errors
    /// [`ParameterError`].
    pub fn choose(members: usize, assumed: &Assumptions) -> Result<Self, ParameterError> {
        let Assumptions { corrupt, dropout, security_bits, failure_bits, honest } = *assumed;
        let fraction = |x: f64| (0.0..1.0).contains(&x);
        if !fraction(corrupt) || !fraction(dropout) || security_bits.max(failure_bits) > 128 {
            return Err(ParameterError::Range { corrupt, dropout, security_bits, failure_bits });
        }
        if !(3..=MAX_MEMBERS).contains(&members) {
            return Err(ParameterError::Members { members });
        }
        let corrupt = assumed.corrupt_of(members);
        let dropped = (dropout * members as f64 + 1e-9).floor() as usize;
        let survivors = members - dropped;
        if survivors < corrupt + honest as usize {
            return Err(ParameterError::Exposed { members, corrupt, dropped, survivors, honest });
        }
        if members > SMALL {
            for neighbors in (2..members - 1).step_by(2) {
                let bound = power(security_bits);
                let Some(threshold) = safe_threshold(members, corrupt, neighbors, bound) else {
                    continue;
                };
                if failure(members, dropped, neighbors, threshold) <= power(failure_bits) {
                    return Ok(Parameters { members, neighbors, threshold, survivors });
                }
            }
        }
        let threshold = (members + corrupt) / 2 + 1;
        if survivors < threshold {
            let unreachable =
                ParameterError::Unreachable { members, corrupt, dropped, threshold, survivors };
            return Err(unreachable);
        }
        Ok(Parameters { members, neighbors: members - 1, threshold, survivors })
    }

    /// Whether all members share with all others.
    pub fn all_pairs(&self) -> bool {
        self.neighbors + 1 == self.members
    }
}

/// 2^-bits.
fn power(bits: u32) -> f64 {
    1.0 / (1u128 << bits.min(127)) as f64 / if bits > 127 { 2.0 } else { 1.0 }
}

/// The smallest threshold of `neighbors` that keeps what the corrupt members could do below
/// `bound`; `None` if not even all holders are enough.
fn safe_threshold(members: usize, corrupt: usize, neighbors: usize, bound: f64) -> Option<usize> {
    let pairs = (members * members) as f64;
    let population = members - 2;
    let (lowest, chances) = chances(population, corrupt.min(population), neighbors);
    // The first number of corrupt members in k places that doesn't happen.
    let mut least = lowest + chances.len();
    let mut above = 0.0;
    for chance in chances.iter().rev() {
        above += chance;
        if pairs * above > bound {
            break;
        }
        least -= 1;
    }
    let threshold = (least + neighbors + 2).div_ceil(2);
    (threshold <= neighbors + 1).then_some(threshold)
}

/// How likely some secret has fewer than `threshold` holders left when `dropped` random members
/// are gone.
fn failure(members: usize, dropped: usize, neighbors: usize, threshold: usize) -> f64 {
    // Most dropped neighbors that still leave enough, plus one; a survivor holds a share itself.
    let of_survivor = neighbors + 2 - threshold;
    let of_dropped = neighbors + 1 - threshold;
    let others = members - 1;
    let survivors = (members - dropped) as f64 * tail(others, dropped, neighbors, of_survivor);
    if dropped == 0 {
        return survivors;
    }
    survivors + dropped as f64 * tail(others, dropped - 1, neighbors, of_dropped)
}

/// Pr[H ≥ `least`] of the hypergeometric number H of marked among `draws` of a `population` that
/// has `marked`. Relative error about 10^-13.
fn tail(population: usize, marked: usize, draws: usize, least: usize) -> f64 {
    let (lowest, chances) = chances(population, marked, draws);
    // The smallest first.
    chances.iter().skip(least.saturating_sub(lowest)).rev().sum()
}

/// The least value of H, and the chances of it and of those that follow.
fn chances(population: usize, marked: usize, draws: usize) -> (usize, Vec<f64>) {
    let (lowest, highest) = ((draws + marked).saturating_sub(population), draws.min(marked));
    // Pr[H = i + 1] / Pr[H = i].
    let ratio = |i: usize| {
        let up = (marked - i) as f64 * (draws - i) as f64;
        up / ((i + 1) as f64 * (population + i + 1 - marked - draws) as f64)
    };
    // Outward from the likeliest number, whose weight is 1: nothing overflows, and what
    // underflows is below 2^-1000.
    let mode = ((draws + 1) * (marked + 1) / (population + 2)).clamp(lowest, highest);
    let mut weights = vec![1.0; highest + 1 - lowest];
    for i in mode..highest {
        weights[i + 1 - lowest] = weights[i - lowest] * ratio(i);
    }
    for i in (lowest..mode).rev() {
        weights[i - lowest] = weights[i + 1 - lowest] / ratio(i);
    }
    let total: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= total);
    (lowest, weights)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn binomial(n: usize, k: usize) -> u128 {
        (0..k as u128).fold(1, |product, i| product * (n as u128 - i) / (i + 1))
    }

    #[test]
    fn tails_of_a_small_urn() {
        // Two of five are marked, two drawn: 3/10 none, 6/10 one, 1/10 both.
        for (least, expected) in [(0, 1.0), (1, 0.7), (2, 0.1), (3, 0.0)] {
            assert!((tail(5, 2, 2, least) - expected).abs() < 1e-15, "{least}");
        }
        assert_eq!(tail(5, 0, 2, 1), 0.0);
        assert_eq!(tail(5, 5, 2, 2), 1.0);
    }

    #[test]
    fn a_hundred_with_a_fifth_corrupt_and_a_fifth_dropped() {
        let parameters = Parameters::choose(100, &Assumptions::new(0.2, 0.2)).unwrap();
        let expected = Parameters { members: 100, neighbors: 62, threshold: 43, survivors: 80 };
        assert_eq!(parameters, expected);
        // No 20 corrupt members get at anything, no 20 dropouts lose anything, wherever they are.
        let Parameters { neighbors: k, threshold: t, .. } = parameters;
        assert!(2 * t - 2 - k > 20 && k + 1 - 20 >= t && k - 19 >= t);
    }

    #[test]
    fn neighbors_grow_with_the_logarithm_of_the_cohort() {
        let neighbors =
            |members| Parameters::choose(members, &Assumptions::new(0.1, 0.1)).unwrap().neighbors;
        let few = neighbors(1_000);
        let many = neighbors(16_000);
        assert!(few < many && many < few + 40, "{few} and {many}");
        assert!(many < 150, "{many}");
    }

    #[test]
    fn small_cohorts_share_among_all_pairs() {
        // Nobody colludes: more than half.
        let five = Parameters::choose(5, &Assumptions::new(0.0, 0.4)).unwrap();
        assert_eq!(five, Parameters { members: 5, neighbors: 4, threshold: 3, survivors: 3 });
        assert!(five.all_pairs());
        // A third colludes: more than two thirds.
        for members in 3..=SMALL {
            let third = Assumptions { honest: 2, ..Assumptions::new(1.0 / 3.0, 0.0) };
            let third = Parameters::choose(members, &third).unwrap();
            assert!(third.all_pairs() && 3 * third.threshold > 2 * members, "{third:?}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let choose = |members, corrupt, dropout| {
            let assumed = Assumptions { honest: 2, ..Assumptions::new(corrupt, dropout) };
            Parameters::choose(members, &assumed).unwrap_err()
        };
        let unreachable = ParameterError::Unreachable {
            members: 5,
            corrupt: 1,
            dropped: 2,
            threshold: 4,
            survivors: 3,
        };
        assert_eq!(choose(5, 0.2, 0.4), unreachable);
        assert!(matches!(choose(200, 0.5, 0.4), ParameterError::Unreachable { .. }));
        assert_eq!(choose(2, 0.0, 0.0), ParameterError::Members { members: 2 });
        assert_eq!(choose(20_000, 0.0, 0.0), ParameterError::Members { members: 20_000 });
        for fraction in [-0.1, 1.0, f64::NAN, f64::INFINITY] {
            assert!(matches!(choose(9, fraction, 0.0), ParameterError::Range { .. }));
            assert!(matches!(choose(9, 0.0, fraction), ParameterError::Range { .. }));
        }
        let bits = |bits| Assumptions { security_bits: bits, ..Assumptions::new(0.0, 0.0) };
        assert!(matches!(Parameters::choose(9, &bits(129)), Err(ParameterError::Range { .. })));
        assert!(Parameters::choose(9, &bits(128)).is_ok());
    }

    #[test]
    fn powers_of_two_are_exact() {
        for bits in 0..=128 {
            assert_eq!(power(bits), 2f64.powi(-(bits as i32)), "{bits}");
        }
    }

    #[test]
    fn chances_in_large_cohorts_add_up_and_have_their_mean() {
        for (marked, draws) in [(8_000, 8_000), (200, 9_000), (15_000, 3_000)] {
            let (lowest, chances) = chances(16_000, marked, draws);
            let sum: f64 = chances.iter().sum();
            let mean = (lowest..).zip(&chances).map(|(i, chance)| i as f64 * chance).sum::<f64>();
            let expected = marked as f64 * draws as f64 / 16_000.0;
            assert!((sum - 1.0).abs() < 1e-10, "{sum}");
            assert!((mean - expected).abs() < 1e-6 * expected, "{mean}, expected {expected}");
        }
    }

    /// How often, in exact numbers, so many of `draws` from an urn are marked that `is` takes.
    fn exact(
        (population, marked, draws): (usize, usize, usize),
        is: impl Fn(usize) -> bool,
    ) -> f64 {
        let ways = |i: usize| {
            if i > marked || draws - i > population - marked {
                return 0;
            }
            binomial(marked, i) * binomial(population - marked, draws - i)
        };
        let all = binomial(population, draws) as f64;
        (0..=draws).filter(|i| is(*i)).map(ways).sum::<u128>() as f64 / all
    }

    proptest! {
        #[test]
        fn tails_are_those_of_exact_arithmetic(
            urn in (1usize..60).prop_flat_map(|n| (Just(n), 0..=n, 0..=n)),
            least in 0usize..62,
        ) {
            let expected = exact(urn, |i| i >= least);
            let ours = tail(urn.0, urn.1, urn.2, least);
            prop_assert!((ours - expected).abs() <= 1e-12 * expected, "{ours} {expected}");
        }

        #[test]
        fn the_threshold_is_the_smallest_that_is_safe(
            (members, corrupt, neighbors) in
                (5usize..60).prop_flat_map(|n| (Just(n), 0..n / 2, 1..=(n - 2) / 2)),
            bits in 1u32..30,
        ) {
            let neighbors = 2 * neighbors;
            let (pairs, bound) = ((members * members) as f64, power(bits));
            // Both secrets of a client, or shares of both ends of an arc.
            let safe = |t: &usize| {
                let urn = (members - 2, corrupt, neighbors);
                pairs * exact(urn, |i| i + neighbors + 2 >= 2 * *t) <= bound
            };
            let smallest = (1..=neighbors + 1).find(safe);
            prop_assert_eq!(safe_threshold(members, corrupt, neighbors, bound), smallest);
        }

        #[test]
        fn what_fails_is_a_secret_with_too_few_holders(
            (members, dropped, neighbors, threshold) in (4usize..60).prop_flat_map(|n| {
                (Just(n), 0..n, 1..=(n - 1) / 2)
            }).prop_flat_map(|(n, d, half)| (Just(n), Just(d), Just(2 * half), 1..=2 * half)),
        ) {
            // A survivor holds a share of its own; a dropped client's holders are its neighbors.
            let survivor = (members - 1, dropped, neighbors);
            let of_survivor = exact(survivor, |gone| neighbors - gone + 1 < threshold);
            let mut expected = (members - dropped) as f64 * of_survivor;
            if let Some(others) = dropped.checked_sub(1) {
                let client = (members - 1, others, neighbors);
                expected += dropped as f64 * exact(client, |gone| neighbors - gone < threshold);
            }
            let ours = failure(members, dropped, neighbors, threshold);
            prop_assert!((ours - expected).abs() <= 1e-11 * expected, "{ours} {expected}");
        }

        #[test]
        fn where_no_graph_does_all_pairs_share(
            members in 33usize..80,
            corrupt in 0.0..0.45f64,
            dropout in 0.0..0.45f64,
        ) {
            let assumed = Assumptions::new(corrupt, dropout);
            let Ok(chosen) = Parameters::choose(members, &assumed) else { return Ok(()) };
            let more_than_half = (members + assumed.corrupt_of(members)) / 2 + 1;
            prop_assert!(!chosen.all_pairs() || chosen.threshold == more_than_half, "{chosen:?}");
        }

        #[test]
        fn what_is_chosen_keeps_both_promises(
            members in 33usize..3_000,
            corrupt in 0.0..0.3f64,
            dropout in 0.0..0.3f64,
        ) {
            let assumed = Assumptions::new(corrupt, dropout);
            let Ok(chosen) = Parameters::choose(members, &assumed) else { return Ok(()) };
            let Parameters { neighbors: k, threshold: t, survivors, .. } = chosen;
            let corrupt = (corrupt * members as f64).ceil() as usize;
            let dropped = members - survivors;
            prop_assert!(2 * t > k + 1 && t <= k + 1);
            if chosen.all_pairs() {
                prop_assert!(2 * t > members + corrupt && survivors >= t);
                return Ok(());
            }
            let pairs = (members * members) as f64;
            let lost = pairs * tail(members - 2, corrupt, k, 2 * t - 2 - k);
            prop_assert!(lost <= 2f64.powi(-40));
            prop_assert!(failure(members, dropped, k, t) <= 2f64.powi(-20));
            // Two neighbors fewer would not do.
            let bound = power(40);
            let fewer = safe_threshold(members, corrupt, k - 2, bound)
                .is_some_and(|t| failure(members, dropped, k - 2, t) <= power(20));
            prop_assert!(k == 2 || !fewer);
        }
    }
}
