//! Waiting for clients, and drawing the cohort.

use super::advertise::Advertise;
use super::collect::Collect;
use super::{Candidate, Coordinator, Draw, Effect, Phase};
use crate::{Millis, Refusal, Salt};

/// Nobody is asked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gather;

impl Coordinator {
    /// Draws the cohort.
    pub(super) fn start(
        &mut self,
        now: Millis,
        online: &[Candidate],
        salt: Salt,
    ) -> Result<Vec<Effect>, Refusal> {
        if !self.wants_cohort() {
            return Err(self.unexpected("start"));
        }
        if !online.is_sorted_by(|a, b| a.client < b.client) {
            return Err(Refusal::Malformed("list of clients"));
        }
        let admitted = |c: &Candidate| !self.excluded.contains_key(&c.client);
        let (candidates, others): (Vec<Candidate>, Vec<Candidate>) =
            online.iter().copied().filter(admitted).partition(|c| c.samples > 0);
        let needed = self.plan.cohort.minimum as usize;
        if candidates.len() < needed {
            return Err(Refusal::TooFew { online: candidates.len(), needed });
        }
        self.evaluators = others.iter().map(|other| other.client).collect();
        let asked = self.plan.cohort.asked() as usize;
        self.draw = Draw::new(candidates, asked, self.plan.cohort.selection, salt, self.turn);
        let cohort = &self.draw.drawn;
        self.phase = match &self.masking {
            Some(masking) => {
                let session = masking.session(&self.run, &self.task, self.turn);
                let deadline = now.after(self.plan.cohort.step_ms);
                Phase::Advertise(Advertise::new(session, cohort, deadline))
            }
            None => Phase::Collect(Collect::new(&self.plan, now, cohort)),
        };
        Ok(Vec::new())
    }
}
