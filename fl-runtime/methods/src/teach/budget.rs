//! A privacy budget that refuses once it is spent, also after a restart.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tern_host::files::sync_folder;
use tern_protocol::{Error, Result};

use super::accountant::Curve;
use super::aggregator::Mechanism;

/// How much may be told: (ε, δ).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// ε.
    pub epsilon: f64,
    /// δ, less than one by the number of records.
    pub delta: f64,
}

/// What was told so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spent {
    /// ε by the data-independent bound: what counts against the budget.
    pub epsilon: f64,
    /// ε by the data-dependent bound. It depends on private votes: for the owner of the data.
    pub given_votes: f64,
    /// Samples asked for.
    pub queries: u64,
    /// Samples that got a label.
    pub answers: u64,
}

/// First line of a budget's file.
#[derive(Serialize, Deserialize)]
struct Header {
    format: String,
    delta: f64,
}

const FORMAT: &str = "tern privacy budget 1";

/// A line of a budget's file: a charge.
#[derive(Serialize, Deserialize)]
struct Charge {
    mechanism: Mechanism,
    queries: u64,
    answers: u64,
    /// The data-dependent cost.
    given_votes: Curve,
}

impl Charge {
    /// Whether it can be one: what is written is what can be read again.
    fn check(&self) -> Result<()> {
        self.mechanism.validate()?;
        if self.answers > self.queries {
            let expected = format!("at most the {} queries", self.queries);
            return Err(Error::value("answers of a charge", self.answers, expected));
        }
        match self.given_votes.is_sound() {
            true => Ok(()),
            false => Err(Error::value("cost given the votes", "no number", "numbers from 0")),
        }
    }
}

/// An account of what answers cost, against a limit.
///
/// The limit is kept by the data-independent bound: there is an order at which what was spent
/// and what is asked for stays within (ε, δ). That holds for costs chosen as one goes, as those
/// of the confident aggregator are (Feldman and Zrnic 2021, "Individual Privacy Accounting via
/// a Rényi Filter").
///
/// It is one service's. Where several tell of the same data, the data's ε is at most the sum of
/// theirs, and so is its δ: for one limit on all, open one service.
pub struct Budget {
    limit: Limit,
    spent: Curve,
    given_votes: Curve,
    queries: u64,
    answers: u64,
    file: Option<Ledger>,
}

/// The file of a budget, one charge a line, locked as long as it is open.
struct Ledger {
    path: PathBuf,
    file: File,
    /// A charge was not written whole: what follows it would not be read.
    broken: bool,
}

impl Budget {
    /// A budget that is forgotten with the process: for experiments.
    ///
    /// # Errors
    /// [`Error::Value`] for an ε that isn't positive or a δ outside of 0 to 1.
    pub fn in_memory(limit: Limit) -> Result<Self> {
        let positive = limit.epsilon > 0.0 && limit.epsilon.is_finite();
        if !positive {
            return Err(Error::value("epsilon", limit.epsilon, "above 0"));
        }
        if !(limit.delta > 0.0 && limit.delta < 1.0) {
            return Err(Error::value("delta", limit.delta, "between 0 and 1"));
        }
        let (spent, given_votes) = (Curve::zero(), Curve::zero());
        Ok(Budget { limit, spent, given_votes, queries: 0, answers: 0, file: None })
    }

