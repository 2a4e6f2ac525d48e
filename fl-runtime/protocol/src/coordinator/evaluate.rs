//! Clients whose updates were counted try the new model, and those that evaluate only.

use std::collections::{BTreeMap, BTreeSet};

use super::{Coordinator, Effect, Head, Phase, Progress, Upload};
use crate::metrics::{self, Metrics};
use crate::wire::{self, instruction::What};
use crate::{ClientId, Millis, Refusal};

/// Waits for evaluations.
#[derive(Clone, Debug)]
pub(super) struct Evaluate {
    pub(super) head: Head,
    uploads: BTreeMap<ClientId, Upload>,
    asked: BTreeSet<ClientId>,
    pub(super) deadline: Millis,
    /// Samples and metrics; none of those who won't evaluate.
    results: BTreeMap<ClientId, Option<(u32, Metrics)>>,
}

impl Evaluate {
    pub(super) fn new(
        head: Head,
        uploads: BTreeMap<ClientId, Upload>,
        evaluators: Vec<ClientId>,
        deadline: Millis,
    ) -> Self {
        let asked = uploads.keys().copied().chain(evaluators).collect();
        Evaluate { head, uploads, asked, deadline, results: BTreeMap::new() }
    }

    pub(super) fn progress(&self) -> Vec<(ClientId, Progress)> {
        let answered = |client: &ClientId| match self.results.get(client) {
            Some(Some(_)) => Progress::Answered,
            Some(None) => Progress::Declined,
            None => Progress::Asked,
        };
        self.asked.iter().map(|client| (*client, answered(client))).collect()
    }

    pub(super) fn instruction(&self, of: &Coordinator, client: &ClientId) -> Option<What> {
        if !self.asked.contains(client) || self.results.contains_key(client) {
            return None;
        }
        let bytes = |digest: crate::Digest| digest.0.to_vec();
        let base = self.head.difference.map(|_| bytes(of.head.public));
        let model = wire::Model {
            digest: bytes(self.head.public),
            base: base.unwrap_or_default(),
            difference: self.head.difference.map(bytes).unwrap_or_default(),
        };
        Some(What::Evaluate(wire::Evaluate { model: Some(model) }))
    }
}

impl Coordinator {
    pub(super) fn take_evaluation(
        &mut self,
        now: Millis,
        client: ClientId,
        evaluated: wire::Evaluated,
    ) -> Result<Vec<Effect>, Refusal> {
        let most = self.plan.updates.max_samples;
        let wire::Evaluated { samples, metrics } = evaluated;
        if samples > most {
            return Err(Refusal::Samples { given: samples, most });
        }
        metrics::check(&metrics, &self.plan.evaluation.metrics)?;
        self.answer(now, client, Some((samples, metrics)))
    }

    /// The other answers are enough.
    pub(super) fn evaluates_not(
        &mut self,
        now: Millis,
        client: ClientId,
    ) -> Result<Vec<Effect>, Refusal> {
        self.answer(now, client, None)
    }

    fn answer(
        &mut self,
        now: Millis,
        client: ClientId,
        result: Option<(u32, Metrics)>,
    ) -> Result<Vec<Effect>, Refusal> {
        let Phase::Evaluate(evaluate) = &mut self.phase else {
            return Err(self.unexpected("evaluation"));
        };
        if !evaluate.asked.contains(&client) {
            return Err(Refusal::NotSelected(client));
        }
        match evaluate.results.get(&client) {
            Some(earlier) if *earlier == result => return Err(Refusal::Repeated),
            Some(_) => return Err(Refusal::Conflict("evaluation")),
            None => evaluate.results.insert(client, result),
        };
        let done = evaluate.results.len() == evaluate.asked.len();
        Ok(if done { self.evaluated(now) } else { Vec::new() })
    }

    /// All have answered, or the time is over.
    pub(super) fn evaluated(&mut self, _now: Millis) -> Vec<Effect> {
        let Phase::Evaluate(evaluate) = &self.phase else { return Vec::new() };
        let Evaluate { head, uploads, results, .. } = evaluate.clone();
        let measured: Vec<_> = results.into_values().flatten().collect();
        self.commit(head, uploads, &measured)
    }
}
