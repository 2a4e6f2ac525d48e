//! The production server and clients, with their storage, under a network that loses, delays,
//! doubles and reorders, processes that end at any moment, disks that refuse, damage or
//! lose what is on them, clocks that jump, and others' messages between any two steps of the server:
//! thousands of runs, each decided by its seed alone. Only training is made up.
//!
//! `TERN_SEED=n cargo test -p tern-fl --test seeds secure` runs one seed again, with what happens in
//! it; `TERN_SEEDS=n` runs that many.

#![allow(clippy::unwrap_used, reason = "a test: it ends where something is wrong")]
#![allow(clippy::print_stdout, reason = "a failing seed names itself and tells its story")]

mod disk;
#[path = "../../protocol/src/coordinator/tests/liar.rs"]
mod liar;
mod member;
mod network;
mod oracle;
mod random;
mod setup;
mod summary;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use random::Random;
use setup::Setup;
use summary::Summary;

/// Runs whose updates the server sees; they take few milliseconds each.
const CLEAR: u64 = 8_500;
/// Runs with secure aggregation, whose keys and signatures take most of the time.
const SECURE: u64 = 1_500;
/// The same of many clients, a second each.
const SPARSE: u64 = 40;

/// What each kind of run comes to.
const ALWAYS: [&str; 18] = [
    "adam",
    "average",
    "client ends",
    "faults",
    "in steps",
    "jumps",
    "kept optimizers",
    "made in steps",
    "momentum",
    "named",
    "outlived",
    "refused",
    "repaired",
    "repeated",
    "server ends",
    "unharmed",
    "waiting",
    "yogi",
];
const BY_TOKENS: [&str; 2] = ["strangers let in", "strangers sent away"];

fn run(name: &str, seeds: u64, setup: impl Fn(&mut Random) -> Setup, expected: &[&str]) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("TERN_SEED") {
        println!("{:?}", world::run(setup, seed, true));
        return;
    }
    let count = number("TERN_SEEDS").unwrap_or(seeds);
    let mut total = Summary::default();
    for seed in 0..count {
        match catch_unwind(AssertUnwindSafe(|| world::run(&setup, seed, false))) {
            Ok(summary) => total.add(&summary),
            Err(cause) => {
                println!("{name}: seed {seed} fails; run it again by TERN_SEED={seed}");
                std::panic::resume_unwind(cause);
            }
        }
    }
    println!("{name}: {count} seeds, {total:?}");
    if count >= seeds {
        total.check(expected);
    }
}

#[test]
fn secure_rounds() {
    let expected = [&ALWAYS[..], &BY_TOKENS, &["abandoned", "excluded"]].concat();
    run("secure", SECURE, setup::secure, &expected);
}

#[test]
fn sparse_rounds() {
    run("sparse", SPARSE, setup::sparse, &["excluded", "outlived", "repeated", "sparse"]);
}

#[test]
fn clear_rounds() {
    let expected = [&ALWAYS[..], &BY_TOKENS, &["impatient"]].concat();
    run("clear", CLEAR, setup::clear, &expected);
}
