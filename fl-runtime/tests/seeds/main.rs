//! The production server and clients, with their storage, under a network that loses, delays,
//! doubles and reorders, processes that end at any moment, disks that refuse, damage or
//! lose what is on them, and clocks that jump: thousands of runs, each decided by its seed alone. Only training is made up.
//!
//! `TERN_SEED=n cargo test -p tern-fl --test seeds` runs one seed again, with what happens in it;
//! `TERN_SEEDS=n` runs that many.

#![allow(clippy::unwrap_used, reason = "a test: it ends where something is wrong")]
#![allow(clippy::print_stdout, reason = "a failing seed names itself and tells its story")]

mod disk;
#[path = "../../protocol/src/coordinator/tests/liar.rs"]
mod liar;
mod member;
mod network;
mod oracle;
mod random;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs whose updates the server sees; they take few milliseconds each.
const CLEAR: u64 = 8_500;
/// Runs with secure aggregation, whose keys and signatures take most of the time.
const SECURE: u64 = 1_500;

fn run(name: &str, seeds: std::ops::Range<u64>, world: fn(u64, bool) -> world::Summary) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("TERN_SEED") {
        println!("{:?}", world(seed, true));
        return;
    }
    let count = number("TERN_SEEDS").unwrap_or(seeds.end - seeds.start);
    let mut total = world::Summary::default();
    for seed in seeds.start..seeds.start + count {
        match catch_unwind(AssertUnwindSafe(|| world(seed, false))) {
            Ok(summary) => total.add(&summary),
            Err(cause) => {
                println!("{name}: seed {seed} fails; run it again by TERN_SEED={seed}");
                std::panic::resume_unwind(cause);
            }
        }
    }
    println!("{name}: {count} seeds, {total:?}");
    // What never happens is not tested.
    if count >= CLEAR.min(SECURE) {
        total.check();
        assert!(name == "clear" || total.excluded > 0, "{total:?}");
    }
}

#[test]
fn secure_rounds() {
    run("secure", CLEAR..CLEAR + SECURE, world::secure);
}

#[test]
fn clear_rounds() {
    run("clear", 0..CLEAR, world::clear);
}
