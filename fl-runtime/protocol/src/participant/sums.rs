//! Which sums a client has helped to make known, and which others would tell vectors apart: whoever
//! has two sums over sets of clients has what the one set has over the other.
//!
//! - In a round whose shares a client revealed it joins no other session ([`History`]).
//! - Of one model it helps to sum one set of clients, in however many rounds: on the same model
//!   the same clients make nearly the same vectors.
//! - From model to model vectors change, by what is learned and by the seed of each round and
//!   attempt. Where [`RequiredSecurity::difference`] asks for it, the sets of any two sums are
//!   equal, or differ by so many clients more than the run takes to be corrupt.
//!
//! A server can make a model that hardly differs from the last. Against that the last rule helps,
//! and noise.
//!
//! [`History`]: tern_secagg::History
//! [`RequiredSecurity::difference`]: super::RequiredSecurity::difference

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{Aborted, ClientId, Digest};

/// Sums that are remembered.
const MOST: usize = 16;

/// A sum that a client revealed shares for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownSum {
    /// The model that its vectors start from.
    pub model: Digest,
    /// Whose vectors are in it.
    pub members: BTreeSet<ClientId>,
}

/// Remembers a sum, and forgets the oldest of many.
pub(super) fn remember(sums: &mut Vec<KnownSum>, sum: KnownSum) {
    if sums.contains(&sum) {
        return;
    }
    if sums.len() >= MOST {
        sums.remove(0);
    }
    sums.push(sum);
}

/// Whether a session of this roster can end in a sum that may be known beside the others, so that
/// nothing need be uploaded if not.
///
/// # Errors
/// [`Aborted::OneSum`].
pub(super) fn check_roster(
    sums: &[KnownSum],
    model: &Digest,
    roster: &BTreeSet<ClientId>,
) -> Result<(), Aborted> {
    for known in sums.iter().filter(|sum| sum.model == *model) {
        let differ = known.members.difference(roster).count();
        if differ > 0 {
            return Err(Aborted::OneSum { differ, summed: known.members.clone() });
        }
    }
    Ok(())
}

/// Whether a sum may be known beside the others. Of other models' sums it must differ by `least`
/// clients, if that is not zero.
///
/// # Errors
/// [`Aborted::OneSum`], [`Aborted::TooClose`].
pub(super) fn check(sums: &[KnownSum], sum: &KnownSum, least: usize) -> Result<(), Aborted> {
    for known in sums {
        let differ = known.members.symmetric_difference(&sum.members).count();
        if differ > 0 && known.model == sum.model {
            return Err(Aborted::OneSum { differ, summed: known.members.clone() });
        }
        if differ > 0 && differ < least {
            return Err(Aborted::TooClose { differ, least, summed: known.members.clone() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(model: u8, members: std::ops::Range<u8>) -> KnownSum {
        let members = members.map(|member| ClientId([member; 32])).collect();
        KnownSum { model: Digest([model; 32]), members }
    }

    #[test]
    fn sets_of_one_model_are_equal_and_of_others_far_apart() {
        let sums = [sum(1, 0..5), sum(2, 0..7)];
        let check = |next, least| check(&sums, &next, least);
        let [first, second] = sums.clone().map(|sum| sum.members);
        let one = |differ| Err(Aborted::OneSum { differ, summed: first.clone() });
        assert_eq!(check(sum(1, 0..5), 0), Ok(()));
        assert_eq!(check(sum(1, 0..4), 0), one(1));
        assert_eq!(check(sum(1, 2..9), 0), one(6));
        assert_eq!(check(sum(3, 0..4), 0), Ok(()));
        let close = |differ, least, summed| Err(Aborted::TooClose { differ, least, summed });
        assert_eq!(check(sum(3, 0..4), 2), close(1, 2, first.clone()));
        assert_eq!(check(sum(3, 1..8), 3), close(2, 3, second.clone()));
        assert_eq!(check(sum(3, 2..9), 3), Ok(()));
        // The same set again tells of nobody, by whatever model.
        assert_eq!(super::check(&sums[..1], &sum(3, 0..5), 3), Ok(()));
        let roster = |members| sum(0, members).members;
        assert_eq!(check_roster(&sums, &Digest([1; 32]), &roster(0..6)), Ok(()));
        assert_eq!(check_roster(&sums, &Digest([1; 32]), &roster(1..9)), one(1));
        assert_eq!(check_roster(&sums, &Digest([3; 32]), &roster(1..9)), Ok(()));
    }

    #[test]
    fn the_oldest_sums_are_forgotten() {
        let mut sums = Vec::new();
        for model in 0..20 {
            remember(&mut sums, sum(model, 0..3));
            remember(&mut sums, sum(model, 0..3));
        }
        assert_eq!(sums.len(), MOST);
        assert_eq!((sums[0].model, sums[15].model), (Digest([4; 32]), Digest([19; 32])));
    }
}