    /// A budget whose charges are in a file, which is made if it doesn't exist. Whoever opens it
    /// later finds what was spent; ε may be another then, δ may not. The file is this budget's
    /// alone until it is dropped.
    ///
    /// # Errors
    /// As [`Budget::in_memory`]; [`Error::File`] for a file that can't be read or written, is in
    /// use, or isn't a budget's.
    pub fn open(path: &Path, limit: Limit) -> Result<Self> {
        let mut budget = Self::in_memory(limit)?;
        let failed = |reason: std::io::Error| Error::file(path, reason);
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).open(path).map_err(failed)?;
        file.try_lock().map_err(|_| Error::file(path, "in use by another budget"))?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(failed)?;
        // What was cut short is left out, and cut off once the rest is known to be a budget's.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut lines = (1..).zip(text[..whole].lines());
        let bad = |line: usize, reason: String| Error::file(path, format!("line {line}: {reason}"));
        let fresh = match lines.next() {
            Some((number, line)) => {
                let header: Header =
                    serde_json::from_str(line).map_err(|e| bad(number, e.to_string()))?;
                if header.format != FORMAT {
                    return Err(bad(number, format!("`{}`, expected `{FORMAT}`", header.format)));
                }
                // As text it may have lost its last bit.
                if (header.delta / limit.delta - 1.0).abs() > 1e-9 {
                    let reason = format!("kept at delta {}, asked {}", header.delta, limit.delta);
                    return Err(bad(number, reason));
                }
                false
            }
            None => {
                let start = format!("{{\"format\":\"{FORMAT}\"");
                if !start.starts_with(&text) && !text.starts_with(&start) {
                    return Err(bad(1, format!("no budget, expected `{FORMAT}`")));
                }
                true
            }
        };
        for (number, line) in lines {
            let charge: Charge =
                serde_json::from_str(line).map_err(|e| bad(number, e.to_string()))?;
            charge.check().map_err(|e| bad(number, e.to_string()))?;
            budget.add(&charge);
        }
        // A charge whose writing was cut short was never answered for.
        file.set_len(whole as u64).map_err(failed)?;
        if fresh {
            let header = Header { format: FORMAT.into(), delta: limit.delta };
            append(path, &mut file, &header)?;
            // The name must last, too.
            path.parent().map_or(Ok(()), sync_folder)?;
        }
        budget.file = Some(Ledger { path: path.into(), file, broken: false });
        Ok(budget)
    }

    /// The limit.
    pub fn limit(&self) -> Limit {
        self.limit
    }

    /// What was told so far.
    pub fn spent(&self) -> Spent {
        Spent {
            epsilon: self.spent.epsilon(self.limit.delta),
            given_votes: self.given_votes.epsilon(self.limit.delta),
            queries: self.queries,
            answers: self.answers,
        }
    }

    /// Whether this many queries can be paid for, all of them answered.
    ///
    /// # Errors
    /// [`Error::Budget`] if not, with what is spent, what is asked for and the limit.
    pub fn affords(&self, mechanism: &Mechanism, queries: u64) -> Result<()> {
        self.within(&mechanism.cost(queries, queries))
    }

    fn within(&self, cost: &Curve) -> Result<()> {
        let after = self.spent.plus(cost);
        let (spent, after) =
            (self.spent.epsilon(self.limit.delta), after.epsilon(self.limit.delta));
        if after <= self.limit.epsilon {
            return Ok(());
        }
        Err(Error::Budget {
            spent,
            asked: after - spent,
            budget: self.limit.epsilon,
            delta: self.limit.delta,
        })
    }

    /// The most queries, up to `most`, that [`Budget::affords`] allows at once.
    pub fn affordable(&self, mechanism: &Mechanism, most: u64) -> u64 {
        let (mut least, mut beyond) = (0, most + 1);
        while beyond - least > 1 {
            let middle = least + (beyond - least) / 2;
            match self.affords(mechanism, middle) {
                Ok(()) => least = middle,
                Err(_) => beyond = middle,
            }
        }
        least
    }

    /// Charges for queries, some of them answered. On the disk when it returns: only then may
    /// the answers go out.
    ///
    /// # Errors
    /// [`Error::Value`] for more answers than queries, or a mechanism or cost that can't be;
    /// [`Error::Budget`] as [`Budget::affords`], for what is charged; [`Error::File`] if it can't
    /// be written, and from then on.
    pub fn charge(
        &mut self,
        mechanism: &Mechanism,
        queries: u64,
        answers: u64,
        given_votes: Curve,
    ) -> Result<()> {
        let charge = Charge { mechanism: *mechanism, queries, answers, given_votes };
        charge.check()?;
        self.within(&mechanism.cost(queries, answers))?;
        if let Some(ledger) = &mut self.file {
            if ledger.broken {
                let reason = "a charge could not be written; open the budget anew";
                return Err(Error::file(&ledger.path, reason));
            }
            ledger.broken = true;
            append(&ledger.path, &mut ledger.file, &charge)?;
            ledger.broken = false;
        }
        self.add(&charge);
        Ok(())
    }

    fn add(&mut self, charge: &Charge) {
        self.spent = self.spent.plus(&charge.mechanism.cost(charge.queries, charge.answers));
        self.given_votes = self.given_votes.plus(&charge.given_votes);
        self.queries += charge.queries;
        self.answers += charge.answers;
    }
}

