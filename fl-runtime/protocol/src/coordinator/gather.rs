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
        let cohort = self.draw_cohort(candidates, salt);
        self.phase = match &self.masking {
            Some(masking) => {
                let session = masking.session(&self.run, &self.task, self.turn);
                let deadline = now.after(self.plan.cohort.step_ms);
                Phase::Advertise(Advertise::new(session, &cohort, deadline))
            }
            None => Phase::Collect(Collect::new(&self.plan, now, &cohort)),
        };
        Ok(Vec::new())
    }

    /// Draws from the candidates. Where the sum over a set of clients was to be unmasked, those who
    /// revealed shares take part with each other alone, as long as the model stays the same. So by
    /// turns the whole set meets again, with others who fill up the session and are not summed; the
    /// others meet without it; or it is left to chance, since not all of the set need have revealed.
    fn draw_cohort(&mut self, candidates: Vec<Candidate>, salt: Salt) -> Vec<Candidate> {
        let cohort = &self.plan.cohort;
        let draw = |from: Vec<Candidate>, count: usize| {
            Draw::new(from, count, cohort.selection, salt, self.turn)
        };
        let is_bound = |candidate: &Candidate| self.bound.contains(&candidate.client);
        let (those, others): (Vec<Candidate>, Vec<Candidate>) =
            candidates.iter().copied().partition(is_bound);
        let bound = !self.bound.is_empty();
        // A session has three members at least.
        let enough = others.len() >= (cohort.minimum as usize).max(3);
        let drawn = match self.turn.attempt % 3 {
            1 if bound && those.len() == self.bound.len() => {
                let room = (cohort.size as usize).saturating_sub(those.len());
                let rest = draw(others, room);
                Draw { drawn: [those, rest.drawn].concat(), ..rest }
            }
            2 if bound && enough => draw(others, cohort.asked() as usize),
            _ => draw(candidates, cohort.asked() as usize),
        };
        self.draw = drawn;
        self.draw.drawn.clone()
    }
}
