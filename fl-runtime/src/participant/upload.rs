//! From an update to a body on its way.

use super::{Action, Participant, Pending, Purpose, send};
use crate::coordinator::check_metrics;
use crate::plan::Encoding;
use crate::trainer::{Trained, coding_key};
use crate::update::{Codec, Scales};
use crate::wire::{self, message::Body};
use crate::{Digest, Error, Result, Turn};

impl Participant {
    pub(super) fn asked_to_train(&mut self, turn: Turn, train: wire::Train) -> Action {
        if self.kept.pending.as_ref().is_some_and(|pending| pending.turn == turn) {
            // Encoded already: the same bytes again, whatever happened to them.
            return Action::Upload;
        }
        if ![0, self.layout.tensors()].contains(&train.scales.len()) {
            return decline(turn, "scales of another model");
        }
        self.training = Some((turn, train.scales));
        self.obtain(Purpose::Train, turn, train.model)
    }

    pub(super) fn trained(&mut self, trained: Trained) -> Result<Vec<Action>> {
        let Some((turn, scales)) = self.training.take() else { return Ok(vec![Action::Wait]) };
        let Trained { mut update, samples, metrics } = trained;
        if let Err(error) = self.check(&update, samples) {
            tracing::warn!(%error, "an update that can't be sent");
            return Ok(vec![decline(turn, &error.to_string())]);
        }
        let bound = self.task.updates.bound;
        update.iter_mut().for_each(|x| *x = x.clamp(-bound, bound));
        let (body, residual) = self.encode(turn, &update, &scales)?;
        let metrics = if check_metrics(&metrics).is_ok() { metrics } else { Default::default() };
        let digest = Digest::of(&body);
        let pending = Pending { turn, digest, body, samples, metrics, residual };
        self.kept.pending = Some(pending);
        Ok(vec![Action::Save, Action::Upload])
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
        let most = self.task.updates.max_samples;
        if !(1..=most).contains(&samples) {
            return Err(Error::value("samples", samples, format!("1 to {most}")));
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
        // These mean that the round is elsewhere; the next instruction says where.
        let elsewhere = ["late", "early", "not_selected", "unexpected", "finished", "repeated"];
        if elsewhere.contains(&name) {
            return vec![Action::Wait];
        }
        match self.kept.pending.take() {
            // The same body would be refused again.
            Some(pending) => vec![Action::Save, decline(pending.turn, name)],
            None => vec![Action::Wait],
        }
    }
}

/// This attempt goes on without this client.
fn decline(turn: Turn, reason: &str) -> Action {
    send(turn, Body::Declined(wire::Declined { reason: reason.chars().take(200).collect() }))
}
