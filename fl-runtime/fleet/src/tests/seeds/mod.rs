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

use std::panic::{AssertUnwindSafe, catch_unwind};

use summary::Summary;

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
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("TERN_SEED") {
        println!("{:?}", world::run(seed, true));
        return;
    }
    let count = number("TERN_SEEDS").unwrap_or(SEEDS);
    let mut total = Summary::default();
    for seed in 0..count {
        match catch_unwind(AssertUnwindSafe(|| world::run(seed, false))) {
            Ok(summary) => total.add(&summary),
            Err(cause) => {
                println!("seed {seed} fails; run it again by TERN_SEED={seed}");
                std::panic::resume_unwind(cause);
            }
        }
    }
    println!("{count} seeds, {total:?}");
    if count >= SEEDS {
        total.check(&EXPECTED);
    }
}