fn append(path: &Path, file: &mut File, line: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(line).map_err(|error| Error::file(path, error))? + "\n";
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_data());
    written.map_err(|error| Error::file(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::teach::accountant;

    const LIMIT: Limit = Limit { epsilon: 2.0, delta: 1e-5 };
    const GAUSSIAN: Mechanism = Mechanism::Gaussian { sigma: 40.0 };

    fn ask(budget: &mut Budget, queries: u64, answers: u64) -> Result<()> {
        budget.affords(&GAUSSIAN, queries)?;
        budget.charge(&GAUSSIAN, queries, answers, Curve::zero())
    }

    /// (2.8) Refuses once the budget is spent, and says what was spent, asked and allowed.
    #[test]
    fn a_spent_budget_refuses() {
        let mut budget = Budget::in_memory(LIMIT).unwrap();
        let most = budget.affordable(&GAUSSIAN, 100_000);
        // k/σ² + 2 √(k ln(1/δ))/σ = 2.
        assert!((118..=130).contains(&most), "{most}");
        ask(&mut budget, most, most).unwrap();
        let spent = budget.spent();
        assert!(spent.epsilon <= 2.0 && spent.epsilon > 1.98, "{spent:?}");
        let error = ask(&mut budget, 1, 1).unwrap_err();
        let Error::Budget { spent: said, asked, budget: limit, .. } = error else {
            panic!("{error}")
        };
        assert_eq!((said, limit), (spent.epsilon, 2.0));
        assert!(said + asked > 2.0 && asked < 0.02);
        assert_eq!(budget.spent(), spent, "a refusal costs nothing");
        // Cheap agreement doesn't open it again: the bound that refuses doesn't see votes.
        assert_eq!(spent.given_votes, 0.0);
        // What couldn't be read again isn't written.
        let mut charge = |mechanism, answers, curve| {
            budget.charge(&mechanism, 1, answers, curve).unwrap_err().to_string()
        };
        let error = charge(GAUSSIAN, 2, Curve::zero());
        assert!(error.contains("answers of a charge is 2"), "{error}");
        let error = charge(Mechanism::Gaussian { sigma: 5000.0 }, 1, Curve::zero());
        assert!(error.contains("sigma of Gaussian noise is 5000"), "{error}");
        let error = charge(GAUSSIAN, 1, Curve::of(|_| f64::NAN));
        assert!(error.contains("cost given the votes"), "{error}");
    }

    /// (2.8) What was spent survives the process, and a charge cut short was never answered for.
    #[test]
    fn a_budget_outlives_its_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("budget.jsonl");
        let confident = Mechanism::Confident { threshold: 200, check: 150.0, sigma: 40.0 };
        let before = {
            let mut budget = Budget::open(&path, LIMIT).unwrap();
            ask(&mut budget, 40, 40).unwrap();
            budget.charge(&confident, 30, 20, accountant::check(150.0)).unwrap();
            let error = Budget::open(&path, LIMIT).err().unwrap().to_string();
            assert!(error.contains("in use"), "{error}");
            budget.spent()
        };
        assert_eq!((before.queries, before.answers), (70, 60));
        let mut text = std::fs::read_to_string(&path).unwrap();
        let whole = text.len();
        text.push_str(r#"{"mechanism":{"gaussian":{"sig"#);
        std::fs::write(&path, text).unwrap();
        let mut budget = Budget::open(&path, LIMIT).unwrap();
        let again = budget.spent();
        assert!((again.epsilon - before.epsilon).abs() < 1e-12);
        assert!((again.given_votes - before.given_votes).abs() < 1e-12 && again.given_votes > 0.0);
        assert_eq!((again.queries, again.answers), (70, 60));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), whole as u64);
        assert!(ask(&mut budget, 100, 100).is_err());
        ask(&mut budget, 10, 10).unwrap();
        drop(budget);
        assert_eq!(Budget::open(&path, LIMIT).unwrap().spent().answers, 70);
    }

    #[test]
    fn other_files_and_limits_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("budget.jsonl");
        let error = |limit| Budget::open(&path, limit).err().unwrap().to_string();
        drop(Budget::open(&path, LIMIT).unwrap());
        let other = error(Limit { delta: 1e-6, ..LIMIT });
        assert!(other.contains("line 1") && other.contains("budget.jsonl"), "{other}");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text + "{}\n").unwrap();
        assert!(error(LIMIT).contains("line 2"), "{}", error(LIMIT));
        for text in ["a,b\n", "a,b", "a,b\nc"] {
            std::fs::write(&path, text).unwrap();
            assert!(error(LIMIT).contains("line 1"), "{}", error(LIMIT));
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "untouched");
        }
        // A budget whose first line was cut short.
        std::fs::write(&path, "{\"format\":").unwrap();
        assert_eq!(Budget::open(&path, LIMIT).unwrap().spent(), Spent::default());
        assert!(error(Limit { epsilon: 0.0, ..LIMIT }).contains("epsilon is 0"));
        assert!(error(Limit { delta: 1.0, ..LIMIT }).contains("delta is 1"));
        assert!(Budget::open(&folder.path().join("no/such"), LIMIT).is_err());
    }
}
