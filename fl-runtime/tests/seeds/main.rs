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
mod personal;
mod random;
mod setup;
mod signed;
mod summary;
mod transfer;
mod world;

use summary::run;

/// Runs whose updates the server sees; they take few milliseconds each.
const CLEAR: u64 = 8_500;
/// Runs with secure aggregation, whose keys and signatures take most of the time.
const SECURE: u64 = 1_500;
/// The same of many clients, a second each.
const SPARSE: u64 = 40;
/// Runs whose clients train models.
const TRANSFER: u64 = 60;
/// Runs of personal models.
const PERSONAL: u64 = 60;

/// What each kind of run comes to.
const ALWAYS: [&str; 19] = [
    "adam",
    "average",
    "claimed",
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
const SIGNED: [&str; 4] = ["forged", "replayed", "signed", "signed again"];

#[test]
fn secure_rounds() {
    let more = ["abandoned", "difference", "excluded"];
    let expected = [&ALWAYS[..], &BY_TOKENS, &SIGNED, &more].concat();
    run("secure", SECURE, |seed, aloud| world::run(setup::secure, seed, aloud), &expected);
}

#[test]
fn sparse_rounds() {
    let expected = ["excluded", "outlived", "repeated", "sparse"];
    run("sparse", SPARSE, |seed, aloud| world::run(setup::sparse, seed, aloud), &expected);
}

#[test]
fn clear_rounds() {
    let expected = [&ALWAYS[..], &BY_TOKENS, &SIGNED, &["impatient"]].concat();
    run("clear", CLEAR, |seed, aloud| world::run(setup::clear, seed, aloud), &expected);
}

#[test]
fn rounds_of_transfer() {
    let expected = ["align", "client ends", "faults", "outlived", "repeated", "server ends"];
    let world = |seed, aloud| world::run(transfer::transfer, seed, aloud);
    run("transfer", TRANSFER, world, &expected);
}

#[test]
fn personal_models() {
    let expected = ["harmed", "learned", "lost", "merged", "server ends", "started again"];
    run("personal", PERSONAL, |seed, _| personal::run(seed), &expected);
}
