//! Runs of seeds, and what happened in them.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How often what happened.
#[derive(Clone, Debug, Default)]
pub struct Summary(BTreeMap<&'static str, u64>);

impl Summary {
    /// It happened once more.
    pub fn note(&mut self, what: &'static str) {
        self.count(what, 1);
    }

    pub fn count(&mut self, what: &'static str, times: u64) {
        *self.0.entry(what).or_default() += times;
    }

    fn add(&mut self, other: &Summary) {
        other.0.iter().for_each(|(what, times)| self.count(what, *times));
    }

    /// What never happens is not tested.
    fn check(&self, expected: &[&str]) {
        for what in expected {
            assert!(self.0.get(what).is_some_and(|times| *times > 0), "no {what}: {self:?}");
        }
    }
}

/// Runs so many seeds, or those that the environment names (`TERN_SEED`, `TERN_SEEDS`); all of them
/// together have to come to what is expected. A world is told whether it tells its story.
pub fn run(name: &str, seeds: u64, world: impl Fn(u64, bool) -> Summary, expected: &[&str]) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("TERN_SEED") {
        println!("{:?}", world(seed, true));
        return;
    }
    let count = number("TERN_SEEDS").unwrap_or(seeds);
    let mut total = Summary::default();
    for seed in 0..count {
        match catch_unwind(AssertUnwindSafe(|| world(seed, false))) {
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
