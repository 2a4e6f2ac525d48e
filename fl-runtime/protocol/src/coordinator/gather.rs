//! Waiting for clients, and drawing the cohort.

use std::collections::BTreeSet;

use tern_secagg::Parameters;

use super::advertise::Advertise;
use super::collect::Collect;
use super::known::Company;
use super::{Candidate, Coordinator, Draw, Effect, Phase};
use crate::{ClientId, Millis, Refusal, Salt};

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
        if let Some(effects) = self.end_as_told(online) {
            return Ok(effects);
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

    /// Draws from the candidates. Where the sum over a set of clients may be known, those who
    /// revealed shares for it take part with each other alone, as long as the model stays the same.
    /// So by turns a whole set meets again, with others who fill up the session and are not summed;
    /// the others meet without any set; or it is left to chance, since not all of a set need have
    /// revealed.
    fn draw_cohort(&mut self, candidates: Vec<Candidate>, salt: Salt) -> Vec<Candidate> {
        let cohort = &self.plan.cohort;
        let draw = |from: Vec<Candidate>, count: usize| {
            Draw::new(from, count, cohort.selection, salt, self.turn)
        };
        let online: BTreeSet<ClientId> = candidates.iter().map(|c| c.client).collect();
        let others: Vec<Candidate> =
            candidates.iter().copied().filter(|c| !self.known.holds(&c.client)).collect();
        // A session has three members at least.
        let enough = others.len() >= (cohort.minimum as usize).max(3);
        let company = self.known.company(self.turn.attempt, enough);
        let company = company.filter(|company| match company {
            Company::Set(set) => set.is_subset(&online),
            Company::Others => true,
        });
        let mut alone = None;
        self.draw = match company {
            Some(Company::Set(set)) => {
                let (those, rest): (Vec<Candidate>, Vec<Candidate>) =
                    candidates.iter().copied().partition(|c| set.contains(&c.client));
                alone = Some(set.clone());
                let rest = draw(rest, self.room_beside(those.len()));
                Draw { drawn: [those, rest.drawn].concat(), ..rest }
            }
            Some(Company::Others) => draw(others, cohort.asked() as usize),
            None => draw(candidates, cohort.asked() as usize),
        };
        self.known.meet(alone);
        self.draw.drawn.clone()
    }

    /// How many others a session may have beside those that it sums: the more, the more of them may
    /// be corrupt, and with too many of them those would be too few survivors.
    fn room_beside(&self, summed: usize) -> usize {
        let Some(secure) = &self.plan.secure else { return 0 };
        let fits = |members: &usize| {
            let session = Parameters::choose(*members, &secure.assumptions());
            session.is_ok_and(|session| session.survivors <= summed)
        };
        let size = self.plan.cohort.size as usize;
        (summed..=size).rev().find(fits).map_or(0, |members| members - summed)
    }
}
