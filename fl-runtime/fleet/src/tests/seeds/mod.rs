//! A fleet's leaders, and what stands for its other processes, over a simulated database and store:
//! calls that are lost before or after their effect, or take so long that leases end meanwhile,
//! processes that end at any call, a store that lies. Thousands of runs, each decided by its seed
//! alone, and each judged by the bits that one machine makes of what was counted.
//!
//! `TERN_SEED=n cargo test -p tern-fleet --lib seeds` runs one seed again; `TERN_SEEDS=n` runs that
//! many.

#![allow(clippy::print_stdout, reason = "a failing seed names itself")]

#[path = "../../../../tests/seeds/random.rs"]
mod random;
mod roles;
mod sim;
mod state;
#[path = "../../../../tests/seeds/summary.rs"]
mod summary;
mod world;

const SEEDS: u64 = 2_000;

/// What must have happened in them.
const EXPECTED: [&str; 15] = [
    "again",
    "closed",
    "conflict",
    "counted",
    "ends",
    "fenced",
    "hangs",
    "leads",
    "lost after",
    "lost before",
    "parts of zombies",
    "repeated",
    "sums made anew",
    "swept",
    "updates lost",
];

#[test]
fn seeds_of_a_fleet() {
    summary::run("fleet", SEEDS, world::run, &EXPECTED);
}
