//! Who answers clients' samples with labels, and keeps the account.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tern_protocol::{ClientId, Error, Result};

use super::accountant::Curve;
use super::aggregator::{Aggregator, Mechanism};
use super::budget::{Budget, Spent};
use super::models::Models;

/// Most samples of a request.
pub const MAX_SAMPLES: usize = 4096;

/// Sub-models that vote.
pub trait Voters {
    /// Features of a sample.
    fn width(&self) -> usize;

    /// Votes by class, for each row of `features`, and for no other.
    ///
    /// # Errors
    /// If they can't vote.
    fn votes(&mut self, features: &[f32]) -> Result<Vec<Vec<u32>>>;
}

impl Voters for Models {
    fn width(&self) -> usize {
        Models::width(self)
    }

    fn votes(&mut self, features: &[f32]) -> Result<Vec<Vec<u32>>> {
        let mut votes = vec![vec![0; self.classes()]; features.len() / Models::width(self)];
        for teacher in self.predict(features)? {
            for (votes, class) in votes.iter_mut().zip(teacher) {
                votes[class as usize] += 1;
            }
        }
        Ok(votes)
    }
}

impl<V: Voters + ?Sized> Voters for &mut V {
    fn width(&self) -> usize {
        (**self).width()
    }

    fn votes(&mut self, features: &[f32]) -> Result<Vec<Vec<u32>>> {
        (**self).votes(features)
    }
}

/// The same teachers for several services.
impl<V: Voters> Voters for Arc<Mutex<V>> {
    fn width(&self) -> usize {
        self.lock().unwrap_or_else(PoisonError::into_inner).width()
    }

    fn votes(&mut self, features: &[f32]) -> Result<Vec<Vec<u32>>> {
        self.lock().unwrap_or_else(PoisonError::into_inner).votes(features)
    }
}

/// What a client asked and got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Samples it sent.
    pub queries: u64,
    /// Labels it got.
    pub answers: u64,
}

/// The global side (2.3): teachers, their aggregator and the budget of what they may tell.
///
/// Several services of the same teachers compose: whoever asks them all learns what their budgets
/// allow together, so that a federation opens one.
pub struct Service<V> {
    voters: V,
    aggregator: Aggregator,
    budget: Budget,
    share: Option<u64>,
    clients: BTreeMap<ClientId, Tally>,
}

impl<V: Voters> Service<V> {
    /// Answers of these teachers by this aggregator, as long as the budget lasts.
    pub fn new(voters: V, aggregator: Aggregator, budget: Budget) -> Self {
        Service { voters, aggregator, budget, share: None, clients: BTreeMap::new() }
    }

    /// Refuses clients more than this many samples each, so that none spends all alone. It counts
    /// from when the service is made; only the budget outlives the process.
    pub fn with_share(self, share: u64) -> Self {
        Service { share: Some(share), ..self }
    }

    /// How votes become answers.
    pub fn mechanism(&self) -> &Mechanism {
        self.aggregator.mechanism()
    }

    /// The budget.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// What all answers cost so far.
    pub fn spent(&self) -> Spent {
        self.budget.spent()
    }

    /// What each client asked and got.
    pub fn clients(&self) -> &BTreeMap<ClientId, Tally> {
        &self.clients
    }

    /// Labels for the rows of `features`; none where the teachers don't agree enough. All or
    /// nothing: where the budget would not last if every one was answered, none is. The answers
    /// are charged for when this returns.
    ///
    /// # Errors
    /// [`Error::Budget`]; [`Error::Value`] for no rows, too many, rows of another width, a
    /// number that isn't finite or a client that had its share, and for votes on another number
    /// of samples; the voters'. A request that fails gets no labels, and the others' go on.
    pub fn answer(&mut self, client: ClientId, features: &[f32]) -> Result<Vec<Option<u32>>> {
        let width = self.voters.width();
        let rows = features.len() / width.max(1);
        if rows == 0 || rows * width != features.len() || rows > MAX_SAMPLES {
            let expected = format!("{width} for each of 1 to {MAX_SAMPLES} samples");
            return Err(Error::value("number of features", features.len(), expected));
        }
        if let Some(at) = features.iter().position(|x| !x.is_finite()) {
            let name = format!("feature {} of sample {}", at % width, at / width);
            return Err(Error::value(name, features[at], "a finite number"));
        }
        let tally = self.clients.get(&client).copied().unwrap_or_default();
        let queries = rows as u64;
        if let Some(share) = self.share.filter(|share| tally.queries + queries > *share) {
            let expected = format!("at most {share} in all, and had {}", tally.queries);
            return Err(Error::value(format!("samples of client {client}"), rows, expected));
        }
        let mechanism = *self.aggregator.mechanism();
        self.budget.affords(&mechanism, queries)?;

        let votes = self.voters.votes(features)?;
        if votes.len() != rows {
            return Err(Error::value("samples voted on", votes.len(), rows.to_string()));
        }
        let mut labels = Vec::with_capacity(rows);
        let mut given_votes = Curve::zero();
        for votes in &votes {
            let label = self.aggregator.answer(votes)?;
            given_votes = given_votes.plus(&mechanism.cost_given(votes, label.is_some()));
            labels.push(label);
        }
        let answers = labels.iter().flatten().count() as u64;
        self.budget.charge(&mechanism, queries, answers, given_votes)?;
        let tally = self.clients.entry(client).or_default();
        tally.queries += queries;
        tally.answers += answers;
        Ok(labels)
    }
}
