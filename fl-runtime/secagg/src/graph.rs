//! Who shares secrets and masks with whom: a k-regular Harary graph over randomly permuted
//! members (Bell et al., "Secure Single-Server Aggregation with (Poly)Logarithmic Overhead",
//! CCS 2020), or all pairs.
//!
//! The permutation comes from the digest of the roster, which covers the session and every
//! member's keys. Each client computes it, so that a server can't hand out another graph, and
//! can't know the graph before the honest clients have drawn their keys.

use sha2::{Digest, Sha256};

use super::random::Random;

/// A circulant graph on a random order of the members: each is tied to the `neighbors / 2` on
/// either side of it on a ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graph {
    /// The members in the ring's order.
    ring: Vec<u32>,
    /// Where each member stands on the ring.
    places: Vec<u32>,
    neighbors: usize,
}

impl Graph {
    /// The graph of `members` with `neighbors` each, an even number or all others, on the order
    /// that `roster`, a digest, stands for.
    pub fn new(roster: &[u8; 32], members: usize, neighbors: usize) -> Self {
        debug_assert!(
            neighbors + 1 == members || neighbors.is_multiple_of(2) && neighbors < members
        );
        let key =
            Sha256::new().chain_update(b"tern secagg graph\0").chain_update(roster).finalize();
        let mut random = Random::new(&key.into());
        let mut ring: Vec<u32> = (0..members as u32).collect();
        // Fisher and Yates.
        for last in (1..members).rev() {
            ring.swap(last, random.below(last as u32 + 1) as usize);
        }
        let mut places = vec![0; members];
        for (place, member) in ring.iter().enumerate() {
            places[*member as usize] = place as u32;
        }
        Graph { ring, places, neighbors }
    }

    /// The neighbors of a member, ascending.
    pub fn neighbors(&self, member: u32) -> Vec<u32> {
        let n = self.ring.len();
        let mut neighbors: Vec<u32> = if self.neighbors + 1 == n {
            (0..n as u32).filter(|other| *other != member).collect()
        } else {
            let (place, half) = (self.places[member as usize] as usize, self.neighbors / 2);
            let ahead = (1..=half).map(|step| self.ring[(place + step) % n]);
            ahead.chain((1..=half).map(|step| self.ring[(place + n - step) % n])).collect()
        };
        neighbors.sort_unstable();
        neighbors
    }

    /// Those who hold shares of a member's secrets, ascending: its neighbors and itself.
    pub fn holders(&self, member: u32) -> Vec<u32> {
        let mut holders = self.neighbors(member);
        let at = holders.partition_point(|other| *other < member);
        holders.insert(at, member);
        holders
    }

    /// Whether two members are neighbors.
    pub fn adjacent(&self, a: u32, b: u32) -> bool {
        let n = self.ring.len();
        if a == b || a as usize >= n || b as usize >= n {
            return false;
        }
        let distance = self.places[a as usize].abs_diff(self.places[b as usize]) as usize;
        self.neighbors + 1 == n || distance.min(n - distance) <= self.neighbors / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Members that are reached from member 0 without passing through `removed`.
    fn reached(graph: &Graph, start: u32, removed: &[bool]) -> usize {
        let mut seen = removed.to_vec();
        seen[start as usize] = true;
        let mut open = vec![start];
        let mut count = 0;
        while let Some(member) = open.pop() {
            count += 1;
            for other in graph.neighbors(member) {
                if !std::mem::replace(&mut seen[other as usize], true) {
                    open.push(other);
                }
            }
        }
        count
    }

    #[test]
    fn the_order_depends_on_the_roster_and_on_nothing_else() {
        let graph = Graph::new(&[1; 32], 100, 10);
        assert_eq!(graph, Graph::new(&[1; 32], 100, 10));
        assert_ne!(graph, Graph::new(&[2; 32], 100, 10));
    }

    #[test]
    fn a_member_is_anyones_neighbor_as_often() {
        // 2,000 graphs of 20 members with 6 neighbors: member 0 meets each other one 632 times,
        // with a deviation of 21.
        let mut counts = [0; 20];
        for seed in 0u32..2_000 {
            let mut roster = [0; 32];
            roster[..4].copy_from_slice(&seed.to_le_bytes());
            for other in Graph::new(&roster, 20, 6).neighbors(0) {
                counts[other as usize] += 1;
            }
        }
        assert_eq!(counts[0], 0);
        assert!(counts[1..].iter().all(|count| (506..758).contains(count)), "{counts:?}");
    }

    proptest! {
        #[test]
        fn regular_and_symmetric(
            roster: [u8; 32],
            (n, k) in (2usize..60).prop_flat_map(|n| {
                (Just(n), prop_oneof![Just(n - 1), (0..=(n - 1) / 2).prop_map(|half| 2 * half)])
            }),
        ) {
            let graph = Graph::new(&roster, n, k);
            for member in 0..n as u32 {
                let neighbors = graph.neighbors(member);
                prop_assert_eq!(neighbors.len(), k);
                prop_assert!(neighbors.is_sorted_by(|a, b| a < b));
                for other in 0..n as u32 {
                    prop_assert_eq!(graph.adjacent(member, other), neighbors.contains(&other));
                    prop_assert_eq!(graph.adjacent(member, other), graph.adjacent(other, member));
                }
                prop_assert_eq!(graph.holders(member).len(), k + 1);
            }
            prop_assert!(!graph.adjacent(0, n as u32));
        }

        #[test]
        fn fewer_than_k_missing_members_leave_it_in_one_piece(
            roster: [u8; 32],
            half in 1usize..8,
            removed in proptest::collection::vec(0usize..40, 0..16),
        ) {
            let graph = Graph::new(&roster, 40, 2 * half);
            let mut gone = vec![false; 40];
            for member in removed.into_iter().take(2 * half - 1) {
                gone[member] = true;
            }
            let start = gone.iter().position(|gone| !gone).unwrap() as u32;
            let left = gone.iter().filter(|gone| !**gone).count();
            prop_assert_eq!(reached(&graph, start, &gone), left);
        }
    }
}
