//! Which model is the best, and when a run is over.

use tern_fl::Digest;
use tern_fl::plan::Scores;
use tern_fl::server::journal::CommittedRound;

use crate::setup::{Setup, loss};

/// What a finished run came to.
pub struct Verdict {
    /// The best model, which clients are told of.
    pub best: Digest,
    /// Whether patience ended it.
    pub impatient: bool,
}

/// The rounds so far.
pub(super) struct Scored<'a> {
    setup: &'a Setup,
    last: Option<u32>,
    /// The best score, its round and its model.
    best: Option<(f64, u32, Digest)>,
    /// As clients have it.
    model: Digest,
    over: bool,
}

impl<'a> Scored<'a> {
    pub fn new(setup: &'a Setup, model: Digest) -> Self {
        Scored { setup, last: None, best: None, model, over: false }
    }

    /// A round was committed, whose clients had these losses in training.
    pub fn round(&mut self, round: &CommittedRound, public: &[f32], losses: Vec<f64>) {
        let plan = &self.setup.plan;
        assert!(!self.over && round.round <= plan.rounds, "{round:?} of a run that is over");
        assert!(self.last.is_none_or(|last| last < round.round));
        let evaluation = &plan.evaluation;
        let expected = match evaluation.scores {
            Scores::Server => self.setup.evaluated.then(|| loss(public)),
            Scores::Clients if plan.secure.is_some() => round.training.get("loss").copied(),
            // All that evaluated measured the same.
            Scores::Clients if !round.evaluation.is_empty() => Some(loss(public)),
            Scores::Clients => Some(middle(losses)),
        };
        match (round.score, expected) {
            (Some(found), Some(expected)) => assert!((found - expected).abs() < 1e-9, "{round:?}"),
            (found, expected) => assert_eq!(found, expected, "{round:?}"),
        }
        let mut stale = 0;
        if let Some(score) = round.score {
            let worse = |(than, ..): (f64, u32, Digest)| evaluation.goal.is_better(score, than);
            if self.best.is_none_or(worse) {
                self.best = Some((score, round.round, round.public));
            }
            stale = self.best.map_or(0, |(_, best, _)| round.round - best);
        }
        let patience = evaluation.patience.is_some_and(|patience| stale >= patience);
        (self.last, self.model) = (Some(round.round), round.public);
        self.over = patience || round.round == plan.rounds;
    }

    pub fn verdict(self) -> Verdict {
        let plan = &self.setup.plan;
        // The last rounds of a secure run may be abandoned, once shares were revealed.
        assert!(self.over || plan.secure.is_some(), "it ended after round {:?}", self.last);
        let impatient = self.over && self.last.is_some_and(|last| last < plan.rounds);
        Verdict { best: self.best.map_or(self.model, |(.., model)| model), impatient }
    }
}

/// The mean without the quarter at either end, at least one where there are three.
fn middle(mut losses: Vec<f64>) -> f64 {
    losses.sort_by(f64::total_cmp);
    let cut = match losses.len() {
        0..=2 => 0,
        3..=4 => 1,
        more => more.div_ceil(4),
    };
    let kept = &losses[cut..losses.len() - cut];
    kept.iter().sum::<f64>() / kept.len() as f64
}
