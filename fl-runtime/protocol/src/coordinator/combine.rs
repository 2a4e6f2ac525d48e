//! The new model is being made; then the round is committed.

use std::collections::BTreeMap;
use std::sync::Arc;

use tern_secagg::Masks;

use super::evaluate::Evaluate;
use super::gather::Gather;
use super::{Best, Coordinator, Effect, Head, Phase, RoundRecord, Score, Upload};
use crate::metrics::{self, Metrics};
use crate::plan::Scores;
use crate::{ClientId, Millis, Refusal, Turn};

/// Waits for the aggregate of these uploads.
#[derive(Clone, Debug)]
pub(super) struct Combine {
    pub(super) uploads: BTreeMap<ClientId, Upload>,
    /// In a secure round.
    pub(super) unmasking: Option<Unmasking>,
}

/// What makes a masked total a sum.
#[derive(Clone, Debug)]
pub struct Unmasking {
    /// To be added.
    pub masks: Arc<Masks>,
    /// The most samples of a client, of which the others' weights are fractions.
    pub max_samples: u32,
}

impl Coordinator {
    pub(super) fn aggregated(
        &mut self,
        now: Millis,
        mut head: Head,
    ) -> Result<Vec<Effect>, Refusal> {
        let Phase::Combine(Combine { uploads, .. }) = &self.phase else {
            return Err(self.unexpected("aggregate"));
        };
        let uploads = uploads.clone();
        metrics::keep_named(&mut head.metrics, &self.plan.evaluation.metrics);
        if self.plan.evaluation.on_clients {
            let deadline = now.after(self.plan.cohort.step_ms);
            let evaluators = std::mem::take(&mut self.evaluators);
            self.phase = Phase::Evaluate(Evaluate::new(head, uploads, evaluators, deadline));
            return Ok(Vec::new());
        }
        Ok(self.commit(head, uploads, &[]))
    }

    /// The round is done, of whose model clients with so many samples measured this.
    pub(super) fn commit(
        &mut self,
        head: Head,
        uploads: BTreeMap<ClientId, Upload>,
        measured: &[(u32, Metrics)],
    ) -> Vec<Effect> {
        let evaluation = metrics::mean(measured.iter().map(|(samples, m)| (*samples, m)));
        let training = match &self.masking {
            Some(_) => head.training.clone(),
            None => metrics::mean(uploads.values().map(|u| (u.samples, &u.metrics))),
        };
        let metric = self.plan.evaluation.metric.as_str();
        let value = match self.plan.evaluation.scores {
            Scores::Server => head.metrics.get(metric).copied(),
            // Of a secure round nothing is known but the mean.
            Scores::Clients if self.masking.is_some() => training.get(metric).copied(),
            Scores::Clients => {
                let evaluated = metrics::middle(measured.iter().map(|(_, metrics)| metrics));
                let trained = || metrics::middle(uploads.values().map(|u| &u.metrics));
                evaluated.get(metric).copied().or_else(|| trained().get(metric).copied())
            }
        };
        let score = value.map(|value| self.score(value, head.public));
        self.counted.extend(uploads.keys().map(|client| (*client, self.turn)));
        self.base = Some(self.head.public);
        self.head = head.clone();
        self.known.clear();
        let turn = self.turn;
        let draw = std::mem::take(&mut self.draw);
        let record = RoundRecord { turn, head, draw, uploads, training, evaluation, score };
        let mut effects = vec![Effect::Committed(Box::new(record))];
        self.proceed(score.is_some());
        if self.finished() {
            effects.push(Effect::Finished);
        }
        effects
    }

    /// To the next round, if there is one. A model without a score is no reason to stop.
    pub(super) fn proceed(&mut self, scored: bool) {
        let round = self.turn.round;
        let stale = self.best.filter(|_| scored).map_or(0, |best| round - best.round);
        if self.plan.ends_after(round, stale) {
            self.phase = Phase::Finished;
        } else {
            self.turn = Turn::new(round + 1, 1);
            self.phase = Phase::Gather(Gather);
        }
    }

    fn score(&mut self, value: f64, model: crate::Digest) -> Score {
        let goal = self.plan.evaluation.goal;
        let better = self.best.is_none_or(|best| goal.is_better(value, best.score));
        if better {
            self.best = Some(Best { model, round: self.turn.round, score: value });
        }
        Score { value, best: better }
    }
}
