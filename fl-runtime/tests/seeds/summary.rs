//! What happened in runs.

use std::collections::BTreeMap;

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

    pub fn add(&mut self, other: &Summary) {
        other.0.iter().for_each(|(what, times)| self.count(what, *times));
    }

    /// What never happens is not tested.
    pub fn check(&self, expected: &[&str]) {
        for what in expected {
            assert!(self.0.get(what).is_some_and(|times| *times > 0), "no {what}: {self:?}");
        }
    }
}
