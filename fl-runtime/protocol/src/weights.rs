//! How much a client's update counts for in a secure sum: its samples, which it signs with its
//! keys, over the most of the session. All members see them in the roster, and so does the server.
//!
//! A sum in which next to nothing is of others is one client's update. So no client takes part where
//! one could count for more than a part of what is not corrupt, see [`check`].
//!
//! ```
//! use tern_protocol::weights::{check, most};
//!
//! assert_eq!(most([3, 9]), 9);
//! assert!(check(vec![10, 12, 9], 0.0, 0.8).is_ok());
//! // The sum would be next to nothing but one client's update.
//! assert!(check(vec![1_000, 12, 9], 0.0, 0.8).is_err());
//! ```

use tern_secagg::Assumptions;

use crate::Aborted;

/// The largest part of a sum that one client may count for, unless a client asks for another.
pub const MAX_SHARE: f64 = 0.8;

/// The most samples of a session's members, by which the others' updates are divided.
pub fn most(samples: impl IntoIterator<Item = u32>) -> u32 {
    samples.into_iter().max().unwrap_or(1).max(1)
}

/// Members that a fraction comes to, of those that tell the server their updates.
fn told(corrupt: f64, members: usize) -> usize {
    Assumptions::new(corrupt, 0.0).corrupt_of(members)
}

/// Whether no member's samples are more than `share` of all that is left when a fraction `corrupt`
/// of the members, those with the most samples of the others, tell the server their updates.
///
/// # Errors
/// [`Aborted::Share`].
pub fn check(mut samples: Vec<u32>, corrupt: f64, share: f64) -> Result<(), Aborted> {
    samples.sort_unstable_by(|a, b| b.cmp(a));
    let Some((largest, others)) = samples.split_first() else { return Ok(()) };
    let others = others
        .iter()
        .skip(told(corrupt, samples.len()))
        .map(|samples| u64::from(*samples))
        .sum::<u64>();
    let all = u64::from(*largest) + others;
    if f64::from(*largest) > share * all as f64 {
        return Err(Aborted::Share { samples: *largest, all, share });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_most_of_a_sum_stops_it() {
        assert_eq!(check(vec![10, 40], 0.0, 0.8), Ok(()));
        let refused = Aborted::Share { samples: 41, all: 51, share: 0.8 };
        assert_eq!(check(vec![10, 41], 0.0, 0.8), Err(refused));
        // The second largest is corrupt: what hides the largest is the third.
        assert_eq!(check(vec![10, 1_000, 900], 0.0, 0.8), Ok(()));
        let refused = Aborted::Share { samples: 1_000, all: 1_010, share: 0.8 };
        assert_eq!(check(vec![10, 1_000, 900], 0.3, 0.8), Err(refused));
        // A corrupt member that counts for nearly all, so that others come to nothing.
        assert!(check(vec![1 << 20, 10, 12, 9], 0.25, 0.8).is_err());
        assert_eq!(check(vec![7; 5], 0.2, 0.8), Ok(()));
        assert_eq!((told(0.2, 100), told(0.2, 101), told(0.0, 9)), (20, 21, 0));
        assert_eq!(most([3, 9, 0]), 9);
        assert_eq!(most([]), 1);
    }
}
