//! Waiting for clients, and drawing the cohort.

use sha2::{Digest as _, Sha256};

use super::advertise::Advertise;
use super::collect::Collect;
use super::{Candidate, Coordinator, Effect, Phase};
use crate::plan::Selection;
use crate::{ClientId, Millis, Refusal, Turn};

/// Nobody is asked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gather;

impl Coordinator {
    /// Draws the cohort.
    pub(super) fn start(
        &mut self,
        now: Millis,
        online: &[Candidate],
    ) -> Result<Vec<Effect>, Refusal> {
        if !self.wants_cohort() {
            return Err(self.unexpected("start"));
        }
        if !online.is_sorted_by(|a, b| a.client < b.client) {
            return Err(Refusal::Malformed("list of clients"));
        }
        let (candidates, others): (Vec<Candidate>, Vec<Candidate>) =
            online.iter().copied().partition(|c| c.samples > 0);
        let needed = self.plan.cohort.minimum as usize;
        if candidates.len() < needed {
            return Err(Refusal::TooFew { online: candidates.len(), needed });
        }
        self.evaluators = others.iter().map(|other| other.client).collect();
        let cohort = self.draw(candidates);
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
    fn draw(&self, candidates: Vec<Candidate>) -> Vec<Candidate> {
        let cohort = &self.plan.cohort;
        let select = |from: Vec<Candidate>, count: usize| {
            select(from, count, cohort.selection, self.plan.seed, self.turn)
        };
        let is_bound = |candidate: &Candidate| self.bound.contains(&candidate.client);
        let (those, others): (Vec<Candidate>, Vec<Candidate>) =
            candidates.iter().copied().partition(is_bound);
        let bound = !self.bound.is_empty();
        // A session has three members at least.
        let enough = others.len() >= (cohort.minimum as usize).max(3);
        match self.turn.attempt % 3 {
            1 if bound && those.len() == self.bound.len() => {
                let room = (cohort.size as usize).saturating_sub(those.len());
                [those, select(others, room)].concat()
            }
            2 if bound && enough => select(others, cohort.asked() as usize),
            _ => select(candidates, cohort.asked() as usize),
        }
    }
}

/// `asked` of the candidates, in the order drawn. Each gets a number from seed, turn and its key
/// alone; the smallest win. With weights: exponential variables of rate w (Efraimidis and
/// Spirakis 2006), which is drawing one by one with chances in proportion to w.
pub(super) fn select(
    candidates: Vec<Candidate>,
    asked: usize,
    selection: Selection,
    seed: u32,
    turn: Turn,
) -> Vec<Candidate> {
    let mut keyed: Vec<(f64, Candidate)> = candidates
        .into_iter()
        .map(|candidate| {
            let uniform = uniform(seed, turn, &candidate.client);
            let weight = match selection {
                Selection::Uniform => 1.0,
                Selection::BySamples => f64::from(candidate.samples),
            };
            (-uniform.ln() / weight, candidate)
        })
        .collect();
    keyed.sort_by(|(a, x), (b, y)| a.total_cmp(b).then(x.client.cmp(&y.client)));
    keyed.truncate(asked);
    keyed.into_iter().map(|(_, candidate)| candidate).collect()
}

/// Uniform in (0, 1].
fn uniform(seed: u32, turn: Turn, client: &ClientId) -> f64 {
    let mut hasher = Sha256::new();
    hasher.update(b"tern cohort");
    for number in [seed, turn.round, turn.attempt] {
        hasher.update(number.to_le_bytes());
    }
    hasher.update(client.0);
    let digest = hasher.finalize();
    let high = digest.iter().take(7).fold(0u64, |bits, byte| bits << 8 | u64::from(*byte)) >> 3;
    (high + 1) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(count: u32) -> Vec<Candidate> {
        let candidate = |i: u32| {
            let mut key = [0; 32];
            key[..4].copy_from_slice(&i.to_be_bytes());
            Candidate { client: ClientId(key), samples: 1 + i }
        };
        (0..count).map(candidate).collect()
    }

    #[test]
    fn everyone_has_the_same_chance_or_one_by_samples() {
        let rounds = 4_000;
        for selection in [Selection::Uniform, Selection::BySamples] {
            let mut counts = [0; 4];
            for round in 0..rounds {
                let turn = Turn::new(round, 1);
                for winner in select(candidates(4), 1, selection, 7, turn) {
                    counts[winner.samples as usize - 1] += 1;
                }
            }
            for (i, count) in counts.into_iter().enumerate() {
                let expected = match selection {
                    Selection::Uniform => 0.25,
                    Selection::BySamples => (i as f64 + 1.0) / 10.0,
                };
                // Five standard deviations.
                let slack = 5.0 * (expected * (1.0 - expected) / f64::from(rounds)).sqrt();
                let share = f64::from(count) / f64::from(rounds);
                assert!((share - expected).abs() < slack, "{selection:?} {i}: {share}");
            }
        }
    }

    #[test]
    fn the_draw_depends_on_seed_and_turn_alone() {
        let draw = |seed, turn| select(candidates(50), 5, Selection::Uniform, seed, turn);
        let first = draw(1, Turn::new(1, 1));
        assert_eq!(first.len(), 5);
        assert_eq!(first, draw(1, Turn::new(1, 1)));
        assert_ne!(first, draw(2, Turn::new(1, 1)));
        assert_ne!(first, draw(1, Turn::new(1, 2)));
        // Who else is online changes nothing for those who were drawn.
        let mut fewer = candidates(50);
        fewer.retain(|c| first.contains(c) || c.samples % 2 == 0);
        assert_eq!(select(fewer, 5, Selection::Uniform, 1, Turn::new(1, 1)), first);
    }
}
