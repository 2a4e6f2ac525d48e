//! From an update to a body on its way.

use std::sync::Arc;

use super::secure::out;
use super::{Action, Assignment, Participant, Pending, Purpose, decline};
use crate::masking::job;
use crate::metrics::{self, Metrics};
use crate::plan::Encoding;
use crate::trainer::{Trained, coding_key};
use crate::update::{Codec, Scales};
use crate::{Aborted, Code, Digest, Error, Refusal, Result, Turn, wire};

/// Names of refusals that mean that the round is elsewhere; the next instruction says where.
pub(super) const ELSEWHERE: [&str; 6] =
    ["late", "early", "not_selected", "unexpected", "finished", "repeated"];

impl Participant {
    pub(super) fn asked_to_train(&mut self, turn: Turn, train: wire::Train) -> Action {
        if self.kept.pending.as_ref().is_some_and(|pending| pending.turn == turn) {
            // Encoded already: the same bytes again, whatever happened to them.
            return Action::Upload;
        }
        if ![0, self.layout.tensors()].contains(&train.scales.len()) {
            return decline(turn, "scales of another model");
        }
        if self.secure.is_some() {
            let model = train.model.as_ref().and_then(|model| Digest::from_slice(&model.digest));
            let Some(model) = model else { return decline(turn, "no model") };
            let job = job(&model, &train.scales);
            if let Err(error) = self.partners(turn, &train.partners, model, job) {
                return out(turn, &error);
            }
        }
        let wire::Train { scales, max_samples, .. } = train;
        self.training = Some(Assignment { turn, scales, max_samples });
        self.obtain(Purpose::Train, turn, train.model)
    }

    pub(super) fn trained(&mut self, trained: Trained) -> Result<Vec<Action>> {
        let Some(assignment) = self.training.take() else { return Ok(vec![Action::Wait]) };
        let turn = assignment.turn;
        let Trained { mut update, mut samples, mut metrics, optimizer } = trained;
        samples = self.counted_samples(&assignment, samples);
        metrics::keep_named(&mut metrics, &self.task.metrics);
        let checked = self
            .check(&update, samples)
            .and_then(|()| Ok(metrics::check(&metrics, &self.task.metrics)?))
            .and_then(|()| optimizer.check(&self.task.training, self.layout.elements()));
        if let Err(error) = checked {
            tracing::warn!(%error, "an update that can't be sent");
            return Ok(vec![decline(turn, &error.to_string())]);
        }
        self.task.updates.clip(&mut update);
        let signed = self.secure.as_ref().and_then(|secure| secure.samples(turn));
        let (body, residual) = match (self.secure.is_some(), signed) {
            (true, Some((signed, most))) => {
                samples = signed;
                // Told in the sum alone.
                let metrics = std::mem::take(&mut metrics);
                self.encode_masked(&assignment, update, (signed, most), &metrics)?
            }
            (true, None) => return Err(Aborted::Elsewhere(turn).into()),
            (false, _) => self.encode(turn, &update, &assignment.scales)?,
        };
        let digest = Digest::of(&body);
        let included = self.secure.as_ref().map(|secure| secure.included(turn)).unwrap_or_default();
        self.kept.pending = Some(Pending {
            turn,
            digest,
            body,
            samples,
            metrics,
            residual,
            optimizer: Arc::new(optimizer),
            included,
        });
        Ok(vec![Action::Save, Action::Upload])
    }

    /// Of so many samples, those that this client counts for.
    fn counted_samples(&self, assignment: &Assignment, samples: u32) -> u32 {
        let most = match assignment.max_samples {
            0 => self.task.updates.max_samples,
            most => most.min(self.task.updates.max_samples),
        };
        if samples > most {
            tracing::info!(samples, most, "counts for fewer samples than it has");
        }
        samples.min(most)
    }

    fn check(&self, update: &[f32], samples: u32) -> Result<()> {
        if update.len() != self.layout.elements() {
            let expected = format!("{} elements", self.layout.elements());
            return Err(Error::value("update", update.len(), expected));
        }
        if let Some(at) = update.iter().position(|x| !x.is_finite()) {
            let name = format!("element {at} of the update");
            return Err(Error::value(name, update[at], "a finite number"));
        }
        if samples == 0 {
            return Err(Error::value("samples", samples, "at least 1"));
        }
        Ok(())
    }

    /// The body, and the residual it leaves.
    fn encode(&self, turn: Turn, update: &[f32], scales: &[f32]) -> Result<(Vec<u8>, Vec<f32>)> {
        let key = coding_key(&self.task.run, turn, &self.client);
        match self.task.updates.uplink {
            Encoding::Full => Ok((Codec::full(update), Vec::new())),
            Encoding::Half => Ok((Codec::half(update), Vec::new())),
            Encoding::Ternary => {
                let scales = match scales {
                    [] => Scales::Own(self.task.updates.ternary),
                    given => Scales::Given(given),
                };
                self.codec.ternary(update, &self.residual(), scales, key)
            }
        }
    }

    /// Likewise, masked. It counts for samples of the most that a member has.
    fn encode_masked(
        &mut self,
        assignment: &Assignment,
        mut update: Vec<f32>,
        (samples, most): (u32, u32),
        metrics: &Metrics,
    ) -> Result<(Vec<u8>, Vec<f32>)> {
        let turn = assignment.turn;
        let masks = self.masks(turn)?;
        let Some(masking) = self.secure.as_ref().map(|secure| &secure.masking) else {
            return Err(Aborted::Elsewhere(turn).into());
        };
        let (mut words, residual) = match masking.code {
            Code::Fixed(code) => {
                let weight = samples as f32 / most as f32;
                update.iter_mut().for_each(|x| *x *= weight);
                (self.codec.masked(&update, code, &masks)?, Vec::new())
            }
            Code::Lanes(cohort) => {
                let key = coding_key(&self.task.run, turn, &self.client);
                let (residual, scales) = (self.residual(), &assignment.scales);
                self.codec.masked_ternary(&update, &residual, scales, key, cohort, &masks)?
            }
        };
        let mut measured = masking.measured.encode(samples, metrics);
        masks.add_from(words.len(), &mut measured);
        words.extend(measured);
        let body = masking.packing.pack(&words);
        Ok((body.map_err(Aborted::from)?, residual))
    }

    /// What codes have left so far.
    fn residual(&self) -> Vec<f32> {
        match self.kept.residual.is_empty() {
            true => vec![0.0; self.layout.elements()],
            false => self.kept.residual.clone(),
        }
    }

    /// A message or upload was refused for good.
    pub(super) fn refused(&mut self, name: &str) -> Vec<Action> {
        tracing::info!(name, "refused");
        if ELSEWHERE.contains(&name) || Refusal::RESUMED.contains(&name) {
            return vec![Action::Wait];
        }
        match self.kept.pending.take() {
            // The same body would be refused again.
            Some(pending) => vec![Action::Save, decline(pending.turn, name)],
            None => vec![Action::Wait],
        }
    }
}
